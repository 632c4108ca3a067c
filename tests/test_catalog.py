"""The catalog: everything is found by name, and a wrong name gets the nearest."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from agentlab.catalog import (
    CatalogError,
    data_folders,
    find_class,
    find_data,
    find_server,
    load_task,
    server_names,
    task_head,
    task_heads,
    task_names,
)
from agentlab.errors import nearest
from agentlab.hub import digest
from agentlab.law import parse
from agentlab.types import AgentlabError, BackendError, Task, Variable

TASK = """
[task]
title = "A made-up law"
scale = "n*d"
run = "run_id"
[[feature]]
name = "n"
unit = "parameters"
box = [1e6, 1e12]
monotone = "-"
[[feature]]
name = "d"
log = false
[target]
columns = ["loss"]
[law]
max_params = 5
residual = "log"
bounds = { alpha = [0, 2] }
[data]
train = "data/runs.csv"
holdout = "data/holdout.csv"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task `tiny` in ./tasks of the working folder."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "tasks" / "tiny"
    (place / "data").mkdir(parents=True)
    (place / "task.toml").write_text(TASK)
    (place / "data" / "runs.csv").write_text("run_id,n,d,loss\n0,1e6,1e8,3\n")
    return place


def test_a_task_is_read_whole(folder: Path) -> None:
    (folder / "reference.toml").write_text(
        'formula = "E + A/n**a"\nsource = "nobody"\n[params]\nE = 1\nA = 2\na = 0.3\n'
    )
    task = load_task("tiny")
    assert isinstance(task, Task)
    assert task.features == (
        Variable("n", unit="parameters", box=(1e6, 1e12), monotone="-"),
        Variable("d", log=False),
    )
    assert (task.name, task.targets, task.scale, task.residual, task.max_params) == ("tiny", ("loss",), "n*d", "log", 5)
    assert task.bounds == {"alpha": (0.0, 2.0)}
    assert Path(task.train_file) == folder / "data" / "runs.csv"
    assert task.holdout_file is None  # the file is not there, which is no error
    assert task.reference is not None
    assert task.reference.params == {"E": 1.0, "A": 2.0, "a": 0.3}


def test_a_task_is_found_by_name_and_by_folder(folder: Path) -> None:
    assert "tiny" in task_names()
    assert load_task(str(folder)) == load_task("tiny")


def test_data_outside_the_task_is_looked_for_in_the_data_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data" / "runs.csv").rename(folder.parents[1] / "elsewhere.csv")
    (folder / "task.toml").write_text(TASK.replace("data/runs.csv", "sets/runs.csv"))
    with pytest.raises(AgentlabError, match=r"data\.train = 'sets/runs\.csv' is not in .* set AGENTLAB_DATA"):
        load_task("tiny")
    (folder.parents[1] / "cache" / "sets").mkdir(parents=True)
    (folder.parents[1] / "elsewhere.csv").rename(folder.parents[1] / "cache" / "sets" / "runs.csv")
    monkeypatch.setenv("AGENTLAB_DATA", "nowhere:cache")
    assert load_task("tiny").train_file.endswith("cache/sets/runs.csv")
    assert find_data("sets/runs.csv") == Path("cache/sets/runs.csv")
    assert find_data("sets/none.csv") is None


def test_the_users_cache_is_the_default_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTLAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert data_folders() == [Path("/somewhere/agentlab/data")]


BAD_TASKS = {
    "task=tny: no such task; did you mean 'tiny'?": ("tny", "", ""),
    "not TOML: ": ("tiny", "[task]", "[task"),
    "feature is missing; add it": ("tiny", "[[feature]]", "[[features]]"),
    "law.max_param is not a known key; known there are: max_params, residual, bounds": (
        "tiny", "max_params", "max_param"),
    "law.max_params = 'many': input should be a valid integer": ("tiny", "max_params = 5", 'max_params = "many"'),
    "law.residual = 'logs': input should be 'log' or 'plain'": ("tiny", '"log"', '"logs"'),
    "feature[1].monotone = 'down'": ("tiny", '"-"', '"down"'),
    "feature[2].name = 'n' stands twice": ("tiny", 'name = "d"', 'name = "n"'),
    "'n' is a feature and a target": ("tiny", '["loss"]', '["n"]'),
    "box of feature 'n' is [1000000000000.0, 1000000.0]": ("tiny", "[1e6, 1e12]", "[1e12, 1e6]"),
    "law.bounds.alpha is [2.0, 0.0]": ("tiny", "[0, 2]", "[2, 0]"),
    "target.columns = []": ("tiny", '["loss"]', "[]"),
    "data.train is missing; add it": ("tiny", "train =", "#"),
}  # fmt: skip


@pytest.mark.parametrize("words", BAD_TASKS)
def test_a_bad_task_is_told_in_one_line(words: str, folder: Path) -> None:
    name, old, new = BAD_TASKS[words]
    (folder / "task.toml").write_text(TASK.replace(old, new) if old else TASK)
    with pytest.raises(AgentlabError) as caught:
        load_task(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_folder_without_a_task_file_is_told(folder: Path) -> None:
    (folder / "task.toml").unlink()
    with pytest.raises(CatalogError, match=r"the folder has no task\.toml; write one"):
        load_task(str(folder))


def test_every_tool_server_is_found_by_its_file(checkout: Path) -> None:
    assert server_names() == sorted(p.stem for p in checkout.glob("tools/[a-z]*.py"))
    assert find_server("fit") == "agentlab.tools.fit"
    assert find_server("json.tool") == "json.tool"
    with pytest.raises(CatalogError, match=r"tool server=fti: no such tool server; did you mean 'fit'\?"):
        find_server("fti")


def test_a_class_is_found_by_module_and_name() -> None:
    assert find_class("proposer", "fractions:Fraction", "agentlab.proposers", "X").__name__ == "Fraction"
    with pytest.raises(CatalogError, match="fractions has no class 'Fractoin'; did you mean 'Fraction'"):
        find_class("proposer", "fractions:Fractoin", "agentlab.proposers", "X")
    with pytest.raises(CatalogError, match="no module 'nowhere'"):
        find_class("proposer", "nowhere.at_all:X", "agentlab.proposers", "X")


def test_a_plug_in_that_lacks_a_package_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy_plugin.py").write_text("import no_such_package_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match="needy_plugin needs the package 'no_such_package_anywhere'"):
        find_class("sandbox", "needy_plugin:Sandbox", "agentlab.envs", "Sandbox")


def test_the_nearest_name_is_offered_else_all() -> None:
    assert nearest("LOSS", ["loss", "tokens"]) == "did you mean 'loss'?"
    assert nearest("moe", ["dense_leverage", "moe_leverage"]) == "did you mean 'moe_leverage'?"
    assert nearest("zzz", ["loss", "tokens"]) == "there is: loss, tokens"
    assert nearest("zzz", []) == "there is none"


def test_tasks_whose_rows_are_elsewhere_are_listed_and_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLAB_DATA", "/nowhere")
    heads = {h.name: h for h in task_heads()}
    assert {name for name, h in heads.items() if not h.here} == {n for n in heads if n.startswith("sldbench_")}
    vocab = heads["sldbench_vocab"]
    assert vocab.columns == ("non_vocab_parameters", "vocab_size", "num_characters", "unigram_normalized_loss")
    assert vocab.source is not None
    assert (vocab.source.train, vocab.source.test) == (1080, 120)
    with pytest.raises(AgentlabError, match="agentlab data get sldbench_vocab"):
        load_task("sldbench_vocab")


@pytest.mark.parametrize("name", [n for n in task_names() if n.startswith("sldbench_")])
def test_an_sldbench_task_has_its_groups_targets_cap_and_published_law(
    name: str, monkeypatch: pytest.MonkeyPatch, third_party_data: Path
) -> None:
    monkeypatch.setenv("AGENTLAB_DATA", str(third_party_data))
    caps = {
        "parallel": 4,
        "vocab": 7,
        "sft": 4,
        "domain_mixture": 7,
        "moe": 6,
        "data_constrained": 7,
        "easy_question": 6,
    }
    task = load_task(name)
    short = name.removeprefix("sldbench_")
    assert task.max_params == caps.get(short, task.max_params)
    assert len(task.targets) == (5 if short == "domain_mixture" else 1)
    assert task.reference is not None
    assert parse(task.reference.formula, task.names).n_params <= task.max_params
    head = task_head(name)
    assert head.source is not None
    if head.source.digest:
        with Path(task.train_file).open(newline="") as file:
            assert digest(list(csv.DictReader(file)), head.columns) == head.source.digest
