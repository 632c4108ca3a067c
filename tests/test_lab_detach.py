"""Runs that outlive their command: told to stop once, killed on demand, found again by whoever asks."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from agentlab.envs._processes import start

from agentlab import detach
from agentlab.errors import AgentlabError, EvaluationError
from agentlab.runs_detach import main

STUBBORN = """
import pathlib, signal, sys, time
told = []
signal.signal(signal.SIGINT, lambda *_: told.append(1))
pathlib.Path("ready").touch()
while not (told and pathlib.Path("finish").exists()):
    pathlib.Path("told").write_text(str(len(told)))
    time.sleep(0.01)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose process notes how often it is interrupted and ends once it may."""
    process = start(
        [sys.executable, "-c", STUBBORN],
        log=tmp_path / "output.txt",
        errors=tmp_path / "output.txt",
        cwd=tmp_path,
        env=os.environ,
    )
    (tmp_path / detach.PROCESS).write_text(json.dumps(asdict(process)))
    when((tmp_path / "ready").exists)
    return tmp_path


def when(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_is_interrupted_once_however_often_it_is_told_to_stop(folder: Path) -> None:
    assert detach.life(folder) == "running"
    assert detach.stop(folder) == "running"
    assert [detach.stop(folder), detach.stop(folder)] == ["stopping", "stopping"]
    when(lambda: (folder / "told").read_text() == "1")
    (folder / "finish").touch()
    when(lambda: detach.life(folder) == "ended")
    assert (folder / "told").read_text() == "1"
    assert detach.stop(folder) == "ended"


def test_a_run_is_killed_on_demand_and_no_process_of_it_is_left(folder: Path) -> None:
    process = detach.process_of(folder)
    assert process is not None
    assert detach.stop(folder, now=True) == "running"
    assert detach.life(folder) == "ended"
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_another_process_of_the_same_number_is_not_taken_for_the_run(folder: Path) -> None:
    process = detach.process_of(folder)
    assert process is not None
    told = asdict(process) | {"start_ticks": process.start_ticks - 1}
    (folder / detach.PROCESS).write_text(json.dumps(told))
    assert detach.life(folder) == "ended"
    assert detach.stop(folder) == "ended"
    (folder / detach.PROCESS).write_text(json.dumps(asdict(process)))
    assert detach.life(folder) == "running"
    detach.stop(folder, now=True)


def test_a_run_without_a_process_and_a_damaged_note_are_told_in_one_line(tmp_path: Path) -> None:
    assert detach.life(tmp_path) == "none"
    with pytest.raises(AgentlabError, match="press Ctrl-C where it runs"):
        detach.stop(tmp_path)
    (tmp_path / detach.PROCESS).write_text("{")
    with pytest.raises(EvaluationError, match="is damaged; delete it"):
        detach.life(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=nowhere.csv", "target=loss", "features=N"], "nowhere.csv"),
        (["dat=x"], "unknown key 'dat'"),
        (["task=moe_leverage", "experiments=4", "workers=2", "engine=ray"], "leave it out with engine=ray"),
    ],
)
@pytest.mark.parametrize("key", [[], ["--key", "k"]], ids=["no key", "key"])
def test_wrong_words_are_refused_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str, key: list[str]
) -> None:
    assert main([*key, *words, f"out={tmp_path}"]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert not list(tmp_path.glob("*/config.json"))
    assert not list(tmp_path.glob(".keys/*.json"))
