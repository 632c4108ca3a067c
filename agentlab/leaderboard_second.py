"""Makes the second hold-out of a task: from the truth of a planted task, or from a file that nobody has seen."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from agentlab.files import sync
from agentlab.law import parse
from agentlab.leaderboard_board import Board
from agentlab.leaderboard_sealed import open_sealed
from agentlab.leaderboard_tasks import PLANTED, Known, known_task
from agentlab.leaderboard_verify import second_file
from agentlab.table import file_rows
from agentlab.types import ALL, FloatArray, Task
from agentlab.words import UsageError

ROWS = 100


def make_second(board: Board, name: str, *, seed: int | None = None, file: Path | None = None) -> Path:
    """Put a second hold-out into the board's own folder and pin its digest; it is made once.

    From `file` if given; else, for a planted task, from the true law at points between those of the first hold-out,
    drawn with `seed`, which has to stay as secret as the rows.

    Raises:
        UsageError: there is one already, or the truth of the task is not known.
    """
    known, path = known_task(name), second_file(board, name)
    if board.pinned(name) is not None:
        raise UsageError(f"{name} has a second hold-out already; it is made once, for all who come")
    if file is not None:
        file_rows(known.task, file)  # whether it has the task's columns, and numbers in them
        text = file.read_text(encoding="utf-8")
    else:
        text = _planted(board, known, int.from_bytes(os.urandom(8)) if seed is None else seed)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    sync(path)
    board.pin(name, hashlib.sha256(text.encode()).hexdigest())
    return path


def _planted(board: Board, known: Known, seed: int) -> str:
    task, truth = known.task, known.task.reference
    true = parse(truth.formula, task.names) if truth is not None else None
    if truth is None or true is None or not task.name.startswith(PLANTED) or not set(true.params) <= set(truth.params):
        raise UsageError(f"{task.name}: its truth is not known; give rows that nobody has seen with --file FILE.csv")
    with np.load(open_sealed(board.home, known, known.sealed).features, allow_pickle=False) as stored:
        columns = {n: np.asarray(stored[f"x/{n}"], dtype=np.float64) for n in task.names}
        if set(stored["group"].tolist()) != {ALL}:
            raise UsageError(f"{task.name}: its groups have constants of their own; give rows with --file FILE.csv")
    points = _between(columns, task, np.random.default_rng(seed))
    (target,) = task.targets
    values = true.predict(points, np.full(ROWS, ALL), {ALL: {target: truth.params}})[target]
    table = {**points, target: values}
    return "\n".join(",".join(r) for r in [tuple(table), *zip(*_texts(table), strict=True)]) + "\n"


def _between(columns: dict[str, FloatArray], task: Task, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Points between pairs of the first hold-out's: on the same scale, and none of them one that was known."""
    n = len(next(iter(columns.values())))
    one, other, share = rng.integers(n, size=ROWS), rng.integers(n, size=ROWS), rng.uniform(0.1, 0.9, size=ROWS)
    found = {}
    for variable in task.features:
        values = columns[variable.name]
        if len(np.unique(values)) <= 12:  # a knob with steps
            found[variable.name] = values[one]
        elif variable.log and values.min() > 0:
            found[variable.name] = np.exp((1 - share) * np.log(values[one]) + share * np.log(values[other]))
        else:
            found[variable.name] = (1 - share) * values[one] + share * values[other]
    return found


def _texts(table: dict[str, FloatArray]) -> list[list[str]]:
    return [[f"{v:.10g}" for v in values] for values in table.values()]
