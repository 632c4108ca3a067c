"""Whether a formula rises or falls in a name: proven by bounds of its slope over a box, else seen at drawn points."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from agentlab.tools._intervals import Interval, bounds, slope_bounds
from agentlab.tools._points import slopes, values

from agentlab.law import Law, Node
from agentlab.types import FloatArray

CELLS = 600
"""Parts into which the box is split at most."""

DRAWS = 2000
FAR = 1e4
"""Draws in an unbounded range reach from 1/FAR to FAR, or from its finite end to FAR times that."""

FLAT = 1e-9
"""Slopes (times the name, over the value) below this are rounding."""

Direction = Literal["rises", "falls", "constant", "turns", "unknown"]


@dataclass(frozen=True)
class Monotone:
    """The direction in the box; `rising` and `falling` are points where a formula that turns does so."""

    direction: Direction
    proven: bool
    cells: int = 0
    draws: int = 0
    rising: Mapping[str, float] | None = None
    falling: Mapping[str, float] | None = None


def direction_of(law: Law, slope: Node | None, box: Mapping[str, Interval], by: str, seed: int = 0) -> Monotone:
    """How the law moves with the name `by` in the box, which holds a range for every name, parameters too.

    `slope` is its derivative where one is known as a formula: simplified, its bounds are tighter. A direction is weak:
    what rises never falls.
    """
    proven, cells = _proof(law.tree, slope, box, by)
    if proven != "unknown":
        return Monotone(proven, proven=True, cells=cells)
    return _seen(law, box, by, seed)


# ---- proof ----


def _proof(tree: Node, slope: Node | None, box: Mapping[str, Interval], by: str) -> tuple[Direction, int]:
    """The direction that holds in every part of the box, splitting parts where the sign is open; "unknown" if none."""
    order = itertools.count()
    waiting: list[tuple[int, int, Mapping[str, Interval]]] = [(0, next(order), box)]
    may_rise = may_fall = True
    cells = 0
    while waiting:
        depth, _, part = heapq.heappop(waiting)
        cells += 1
        here = _slope(tree, slope, part, by)
        if here.low < 0.0 < here.high:
            halves = _halves(part, depth)
            if cells + len(waiting) > CELLS or not halves:
                return "unknown", cells
            for half in halves:
                heapq.heappush(waiting, (depth + 1, next(order), half))
            continue
        may_rise &= here.low >= 0.0
        may_fall &= here.high <= 0.0
        if not (may_rise or may_fall):
            return "unknown", cells
    if may_rise and may_fall:
        return "constant", cells
    return ("rises" if may_rise else "falls"), cells


def _slope(tree: Node, slope: Node | None, box: Mapping[str, Interval], by: str) -> Interval:
    """The tighter of two bounds of the slope: by the chain rule, and of the derivative as a formula."""
    first = slope_bounds(tree, box, by)
    if slope is None:
        return first
    second = bounds(slope, box)
    return Interval(max(first.low, second.low), min(first.high, second.high))


def _halves(box: Mapping[str, Interval], depth: int) -> Sequence[Mapping[str, Interval]]:
    """The box cut in two along one of its names, each in its turn; empty where no range can be cut any more."""
    names = sorted(box)
    for i in range(len(names)):
        name = names[(depth + i) % len(names)]
        low, high = box[name]
        middle = _middle(low, high)
        if low < middle < high:
            return [{**box, name: Interval(low, middle)}, {**box, name: Interval(middle, high)}]
    return []


def _middle(low: float, high: float) -> float:
    """Where a range is cut: halfway on a logarithmic scale where it is positive."""
    if low < 0.0:
        return -_middle(-high, -low) if high <= 0.0 else 0.0
    if high == math.inf:
        return max(1.0, 16.0 * low)
    if low == 0.0:
        return high / 16.0
    return math.sqrt(low) * math.sqrt(high)


# ---- points ----


def _seen(law: Law, box: Mapping[str, Interval], by: str, seed: int) -> Monotone:
    """The signs of the slope at drawn points and at the ends of the range of `by`."""
    rng = np.random.default_rng(seed)
    points = {name: _draws(box[name], rng) for name in sorted(box)}
    shares = _shares(law, points, by)
    up, down = np.flatnonzero(shares > FLAT), np.flatnonzero(shares < -FLAT)

    def at(index: int) -> dict[str, float]:
        return {name: float(f"{x[index]:.6g}") for name, x in points.items()}

    if len(up) and len(down):
        return Monotone("turns", proven=False, draws=DRAWS, rising=at(up[0]), falling=at(down[0]))
    if not len(up) and not len(down):
        flat = np.count_nonzero(np.isfinite(shares)) > DRAWS // 2
        return Monotone("constant" if flat else "unknown", proven=False, draws=DRAWS)
    return Monotone("rises" if len(up) else "falls", proven=False, draws=DRAWS)


def _shares(law: Law, points: Mapping[str, FloatArray], by: str) -> FloatArray:
    """|by| * slope / |value| (DRAWS,): a slope without units; nan where undefined."""
    value, slope = values(law, points), slopes(law, points, by)
    with np.errstate(all="ignore"):
        share = np.abs(points[by]) * slope / np.where(value == 0.0, 1.0, np.abs(value))
    return np.where(np.isfinite(value) & np.isfinite(share), share, np.nan)


def _draws(within: Interval, rng: np.random.Generator) -> FloatArray:
    """(DRAWS,) points of a range, log-uniform where it has one sign."""
    low, high = within
    if low < 0.0 < high:
        low, high = max(low, -FAR), min(high, FAR)
        return rng.uniform(low, high, DRAWS)
    if high <= 0.0:
        return -_draws(Interval(-high, -low), rng)
    if high == math.inf:
        high = FAR * (low or 1.0)
    if low == 0.0:
        low = min(high, 1.0) / FAR
    return np.asarray(np.exp(rng.uniform(math.log(low), math.log(high), DRAWS)))
