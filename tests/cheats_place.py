"""A small task with two finished runs of it, made once for all tests of the board, and submissions packed from them."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentlab.leaderboard_records import Run, Told, files_of
from agentlab.leaderboard_submit import pack
from agentlab.trace import Record, dump

TASK = """
[task]
title = "Synthetic: a power law"
scale = "n"
[[feature]]
name = "n"
monotone = "-"
[target]
columns = ["loss"]
[law]
max_params = 3
residual = "log"
[data]
train = "data/train.csv"
holdout = "data/holdout.csv"
"""
REFERENCE = 'formula = "E + A/n**a"\nsource = "synthetic"\n[params]\nE = 1.5\nA = 4.0\na = 0.3\n'

MAKE = """
import sys
from agentlab import runs
from agentlab.table import intake
from agentlab.types import RunConfig
from agentlab.words import read_words
for seed in sys.argv[2:]:
    words = ["task=tiny", "budget.candidates=3", "robust=none", "window=8", "workers=1", f"seed={seed}"]
    config = read_words([*words, f"out={sys.argv[1]}"], RunConfig)
    runs.carry_out(runs.create(config, intake(config)), lambda progress: None)
"""

SEEDS = (0, 1)


def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place of this test run, the same for all its workers."""
    base = tmp_path_factory.getbasetemp()
    return make_place((base.parent if base.name.startswith("popen-") else base) / "board-place")


def make_place(place: Path) -> Path:
    """The folder with ./tasks/tiny and ./runs/tiny-001 and -002, made by whoever comes first."""
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "made").exists():
            write_task(place)
            command = [sys.executable, "-c", MAKE, "runs", *map(str, SEEDS)]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            (place / "made").touch()
    return place


def write_task(place: Path) -> None:
    folder = place / "tasks" / "tiny"
    (folder / "data").mkdir(parents=True)
    (folder / "task.toml").write_text(TASK)
    (folder / "reference.toml").write_text(REFERENCE)
    rng = np.random.default_rng(0)
    for name, low, high, noise in (("train", 1e2, 1e5, 0.004), ("holdout", 1e6, 1e8, 0.0)):
        n = np.geomspace(low, high, 24)
        loss = (1.5 + 4.0 * n**-0.3) * np.exp(noise * rng.standard_normal(24))
        lines = [f"{a:.10g},{b:.10g}" for a, b in zip(n, loss, strict=True)]
        (folder / "data" / f"{name}.csv").write_text("\n".join(["n,loss", *lines]) + "\n")


def packed(*seeds: int, submitter: str = "ann", declared: tuple[int, ...] = (), note: str = "") -> dict[str, Any]:
    """A submission of the runs with these seeds, as a value that can be tampered with; the place is the cwd."""
    names = [f"tiny-00{seed + 1}" for seed in seeds]
    found: dict[str, Any] = json.loads(pack(names, submitter, declared, note))
    return found


def sealed(told: dict[str, Any]) -> bytes:
    """The submission with digests that are right for what it now says: who cheats can count, too."""
    runs = [Run.model_construct(**run) for run in told["runs"]]
    told["manifest"]["files"] = files_of(runs, Told.model_construct(**told["law"]))
    return json.dumps(told).encode()


def edited(told: dict[str, Any], change: Callable[[list[Record]], list[Record] | None], run: int = 0) -> None:
    """The records of one trace changed in place, or replaced by what `change` returns; written as a run writes them."""
    records = [json.loads(line) for line in told["runs"][run]["trace"].splitlines()]
    records = change(records) or records
    told["runs"][run]["trace"] = b"".join(dump(r) for r in records).decode()


def of_kind(records: list[Record], kind: str) -> Record:
    return next(r for r in records if r["kind"] == kind)
