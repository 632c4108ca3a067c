"""Votes beside the search: while candidates are tried, the models elect the laws that the next ones start from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from agentlab.archive import Archive
from agentlab.budget import Cost, Purse
from agentlab.budget_cost import NANO
from agentlab.decisions import Question, Receipt, decision_record, read_decision
from agentlab.discover_decide import Voters
from agentlab.discover_script import Turn
from agentlab.errors import BackendError
from agentlab.trace import Record
from agentlab.vote import Decision, Outcome, Tally, Undecided

GAP = 64
"""Candidates from one vote to the next; twice as many after each in a row that was not decided."""

UNASKED = "no model could be asked"
"""Why a vote was not decided."""


@dataclass
class Poll:
    """The votes of a run with a writer, one at a time.

    `purse` is the budget, `told` the same with what is on record; `write` puts a record into the trace at once.
    """

    voters: Voters
    purse: Purse
    told: Purse
    write: Callable[[Record], None]
    task: asyncio.Task[tuple[Outcome, Record]] | None = None
    _question: Question | None = None
    _block: int = 0
    _out: bool = False
    _last: str = ""
    _due: int = 0
    _undecided: int = 0
    _waves: dict[int, Cost] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether a vote is under way."""
        return self._question is not None

    def open(self, block: int, archive: Archive, turn: Turn | None, *, silent: bool) -> list[Record]:
        """Begin a vote, where there are others to elect than before; what is put on record of it.

        A turn on record says whether one began there; `silent` that no model shall be asked any more.
        """
        if self._question is not None or (turn is not None and not turn.polled):
            return []
        question = self.voters.question(archive)
        early = block < self._due or question is None or question.digest == self._last
        if question is None or (turn is None and (silent or early)):
            return []
        self._question, self._block, self._out = question, block, turn is not None
        return [{"kind": "sent", "decision": block}]

    def send(self) -> None:
        """Let the calls of a vote that has begun go out."""
        if self._question is not None and not self._out:
            self._out = True
            self.task = asyncio.create_task(self._vote(self._question, self._block))

    async def _vote(self, question: Question, block: int) -> tuple[Outcome, Record]:
        def before(worst: Cost) -> None:
            record = {"kind": "sent", "decision": block, "wave": True, "tokens": worst.tokens, "usd": worst.usd}
            self.waved(record)
            self.write(record)

        receipts: list[Receipt] = []
        try:
            return await self.voters.vote(question, block, receipts, before)
        except BackendError:
            outcome = Undecided((Tally("", {}, {}, 0, 0, {}),), reason=UNASKED)
            return outcome, {"kind": "decision", "block": block} | decision_record(question, outcome, receipts)

    def take(self, archive: Archive, turn: Turn | None) -> list[Record]:
        """Take in a vote that has come to its end, or that a turn on record took; its record."""
        question = self._question
        if question is None:
            return []
        if turn is not None and turn.decision is not None:
            record, outcome = turn.decision, read_decision(turn.decision, question)
            _book(self.purse, record)
        elif turn is None and self.task is not None and self.task.done() and not self.task.cancelled():
            outcome, record = self.task.result()
        else:
            return []
        _book(self.told, record)
        self._question, self.task, self._last = None, None, question.digest
        self._waves.pop(self._block, None)
        self._undecided = 0 if isinstance(outcome, Decision) else self._undecided + 1
        self._due = self._block + GAP * 2**self._undecided
        self.voters.note(outcome)
        archive.choose(cast("tuple[int, ...]", outcome.key) if isinstance(outcome, Decision) else ())
        return [record]

    def waved(self, record: Record) -> None:
        """A wave of calls is on record."""
        cost = Cost(record["tokens"], 0, 0, round(record["usd"] * NANO))
        self._waves[record["decision"]] = self._waves.get(record["decision"], Cost()) + cost

    def forget(self, known: Record | None = None) -> Record:
        """Give up a vote under way; what a record says of it, as `known` does where that is on record already.

        One that was broken off took what is booked of it by then. Of one that a kill ended nothing is known but the
        waves that went out: they are charged as their worst case.
        """
        if self._question is None:
            return {}
        live, self._question, self.task = self.task is not None, None, None
        if known is not None:
            tokens, usd = known["vote"]["tokens"], known["vote"]["usd"]
        elif live:
            booked, told = self.purse.spent(), self.told.spent()
            tokens, usd = int(booked.tokens - told.tokens), round(booked.usd - told.usd, 9)
        else:
            worst = self._waves.pop(self._block, Cost())
            tokens, usd = worst.tokens, worst.usd
        self.told.recall(tokens, 0, 0, usd)
        if not live:
            self.purse.recall(tokens, 0, 0, usd)
        return {"decision": self._block, "tokens": tokens, "usd": usd}

    def drop(self) -> None:
        """Take back a vote whose calls have not gone out."""
        if not self._out:
            self._question = None


def _book(purse: Purse, record: Record) -> None:
    tokens = record["tokens"]
    purse.recall(tokens["in"], 0, tokens["out"], record.get("usd", 0.0), calls=record["calls"])
