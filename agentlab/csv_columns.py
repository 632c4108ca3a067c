"""Reads named columns of a CSV file: quickly where the file is clean, else cell by cell, with their line numbers."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentlab.csv_clean import read_clean
from agentlab.csv_header import (
    Kind,
    Layout,
    TableError,
    check_rows,
    is_missing,
    is_text,
    number_of,
    read_layout,
    text_of,
)
from agentlab.types import FloatArray, IntArray, StrArray

_CHUNK_ROWS = 65_536


@dataclass(frozen=True)
class Columns:
    """The wanted columns of a file with n rows, and where each row came from.

    `values` holds one (n,) array a column: float64 with NaN for a missing cell, or text. `lines` (n,) are the line
    numbers in the file, the header being line 1. `text_cells` remembers, per numeric column, the cells that hold text
    where a number should stand, by position in `lines`; they read as NaN.
    """

    path: Path
    header: tuple[str, ...]
    values: Mapping[str, FloatArray | StrArray]
    lines: IntArray
    text_cells: Mapping[str, Mapping[int, str]]


def read_columns(path: Path, kinds: Mapping[str, Kind]) -> Columns:
    """The columns named in `kinds` of the file at `path`.

    Raises:
        TableError: as read_header; a column that is missing or stands twice, a line with more or fewer cells than the
            header, no rows at all, or more than MAX_ROWS.
    """
    layout = read_layout(path, kinds)
    values = read_clean(layout)
    if values is None:
        read = _read_cells(layout)
    else:
        rows = len(next(iter(values.values()), ()))
        read = Columns(path, layout.header, values, np.arange(2, rows + 2), {})
    if not len(read.lines):
        raise TableError(f"{path}: has a header but no rows; add one line a training run")
    return read


def _read_cells(layout: Layout) -> Columns:
    """Any file, through Python's csv, a chunk of rows at a time."""
    kinds = dict(layout.kinds)
    parts: dict[str, list[FloatArray]] = {n: [] for n in kinds}
    labels: dict[str, list[StrArray]] = {n: [] for n in kinds}
    text_cells: dict[str, dict[int, str]] = {n: {} for n in kinds}
    lines: list[IntArray] = []
    seen = 0
    for rows, numbers in _chunks(layout):  # the first chunk tells what an "either" column is
        for name, place in layout.places.items():
            cells = [row[place].strip() for row in rows]
            if kinds[name] == "either":
                kinds[name] = "text" if is_text(cells) else "number"
            if kinds[name] == "text":
                labels[name].append(np.array(cells, dtype=np.str_))
            else:
                column, text = _numbers(cells)
                parts[name].append(column)
                text_cells[name].update({seen + i: cell for i, cell in text.items()})
        lines.append(numbers)
        seen += len(rows)
        check_rows(layout.path, seen)
    values: dict[str, FloatArray | StrArray] = {
        n: np.concatenate(labels[n]) if labels[n] else np.concatenate([np.zeros(0), *parts[n]]) for n in kinds
    }
    where = np.concatenate(lines) if lines else np.zeros(0, dtype=np.int64)
    return Columns(layout.path, layout.header, values, where, {n: t for n, t in text_cells.items() if t})


def _chunks(layout: Layout) -> Iterator[tuple[list[list[str]], IntArray]]:
    """The rows after the header, checked for their number of cells, with the line each starts on."""
    width = len(layout.header)
    with text_of(layout.path) as file:
        reader = csv.reader(file, delimiter=layout.delimiter)
        start = 1
        header_seen = False
        while True:
            try:
                rows = list(itertools.islice(reader, _CHUNK_ROWS))
            except csv.Error as exc:
                raise TableError(f"{layout.path} line {reader.line_num}: {exc}; is a quote left open?") from exc
            if not rows:
                return
            numbers = _line_numbers(rows, start, reader.line_num)
            start = reader.line_num + 1
            keep = [i for i, row in enumerate(rows) if row]
            if not header_seen and keep:
                keep, header_seen = keep[1:], True
            for i in keep:
                if len(rows[i]) != width:
                    raise TableError(_ragged(layout, rows[i], int(numbers[i])))
            if keep:
                yield [rows[i] for i in keep], numbers[keep]


def _line_numbers(rows: list[list[str]], start: int, last: int) -> IntArray:
    """The line each row starts on; quoted cells may hold line breaks, so rows and lines need not match."""
    if last - start + 1 == len(rows):
        return np.arange(start, last + 1)
    spans = [1 + sum(cell.count("\n") for cell in row) for row in rows]
    return start + np.concatenate([[0], np.cumsum(spans)[:-1]]).astype(np.int64)


def _ragged(layout: Layout, row: list[str], line: int) -> str:
    width, found = len(layout.header), len(row)
    where = f"{layout.path} line {line}: {found} cells where the header has {width}"
    if any("\n" in cell for cell in row):
        return f"{where}; is a quote left open?"
    if found > width:
        return f"{where}; put quotes around a cell that holds {layout.delimiter!r}"
    return f"{where}; is the line cut short, or a separator missing?"


def _numbers(cells: list[str]) -> tuple[FloatArray, dict[int, str]]:
    """The cells as floats, NaN where missing, and the cells that hold text instead, by position."""
    if "_" not in "".join(cells):
        with suppress(ValueError):
            return np.array([float(c) for c in cells], dtype=np.float64), {}
    found = [number_of(cell) for cell in cells]
    text = {i: cells[i] for i, number in enumerate(found) if number is None and not is_missing(cells[i])}
    return np.array([np.nan if number is None else number for number in found], dtype=np.float64), text
