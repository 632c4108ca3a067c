"""A process that refits, predicts and reruns what was submitted, without any hold-out: one JSON line in, one line out.

    {"do": "judge", "folder": ..}    law.json, config.json and features.npz -> predictions.npz and figures
    {"do": "rerun", "folder": ..}    config.json and trace.jsonl, run again from its settings -> the same bytes, or not
    {"do": "twin", "folder": ..}     config.json -> what the same method finds on a twin of the task

The answer holds "found", "refused" (a reason and what was found) or "failed" (one line: it could not be done here).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from agentlab.errors import EvaluationError
from agentlab.leaderboard_judge import Judged, judge_formula, judge_program
from agentlab.leaderboard_records import RefusedError
from agentlab.leaderboard_tasks import intake_of
from agentlab.types import AgentlabError, Rows, RunConfig
from agentlab.words import UsageError

CONFIG, LAW, TRACE, FEATURES = "config.json", "law.json", "trace.jsonl", "features.npz"
PARTS = "parts.npz"

NOWHERE = "http://127.0.0.1:9/v1"
"""An address at which no model answers."""

SECONDS = 3600.0
"""What one law or run may take to be judged or run again."""


class Worker:
    """The process, started when it is first asked; one that hangs is killed, and the next question starts another."""

    def __init__(self, seconds: float = SECONDS, log: Path = Path(os.devnull)) -> None:
        """`seconds` is what one question may take; what else the process says goes to the file `log`."""
        self._seconds = seconds
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, do: str, folder: Path, **more: object) -> dict[str, Any]:
        """What the process found.

        Raises:
            RefusedError: something that was submitted is not what it claims to be.
            EvaluationError: it could not be judged here: too slow, no sandbox, or the process ended.
        """
        process = self._started()
        assert process.stdin is not None  # noqa: S101 - asked for below
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps({"do": do, "folder": str(folder)} | more).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            self._end()
            raise EvaluationError(f"{do}: the process that judges submissions has ended") from None
        answer = _line(process.stdout, self._seconds)
        if answer is None:
            self._end()
            raise EvaluationError(f"{do}: no answer within {self._seconds:g} s, or the process that judges has ended")
        told = json.loads(answer)
        if "refused" in told:
            raise RefusedError(*told["refused"])
        if "failed" in told:
            raise EvaluationError(f"{do}: {told['failed']}")
        return dict(told["found"])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "agentlab.leaderboard_work"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _line(pipe: IO[bytes], seconds: float) -> bytes | None:
    """One whole line from the process, or None."""
    until, found = time.monotonic() + seconds, b""
    while not found.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        part = os.read(pipe.fileno(), 1 << 16) if ready else b""
        if not part:
            return None
        found += part
    return found


# ---- within the process ----


def judge(folder: Path, *, twin: int) -> dict[str, Any]:
    """Judge the law of a folder, and write what it predicts at the sealed rows' features."""
    config, told = _config(folder), json.loads((folder / LAW).read_text())
    taken = intake_of(config)
    points = _points(folder / FEATURES)
    if told["program"]:
        found = asyncio.run(judge_program(told, taken.task, taken.rows, points))
    else:
        found = judge_formula(told, taken.task, taken.rows, points, config.seed, twin)
    _write(folder / PARTS, found)
    return dict(found.figures) | {"params": found.params, "held": found.held}


def rerun(folder: Path) -> dict[str, Any]:
    """Run a run again from its settings, without any model and any hold-out; its trace comes to the same bytes."""
    from agentlab import runs  # noqa: PLC0415 - heavy, and not every submission comes so far
    from agentlab.trace import TraceError  # noqa: PLC0415

    config = _alone(_config(folder), folder / "runs")
    shutil.rmtree(folder / "runs", ignore_errors=True)
    made = runs.create(config, intake_of(config))
    shutil.copy(folder / TRACE, made / TRACE)
    try:
        runs.replay(made, folder / "runs", _unwatched)
    except TraceError as error:
        raise RefusedError("rerun differs", _without(str(error), folder)) from None
    return {"same": True}


def twin(folder: Path, *, seed: int) -> dict[str, Any]:
    """The error beyond the cut of what the method finds on a twin of the task, whose law is known."""
    from agentlab import runs  # noqa: PLC0415
    from agentlab.leaderboard_checks import twin_of  # noqa: PLC0415

    config = _alone(_config(folder), folder / "twin")
    taken = intake_of(config)
    made = twin_of(taken.task, taken.rows, seed)
    if made is None:
        return {"r2": None}
    shutil.rmtree(folder / "twin", ignore_errors=True)
    run = runs.create(config, dataclasses.replace(taken, rows=made[0]))
    runs.carry_out(run, _unwatched)
    found = runs.result(run)
    return {"r2": found["score"]["dev"]["r2"], "formula": found["law"]["formula"]}


def _alone(config: RunConfig, out: Path) -> RunConfig:
    """The settings, for one process of this machine that reaches nobody: whatever they name, no model is asked."""
    nowhere = NOWHERE if config.model else None
    alone = dataclasses.replace(config, out=str(out), workers=1, engine="local", address=None)
    return dataclasses.replace(alone, base_url=nowhere, model_seconds=5.0)


def _unwatched(_progress: object) -> None:
    """Nobody looks on."""


def _config(folder: Path) -> RunConfig:
    from agentlab.runs_files import read_config  # noqa: PLC0415

    return read_config(folder)


def _points(path: Path) -> Rows:
    with np.load(path, allow_pickle=False) as stored:
        columns = {name[2:]: stored[name] for name in stored.files if name.startswith("x/")}
        group = stored["group"]
    n = len(group)
    return Rows(columns, {}, group, np.ones(n), None, np.arange(n))


def _write(path: Path, found: Judged) -> None:
    arrays: dict[str, Any] = dict(found.predicted)
    for end, values in (("low", found.low), ("high", found.high)):
        arrays |= {f"{target}/{end}": v for target, v in values.items()}
    np.savez(path, allow_pickle=False, **arrays)


def _without(text: str, folder: Path) -> str:
    """The text without where things lie on this machine."""
    return " ".join(text.replace(f"{folder}/", "").split())


_DO: Mapping[str, Callable[..., dict[str, Any]]] = {"judge": judge, "rerun": rerun, "twin": twin}


def answer(told: Mapping[str, Any]) -> dict[str, Any]:
    """What one line asks for, done."""
    more = {k: v for k, v in told.items() if k not in ("do", "folder")}
    folder = Path(told["folder"])
    try:
        return {"found": _DO[told["do"]](folder, **more)}
    except RefusedError as error:
        return {"refused": [error.reason, _without(error.found, folder)]}
    except (AgentlabError, UsageError) as error:
        return {"failed": _without(str(error), folder)}


def main() -> None:
    """Answer line by line until the input ends; what else is printed goes to stderr."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        for line in sys.stdin:
            out.write(json.dumps(answer(json.loads(line))) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
