"""Predictions without a fit, from training rows alone: what a law must beat before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from agentlab.types import AgentlabError, FloatArray, IntArray, Rows, Task

BLOCK = 250_000
"""Distances that are in memory at once: they then stay in the processor's cache."""

TIE = 1e-9
"""Share by which two distances may differ and still be a tie: rounding of the logarithms."""

FAR = 1e3
"""Spreads beyond the training rows at which a point counts as no farther: distances stay distinct and finite."""

SAME_RUNG = 0.01
"""Runs of one budget end within a step of it, not exactly on it: scale values this near to the largest are its rung."""


def predict(name: str, task: Task, train: Rows, at: Rows) -> dict[str, FloatArray]:
    """The baseline `name` (one of NAMES) at the rows `at`, from the rows `train`: (n,) by target, in its unit.

    Every group is predicted from its own rows of positive weight; rows of a group that has none are nan. A row's
    prediction does not depend on the other rows of `at`.

    Raises:
        AgentlabError: the name is not one of NAMES.
    """
    if name not in _BASELINES:
        raise AgentlabError(f"there is no baseline {name!r}; there is: {', '.join(NAMES)}")
    out = {target: np.full(len(at), np.nan) for target in task.targets}
    for group in at.groups:
        mine = np.flatnonzero(at.group == group)
        known = train.take((train.group == group) & (train.weight > 0))
        if len(known):
            for target, values in _BASELINES[name](task, known, at.take(mine)).items():
                out[target][mine] = values
    return out


def _nearest(task: Task, train: Rows, at: Rows) -> dict[str, FloatArray]:
    """The weighted mean of the rows at the least distance in the features' spread."""
    known, asked = _places(task, train, at)
    points, cell = np.unique(known, axis=0, return_inverse=True)
    weight = _sum(cell, train.weight)
    sums = {t: _sum(cell, train.weight * train.targets[t]) for t in task.targets}
    if points.shape[1] == 1:
        return _nearest_on_a_line(points[:, 0], weight, sums, asked[:, 0])
    out = {t: np.empty(len(asked)) for t in task.targets}
    step = max(BLOCK // len(points), 1)
    for i in range(0, len(asked), step):
        distance = np.zeros((len(asked[i : i + step]), len(points)))
        for x, p in zip(asked[i : i + step].T, points.T, strict=True):
            distance += (x[:, None] - p) ** 2
        near = distance <= (1 + TIE) * distance.min(axis=1, keepdims=True)
        for t, total in sums.items():
            out[t][i : i + step] = (near @ total) / (near @ weight)
    return out


def _sum(cell: IntArray, values: FloatArray) -> FloatArray:
    """The sum of the values (n,) in every cell."""
    return np.bincount(cell.reshape(-1), values).astype(np.float64)


def _nearest_on_a_line(
    points: FloatArray, weight: FloatArray, sums: Mapping[str, FloatArray], asked: FloatArray
) -> dict[str, FloatArray]:
    """The nearest of sorted, distinct points by bisection; long learning curves have one feature."""
    right = np.clip(np.searchsorted(points, asked), 0, len(points) - 1)
    left = np.maximum(right - 1, 0)
    to_left, to_right = np.abs(asked - points[left]), np.abs(points[right] - asked)
    use_left, use_right = to_left <= (1 + TIE) * to_right, to_right <= (1 + TIE) * to_left
    total = use_left * weight[left] + use_right * weight[right]
    return {t: (use_left * s[left] + use_right * s[right]) / total for t, s in sums.items()}


def _group_mean(task: Task, train: Rows, at: Rows) -> dict[str, FloatArray]:
    """The weighted mean of the group."""
    return {t: np.full(len(at), float(np.average(train.targets[t], weights=train.weight))) for t in task.targets}


def _last_rung(task: Task, train: Rows, at: Rows) -> dict[str, FloatArray]:
    """The nearest among the rows at the largest scale: their mean where no feature tells them apart.

    Without a scale every row is on the last rung.
    """
    if train.scale is None:
        return _nearest(task, train, at)
    top = float(train.scale.max())
    rung: IntArray = np.flatnonzero(train.scale >= top - SAME_RUNG * abs(top))
    return _nearest(task, train.take(rung), at)


def _places(task: Task, train: Rows, at: Rows) -> tuple[FloatArray, FloatArray]:
    """Training and asked points (n, d) in units of the training rows' spread; features that never vary are left out."""
    known, asked = [np.zeros(len(train))], [np.zeros(len(at))]
    for variable in task.features:
        x, new = train.columns[variable.name], at.columns[variable.name]
        if variable.log:
            x, new = _logged(x, new)
        # halved before they are subtracted: 1e308 - -1e308 is no number
        low = float(np.min(x / 2))
        spread = float(np.max(x / 2)) - low
        if spread > 0:
            known.append((x / 2 - low) / spread)
            asked.append(np.clip(new / 2 - low, -FAR * spread, FAR * spread) / spread)
    first = 1 if len(known) > 1 else 0
    return np.column_stack(known[first:]), np.column_stack(asked[first:])


def _logged(x: FloatArray, new: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Logarithms of a positive training column; of one with zeros or signs asinh, which is a logarithm on both sides.

    A new value at or below zero stands where the smallest training value does.
    """
    if float(x.min()) > 0:
        return np.log(x), np.log(np.where(new > 0, new, float(x.min())))
    size = np.abs(x[x != 0])
    unit = float(size.min()) if len(size) else 1.0
    with np.errstate(over="ignore"):
        limit = np.finfo(np.float64).max
        return np.arcsinh(np.clip(x / unit, -limit, limit)), np.arcsinh(np.clip(new / unit, -limit, limit))


_BASELINES: Mapping[str, Callable[[Task, Rows, Rows], dict[str, FloatArray]]] = {
    "nearest neighbour": _nearest,
    "group mean": _group_mean,
    "last rung": _last_rung,
}

NAMES: tuple[str, ...] = tuple(_BASELINES)
"""What `predict` knows."""
