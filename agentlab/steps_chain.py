"""One chain of micro-steps: a job's state, and how its next steps are drawn, decided, checked and replayed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from agentlab.journal import JournalError
from agentlab.ledger import Ledger, OverBudgetError
from agentlab.vote import Answer, Decision, Outcome, RedFlag, Rules, Undecided, Wave, held
from agentlab.vote_measure import Reliability

S = TypeVar("S")


class Job(Protocol[S]):
    """A job as (state, next step, check). States are values: `check` returns a new one.

    `draw` may be a coroutine function, for answers that are waited for; then every chain waits for its own.
    """

    def begin(self) -> S:
        """The state before step 0."""
        ...

    def draw(self, state: S, index: int, wave: Wave) -> Any:  # noqa: ANN401 - answers, or a promise of them
        """`wave.count` answers to step `index`: canonical keys or red flags."""
        ...

    def check(self, state: S, key: Hashable) -> S:
        """The state that follows an answer.

        Raises:
            StepError: the answer cannot be carried out in this state.
        """
        ...

    def keys(self, state: S) -> Iterable[Hashable]:
        """The answers that can be carried out in a state; a replay finds among them the one on record."""
        ...

    def digest(self, key: Hashable) -> int:
        """48 bits that stand for an answer in the journal."""
        ...

    def dump(self, state: S) -> object:
        """The state as a JSON value."""
        ...

    def load(self, value: Any) -> S:  # noqa: ANN401 - JSON
        """The state that `dump` wrote."""
        ...


class StepError(JournalError):
    """An answer that cannot be carried out, or a record that fits no answer."""


@dataclass
class Counts:
    """What was spent and seen since this process took the job up.

    `dissent` are votes that were not unanimous, `ahead` the votes that were held for each k; `lost` are draws of votes
    that the budget cut short, and no part of `draws`.
    """

    steps: int = 0
    draws: int = 0
    waves: int = 0
    dissent: int = 0
    escalated: int = 0
    lost: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    ahead: dict[int, int] = field(default_factory=dict)

    @classmethod
    def total(cls, counts: Iterable[Counts]) -> Counts:
        """The sum of several."""
        found = cls()
        for one in counts:
            for name in ("steps", "draws", "waves", "dissent", "escalated", "lost"):
                setattr(found, name, getattr(found, name) + getattr(one, name))
            for reason, number in one.flags.items():
                found.flags[reason] = found.flags.get(reason, 0) + number
            for k, number in one.ahead.items():
                found.ahead[k] = found.ahead.get(k, 0) + number
        return found

    def add(self, outcome: Outcome, k: int) -> None:
        """Count the outcome of a vote."""
        self.ahead[k] = self.ahead.get(k, 0) + 1
        dissent = False
        for tally in outcome.tallies:
            self.draws += tally.draws
            self.waves += tally.waves
            dissent |= len(tally.votes) > 1
            if tally.flags:
                for reason, count in tally.flags.items():
                    self.flags[reason] = self.flags.get(reason, 0) + count
        self.dissent += dissent
        self.escalated += len(outcome.tallies) > 1


@dataclass(frozen=True, slots=True)
class Voting:
    """How steps are decided: k, or `measured`, which chooses it; the rules; and the ledger of calls, if any."""

    k: int = 3
    rules: Rules = field(default_factory=Rules)
    measured: Reliability | None = None
    ledger: Ledger | None = None

    @property
    def ahead(self) -> int:
        """The k of the next step."""
        return self.k if self.measured is None else self.measured.k


@dataclass
class Chain(Generic[S]):
    """One chain of steps: numbers `index` to `end` - 1 of a job, one after the other; `end` None goes on for ever."""

    job: Job[S]
    index: int
    end: int | None
    state: S
    voting: Voting = field(default_factory=Voting)
    counts: Counts = field(default_factory=Counts)
    undecided: Undecided | None = None
    broke: str = ""

    @property
    def over(self) -> bool:
        """Whether the chain has come to its end or cannot go on."""
        return self.index == self.end or self.undecided is not None or bool(self.broke)

    def advance(self, most: int, done: list[Hashable]) -> None:
        """Decide up to `most` steps and add the elected answers to `done`; fewer where the chain ends or stops.

        Whatever is raised, `done` then holds the answers of the steps that the chain has taken, no more and no fewer.
        """
        end = self.index + most if self.end is None else min(self.index + most, self.end)
        while self.index < end and not self.over:
            k, measured = self.voting.ahead, self.voting.measured
            if self.voting.ledger is None:
                self._run(end if measured is None else min(end, self.index + measured.room), k, done)
            else:
                self._vote(None, k, done)

    def _run(self, end: int, k: int, done: list[Hashable]) -> None:
        """Steps up to `end`, quickly where the first wave is unanimous; until k changes, or a step is undecided."""
        job, state, index, start = self.job, self.state, self.index, self.index
        draw, check, take, wave = job.draw, job.check, done.append, Wave(self.voting.rules.ladder[0], 0, k)
        try:
            while index < end:
                answers = draw(state, index, wave)
                key = answers[0]
                if answers.count(key) == k == len(answers) and key.__class__ is not RedFlag:
                    state = check(state, key)
                    take(key)
                    index += 1
                    continue
                self.state, self.index = state, index
                self._count(index - start, k)
                start = index
                self._vote(answers, k, done)
                state, index, start = self.state, self.index, self.index
                if self.over or self.voting.ahead != k:
                    return
        finally:
            self.state, self.index = state, index
            self._count(index - start, k)

    def _count(self, steps: int, k: int) -> None:
        """Count steps that one unanimous wave decided."""
        counts = self.counts
        counts.ahead[k] = counts.ahead.get(k, 0) + steps
        counts.steps += steps
        counts.waves += steps
        counts.draws += steps * k
        if self.voting.measured is not None and steps:
            self.voting.measured.unanimous(steps, k)

    def _vote(self, opening: Sequence[Answer] | None, k: int, done: list[Hashable]) -> None:
        ballot, drawn = held(k, self.voting.rules), 0
        item = next(ballot)
        try:
            while isinstance(item, Wave):
                answers = opening or self._drawn(item)
                opening = None
                drawn += item.count
                item = ballot.send(answers)
        except OverBudgetError as error:
            self.cut_short(drawn, error)
            return
        self.conclude(item, k, done)

    def cut_short(self, drawn: int, error: OverBudgetError) -> None:
        """Stop because the budget does not hold the next wave; so many draws of this vote were paid for nothing."""
        self.broke = str(error)
        self.counts.lost += drawn + error.paid

    def _drawn(self, wave: Wave) -> Sequence[Answer]:
        ledger = self.voting.ledger
        if ledger is None:
            found: Sequence[Answer] = self.job.draw(self.state, self.index, wave)
            return found
        hold = ledger.hold(wave.count)
        try:
            found = self.job.draw(self.state, self.index, wave)
        finally:
            hold.settle(wave.count)
        return found

    def conclude(self, outcome: Outcome, k: int, done: list[Hashable]) -> None:
        """Carry out what a vote elected, or stop where it elected nothing."""
        self.counts.add(outcome, k)
        if self.voting.measured is not None:
            self.voting.measured.note(outcome)
        if isinstance(outcome, Decision):
            self.state = self.job.check(self.state, outcome.key)
            self.index += 1
            self.counts.steps += 1
            done.append(outcome.key)
        else:
            self.undecided = outcome

    def replay(self, digest: int) -> Hashable:
        """Take one step as the journal has it, and return its answer.

        Raises:
            StepError: no answer that is possible here has that digest.
        """
        for key in self.job.keys(self.state):
            if self.job.digest(key) == digest:
                self.state = self.job.check(self.state, key)
                self.index += 1
                return key
        raise StepError(f"journal: step {self.index} fits no answer of this job; it is of another one, or was damaged")
