"""Runs of one agent, of independent agents and of a team as lines of the trace: a run, its calls, its outcomes.

{"kind": "run", "schema": 1, "topology": "team", "agents": 3, "k": 3, "seed": 7, "settings": {..}}
{"kind": "call", "agent": 0, "step": 0, "key": 42}                          or "flag": "format" in place of the key
{"kind": "outcome", "agent": 0, "result": "..", "right": true, "wrong": []} no agent: it is all agents' together
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from agentlab.trace import SCHEMA, Record, TraceError, read

Name: TypeAlias = Literal["single", "independent", "team"]

TOPOLOGIES: tuple[Name, ...] = get_args(Name)
"""One agent; agents that do not talk, whose results are put together at the end; agents that decide each step."""


class Call(NamedTuple):
    """One answer: whose, to which step, and its key, or the reason why it was discarded."""

    agent: int
    step: int
    key: object = None
    flag: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """What an agent, or with `agent` None all of them together, handed in.

    `result` is None where a step was left undecided. `right` is the referee's word on the result, and `wrong` has the
    steps that the referee says were answered wrongly in the state they were asked in; an undecided step is one of them.
    """

    result: str | None
    right: bool
    wrong: tuple[int, ...] = ()
    agent: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job: who took part, every call in order, and what was handed in."""

    topology: Name
    agents: int
    k: int
    seed: int
    settings: Mapping[str, object]
    calls: tuple[Call, ...]
    endings: tuple[Ending, ...]


def run_records(run: Run) -> list[Record]:
    """The run as trace records, its first line first."""
    named = {"topology": run.topology, "agents": run.agents, "k": run.k, "seed": run.seed}
    first: Record = {"kind": "run", "schema": SCHEMA, **named, "settings": dict(run.settings)}
    return [first, *(_call_record(call) for call in run.calls), *(_ending_record(end) for end in run.endings)]


def _call_record(call: Call) -> Record:
    answer = {"key": call.key} if call.flag is None else {"flag": call.flag}
    return {"kind": "call", "agent": call.agent, "step": call.step, **answer}


def _ending_record(end: Ending) -> Record:
    whose = {} if end.agent is None else {"agent": end.agent}
    return {"kind": "outcome", **whose, "result": end.result, "right": end.right, "wrong": list(end.wrong)}


def read_runs(path: Path) -> Iterator[Run | Record]:
    """The runs of a trace that name a topology, and its "decision" records; all other records are passed over.

    Raises:
        TraceError: there is no such file, a record lacks something or stands in the wrong place, or a run is not whole.
    """
    lines: list[tuple[str, Record]] = []
    for where, record in _records(path):
        kind = record.get("kind")
        if kind == "decision":
            yield record
        if kind == "run":
            if lines:
                yield _run(lines)
            lines = [(where, record)] if "topology" in record else []
        elif kind in ("call", "outcome"):
            if not lines:
                raise TraceError(f'{where}: a "{kind}" stands before any "run" with a topology; write the run first')
            lines.append((where, record))
    if lines:
        yield _run(lines)


def _records(path: Path) -> Iterator[tuple[str, Record]]:
    try:
        for number, record in enumerate(read(path), start=1):
            yield f"{path}: line {number}", record
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror}); name a trace file") from None


def _run(lines: Sequence[tuple[str, Record]]) -> Run:
    """The run of its lines, the first of which is its "run" record."""
    where, first = lines[0]
    if first["topology"] not in TOPOLOGIES:
        raise TraceError(f"{where}: topology {first['topology']!r}; there is: {', '.join(TOPOLOGIES)}")
    agents, k, settings = _whole(where, first, "agents", 1), _whole(where, first, "k", 1), first.get("settings")
    if not isinstance(settings, dict):
        raise TraceError(f'{where}: "settings" should be the settings of the job by name')
    if first["topology"] == "single" and (agents, k) != (1, 1):
        raise TraceError(f'{where}: a "single" run has agents=1 and k=1, not agents={agents} and k={k}')
    calls = tuple(_call(at, record, agents) for at, record in lines if record["kind"] == "call")
    endings = tuple(_ending(at, record, agents) for at, record in lines if record["kind"] == "outcome")
    run = Run(first["topology"], agents, k, _whole(where, first, "seed", 0), settings, calls, endings)
    _check(where, run)
    return run


def _check(where: str, run: Run) -> None:
    if run.topology == "independent":
        whose = sorted(-1 if end.agent is None else end.agent for end in run.endings)
        if whose != list(range(run.agents)):
            raise TraceError(f"{where}: {run.agents} independent agents need an outcome each; the run is not whole")
    elif len(run.endings) != 1:
        raise TraceError(f"{where}: {len(run.endings)} outcomes; a {run.topology} run has one: the run is not whole")
    for end in run.endings:
        asked = asked_of(run, end)
        if not asked:
            raise TraceError(f"{where}: an outcome without a call; write the calls that led to it")
        if not asked.issuperset(end.wrong) or len(set(end.wrong)) != len(end.wrong):
            raise TraceError(f'{where}: "wrong" names a step twice or one that nobody was asked; name each step once')


def asked_of(run: Run, end: Ending) -> set[int]:
    """The steps that were asked on the way to what was handed in."""
    return {call.step for call in run.calls if end.agent is None or call.agent == end.agent}


def _call(where: str, record: Record, agents: int) -> Call:
    agent, step = _agent(where, record, agents), _whole(where, record, "step", 0)
    if ("key" in record) == ("flag" in record):
        raise TraceError(f'{where}: a call has either a "key" or a "flag"')
    if "key" in record:
        return Call(agent, step, record["key"])
    if not isinstance(record["flag"], str):
        raise TraceError(f'{where}: "flag" should be the reason in words')
    return Call(agent, step, flag=record["flag"])


def _ending(where: str, record: Record, agents: int) -> Ending:
    result, right, wrong = record.get("result"), record.get("right"), record.get("wrong")
    if not (result is None or isinstance(result, str)) or not isinstance(right, bool):
        raise TraceError(f'{where}: an outcome has a "result" (text or null) and says whether it is "right"')
    if not isinstance(wrong, list) or not all(type(step) is int for step in wrong):
        raise TraceError(f'{where}: "wrong" should be the list of steps that were answered wrongly')
    if result is None and right:
        raise TraceError(f'{where}: an outcome without a result cannot be "right"')
    return Ending(result, right, tuple(wrong), _agent(where, record, agents) if "agent" in record else None)


def _agent(where: str, record: Record, agents: int) -> int:
    agent = _whole(where, record, "agent", 0)
    if agent >= agents:
        raise TraceError(f"{where}: agent {agent} of {agents}; they are numbered from 0")
    return agent


def _whole(where: str, record: Record, name: str, least: int) -> int:
    value = record.get(name)
    if type(value) is not int or value < least:
        raise TraceError(f'{where}: "{name}" should be a whole number of {least} or more, not {value!r}')
    return value
