"""A walk as a LangGraph graph: one LangGraph superstep for one of the walk, holding a cursor and nothing that grows.

    advance -> advance ... -> END

LangGraph snapshots its whole state at every superstep, so the state is three small values: the steps decided, the bytes
of the journal, and a digest. The journal is the truth; a cursor that disagrees with it is replaced by what it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from agentlab.steps import Cursor, Walk

MOST_SUPERSTEPS = 2**31 - 1
"""LangGraph stops a graph after about 10,000 supersteps unless told otherwise."""


class Position(TypedDict):
    """The graph's state: steps decided, bytes of the journal, and a digest of the chains' states."""

    steps: int
    offset: int
    digest: str


@dataclass(frozen=True, slots=True)
class Held:
    """What the graph's nodes are handed; none of it is checkpointed."""

    walk: Walk[Any]


def advance(state: Position, *, runtime: Runtime[Held]) -> Position:  # noqa: ARG001 - LangGraph calls it so
    """One superstep of the walk."""
    cursor = runtime.context.walk.superstep()
    return Position(steps=cursor.steps, offset=cursor.offset, digest=cursor.digest)


def decide(state: Position, runtime: Runtime[Held]) -> str:  # noqa: ARG001
    """Go on while a chain can."""
    return END if runtime.context.walk.over else "advance"


def build(
    saver: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[Position, Held, Position, Position]:
    """The compiled graph; checkpoints go to `saver`."""
    graph = StateGraph(Position, context_schema=Held)
    graph.add_node("advance", advance)
    graph.add_edge(START, "advance")
    graph.add_conditional_edges("advance", decide, ["advance", END])
    return graph.compile(checkpointer=saver)


def supersteps(
    walk: Walk[Any], saver: BaseCheckpointSaver[Any] | None = None, thread: str = "walk"
) -> Iterator[Cursor]:
    """Take a walk to its end; yields its cursor after each superstep, once that is on disk and checkpointed.

    A walk that was resumed begins where its journal ends, whatever the checkpoint says: the journal is written first.
    One that is over already takes one empty superstep, so that the checkpoint says so too.
    """
    start = walk.settle()
    config: Any = {"configurable": {"thread_id": thread}, "recursion_limit": MOST_SUPERSTEPS}
    position = Position(steps=start.steps, offset=start.offset, digest=start.digest)
    durability: Any = "sync" if saver is not None else None
    stream = build(saver).stream(position, config, context=Held(walk), stream_mode="updates", durability=durability)
    for update in stream:
        told = update["advance"]
        yield Cursor(told["steps"], told["offset"], told["digest"])
