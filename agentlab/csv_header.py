"""Opens a CSV file: its encoding, separator and column names, and how large it may be."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from agentlab.errors import nearest
from agentlab.types import AgentlabError

MAX_BYTES = 4 * 10**9
MAX_ROWS = 20_000_000
"""Files above either are refused: their columns would not fit into the memory of an ordinary machine."""

Kind = Literal["number", "text", "either"]
"""How a column is wanted: "either" is numbers where every cell is a number or missing, else text."""

_DELIMITERS = ",;\t|"
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-nan"})


class TableError(AgentlabError):
    """A file that cannot be used as it stands; the text names file, column and line, and what to change."""


@dataclass(frozen=True)
class Layout:
    """What the first line says: the separator, the column names, and where the wanted ones stand."""

    path: Path
    delimiter: str
    header: tuple[str, ...]
    places: Mapping[str, int]
    kinds: Mapping[str, Kind]


def read_layout(path: Path, kinds: Mapping[str, Kind]) -> Layout:
    """Where the wanted columns stand; raises TableError as read_header, and for a column that is missing or doubled."""
    delimiter, header = read_header(path)
    return Layout(path, delimiter, header, _places(path, header, kinds), kinds)


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
        raise TableError(
            f"{path}: {size / 1e9:.1f} GB; at most {MAX_BYTES / 1e9:.0f} GB is read: keep the columns and rows needed"
        )
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}; give a file that can be read") from error
    if start[:2] in (b"\x1f\x8b", b"PK", b"BZ"):
        raise TableError(f"{path}: not a text file (compressed or a workbook?); save it as a plain CSV file")
    with text_of(path) as file:
        line = next((x for x in file if x.strip()), "")
        if not line:
            raise TableError(f"{path}: is empty; the first line must name the columns")
    delimiter = _delimiter(line)
    with text_of(path) as file:
        header = next(row for row in csv.reader(file, delimiter=delimiter) if row)
    return delimiter, tuple(name.strip() for name in header)


@contextmanager
def text_of(path: Path) -> Iterator[TextIO]:
    """The file as UTF-8 text; a byte that is not becomes a TableError that names its line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield file
        except UnicodeDecodeError as exc:
            line = _line_of_bad_byte(path)
            raise TableError(f"{path} line {line}: not UTF-8 text; save the file with UTF-8 encoding") from exc


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


def check_rows(path: Path, rows: int) -> None:
    """Raises TableError above MAX_ROWS."""
    if rows > MAX_ROWS:
        raise TableError(f"{path}: more than {MAX_ROWS:,} rows; keep a sample of the rows or fewer checkpoints a run")


def is_text(cells: Iterable[str]) -> bool:
    """Whether a cell is neither missing nor a number."""
    return any(number_of(cell) is None and not is_missing(cell) for cell in cells)


def is_missing(cell: str) -> bool:
    """Whether a cell is blank or says that there is no value."""
    return cell.lower() in _MISSING


def number_of(cell: str) -> float | None:
    """The number that a cell holds, or None. 1_5 is none, though Python reads fifteen: no other program does."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None
