"""Where the loop's graph keeps its checkpoints: a SQLite file in the run's folder, or a PostgreSQL database by URL.

The trace is the truth of a run. A checkpoint holds a cursor, and what a person was asked and has not answered yet, so a
run whose checkpoints are lost goes on from its trace. LangGraph adds one at every superstep: the 300 blocks of 10,000
candidates leave 1,200 of them, 2.1 MB in SQLite (and up to 4 MB of its log while it is open), 2.7 MB in PostgreSQL.
`prune` keeps the last one alone; with durability="exit" the graph writes no other.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiosqlite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from agentlab.errors import BackendError
from agentlab.words import UsageError

if TYPE_CHECKING:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg import AsyncConnection

__all__ = ["FILE", "VARIABLE", "open_saver", "prune"]

FILE = "checkpoints.sqlite"
"""The file in a run's folder."""

VARIABLE = "AGENTLAB_CHECKPOINTS"
"""The environment variable from which the URL is read: it may hold a password, so it is written down nowhere."""

_EXAMPLE = "address such as postgresql://USER:PASSWORD@HOST/DATABASE"

REACH_SECONDS = 10
SET_UP_SECONDS = 60
"""How long a server may take to answer, and to make its tables."""

_LOCK = int.from_bytes(b"agentlab")
"""The advisory lock under which one run at a time makes the tables of a PostgreSQL database."""

_PRUNE = (
    """
    DELETE FROM writes WHERE thread_id = ? AND checkpoint_id < (
        SELECT max(checkpoint_id) FROM checkpoints AS c
        WHERE c.thread_id = writes.thread_id AND c.checkpoint_ns = writes.checkpoint_ns
    )
    """,
    """
    DELETE FROM checkpoints WHERE thread_id = ? AND checkpoint_id < (
        SELECT max(checkpoint_id) FROM checkpoints AS c
        WHERE c.thread_id = checkpoints.thread_id AND c.checkpoint_ns = checkpoints.checkpoint_ns
    )
    """,
    "UPDATE checkpoints SET parent_checkpoint_id = NULL WHERE thread_id = ?",
)
"""What SQLite's saver has no method for; the ids of checkpoints grow with time."""


def open_saver(folder: Path, url: str | None = None) -> AbstractAsyncContextManager[BaseCheckpointSaver[str]]:
    """A saver that is ready for use until the block ends: on `folder`/checkpoints.sqlite, or on the server at `url`.

    Several runs may share a PostgreSQL database, and open it at once, as long as each has a thread id of its own.

    Raises (as does leaving the block after such an error within it):
        UsageError: `url` is no address of a PostgreSQL database.
        BackendError: the database cannot be used; the line names its host and its name, and no password.
    """
    return _postgres(url) if url else _sqlite(folder / FILE)


async def prune(saver: BaseCheckpointSaver[str], thread: str) -> None:
    """Delete all checkpoints of a thread but the last, which an interrupted graph goes on from."""
    if not isinstance(saver, AsyncSqliteSaver):
        await saver.aprune([thread])
        return
    async with saver.lock:
        for statement in _PRUNE:
            await saver.conn.execute(statement, (thread,))
        await saver.conn.commit()


def _serde() -> JsonPlusSerializer:
    """Plain values and LangGraph's own types: whoever can write to the database must not choose what we import."""
    return JsonPlusSerializer(allowed_msgpack_modules=None)


@asynccontextmanager
async def _sqlite(path: Path) -> AsyncIterator[AsyncSqliteSaver]:
    try:
        _drop_damaged(path)
        async with aiosqlite.connect(path) as connection:
            saver = AsyncSqliteSaver(connection, serde=_serde())
            await saver.setup()
            # What a power cut takes from the end of the file, the trace still has.
            await connection.execute("PRAGMA synchronous = NORMAL")
            yield saver
    except sqlite3.DatabaseError as error:
        raise BackendError(
            f"{path}: checkpoints cannot be kept there ({error}); make room, or delete the file, then resume"
        ) from error


def _drop_damaged(path: Path) -> None:
    """Delete what is no database or a damaged one: nothing in it is needed. Raises OperationalError where none opens.

    Looked at before aiosqlite, whose threads end in noise where a file does not open.
    """
    try:
        with closing(sqlite3.connect(path)) as connection:
            if connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                return
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        pass
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


@asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[AsyncPostgresSaver]:
    if url.partition("://")[0] not in ("postgresql", "postgres"):
        raise UsageError(f"{VARIABLE} is no {_EXAMPLE}; write it so, or unset it for a file in the run's folder")
    try:
        import psycopg  # noqa: PLC0415
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: PLC0415
        from psycopg.rows import dict_row  # noqa: PLC0415
    except ImportError:
        raise BackendError(
            f"{VARIABLE}: checkpoints in PostgreSQL need: pip install 'agentlab-discovery[postgres]'"
        ) from None
    address, where = _address(url)
    try:
        connection = await psycopg.AsyncConnection.connect(
            address, autocommit=True, prepare_threshold=0, row_factory=dict_row
        )
    except psycopg.Error:
        # Its own words repeat the user's name, and may repeat more.
        raise BackendError(
            f"{where} does not answer, or does not let the user in; start it, or write {VARIABLE} anew"
        ) from None
    async with connection:
        try:
            saver = AsyncPostgresSaver(connection, serde=_serde())
            await _set_up(saver, connection, where)
            yield saver
        except psycopg.Error as error:
            raise BackendError(
                f"{where}: checkpoints cannot be kept there ({type(error).__name__}); mend it, then resume"
            ) from None


def _address(url: str) -> tuple[str, str]:
    """What is connected to, and the host and the database that it names, for the eyes of anybody."""
    from psycopg import ProgrammingError  # noqa: PLC0415
    from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415

    try:
        options = conninfo_to_dict(url)
    except ProgrammingError:
        raise UsageError(f"{VARIABLE} cannot be read; write an {_EXAMPLE}") from None
    timeout = {} if "connect_timeout" in options else {"connect_timeout": REACH_SECONDS}
    host, name = str(options.get("host") or "the default host"), str(options.get("dbname") or "the user's own")
    if "@" in host + name:
        # A password was cut in two, and one half of it stands in a name.
        raise UsageError(f"{VARIABLE} cannot be read; write @ as %40 and / as %2F where they are part of the password")
    return make_conninfo(url, **timeout), f"the database {name} on {host}"


async def _set_up(saver: AsyncPostgresSaver, connection: AsyncConnection[Any], where: str) -> None:
    """Make the tables where they are missing, one run at a time."""
    try:
        async with asyncio.timeout(SET_UP_SECONDS):
            # Tried and not waited for: an index that is made concurrently waits for every statement under way, so a
            # statement that waits for the lock of its maker would never end.
            while not await _told(connection, "SELECT pg_try_advisory_lock(%s) AS told"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await saver.setup()
            await _told(connection, "SELECT pg_advisory_unlock(%s) AS told")
    except TimeoutError:
        raise BackendError(
            f"{where}: its tables were not made within {SET_UP_SECONDS} s; see what holds them"
        ) from None


async def _told(connection: AsyncConnection[Any], question: str) -> bool:
    row = await (await connection.execute(question, (_LOCK,))).fetchone()
    return bool(row and row["told"])
