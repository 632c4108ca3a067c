"""The optimisers that published fits were made with, for the battery: BFGS and the simplex from few random starts.

They are here to show what they miss, not to be used: agentlab fits by variable projection (fitting.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from agentlab import starts
from agentlab.fitting import FitOptions
from agentlab.law import Law
from agentlab.objective import Direct
from agentlab.types import FloatArray
from agentlab.varpro import Bound, Data

Objective = Callable[[FloatArray], tuple[float, FloatArray]]
"""The loss and its gradient (P,) at parameters (P,)."""

GRADIENT = 1e-5
"""BFGS stops where no slope is steeper than this, SciPy's default. It is absolute, so a loss that is averaged rather
than summed over the rows ends a fit early (Besiroglu et al. 2024, arXiv 2404.10102)."""

ARMIJO = 1e-4


def by_bfgs(law: Law, data: Data, options: FitOptions, count: int, *, averaged: bool = False) -> FloatArray:
    """The best end (P,) of `count` BFGS descents (Nocedal & Wright 2006, algorithm 6.1) with a backtracking search."""
    objective = _objective(law, data, options, 1.0 / float(data.weight.sum()) if averaged else 1.0)
    ends = [_bfgs(objective, x) for x in _starts(law, data, options, count)]
    return _least(objective, ends)


def by_simplex(law: Law, data: Data, options: FitOptions, count: int) -> FloatArray:
    """The best end (P,) of `count` simplex searches (Nelder & Mead 1965) of at most 200 P evaluations."""
    objective = _objective(law, data, options)
    ends = [_simplex(lambda x: objective(x)[0], x) for x in _starts(law, data, options, count)]
    return _least(objective, ends)


def _least(objective: Objective, ends: list[FloatArray]) -> FloatArray:
    costs = [objective(x)[0] for x in ends]
    return ends[int(np.argmin(costs))]


def _objective(law: Law, data: Data, options: FitOptions, unit: float = 1.0) -> Objective:
    delta = np.full(1, 1.0 if options.delta is None else options.delta)
    system = Direct.bind(Bound(law, data), options.residual == "log", options.robust, delta)

    def at(theta: FloatArray) -> tuple[float, FloatArray]:
        state = system.at(theta[None, :])
        return unit * float(state.cost[0]), -2.0 * unit * state.gradient[0]

    return at


def _starts(law: Law, data: Data, options: FitOptions, count: int) -> list[FloatArray]:
    """Random points where the objective is finite; at most `count`, at least one."""
    rows = np.linspace(0, data.y.shape[1] - 1, starts.ROWS).astype(np.int64)
    columns: Mapping[str, FloatArray] = {k: v[None, rows] for k, v in data.columns.items()}
    size = np.array([float(np.median(np.abs(data.y)))])
    drawn = starts.draw(law, columns, size, 16 * count, options.bounds, options.seed)[0]
    objective = _objective(law, data, options)
    return [x for x in drawn if math.isfinite(objective(x)[0])][:count] or [drawn[0]]


def _bfgs(objective: Objective, start: FloatArray, steps: int = 400) -> FloatArray:
    unit = np.maximum(np.abs(start), 1e-6)
    x, inverse = start / unit, np.eye(len(start))
    cost, slope = _scaled(objective, x, unit)
    for _ in range(steps):
        if not math.isfinite(cost) or float(np.max(np.abs(slope))) < GRADIENT:
            break
        step = -inverse @ slope
        if not float(step @ slope) < 0:
            inverse, step = np.eye(len(x)), -slope
        length, (new, gradient) = 1.0, _scaled(objective, x + step, unit)
        while not new <= cost + ARMIJO * length * float(step @ slope):
            length *= 0.5
            if length < 1e-12:
                return np.asarray(x * unit)
            new, gradient = _scaled(objective, x + length * step, unit)
        s, y = length * step, gradient - slope
        x, cost, slope = x + s, new, gradient
        if (curvature := float(s @ y)) > 1e-16:
            left = np.eye(len(x)) - np.outer(s, y) / curvature
            inverse = left @ inverse @ left.T + np.outer(s, s) / curvature
    return np.asarray(x * unit)


def _scaled(objective: Objective, x: FloatArray, unit: FloatArray) -> tuple[float, FloatArray]:
    cost, gradient = objective(x * unit)
    return (cost, gradient * unit) if math.isfinite(cost) else (math.inf, np.zeros_like(x))


def _simplex(cost: Callable[[FloatArray], float], start: FloatArray) -> FloatArray:
    size = len(start)
    points = np.vstack([start, start + np.diag(np.where(start == 0, 2.5e-4, 0.05 * start))])
    values = np.array([cost(p) for p in points])
    for _ in range(200 * size):
        order = np.argsort(values, kind="stable")
        points, values = points[order], values[order]
        if values[-1] - values[0] < 1e-12 * max(abs(values[0]), 1e-300):
            break
        centre = points[:-1].mean(axis=0)
        away = centre - points[-1]
        tried = {k: (p := centre + k * away, cost(p)) for k in (1.0,)}
        if tried[1.0][1] < values[0]:
            tried[2.0] = (p := centre + 2.0 * away, cost(p))
        elif not tried[1.0][1] < values[-2]:
            k = 0.5 if tried[1.0][1] < values[-1] else -0.5
            tried[k] = (p := centre + k * away, cost(p))
        point, value = min(tried.values(), key=lambda pair: pair[1])
        if value < values[-1]:
            points[-1], values[-1] = point, value
        else:
            points[1:] = points[0] + 0.5 * (points[1:] - points[0])
            values[1:] = [cost(p) for p in points[1:]]
    return np.asarray(points[np.argmin(values)])
