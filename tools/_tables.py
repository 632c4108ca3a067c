"""Tables in and new tables out: rows chosen by a condition, columns computed from others."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentlab.csv_columns import Columns, read_columns
from agentlab.csv_header import TableError, read_header
from agentlab.law import FUNCTIONS, LawError, column_expression
from agentlab.law_tree import number
from agentlab.table_rows import mask_of, mentioned
from agentlab.types import BoolArray, FloatArray, StrArray

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True)
class Made:
    """A computed column: its values (n,), and how many of them are blank for want of a number."""

    name: str
    values: FloatArray
    blank: int


def new_file(out: str) -> Path:
    """The path of a CSV file that may be written. Raises TableError where it exists or cannot be."""
    path = Path(out).expanduser()
    if path.suffix.lower() != ".csv":
        raise TableError(f"out={out}: is no CSV file; write a name that ends in .csv")
    if path.name.casefold().startswith("holdout"):
        raise TableError(f"out={out}: names that begin with holdout are kept for sealed rows; write another")
    if path.exists() or path.is_symlink():
        raise TableError(f"out={out}: exists; give the name of a new file")
    if not path.parent.is_dir():
        raise TableError(f"out={out}: there is no folder {path.parent}; make it first")
    return path


def cells_of(path: Path) -> Columns:
    """Every cell of a file as text. Raises TableError as read_columns."""
    return read_columns(path, dict.fromkeys(read_header(path)[1], "text"))


def rows_kept(path: Path, where: str) -> BoolArray:
    """The rows (n,) of a file that meet a condition. Raises TableError as mask_of."""
    _, header = read_header(path)
    names = mentioned(where, header, path)
    return mask_of(read_columns(path, dict.fromkeys(names or header[:1], "either")), "where", where)


def computed(path: Path, expressions: Mapping[str, str]) -> list[Made]:
    """New columns of a file, each from its numbers and the new columns before it.

    Raises:
        TableError: a name that is taken or cannot stand in a formula, an expression that cannot be read, or a column
            of text among the numbers.
    """
    _, header = read_header(path)
    wanted: dict[str, None] = {}
    for i, (name, text) in enumerate(expressions.items()):
        if not _IDENTIFIER.fullmatch(name) or name in FUNCTIONS:
            raise TableError(f"columns: {name!r} cannot stand in a formula; write letters, digits and _")
        if name in header:
            raise TableError(f"columns: {path} has a column {name!r} already; give another name")
        known = [*header, *list(expressions)[:i]]
        wanted.update(dict.fromkeys(n for n in mentioned(text, known, path) if n in header))
    read = read_columns(path, dict.fromkeys(wanted or header[:1], "number" if wanted else "text"))
    _refuse_text(read)
    columns: dict[str, FloatArray] = {n: np.asarray(read.values[n], dtype=np.float64) for n in wanted}
    made = []
    for name, text in expressions.items():
        values = _value(name, text, columns, len(read.lines))
        columns[name] = values
        made.append(Made(name, values, int(np.count_nonzero(np.isnan(values)))))
    return made


def _value(name: str, text: str, columns: Mapping[str, FloatArray], n: int) -> FloatArray:
    """The expression (n,), nan where it is no finite number."""
    try:
        with np.errstate(all="ignore"):
            found = column_expression(text, columns)
    except LawError as error:
        raise TableError(f"columns: {name}={text!r}: {error}") from error
    values = np.array(np.broadcast_to(found, n), dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _refuse_text(read: Columns) -> None:
    for name, cells in read.text_cells.items():
        at, cell = next(iter(sorted(cells.items())))
        line = read.lines[at]
        raise TableError(f"{read.path} line {line}: column {name!r} holds {cell[:40]!r}, not a number; use another")


def write_table(path: Path, columns: Mapping[str, Sequence[str] | StrArray]) -> None:
    """The columns as a new CSV file, a comma between cells."""
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def as_cells(values: FloatArray) -> list[str]:
    """Numbers as a file writes them: the shortest text that reads back the same, blank for nan."""
    return ["" if np.isnan(v) else number(float(v)) for v in values]
