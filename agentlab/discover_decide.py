"""Which laws the next block of asks starts from: voted by models where some are named, replayed where on record.

Before a block is asked for, the best laws so far are listed to the models, and the two they elect are told to the
archive. The outcome goes into the trace before the block's entries, so a resumed run asks for none of them again.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from agentlab.archive import Archive
from agentlab.decisions import SPENT, Receipt, choose_parents, decide, decision_record, read_decision
from agentlab.ledger import Ledger
from agentlab.models import KEY, Chat, Model
from agentlab.trace import Record, Trace
from agentlab.types import DEFAULT_CANDIDATES, RunConfig
from agentlab.vote import LADDER, Decision, Outcome, Rules
from agentlab.vote_measure import Reliability
from agentlab.words import UsageError

__all__ = ["Spending", "Voters", "chats", "most_decisions", "open_voters", "sent", "spending"]

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


class Voters:
    """The models that decide, what they may still spend, and how reliable they have been.

    All of it follows from the settings and from the decisions in the order of their blocks, so that it is the same
    after a resume. Calls of a decision that never came on record are not counted then.
    """

    def __init__(self, models: Sequence[Model], *, seed: int, steps: float, tokens: float = math.inf) -> None:
        """`models` are one or two, `steps` the decisions to expect, `tokens` a budget for all of them."""
        self._models = models
        self._seed = seed
        ladder = LADDER[: 1 + len(models)]
        self._rules = Rules(most_draws=MOST_DRAWS, most_flags=MOST_FLAGS, ladder=ladder, escalate="dissent")
        self._reliability = Reliability(TARGET, steps, start=START, most=MOST, first=FIRST)
        self._ledger = Ledger(tokens)
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
        listed = archive.top(LISTED)
        if self._spent or len(listed) < FEWEST:
            return
        question = choose_parents(listed, ELECTED)
        record = self._recorded.pop(block, None)
        if record is not None:
            outcome = read_decision(record, question)
            self._replay(record, outcome)
        else:
            k, receipts = self._reliability.k, list[Receipt]()
            seed = (self._seed << 32) + block  # the same list at another block is another question
            outcome = await decide(question, self._models, k, self._rules, self._ledger, seed, receipts)
            found = decision_record(question, outcome, receipts)
            trace.append([{"kind": "decision", "block": block, "k": k} | found])
            self._note(outcome)
        if isinstance(outcome, Decision):
            archive.choose(cast("tuple[int, ...]", outcome.key))

    def _replay(self, record: Record, outcome: Outcome) -> None:
        tokens = sum(record["tokens"].values())
        self._ledger.hold(tokens).settle(tokens)
        self._note(outcome)

    def _note(self, outcome: Outcome) -> None:
        self._spent = getattr(outcome, "reason", "") == SPENT
        if not self._spent:
            self._reliability.note(outcome)


@asynccontextmanager
async def open_voters(config: RunConfig) -> AsyncIterator[Voters | None]:
    """The voters of a run, until the block ends; None where its settings name no model."""
    async with AsyncExitStack() as stack:
        models = [await stack.enter_async_context(chat) for chat in chats(config)]
        steps = max(1, _blocks_voted(config.budget.candidates or DEFAULT_CANDIDATES, config.window))
        tokens = config.budget.tokens or math.inf
        yield Voters(models, seed=config.seed, steps=steps, tokens=tokens) if models else None


def chats(config: RunConfig) -> list[Chat]:
    """The models that the settings name, in order; none where they name none. Nothing is sent.

    Raises:
        UsageError: the settings of models do not go together.
        BackendError: base_url= is no address, or holds a password.
    """
    if config.model is None:
        for key, value in (("base_url", config.base_url), ("budget.tokens", config.budget.tokens)):
            if value is not None:
                raise UsageError(f"{key}= is given without a model to ask; add model=NAME, or leave it out")
        return []
    names = [name.strip() for name in config.model.split(",")]
    if not all(names) or len(names) > len(LADDER) - 1 or len(set(names)) < len(names):
        raise UsageError(f"model={config.model}: give one name, or two different ones as model=NAME,SECOND")
    if config.base_url is None and not os.environ.get(KEY):
        raise UsageError(f"model={config.model}: nobody to ask; give base_url= of its server, or set {KEY}")
    return [Chat(config.base_url, name) for name in names]


def most_decisions(config: RunConfig) -> int | None:
    """How many decisions a run takes at most; None where the clock alone ends it."""
    if config.budget.candidates is None and config.budget.seconds is not None:
        return None
    return _blocks_voted(config.budget.candidates or DEFAULT_CANDIDATES, config.window)


def _blocks_voted(candidates: int, window: int) -> int:
    return max(0, math.ceil(candidates / max(window // 2, 1)) - UNVOTED)


def sent(config: RunConfig) -> str:
    """What leaves this machine for the models, and where to, in one line."""
    where = config.base_url or "the hosted API"
    return (
        f"to {where}: the formulas of up to {LISTED} laws, with the names of their columns, and their scores and sizes;"
        " no rows, and no values of parameters"
    )


@dataclass(frozen=True, slots=True)
class Spending:
    """What the decisions of a run came to; `ended` says, after a semicolon, where the budget was spent, if it was."""

    decisions: Mapping[str, int]
    tokens: int
    ended: str


def spending(records: Sequence[Record]) -> Spending | None:
    """The decisions in a trace, counted; None where the run had no model."""
    if "model" not in records[0]:
        return None
    found = [r for r in records if r["kind"] == "decision"]
    decided = sum("key" in r for r in found)
    counts = {"decided": decided, "undecided": len(found) - decided, "calls": sum(r["calls"] for r in found)}
    spent = next((r["block"] for r in found if r.get("undecided") == SPENT), None)
    ended = "" if spent is None else f"; {SPENT}: from candidate {spent} on no model was asked"
    return Spending(counts, sum(sum(r["tokens"].values()) for r in found), ended)
