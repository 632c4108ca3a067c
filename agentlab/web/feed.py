"""The records of a run as events, followed once however many look on; each viewer reads at a pace of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from agentlab import trace
from agentlab.discover_files import TRACE
from agentlab.trace import Record
from agentlab.web.search import call_row, entry_row, vote_row
from agentlab.web.words import plain

POLL = 0.2
"""Seconds between looks at the trace."""

BEAT = 15.0
"""Seconds after which a viewer is sent a comment, so that nobody between takes the connection for dead."""

BATCH = 200
"""Events that go out in one piece."""


class Feed:
    """The events of one run folder: event number n tells line n of its trace (lines count from 1).

    A viewer holds its place alone, so that a slow one costs no memory and delays nobody.
    """

    def __init__(self, folder: Path, poll: float = POLL) -> None:
        self.folder, self.poll = folder, poll
        self._events: list[bytes] = []
        self._offset = 0
        self._rounds: dict[Path, int] = {}
        self._epoch = 0
        self._grown = asyncio.Condition()

    async def follow(self) -> None:
        """Read on for ever what the run writes."""
        while True:
            if self._read():
                async with self._grown:
                    self._grown.notify_all()
            await asyncio.sleep(self.poll)

    def _read(self) -> bool:
        path = self.folder / TRACE
        if not path.exists():
            return False
        if path.stat().st_size < self._offset:  # a resumed run cuts off what a killed one left of its ending
            self._events, self._offset, self._epoch = [], 0, self._epoch + 1
        records, self._offset = trace.follow(path, self._offset)
        for record in records:
            self._events.append(event(record, len(self._events) + 1))
        return bool(records) | self._rounds_grown()

    def _rounds_grown(self) -> bool:
        """Whether a search below has written something; its lines are not numbered here, viewers ask for the whole."""
        sizes = {path: path.stat().st_size for path in self.folder.glob(f"rounds/*/{TRACE}")}
        grown = sizes != self._rounds
        self._rounds = sizes
        return grown

    def _state(self) -> tuple[int, int, dict[Path, int]]:
        return self._epoch, len(self._events), self._rounds

    async def _changed(self, seen: tuple[int, int, dict[Path, int]]) -> bool:
        """Wait until the feed is another than it was; False where BEAT went by without it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BEAT), self._grown:
                await self._grown.wait_for(lambda: seen != self._state())
            return True
        return False

    async def events(self, after: int) -> AsyncIterator[bytes]:
        """Events beyond line `after`, as they come, in batches; a comment now and then.

        Ends with "again" where lines that were told are no longer there.
        """
        epoch, rounds, place = self._epoch, self._rounds, max(after, 0)
        yield b"retry: 1000\n\n"
        while epoch == self._epoch and not (self._offset and place > len(self._events)):
            seen = self._state()
            if batch := self._events[place : place + BATCH]:
                place += len(batch)
                yield b"".join(batch)
            elif rounds != self._rounds:
                rounds = self._rounds
                yield told("record", {"kind": "round under way"})
            elif not await self._changed(seen):
                yield b": still here\n\n"
        yield told("again", {})


def event(record: Record, line: int) -> bytes:
    """A line of a trace as a server-sent event, in the form in which the page holds it."""
    match record["kind"]:
        case "entry":
            return told("entry", entry_row(record, line), line)
        case "decision":
            return told("vote", vote_row(record, line), line)
        case "reply" | "lost":
            return told("call", call_row(record, line), line)
        case "sent" | "turn":
            return told("passed", {}, line)
        case kind:
            return told("record", {"kind": kind}, line)


def told(kind: str, data: object, line: int | None = None) -> bytes:
    """An event as it goes out; `line` is its number, from which a viewer that was cut off goes on."""
    text = json.dumps(plain(data), separators=(",", ":"))
    number = "" if line is None else f"id: {line}\n"
    return f"{number}event: {kind}\ndata: {text}\n\n".encode()
