"""The entries of a trace as a reader meets them, one by one and by generation, each with its line and its law."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from agentlab.program_text import KEY
from agentlab.replay_law import FoundLaw, Ground
from agentlab.trace import Record, read_entry
from agentlab.types import GroupParams, Outcome, Proposal, Score


@dataclass(frozen=True)
class RunEntry:
    """One candidate of a run; `line` of the file `trace` below the run's folder holds it (lines count from 1)."""

    proposal: Proposal
    outcome: Outcome
    line: int
    trace: str
    ground: Ground = field(repr=False, compare=False)

    @property
    def id(self) -> int:
        """The entry's number, counted from 0."""
        return self.proposal.index

    @property
    def formula(self) -> str:
        """The formula, or a program's text."""
        return self.proposal.formula

    @property
    def key(self) -> str:
        """The canonical key: equal for the same family of functions."""
        return self.proposal.key

    @property
    def program(self) -> bool:
        """Whether the law is a program."""
        return self.key.startswith(KEY)

    @property
    def proposer(self) -> str:
        """Who proposed it."""
        return self.proposal.proposer

    @property
    def operator(self) -> str:
        """How it was made of its parents."""
        return self.proposal.operator

    @property
    def parents(self) -> tuple[int, ...]:
        """The entries that it was made of."""
        return self.proposal.parents

    @property
    def island(self) -> int:
        """The island that it lives on."""
        return self.proposal.island

    @property
    def call(self) -> int | None:
        """The model's reply that it stands in, if any."""
        return self.proposal.call

    @property
    def status(self) -> str:
        """What became of it: "ok" or "rejected"."""
        return self.outcome.status

    @property
    def reason(self) -> str:
        """Why it was rejected; "" where it was not."""
        return self.outcome.reason

    @property
    def objective(self) -> float:
        """What selection minimises, in nats; inf where there is none."""
        return self.outcome.objective

    @property
    def mdl(self) -> float:
        """The description length, in nats."""
        return self.outcome.mdl

    @property
    def n_params(self) -> int:
        """Parameters a (group, target); of a program in all."""
        return self.outcome.n_params

    @property
    def complexity(self) -> int:
        """Nodes of the formula."""
        return self.outcome.complexity

    @property
    def structure(self) -> str:
        """The kinds of terms that it has."""
        return self.outcome.structure

    @property
    def dev(self) -> Score | None:
        """The inner extrapolation."""
        return self.outcome.dev

    @property
    def cuts(self) -> tuple[float, ...]:
        """Errors beyond the cuts that counted, in nats."""
        return self.outcome.cuts

    @property
    def violations(self) -> tuple[str, ...]:
        """Constraints that it breaks."""
        return self.outcome.violations

    @property
    def hints(self) -> tuple[str, ...]:
        """Blocks that its residuals ask for."""
        return self.outcome.hints

    @property
    def params(self) -> GroupParams:
        """Parameters by group, target and name; empty where it was rejected before."""
        return self.outcome.params

    @cached_property
    def law(self) -> FoundLaw:
        """The entry as a law with the parameters that the search gave it."""
        return FoundLaw(self.formula, self.params, self.ground, self.id, program=self.program, made="search")


@dataclass(frozen=True)
class Generation:
    """A block of entries, `number` counted from 0, and where it left the search.

    `best` is the best entry so far at its end, `gain` the nats by which it beats the best before the block (inf at the
    first law), `improved` the entries that were the best so far when they came, `structures` the kinds of laws that
    were seen for the first time, `rejected` counts by reason.
    """

    number: int
    entries: tuple[RunEntry, ...]
    best: RunEntry | None
    gain: float
    improved: tuple[RunEntry, ...]
    structures: tuple[str, ...]
    rejected: Mapping[str, int]


def entries_of(records: Sequence[Record], trace: str, ground: Ground) -> tuple[RunEntry, ...]:
    """The entries of a trace, in the order in which they were asked for."""
    found = []
    for line, record in enumerate(records, start=1):
        if record["kind"] == "entry":
            entry = read_entry(record)
            found.append(RunEntry(entry.proposal, entry.outcome, line, trace, ground))
    return tuple(found)


def steps_of(entries: Sequence[RunEntry]) -> list[RunEntry]:
    """The entries that were the best so far when they came."""
    found: list[RunEntry] = []
    for entry in entries:
        if math.isfinite(entry.objective) and (not found or entry.objective < found[-1].objective):
            found.append(entry)
    return found


def generations_of(entries: Sequence[RunEntry], size: int) -> tuple[Generation, ...]:
    """The entries in blocks of `size`, by their numbers."""
    found: list[Generation] = []
    steps, best, seen = {e.id for e in steps_of(entries)}, None, set[str]()
    for start in range(0, len(entries), size):
        block = tuple(entries[start : start + size])
        improved = tuple(e for e in block if e.id in steps)
        before = math.inf if best is None else best.objective
        best = improved[-1] if improved else best
        new = tuple(dict.fromkeys(e.structure for e in block if e.structure and e.structure not in seen))
        seen |= set(new)
        rejected = Counter(e.reason.split(":")[0] for e in block if e.status == "rejected")
        gain = 0.0 if not improved else before - improved[-1].objective
        found.append(Generation(start // size, block, best, gain, improved, new, dict(sorted(rejected.items()))))
    return tuple(found)
