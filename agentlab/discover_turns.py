"""The loop with a writer: turns in which drafts of models and edits of `mutate` are asked for side by side.

A turn asks for what is there: the drafts whose replies have come, as far as the writer has earned fits, and `mutate`
for the rest of a block. Where `mutate` has had its share the models go on alone, and a turn waits for them.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agentlab.budget import Use
from agentlab.discover_agent import Agent
from agentlab.discover_book import Queued
from agentlab.discover_script import Turn, turns
from agentlab.discover_state import IDLE, Block, Cursor, Dear, Search, gate_of
from agentlab.discover_ways import Way
from agentlab.trace import Record, TraceError, read_entry
from agentlab.types import Entry, Proposal

ALONE = 0.15
"""Share of the candidates that is left to the models, should `mutate` be done before they are."""

NAP = 0.25
"""Seconds after which a turn that waits for a model looks whether it shall stop."""


def mutates(search: Search, agent: Agent) -> float:
    """Candidates that `mutate` may have asked for in all, as things stand.

    Its share, and what is left over once the models have had their say; none more while it is idle and they have not.
    """
    if agent.resting:
        return math.inf
    if search.patience and search.archive.idle >= search.patience:
        return 0
    return math.inf if search.limit is None else search.limit - math.ceil(search.limit * ALONE)


async def ask(search: Search, agent: Agent, state: Cursor) -> dict[str, Any]:
    """One turn: what to try next, and whom to ask; `hold` is set where what is under way comes first."""
    search.hold = False
    turn = await _due(search, agent)
    if turn is None and search.hold:
        return {}
    start = state["asked"]
    pending = {p.key for b in search.blocks for p in b.proposals}
    if turn is not None and turn.start != start:
        raise TraceError(f"trace: a turn at candidate {turn.start} stands where one at {start} was due")
    agent.time_regime = _time_regime(search) if turn is None else turn.time
    told = [*search.told, *agent.take(search.archive, pending, turn)]
    told += [] if agent.poll is None else agent.poll.take(search.archive, turn)
    most = mutates(search, agent)
    alone = search.mutated >= most
    proposals = _proposals(search, agent, start, pending, most)
    spent = agent.spent
    search.planned = agent.plan(
        start, start + len(proposals), search.archive, turn, alone=alone, left=room_left(search, start + len(proposals))
    )
    search.changed = agent.spent != spent
    told += agent.opened(start, search.archive, turn)
    search.told = [*told, *([] if turn is None or turn.approval is None else [turn.approval])]
    search.blocks.append(Block(start, proposals, gate_of(search.archive, search.rows)))
    search.opened = True
    return {"asked": start + len(proposals)}


async def _due(search: Search, agent: Agent) -> Turn | None:
    """The turn on record that is due, or None where one may be had now; sets `hold` where it may not yet."""
    if search.script:
        if len(search.archive) < search.script[0].seen:
            search.hold = True
            return None
        return search.script.popleft()
    if search.ending:
        search.hold = True
        return None
    while search.mutated >= mutates(search, agent) and not agent.ready:
        if search.blocks:
            search.hold = True  # what is being tried is told in the next prompts
            return None
        if not agent.waiting or stopped(search):
            return None
        await agent.some(NAP)
    return None


def _time_regime(search: Search) -> str:
    """The regime that the clock is in, "" without a limit on time."""
    cap = search.budget.seconds
    return "" if cap is None else Use("seconds", search.seconds, cap).regime


def room_left(search: Search, asked: int) -> float:
    """Candidates that may still be asked for."""
    return math.inf if search.limit is None else search.limit - asked


def stopped(search: Search) -> bool:
    """Whether a person or the clock ends the run."""
    clock = search.budget.seconds is not None and search.seconds >= search.budget.seconds
    return search.interrupted or clock


def _drawn(search: Search, agent: Agent, start: int, pending: set[str], most: float) -> tuple[range, list[Queued]]:
    """The candidates that a turn may ask for, and the drafts among them: as many as the writer may take up."""
    end = start + search.half if search.limit is None else min(start + search.half, search.limit)
    drafts = end - start if search.mutated >= most else min(end - start, max(agent.book.allowance(end), 0))
    return range(start, end), agent.book.draw(drafts, search.archive, pending)


def _proposals(search: Search, agent: Agent, start: int, pending: set[str], most: float) -> list[Proposal]:
    """Drafts first, then edits of `mutate`, until it has asked for `most`."""
    room, queued = _drawn(search, agent, start, pending, most)
    found = [agent.proposal(i, q, search.archive) for i, q in zip(room, queued, strict=False)]
    pending |= {p.key for p in found}
    for index in room[len(found) :]:
        if search.mutated >= most:
            break
        proposal = search.proposer.ask(search.mutated, search.archive, pending)
        search.mutated += 1
        if proposal is None:
            proposal = Proposal(index, "fit.laws", "", "", search.proposer.name, "none")
        pending.add(proposal.key)
        found.append(replace(proposal, index=index))
    return found


def record(search: Search, agent: Agent, *, last: bool) -> None:
    """Write the turn down, then let its calls go out; none do from the last one."""
    block = search.blocks[-1]
    search.opened = False
    if last:
        agent.drop(search.planned)
        search.planned = []
        search.told = [r for r in search.told if r["kind"] != "sent"]
    told = [*search.told, *agent.records(search.planned)]
    if told or block.proposals or search.planned or search.changed:
        turn: Record = {"kind": "turn", "start": block.start, "seen": len(search.archive), "size": len(block.proposals)}
        turn |= {"time": agent.time_regime} if agent.time_regime else {}
        search.trace.append([*told, turn])
    if not block.proposals:
        search.blocks.pop()
    if not search.script and not search.ending:
        agent.send(search.planned)
    search.told, search.planned = [], []


def dear(search: Search, planned: Sequence[Way]) -> Dear | None:
    """The calls that somebody must approve, or None."""
    limit, worst = search.approve, [w.claim.worst for w in planned]
    over = [
        w
        for w in worst
        if (limit.usd is not None and w.usd > limit.usd) or (limit.tokens is not None and w.tokens > limit.tokens)
    ]
    if not over:
        return None
    tokens, usd = [w.tokens for w in over], [w.usd for w in over]
    return Dear(len(over), sum(tokens), sum(usd), max(tokens), max(usd))


def ended(search: Search, agent: Agent, asked: int) -> str:
    """Why no more is asked, "" while there is more to ask."""
    if search.ending and not search.script:
        return search.ending
    if search.limit is not None and asked >= search.limit:
        return "candidates"
    idle = bool(search.patience) and search.archive.idle >= search.patience
    if idle and agent.resting:
        return IDLE
    return ""


def restore(search: Search, agent: Agent, records: Sequence[Record]) -> Cursor:
    """Go through the turns on record with the entries that stand there; calls nobody answered are charged as lost."""
    entries = {r["id"]: read_entry(r) for r in records if r["kind"] == "entry"}
    _waves(agent, records)
    asked, stop = 0, ""
    for turn in turns(records):
        _commit(search, agent, entries, turn.seen)
        asked, stop = turn.start + turn.size, ""
        agent.time_regime = turn.time
        pending = {p.key for b in search.blocks for p in b.proposals}
        agent.take(search.archive, pending, turn)
        if agent.poll is not None:
            agent.poll.take(search.archive, turn)
        most = mutates(search, agent)
        alone = search.mutated >= most
        proposals = _again(search, agent, turn, entries, pending, most)
        left = room_left(search, asked)
        planned = agent.plan(turn.start, asked, search.archive, turn, alone=alone, left=left)
        if turn.approval is not None:
            agent.approved(turn.approval, planned)
        agent.opened(turn.start, search.archive, turn)
        if proposals:
            search.blocks.append(Block(turn.start, proposals, gate_of(search.archive, search.rows)))
        stop = ended(search, agent, asked)
    for block in search.blocks:
        have = list(itertools.takewhile(lambda e: e is not None, (entries.get(p.index) for p in block.proposals)))
        block.outcomes = [e.outcome for e in have if e is not None]
        block.recorded = len(block.outcomes)
    _commit(search, agent, entries, len(entries), whole=True)
    search.told = agent.forget_all()
    return Cursor(asked=asked, committed=len(search.archive), stop=stop)


def _again(
    search: Search, agent: Agent, turn: Turn, entries: dict[int, Entry], pending: set[str], most: float
) -> list[Proposal]:
    """The proposals of a turn: those on record, or, where they were not yet tried, as they were asked for."""
    room = range(turn.start, turn.start + turn.size)
    if not all(i in entries for i in room):
        return _proposals(search, agent, turn.start, pending, most)
    found = [entries[i].proposal for i in room]
    _, queued = _drawn(search, agent, turn.start, pending, most)
    for proposal, one in zip(found, queued, strict=False):
        agent.book.proposed(proposal.index, one)
    search.mutated += len(found) - len(queued)
    return found


def _commit(search: Search, agent: Agent, entries: dict[int, Entry], seen: int, *, whole: bool = False) -> None:
    """Commit blocks until so many entries are in the archive; with `whole` those alone whose entries are all there."""
    while search.blocks and len(search.archive) < seen:
        block = search.blocks[0]
        if whole and block.recorded < len(block.proposals):
            return
        for proposal in block.proposals:
            commit(search, agent, entries[proposal.index])
        search.blocks.popleft()


def commit(search: Search, agent: Agent | None, entry: Entry) -> None:
    """Take an entry into the archive, and into the book of the writer."""
    search.archive.add(entry)
    if agent is not None:
        agent.book.committed(entry, search.archive)


def _waves(agent: Agent, records: Sequence[Record]) -> None:
    """Have the votes know what went out for them."""
    if agent.poll is not None:
        for record in records:
            if record["kind"] == "sent" and "wave" in record:
                agent.poll.waved(record)


def replayed(agent: Agent | None, records: Sequence[Record]) -> tuple[deque[Turn], str]:
    """The turns of a finished run and why it stopped, for a replay; the agent is told what its trace says of votes."""
    place = next((i for i, r in enumerate(records) if r["kind"] == "stop"), len(records))
    if agent is not None and records:
        _waves(agent, records)
        last = max((i for i, r in enumerate(records[:place]) if r["kind"] in ("turn", "entry")), default=0)
        agent.closing = records[last + 1 : place]
    return deque(turns(records)), records[place]["reason"] if place < len(records) else ""
