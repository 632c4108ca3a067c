"""The loop: a LangGraph graph that asks a proposer, calls tools, records outcomes and decides when to stop.

    ask -> approve -> call -> record -> decide -> ask ... -> finish

Asks go in blocks of half a window. While the tools work on one block the next one is asked for, so a block sees the
entries up to the block before the last, whatever the number of workers and whichever finishes first (DESIGN rule 2).
With a writer a pass is a turn (discover_turns.py): what it saw and which replies had come is on record. The graph's
state is a cursor; everything else is in the trace.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from agentlab import discover_turns
from agentlab.discover_files import FINALISTS, LUCKY, TIMING, TRACE
from agentlab.discover_finish import finish
from agentlab.discover_judge import judge
from agentlab.discover_state import (
    IDLE,
    Block,
    Cursor,
    Dear,
    Progress,
    Search,
    block_at,
    gate_of,
    note_time,
    tell,
)
from agentlab.trace import Record, entry_record, read, read_entry
from agentlab.types import AgentlabError, Entry, Outcome, Proposal

__all__ = [
    "FINALISTS",
    "IDLE",
    "LUCKY",
    "TIMING",
    "TRACE",
    "Cursor",
    "Dear",
    "NotApprovedError",
    "Progress",
    "Search",
    "build",
    "gate_of",
    "restore",
    "run",
]

NOTHING_NEW = Outcome("rejected", "nothing new to propose")

Approver = Callable[[Dear], bool | None]
"""Says whether calls may be made; None where there is nobody to ask."""


class NotApprovedError(AgentlabError):
    """Calls that somebody must approve, and nobody is there."""


async def ask(state: Cursor, *, runtime: Runtime[Search]) -> dict[str, Any]:
    """Propose the next block from the entries that are committed now, and from the parents that models elect."""
    search = runtime.context
    start = state["asked"]
    if state["stop"] or start == search.limit:
        return {}
    if search.agent is not None:
        return await discover_turns.ask(search, search.agent, state)
    end = (start // search.half + 1) * search.half
    if search.limit is not None:
        end = min(end, search.limit)
    if search.voters is not None:
        # The tools work on the block before meanwhile: models and fits wait for one another only here.
        await search.voters.choose(start // search.half * search.half, search.archive, search.trace)
    block = block_at(search, start)
    pending = {p.key for b in search.blocks for p in b.proposals}
    for index in range(start, end):
        proposal = search.proposer.ask(index, search.archive, pending)
        if proposal is None:
            proposal = Proposal(index, "fit.laws", "", "", search.proposer.name, "none")
        pending.add(proposal.key)
        block.proposals.append(proposal)
    return {"asked": end}


async def approve(state: Cursor, *, runtime: Runtime[Search]) -> dict[str, Any]:
    """Stop asking where a budget is reached or a person asked to; have dear calls approved.

    What was asked before is still carried out.
    """
    search = runtime.context
    if state["stop"]:
        return {}
    if search.agent is not None:
        _approve_calls(search)
    return {"stop": _why_stop(search, state["asked"])}


def _why_stop(search: Search, asked: int) -> str:
    """Why no more is asked, "" while the run goes on."""
    if search.agent is not None and (search.script or search.ending):
        going = search.opened and (search.planned or any(r["kind"] == "sent" for r in search.told))
        return "" if going else discover_turns.ended(search, search.agent, asked)
    if search.interrupted:
        return "interrupted"
    found = _ended(search, asked) if search.agent is None else discover_turns.ended(search, search.agent, asked)
    if not found and search.budget.seconds is not None and search.seconds >= search.budget.seconds:
        return "seconds"
    return found


def _ended(search: Search, asked: int) -> str:
    if search.limit is not None and asked >= search.limit:
        return "candidates"
    return IDLE if search.patience and search.archive.idle >= search.patience else ""


def _approve_calls(search: Search) -> None:
    """Wait until somebody has approved what costs more than the limit; calls that are not are taken back."""
    agent = search.agent
    assert agent is not None  # noqa: S101 - asked for runs with a writer alone
    on_record = next((r for r in search.told if r["kind"] == "approval"), None)
    dear = discover_turns.dear(search, search.planned)
    if on_record is not None:
        search.planned = agent.approved(on_record, search.planned)
    elif dear is not None and not agent.allows(dear.most_tokens, dear.most_usd):
        yes = search.approve.otherwise == "ask" and bool(interrupt(asdict(dear)))
        record: Record = {"kind": "approval", "approved": yes, "tokens": dear.most_tokens, "usd": dear.most_usd}
        search.told = [r for r in search.told if yes or r["kind"] != "sent"] + [record]
        search.planned = agent.approved(record, search.planned)


async def call(state: Cursor, *, runtime: Runtime[Search]) -> dict[str, Any]:
    """Start the newest block's tool calls, then wait for the oldest block when two are under way or none follows."""
    search = runtime.context
    if search.agent is not None and search.opened:
        discover_turns.record(search, search.agent, last=bool(state["stop"]))
    for block in search.blocks:
        if block.calls is None:
            block.calls = asyncio.create_task(_evaluate(search, block))
    # In a replay no more is committed than had been when the next turn on record was asked for.
    full = search.hold if search.script else len(search.blocks) > 1 or bool(state["stop"]) or search.hold
    if search.blocks and full:
        oldest = search.blocks[0]
        if oldest.calls is not None:
            oldest.outcomes = await oldest.calls
    return {}


async def _evaluate(search: Search, block: Block) -> list[Outcome]:
    """Outcomes of a block in ask order; those already on record are taken from there."""
    todo = [(p.tool, p.formula) for p in block.proposals[len(block.outcomes) :] if p.formula]
    gate = None if math.isinf(block.gate) else block.gate
    fresh = iter(await judge(search, todo, "search", gate))
    waiting = block.proposals[len(block.outcomes) :]
    return [*block.outcomes, *(next(fresh) if p.formula else NOTHING_NEW for p in waiting)]


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
        discover_turns.commit(search, search.agent, entry)
    note_time(search, committed=block.start + len(entries))
    tell(search, state["asked"], "search")
    return {"committed": block.start + len(entries)}


def decide(state: Cursor, runtime: Runtime[Search]) -> str:
    """Go on asking, or finish when everything asked is committed."""
    return "finish" if state["stop"] and not runtime.context.blocks else "ask"


def build(saver: BaseCheckpointSaver[Any] | None = None) -> CompiledStateGraph[Cursor, Search, Cursor, Cursor]:
    """The compiled graph; `saver` keeps the cursor, and what waits for approval."""
    graph = StateGraph(Cursor, context_schema=Search)
    graph.add_node("ask", ask)
    graph.add_node("approve", approve)
    graph.add_node("call", call)
    graph.add_node("record", record)
    graph.add_node("finish", finish)
    for here, there in ((START, "ask"), ("ask", "approve"), ("approve", "call"), ("call", "record"), ("finish", END)):
        graph.add_edge(here, there)
    graph.add_conditional_edges("record", decide, ["ask", "finish"])
    return graph.compile(checkpointer=saver)


async def run(
    search: Search, saver: BaseCheckpointSaver[Any] | None = None, approver: Approver | None = None
) -> AsyncIterator[Progress]:
    """Run a search to its end, from wherever its trace stands; yields progress after each block.

    Raises:
        NotApprovedError: a call is dearer than the limit and `approver` has no answer; a resume asks again.
    """
    cursor = restore(search)
    if cursor is None:
        return
    steps = 50 + 24 * ((search.limit or 1_000_000) // (1 if search.agent else search.half) + 4)
    config: Any = {"recursion_limit": steps, "configurable": {"thread_id": thread_of(search.folder)}}
    graph = build(saver)
    try:
        given: Cursor | Command[Any] | None = cursor
        while given is not None:
            # The trace is written step by step; the checkpoint, once the run ends or waits for somebody.
            stream = graph.astream(given, config, context=search, stream_mode=["custom", "updates"], durability="exit")
            given = None
            async for part in stream:
                mode, told = cast("tuple[str, Any]", part)
                if mode == "custom" and isinstance(told, Progress):
                    yield told
                elif mode == "updates" and "__interrupt__" in told:
                    given = Command(resume=_answer(approver, told["__interrupt__"][0].value))
    finally:
        # A failed call must not leave the next block's calls running: the servers could not be stopped under them.
        calls = [b.calls for b in search.blocks if b.calls is not None]
        for one in calls:
            one.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if search.agent is not None:
            await search.agent.stop()


def thread_of(folder: Path) -> str:
    """The name of a run among all whose checkpoints share a database."""
    return f"{folder.name}-{blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()}"


def _answer(approver: Approver | None, value: dict[str, Any]) -> bool:
    dear = Dear(**value)
    answer = None if approver is None else approver(dear)
    if answer is None:
        raise NotApprovedError(
            f"{dear.calls} calls to a model may cost up to {dear.usd:.6g} USD and {dear.tokens} tokens, more than "
            "approve.* allows, and nobody is here to ask; resume the run at a terminal, or with --approve or --deny"
        )
    return answer


def restore(search: Search) -> Cursor | None:
    """Refill the archive and the open blocks from the trace; None when the run has its law already.

    With c whole blocks on record, block c was or will be asked for with blocks 0..c-2 in the archive, so only those
    are added; block c-1 and what there is of block c wait, answered, to be committed in their turn.
    """
    records = list(read(search.folder / TRACE))
    if any(r["kind"] == "law" for r in records):
        return None
    if search.agent is not None:
        return discover_turns.restore(search, search.agent, records)
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
        block = block_at(search, start)
        block.proposals = [e.proposal for e in part]
        block.outcomes = [e.outcome for e in part]
        block.recorded = len(part)
    if search.voters is not None:
        search.voters.recall(records, asked // half * half)
    return Cursor(asked=asked, committed=closed, stop=IDLE if idle else "")
