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
    return _of_one_length(found)


def _of_one_length(columns: Mapping[str, FloatArray], least: int = 1) -> dict[str, FloatArray]:
    """The columns, single numbers repeated. Raises UsageError where several lengths are left."""
    sizes = {n for values in columns.values() if (n := len(values)) != 1} | ({least} - {1})
    if len(sizes) > 1:
        raise UsageError("points: the columns differ in length; give as many values for every column")
    n = next(iter(sizes), 1)
    return {name: values if len(values) == n else np.full(n, values[0]) for name, values in columns.items()}


def points_of(points: Points, task: Task, known: tuple[str, ...]) -> tuple[dict[str, FloatArray], StrArray]:
    """The features (n,) by name, and the group (n,) of every point.

    Raises:
        UsageError: as columns_of; or the group is missing, or none of those `known`.
    """
    columns = columns_of(points, task.names)
    n = len(next(iter(columns.values())))
    if task.group is None:
        return columns, np.full(n, ALL)
    if task.group not in points:
        raise UsageError(f"points: no column {task.group!r}, which says the group; there is: {', '.join(known[:6])}")
    labels = np.atleast_1d(np.asarray(points[task.group]).astype(np.str_))
    columns = _of_one_length(columns, len(labels))
    for label in np.unique(labels):
        if str(label) not in known:
            raise UsageError(f"points: group {str(label)!r} was not in the run; {nearest(str(label), list(known))}")
    return columns, np.broadcast_to(labels, len(next(iter(columns.values()))))


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
