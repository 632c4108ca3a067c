"""Which laws the next block of asks starts from: voted by models where some are named, replayed where on record.

Before a block is asked for, the best laws so far are listed to the models, and the two they elect are told to the
archive. The outcome goes into the trace before the block's entries, so a resumed run asks for none of them again.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import cast

from agentlab.archive import Archive
from agentlab.budget import Cost, Price, Purse
from agentlab.decisions import OUT_OF, Question, Receipt, choose_parents, decide, decision_record, read_decision
from agentlab.models import KEY, Chat, Model
from agentlab.trace import Record, Trace
from agentlab.types import DEFAULT_CANDIDATES, Entry, RunConfig
from agentlab.vote import LADDER, Decision, Outcome, Rules
from agentlab.vote_measure import Reliability
from agentlab.words import UsageError

__all__ = ["Voters", "chats", "most_decisions", "open_voters", "sent", "steps_voted"]

LISTED = 8
"""Laws that are listed, the best first."""

FEWEST = 4
"""Laws that there must be before anybody is asked."""

ELECTED = 2
"""Laws that are elected of them."""

TARGET = 0.95
"""Probability that no decision of a run shall go another way than the model means it."""

START, MOST, FIRST = 2, 6, 32
"""The lead that elects: at first, at most, and the decisions after which it is adapted; fewer would tell too little."""

MOST_DRAWS, MOST_FLAGS = 16, 8
"""Draws a rung may take. There is often no right answer to agree on, and then more of them are no remedy."""

UNVOTED = 2
"""Blocks at the beginning of a run that are asked for while the archive is empty."""


def _formula(entry: Entry) -> str:
    return entry.proposal.formula


class Voters:
    """The models that decide, what they may still spend, and how reliable they have been.

    All of it follows from the settings and from the decisions in the order of their blocks, so that it is the same
    after a resume. Calls of a decision that never came on record are not counted then.
    """

    def __init__(
        self, models: Sequence[Model], *, seed: int, steps: float, purse: Purse, prices: Sequence[Price | None] = (),
        shown: Callable[[Entry], str] = _formula,
    ) -> None:  # fmt: skip
        """`models` are one or two, with their `prices`; `steps` are the decisions to expect, `purse` is the budget.

        `shown` says how an entry is listed.
        """
        self._models = models
        self._seed = seed
        ladder = LADDER[: 1 + len(models)]
        self._rules = Rules(most_draws=MOST_DRAWS, most_flags=MOST_FLAGS, ladder=ladder, escalate="dissent")
        self._reliability = Reliability(TARGET, steps, start=START, most=MOST, first=FIRST)
        self._purse, self._prices, self._shown = purse, prices, shown
        self._recorded: dict[int, Record] = {}
        self._spent = False

    def recall(self, records: Iterable[Record], asked: int) -> None:
        """Take up the decisions on record: those of blocks below `asked` count, the others wait to be replayed."""
        self._recorded = {r["block"]: r for r in records if r["kind"] == "decision"}
        for block in sorted(b for b in self._recorded if b < asked):
            record = self._recorded.pop(block)
            self._replay(record, read_decision(record))

    async def choose(self, block: int, archive: Archive, trace: Trace) -> None:
        """Tell the archive which parents are elected for the block that starts at `block`; none where undecided.

        The decision is in the trace when this returns. Once the budget is spent, which is a decision on record as
        well, nobody is asked any more.

        Raises:
            BackendError: a model cannot be asked; nothing is recorded, and a resumed run asks again.
            TraceError: the decision on record is about something else, or cannot be written.
        """
        archive.choose(())
        question = self.question(archive)
        if question is None:
            return
        record = self._recorded.pop(block, None)
        if record is not None:
            outcome = read_decision(record, question)
            self._replay(record, outcome)
        else:
            outcome, record = await self.vote(question, block, [])
            trace.append([record])
            self.note(outcome)
        if isinstance(outcome, Decision):
            archive.choose(cast("tuple[int, ...]", outcome.key))

    def question(self, archive: Archive) -> Question | None:
        """What there is to vote on: None where laws are few or the budget is spent."""
        listed = archive.top(LISTED)
        if self._spent or len(listed) < FEWEST:
            return None
        told = [replace(e, proposal=replace(e.proposal, formula=self._shown(e))) for e in listed]
        return choose_parents(told, ELECTED)

    async def vote(
        self, question: Question, block: int, receipts: list[Receipt], before: Callable[[Cost], None] = lambda _: None
    ) -> tuple[Outcome, Record]:
        """Ask until it is decided; the outcome and its record.

        `receipts` get what each call took, `before` is told the worst case of each wave of calls.

        Raises BackendError where a model cannot be asked.
        """
        k = self._reliability.k
        seed = (self._seed << 32) + block  # the same list at another block is another question
        outcome = await decide(
            question, self._models, k, self._rules, self._purse, seed, receipts, self._prices, before
        )
        return outcome, {"kind": "decision", "block": block, "k": k} | decision_record(question, outcome, receipts)

    def _replay(self, record: Record, outcome: Outcome) -> None:
        tokens = record["tokens"]
        self._purse.recall(tokens["in"], 0, tokens["out"], record.get("usd", 0.0), calls=record["calls"])
        self.note(outcome)

    def note(self, outcome: Outcome) -> None:
        """Take up how a vote went: it tells how reliable the models are, and whether the budget is spent."""
        self._spent = getattr(outcome, "reason", "") in OUT_OF.values()
        if not self._spent:
            self._reliability.note(outcome)


@asynccontextmanager
async def open_voters(
    config: RunConfig, prices: Sequence[Price | None] = (), shown: Callable[[Entry], str] = _formula
) -> AsyncIterator[Voters | None]:
    """The voters of a run, until the block ends; None where its settings name no model.

    `prices` are those of its models, `shown` says how an entry is listed.
    """
    async with AsyncExitStack() as stack:
        models = [await stack.enter_async_context(chat) for chat in chats(config)]
        purse = Purse(tokens=config.budget.tokens or math.inf, usd=config.budget.usd or math.inf)
        yield Voters(
            models, seed=config.seed, steps=steps_voted(config), purse=purse, prices=prices, shown=shown
        ) if models else None  # fmt: skip


def steps_voted(config: RunConfig) -> int:
    """The decisions to expect of a run."""
    return max(1, _blocks_voted(config.budget.candidates or DEFAULT_CANDIDATES, config.window or 64))


def chats(config: RunConfig) -> list[Chat]:
    """The models that the settings name, in order; none where they name none. Nothing is sent.

    Raises:
        UsageError: the settings of models do not go together.
        BackendError: base_url= is no address, or holds a password.
    """
    if config.model is None:
        given = {"base_url": config.base_url, "budget.tokens": config.budget.tokens, "budget.usd": config.budget.usd}
        given |= {"approve.usd": config.approve.usd, "approve.tokens": config.approve.tokens}
        for key, value in (given | {"blind": config.blind or None}).items():
            if value is not None:
                raise UsageError(f"{key}= is given without a model to ask; add model=NAME, or leave it out")
        return []
    names = [name.strip() for name in config.model.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"model={config.model}: give one name, or different ones as model=NAME,SECOND")
    if config.base_url is None and not os.environ.get(KEY):
        raise UsageError(f"model={config.model}: nobody to ask; give base_url= of its server, or set {KEY}")
    return [Chat(config.base_url, name, deadline=config.model_seconds) for name in names]


def most_decisions(config: RunConfig) -> int | None:
    """How many decisions a run takes at most; None where the clock alone ends it."""
    if config.budget.candidates is None and config.budget.seconds is not None:
        return None
    return _blocks_voted(config.budget.candidates or DEFAULT_CANDIDATES, config.window or 64)


def _blocks_voted(candidates: int, window: int) -> int:
    return max(0, math.ceil(candidates / max(window // 2, 1)) - UNVOTED)


def sent(config: RunConfig, *, writes: bool = False) -> str:
    """What leaves this machine for the models, and where to, in one line; `writes` where they write laws as well."""
    where = config.base_url or "the hosted API"
    words = "" if config.blind else ", with the names of their columns"
    if not writes:
        told = f"the formulas of up to {LISTED} laws{words}, and their scores and sizes; no rows, and no values of"
        return f"to {where}: {told} parameters"
    about = "their ranges under made-up names" if config.blind else "their names, units and ranges, the task's words"
    told = f"of the columns {about}; laws that were tried, with their scores, sizes and fitted values"
    return f"to {where}: {told}; no rows"
