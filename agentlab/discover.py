"""The loop: a LangGraph graph that asks a proposer, calls tools, records outcomes and decides when to stop.

    ask -> approve -> call -> record -> decide -> ask ... -> finish

Asks go in blocks of half a window. While the tools work on one block the next one is asked for, so a block sees the
entries up to the block before the last, whatever the number of workers and whichever finishes first (DESIGN rule 2).
The graph's state is a cursor; everything else is in the trace.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from agentlab.archive import Archive
from agentlab.discover_decide import Voters
from agentlab.proposers import Proposer
from agentlab.toolbox import Toolbox
from agentlab.trace import Record, Trace, dump, entry_record, outcome_record, read, read_entry, read_outcome
from agentlab.types import DEFAULT_CANDIDATES, BackendError, Budget, Entry, Outcome, Proposal

CHUNK = 8
"""Formulas a tool call."""

IDLE = "no gain"
"""Why a search stops that has not found a better law for long."""

LUCKY = 32
"""Candidates that are judged on shuffled targets, to show what luck alone would give."""

FINALISTS = 24
"""Candidates that are judged again with many starts and more cuts before one is believed."""

GATE_SHARE = 0.5
"""Nats a row by which a candidate's description length may exceed the best before its refits are skipped."""

TRACE = "trace.jsonl"
TIMING = "timing.jsonl"

NOTHING_NEW = Outcome("rejected", "nothing new to propose")


class Cursor(TypedDict):
    """The graph's state: how far the run is. `stop` is why no more is asked, "" while it goes on."""

    asked: int
    committed: int
    stop: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What a watcher is told after each block."""

    asked: int
    committed: int
    limit: int | None
    best: Entry | None
    rejected: int
    seconds: float
    phase: str = "search"


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
    search stops, 0 for never; `voters` the models that elect parents, if any.
    """

    folder: Path
    rows: int
    seed: int
    window: int
    budget: Budget
    proposer: Proposer
    toolbox: Toolbox
    trace: Trace
    archive: Archive = field(default_factory=Archive)
    blocks: deque[Block] = field(default_factory=deque)
    started: float = field(default_factory=time.monotonic)
    before: float = 0.0
    patience: int = 0
    voters: Voters | None = None
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


async def ask(state: Cursor, *, runtime: Runtime[Search]) -> dict[str, Any]:
    """Propose the next block from the entries that are committed now, and from the parents that models elect."""
    search = runtime.context
    start = state["asked"]
    if state["stop"] or start == search.limit:
        return {}
    end = (start // search.half + 1) * search.half
    if search.limit is not None:
        end = min(end, search.limit)
    if search.voters is not None:
        # The tools work on the block before meanwhile: models and fits wait for one another only here.
        await search.voters.choose(start // search.half * search.half, search.archive, search.trace)
    block = _block_at(search, start)
    pending = {p.key for b in search.blocks for p in b.proposals}
    for index in range(start, end):
        proposal = search.proposer.ask(index, search.archive, pending)
        if proposal is None:
            proposal = Proposal(index, "fit.laws", "", "", search.proposer.name, "none")
        pending.add(proposal.key)
        block.proposals.append(proposal)
    return {"asked": end}


def _block_at(search: Search, start: int) -> Block:
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


async def approve(state: Cursor, *, runtime: Runtime[Search]) -> dict[str, Any]:
    """Stop asking where a budget is reached or a person asked to; what was asked before is still carried out."""
    search = runtime.context
    if state["stop"]:
        return {}
    if search.interrupted:
        return {"stop": "interrupted"}
    if search.limit is not None and state["asked"] >= search.limit:
        return {"stop": "candidates"}
    if search.patience and search.archive.idle >= search.patience:
        return {"stop": IDLE}
    if search.budget.seconds is not None and search.seconds >= search.budget.seconds:
        return {"stop": "seconds"}
    return {}


async def call(state: Cursor, *, runtime: Runtime[Search]) -> dict[str, Any]:
    """Start the newest block's tool calls, then wait for the oldest block when two are under way or none follows."""
    search = runtime.context
    for block in search.blocks:
        if block.calls is None:
            block.calls = asyncio.create_task(_evaluate(search, block))
    if search.blocks and (len(search.blocks) > 1 or state["stop"]):
        oldest = search.blocks[0]
        if oldest.calls is not None:
            oldest.outcomes = await oldest.calls
    return {}


async def _evaluate(search: Search, block: Block) -> list[Outcome]:
    """Outcomes of a block in ask order; those already on record are taken from there."""
    todo = [p.formula for p in block.proposals[len(block.outcomes) :] if p.formula]
    gate = None if math.isinf(block.gate) else block.gate
    fresh = iter(await judge(search, todo, "search", gate))
    waiting = block.proposals[len(block.outcomes) :]
    return [*block.outcomes, *(next(fresh) if p.formula else NOTHING_NEW for p in waiting)]


async def judge(search: Search, formulas: Sequence[str], effort: str, gate: float | None) -> list[Outcome]:
    """Outcomes of the formulas in order, asked of the tool `fit.laws` in chunks, side by side."""
    chunks = [list(formulas[i : i + CHUNK]) for i in range(0, len(formulas), CHUNK)]
    fixed = {"data": str(search.folder), "effort": effort, "gate": gate, "seed": search.seed}
    answers = await asyncio.gather(*(_judge_chunk(search, chunk, fixed) for chunk in chunks))
    return [outcome for answer in answers for outcome in answer]


async def _judge_chunk(search: Search, formulas: list[str], fixed: dict[str, Any]) -> list[Outcome]:
    """Outcomes of one call; where the server dies of it, each formula is asked alone and the culprit is rejected."""
    try:
        answer = await search.toolbox.call("fit.laws", {**fixed, "formulas": formulas})
        return [read_outcome(o) for o in answer["outcomes"]]
    except BackendError:
        if len(formulas) == 1:
            return [Outcome("rejected", "the tool server died of it")]
    return [(await _judge_chunk(search, [formula], fixed))[0] for formula in formulas]


async def record(state: Cursor, *, runtime: Runtime[Search]) -> dict[str, Any]:
    """Commit the oldest block once its outcomes are there: trace first, then the archive."""
    search = runtime.context
    oldest = search.blocks[0].calls if search.blocks else None
    if oldest is None or not oldest.done() or len(search.blocks[0].outcomes) < len(search.blocks[0].proposals):
        return {}
    block = search.blocks.popleft()
    entries = [Entry(p.index, p, o) for p, o in zip(block.proposals, block.outcomes, strict=True)]
    search.trace.append(entry_record(e) for e in entries[block.recorded :])
    for entry in entries:
        search.archive.add(entry)
    _note_time(search, block.start + len(entries))
    _tell(search, state["asked"], "search")
    return {"committed": block.start + len(entries)}


def _note_time(search: Search, committed: int) -> None:
    # Clock times are a convenience: a full disk must not end a run for them.
    with suppress(OSError), (search.folder / TIMING).open("ab") as file:
        file.write(dump({"committed": committed, "seconds": round(search.seconds, 4)}))


def _tell(search: Search, asked: int, phase: str) -> None:
    archive = search.archive
    rejected = sum(archive.rejected.values())
    get_stream_writer()(Progress(asked, len(archive), search.limit, archive.best(), rejected, search.seconds, phase))


def decide(state: Cursor, runtime: Runtime[Search]) -> str:
    """Go on asking, or finish when everything asked is committed."""
    return "finish" if state["stop"] and not runtime.context.blocks else "ask"


async def finish(state: Cursor, *, runtime: Runtime[Search]) -> dict[str, Any]:
    """Judge the best candidates again in earnest, believe one, and record it with its intervals."""
    search = runtime.context
    _tell(search, state["asked"], "finalists")
    best = search.archive.top(FINALISTS)
    outcomes = await judge(search, [e.proposal.formula for e in best], "final", None)
    position = await _believed(search, best, outcomes)
    records: list[Record] = [{"kind": "stop", "reason": state["stop"], "asked": state["asked"]}]
    for entry, outcome in zip(best, outcomes, strict=True):
        records.append(
            {"kind": "finalist", "entry": entry.id, "formula": entry.proposal.formula} | outcome_record(outcome)
        )
    if position is not None:
        formula, outcome = best[position].proposal.formula, outcomes[position]
        arguments = {"data": str(search.folder), "formula": formula, "seed": search.seed}
        lucky = [e.proposal.formula for e in search.archive.top(LUCKY)]
        found, beside, luck = await asyncio.gather(
            search.toolbox.call("fit.refit", arguments),
            search.toolbox.call("fit.baselines", arguments),
            search.toolbox.call("fit.luck", arguments | {"formulas": lucky}),
        )
        records.append({"kind": "baselines"} | beside)
        records.append({"kind": "luck"} | luck)
        law: Record = {
            "kind": "law",
            "entry": best[position].id,
            "formula": formula,
            "key": best[position].proposal.key,
        }
        records.append(law | outcome_record(outcome) | {"params": found["params"], "intervals": found["intervals"]})
    else:
        records.append({"kind": "law", "entry": None})
    search.trace.append(records)
    _note_time(search, state["asked"])
    return {}


async def _believed(search: Search, best: Sequence[Entry], outcomes: Sequence[Outcome]) -> int | None:
    """The position of the finalist to believe."""
    formulas = [e.proposal.formula for e in best]
    told = [json.loads(dump(outcome_record(o))) for o in outcomes]
    answer = await search.toolbox.call(
        "fit.choose", {"data": str(search.folder), "formulas": formulas, "outcomes": told}
    )
    position: int | None = answer["position"]
    return position


def build() -> CompiledStateGraph[Cursor, Search, Cursor, Cursor]:
    """The compiled graph."""
    graph = StateGraph(Cursor, context_schema=Search)
    graph.add_node("ask", ask)
    graph.add_node("approve", approve)
    graph.add_node("call", call)
    graph.add_node("record", record)
    graph.add_node("finish", finish)
    for here, there in ((START, "ask"), ("ask", "approve"), ("approve", "call"), ("call", "record"), ("finish", END)):
        graph.add_edge(here, there)
    graph.add_conditional_edges("record", decide, ["ask", "finish"])
    return graph.compile()


async def run(search: Search) -> AsyncIterator[Progress]:
    """Run a search to its end, from wherever its trace stands; yields progress after each block."""
    cursor = restore(search)
    if cursor is None:
        return
    steps = 50 + 12 * ((search.limit or 1_000_000) // search.half + 4)
    stream = build().astream(cursor, {"recursion_limit": steps}, context=search, stream_mode="custom")
    try:
        async for progress in stream:
            if isinstance(progress, Progress):
                yield progress
    finally:
        # A failed call must not leave the next block's calls running: the servers could not be stopped under them.
        calls = [b.calls for b in search.blocks if b.calls is not None]
        for one in calls:
            one.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def restore(search: Search) -> Cursor | None:
    """Refill the archive and the open blocks from the trace; None when the run has its law already.

    With c whole blocks on record, block c was or will be asked for with blocks 0..c-2 in the archive, so only those
    are added; block c-1 and what there is of block c wait, answered, to be committed in their turn.
    """
    records = list(read(search.folder / TRACE))
    if any(r["kind"] == "law" for r in records):
        return None
    entries = [read_entry(r) for r in records if r["kind"] == "entry"]
    asked, half = len(entries), search.half
    closed = max(asked // half - 1, 0) * half
    idle = False
    for entry in entries[:closed]:
        # The last block on record was asked for before the block below it was committed: a stop was decided then.
        if search.patience and entry.id == closed - half:
            idle = asked % half == 0 and search.archive.idle >= search.patience
        search.archive.add(entry)
    for start in range(closed, asked, half):
        part = entries[start : start + half]
        block = _block_at(search, start)
        block.proposals = [e.proposal for e in part]
        block.outcomes = [e.outcome for e in part]
        block.recorded = len(part)
    if search.voters is not None:
        search.voters.recall(records, asked // half * half)
    return Cursor(asked=asked, committed=closed, stop=IDLE if idle else "")
