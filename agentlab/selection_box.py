"""The extrapolation box: where a law will be used, what it may say there, and which constraints it breaks."""

from __future__ import annotations

import numpy as np

from agentlab.types import FloatArray, Rows, Task

BOX_POINTS = 128

ROUNDING = 1e-3
"""Share by which rows of one whole may differ in their sum: tables are rounded."""


def box_points(task: Task, rows: Rows) -> dict[str, FloatArray]:
    """Points (BOX_POINTS + corners,) a feature in the box where the law will be used; log-spaced where declared.

    An undeclared box reaches from half the smallest value seen to ten times the largest (log variables), half the
    observed range beyond it (a variable that is the scale itself, such as log FLOPs) or over the observed range
    (others): half the smallest, so that a pole just below the data is seen. Shares of one whole keep their sum.
    """
    d = len(task.features)
    unit = spread(BOX_POINTS, d)
    shares = _shares(task, rows)
    if d <= 6 and not shares:
        corners = np.array(np.meshgrid(*[[0.0, 1.0]] * d)).reshape(d, -1).T
        unit = np.vstack([unit, corners])
    points = {}
    for j, variable in enumerate(task.features):
        column = rows.columns[variable.name]
        log = variable.log and float(column.min()) > 0
        low, high = variable.box or _box(column, log=log, grows=variable.name == task.scale)
        u = unit[:, j]
        points[variable.name] = (
            np.exp(np.log(low) + u * np.log(high / low)) if log and low > 0 else low + u * (high - low)
        )
    if shares:
        total = sum(points[name] for name in shares)
        whole = sum(float(rows.columns[name][0]) for name in shares)
        points |= {name: points[name] * whole / total for name in shares}
    return points


def _shares(task: Task, rows: Rows) -> list[str]:
    """The features that are shares of one whole: not logarithmic, and with the same sum in every row."""
    names = [v.name for v in task.features if not v.log and float(rows.columns[v.name].min()) >= 0]
    if len(names) < 2:
        return []
    total = np.sum([rows.columns[name] for name in names], axis=0)
    return names if float(total.min()) > 0 and float(np.ptp(total)) <= ROUNDING * float(total.max()) else []


def _box(column: FloatArray, *, log: bool, grows: bool) -> tuple[float, float]:
    low, high = float(column.min()), float(column.max())
    if log:
        return 0.5 * low, 10.0 * high
    return low, high + (0.5 * (high - low) if grows else 0.0)


def spread(n: int, d: int) -> FloatArray:
    """Points (n, d) spread evenly over the unit cube: a Kronecker sequence on powers of the root of x^(d+1) = x + 1."""
    root = 2.0
    for _ in range(64):
        root = (1.0 + root) ** (1.0 / (d + 1))
    return np.outer(np.arange(1, n + 1), root ** -np.arange(1.0, d + 1)) % 1.0


def limits(task: Task, rows: Rows) -> dict[str, tuple[float, float]]:
    """The values a target may take in the box: those the task names, else its sign and ten times its range."""
    limits = {}
    for name, y in rows.targets.items():
        low, high = float(y.min()), float(y.max())
        span = max(high - low, 1e-12)
        usual = (0.0, 10.0 * high) if low > 0 else (low - 3 * span, high + 3 * span)
        limits[name] = task.limits.get(name, usual)
    return limits
