"""Keeps an index of tools in one file.

SQLite rather than JSON lines: a synchronisation writes the rows that changed and no others, all of them or none, two
processes may use one file, and vectors need no text form. What the file holds can always be listed and embedded anew,
so a damaged or half-written one is thrown away, never mended.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentlab.errors import AgentlabError, BackendError
from agentlab.tool_embed import Vectors
from agentlab.tool_records import Tool, digest_of, read_tool

_MAGIC = b"SQLite format 3\0"
_OURS = int.from_bytes(b"agtl")
"""SQLite's application id, four bytes at offset 68: by it we know our own files and touch no others."""

_TABLES = """
CREATE TABLE IF NOT EXISTS made (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tools (
    name TEXT PRIMARY KEY, digest TEXT NOT NULL, tool TEXT NOT NULL, vector BLOB NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One tool in an index; `vector` (dimensions,) is of unit length, or zero."""

    tool: Tool
    digest: str
    vector: Vectors


class Store:
    """The file of an index whose vectors were `made` in one way; a file made otherwise starts empty.

    Raises:
        AgentlabError: the path holds something else.
        BackendError: the file cannot be opened, or another process holds it for more than 10 s.
    """

    def __init__(self, path: Path, made: str) -> None:
        self._path, self._made = path, made
        _refuse_others(path)
        path.parent.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[str, Row]:
        """The rows by full name; empty where the file is new, damaged, or made otherwise."""
        try:
            with self._open() as connection:
                return _rows(connection, self._made)
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise self._cannot(error) from error
            self._path.unlink(missing_ok=True)
            self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
            return {}

    def write(self, changed: Mapping[str, Row], deleted: Collection[str]) -> None:
        """Write some rows and delete others, as one transaction."""
        try:
            with self._open() as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                _make_ours(connection, self._made)
                connection.executemany("DELETE FROM tools WHERE name = ?", [(name,) for name in deleted])
                connection.executemany(
                    "INSERT OR REPLACE INTO tools VALUES (?, ?, ?, ?)",
                    [(n, r.digest, r.tool.canonical(), r.vector.astype("<f4").tobytes()) for n, r in changed.items()],
                )
        except sqlite3.DatabaseError as error:
            raise self._cannot(error) from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as connection:
            if connection.execute("PRAGMA application_id").fetchone() != (_OURS,):
                connection.execute(f"PRAGMA application_id = {_OURS}")
            connection.executescript(_TABLES)
            yield connection

    def _cannot(self, error: sqlite3.Error) -> BackendError:
        return BackendError(f"tool index {self._path}: {error}; give another path")


def _refuse_others(path: Path) -> None:
    """Raise AgentlabError where a path holds something that is not an index of ours, whole or torn."""
    if not path.exists():
        return
    if not path.is_file():
        raise AgentlabError(f"tool index {path}: not a file; give the path of a file")
    with path.open("rb") as file:
        head = file.read(72)
    empty = not head.strip(b"\0")
    torn = len(head) < 72 and (head.startswith(_MAGIC) or _MAGIC.startswith(head))
    if not (empty or torn or (head.startswith(_MAGIC) and int.from_bytes(head[68:72]) == _OURS)):
        raise AgentlabError(f"tool index {path}: the file is something else; give another path")


def _make_ours(connection: sqlite3.Connection, made: str) -> None:
    """Empty a file whose vectors were made in another way."""
    if [name for (name,) in connection.execute("SELECT name FROM made")] != [made]:
        connection.execute("DELETE FROM tools")
        connection.execute("DELETE FROM made")
        connection.execute("INSERT INTO made VALUES (?)", (made,))


def _rows(connection: sqlite3.Connection, made: str) -> dict[str, Row]:
    """What the file holds. Raises ValueError, TypeError or sqlite3.DatabaseError where it is damaged."""
    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise ValueError("damaged")
    if [name for (name,) in connection.execute("SELECT name FROM made")] != [made]:
        return {}
    rows = {}
    for name, digest, text, vector in connection.execute("SELECT name, digest, tool, vector FROM tools"):
        tool = read_tool(text)
        if digest_of(text) != digest or tool.full_name != name:
            raise ValueError("damaged")
        rows[name] = Row(tool, digest, np.frombuffer(vector, dtype="<f4").astype(np.float32))
    if len({row.vector.size for row in rows.values()}) > 1:
        raise ValueError("vectors of several lengths")
    return rows
