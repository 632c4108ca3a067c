"""Points and rows as users bring them, a mapping of columns or a pandas DataFrame, and answers in the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agentlab.errors import nearest
from agentlab.types import ALL, FloatArray, Rows, StrArray, Task
from agentlab.words import UsageError

Points = Any
"""A mapping of column name to numbers, or a DataFrame; a column for the group where the task has groups."""


def columns_of(points: Points, names: tuple[str, ...]) -> dict[str, FloatArray]:
    """The columns (n,) of these names as finite numbers, all of one length; a single number is a column of one row.

    Raises:
        UsageError: a column is missing, has another length or holds something that is no number.
    """
    found: dict[str, FloatArray] = {}
    for name in names:
        if name not in points:
            raise UsageError(f"points: no column {name!r}; {nearest(name, [str(c) for c in points])}")
        try:
            values = np.atleast_1d(np.asarray(points[name], dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise UsageError(f"points: column {name!r} holds something that is no number; write numbers") from error
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise UsageError(
                f"points: column {name!r} holds no number in row {bad[0]}; write one, or leave the row out"
            )
        found[name] = values
    sizes = {len(values) for values in found.values()} - {1}
    if len(sizes) > 1:
        raise UsageError("points: the columns differ in length; give as many values for every column")
    n = max((len(values) for values in found.values()), default=0)
    return {name: np.broadcast_to(values, n).copy() if sizes else values for name, values in found.items()}


def group_of(points: Points, task: Task, n: int, known: tuple[str, ...]) -> StrArray:
    """The group (n,) of every point. Raises UsageError where it is missing, or is none of those `known`."""
    if task.group is None:
        return np.full(n, ALL)
    if task.group not in points:
        raise UsageError(f"points: no column {task.group!r}, which says the group; there is: {', '.join(known[:6])}")
    labels = np.broadcast_to(np.asarray(points[task.group]).astype(np.str_), n)
    for label in np.unique(labels):
        if str(label) not in known:
            raise UsageError(f"points: group {str(label)!r} was not in the run; {nearest(str(label), list(known))}")
    return labels


def rows_of(points: Points, task: Task) -> Rows:
    """Rows with targets, to fit on: each counts once and is a training run of its own; no scale. Raises UsageError."""
    columns = columns_of(points, (*task.names, *task.targets))
    n = len(next(iter(columns.values())))
    labels = (
        np.full(n, ALL) if task.group is None or task.group not in points
        else np.asarray(points[task.group]).astype(np.str_)
    )  # fmt: skip
    features = {name: columns[name] for name in task.names}
    return Rows(features, {t: columns[t] for t in task.targets}, labels, np.ones(n), None, np.arange(n))


def in_the_form_of(points: Points, columns: Mapping[str, FloatArray]) -> Any:  # noqa: ANN401 - a DataFrame, if one came
    """The columns as a DataFrame with the index of the one that came, else as a dictionary."""
    if hasattr(points, "iloc") and hasattr(points, "index"):
        return type(points)(dict(columns), index=points.index)
    return dict(columns)
