"""What a running search holds: its cursor, its blocks under way, its budget, and what a watcher is told."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict

from langgraph.config import get_stream_writer

from agentlab.archive import Archive
from agentlab.discover_agent import Agent
from agentlab.discover_decide import Voters
from agentlab.discover_files import TIMING
from agentlab.discover_script import Turn
from agentlab.discover_ways import Way
from agentlab.engine import Engine
from agentlab.proposers import Proposer
from agentlab.trace import Record, Trace, dump
from agentlab.types import DEFAULT_CANDIDATES, Approve, Budget, Entry, Outcome, Proposal

IDLE = "no gain"
"""Why a search stops that has not found a better law for long."""

GATE_SHARE = 0.5
"""Nats a row by which a candidate's description length may exceed the best before its refits are skipped."""


class Cursor(TypedDict):
    """The graph's state: how far the run is. `stop` is why no more is asked, "" while it goes on."""

    asked: int
    committed: int
    stop: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What a watcher is told after each block; `calls`, `tokens` and `usd` are those of models, `notes` new lines."""

    asked: int
    committed: int
    limit: int | None
    best: Entry | None
    rejected: int
    seconds: float
    phase: str = "search"
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dear:
    """Calls that may cost more than is approved: how many, and their worst case together and each."""

    calls: int
    tokens: int
    usd: float
    most_tokens: int
    most_usd: float


@dataclass
class Block:
    """Proposals asked for together, their gate, and their outcomes once the tools have answered."""

    start: int
    proposals: list[Proposal]
    gate: float
    outcomes: list[Outcome] = field(default_factory=list)
    recorded: int = 0
    calls: asyncio.Task[list[Outcome]] | None = None


@dataclass
class Search:
    """Everything a running search holds; handed to the graph's nodes as their context.

    `before` is the seconds that were spent before a resume; `patience` the candidates without a gain after which the
    search stops, 0 for never; `voters` the models that elect parents, if any. `agent` is the writer with its models;
    `script` then holds turns of a trace that are gone through again, `ending` why the run on record stopped.
    """

    folder: Path
    rows: int
    seed: int
    window: int
    budget: Budget
    proposer: Proposer
    toolbox: Engine
    trace: Trace
    archive: Archive = field(default_factory=Archive)
    blocks: deque[Block] = field(default_factory=deque)
    started: float = field(default_factory=time.monotonic)
    before: float = 0.0
    patience: int = 0
    voters: Voters | None = None
    agent: Agent | None = None
    approve: Approve = field(default_factory=Approve)
    sandbox: str = "auto"
    program_seconds: float = 30.0
    script: deque[Turn] = field(default_factory=deque)
    ending: str = ""
    told: list[Record] = field(default_factory=list)
    planned: list[Way] = field(default_factory=list)
    mutated: int = 0
    hold: bool = False
    opened: bool = False
    changed: bool = False
    interrupted: bool = False

    @property
    def limit(self) -> int | None:
        """Candidates at which the run stops: the budget's, or the default where the clock does not stop it either."""
        if self.budget.candidates is None and self.budget.seconds is None:
            return DEFAULT_CANDIDATES
        return self.budget.candidates

    @property
    def seconds(self) -> float:
        """Seconds spent on the run so far, before a resume included."""
        return self.before + time.monotonic() - self.started

    @property
    def half(self) -> int:
        """Asks a block: half the window."""
        return max(self.window // 2, 1)


def block_at(search: Search, start: int) -> Block:
    """The block that ask number `start` belongs to: a new one, or one that was cut short before a resume."""
    if start % search.half and search.blocks:
        return search.blocks[-1]
    block = Block(start, [], gate_of(search.archive, search.rows))
    search.blocks.append(block)
    return block


def gate_of(archive: Archive, rows: int) -> float:
    """The description length above which a candidate's refits are skipped; `rows` counts them for every target."""
    best = archive.best()
    return math.inf if best is None else best.outcome.mdl + max(20.0, GATE_SHARE * rows)


class Timed(Protocol):
    """A run with a folder, and the seconds that were spent on it."""

    folder: Path

    @property
    def seconds(self) -> float:
        """Seconds so far, before a resume included."""
        ...


def note_time(search: Timed, **what: float) -> None:
    """Note how far the run is, and when, beside the trace."""
    # Clock times are a convenience: a full disk must not end a run for them.
    with suppress(OSError), (search.folder / TIMING).open("ab") as file:
        file.write(dump({**what, "seconds": round(search.seconds, 4)}))


def tell(search: Search, asked: int, phase: str) -> None:
    """Tell the watcher where the search stands."""
    archive, agent = search.archive, search.agent
    rejected = sum(archive.rejected.values())
    spent: Mapping[str, Any] = {}
    if agent is not None:
        found = agent.told.spent()
        notes = (*agent.notes, *agent.told.warnings())
        agent.notes.clear()
        spent = {"calls": agent.calls, "tokens": int(found.tokens), "usd": found.usd, "notes": notes}
    best = archive.best()
    get_stream_writer()(Progress(asked, len(archive), search.limit, best, rejected, search.seconds, phase, **spent))


def note_call(search: Search, call: int, began: float, took: float) -> None:
    """Note when a model was called, and how long its reply took, beside the trace."""
    note_time(search, call=call, began=round(began, 4), took=round(took, 4))
