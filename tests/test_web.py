"""The page as data: what it holds of a run, what it never holds, and that it is one file that fetches nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web_runs import HOSTILE, LAW, write_run

from agentlab.replay import open_run
from agentlab.run_rows import read_sealed
from agentlab.web.bundle import INDEX, STATIC, packed, page, unpacked, write_bundle
from agentlab.web.page import page_run
from agentlab.web.words import coded, mathml, plain

BOARD: dict[str, Any] = {"rows": [], "missing": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 120 candidates (synthetic)."""
    return write_run(tmp_path_factory.mktemp("web") / "planted-001", 120, done=True)


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    """What the page is told of it."""
    return page_run(open_run(folder))


@pytest.fixture(scope="module")
def text(told: dict[str, Any]) -> str:
    """The page."""
    return page([told], BOARD)


def blocks(text: str) -> dict[str, str]:
    return dict(re.findall(r'<script type="text/plain" id="([\w-]+)">([^<]*)</script>', text))


def test_a_page_tells_every_candidate_with_its_line_in_the_trace(folder: Path, told: dict[str, Any]) -> None:
    records = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    entries = told["entries"]
    assert len(entries["id"]) == 120
    formulas = [entries["formula"]["words"][c] for c in entries["formula"]["codes"]]
    for place, line in enumerate(entries["line"]):
        record = records[line - 1]
        assert (record["id"], record["formula"]) == (entries["id"][place], formulas[place])
        assert record.get("objective") == entries["objective"][place]


def test_the_verdict_and_the_figures_of_the_hold_out_are_those_on_record(folder: Path, told: dict[str, Any]) -> None:
    result = open_run(folder).result
    assert told["result"]["verdict"] == result["verdict"]
    assert told["result"]["score"]["holdout"]["are"] == 0.00777
    assert told["result"]["law"]["params"] == result["law"]["params"]


def test_no_sealed_value_is_on_the_page(folder: Path, told: dict[str, Any], text: str) -> None:
    sealed = read_sealed(folder)
    assert sealed is not None
    everything = json.dumps(told) + "".join(json.dumps(unpacked(b)) for n, b in blocks(text).items() if n != "setup")
    assert repr(float(open_run(folder).rows.targets["loss"][0])) in everything
    numbers = np.array([float(n) for n in re.findall(r"-?\d+\.?\d*(?:[eE][+-]?\d+)?", everything)])
    for values in (*sealed.targets.values(), *sealed.columns.values()):
        for value in values:
            assert not np.any(np.abs(numbers - value) <= 1e-9 * abs(value))


def test_a_page_may_run_its_own_scripts_and_fetch_nothing(text: str) -> None:
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[0]
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert re.search(r"script-src[^;]*'unsafe-inline'", policy) is None
    head = text.partition("<body>")[0]
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?!data:)", head)


def test_what_a_run_says_ends_no_script_and_opens_no_tag(text: str) -> None:
    assert HOSTILE not in text
    assert text.count("<script") == text.count("</script>")


def test_a_page_with_its_library_stays_below_five_megabytes(text: str) -> None:
    assert len(text.encode()) < 5e6
    assert sum(p.stat().st_size for p in STATIC.rglob("*") if p.is_file()) < 5e6


def test_a_law_comes_as_a_tree_with_its_mathml(told: dict[str, Any]) -> None:
    law = told["laws"][0]
    assert law["formula"] == LAW
    assert law["tree"] == ["+", ["+", "E", ["/", "A", ["**", "N", "a"]]], ["/", "B", ["**", "D", "b"]]]
    assert law["mathml"][0] == "math"


def test_predictions_fans_cuts_and_decisions_are_made_from_the_law_on_record(
    folder: Path, told: dict[str, Any]
) -> None:
    run = open_run(folder)
    assert told["points"]["predicted"]["loss"] == run.law.predict(run.rows.columns)["loss"].tolist()
    fan = told["fans"][0]
    assert (fan["input"], len(fan["quantiles"])) == ("N", 5)
    for one, more in pairwise(fan["quantiles"]):
        assert all(a <= b for a, b in zip(one, more, strict=True))
    assert max(fan["x"]) == pytest.approx(100 * run.rows.columns["N"].max(), rel=1e-6)
    assert [h["shown"] for h in told["hidden"]].count(True) == 1
    best = next(p for p in told["decision"]["path"] if p["compute"] == told["decision"]["asked"])
    assert 6 * best["config"]["N"] * best["config"]["D"] == pytest.approx(best["compute"], rel=1e-5)


def test_votes_and_calls_are_told_with_their_refusals(told: dict[str, Any]) -> None:
    vote, call = told["votes"][0], told["calls"][0]
    assert (vote["elected"], [t["rung"] for t in vote["tally"]]) == ("3, 4", ["base", "paraphrase"])
    assert call["messages"] == [["user", f"Which law? {HOSTILE}"], ["assistant", "A power law."]]
    assert call["rejects"] == [["not a formula", "N = 7"]]


def test_a_run_that_goes_on_shows_its_best_so_far_with_the_parameters_on_record(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "open-001", 20, done=False))
    told = page_run(run)
    assert (told["state"], told["result"], told["fans"]) == ("open", None, [])
    assert run.best is not None
    assert told["laws"][0]["entry"] == run.best.id


def test_a_bundle_is_one_file_and_its_folder_may_be_new(folder: Path, tmp_path: Path) -> None:
    path = write_bundle([], tmp_path / "a" / "b", BOARD)
    assert [p.name for p in path.parent.iterdir()] == [INDEX]
    assert json.loads(blocks(path.read_text())["setup"])["runs"] == []


def test_the_verb_writes_a_page_and_says_what_comes_next(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "planted-001", 12, done=False)
    argv = [sys.executable, "-c", "import typer; from agentlab.cli_view import view; typer.run(view)"]
    words = ["runs/planted-001", "--out", "page", "--board", "sqlite:///board.sqlite"]
    done = subprocess.run([*argv, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "page/index.html" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[-1].startswith("next: agentlab ")
    assert (tmp_path / "page" / INDEX).stat().st_size < 5e6


def test_packed_is_read_back_and_words_are_coded_once() -> None:
    value = {"a": [1.5, None, "</script>"], "ä": "ü"}
    assert unpacked(packed(value)) == value
    assert coded(["x", "y", "x"]) == {"words": ["x", "y"], "codes": [0, 1, 0]}
    assert plain({"a": np.array([1.0, np.inf]), "b": (float("nan"), np.int64(3))}) == {"a": [1.0, None], "b": [None, 3]}


def test_latex_that_cannot_be_read_has_no_mathml() -> None:
    assert mathml(r"E + \frac{A}{N^{a}}")[0] == "math"
    assert mathml(r"\frac{") is None


def test_every_script_that_ships_is_named_with_its_licence() -> None:
    vendor = STATIC / "vendor"
    said = (vendor / "README").read_text()
    for path in vendor.glob("*.js"):
        assert path.name in said
        assert (vendor / f"{path.name.split('.')[0]}.LICENSE").is_file()
