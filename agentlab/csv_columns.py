"""Reads named columns of a CSV file: quickly where the file is clean, cell by cell with line numbers where it is not."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentlab.catalog import nearest
from agentlab.types import AgentlabError, BoolArray, FloatArray, IntArray, StrArray

MAX_BYTES = 4 * 10**9
MAX_ROWS = 20_000_000
"""Files above either are refused: their columns would not fit into the memory of an ordinary machine."""

Kind = Literal["number", "text", "either"]
"""How a column is wanted: "either" is numbers when its first cells are numbers, else text."""

_DELIMITERS = ",;\t|"
_CHUNK_ROWS = 65_536
_SCAN_BYTES = 1 << 22
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-nan"})


class TableError(AgentlabError):
    """A file that cannot be used as it stands; the text names file, column and line, and what to change."""


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


@dataclass(frozen=True)
class _Layout:
    """What the first line says: the separator, the column names, and where the wanted ones stand."""

    path: Path
    delimiter: str
    header: tuple[str, ...]
    places: Mapping[str, int]
    kinds: Mapping[str, Kind]


def read_header(path: Path) -> tuple[str, tuple[str, ...]]:
    """The separator and the column names of the file at `path`.

    Raises:
        TableError: the file is missing, a folder, empty, too large, compressed, or not UTF-8 text.
    """
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        hint = nearest(path.name, sorted(siblings)) if siblings else "check the path"
        raise TableError(f"{path}: no such file; {hint}")
    if path.is_dir():
        raise TableError(f"{path}: is a folder; name the CSV file in it")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise TableError(f"{path}: {size / 1e9:.1f} GB; at most {MAX_BYTES / 1e9:.0f} GB is read: keep the columns and rows needed")
    with path.open("rb") as file:
        start = file.read(4096)
    if start[:2] in (b"\x1f\x8b", b"PK", b"BZ") or b"\x00" in start and start[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise TableError(f"{path}: not a text file (compressed or a workbook?); save it as a plain CSV file")
    with _text(path) as file:
        line = next((x for x in file if x.strip()), "")
        if not line:
            raise TableError(f"{path}: is empty; the first line must name the columns")
    delimiter = _delimiter(line)
    with _text(path) as file:
        header = next(row for row in csv.reader(file, delimiter=delimiter) if row)
    return delimiter, tuple(name.strip() for name in header)


def read_columns(path: Path, kinds: Mapping[str, Kind]) -> Columns:
    """The columns named in `kinds` of the file at `path`.

    Raises:
        TableError: as read_header; a column that is missing or stands twice, a line with more or fewer cells than the
            header, no rows at all, or more than MAX_ROWS.
    """
    delimiter, header = read_header(path)
    layout = _Layout(path, delimiter, header, _places(path, header, kinds), kinds)
    read = _read_clean(layout) or _read_cells(layout)
    if not len(read.lines):
        raise TableError(f"{path}: has a header but no rows; add one line a training run")
    return read


class _Utf8:
    """A text file that tells the line of a byte that is not UTF-8."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open(encoding="utf-8-sig", newline="")

    def __enter__(self) -> Iterator[str]:
        return self._lines()

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _lines(self) -> Iterator[str]:
        try:
            yield from self.file
        except UnicodeDecodeError as exc:
            line = _line_of_bad_byte(self.path)
            raise TableError(f"{self.path} line {line}: not UTF-8 text; save the file with UTF-8 encoding") from exc


_text: Callable[[Path], _Utf8] = _Utf8


def _line_of_bad_byte(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


def _delimiter(line: str) -> str:
    """The candidate that occurs most often outside quotes in the header line; a comma where there is none."""
    bare = "".join(line.split('"')[::2])
    return max(_DELIMITERS, key=bare.count)


def _places(path: Path, header: tuple[str, ...], wanted: Mapping[str, Kind]) -> dict[str, int]:
    for name in wanted:
        if name not in header:
            raise TableError(f"{path}: no column {name!r}; {nearest(name, header)}")
        if header.count(name) > 1:
            raise TableError(f"{path}: {header.count(name)} columns are called {name!r}; rename all but one in line 1")
    return {name: header.index(name) for name in wanted}


# ---- clean files: NumPy's C reader ----


def _read_clean(layout: _Layout) -> Columns | None:
    """All columns through NumPy's C reader (9 times faster), or None where the file holds anything unusual."""
    rows = _regular_rows(layout)
    if not rows:
        return None
    values: dict[str, FloatArray | StrArray] = {}
    try:
        numeric = [n for n, kind in layout.kinds.items() if kind == "number"]
        rest = [n for n, kind in layout.kinds.items() if kind != "number"]
        if numeric:
            values.update(zip(numeric, _load(layout, numeric, np.float64), strict=True))
        for name in rest:
            values[name] = _load_either(layout, name)
    except (ValueError, UnicodeDecodeError):
        return None
    if any(len(v) != rows for v in values.values()):
        return None
    return Columns(layout.path, layout.header, {n: values[n] for n in layout.kinds}, np.arange(2, rows + 2), {})


def _load(layout: _Layout, names: Sequence[str], dtype: type) -> Sequence[NDArray]:
    table = np.loadtxt(
        layout.path,
        dtype=dtype,
        delimiter=layout.delimiter,
        skiprows=1,
        usecols=[layout.places[n] for n in names],
        comments=None,
        encoding="utf-8-sig",
        ndmin=2,
    )
    return [np.ascontiguousarray(column) for column in table.T]


def _load_either(layout: _Layout, name: str) -> FloatArray | StrArray:
    if layout.kinds[name] == "either":
        try:
            return _load(layout, [name], np.float64)[0]
        except ValueError:
            pass
    text = np.char.strip(_load(layout, [name], str)[0])
    if layout.kinds[name] == "either" and not _is_text(text[:_CHUNK_ROWS]):
        raise ValueError(name)  # numbers with gaps: the careful reader knows what a gap is
    return text


def _is_text(cells: Sequence[str] | StrArray) -> bool:
    """Whether the first cell that is not missing is no number."""
    for cell in cells:
        if cell.strip().lower() not in _MISSING:
            return _number(cell) is None
    return False


def _regular_rows(layout: _Layout) -> int | None:
    """How many lines follow the header, or None where one is blank, holds quotes, or has other than the header's cells.

    Raises:
        TableError: more than MAX_ROWS lines.
    """
    width, mark = len(layout.header) - 1, ord(layout.delimiter)
    seen, rest = 0, b""
    with layout.path.open("rb") as file:
        while block := file.read(_SCAN_BYTES) or (rest and b"\n"):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            if b'"' in block:
                return None
            marks, blank = _marks_per_line(block[:cut], mark)
            if blank.any() or (marks != width).any():
                return None
            seen += len(marks)
            _check_rows(layout.path, seen - 1)
    return seen - 1


def _marks_per_line(block: bytes, mark: int) -> tuple[IntArray, BoolArray]:
    """Separators in each line of a block that ends with a newline, and whether the line is blank."""
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    before = np.searchsorted(np.flatnonzero(data == mark), ends)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    return np.diff(before, prepend=0), (ends == starts) | ((ends == starts + 1) & (data[starts] == ord("\r")))


def _check_rows(path: Path, rows: int) -> None:
    if rows > MAX_ROWS:
        raise TableError(f"{path}: more than {MAX_ROWS:,} rows; keep a sample of the rows or fewer checkpoints a run")


# ---- any file: Python's csv, in chunks ----


def _read_cells(layout: _Layout) -> Columns:
    kinds = dict(layout.kinds)
    parts: dict[str, list[FloatArray | StrArray]] = {n: [] for n in kinds}
    text_cells: dict[str, dict[int, str]] = {n: {} for n in kinds}
    lines: list[IntArray] = []
    seen = 0
    for rows, numbers in _chunks(layout):
        for name, place in layout.places.items():
            cells = [row[place].strip() for row in rows]
            if kinds[name] == "either":
                kinds[name] = "text" if _is_text(cells) else "number"
            if kinds[name] == "text":
                parts[name].append(np.array(cells, dtype=np.str_))
            else:
                column, text = _numbers(cells)
                parts[name].append(column)
                text_cells[name].update({seen + i: cell for i, cell in text.items()})
        lines.append(numbers)
        seen += len(rows)
        _check_rows(layout.path, seen)
    values = {n: np.concatenate(p) if p else np.zeros(0) for n, p in parts.items()}
    where = np.concatenate(lines) if lines else np.zeros(0, dtype=np.int64)
    return Columns(layout.path, layout.header, values, where, {n: t for n, t in text_cells.items() if t})


def _chunks(layout: _Layout) -> Iterator[tuple[list[list[str]], IntArray]]:
    """The rows after the header, checked for their number of cells, with the line each starts on."""
    width = len(layout.header)
    with _text(layout.path) as file:
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
            yield [rows[i] for i in keep], numbers[keep]


def _line_numbers(rows: list[list[str]], start: int, last: int) -> IntArray:
    """The line each row starts on; quoted cells may hold line breaks, so rows and lines need not match."""
    if last - start + 1 == len(rows):
        return np.arange(start, last + 1)
    spans = [1 + sum(cell.count("\n") for cell in row) for row in rows]
    return start + np.concatenate([[0], np.cumsum(spans)[:-1]]).astype(np.int64)


def _ragged(layout: _Layout, row: list[str], line: int) -> str:
    width, found = len(layout.header), len(row)
    where = f"{layout.path} line {line}: {found} cells where the header has {width}"
    if any("\n" in cell for cell in row):
        return f"{where}; is a quote left open?"
    if found > width:
        return f"{where}; put quotes around a cell that holds {layout.delimiter!r}"
    return f"{where}; is the line cut short, or a separator missing?"


def _numbers(cells: list[str]) -> tuple[FloatArray, dict[int, str]]:
    """The cells as floats, NaN where missing, and the cells that hold text instead, by position."""
    try:
        if "_" in "".join(cells):  # Python reads 1_5 as fifteen; NumPy's reader and every other program does not
            raise ValueError
        return np.array([float(c) for c in cells], dtype=np.float64), {}
    except ValueError:
        values = np.full(len(cells), np.nan)
        text = {}
        for i, cell in enumerate(cells):
            number = _number(cell)
            if number is not None:
                values[i] = number
            elif cell.lower() not in _MISSING:
                text[i] = cell
        return values, text


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None
