"""Keeps a task and its rows in a run folder: task.json, rows.npz, sample.npz, and the sealed holdout.npz."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.types import AgentlabError, FloatArray, IntArray, Reference, Rows, Task, Variable

TASK = "task.json"
ROWS = "rows.npz"
SAMPLE = "sample.npz"
SEALED = "holdout.npz"

SAMPLE_ROWS = 5_000
"""Rows that the search sees of a larger table; the last fit sees them all."""

_EXTREMES = 0.02


class RunRowsError(AgentlabError):
    """A run folder whose rows cannot be read."""


@dataclass(frozen=True)
class Intake:
    """A task, the rows the search may see, the sealed rows (or None), and lines that tell the user what was chosen."""

    task: Task
    rows: Rows
    holdout: Rows | None = None
    notes: tuple[str, ...] = ()


def write_rows(folder: Path, intake: Intake, seed: int = 0) -> None:
    """Write the task and its rows into an existing folder; `seed` draws the sample of a table above SAMPLE_ROWS."""
    (folder / TASK).write_text(json.dumps(dataclasses.asdict(intake.task), indent=1) + "\n", encoding="utf-8")
    if intake.holdout is not None:
        _write(folder / SEALED, intake.holdout)
    if len(intake.rows) > SAMPLE_ROWS:
        _write(folder / SAMPLE, sample(intake.rows, SAMPLE_ROWS, seed))
    _write(folder / ROWS, intake.rows)


def read_rows(folder: Path, *, every: bool = False) -> tuple[Task, Rows]:
    """The task and the rows of a run folder: what the search sees, or with `every` all rows that are not sealed.

    Raises:
        RunRowsError: the folder holds no readable task or rows.
    """
    sampled = folder / SAMPLE
    return _read_task(folder), _read(sampled if sampled.is_file() and not every else folder / ROWS)


def read_sealed(folder: Path) -> Rows | None:
    """The sealed rows of a run folder, or None. Only agentlab.leaderboard may call this (DESIGN rule 3)."""
    return _read(folder / SEALED) if (folder / SEALED).is_file() else None


def sample(rows: Rows, size: int, seed: int) -> Rows:
    """At most `size` of the rows, the same for the same seed, in their order.

    Every group keeps its share of the rows, and at least a few; the rows at both ends of the scale are kept, so that
    the sample spans what the table spans.
    """
    if len(rows) <= size:
        return rows
    rng = np.random.default_rng([seed, len(rows), size])
    labels, codes = np.unique(rows.group, return_inverse=True)
    shares = _shares(np.bincount(codes, minlength=len(labels)), size)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(labels) + 1))
    kept = [
        _draw(rng, order[bounds[i] : bounds[i + 1]], int(shares[i]), rows.scale)
        for i in range(len(labels))
        if shares[i]
    ]
    return rows.take(np.sort(np.concatenate(kept)))


def _shares(counts: IntArray, size: int) -> IntArray:
    """Rows a group: its share of `size`, but a few even where its share is less, as far as `size` allows."""
    floor = np.minimum(counts, max(1, min(16, size // (2 * len(counts)))))
    if floor.sum() > size:  # more groups than rows asked for: one row each of the largest groups
        shares = np.zeros_like(counts)
        shares[np.argsort(-counts, kind="stable")[:size]] = 1
        return shares
    rest, left = counts - floor, size - int(floor.sum())
    extra = rest * left // int(rest.sum())
    missing = left - int(extra.sum())  # rounding took these: to the groups that lost most by it
    extra[np.argsort(-(rest * left % int(rest.sum())), kind="stable")[:missing]] += 1
    return floor + extra


def _draw(rng: np.random.Generator, index: IntArray, share: int, scale: FloatArray | None) -> IntArray:
    """`share` of the positions in `index`: both ends of the scale, and a random choice between."""
    if share >= len(index):
        return index
    if scale is None:
        return rng.choice(index, size=share, replace=False)
    ordered = index[np.argsort(scale[index], kind="stable")]
    end = min(share // 2, max(1, round(_EXTREMES * share)))
    middle = rng.choice(ordered[end : len(ordered) - end], size=share - 2 * end, replace=False)
    return np.concatenate([ordered[:end], middle, ordered[len(ordered) - end :]])


def _write(path: Path, rows: Rows) -> None:
    """One npz without pickled objects; it appears whole or not at all, and is the same bytes for the same rows."""
    arrays: dict[str, Any] = {"group": rows.group, "weight": rows.weight, "run": rows.run}
    arrays["names"] = np.array([json.dumps([list(rows.columns), list(rows.targets)])])
    arrays |= {f"column{i}": values for i, values in enumerate(rows.columns.values())}
    arrays |= {f"target{i}": values for i, values in enumerate(rows.targets.values())}
    if rows.scale is not None:
        arrays["scale"] = rows.scale
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)


def _read(path: Path) -> Rows:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            columns, targets = json.loads(str(stored["names"][0]))
            return Rows(
                {name: stored[f"column{i}"] for i, name in enumerate(columns)},
                {name: stored[f"target{i}"] for i, name in enumerate(targets)},
                stored["group"],
                stored["weight"],
                stored.get("scale"),
                stored["run"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise RunRowsError(
            f"{path}: cannot be read as a run's rows ({type(exc).__name__}); start the run again"
        ) from exc


def _read_task(folder: Path) -> Task:
    path = folder / TASK
    try:
        told: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise RunRowsError(f"{path}: no readable task here; give the folder of a run") from exc
    reference = told["reference"]
    return Task(
        **{
            **told,
            "features": tuple(
                Variable(**(v | {"box": tuple(v["box"]) if v["box"] else None})) for v in told["features"]
            ),
            "targets": tuple(told["targets"]),
            "bounds": {name: (low, high) for name, (low, high) in told["bounds"].items()},
            "limits": {name: (low, high) for name, (low, high) in told.get("limits", {}).items()},
            "reference": None if reference is None else Reference(**reference),
        }
    )
