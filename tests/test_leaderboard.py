"""The sealed scoring: once a run, in a process of its own, every look counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentlab.leaderboard import FAILED, main, score_run
from agentlab.run_rows import Intake, write_rows
from agentlab.types import ALL, EvaluationError, Reference, Rows, Task, Variable

TRUTH = {"E": 1.5, "A": 4.0, "a": 0.3}
TASK = Task("power", (Variable("n"),), ("loss",), residual="log", reference=Reference("E + A/n**a", TRUTH, "here"))


def power_rows(low: float, high: float) -> Rows:
    n = np.geomspace(low, high, 20)
    loss = TRUTH["E"] + TRUTH["A"] * n ** -TRUTH["a"]
    return Rows({"n": n}, {"loss": loss}, np.full(20, ALL), np.ones(20), n, np.arange(20))


def write_law(folder: Path, **params: float) -> None:
    law = {"formula": "E + A/n**a", "params": {ALL: {"loss": params}}}
    (folder / "law.json").write_text(json.dumps(law))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder whose law is a little off the truth."""
    write_rows(tmp_path, Intake(TASK, power_rows(1e2, 1e5), power_rows(1e6, 1e8)))
    write_law(tmp_path, E=1.5, A=4.0, a=0.31)
    return tmp_path


def scored(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "agentlab.leaderboard", str(folder)], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 1
    return dict(json.loads(done.stdout))


def test_the_law_the_published_law_and_its_refit_are_scored_on_the_sealed_rows(run: Path) -> None:
    scores = scored(run)
    assert scores["holdout"]["n"] == 20
    n = np.geomspace(1e6, 1e8, 20)
    assert scores["holdout"]["mae"] == pytest.approx(np.mean(np.abs(4.0 * n**-0.31 - 4.0 * n**-0.3)))
    assert scores["reference"]["r2"] == pytest.approx(1.0)
    assert scores["reference_refitted"]["r2"] == pytest.approx(1.0, abs=1e-6)


def test_a_second_look_gets_the_same_figures_and_is_counted(run: Path) -> None:
    first, second = score_run(run), score_run(run)
    assert {k: v for k, v in first.items() if k != "looks"} == {k: v for k, v in second.items() if k != "looks"}
    assert (first["looks"], second["looks"]) == (1, 2)


def test_a_run_is_not_scored_again_for_another_law(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score_run(run)
    write_law(run, E=1.5, A=4.0, a=0.3)
    assert main([str(run)]) == 4
    assert "the hold-out was opened for another law; a run is scored once: start a new run" in capsys.readouterr().err


def test_without_sealed_rows_there_is_no_score(tmp_path: Path) -> None:
    write_rows(tmp_path, Intake(TASK, power_rows(1e2, 1e5)))
    write_law(tmp_path, **TRUTH)
    assert score_run(tmp_path) == {"holdout": None, "reference": None, "reference_refitted": None, "looks": 1}


def test_a_tasks_own_holdout_file_is_scored(tmp_path: Path) -> None:
    sealed = power_rows(1e6, 1e8)
    lines = [f"{n!r},{y!r}" for n, y in zip(sealed.columns["n"].tolist(), sealed.targets["loss"].tolist(), strict=True)]
    (tmp_path / "holdout.csv").write_text("\n".join(["n,loss", *lines]))
    task = replace(TASK, holdout_file=str(tmp_path / "holdout.csv"), reference=None)
    write_rows(tmp_path, Intake(task, power_rows(1e2, 1e5)))
    write_law(tmp_path, **TRUTH)
    scores = score_run(tmp_path)
    assert scores["holdout"]["r2"] == pytest.approx(1.0)
    assert scores["reference"] is None


def test_published_constants_are_needed_for_the_published_score_only(run: Path) -> None:
    bare = replace(TASK, reference=Reference("E + A/n**a"))
    write_rows(run, Intake(bare, power_rows(1e2, 1e5), power_rows(1e6, 1e8)))
    scores = score_run(run)
    assert scores["reference"] is None
    assert scores["reference_refitted"] is not None


def test_a_run_without_a_law_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 4
    assert f"resume it with: agentlab runs resume {tmp_path}" in capsys.readouterr().err
    assert main([]) == 2


PROGRAM = """
import numpy as np

def law(X, params):
    LOOK
    return params[0] + params[1] * X[:, 0] ** -params[2]

def fit(X, y):
    return np.array([y.min(), 1.0, 0.5])
"""


def write_program(folder: Path, look: str = "") -> None:
    params = {ALL: {"loss": {"p0": 1.5, "p1": 4.0, "p2": 0.31}}}
    law = {"program": PROGRAM.replace("LOOK", look), "params": params}
    (folder / "law.json").write_text(json.dumps(law))


def test_a_law_that_is_a_program_is_scored_as_the_formula_that_it_computes(run: Path, bwrap: str) -> None:
    write_rows(run, Intake(replace(TASK, reference=None), power_rows(1e2, 1e5), power_rows(1e6, 1e8)))
    formula = score_run(run)
    (run / "holdout.json").unlink()
    write_program(run)
    program = score_run(run)
    assert program.pop("holdout") == pytest.approx(formula.pop("holdout"))
    assert program == formula | {"looks": 2}
    write_program(run, look="pass")
    with pytest.raises(EvaluationError, match="opened for another law"):
        score_run(run)


def test_a_program_that_fails_on_the_sealed_rows_is_wrong_there_and_tells_nothing_of_them(
    run: Path, bwrap: str
) -> None:
    write_program(run, look="raise ValueError(X.tolist())")
    scores = scored(run)
    assert scores["failed"] == FAILED
    assert scores["holdout"]["mae"] == float("inf")
    assert scores["holdout"]["n"] == 20
    assert scores["reference"]["r2"] == pytest.approx(1.0)
    assert "1000000" not in (run / "holdout.json").read_text()


def test_without_a_sandbox_that_confines_it_no_program_is_scored(run: Path) -> None:
    write_program(run)
    nowhere = {**os.environ, "PATH": str(run), "DOCKER_HOST": f"unix://{run}/none.sock"}
    command = [sys.executable, "-m", "agentlab.leaderboard", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=nowhere)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert "the law is a program, and no sandbox works here" in done.stderr
    assert "apt-get install bubblewrap" in done.stderr
    assert not (run / "holdout.json").exists()
    assert not (run / "looks.log").exists()
