"""The optimisers that published fits were made with, for the battery: BFGS and the simplex from few random starts.

They are here to show what they miss, not to be used: agentlab fits by variable projection (fitting.py). Searches from
several starts go side by side: the points that they ask for next are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence

import numpy as np

from agentlab import starts
from agentlab.fitting import FitOptions
from agentlab.law import Law
from agentlab.objective import Direct
from agentlab.types import FloatArray
from agentlab.varpro import Bound, Data

Search = Generator[FloatArray, tuple[float, FloatArray], FloatArray]
"""A search that yields parameters (P,), is sent the loss and its gradient (P,) there, and returns its end (P,)."""

GRADIENT = 1e-5
"""BFGS stops where no slope is steeper than this, SciPy's default. It is absolute, so a loss that is averaged rather
than summed over the rows ends a fit early (Besiroglu et al. 2024, arXiv 2404.10102)."""

ARMIJO = 1e-4


def by_bfgs(law: Law, data: Data, options: FitOptions, count: int, *, averaged: bool = False) -> FloatArray:
    """The best end (P,) of `count` BFGS descents (Nocedal & Wright 2006, algorithm 6.1) with a backtracking search."""
    unit = 1.0 / float(data.weight.sum()) if averaged else 1.0
    return _best(_Objective(law, data, options, unit), [_bfgs(x) for x in _starts(law, data, options, count)])


def by_simplex(law: Law, data: Data, options: FitOptions, count: int) -> FloatArray:
    """The best end (P,) of `count` simplex searches (Nelder & Mead 1965) of at most 200 P steps."""
    return _best(_Objective(law, data, options), [_simplex(x) for x in _starts(law, data, options, count)])


class _Objective:
    """`unit` times the loss of a law on one table, and its gradient, at several points at once."""

    def __init__(self, law: Law, data: Data, options: FitOptions, unit: float = 1.0) -> None:
        self._bound = Bound(law, data)
        self._log, self._robust, self._unit = options.residual == "log", options.robust, unit
        self._delta = 1.0 if options.delta is None else options.delta
        self._systems: dict[int, Direct] = {}

    def at(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Loss (B,) and gradient (B, P) at theta (B, P)."""
        state = self._system(len(theta)).at(theta)
        return self._unit * state.cost, -2.0 * self._unit * state.gradient

    def _system(self, count: int) -> Direct:
        if count not in self._systems:
            copies = self._bound.take(np.zeros(count, dtype=np.int64))
            self._systems[count] = Direct.bind(copies, self._log, self._robust, np.full(count, self._delta))
        return self._systems[count]


def _best(objective: _Objective, searches: Sequence[Search]) -> FloatArray:
    """The end (P,) with the least loss."""
    ends = np.array(_side_by_side(objective, searches))
    return np.asarray(ends[int(np.argmin(objective.at(ends)[0]))])


def _side_by_side(objective: _Objective, searches: Sequence[Search]) -> list[FloatArray]:
    """The ends of all searches, each of which takes the steps that it would take alone."""
    ends = [np.empty(0)] * len(searches)
    asked = {i: next(search) for i, search in enumerate(searches)}
    while asked:
        cost, gradient = objective.at(np.array(list(asked.values())))
        for k, i in enumerate(list(asked)):
            try:
                asked[i] = searches[i].send((float(cost[k]), gradient[k]))
            except StopIteration as end:
                ends[i] = end.value
                del asked[i]
    return ends


def _starts(law: Law, data: Data, options: FitOptions, count: int) -> list[FloatArray]:
    """Random points where the objective is finite; at most `count`, at least one."""
    rows = np.linspace(0, data.y.shape[1] - 1, starts.ROWS).astype(np.int64)
    columns: Mapping[str, FloatArray] = {k: v[None, rows] for k, v in data.columns.items()}
    size = np.array([float(np.median(np.abs(data.y)))])
    drawn = starts.draw(law, columns, size, 16 * count, options.bounds, options.seed)[0]
    objective, found = _Objective(law, data, options), []
    for first in range(0, len(drawn), count):
        some = drawn[first : first + count]
        found += list(some[np.isfinite(objective.at(some)[0])])
        if len(found) >= count:
            break
    return found[:count] or [drawn[0]]


def _bfgs(start: FloatArray, steps: int = 400) -> Search:
    unit = np.maximum(np.abs(start), 1e-6)
    x, inverse = start / unit, np.eye(len(start))
    cost, slope = _scaled(*(yield x * unit), unit)
    for _ in range(steps):
        if not math.isfinite(cost) or float(np.max(np.abs(slope))) < GRADIENT:
            break
        step = -inverse @ slope
        if not float(step @ slope) < 0:
            inverse, step = np.eye(len(x)), -slope
        length, (new, gradient) = 1.0, _scaled(*(yield (x + step) * unit), unit)
        while not new <= cost + ARMIJO * length * float(step @ slope):
            length *= 0.5
            if length < 1e-12:
                return np.asarray(x * unit)
            new, gradient = _scaled(*(yield (x + length * step) * unit), unit)
        s, y = length * step, gradient - slope
        x, cost, slope = x + s, new, gradient
        if (curvature := float(s @ y)) > 1e-16:
            left = np.eye(len(x)) - np.outer(s, y) / curvature
            inverse = left @ inverse @ left.T + np.outer(s, s) / curvature
    return np.asarray(x * unit)


def _scaled(cost: float, gradient: FloatArray, unit: FloatArray) -> tuple[float, FloatArray]:
    return (cost, gradient * unit) if math.isfinite(cost) else (math.inf, np.zeros_like(unit))


def _simplex(start: FloatArray) -> Search:
    size = len(start)
    points = np.vstack([start, start + np.diag(np.where(start == 0, 2.5e-4, 0.05 * start))])
    values = np.zeros(size + 1)
    for i, p in enumerate(points):
        values[i], _ = yield p
    for _ in range(200 * size):
        order = np.argsort(values, kind="stable")
        points, values = points[order], values[order]
        if values[-1] - values[0] < 1e-12 * max(abs(values[0]), 1e-300):
            break
        centre = points[:-1].mean(axis=0)
        away = centre - points[-1]
        point = centre + away
        value, _ = yield point
        further = 2.0 if value < values[0] else 0.5 if value < values[-1] else -0.5
        if not values[0] <= value < values[-2]:
            other = centre + further * away
            found, _ = yield other
            if found < value:
                point, value = other, found
        if value < values[-1]:
            points[-1], values[-1] = point, value
        else:
            points[1:] = points[0] + 0.5 * (points[1:] - points[0])
            for i in range(1, size + 1):
                values[i], _ = yield points[i]
    return np.asarray(points[np.argmin(values)])
