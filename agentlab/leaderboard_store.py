"""Where the leaderboard's tables are: a SQLite file, or PostgreSQL by URL, brought up to date when opened."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, SQLAlchemyError

from agentlab.errors import BackendError
from agentlab.words import UsageError

__all__ = [
    "HEAD",
    "VARIABLE",
    "data_folder",
    "home_of",
    "incidents",
    "looks",
    "metadata",
    "migrate",
    "open_engine",
    "seconds",
    "submissions",
    "submitters",
    "telling",
]

VARIABLE = "AGENTLAB_BOARD"
"""The environment variable with the board's file or address: it may hold a password, so it is written down nowhere."""

FILES = "AGENTLAB_BOARD_FILES"
"""The environment variable with the folder of a board on PostgreSQL, where its second hold-outs lie."""

HEAD = "0001"
"""The last migration; a board at it is opened without loading Alembic."""

WAIT = 30.0
"""Seconds that a writer waits for another."""
_LOCK = int.from_bytes(b"board")
"""The advisory lock under which one process at a time makes the tables of a PostgreSQL database."""

metadata = sa.MetaData()
submissions = sa.Table(
    "submissions",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(24), nullable=False, unique=True),
    sa.Column("received", sa.String(32), nullable=False),
    sa.Column("submitter", sa.String(64), nullable=False),
    sa.Column("task", sa.String(100), nullable=False, index=True),
    sa.Column("version", sa.String(12), nullable=False),
    sa.Column("law", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("declared", sa.Integer, nullable=False),
    sa.Column("finished", sa.Integer, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("figures", sa.Text, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)
looks = sa.Table(
    "looks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("submission", sa.String(24), nullable=False),
    sa.Column("sealed", sa.String(8), nullable=False),
    sa.Column("submitter", sa.String(64), nullable=False),
    sa.Column("task", sa.String(100), nullable=False),
    sa.Column("date", sa.String(32), nullable=False),
    sa.UniqueConstraint("submission", "sealed"),
)
incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("date", sa.String(32), nullable=False),
    sa.Column("submission", sa.String(24), nullable=False),
    sa.Column("submitter", sa.String(64), nullable=False),
    sa.Column("task", sa.String(100), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("found", sa.Text, nullable=False),
)
submitters = sa.Table(
    "submitters",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("token", sa.String(64), nullable=False, unique=True),
    sa.Column("date", sa.String(32), nullable=False),
)
seconds = sa.Table(
    "seconds",
    metadata,
    sa.Column("task", sa.String(100), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("date", sa.String(32), nullable=False),
)


def data_folder() -> Path:
    """The user's folder for what agentlab keeps, which need not be there yet."""
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "agentlab"


def url_of(where: str | None) -> URL:
    """The address of a board: a file, a URL, or with None $AGENTLAB_BOARD, else a file in the user's data folder.

    Raises:
        UsageError: it is no address of a database that a board can be kept in.
    """
    text = where or os.environ.get(VARIABLE) or str(data_folder() / "board.sqlite")
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        found = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number
        found = None
    kinds = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
    name = found.drivername.partition("+")[0] if found is not None else ""
    if found is None or name not in kinds or "@" in f"{found.host}{found.database if name != 'sqlite' else ''}":
        raise UsageError(
            "the board's address cannot be read; write a file such as board.sqlite, or "
            f"postgresql://USER:PASSWORD@HOST/DATABASE with @ as %40 in the password (--board, or {VARIABLE})"
        )
    if name == "sqlite" and found.database in (None, "", ":memory:"):
        raise UsageError("a board in memory is gone when the command ends; write a file such as board.sqlite (--board)")
    return found.set(drivername=kinds[name])


def home_of(url: URL) -> Path:
    """The folder beside a board: what it scores in, and the second hold-outs; only its owner may enter."""
    if url.drivername == "sqlite":
        folder = Path(f"{url.database}.d")
    else:
        told = url.render_as_string(hide_password=True)
        kept = data_folder() / f"board-{hashlib.sha256(told.encode()).hexdigest()[:12]}.d"
        folder = Path(os.environ.get(FILES) or kept)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}; give a board that can be written (--board)") from error
    return folder


def open_engine(where: str | None) -> Engine:
    """An engine for the board at `where` (url_of), its tables as they are. Raises UsageError, BackendError."""
    url = url_of(where)
    if url.drivername == "sqlite":
        return _sqlite(url)
    try:
        import psycopg  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise BackendError("a board in PostgreSQL needs: pip install 'agentlab-discovery[postgres]'") from None
    return sa.create_engine(url, pool_pre_ping=True, pool_size=4, max_overflow=2, pool_timeout=WAIT)


def _sqlite(url: URL) -> Engine:
    engine = sa.create_engine(url, connect_args={"timeout": WAIT})

    def opened(connection: sqlite3.Connection, _record: object) -> None:
        # Transactions are begun below: the driver's own would begin too late, and leave out what makes tables.
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = FULL")

    def begun(connection: Connection) -> None:
        # Readers, too: one that turns into a writer would be refused, not made to wait.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sa.event.listen(engine, "connect", opened)
    sa.event.listen(engine, "begin", begun)
    return engine


def migrate(engine: Engine, home: Path) -> None:
    """Bring the tables up to date, one process at a time.

    Raises:
        BackendError: the database cannot be used, or a newer agentlab has changed it.
    """
    with telling(engine), (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if engine.dialect.name == "sqlite":
            _log_ahead(engine)
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            known = _version(connection)
            if known == HEAD:
                return
            if known is not None and known > HEAD:
                raise BackendError(f"the board is of version {known}, made by a newer agentlab; install that one")
            _upgrade(connection)


def _log_ahead(engine: Engine) -> None:
    """Readers and a writer do not wait for each other; the file remembers it."""
    raw = engine.raw_connection()
    try:
        raw.driver_connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
    finally:
        raw.close()


def _version(connection: Connection) -> str | None:
    if "alembic_version" not in sa.inspect(connection).get_table_names():
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - only a board that is not up to date needs it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(resources.files("agentlab.migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def telling(engine: Engine) -> Iterator[None]:
    """Turns what a database says, which may repeat an address with its password, into one line.

    That something is there already (IntegrityError) is for the caller to say.
    """
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, sqlite3.Error) as error:  # the latter from what is done as a connection is made
        url = engine.url
        where = url.database if engine.dialect.name == "sqlite" else f"the database {url.database} on {_host(url)}"
        why = type(getattr(error, "orig", None) or error).__name__
        if isinstance(error, DatabaseError | sqlite3.Error) and engine.dialect.name == "sqlite":
            why = " ".join(str(getattr(error, "orig", error)).split())
        raise BackendError(
            f"{where}: the board cannot be used ({why}); mend it, or give another with --board"
        ) from None


def _host(url: URL) -> str:
    return str(url.host or url.query.get("host") or "the default host")
