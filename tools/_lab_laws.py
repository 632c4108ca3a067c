"""The tools of the lab about laws: fit, audit, predict, allocate, compare."""

from __future__ import annotations

import csv as tables
import hashlib
import io
import json
from pathlib import Path
from typing import Annotated, Any

from agentlab.tools import _lab_answers
from agentlab.tools._lab_asking import SLOW, ask, compute, off, runs
from agentlab.tools._lab_calls import CLI
from agentlab.tools._lab_places import CARDS, run_folder, runs_folder, table
from agentlab.tools._lab_records import Allocation, Audit, Comparison, Detail, Fit, Formula, Predictions, RunId, Table
from agentlab.tools._lab_short import bounded
from agentlab.tools._lab_words import Work, stamp, work
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

MOST_POINTS = 2_000
"""Points of one prediction."""
Draws = Annotated[int, Field(ge=20, le=5_000, description="Bootstrap draws behind the intervals.")]
Flops = Annotated[float, Field(gt=0, allow_inf_nan=False, description="The compute of the decision, in FLOPs.")]
Found = dict[str, Any] | None
Points = Annotated[
    dict[str, list[float | str]] | None,
    Field(description='Columns of the law, one value a point: {"N": [1e9, 1e10], "D": [1e11, 1e12]}.'),
]


async def law_fit(
    law: Formula,
    ctx: Context[Any],
    rows: Table | None = None,
    run: RunId | None = None,
    seed: Annotated[int | None, Field(ge=0)] = None,
) -> Fit:
    """Fit one formula to the rows of a table, a task or a run: parameters with 90% intervals, errors, condition."""
    found = await compute(await off(work, "fit", run, rows, [law], {"seed": seed}), ctx)
    return bounded(Fit(**found)) if found else Fit(state="running", note=SLOW)


async def law_audit(
    ctx: Context[Any],
    law: Formula | None = None,
    rows: Table | None = None,
    run: RunId | None = None,
    flops: Annotated[float | None, Field(gt=0, description="Compute of the decision that is audited, FLOPs.")] = None,
    facts: Annotated[str | None, Field(description='What the rows do not say: "tokenizer: GPT-2; seeds: 3".')] = None,
    draws: Draws = 300,
    detail: Detail = "brief",
) -> Audit:
    """Say what a law is worth: which parameters are identified, how it extrapolates, what moves its decision.

    It takes half a minute or more: it answers `running` until the card is there. Without `law` that of the run.
    """
    further = {"flops": flops, "facts": facts, "draws": draws}
    asked = _with_card(await off(work, "audit", run, rows, [law] if law else [], further), run if law is None else None)
    found = await compute(asked, ctx)
    return bounded(_lab_answers.audited(found, Path(asked.out), detail)) if found else Audit(state="running", note=SLOW)


async def law_predict(
    run: RunId,
    ctx: Context[Any],
    points: Points = None,
    data: Annotated[str, Field(description="Path of a CSV file with those columns, in place of points.")] = "",
    csv: Annotated[str, Field(description="Its text, in place of points.")] = "",
    by: Annotated[
        str, Field(pattern="^(best|law)$", description="best: the baseline, where it beats the law.")
    ] = "best",
    detail: Detail = "brief",
) -> Predictions:
    """Predict at new points by the law of a finished run, as `agentlab predict` does."""
    folder = run_folder(run)
    if points is None:
        asked = Work(verb="predict", folder=str(folder), table=str(await off(table, data, csv)))
    else:
        asked = Work(verb="predict", folder=str(folder), points=_checked(points, data, csv))
    beaten = (await off(runs.tally, folder)).ending.get("baselines", {}).get("beaten_by", "")
    found = await (_baseline(asked, ctx) if beaten and by == "best" else compute(asked, ctx))
    if found is None:
        return Predictions(state="running", note=SLOW)
    return _lab_answers.predicted(found, json.loads((folder / "task.json").read_bytes()), detail)


def _checked(points: dict[str, list[float | str]], data: str, csv: str) -> dict[str, list[float | str]]:
    if data or csv:
        raise ToolError("points: give them once: points=, or data= with a path, or csv= with the text")
    lengths = {len(values) for values in points.values()}
    if len(lengths) != 1 or not 0 < max(lengths) <= MOST_POINTS:
        raise ToolError(f"points: give every column the same number of values, 1 to {MOST_POINTS:,}")
    return points


async def _baseline(asked: Work, ctx: Context[Any]) -> Found:
    """Predictions of the baseline that beats a run's law: those of the command line."""
    place = asked.table
    if asked.points is not None:
        text, rows = io.StringIO(), zip(*asked.points.values(), strict=True)
        tables.writer(text, lineterminator="\n").writerows([list(asked.points), *rows])
        place = str(table("", text.getvalue()))
    found: Found = await ask([*CLI, "predict", asked.folder, f"data={place}", "--json"], ctx)
    return found


async def law_allocate(
    flops: Flops,
    ctx: Context[Any],
    law: Formula | None = None,
    rows: Table | None = None,
    run: RunId | None = None,
    flops_per: Annotated[
        str | None, Field(description="What a run costs, over the features; 6*n*d unless told.")
    ] = None,
    draws: Draws = 300,
) -> Allocation:
    """The best configuration at a compute, with intervals, and what it costs to be wrong about the law."""
    further = {"flops": flops, "flops_per": flops_per, "draws": draws}
    found = await compute(await off(work, "allocate", run, rows, [law] if law else [], further), ctx)
    return bounded(Allocation(**found)) if found else Allocation(state="running", note=SLOW)


async def laws_compare(
    laws: Annotated[list[Formula], Field(min_length=2, max_length=8)],
    ctx: Context[Any],
    rows: Table | None = None,
    run: RunId | None = None,
    detail: Detail = "brief",
) -> Comparison:
    """Formulas side by side on the same hidden rows: which extrapolates better, with standard errors, and a verdict."""
    found = await compute(await off(work, "compare", run, rows, laws, {}), ctx)
    return bounded(_lab_answers.beside(found, detail)) if found else Comparison(state="running", note=SLOW)


def _with_card(asked: Work, run: str | None) -> Work:
    """The request with the folder of its card: the run's own, or one that follows from what is asked."""
    if run is not None:
        return asked.model_copy(update={"out": asked.folder})
    name = hashlib.sha256(json.dumps([asked.model_dump(), stamp(asked)]).encode()).hexdigest()[:12]
    return asked.model_copy(update={"out": str(runs_folder() / CARDS / f"card-{name}")})
