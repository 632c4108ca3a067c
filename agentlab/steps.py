"""A long job as a list of micro-steps: each one voted, journaled, and resumable from the journal alone.

A job says how it begins, draws answers to its next step, and checks an answer against its state; `Walk` takes it
through to its end, in one chain or in many. The inner loop is plain Python. A superstep is 10,000 steps or 30 seconds
of it, after which what was decided is on disk; `steps_graph.py` makes each one a LangGraph superstep, and
`steps_async.py` advances chains side by side whose answers are waited for.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from agentlab.journal import Journal
from agentlab.steps_chain import Chain, Counts, Job, StepError, Voting
from agentlab.vote import check

__all__ = ["Chain", "Counts", "Cursor", "Job", "StepError", "Tell", "Voting", "Walk", "in_turn", "silent"]

S = TypeVar("S")

SUPERSTEP = 10_000
"""Steps after which a superstep ends, unless told."""
LEAST = 1_000
"""Steps of a superstep at least, unless its time is over."""
SECONDS = 30.0
"""Seconds after which a superstep ends whatever it has done."""
SLICE = 1_000
"""Steps between two looks at the clock, at most."""
SLICE_SECONDS = 0.05
"""Seconds that a slice aims at: a job with slow answers is looked at after every step."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a walk is: steps decided by all chains, bytes of its journal, and a digest of the chains' states."""

    steps: int
    offset: int
    digest: str


def in_turn(walk: Walk[S], goal: int, until: float) -> None:
    """Advance one chain after the other, until so many steps are decided or that time has come."""
    most = 1
    for chain in walk.chains:
        while not chain.over and walk.steps < goal and walk.clock() < until:
            began, index = walk.clock(), chain.index
            # What a crash costs is what waits in the journal and in the slice: one group at most.
            room = walk.journal.room if walk.journal is not None else SLICE
            done: list[Hashable] = []
            try:
                chain.advance(max(1, min(most, room, goal - walk.steps)), done)
            finally:
                walk.note(chain, index, done)
            most = min(SLICE, most * 2) if walk.clock() - began < SLICE_SECONDS else max(1, most // 2)


Tell: TypeAlias = Callable[[int, int], None]
"""Told how much of a job is done, and how much there is in all."""


def silent(done: int, total: int) -> None:
    """Tell nobody."""


Observer = Callable[[int, Sequence[Hashable]], None]
"""Told the number of a step and the answers elected from there on, in the order of each chain."""


Advance: TypeAlias = "Callable[[Walk[Any], int, float], None]"


class Walk(Generic[S]):
    """Chains of a job, taken superstep by superstep to their ends, with a journal or without.

    `steps` are those that are decided, `replayed` the ones among them that were on record. What was measured of p is
    not on record: after a resume a measured k is measured anew, and the calls, though not the right answers, differ.

    Args:
        chains: Where each chain begins and ends; their step numbers do not overlap.
        journal: Where decided steps are kept. What it holds already is replayed, not drawn again.
        observe: Is told every answer, replayed ones included; with it a replay begins at the first record, without it
            at the newest snapshot.
        go: Advances the chains up to a number of steps or a time; one chain after the other unless told.
        superstep: Steps after which a superstep ends, at least 1,000.
        seconds: Time after which it ends whatever it has done.
        clock: Seconds, on which supersteps and slices are timed; one that jumps only moves their ends.

    Raises:
        StepError: the journal does not fit the job.
        VoteError: k or the rules make no sense.
    """

    def __init__(
        self, chains: Sequence[Chain[S]], journal: Journal | None = None, observe: Observer | None = None,
        *, go: Advance | None = None, superstep: int = SUPERSTEP, seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.chains = list(chains)
        self.journal = journal
        self.clock = clock
        self._most_steps, self._most_seconds = max(superstep, LEAST), seconds
        self._observe, self._go = observe, go or in_turn
        self._snapshot_at = 0
        self.steps = self.replayed = 0
        for chain in self.chains:
            check(chain.voting.ahead, chain.voting.rules)
        if journal is not None:
            self._replay(journal)

    @property
    def over(self) -> bool:
        """Whether no chain can go on."""
        return all(chain.over for chain in self.chains)

    def superstep(self) -> Cursor:
        """Decide 10,000 steps or as many as 30 seconds allow, and put them on disk."""
        self._go(self, self.steps + self._most_steps, self.clock() + self._most_seconds)
        return self.settle()

    def note(self, chain: Chain[S], index: int, done: Sequence[Hashable]) -> None:
        """Journal and tell the answers that a chain elected from step `index` on."""
        if not done:
            return
        self.steps += len(done)
        # The journal last: where the disk is full it raises, with the records waiting in it.
        if self._observe is not None:
            self._observe(index, done)
        if self.journal is not None:
            digest = chain.job.digest
            self.journal.extend(index, [digest(key) for key in done])

    def settle(self) -> Cursor:
        """Put what is decided on disk, and a snapshot of it where nobody needs every answer of a resume."""
        if self.journal is None:
            return Cursor(self.steps, 0, self.digest())
        self.journal.sync()
        if self._observe is None and self.journal.durable > self._snapshot_at:
            self._snapshot_at = self.journal.durable
            self.journal.snapshot(self._states())
        return Cursor(self.steps, self.journal.offset, self.digest())

    def digest(self) -> str:
        """BLAKE2b (128 bits, hexadecimal) of all chains' step numbers and states."""
        return hashlib.blake2b(json.dumps(self._states()).encode(), digest_size=16).hexdigest()

    def _states(self) -> list[list[object]]:
        return [[chain.index, chain.job.dump(chain.state)] for chain in self.chains]

    def _place(self, places: Any) -> None:  # noqa: ANN401 - JSON
        """Take the chains to where a snapshot has them."""
        if len(places) != len(self.chains):
            raise StepError(
                f"journal: its snapshot has {len(places)} chains, this job {len(self.chains)}; ask as before"
            )
        for chain, (index, state) in zip(self.chains, places, strict=True):
            if not (chain.index <= index and (chain.end is None or index <= chain.end)):
                raise StepError(
                    f"journal: its snapshot has a chain at step {index}, where this job has none; ask as before"
                )
            chain.index, chain.state = index, chain.job.load(state)

    def _replay(self, journal: Journal) -> None:
        start = 0
        snapshot = journal.latest() if self._observe is None else None
        if snapshot is not None:
            start = self._snapshot_at = snapshot.records
            self._place(snapshot.state)
        waiting = {chain.index: chain for chain in self.chains if chain.index != chain.end}
        for record in journal.records(start):
            if record.index not in waiting:
                raise StepError(f"journal: step {record.index} stands where no chain is; it is of another job")
            chain = waiting.pop(record.index)
            key = chain.replay(record.digest)
            if chain.index != chain.end:
                waiting[chain.index] = chain
            if self._observe is not None:
                self._observe(record.index, (key,))
        self.steps = self.replayed = journal.length
