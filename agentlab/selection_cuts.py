"""Inner hold-outs: rows are hidden beyond cuts along the scale and along every feature that grows, or in folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentlab.types import BoolArray, FloatArray, IntArray, Rows, Task

SCALE = "scale"
"""The axis of a cut along the task's scale."""

FOLD = "fold"
"""The axis of rows drawn at random."""

SEARCH_SHARES = (0.75, 0.9)
FINAL_SHARES = (0.5, 0.6, 0.75, 0.82, 0.9)
SIDE_SHARES = (0.75, 0.9)
"""Shares of the rows below the cuts along the scale while searching and at the end, and along single features."""

DEV_CUT = 0.75
"""The cut whose predictions are reported as `dev`: the top quarter of the rows by scale (DESIGN section 4)."""

CLOSENESS = 8
"""A cut weighs share**CLOSENESS: what is seen just below the edge says most about what lies just beyond it."""

SIDE = 0.1
"""Weight of a cut along one feature, beside one along the scale."""

AXIS_SPAN = 4.0
"""A feature that counts something and spans more than this is an axis of its own."""

FOLDS = 4
"""Folds where nothing orders the rows (DESIGN section 4)."""


@dataclass(frozen=True, eq=False)
class Cut:
    """One inner hold-out: a law is fitted on `train` and judged on `test` (masks over the rows).

    `axis` is SCALE, FOLD or a feature; `share` is the share of the rows that was asked for below.
    """

    share: float
    train: BoolArray
    test: BoolArray
    axis: str = SCALE

    @property
    def weight(self) -> float:
        """How much the cut counts: by the share of rows that are left below, less along single features."""
        if self.axis == FOLD:
            return 1.0
        return (1.0 if self.axis == SCALE else SIDE) * float(np.mean(self.train)) ** CLOSENESS


def search_cuts(task: Task, rows: Rows, seed: int = 0) -> tuple[Cut, ...]:
    """The few cuts along the scale that candidates are judged by."""
    return _cuts(task, rows, SEARCH_SHARES, (), seed)


def final_cuts(task: Task, rows: Rows, seed: int = 0) -> tuple[Cut, ...]:
    """The many cuts, along the scale and along every axis, that finalists are judged by."""
    return _cuts(task, rows, FINAL_SHARES, SIDE_SHARES, seed)


def _cuts(task: Task, rows: Rows, shares: Sequence[float], side: Sequence[float], seed: int) -> tuple[Cut, ...]:
    """The distinct cuts; folds where no cut leaves rows on both sides."""
    if rows.scale is None:
        return distinct(rows, folds(rows, seed))
    cuts = [make_cut(task, rows, s) for s in shares]
    for name, values in axes(task, rows):
        along = replace(rows, scale=values)
        cuts += [replace(make_cut(task, along, s), axis=name) for s in side]
    return distinct(rows, cuts) or distinct(rows, folds(rows, seed))


def axes(task: Task, rows: Rows) -> Iterator[tuple[str, FloatArray]]:
    """The features that count something and grow: each orders the rows in its own way."""
    for variable in task.features:
        values = rows.columns[variable.name]
        if variable.log and values.min() > 0 and values.max() > max(AXIS_SPAN * values.min(), 1.0):
            yield variable.name, values


def make_cut(task: Task, rows: Rows, share: float, seed: int = 0) -> Cut:
    """Split off the rows above the `share` quantile of the scale; rows of one scale value stay together.

    A group that would keep fewer rows than the parameter cap + 1 is cut at its own quantile instead; one that is
    too small even for that stays whole in the training part. Without a scale the first of four folds is returned.
    """
    if rows.scale is None:
        return folds(rows, seed)[0]
    level = _level(rows.scale, share)
    test = rows.scale > level
    for group in rows.groups:
        mine = rows.group == group
        if np.count_nonzero(mine & ~test) > task.max_params:
            continue
        own = mine & (rows.scale > _level(rows.scale[mine], share))
        test = np.where(mine, own, test)
        if np.count_nonzero(mine & ~test) < 3:
            test = test & ~mine
    return Cut(share, ~test, test)


def _level(scale: FloatArray, share: float) -> float:
    """The scale value to cut above: of the distinct values, the one whose share of rows at or below is nearest."""
    values, counts = np.unique(_budgets(scale), return_counts=True)
    at_or_below = np.cumsum(counts)[:-1] / len(scale)
    return float(values[:-1][np.argmin(np.abs(at_or_below - share))]) if len(at_or_below) else float(values[0])


def _budgets(scale: FloatArray) -> FloatArray:
    """The scale (n,) with runs of one budget tied: a sweep's runs end within a step of their budget, not exactly on it.

    Values less than 1% apart are one budget where that leaves no group wider than 2%; other scales stay as they are.
    """
    values, place = np.unique(scale, return_inverse=True)
    if values[0] <= 0:
        return scale
    starts = np.concatenate([[0], np.flatnonzero(values[1:] > 1.01 * values[:-1]) + 1])
    ends = np.concatenate([starts[1:], [len(values)]]) - 1
    if np.any(values[ends] > 1.02 * values[starts]):
        return scale
    return np.repeat(values[ends], ends - starts + 1)[place]


def distinct(rows: Rows, cuts: Sequence[Cut]) -> tuple[Cut, ...]:
    """The cuts that differ and have rows of some weight on both sides."""
    kept: dict[bytes, Cut] = {}
    for cut in cuts:
        if rows.weight[cut.test].sum() > 0 and rows.weight[cut.train].sum() > 0:
            kept.setdefault(cut.test.tobytes(), cut)
    return tuple(kept.values())


def folds(rows: Rows, seed: int) -> tuple[Cut, ...]:
    """Four seeded folds over training runs, or over rows where runs are few or a fold would take all of a group."""
    runs = _parts(rows.run, seed)
    whole = all(set(rows.group[c.train]) == set(rows.group) for c in runs)
    return runs if whole and len(np.unique(rows.run)) >= FOLDS else _parts(np.arange(len(rows)), seed)


def _parts(unit: IntArray, seed: int) -> tuple[Cut, ...]:
    values = np.unique(unit)
    parts = min(FOLDS, len(values))
    order = np.random.default_rng(seed).permutation(len(values))
    part = order[np.searchsorted(values, unit)] % parts
    return tuple(Cut(f / parts, part != f, part == f, FOLD) for f in range(parts))
