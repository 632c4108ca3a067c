"""Values and slopes of formulas at drawn points: the check behind every symbolic answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from agentlab.law import Law, from_tree
from agentlab.types import FloatArray

DRAWS = 48
LOW, HIGH = 0.2, 3.0
"""Names are drawn log-uniformly between these: coefficients, exponents and variables of about one."""

CLOSE = 1e-7
"""Relative difference of values that count as equal."""

Points = Mapping[str, FloatArray]


def drawn(names: Iterable[str], signs: Mapping[str, str], seed: int = 0, count: int = DRAWS) -> Points:
    """One (count,) array a name, of its sign: "+" (also where none is given), "-", or "any"."""
    rng = np.random.default_rng(seed)
    out = {}
    for name in sorted(set(names)):
        sizes = np.exp(rng.uniform(np.log(LOW), np.log(HIGH), count))
        turned = rng.choice([-1.0, 1.0], count)
        out[name] = sizes * {"+": 1.0, "-": -1.0}.get(signs.get(name, "+"), turned)
    return out


def values(law: Law, points: Points) -> FloatArray:
    """The law (n,) with every name, parameters too, read from `points`."""
    every = from_tree(law.tree, tuple(points))
    size = len(next(iter(points.values()))) if points else 1
    with np.errstate(all="ignore"):
        return np.broadcast_to(every.evaluate(points, np.empty(0)), size).astype(np.float64)


def slopes(law: Law, points: Points, by: str) -> FloatArray:
    """The exact derivative (n,) in the name `by`, a variable or a parameter, at the points."""
    every = from_tree(law.tree, tuple(points))
    with np.errstate(all="ignore"):
        found = every.gradient(points, np.empty(0), by)
    return np.broadcast_to(found, len(points[by])).astype(np.float64)


def agreement(left: FloatArray, right: FloatArray) -> tuple[int, int]:
    """(equal, compared): draws where the left value is finite, and those of them where the right one equals it."""
    told = np.isfinite(left)
    with np.errstate(all="ignore"):
        near = np.abs(left - right) <= CLOSE * (np.abs(left) + np.abs(right)) + 1e-300
    return int(np.count_nonzero(told & near)), int(np.count_nonzero(told))
