"""What tools read of a run folder, and outcomes as the trace records them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from agentlab.tools._sealed import refuse_sealed
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from agentlab import selection
from agentlab.metrics import digits
from agentlab.run_rows import read_rows
from agentlab.types import AgentlabError, Outcome, Score

Folder = Annotated[
    str, Field(description="A run folder: holds task.json and rows.npz, as `agentlab discover` writes them.")
]
Effort = Annotated[Literal["search", "final"], Field(description="search: quick; final: many starts, more cuts.")]


def problem_of(data: str) -> selection.Problem:
    """The rows of a run folder, ready for judging; raises ToolError where it is none."""
    folder = Path(data)
    try:
        stamp = (folder / "rows.npz").stat().st_mtime_ns
        return _prepared(folder, stamp)
    except (OSError, AgentlabError) as error:
        raise ToolError(f"{data}: {error}; give a run folder with task.json and rows.npz") from error


@functools.lru_cache(maxsize=4)
def _prepared(folder: Path, _stamp: int) -> selection.Problem:
    """A run folder's problem, prepared once a version of its rows."""
    for name in ("rows.npz", "sample.npz"):
        refuse_sealed(folder / name)
    task, rows = read_rows(folder)
    return selection.problem(task, rows)


def rounded_outcome(outcome: Outcome) -> Outcome:
    """Figures at ten significant digits, so that the trace reads back bit for bit and stays short."""
    return replace(
        outcome,
        objective=digits(outcome.objective),
        mdl=digits(outcome.mdl),
        cuts=tuple(digits(c) for c in outcome.cuts),
        dev=None if outcome.dev is None else short(outcome.dev),
    )


def short(score: Score) -> Score:
    """A score at ten significant digits."""
    s = score
    return Score(digits(s.r2), digits(s.nmse), digits(s.nmae), digits(s.mae), digits(s.are), s.n)
