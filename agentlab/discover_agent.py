"""The writing models of a run: what they are asked and when, what they answered, as records of the trace.

A turn is one pass of the loop: replies that have come are taken in, candidates are drawn from them, and new calls go
out with what is known then. Calls take as long as they take, and so do fits: neither waits for the other. Which replies
a turn took in is on record, and all else follows from it.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any
from zlib import crc32

import numpy as np

from agentlab import semconv
from agentlab.archive import Archive
from agentlab.budget import Cost, Price, Purse, cost_of, stance
from agentlab.discover_book import DRY, Book, Queued
from agentlab.discover_poll import Poll
from agentlab.discover_script import Turn
from agentlab.discover_ways import LONGEST, Way, answer_record, asked_record, messages, replied, sent_record
from agentlab.ledger import BrokenBoundError, OverBudgetError
from agentlab.models import Model, Reply, prompt_bound
from agentlab.models_errors import ModelError
from agentlab.proposers._writing import Draft, Failure, Sought, Writer
from agentlab.trace import Record, TraceError
from agentlab.types import Proposal

AT_ONCE = 4
"""Calls under way."""

AHEAD = 64
"""Asks whose share of fits is asked for ahead, since replies take their time."""

ONE_YES = 2
"""Times the worst case that was approved up to which later calls need no new answer: prompts grow."""

A_TURN = 2
"""Calls that a turn sends while other candidates are searched for beside them."""

WANTED = 3
"""Proposals asked for in one reply."""

TEMPERATURES = (0.7, 1.0, 0.4)
"""One after the other, so that replies differ."""

SAID = 160
"""Characters of a rejected proposal that stand in the trace."""

_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")

STALLED = 24
"""Proposals of the models without a gain after which other forms are asked for, or, late in a run, the end."""


@dataclass
class Agent:
    """The writer of a run, its models and what they may cost.

    Args:
        writer: makes prompts and reads replies.
        models: whom it asks, with `names` and `prices` (None where a model has none) beside them.
        purse: the budget, with what is set aside for calls under way.
        told: the same caps with what is on record: what prompts say must not depend on what has come meanwhile.
        seed: of everything drawn.
        max_tokens: the longest reply.
        timed: told (call, seconds into the run, seconds it took) of each reply.
        clock: seconds of the run so far.
        poll: the votes of those models.
        wary: whether calls above a limit have to be approved; nobody votes before.
        secrets: what no record may hold, should a server repeat it.
    """

    writer: Writer
    models: Sequence[Model]
    names: Sequence[str]
    prices: Sequence[Price | None]
    purse: Purse
    told: Purse
    seed: int
    max_tokens: int
    timed: Callable[[int, float, float], None] = lambda _c, _s, _t: None
    clock: Callable[[], float] = time.monotonic
    poll: Poll | None = None
    wary: bool = False
    secrets: re.Pattern[str] = re.compile("(?!)")
    book: Book = field(init=False)
    calls: int = 0
    spent: bool = False
    denied: bool = False
    closing: Sequence[Record] = ()
    time_regime: str = ""
    notes: list[str] = field(default_factory=list)
    _ways: dict[int, Way] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _allowed: tuple[int, float] = (0, 0.0)

    def __post_init__(self) -> None:
        self.book = Book(len(self.models), self.seed, self.writer.failure)

    # ---- where it stands ----

    @property
    def under_way(self) -> int:
        """Calls that are out."""
        return len(self._ways)

    @property
    def waiting(self) -> bool:
        """Whether calls or a vote are out that may still come to something."""
        return bool(self._tasks())

    @property
    def ready(self) -> bool:
        """Whether there is something to take in or to try."""
        return bool(self.book.queue) or any(t.done() for t in self._tasks())

    def _tasks(self) -> list[asyncio.Task[Any]]:
        vote = None if self.poll is None else self.poll.task
        return [t for t in (*(w.task for w in self._ways.values()), vote) if t is not None]

    @property
    def silent(self) -> bool:
        """Whether no more calls will be made: the budget is spent, the models are out, or have nothing more to say."""
        return self.spent or self.denied or self.book.dry >= DRY or all(a.out for a in self.book.arms)

    @property
    def resting(self) -> bool:
        """Whether the models have had their say, for now: nothing is under way, and they are silent or gain nothing."""
        return (self.silent or self.stalled) and not self._ways and not self.book.queue

    @property
    def stalled(self) -> bool:
        """Whether its latest proposals have gained nothing."""
        return self.book.since_gain >= STALLED

    # ---- taking in ----

    def take(self, archive: Archive, pending: Collection[str], turn: Turn | None) -> list[Record]:
        """Take in the replies that have come, or those that a turn on record took; their records."""
        if turn is not None:
            return [self._recall(record, archive, pending) for record in turn.taken]
        ways = [(w, w.task) for _, w in sorted(self._ways.items()) if w.task is not None]
        done = [w for w, task in ways if task.done() and not task.cancelled()]
        return [self._take(way, archive, pending) for way in done]

    def _take(self, way: Way, archive: Archive, pending: Collection[str]) -> Record:
        assert way.task is not None  # noqa: S101 - only those are done
        found, took = way.task.result()
        self.timed(way.number, way.began, took)
        return self._settled(way, found, archive, pending)

    def close(self, archive: Archive) -> list[Record]:
        """The records of what is still out at the end: replies that have come, and calls that are given up."""
        replies = [r for r in self.closing if r["kind"] == "reply"]
        if self.closing:
            told = [self._recall(record, archive, ()) for record in replies]
        else:
            told = self.take(archive, (), None)
        return [*told, *self.forget_all()]

    def _recall(self, record: Record, archive: Archive, pending: Collection[str]) -> Record:
        if record["kind"] == "lost":
            for number in record["calls"]:
                self.forget(number)
            if "vote" in record and self.poll is not None:
                self.poll.forget(record)
            return record
        way = self._ways.get(record["call"])
        if way is None or record[semconv.INPUT_MESSAGES] != messages(way.prompt):
            raise TraceError(f"trace: reply {record['call']} answers another prompt than this version asks")
        return self._settled(way, replied(record), archive, pending)

    def forget(self, number: int) -> Way:
        """A call that was out when the run was killed is charged as its worst case; others are asked in its place."""
        way = self._ways.pop(number)
        self._tell_cost(way.claim.lost())
        return way

    def _tell_cost(self, cost: Cost) -> None:
        self.told.recall(cost.tokens_in, cost.tokens_cached, cost.tokens_out, cost.usd)

    def forget_all(self) -> list[Record]:
        """The record of all calls that are out with nobody to answer them; none where there are none."""
        numbers = sorted(self._ways)
        record: Record = {"kind": "lost", "calls": numbers, "tokens": 0, "usd": 0.0}
        for number in numbers:
            worst = self.forget(number).claim.worst
            record |= {"tokens": record["tokens"] + worst.tokens, "usd": record["usd"] + worst.usd}
        known = next((r for r in self.closing if "vote" in r), None)
        vote = {} if self.poll is None else self.poll.forget(known)
        if vote:
            record |= {"vote": vote, "tokens": record["tokens"] + vote["tokens"], "usd": record["usd"] + vote["usd"]}
        return [record] if numbers or vote else []

    def _settled(self, way: Way, found: Reply | ModelError, archive: Archive, pending: Collection[str]) -> Record:
        """Book what a call cost and what it brought; its record."""
        del self._ways[way.number]
        record = asked_record(way, self.names[way.model], self.max_tokens)
        failed, cost = "", Cost()
        if isinstance(found, ModelError):
            failed = found.kind
            if found.lost:
                cost = way.claim.lost()
            else:
                way.claim.free()
            self._tell_once(f"{self.names[way.model]}: {found}")
        else:
            try:
                cost = way.claim.settle(found)
            except BrokenBoundError:
                failed, cost = "over the bound", cost_of(found, self.prices[way.model])
                self._tell_once(f"{self.names[way.model]}: counts more tokens than it was asked for; asked no more")
        self._tell_cost(cost)
        unit = cost.usd if self.prices[way.model] else 1.0
        record |= {"usd": cost.usd}
        if failed:
            self.book.failed(way.number, failed, unit)
            lost = isinstance(found, ModelError) and found.lost
            worst = {"tokens": cost.tokens} if lost else {}
            answer = {} if isinstance(found, ModelError) else answer_record(found)
            return record | {"failed": failed, "lost": lost} | worst | answer
        assert isinstance(found, Reply)  # noqa: S101 - errors are done with
        drafts, failures = self._read(found, way, archive, pending)
        self.book.took(way.number, drafts, failures, unit)
        record |= answer_record(found)
        record["drafts"] = [[d.text, d.key, d.operator, list(d.parents), d.idea] for d in drafts]
        record["rejects"] = [[f.reason, f.said[:SAID]] for f in failures]
        return record

    def _read(
        self, reply: Reply, way: Way, archive: Archive, pending: Collection[str]
    ) -> tuple[list[Draft], list[Failure]]:
        """The new drafts of a reply, and named failures for all else."""
        drafts: list[Draft] = []
        failures: list[Failure] = []
        keys = set(pending)
        for item in self.writer.read(reply.text[:LONGEST], way.parents):
            if isinstance(item, Failure):
                failures.append(item)
            elif item.key in keys or archive.seen(item.key) or self.book.known(item.key):
                failures.append(self.writer.failure(item.text, "seen before"))
            else:
                keys.add(item.key)
                drafts.append(item)
        if not drafts and reply.finish == "length":
            failures.append(Failure(reply.text[-SAID:], "reply cut off at the limit of its tokens"))
        if not drafts and not failures:
            failures.append(Failure(reply.text[:SAID], "no proposal"))
        return drafts, failures

    # ---- asking ----

    def plan(
        self, block: int, asks: int, archive: Archive, turn: Turn | None, *, alone: bool, left: float
    ) -> list[Way]:
        """The calls to make now, with their worst cases set aside; `alone` where nobody else searches beside.

        `left` are the candidates that the run may still ask for. As many as a turn on record sent: what fits into the
        budget depends on votes that are under way.
        """
        if self.silent or (alone and self.stalled):
            return []
        room = AT_ONCE - self.under_way
        # A call for every fit that is earned: a reply holds more than one draft, and its first is tried at least.
        due = AT_ONCE if math.isinf(left) else math.ceil((left - len(self.book.queue)) / WANTED) - self.under_way
        count = min(room, due, AT_ONCE if alone else min(A_TURN, self.book.earned(asks + AHEAD) - self.calls))
        planned: list[Way] = []
        for _ in range(max(count, 0)):
            way = None if turn is not None and len(planned) == turn.sent else self._planned(block, archive)
            if way is None:
                # What is set aside for calls under way comes back in part; without any, nothing will.
                self.spent = not self._ways and (self.poll is None or not self.poll.busy)
                break
            planned.append(way)
        return planned

    def _planned(self, block: int, archive: Archive) -> Way | None:
        number = self.calls
        # The prompt of a call is the same for every model, so that the worst cases differ by price alone.
        rng = np.random.default_rng([self.seed, crc32(self.writer.name.encode()), number])
        island = number % archive.islands
        sought = self._sought(archive, rng, island)
        prompt = self.writer.prompt(sought)
        bound, most = prompt_bound(prompt, self.writer.schema), self.max_tokens
        worst = [0.0 if p is None else p.worst(bound, most) for p in self.prices]
        priced = all(p is not None for p in self.prices)
        model = self.book.choose(number, worst if priced else [1.0] * len(worst))
        if model is None:
            return None
        try:
            claim = self.purse.hold(bound, most, self.prices[model])
        except OverBudgetError:
            return None
        self.calls += 1
        digest = int.from_bytes(blake2b(repr((self.seed, number)).encode(), digest_size=4).digest(), "big") >> 1
        way = Way(
            number, block, island, model, prompt, (*sought.parents, *sought.inspirations),
            TEMPERATURES[number % len(TEMPERATURES)], digest, claim,
        )  # fmt: skip
        self._ways[number] = way
        self.book.sent(number, model)
        return way

    def allows(self, tokens: int, usd: float) -> bool:
        """Whether calls as dear as that were approved before."""
        return tokens <= ONE_YES * self._allowed[0] and usd <= ONE_YES * self._allowed[1]

    def approved(self, record: Record, planned: Sequence[Way]) -> list[Way]:
        """The planned calls that go out, once somebody has said whether they may."""
        if record["approved"]:
            self._allowed = (max(self._allowed[0], record["tokens"]), max(self._allowed[1], record["usd"]))
            return list(planned)
        self.drop(planned)
        self.denied = True
        return []

    def drop(self, planned: Sequence[Way]) -> None:
        """Take back calls that were planned and do not go out, and a vote that has not begun."""
        for way in planned:
            del self._ways[way.number]
            way.claim.free()
        if self.poll is not None:
            self.poll.drop()

    def _sought(self, archive: Archive, rng: np.random.Generator, island: int) -> Sought:
        """What the next prompt is made of."""
        best = archive.top(2)
        time_regime = self.time_regime or None
        how = stance(self.told.overall(time_regime), gained=self.book.gaining)
        if how == "refine":
            parents = best
        else:
            parents = list(archive.chosen[:1])
            for _ in range(2 - len(parents)):
                parents += [e for e in [archive.sample(rng, island)] if e is not None]
        parents = list({e.id: e for e in parents}.values())
        shapes = {e.outcome.structure for e in parents}
        others = [e for e in [*best[:1], *archive.elites((island + 1) % archive.islands)[-8:]] if e not in parents]
        inspirations = [e for i, e in enumerate(others) if i == 0 or e.outcome.structure not in shapes][:3]
        worked = [f"{json.dumps(idea)}: {gain:.3g}" for idea, gain in self.book.worked]
        return Sought(
            parents, inspirations, tuple(self.book.failures), worked, self.told.block(time_regime), how,
            WANTED,
        )  # fmt: skip

    def opened(self, block: int, archive: Archive, turn: Turn | None) -> list[Record]:
        """Have the models vote on the parents of what is asked next, beside the search; what is put on record of it."""
        if self.poll is None:
            return []
        return self.poll.open(block, archive, turn, silent=self.silent or (self.wary and not any(self._allowed)))

    def records(self, planned: Sequence[Way]) -> list[Record]:
        """The records of calls that are about to go out."""
        return [sent_record(w, self.names[w.model]) for w in planned]

    def send(self, planned: Sequence[Way]) -> None:
        """Let the calls go out."""
        for way in planned:
            way.began = self.clock()
            way.task = asyncio.create_task(self._ask(way))
        if self.poll is not None:
            self.poll.send()

    async def _ask(self, way: Way) -> tuple[Reply | ModelError, float]:
        began = time.monotonic()
        try:
            reply = await self.models[way.model].complete(
                way.prompt, temperature=way.temperature, seed=way.seed, max_tokens=self.max_tokens,
                schema=self.writer.schema,
            )  # fmt: skip
        except ModelError as error:
            return error, time.monotonic() - began
        return self._clean(reply), time.monotonic() - began

    def _clean(self, reply: Reply) -> Reply:
        """A reply without what no record may hold, however JSON writes it."""
        text = self.secrets.sub("***", reply.text)
        plain = _ESCAPED.sub(lambda m: chr(int(m[1], 16)), text).replace("\\/", "/")
        text = "***" if self.secrets.search(plain) else text
        return replace(reply, text=text, finish=self.secrets.sub("***", reply.finish))

    async def some(self, seconds: float) -> None:
        """Wait until a call under way has ended, or so long."""
        tasks = self._tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        """Break off the calls under way."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- words ----

    def proposal(self, index: int, queued: Queued, archive: Archive) -> Proposal:
        """A draft as candidate number `index`."""
        self.book.proposed(index, queued)
        draft = queued.draft
        return Proposal(
            index, self.writer.tool, draft.text, draft.key, self.writer.name, draft.operator, draft.parents,
            queued.call % archive.islands, queued.call,
        )  # fmt: skip

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self.notes.append(line)
