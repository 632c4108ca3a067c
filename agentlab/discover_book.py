"""What a run knows of its writing models: drafts that wait, what they earned, what failed, which model to ask next.

All of it follows from the replies and the entries in the order of the trace, so that it is the same after a resume and
in a replay. Nothing here asks anybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from agentlab.archive import Archive
from agentlab.proposers._writing import Draft, Failure
from agentlab.types import Entry

START, EARN, GAIN = 8.0, 0.06, 6.0
"""Fits that a writer may take up at first, for every ask of the run, and for every hit: a model that is of no use costs
a search a few fits in a hundred, one that is takes over."""

HIT, SETTLED = 5, 48
"""A proposal hits where it is among so many best when it is committed, once there are so many entries to be among."""

KEPT = 4
"""Replies whose drafts wait; older ones are given up, since a model knows more by now."""

FAILURES, WORKED = 5, 6
"""Failures and ideas that are kept for the prompts."""

LATELY = 12
"""Proposals of models since the last gain of a nat, anybody's, up to which the search is gaining."""

DRY = 8
"""Replies without one draft that is new, one after the other, after which a writer has nothing more to say."""

FATAL = ("key refused", "no such model", "cannot be reached", "over the bound")
LOST_FATAL, LOST_ANY = 3, 6
"""Failed calls of a model, one after the other, after which it is asked no more: of the fatal kinds, of any."""


class Queued(NamedTuple):
    """A draft that waits to be tried, and the call whose reply held it."""

    call: int
    draft: Draft


@dataclass
class Arm:
    """One model as the choice between models sees it: what its proposals came to, and what its calls cost."""

    fits: int = 0
    hits: int = 0
    calls: int = 0
    cost: float = 0.0
    fatal: int = 0
    failed: int = 0

    @property
    def out(self) -> bool:
        """Whether it is asked no more."""
        return self.fatal >= LOST_FATAL or self.failed >= LOST_ANY


@dataclass
class Book:
    """The book of a run with so many models; `seed` draws which is asked, `failure` makes one that a model may see."""

    models: int
    seed: int
    failure: Callable[[str, str], Failure] = Failure
    arms: list[Arm] = field(init=False)
    queue: list[Queued] = field(default_factory=list)
    failures: deque[Failure] = field(default_factory=lambda: deque(maxlen=FAILURES))
    drawn: int = 0
    hits: int = 0
    dry: int = 0
    since_gain: int = 0
    _worked: list[tuple[float, int, str]] = field(default_factory=list)
    _by_call: dict[int, int] = field(default_factory=dict)
    _ideas: dict[int, Queued] = field(default_factory=dict)
    _best: float = float("inf")

    def __post_init__(self) -> None:
        self.arms = [Arm() for _ in range(self.models)]

    # ---- replies ----

    def sent(self, call: int, model: int) -> None:
        """A call has gone out to a model."""
        self._by_call[call] = model

    def took(self, call: int, drafts: Sequence[Draft], failures: Sequence[Failure], cost: float) -> None:
        """A reply came: its new drafts wait, its failures are told in the next prompts."""
        arm = self.arms[self._by_call[call]]
        arm.calls, arm.cost, arm.fatal, arm.failed = arm.calls + 1, arm.cost + cost, 0, 0
        self.dry = 0 if drafts else self.dry + 1
        latest = sorted({q.call for q in self.queue} | {call})[-KEPT:]
        self.queue = [q for q in self.queue if q.call in latest] + [Queued(call, draft) for draft in drafts]
        self.failures.extend(failures)

    def failed(self, call: int, kind: str, cost: float) -> None:
        """A call failed for good: the model did not answer, or not as was asked."""
        arm = self.arms[self._by_call[call]]
        arm.calls, arm.cost, arm.failed = arm.calls + 1, arm.cost + cost, arm.failed + 1
        arm.fatal = arm.fatal + 1 if kind in FATAL else 0

    # ---- drafts ----

    def earned(self, asks: int) -> int:
        """Fits that the writer may take up in all, of a run that has asked for so many."""
        return int(START + EARN * asks + GAIN * self.hits)

    def allowance(self, asks: int) -> int:
        """Fits that it may take up now."""
        return self.earned(asks) - self.drawn

    def known(self, key: str) -> bool:
        """Whether a draft with that key waits already."""
        return any(q.draft.key == key for q in self.queue)

    def draw(self, most: int, archive: Archive, pending: Collection[str]) -> list[Queued]:
        """The next drafts to try: of the latest reply first, which knew most, and in the order that it gave them.

        One that the search has found itself meanwhile is dropped.
        """
        found: list[Queued] = []
        keys = set(pending)
        waiting = sorted(self.queue, key=lambda q: -q.call)
        for queued in waiting:
            if len(found) == most:
                break
            self.queue.remove(queued)
            if not archive.seen(queued.draft.key) and queued.draft.key not in keys:
                keys.add(queued.draft.key)
                found.append(queued)
        return found

    def proposed(self, index: int, queued: Queued) -> None:
        """A draft is asked for as candidate number `index`."""
        self.drawn += 1
        self._ideas[index] = queued

    # ---- entries ----

    def committed(self, entry: Entry, archive: Archive) -> None:
        """An entry is in the archive now: it counts for the model that wrote it, and its idea may have worked."""
        outcome = entry.outcome
        gain = self._best - outcome.objective if outcome.status == "ok" else 0.0
        gained = gain >= 1.0
        self._best = min(self._best, outcome.objective) if outcome.status == "ok" else self._best
        queued = self._ideas.pop(entry.id, None)
        if gained:
            self.since_gain = 0
        if queued is None:
            return
        self.since_gain += not gained
        arm = self.arms[self._by_call[queued.call]]
        arm.fits += 1
        if outcome.status == "rejected":
            self.failures.append(self.failure(queued.draft.text, outcome.reason))
        elif len(archive) >= SETTLED and any(e.id == entry.id for e in archive.top(HIT)):
            arm.hits += 1
            self.hits += 1
            self._note_worked(entry.id, queued.draft, gain)

    def _note_worked(self, index: int, draft: Draft, gain: float) -> None:
        if draft.idea and np.isfinite(gain):
            self._worked = sorted([*self._worked, (-gain, index, draft.idea)])[:WORKED]

    @property
    def worked(self) -> list[tuple[str, float]]:
        """Ideas whose laws were among the best, and the nats by which each beat the best before it."""
        return [(idea, -loss) for loss, _, idea in self._worked]

    @property
    def gaining(self) -> bool:
        """Whether the best law has become better lately."""
        return np.isfinite(self._best) and self.since_gain < LATELY

    # ---- models ----

    def choose(self, call: int, costs: Sequence[float]) -> int | None:
        """The model to ask next: Thompson sampling of its hits, over what a call of it costs; None if all are out.

        `costs` are worst cases in one unit, which count until a model has answered.
        """
        rng = np.random.default_rng([self.seed, 0xA6E7, call])
        drawn = [rng.beta(1 + a.hits, 3 + max(a.fits - a.hits, 0)) for a in self.arms]
        mean = [a.cost / a.calls if a.calls and a.cost > 0 else c for a, c in zip(self.arms, costs, strict=True)]
        open_ = [i for i, a in enumerate(self.arms) if not a.out]
        return max(open_, key=lambda i: drawn[i] / max(mean[i], 1e-12), default=None)
