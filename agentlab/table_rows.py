"""Columns of a table become rows of finite numbers, or one line that says which cell is wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from agentlab.csv_columns import Columns
from agentlab.csv_header import TableError, number_of
from agentlab.errors import nearest
from agentlab.law import LawError, column_expression, rows_where
from agentlab.types import ALL, BoolArray, FloatArray, IntArray, Rows, StrArray, Task

_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\s*\(|\w)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_WORDS = frozenset({"and", "or", "not", "in", "True", "False"})


def rows_at(task: Task, read: Columns, index: IntArray) -> Rows:
    """The rows at `index`, every number of them finite."""
    for name in dict.fromkeys((*task.names, *task.targets, *([task.weights] if task.weights else []))):
        check_numbers(read, name, index)
    columns = {n: values_at(read, n, index) for n in task.names}
    targets = {t: values_at(read, t, index) for t in task.targets}
    return Rows(
        columns,
        targets,
        _groups(task, read, index),
        _weights(task, read, index),
        _scale(task, read, index),
        _runs(task, read, index),
    )


def check_positive(task: Task, read: Columns, index: IntArray) -> None:
    """Raises TableError where a target to be fitted with log residuals is not positive."""
    for name in task.targets if task.residual == "log" else ():
        y = values_at(read, name, index)
        if (y <= 0).any():
            line, value = _first(read, index, y <= 0, y)
            raise TableError(
                f"{read.path} line {line}: target {name!r} is {value:g}; residual=log needs values > 0: leave it out "
                f'with where="{name}>0", or use residual=plain'
            )


def values_at(read: Columns, name: str, index: IntArray) -> FloatArray:
    """The numbers of a column at `index`, nan where a cell is missing or text."""
    return np.asarray(read.values[name][index], dtype=np.float64)


def check_numbers(read: Columns, name: str, index: IntArray) -> None:
    """Raises TableError where a value of the column at `index` is no finite number."""
    values = values_at(read, name, index)
    bad = np.flatnonzero(~np.isfinite(values))
    if not len(bad):
        return
    cells = read.text_cells.get(name, {})
    if len(bad) == len(values) and not (cells and np.isinf(values).any()):
        what = "text" if cells else "no number"
        raise TableError(
            f"{read.path}: column {name!r} holds {what} in every one of the {len(values)} rows; name another column"
            + (", or use it as group=" if cells else "")
        )
    for i in bad:
        if int(index[i]) in cells:
            raise TableError(_text_cell(read, name, int(index[i]), cells[int(index[i])]))
    lines = read.lines[index[bad]]
    shown = ", ".join(str(x) for x in lines[:5]) + (", .." if len(lines) > 5 else "")
    what = "infinite" if np.isinf(values[bad]).all() else "blank or not a number"
    top = float(values[np.isfinite(values)].max())
    many = f"lines {shown}" if len(lines) > 1 else f"line {shown}"
    raise TableError(
        f"{read.path} {many}: column {name!r} is {what} in {len(lines)} of {len(values)} rows; fill it in, or leave "
        f'them out with where="{name}<={top!r}"'
    )


def _text_cell(read: Columns, name: str, position: int, cell: str) -> str:
    where = f"{read.path} line {read.lines[position]}: column {name!r} holds {cell[:40]!r}, not a number"
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", cell):
        return f"{where}; write it without thousands separators"
    if re.fullmatch(r"[-+]?\d+,\d+([eE][-+]?\d+)?", cell):
        return f"{where}; write the decimal point as '.'"
    return f"{where}; correct the cell or leave it blank and drop the row with where="


def _first(read: Columns, index: IntArray, bad: BoolArray, values: FloatArray) -> tuple[int, float]:
    i = int(np.flatnonzero(bad)[0])
    return int(read.lines[index[i]]), float(values[i])


def _groups(task: Task, read: Columns, index: IntArray) -> StrArray:
    if task.group is None:
        return np.full(len(index), ALL)
    labels = _labels(read, task.group, index)
    empty = labels == ""
    if empty.any():
        i = int(np.flatnonzero(empty)[0])
        raise TableError(
            f"{read.path} line {read.lines[index[i]]}: no group in column {task.group!r} ({int(empty.sum())} rows); "
            f"name the group, or leave them out with where=\"{task.group}!=''\""
        )
    return labels


def _labels(read: Columns, name: str, index: IntArray) -> StrArray:
    """A column as labels; numbers read for where= print as they would in the file, 3.0 as 3."""
    values = read.values[name][index]
    if values.dtype.kind != "f":
        return values.astype(np.str_)
    distinct, codes = np.unique(values, return_inverse=True)
    names = [
        "" if np.isnan(v) else str(int(v)) if v.is_integer() and abs(v) < 1e15 else repr(float(v)) for v in distinct
    ]
    return np.array(names, dtype=np.str_)[codes]


def _weights(task: Task, read: Columns, index: IntArray) -> FloatArray:
    if task.weights is None:
        return np.ones(len(index))
    weight = values_at(read, task.weights, index)
    if (weight < 0).any():
        line, value = _first(read, index, weight < 0, weight)
        raise TableError(f"{read.path} line {line}: weight {task.weights!r} is {value:g}; weights must be 0 or more")
    if not weight.any():
        raise TableError(
            f"{read.path}: every weight in column {task.weights!r} is 0; leave weights= out to count all rows alike"
        )
    return weight


def _scale(task: Task, read: Columns, index: IntArray) -> FloatArray | None:
    if task.scale is None:
        return None
    names = mentioned(task.scale, read.header, read.path)
    for name in names:
        check_numbers(read, name, index)
    try:
        scale = column_expression(task.scale, {n: values_at(read, n, index) for n in names})
    except LawError as exc:
        raise TableError(f"scale={task.scale!r}: {exc}") from exc
    scale = np.array(np.broadcast_to(scale, len(index)), dtype=np.float64)
    bad = ~np.isfinite(scale)
    if bad.any():
        line, value = _first(read, index, bad, scale)
        raise TableError(
            f"{read.path} line {line}: scale={task.scale!r} is {value:g}; write one that is finite in every row"
        )
    return scale


def _runs(task: Task, read: Columns, index: IntArray) -> IntArray:
    if task.run is None:
        return np.arange(len(index), dtype=np.int64)
    return np.unique(_labels(read, task.run, index), return_inverse=True)[1].astype(np.int64)


def mask_of(read: Columns, key: str, text: str, among: BoolArray | None = None) -> BoolArray:
    """The rows where the expression holds; raises TableError where it cannot be read or keeps no row."""
    used = {n: read.values[n] for n in mentioned(text, read.header, read.path)}
    try:
        mask = np.broadcast_to(rows_where(text, used), len(read.lines))
    except LawError as exc:
        raise TableError(f"{key}={text!r}: {exc}{_stray_text(read, used)}") from exc
    total = mask if among is None else mask & among
    if not total.any():
        n = len(mask) if among is None else int(among.sum())
        raise TableError(f"{read.path}: {key}={text!r} keeps none of the {n} rows; loosen it")
    return mask


def text_left_out(read: Columns, kept: BoolArray) -> str:
    """A half-sentence on the rows left out that hold text where a number should stand; "" where there are none."""
    lost = sorted((at, cell) for cells in read.text_cells.values() for at, cell in cells.items() if not kept[at])
    if not lost:
        return ""
    at, cell = lost[0]
    return (
        f", {len({a for a, _ in lost})} of them with text in place of a number (line {read.lines[at]}: {cell[:40]!r})"
    )


def _stray_text(read: Columns, used: Mapping[str, FloatArray | StrArray]) -> str:
    """A half-sentence on a column that was read as text because some of its cells are no numbers."""
    for name, values in used.items():
        if values.dtype.kind == "U":
            numbers = np.array([number_of(cell) is not None for cell in values.tolist()])
            if 2 * numbers.sum() > len(numbers):
                at = int(np.flatnonzero(~numbers)[0])
                return f" (column {name!r} is text, as line {read.lines[at]} holds {str(values[at])[:40]!r})"
    return ""


def mentioned(text: str, header: Sequence[str], path: Path) -> list[str]:
    """The columns that an expression mentions; raises TableError for a name that is no column."""
    names = [n for n in dict.fromkeys(_NAME.findall(_QUOTED.sub("''", text))) if n not in _WORDS]
    for name in names:
        if name not in header:
            raise TableError(f"{path}: no column {name!r}, which {text!r} mentions; {nearest(name, header)}")
    return names
