"""The command line: every verb, what it prints next, and what it says of a mistake."""

import json
import subprocess
from pathlib import Path

import pytest
from test_discover import agentlab, words, write_csv
from test_selection import planted

from agentlab.law import parse
from agentlab.trackers import tracked


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs.csv and one finished run, runs/runs.csv-001."""
    folder = tmp_path_factory.mktemp("cli")
    _, rows = planted(48, seed=5)
    data = write_csv(folder / "runs.csv", {k: v.tolist() for k, v in {**rows.columns, **rows.targets}.items()})
    agentlab("discover", *words(data, "budget.candidates=8", "window=8"), "--plain", cwd=folder)
    return folder


def test_a_finished_run_is_listed_shown_and_names_the_next_command(place: Path) -> None:
    listed = agentlab("runs", "list", cwd=place).stdout
    assert "runs.csv-001" in listed
    assert "done" in listed
    shown = agentlab("runs", "show", "runs.csv-001", cwd=place).stdout
    for part in ("law ", "90% interval", "inner extrapolation", "hold-out", "verdict", "entry "):
        assert part in shown
    assert shown.strip().splitlines()[-1].startswith("next: agentlab predict")
    result = json.loads(agentlab("runs", "show", "runs.csv-001", "--json", cwd=place).stdout)
    again = agentlab("runs", "resume", "runs.csv-001", "--json", "--plain", cwd=place).stdout
    assert json.loads(again.splitlines()[-1]) == result


def test_predictions_are_the_laws_values_at_the_points(place: Path) -> None:
    write_csv(place / "points.csv", {"N": [1e9, 2e10], "D": [1e11, 1e12]})
    answer = json.loads(agentlab("predict", "runs.csv-001", "data=points.csv", "--json", cwd=place).stdout)
    found = json.loads(agentlab("runs", "show", "runs.csv-001", "--json", cwd=place).stdout)["law"]
    law = parse(found["formula"], ("N", "D"))
    source = law.to_python(found["params"])
    space: dict[str, object] = {}
    # The exported law is the second opinion; it is our own text, printed from a checked tree.
    exec(compile(source, "law", "exec"), space)  # noqa: S102
    expected = space["predict"]({"N": [1e9, 2e10], "D": [1e11, 1e12]}, "all", "loss")  # type: ignore[operator]
    assert answer["columns"]["loss"] == pytest.approx(list(expected))
    table = agentlab("predict", "runs.csv-001", "data=points.csv", cwd=place).stdout.splitlines()
    assert table[0] == "N,D,loss"
    assert len(table) == 3


def test_a_formula_of_ones_own_is_fitted_with_intervals(place: Path) -> None:
    given = ("fit", "runs.csv", "target=loss", "features=N,D", "--law", "E + A/N**a + B/D**b")
    answer = json.loads(agentlab(*given, "--json", cwd=place).stdout)
    assert answer["n_params"] == 5
    low, high = answer["intervals"]["all"]["loss"]["E"]
    assert low <= answer["params"]["all"]["loss"]["E"] <= high
    assert abs((low + high) / 2 - 1.69) < 0.2
    assert "90% interval" in agentlab(*given, cwd=place).stdout


def test_a_dry_run_says_what_would_happen_and_makes_nothing(place: Path) -> None:
    before = sorted((place / "runs").iterdir())
    said = agentlab("discover", *words(place / "runs.csv"), "--dry-run", cwd=place).stdout
    assert "rows to search on" in said
    assert "hold-out" in said
    assert sorted((place / "runs").iterdir()) == before


def test_tasks_and_tools_are_listed_and_a_tool_can_be_called(place: Path) -> None:
    names = [t["name"] for t in json.loads(agentlab("tasks", "--json", cwd=place).stdout)]
    assert "moe_leverage" in names
    page = agentlab("tasks", "show", "moe_leverage", cwd=place).stdout
    assert "published law" in page
    assert page.strip().splitlines()[-1] == "next: agentlab discover task=moe_leverage"
    tools = [t["name"] for t in json.loads(agentlab("tools", "list", "--json", cwd=place).stdout)]
    assert {"fit.laws", "train.start", "data.leverage"} <= set(tools)
    called = agentlab("tools", "call", "fit.law", "data=runs/runs.csv-001", "formula=E + A/N**a", cwd=place)
    assert json.loads(called.stdout)["n_params"] == 3


def test_the_doctor_examines_the_machine(place: Path) -> None:
    findings = json.loads(agentlab("doctor", "--json", cwd=place).stdout)
    assert {"agentlab", "python", "cores", "training", "data"} <= findings.keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("discovr",), "discovr"),
        (("discover",), "task="),
        (("discover", "task=moe_leverage", "data=runs.csv"), "task="),
        (("discover", "--fast"), "--fast"),
        (("discover", "data=run.csv", "target=loss", "features=N,D"), "runs.csv"),
        (("discover", "data=runs.csv", "target=loss", "features=N,E"), "'E'"),
        (("fit", "runs.csv", "target=loss", "features=N,D"), "--law"),
        (("fit", "runs.csv", "target=loss", "features=N,D", "--law", "E + A/N**"), "not"),
        (("fit", "runs.csv", "target=loss", "features=N,D", "--law", "__import__('os')"), "not"),
        (("runs", "show", "nothing"), "no run 'nothing'"),
        (("predict", "runs.csv-001", "points.csv"), "write for example data="),
        (("predict", "runs.csv-001", "data=nowhere.csv"), "nowhere.csv"),
        (("tasks", "shw"), "show NAME"),
        (("tasks", "show", "moe"), "moe_leverage"),
        (("tools", "call", "fitt.law"), "fitt"),
    ],
)
def test_a_mistake_gets_one_line_and_no_traceback(place: Path, given: tuple[str, ...], said: str) -> None:
    done: subprocess.CompletedProcess[str] = agentlab(*given, cwd=place, check=False)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_tool_that_refuses_ends_with_code_4(place: Path) -> None:
    done = agentlab("tools", "call", "fit.law", "data=nowhere", "formula=a*N", cwd=place, check=False)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1


def test_what_a_tracker_is_told_is_what_the_trace_says(place: Path) -> None:
    folder = place / "runs" / "runs.csv-001"
    told = tracked(folder)
    found = json.loads(agentlab("runs", "show", "runs.csv-001", "--json", cwd=place).stdout)
    assert told.figures["holdout.r2"] == found["score"]["holdout"]["r2"]
    assert told.figures["law.n_params"] == found["law"]["n_params"]
    assert told.figures["params.all.loss.E"] == found["law"]["params"]["all"]["loss"]["E"]
    assert told.tags["agentlab.formula"] == found["law"]["formula"]
    best = [p.value for p in told.curves if p.name == "best.objective"]
    assert best == sorted(best, reverse=True)
    assert len(best) >= 2
    assert told.settings["budget.candidates"] == "8"
    assert {p.name for p in told.files} == {"config.json", "trace.jsonl", "law.json", "holdout.json"}
    assert not any(p.suffix == ".npz" for p in told.files)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--mlflow", "http://127.0.0.1:9", "--out", "spans.jsonl"), "--out and --mlflow are two ways"),
        (("--wandb", "laws", "--mlflow", "http://127.0.0.1:9"), "--mlflow and --wandb are two ways"),
        (("--mlflow", "file:mlruns"), "give the address of a server"),
    ],
)
def test_an_export_that_cannot_be_is_one_line(place: Path, given: tuple[str, ...], said: str) -> None:
    done = agentlab("runs", "export", "runs.csv-001", *given, cwd=place, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
