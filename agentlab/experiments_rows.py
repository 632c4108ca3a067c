"""Rows for the law out of runs that were made: one row a run, or what a tool derives from the table of all runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.space import Design, values_of
from agentlab.table import file_rows
from agentlab.toolbox import Toolbox
from agentlab.trace import Record
from agentlab.types import ALL, EvaluationError, FloatArray, Rows, Task

RUNS, DERIVED = "runs.csv", "derived.csv"


async def rows_after(
    design: Design, task: Task, base: Rows, runs: Path, measured: Sequence[Record], folder: Path, toolbox: Toolbox
) -> Rows:
    """The rows of a round: those there were, and those of the runs `measured` that gave a result.

    Args:
        design: The design space.
        task: What the law is of.
        base: The rows before any run of this loop.
        runs: The table of runs before this loop, for tasks whose rows are derived from all runs.
        measured: Records of runs, each with `columns`, `seed` and `answer`.
        folder: Where tables are written.
        toolbox: Has the tool that derives.
    """
    done = [r for r in measured if r["status"] == "ok"]
    if not done:
        return base
    if design.derive:
        return await _derived(design, task, runs, done, folder, toolbox)
    return joined(base, _direct(task, done, int(base.run.max()) + 1))


def joined(one: Rows, other: Rows) -> Rows:
    """The rows of both."""

    def both(a: Any, b: Any) -> Any:  # noqa: ANN401 - arrays of several kinds
        return np.concatenate([a, b])

    scale = None if one.scale is None or other.scale is None else both(one.scale, other.scale)
    return Rows(
        {k: both(v, other.columns[k]) for k, v in one.columns.items()},
        {k: both(v, other.targets[k]) for k, v in one.targets.items()},
        both(one.group, other.group),
        both(one.weight, other.weight),
        scale,
        both(one.run, other.run),
    )


def _direct(task: Task, done: Sequence[Record], first: int) -> Rows:
    """One row a run, in the order of the runs."""
    columns: dict[str, FloatArray] = {n: np.array([float(r["columns"][n]) for r in done]) for n in task.names}
    targets = {t: np.array([float(r["targets"][t]) for r in done]) for t in task.targets}
    scale = None if task.scale is None else scale_of(task, columns)
    n = len(done)
    return Rows(columns, targets, np.full(n, ALL), np.ones(n), scale, first + np.arange(n))


def scale_of(task: Task, columns: Mapping[str, FloatArray]) -> FloatArray:
    """The scale (n,) of rows."""
    return values_of(str(task.scale), columns, f"{task.name}: scale")


async def _derived(
    design: Design, task: Task, runs: Path, done: Sequence[Record], folder: Path, toolbox: Toolbox
) -> Rows:
    """What the design's tool makes of the table of all runs."""
    with runs.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        header, known = list(reader.fieldnames or ()), list(reader)
    for name in design.run:
        if name not in header:
            raise EvaluationError(f"{runs}: no column {name}; design.run of {task.name} names it")
    table, out = folder / RUNS, folder / DERIVED
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*known, *({k: _cell(v) for k, v in r["line"].items()} for r in done)])
    out.unlink(missing_ok=True)  # left by a loop that was killed here
    await toolbox.call(design.derive, {"runs": str(table), "out": str(out)})
    return file_rows(task, out)


def _cell(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
