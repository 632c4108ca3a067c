"""Intake of a user's table: the words of the command line and a CSV file become a Task, its rows and a sealed hold-out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from agentlab.catalog import find_data, load_task, nearest
from agentlab.csv_columns import Columns, Kind, TableError, read_columns, read_header
from agentlab.law import LawError, column_expression, rows_where
from agentlab.run_rows import Intake, read_rows, write_rows
from agentlab.types import ALL, BoolArray, FloatArray, IntArray, Rows, RunConfig, StrArray, Task, Variable
from agentlab.variables import named_boxes, named_signs, split_names

__all__ = ["Intake", "default_max_params", "file_rows", "intake", "read_data", "read_rows", "write_rows"]

DEFAULT_MAX_PARAMS = 6
MIN_ROWS = 3
"""Rows a group must have: two parameters and one row to be wrong about."""

LOG_SPAN = 20.0
"""A positive feature whose largest value is more than this times its smallest is taken to span orders of magnitude."""

SCALE_SPAN = 4.0
"""Features that count something and span more than this are multiplied for a scale where the file names no compute."""

SCALE_NAMES = ("compute_train", "train_compute", "compute_train_6nd", "compute", "train_flops", "flops", "C")
"""Columns that order the runs when no scale= is given; the first that the file has."""

RUN_NAMES = ("run_id", "run", "curve_id")
"""Columns that number the runs when no run= is given."""

_NOT_A_SIZE = re.compile(r"(^|_)(lr|learning_rate|bs|bsz|batch\w*|warmup\w*|seed)(_|$)", re.IGNORECASE)
_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\s*\(|\w)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_WORDS = frozenset({"and", "or", "not", "in", "True", "False"})
_NUMERIC_FILE = re.compile(r"\.(csv|tsv|txt)$", re.IGNORECASE)


def intake(config: RunConfig) -> Intake:
    """The task and rows that a run's words name: `task=NAME`, or `data=FILE.csv target=.. features=..`.

    Raises:
        TableError, CatalogError, TaskFileError: one line that says what is wrong, where, and what to write.
    """
    if config.task and config.data:
        raise TableError("task= and data= are both given; a task brings its own data: keep one")
    if config.task:
        return _task_intake(config)
    if not config.data:
        raise TableError("neither task= nor data= is given; write task=moe_leverage, or data=FILE.csv target=COL features=A,B")
    return read_data(config)


def read_data(config: RunConfig) -> Intake:
    """The task and rows that `data=`, `target=`, `features=` and the other keys of DESIGN section 4 describe.

    What is not given is chosen from the rows that the search may see, never from the hold-out, and told in `notes`:
    scale (a column of SCALE_NAMES, else the product of the sizes among the features, else none), residual (log where
    every target is positive), max_params (at most 6 and fewer than the rows of the smallest group), run (RUN_NAMES).

    Raises:
        TableError: one line that names file, column and line number, and what to change.
    """
    name = _given(config.data, "data", "FILE.csv")
    path = find_data(name) or Path(name)
    _, header = read_header(path)
    plan = _plan(config, path, header)
    read = read_columns(path, _kinds(plan, header, (config.where, config.train, config.holdout)))
    search, holdout = _split(config, read)
    notes: list[str] = []
    task = _completed(plan, config, read, search, notes)
    rows = _rows(task, read, search)
    _check(task, rows, config.max_params)
    sealed: Rows | None = None
    if config.holdout and _is_file(config.holdout):
        sealed = file_rows(replace(task, name=Path(config.holdout).name), Path(config.holdout), where=config.where)
    elif holdout is not None:
        sealed = _rows(task, read, holdout)
    if sealed is not None:
        _check_holdout(task, rows, sealed)
        notes.append(f"hold-out: {len(sealed)} rows are sealed; {len(rows)} rows are searched")
    return Intake(task, rows, sealed, tuple(notes))


def _task_intake(config: RunConfig) -> Intake:
    """The rows of a task; its hold-out stays in its file, which only the leaderboard opens."""
    for key in ("target", "features", "group", "weights", "run", "scale", "where", "train", "holdout"):
        if getattr(config, key) is not None:
            raise TableError(f"{key}= does not go with task=, which says it itself; leave it out, or name the file with data=")
    task = load_task(str(config.task))
    signs, boxes = named_signs(config.monotone, task.names), named_boxes(config.box, task.names)
    features = tuple(replace(v, monotone=signs.get(v.name, v.monotone), box=boxes.get(v.name, v.box)) for v in task.features)
    task = replace(task, features=features, max_params=_max_params(config) or task.max_params,
                   residual=_residual(config) or task.residual)
    rows = file_rows(task, Path(task.train_file))
    _check(task, rows, config.max_params)
    return Intake(task, rows)


def file_rows(task: Task, path: Path, where: str | None = None) -> Rows:
    """The rows of the file at `path`, read with the columns that `task` names; those where `where` holds, if given.

    Raises:
        TableError: as read_data.
    """
    _, header = read_header(path)
    read = read_columns(path, _kinds(task, header, (where,)))
    keep = np.flatnonzero(_mask(read, "where", where)) if where else np.arange(len(read.lines))
    return _rows(task, read, keep)


def default_max_params(rows: Rows) -> int:
    """Parameters per (group, target) that the smallest group can carry when its top quarter is held out, at most 6."""
    smallest = int(np.unique(rows.group, return_counts=True)[1].min())
    return int(np.clip(3 * smallest // 4 - 1, 1, DEFAULT_MAX_PARAMS))


# ---- what the words name ----


def _given(value: str | None, key: str, example: str) -> str:
    if not value:
        raise TableError(f"{key}= is missing; write {key}={example}")
    return value


def _max_params(config: RunConfig) -> int | None:
    if config.max_params is not None and config.max_params < 1:
        raise TableError(f"max_params={config.max_params}: a law needs a parameter; write max_params=1 or more")
    return config.max_params


def _residual(config: RunConfig) -> Literal["log", "plain"] | None:
    match config.residual:
        case None | "log" | "plain":
            return config.residual
        case other:
            raise TableError(f"residual={other!r} is not known; write residual=log or residual=plain")


def _is_file(text: str) -> bool:
    return bool(_NUMERIC_FILE.search(text.strip())) or Path(text).is_file()


def _plan(config: RunConfig, path: Path, header: Sequence[str]) -> Task:
    """The task as far as words and header tell: no defaults that need the rows yet."""
    targets = split_names(_given(config.target, "target", "COLUMN[,COLUMN]"), "target")
    features = split_names(_given(config.features, "features", "COLUMN[,COLUMN]"), "features")
    for name in (*targets, *features):
        if name not in header:
            raise TableError(f"{path}: no column {name!r}; {nearest(name, header)}")
    for name in features:
        if name in targets:
            raise TableError(f"features=: {name!r} is the target; leave it out of features=")
        if name == config.group:
            raise TableError(f"features=: {name!r} is the group; leave it out of features= or of group=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise TableError(f"{path} line 1: {name!r} cannot stand in a formula; rename it to {_identifier(name)!r}")
    signs, boxes = named_signs(config.monotone, features), named_boxes(config.box, features)
    return Task(
        name=path.name,
        features=tuple(Variable(n, monotone=signs.get(n, ""), box=boxes.get(n)) for n in features),
        targets=targets,
        group=config.group,
        weights=config.weights,
        run=config.run or _first_of(header, RUN_NAMES),
        scale=config.scale or _first_of(header, SCALE_NAMES),
        max_params=_max_params(config) or DEFAULT_MAX_PARAMS,
        train_file=str(path),
    )


def _identifier(name: str) -> str:
    return re.sub(r"^(?=\d)", "_", re.sub(r"\W+", "_", name).strip("_")) or "x"


def _first_of(header: Sequence[str], candidates: Sequence[str]) -> str | None:
    return next((c for c in candidates if c in header), None)


def _kinds(task: Task, header: Sequence[str], expressions: Sequence[str | None]) -> dict[str, Kind]:
    """The columns that the task and the expressions need, and how each is to be read."""
    kinds: dict[str, Kind] = {}
    for text in expressions:
        if text and not _is_file(text):
            kinds.update(dict.fromkeys(_mentioned(text, header, Path(task.train_file)), "either"))
    for text in (task.group, task.run):
        if text:
            kinds.setdefault(text, "text")
    numbers = [*task.names, *task.targets, *([task.weights] if task.weights else [])]
    numbers += _mentioned(task.scale, header, Path(task.train_file)) if task.scale else []
    kinds.update(dict.fromkeys(numbers, "number"))
    return kinds


def _mentioned(text: str, header: Sequence[str], path: Path) -> list[str]:
    """The columns that an expression mentions; raises TableError for a name that is no column."""
    names = [n for n in dict.fromkeys(_NAME.findall(_QUOTED.sub("''", text))) if n not in _WORDS]
    for name in names:
        if name not in header:
            raise TableError(f"{path}: no column {name!r}, which {text!r} mentions; {nearest(name, header)}")
    return names


# ---- which rows ----


def _split(config: RunConfig, read: Columns) -> tuple[IntArray, IntArray | None]:
    """Positions of the rows to search and of those to seal (None without a hold-out in this file)."""
    n = len(read.lines)
    kept = _mask(read, "where", config.where) if config.where else np.ones(n, dtype=bool)
    inside = config.holdout if config.holdout and not _is_file(config.holdout) else None
    sealed = kept & _mask(read, "holdout", inside, kept) if inside else None
    if config.train:
        search = kept & _mask(read, "train", config.train, kept)
        if sealed is not None and (both := int((search & sealed).sum())):
            raise TableError(f"{read.path}: {both} rows are in train= and in holdout=; make the two disjoint")
    else:
        search = kept if sealed is None else kept & ~sealed
    if not search.any():
        raise TableError(f"{read.path}: holdout= takes all {int(kept.sum())} rows and leaves none to fit; ask for fewer")
    return np.flatnonzero(search), None if sealed is None else np.flatnonzero(sealed)


def _mask(read: Columns, key: str, text: str, among: BoolArray | None = None) -> BoolArray:
    """The rows where the expression holds; raises TableError where it cannot be read or keeps no row."""
    used = {n: read.values[n] for n in _mentioned(text, read.header, read.path)}
    for name in used:
        if name in read.text_cells:
            position, cell = next(iter(read.text_cells[name].items()))
            raise TableError(_text_cell(read, name, position, cell))
    try:
        mask = np.broadcast_to(rows_where(text, used), len(read.lines))
    except LawError as exc:
        raise TableError(f"{key}={text!r}: {exc}") from exc
    total = mask if among is None else mask & among
    if not total.any():
        n = len(mask) if among is None else int(among.sum())
        raise TableError(f"{read.path}: {key}={text!r} keeps none of the {n} rows; loosen it")
    return mask


# ---- the rows as numbers ----


def _rows(task: Task, read: Columns, index: IntArray) -> Rows:
    """The rows at `index`, every number of them finite."""
    for name in dict.fromkeys((*task.names, *task.targets, *([task.weights] if task.weights else []))):
        _check_numbers(read, name, index)
    columns = {n: _at(read, n, index) for n in task.names}
    targets = {t: _at(read, t, index) for t in task.targets}
    for name, y in targets.items():
        if task.residual == "log" and (y <= 0).any():
            line, value = _first(read, index, y <= 0, y)
            raise TableError(f"{read.path} line {line}: target {name!r} is {value:g}; residual=log needs values > 0: drop it "
                             f"with where=\"{name}>0\" or use residual=plain")
    return Rows(columns, targets, _groups(task, read, index), _weights(task, read, index), _scale(task, read, index),
                _runs(task, read, index))


def _at(read: Columns, name: str, index: IntArray) -> FloatArray:
    return np.asarray(read.values[name][index], dtype=np.float64)


def _check_numbers(read: Columns, name: str, index: IntArray) -> None:
    """Raises TableError where a value of the column at `index` is no finite number."""
    values = _at(read, name, index)
    bad = np.flatnonzero(~np.isfinite(values))
    if not len(bad):
        return
    cells = read.text_cells.get(name, {})
    if len(bad) == len(values) and not (cells and np.isinf(values).any()):
        what = "text" if cells else "no number"
        raise TableError(f"{read.path}: column {name!r} holds {what} in every one of the {len(values)} rows; name another column"
                         + (", or use it as group=" if cells else ""))
    for i in bad:
        if int(index[i]) in cells:
            raise TableError(_text_cell(read, name, int(index[i]), cells[int(index[i])]))
    lines = read.lines[index[bad]]
    shown = ", ".join(str(x) for x in lines[:5]) + (", .." if len(lines) > 5 else "")
    what = "infinite" if np.isinf(values[bad]).all() else "blank or not a number"
    top = float(values[np.isfinite(values)].max())
    many = f"lines {shown}" if len(lines) > 1 else f"line {shown}"
    raise TableError(f"{read.path} {many}: column {name!r} is {what} in {len(lines)} of {len(values)} rows; fill it in, or leave "
                     f"them out with where=\"{name}<={top!r}\"")


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
        raise TableError(f"{read.path} line {read.lines[index[i]]}: no group in column {task.group!r} ({int(empty.sum())} rows); "
                         f"name the group, or leave them out with where=\"{task.group}!=''\"")
    return labels


def _labels(read: Columns, name: str, index: IntArray) -> StrArray:
    """A column as labels; numbers read for where= print as they would in the file, 3.0 as 3."""
    values = read.values[name][index]
    if values.dtype.kind != "f":
        return values.astype(np.str_)
    distinct, codes = np.unique(values, return_inverse=True)
    names = ["" if np.isnan(v) else str(int(v)) if v.is_integer() and abs(v) < 1e15 else repr(float(v)) for v in distinct]
    return np.array(names, dtype=np.str_)[codes]


def _weights(task: Task, read: Columns, index: IntArray) -> FloatArray:
    if task.weights is None:
        return np.ones(len(index))
    weight = _at(read, task.weights, index)
    if (weight < 0).any():
        line, value = _first(read, index, weight < 0, weight)
        raise TableError(f"{read.path} line {line}: weight {task.weights!r} is {value:g}; weights must be 0 or more")
    if not weight.any():
        raise TableError(f"{read.path}: every weight in column {task.weights!r} is 0; leave weights= out to count all rows alike")
    return weight


def _scale(task: Task, read: Columns, index: IntArray) -> FloatArray | None:
    if task.scale is None:
        return None
    names = _mentioned(task.scale, read.header, read.path)
    for name in names:
        _check_numbers(read, name, index)
    try:
        scale = column_expression(task.scale, {n: _at(read, n, index) for n in names})
    except LawError as exc:
        raise TableError(f"scale={task.scale!r}: {exc}") from exc
    scale = np.array(np.broadcast_to(scale, len(index)), dtype=np.float64)
    bad = ~np.isfinite(scale)
    if bad.any():
        line, value = _first(read, index, bad, scale)
        raise TableError(f"{read.path} line {line}: scale={task.scale!r} is {value:g}; write an expression that is finite in every row")
    return scale


def _runs(task: Task, read: Columns, index: IntArray) -> IntArray:
    if task.run is None:
        return np.arange(len(index), dtype=np.int64)
    return np.unique(_labels(read, task.run, index), return_inverse=True)[1].astype(np.int64)


# ---- what the rows decide ----


def _completed(plan: Task, config: RunConfig, read: Columns, search: IntArray, notes: list[str]) -> Task:
    """The plan with everything that is chosen from the searched rows."""
    for name in (*plan.names, *plan.targets):
        _check_numbers(read, name, search)
    features = tuple(replace(v, log=_spans(_at(read, v.name, search), LOG_SPAN)) for v in plan.features)
    task = replace(plan, features=features)
    if not config.scale:
        task = replace(task, scale=_default_scale(task, read, search))
        notes.append(f"scale: {task.scale or 'none, so inner hold-outs are drawn in folds'} (scale= to change)")
    positive = all((_at(read, t, search) > 0).all() for t in task.targets)
    residual = _residual(config) or ("log" if positive else "plain")
    if not config.residual:
        notes.append(f"residual: {residual} (residual=log|plain to change)")
    task = replace(task, residual=residual)
    if config.max_params is None:
        fits = default_max_params(_rows(task, read, search))
        if fits < DEFAULT_MAX_PARAMS:
            notes.append(f"max_params: {fits}, as the smallest group has few rows (max_params= to change)")
        task = replace(task, max_params=fits)
    return task


def _spans(values: FloatArray, factor: float) -> bool:
    return bool(values.min() > 0 and values.max() > factor * values.min())


def _default_scale(task: Task, read: Columns, search: IntArray) -> str | None:
    """The named compute column where it is usable, else the product of the sizes among the features, else None."""
    if task.scale is not None:
        values = _at(read, task.scale, search)
        if np.isfinite(values).all() and values.min() < values.max():
            return task.scale
    return "*".join(n for n in task.names if _is_size(n, _at(read, n, search))) or None


def _is_size(name: str, values: FloatArray) -> bool:
    """Whether a feature counts something that grows with the run: ratios and learning rates stay at or below 1."""
    return _spans(values, SCALE_SPAN) and bool(values.max() > 1) and not _NOT_A_SIZE.search(name)


def _check(task: Task, rows: Rows, asked: int | None) -> None:
    """Raises TableError where the rows cannot carry a law."""
    path = task.train_file
    if len(rows) < MIN_ROWS:
        raise TableError(f"{path}: {len(rows)} row{'s' * (len(rows) > 1)} to fit; at least {MIN_ROWS} are needed, 5 or more advised")
    for name, y in rows.targets.items():
        if y.min() == y.max():
            raise TableError(f"{path}: target {name!r} is {y[0]:g} in all {len(y)} rows; there is nothing to explain")
    labels, counts = np.unique(rows.group, return_counts=True)
    i = int(counts.argmin())
    if counts[i] < MIN_ROWS:
        raise TableError(f"{path}: group {str(labels[i])!r} of column {task.group!r} has {counts[i]} row{'s' * int(counts[i] > 1)}; "
                         f"at least {MIN_ROWS} are needed: leave it out with where=\"{task.group}!='{labels[i]}'\"")
    if asked is not None and counts[i] <= asked:
        what = f"group {str(labels[i])!r} has" if task.group else "there are"
        raise TableError(f"{path}: {what} {counts[i]} rows for max_params={asked}; write max_params={counts[i] - 1} or less")


def _check_holdout(task: Task, rows: Rows, sealed: Rows) -> None:
    strangers = sorted(set(sealed.groups) - set(rows.groups))
    if strangers:
        raise TableError(f"holdout=: group {strangers[0]!r} of column {task.group!r} has no rows to fit; leave it out with where=, "
                         "or let train= keep rows of it")


