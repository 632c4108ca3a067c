"""The turns of a run with a writer, read from its trace: what came from outside, in the order in which it was taken in.

A resume goes through the turns on record with the entries that stand there, a replay with candidates that are tried
anew; both come to the state that the run was in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentlab.trace import OUTSIDE, Record, Trace


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: it asked for `size` candidates from number `start` on when `seen` entries were committed.

    `taken` are the replies it took in, and the calls it gave up, in order; `decision` is a vote that had come,
    `approval` what a person or a policy said. `sent` calls went out, and a vote where it `polled`; `time` is the regime
    of the clock, "" without a limit.
    """

    start: int
    seen: int
    size: int
    taken: tuple[Record, ...] = ()
    decision: Record | None = None
    approval: Record | None = None
    sent: int = 0
    polled: bool = False
    time: str = ""


def turns(records: Iterable[Record]) -> list[Turn]:
    """The turns in a trace. Records after the last whole turn are of none: they are asked for again."""
    found: list[Turn] = []
    outside: list[Record] = []
    for record in records:
        if record["kind"] in OUTSIDE:
            outside.append(record)
        elif record["kind"] == "turn":
            found.append(_turn(record, outside))
            outside = []
    return found


def _turn(record: Record, outside: list[Record]) -> Turn:
    taken = tuple(r for r in outside if r["kind"] in ("lost", "reply"))
    one = {kind: next((r for r in outside if r["kind"] == kind), None) for kind in ("decision", "approval")}
    sent = [r for r in outside if r["kind"] == "sent" and "wave" not in r]
    calls = sum("call" in r for r in sent)
    return Turn(
        record["start"], record["seen"], record["size"], taken, **one,
        sent=calls, polled=len(sent) > calls, time=record.get("time", ""),
    )  # fmt: skip


class Retraced(Trace):
    """The trace of a replay: calls of votes stand where they stood, since nobody votes again."""

    def __init__(self, path: Path, source: Sequence[Record]) -> None:
        super().__init__(path)
        self._left = deque(source)

    def append(self, records: Iterable[Record]) -> None:
        """Write the records, and those of the source between them that a replay does not come to."""
        whole: list[Record] = []
        for record in records:
            while self._left and "wave" in self._left[0]:
                whole.append(self._left.popleft())
            if self._left:
                self._left.popleft()
            whole.append(record)
        super().append(whole)
