"""Has candidates tried by the tools that they ask for, in chunks, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agentlab.discover_state import Search
from agentlab.engine import ClusterError
from agentlab.trace import read_outcome
from agentlab.types import BackendError, Outcome

FORMULA, PROGRAM = "fit.laws", "program.judge"
"""The tools that try laws."""

Candidate = tuple[str, str]
"""A tool, and the text that it is sent."""


async def judge(search: Search, candidates: Sequence[Candidate], effort: str, gate: float | None) -> list[Outcome]:
    """Outcomes of the candidates in order, asked of their tools in chunks, side by side."""
    found: dict[int, Outcome] = {}
    tools = dict.fromkeys(tool for tool, _ in candidates)
    chunks = [chunk for tool in tools for chunk in _chunks(tool, candidates, search.toolbox.portion(tool))]
    answers = await asyncio.gather(*(_judge_chunk(search, tool, texts, effort, gate) for tool, _, texts in chunks))
    for (_, places, _), outcomes in zip(chunks, answers, strict=True):
        found.update(zip(places, outcomes, strict=True))
    return [found[i] for i in range(len(candidates))]


def _chunks(tool: str, candidates: Sequence[Candidate], size: int) -> list[tuple[str, list[int], list[str]]]:
    """The candidates of one tool in calls of that size: the tool, their places, their texts."""
    places = [i for i, (named, _) in enumerate(candidates) if named == tool]
    parts = [places[i : i + size] for i in range(0, len(places), size)]
    return [(tool, part, [candidates[i][1] for i in part]) for part in parts]


async def _judge_chunk(search: Search, tool: str, texts: list[str], effort: str, gate: float | None) -> list[Outcome]:
    """Outcomes of one call; where the server dies of it, each text is asked alone and the culprit is rejected."""
    arguments: dict[str, Any] = {"data": str(search.folder), "effort": effort}
    if tool == PROGRAM:
        arguments |= {"texts": texts, "sandbox": search.sandbox, "seconds": search.program_seconds}
    else:
        arguments |= {"formulas": texts, "gate": gate, "seed": search.seed}
    try:
        answer = await search.toolbox.call(tool, arguments)
        return [read_outcome(o) for o in answer["outcomes"]]
    except ClusterError:
        raise  # it is no fault of the texts: the run stops here, and can be resumed
    except BackendError:
        if len(texts) == 1:
            return [Outcome("rejected", "the tool server died of it")]
    return [(await _judge_chunk(search, tool, [text], effort, gate))[0] for text in texts]
