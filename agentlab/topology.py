"""What more agents cost and bring: one agent, independent agents and a coordinated team, compared from their traces.

The figures of arXiv 2512.08296, with E, the share that ends wrong, taken twice: of steps and of runs.

- T: calls a run, discarded ones included; overhead = (T - T_single) / T_single.
- Redundancy: the mean over steps of the share of pairs of answers by different agents whose keys are exactly equal. A
  key holds the state that the answer leads to, so agents that have come to different states do not agree. Discarded
  answers are in no pair; a step without a pair does not count.
- The product of a run is its outcome; of independent agents, the plurality of their results, the earliest of equals.
- E of steps: steps of the product that were answered wrongly in the state they were asked in, or left undecided, over
  the steps that were asked, of all runs together. E of runs: runs whose product is not right. A step that follows a
  wrong one may be right, a run that has a wrong one is not.
- Error amplification = E / E_single, of steps and of runs. Efficiency = success / (T / T_single).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path

from agentlab.decisions_record import read_decision
from agentlab.topology_trace import TOPOLOGIES, Call, Ending, Name, Run, asked_of, read_runs
from agentlab.trace import Record, TraceError
from agentlab.vote import Outcome, Undecided


@dataclass(frozen=True, slots=True)
class Figures:
    """One topology over all its runs; a figure that cannot be had is None, and `why` says why by its name.

    `calls`, `flags`, `steps` and `wrong` are totals, `turns` is T. `undecided` and `tied` count runs: without a result,
    and with independent results of which no one was the most frequent.
    """

    topology: Name
    agents: int
    k: int
    runs: int
    calls: int
    turns: float
    overhead: float | None
    redundancy: float | None
    steps: int
    wrong: int
    step_error: float
    amplification: float | None
    success: float
    run_error: float
    run_amplification: float | None
    efficiency: float | None
    undecided: int
    tied: int
    flags: Mapping[str, int]
    why: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Decisions:
    """Voted decisions of models, of which nobody knows the right ones: no error figures.

    `calls` are those with a receipt. `votes` is the mean over decisions that drew an answer, `redundancy` the mean over
    tallies of the share of equal pairs of votes; `escalated` counts decisions that went beyond their first rung.
    """

    decisions: int
    asked: int
    calls: int
    votes: float | None
    redundancy: float | None
    flags: Mapping[str, int]
    escalated: int
    undecided: int
    why: Mapping[str, str]
    step_error: None = None
    run_error: None = None
    amplification: None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The topologies in order, the job they share, and the voted decisions, if any."""

    settings: Mapping[str, object]
    topologies: tuple[Figures, ...]
    decisions: Decisions | None

    def as_record(self) -> Record:
        """The report as a JSON value."""
        rows = [asdict(row) for row in self.topologies]
        voted = None if self.decisions is None else asdict(self.decisions)
        return {"settings": dict(self.settings), "topologies": rows, "decisions": voted}


def report(paths: Sequence[Path]) -> Report:
    """Compare the runs that stand in trace files, whichever file holds which.

    Raises:
        TraceError: a file cannot be read, is damaged, holds runs of another job, or none of them holds anything to
            report on.
    """
    sums: dict[tuple[Name, int, int], _Sums] = {}
    outcomes: list[Outcome] = []
    calls, settings = 0, None
    for path in paths:
        for found in read_runs(path):
            if not isinstance(found, Run):
                outcomes.append(_outcome(path, found))
                calls += found["calls"]
                continue
            if settings is None:
                settings = found.settings
            elif settings != found.settings:
                raise TraceError(f"{path}: runs of {found.settings} stand beside runs of {settings}; compare one job")
            sums.setdefault((found.topology, found.agents, found.k), _Sums()).add(found)
    if not sums and not outcomes:
        raise TraceError(
            f"{', '.join(map(str, paths)) or 'no traces'}: no runs of a topology and no decisions to report"
        )
    single = next((one for (topology, _, _), one in sums.items() if topology == "single"), None)
    rows = [_figures(key, sums[key], single) for key in sorted(sums, key=lambda k: (TOPOLOGIES.index(k[0]), *k[1:]))]
    return Report(settings or {}, tuple(rows), _decisions(outcomes, calls) if outcomes else None)


def _outcome(path: Path, record: Record) -> Outcome:
    try:
        outcome = read_decision(record)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None
    if type(record.get("calls")) is not int:
        raise TraceError(f'{path}: a decision without its number of "calls"; restore the file from a copy')
    return outcome


@dataclass(slots=True)
class _Sums:
    """Totals over the runs of one topology."""

    runs: int = 0
    calls: int = 0
    right: int = 0
    steps: int = 0
    wrong: int = 0
    undecided: int = 0
    tied: int = 0
    paired: int = 0
    agreement: float = 0.0
    flags: Counter[str] = field(default_factory=Counter)

    def add(self, run: Run) -> None:
        """Count a run."""
        product, tied = put_together(run.endings)
        self.runs += 1
        self.calls += len(run.calls)
        self.right += product.right
        self.steps += len(asked_of(run, product))
        self.wrong += len(product.wrong)
        self.undecided += product.result is None
        self.tied += tied
        self.flags.update(call.flag for call in run.calls if call.flag is not None)
        shares = agreements(run.calls)
        self.paired += len(shares)
        self.agreement += math.fsum(shares)

    @property
    def turns(self) -> float:
        """Calls a run: T."""
        return self.calls / self.runs

    @property
    def step_error(self) -> float:
        """E of steps."""
        return self.wrong / self.steps

    @property
    def run_error(self) -> float:
        """E of runs."""
        return (self.runs - self.right) / self.runs


def put_together(endings: Sequence[Ending]) -> tuple[Ending, bool]:
    """The outcome whose result is the most frequent, the earliest agent's of equals, and whether there were equals.

    An outcome without a result has no say, unless there is no other.
    """
    ordered = sorted(endings, key=lambda end: -1 if end.agent is None else end.agent)
    counts = Counter(end.result for end in ordered if end.result is not None)
    if not counts:
        return ordered[0], False
    (result, most), *others = counts.most_common()  # equals stand in the order of the agents
    return next(end for end in ordered if end.result == result), any(count == most for _, count in others)


def agreements(calls: Iterable[Call]) -> list[float]:
    """For each step that two agents or more answered, the share of pairs of their answers that are exactly equal."""
    steps: dict[int, list[Call]] = {}
    for call in calls:
        if call.flag is None:
            steps.setdefault(call.step, []).append(call)
    shares = []
    for answers in steps.values():
        equal = [one.key == two.key for one, two in combinations(answers, 2) if one.agent != two.agent]
        if equal:
            shares.append(sum(equal) / len(equal))
    return shares


def _figures(key: tuple[Name, int, int], own: _Sums, single: _Sums | None) -> Figures:
    topology, agents, k = key
    why: dict[str, str] = {}

    def over_single(name: str, figure: Callable[[_Sums], float], nothing: str) -> float | None:
        if single is not None and figure(single):
            return figure(own) / figure(single)
        why[name] = "there is no run of one agent to compare with" if single is None else nothing
        return None

    ratio = over_single("overhead", lambda one: one.turns, "one agent made no call")
    if ratio is None:
        why["efficiency"] = why["overhead"]
    if not own.paired:
        why["redundancy"] = "no step was answered by two agents"
    success = own.right / own.runs
    return Figures(
        topology, agents, k, own.runs, own.calls, own.turns,
        overhead=None if ratio is None else ratio - 1,
        redundancy=own.agreement / own.paired if own.paired else None,
        steps=own.steps, wrong=own.wrong, step_error=own.step_error,
        amplification=over_single("amplification", lambda one: one.step_error, "one agent got no step wrong"),
        success=success, run_error=own.run_error,
        run_amplification=over_single("run_amplification", lambda one: one.run_error, "one agent failed in no run"),
        efficiency=None if ratio is None else success / ratio,
        undecided=own.undecided, tied=own.tied, flags=dict(sorted(own.flags.items())), why=why,
    )  # fmt: skip


def _decisions(outcomes: Sequence[Outcome], calls: int) -> Decisions:
    tallies = [tally for outcome in outcomes for tally in outcome.tallies]
    asked = sum(outcome.draws > 0 for outcome in outcomes)
    flags: Counter[str] = Counter()
    for outcome in outcomes:
        flags.update(outcome.flags)
    shares = [_equal_pairs(tally.votes) for tally in tallies if sum(tally.votes.values()) > 1]
    unknown = "nobody knows which decisions are right"
    why = dict.fromkeys(("step_error", "run_error", "amplification"), unknown)
    if not asked:
        why["votes"] = "no decision drew an answer"
    if not shares:
        why["redundancy"] = "no tally has two votes"
    return Decisions(
        len(outcomes), asked, calls,
        votes=sum(sum(tally.votes.values()) for tally in tallies) / asked if asked else None,
        redundancy=math.fsum(shares) / len(shares) if shares else None,
        flags=dict(sorted(flags.items())),
        escalated=sum(outcome.escalated > 0 for outcome in outcomes),
        undecided=sum(isinstance(outcome, Undecided) for outcome in outcomes),
        why=why,
    )  # fmt: skip


def _equal_pairs(votes: Mapping[Hashable, int]) -> float:
    """The share of pairs of votes that are for the same key; two votes or more."""
    return sum(math.comb(n, 2) for n in votes.values()) / math.comb(sum(votes.values()), 2)
