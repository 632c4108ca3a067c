"""Intake of a user's table: the words of the command line and a CSV file become a task, rows and a sealed hold-out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from agentlab.catalog import find_data, load_task
from agentlab.csv_columns import Columns, read_columns
from agentlab.csv_header import Kind, TableError, read_header
from agentlab.errors import nearest
from agentlab.run_rows import Intake
from agentlab.table_rows import check_numbers, check_positive, mask_of, mentioned, rows_at, text_left_out, values_at
from agentlab.types import FloatArray, IntArray, Rows, RunConfig, Task, Variable
from agentlab.variables import named_boxes, named_signs, split_names

DEFAULT_MAX_PARAMS = 6
MIN_ROWS = 3
"""Rows a group must have: two parameters and one row to be wrong about."""

LOG_SPAN = 20.0
"""A positive feature whose largest value is more than this times its smallest is taken to span orders of magnitude."""

SIZE_SPAN = 2.0
"""The same for a feature that counts something: laws are powers of sizes, however narrow a sweep is."""

SCALE_SPAN = 4.0
"""Features that count something and span more than this are multiplied for a scale where the file names no compute."""

SCALE_NAMES = ("compute_train", "train_compute", "compute_train_6nd", "compute", "train_flops", "flops", "C")
"""Columns that order the runs when no scale= is given; the first that the file has."""

RUN_NAMES = ("run_id", "run", "curve_id")
"""Columns that number the runs when no run= is given."""

BIG = 1e3
"""What counts parameters, tokens or steps is larger than this."""

_NOT_A_SIZE = re.compile(r"(^|_)(lr|learning_rate|bs|bsz|batch\w*|warmup\w*|seed)(_|$)", re.IGNORECASE)
_FILE_NAME = re.compile(r"\.(csv|tsv|txt)$", re.IGNORECASE)


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
        raise TableError(
            "neither task= nor data= is given; write task=moe_leverage, or data=FILE.csv target=COL features=A,B"
        )
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
    read = read_columns(path, _kinds(plan, path, header, (config.where, config.train, config.holdout)))
    notes: list[str] = []
    search, holdout = _split(config, read, notes)
    task = _completed(plan, config, read, search, notes)
    rows = _searched(task, read, search, config.max_params)
    sealed: Rows | None = None
    if config.holdout and _is_file(config.holdout):
        sealed = file_rows(task, Path(config.holdout), where=config.where)
    elif holdout is not None:
        sealed = rows_at(task, read, holdout)
    if sealed is not None:
        _check_holdout(task, rows, sealed)
        notes.append(f"hold-out: {len(sealed)} rows are sealed; {len(rows)} rows are searched")
    return Intake(task, rows, sealed, tuple(notes))


def _task_intake(config: RunConfig) -> Intake:
    """The rows of a task; its hold-out stays in its file, which only the leaderboard opens."""
    for key in ("target", "features", "group", "weights", "run", "scale", "where", "train", "holdout"):
        if getattr(config, key) is not None:
            raise TableError(
                f"{key}= does not go with task=, which says it itself; leave it out, or name the file with data="
            )
    task = load_task(str(config.task))
    signs, boxes = named_signs(config.monotone, task.names), named_boxes(config.box, task.names)
    features = tuple(
        replace(v, monotone=signs.get(v.name, v.monotone), box=boxes.get(v.name, v.box)) for v in task.features
    )
    task = replace(
        task,
        features=features,
        max_params=_max_params(config) or task.max_params,
        residual=_residual(config) or task.residual,
        robust=config.robust or task.robust,
    )
    path = Path(task.train_file)
    read = read_columns(path, _kinds(task, path, read_header(path)[1], ()))
    return Intake(task, _searched(task, read, np.arange(len(read.lines)), config.max_params))


def file_rows(task: Task, path: Path, where: str | None = None) -> Rows:
    """The rows of the file at `path`, read with the columns that `task` names; those where `where` holds, if given.

    Raises:
        TableError: as read_data.
    """
    _, header = read_header(path)
    read = read_columns(path, _kinds(task, path, header, (where,)))
    keep = np.flatnonzero(mask_of(read, "where", where)) if where else np.arange(len(read.lines))
    return rows_at(task, read, keep)


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
    return bool(_FILE_NAME.search(text.strip())) or Path(text).is_file()


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


def _kinds(task: Task, path: Path, header: Sequence[str], expressions: Sequence[str | None]) -> dict[str, Kind]:
    """The columns that the task and the expressions need, and how each is to be read."""
    kinds: dict[str, Kind] = {}
    for text in expressions:
        if text and not _is_file(text):
            kinds.update(dict.fromkeys(mentioned(text, header, path), "either"))
    for text in (task.group, task.run):
        if text:
            kinds.setdefault(text, "text")
    numbers = [*task.names, *task.targets, *([task.weights] if task.weights else [])]
    numbers += mentioned(task.scale, header, path) if task.scale else []
    kinds.update(dict.fromkeys(numbers, "number"))
    return kinds


# ---- which rows ----


def _split(config: RunConfig, read: Columns, notes: list[str]) -> tuple[IntArray, IntArray | None]:
    """Positions of the rows to search and of those to seal (None without a hold-out in this file)."""
    n = len(read.lines)
    kept = mask_of(read, "where", config.where) if config.where else np.ones(n, dtype=bool)
    if not kept.all():
        notes.append(f"where: {n - int(kept.sum())} of {n} rows are left out{text_left_out(read, kept)}")
    inside = config.holdout if config.holdout and not _is_file(config.holdout) else None
    sealed = kept & mask_of(read, "holdout", inside, kept) if inside else None
    if config.train:
        search = kept & mask_of(read, "train", config.train, kept)
        if sealed is not None and (both := int((search & sealed).sum())):
            raise TableError(f"{read.path}: {both} rows are in train= and in holdout=; make the two disjoint")
    else:
        search = kept if sealed is None else kept & ~sealed
    if not search.any():
        raise TableError(
            f"{read.path}: holdout= takes all {int(kept.sum())} rows and leaves none to fit; ask for fewer"
        )
    return np.flatnonzero(search), None if sealed is None else np.flatnonzero(sealed)


# ---- what the rows decide ----


def _completed(plan: Task, config: RunConfig, read: Columns, search: IntArray, notes: list[str]) -> Task:
    """The plan with everything that is chosen from the searched rows."""
    for name in (*plan.names, *plan.targets):
        check_numbers(read, name, search)
    features = tuple(replace(v, log=_is_log(v.name, values_at(read, v.name, search))) for v in plan.features)
    task = replace(plan, features=features)
    if not config.scale:
        task = replace(task, scale=_default_scale(task, read, search))
        notes.append(f"scale: {task.scale or 'none, so inner hold-outs are drawn in folds'} (scale= to change)")
    positive = all((values_at(read, t, search) > 0).all() for t in task.targets)
    residual = _residual(config) or ("log" if positive else "plain")
    if not config.residual:
        notes.append(f"residual: {residual} (residual=log|plain to change)")
    task = replace(task, residual=residual, robust=config.robust or task.robust)
    if task.run and not config.run and len(set(read.values[task.run][search].tolist())) < len(search):
        notes.append(f"run: rows with the same {task.run} are one run (run= to change)")
    if config.max_params is None:
        fits = default_max_params(rows_at(task, read, search))
        if fits < DEFAULT_MAX_PARAMS:
            notes.append(f"max_params: {fits}, as the smallest group has few rows (max_params= to change)")
        task = replace(task, max_params=fits)
    return task


def _spans(values: FloatArray, factor: float) -> bool:
    return bool(values.min() > 0 and values.max() > factor * values.min())


def _is_log(name: str, values: FloatArray) -> bool:
    """Whether laws should see a feature through its logarithm: what counts or is tuned, and all that spans far."""
    tuned = bool(_NOT_A_SIZE.search(name)) or bool(values.max() > BIG)
    return _spans(values, SIZE_SPAN if tuned else LOG_SPAN)


def _default_scale(task: Task, read: Columns, search: IntArray) -> str | None:
    """The named compute column where it is usable, else the product of the sizes among the features, else None."""
    if task.scale is not None:
        values = values_at(read, task.scale, search)
        if np.isfinite(values).all() and values.min() < values.max():
            return task.scale
    return "*".join(n for n in task.names if _is_size(n, values_at(read, n, search))) or None


def _is_size(name: str, values: FloatArray) -> bool:
    """Whether a feature counts something that grows with the run: ratios and learning rates stay at or below 1."""
    return _spans(values, SCALE_SPAN) and bool(values.max() > 1) and not _NOT_A_SIZE.search(name)


def _searched(task: Task, read: Columns, index: IntArray, asked: int | None) -> Rows:
    """The rows to fit; raises TableError where they cannot carry a law. `asked` is max_params= as the user gave it."""
    rows = rows_at(task, read, index)
    check_positive(task, read, index)
    path = task.train_file
    if len(rows) < MIN_ROWS:
        raise TableError(
            f"{path}: {len(rows)} row{'s' * (len(rows) > 1)} to fit; at least {MIN_ROWS} are needed, 5 or more advised"
        )
    for name, y in rows.targets.items():
        if y.min() == y.max():
            raise TableError(f"{path}: target {name!r} is {y[0]:g} in all {len(y)} rows; there is nothing to explain")
    labels, counts = np.unique(rows.group, return_counts=True)
    i = int(counts.argmin())
    if counts[i] < MIN_ROWS:
        raise TableError(
            f"{path}: group {str(labels[i])!r} of column {task.group!r} has {counts[i]} row{'s' * int(counts[i] > 1)}; "
            f"at least {MIN_ROWS} are needed: leave it out with where=\"{task.group}!='{labels[i]}'\""
        )
    if asked is not None and counts[i] <= asked:
        what = f"group {str(labels[i])!r} has" if task.group else "there are"
        raise TableError(
            f"{path}: {what} {counts[i]} rows for max_params={asked}; write max_params={counts[i] - 1} or less"
        )
    return rows


def _check_holdout(task: Task, rows: Rows, sealed: Rows) -> None:
    searched, hidden = _as_tuples(rows), _as_tuples(sealed)
    if hidden <= searched:
        raise TableError(
            f"holdout=: all {len(sealed)} rows are among the {len(rows)} that are fitted; give rows of their own"
        )
    strangers = sorted(set(sealed.groups) - set(rows.groups))
    if strangers:
        raise TableError(
            f"holdout=: group {strangers[0]!r} of column {task.group!r} has no rows to fit; leave it out with where=, "
            "or let train= keep rows of it"
        )


def _as_tuples(rows: Rows) -> set[tuple[object, ...]]:
    return set(zip(rows.group, *rows.columns.values(), *rows.targets.values(), strict=True))
