"""The leaderboard's books: what was submitted and how far it is verified, looks at hold-outs, incidents, submitters."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from agentlab.leaderboard_records import LEVELS, MOST_BYTES, NAME, RefusedError, Submission, read_submission, shown
from agentlab.leaderboard_store import (
    home_of,
    incidents,
    looks,
    migrate,
    open_engine,
    seconds,
    submissions,
    submitters,
    telling,
)
from agentlab.trace import dump
from agentlab.words import UsageError

__all__ = ["Board", "Row", "open_board"]

Sealed = Literal["first", "second"]


@dataclass(frozen=True, slots=True)
class Row:
    """A submission as the board has it, without its parts; `figures` are what the board measured, {} before."""

    number: int
    id: str
    received: str
    submitter: str
    task: str
    version: str
    law: str
    key: str
    method: str
    declared: int
    finished: int
    note: str
    level: str
    reason: str
    figures: Mapping[str, Any]


_PLAIN = [c for c in submissions.c if c.name != "payload"]


def open_board(where: str | None = None) -> Board:
    """The board at a file or URL, its tables brought up to date. Raises UsageError, BackendError."""
    engine = open_engine(where)
    home = home_of(engine.url)
    migrate(engine, home)
    return Board(engine, home)


class Board:
    """An open board; several processes may have the same one open, and a killed one loses nothing it acknowledged."""

    def __init__(self, engine: Engine, home: Path) -> None:
        self._engine = engine
        self.home = home

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    # ---- submissions ----

    def receive(self, text: bytes, version: str, submitter: str | None = None) -> tuple[str, bool]:
        """Keep a submission; its id, and whether it is new: the same one sent again is kept once.

        `version` is that of its task; `submitter` is whom a token belongs to, None where no token says it.

        Raises:
            RefusedError: it is not whole, or is in another's name.
        """
        name, one = read_submission(text)
        if submitter is not None and one.submitter != submitter:
            raise RefusedError("another's name", f"the token is {submitter}'s, the submission {one.submitter}'s")
        values = {
            "id": name,
            "received": _now(),
            "submitter": one.submitter,
            "task": one.task,
            "version": version,
            "law": one.law.formula,
            "key": one.law.key,
            "method": method_of(one),
            "declared": len(one.declared),
            "finished": len(one.runs),
            "note": one.note,
            "level": "received",
            "reason": "",
            "figures": "{}",
            "payload": zlib.compress(text, 6),
        }
        try:
            with telling(self._engine), self._engine.begin() as connection:
                connection.execute(submissions.insert().values(values))
        except IntegrityError:
            return name, False
        return name, True

    def rows(self, task: str | None = None) -> list[Row]:
        """All submissions, or those to a task, in the order in which they came."""
        asked = sa.select(*_PLAIN).order_by(submissions.c.number)
        with telling(self._engine), self._engine.begin() as connection:
            found = connection.execute(asked if task is None else asked.where(submissions.c.task == task)).all()
        return [_row(one) for one in found]

    def row(self, name: str) -> Row:
        """The submission of that id, or of the only id that begins so. Raises UsageError where there is none."""
        asked = sa.select(*_PLAIN).where(submissions.c.id.startswith(name, autoescape=True)).limit(2)
        with telling(self._engine), self._engine.begin() as connection:
            found = connection.execute(asked).all()
        if len(found) != 1 or not name:
            what = "no submission" if not found else "more than one submission"
            raise UsageError(f"the board has {what} {name!r}; agentlab leaderboard lists the ids")
        return _row(found[0])

    def payload(self, name: str) -> Submission:
        """The parts of the submission with exactly that id."""
        with telling(self._engine), self._engine.begin() as connection:
            kept = connection.execute(sa.select(submissions.c.payload).where(submissions.c.id == name)).scalar_one()
        return read_submission(zlib.decompressobj().decompress(kept, MOST_BYTES))[1]

    def advance(self, name: str, level: str, figures: Mapping[str, Any], reason: str = "") -> None:
        """Put down how far a submission is verified and what was measured; `reason` says why it goes no further."""
        told = {"level": level, "reason": shown(reason), "figures": dump(figures).decode()}
        with telling(self._engine), self._engine.begin() as connection:
            connection.execute(submissions.update().where(submissions.c.id == name).values(told))

    def reject(self, row: Row, error: RefusedError) -> None:
        """Take a submission off the board, with an entry in the incident log."""
        with telling(self._engine), self._engine.begin() as connection:
            told = {"level": LEVELS[0], "reason": str(error), "figures": "{}"}
            connection.execute(submissions.update().where(submissions.c.id == row.id).values(told))
            _log(connection, row, error)

    def incident(self, row: Row, error: RefusedError) -> None:
        """Put an entry into the incident log alone."""
        with telling(self._engine), self._engine.begin() as connection:
            _log(connection, row, error)

    def incidents(self) -> list[dict[str, Any]]:
        """The incident log, in order. Nobody can change or delete an entry."""
        with telling(self._engine), self._engine.begin() as connection:
            found = connection.execute(sa.select(incidents).order_by(incidents.c.id)).mappings().all()
        return [dict(one) for one in found]

    # ---- hold-outs ----

    def look(self, row: Row, sealed: Sealed, most: int | None = None) -> int | None:
        """Count a look of a submission at a hold-out, once; how many its submitter has had at this task's.

        None, and nothing is counted, where it would be one more than `most`: whoever counts at the same time waits.
        """
        told = {"submission": row.id, "sealed": sealed, "submitter": row.submitter, "task": row.task, "date": _now()}
        try:
            with telling(self._engine), self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.text("LOCK TABLE looks IN SHARE ROW EXCLUSIVE MODE"))
                connection.execute(looks.insert().values(told))
                if most is not None and _looks(connection, row.submitter, row.task, sealed) > most:
                    connection.rollback()
                    return None
        except IntegrityError:
            pass  # it was counted before its verification was cut off
        return self.looks(row.submitter, row.task, sealed)

    def looks(self, submitter: str, task: str, sealed: Sealed) -> int:
        """How many looks a submitter has had at a task's hold-out."""
        with telling(self._engine), self._engine.begin() as connection:
            return _looks(connection, submitter, task, sealed)

    def has_looked(self, name: str, sealed: Sealed) -> bool:
        """Whether a submission's look was counted."""
        mine = (looks.c.submission == name) & (looks.c.sealed == sealed)
        with telling(self._engine), self._engine.begin() as connection:
            return connection.execute(sa.select(looks.c.id).where(mine)).first() is not None

    def pin(self, task: str, digest: str) -> None:
        """Pin the digest of a task's second hold-out; it is pinned once. Raises UsageError where it is another."""
        try:
            with telling(self._engine), self._engine.begin() as connection:
                connection.execute(seconds.insert().values(task=task, digest=digest, date=_now()))
        except IntegrityError:
            if self.pinned(task) != digest:
                raise UsageError(f"{task} has a second hold-out already; it is made once, for all who come") from None

    def pinned(self, task: str) -> str | None:
        """The digest of a task's second hold-out, None where it has none."""
        with telling(self._engine), self._engine.begin() as connection:
            found = connection.execute(sa.select(seconds.c.digest).where(seconds.c.task == task)).scalar()
        return None if found is None else str(found)

    # ---- submitters ----

    def token(self, name: str) -> str:
        """A new token of a submitter, in place of the one before; the board keeps its digest only.

        Raises:
            UsageError: no submission can be in that name.
        """
        if not re.fullmatch(NAME, name):
            raise UsageError(f"{shown(name)[:80]!r} is no name; write up to 64 letters, digits, spaces and _.@-")
        made = secrets.token_urlsafe(32)
        kept = hashlib.sha256(made.encode()).hexdigest()
        with telling(self._engine), self._engine.begin() as connection:
            connection.execute(submitters.delete().where(submitters.c.name == name))
            connection.execute(submitters.insert().values(name=name, token=kept, date=_now()))
        return made

    def holder(self, token: str) -> str | None:
        """Whose token it is, None where nobody's. Digests are compared, so that a delay says nothing of a token."""
        kept = hashlib.sha256(token.encode(errors="replace")).hexdigest()
        with telling(self._engine), self._engine.begin() as connection:
            found = connection.execute(sa.select(submitters.c.name).where(submitters.c.token == kept)).scalar()
        return None if found is None else str(found)


def method_of(one: Submission) -> str:
    """The method in a few words: who proposes, with which model, and how many candidates."""
    config = one.runs[0].config
    words = [str(config.get("proposer") or "mutate"), *([str(config["model"])] if config.get("model") else [])]
    words = [shown(word) for word in words]
    budget = config.get("budget")
    if isinstance(budget, dict) and budget.get("candidates"):
        words.append(f"{shown(str(budget['candidates']))} candidates")
    return ", ".join(words)[:200]


def _row(one: Any) -> Row:  # noqa: ANN401 - SQLAlchemy's own
    told = dict(one._mapping)  # noqa: SLF001 - its public name
    return Row(**{**told, "figures": json.loads(told["figures"])})


def _looks(connection: Connection, submitter: str, task: str, sealed: Sealed) -> int:
    mine = (looks.c.submitter == submitter) & (looks.c.task == task) & (looks.c.sealed == sealed)
    return int(connection.execute(sa.select(sa.func.count()).select_from(looks).where(mine)).scalar_one())


def _log(connection: Connection, row: Row, error: RefusedError) -> None:
    told = {"date": _now(), "submission": row.id, "submitter": row.submitter, "task": row.task}
    connection.execute(incidents.insert().values(told | {"reason": error.reason, "found": error.found[:1000]}))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
