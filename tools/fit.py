"""The tool server `fit`: fits laws to rows and judges them by inner extrapolation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from agentlab.tools._compare import Compared, Judge, Scores, compared
from agentlab.tools._refusals import refusals
from agentlab.tools._run_folder import Effort, Folder, problem_of, rounded_outcome, short
from agentlab.tools._server import hints, serve, tool_server
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from agentlab import selection
from agentlab.fitting import FitOptions, bootstrap, fit_rows
from agentlab.law import Law, parse
from agentlab.metrics import digits
from agentlab.run_rows import read_rows
from agentlab.selection_consensus import nearest_to_consensus
from agentlab.selection_rivals import beaten_by, rivals
from agentlab.selection_rivals import luck as measure_luck
from agentlab.trace import dump, outcome_record, read_outcome
from agentlab.types import AgentlabError, Outcome

server: MCPServer[Any] = tool_server(
    "fit", "Fit scaling laws to a run's rows; all judgement is by rows beyond the fit."
)

STARTS = {"search": 10, "final": 48}
"""Starting points a fit: few while searching, many for the finalists."""


class Fitted(BaseModel):
    """One law fitted to every row: parameters by group, target and name, and the errors of the fit itself."""

    formula: str
    key: str
    n_params: int
    ok: bool
    reason: str = ""
    params: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)
    residual_scale: Mapping[str, Mapping[str, float | None]] = Field(default_factory=dict)
    converged: dict[str, dict[str, float]] = Field(default_factory=dict)
    condition: Mapping[str, Mapping[str, float | None]] = Field(
        default_factory=dict, description="null: infinite, so that the rows do not determine the parameters"
    )


class Judged(BaseModel):
    """Outcomes in the order of the formulas, as the trace records them."""

    outcomes: list[dict[str, Any]]


class Chosen(BaseModel):
    """Which of the finalists to believe: its position, or None where none of them is ok."""

    position: int | None


class Beside(BaseModel):
    """The law and the baselines on the same hidden rows, and the baseline that beats it ("" where none does)."""

    beaten_by: str
    rows: list[dict[str, Any]]


class Lucky(BaseModel):
    """The best of some candidates on shuffled targets; gains over a constant, in nats a row.

    Numbers, or "inf", "-inf" and "nan", for which JSON has no word.
    """

    candidates: int
    gain: Any
    law_gain: Any
    r2: Any


class Refitted(BaseModel):
    """A law's final parameters from every row, and 90% intervals (low, high), by group, target and name."""

    params: dict[str, dict[str, dict[str, float]]]
    intervals: dict[str, dict[str, dict[str, tuple[float, float]]]]


@server.tool(annotations=hints(reads=True))
def law(data: Folder, formula: str, seed: int = 0) -> Fitted:
    """Fit one formula to all rows of a run folder; parameters are the names that are not columns."""
    judge = problem_of(data)
    one = _parse(formula, data)
    fit = fit_rows(one, judge.rows, _options(judge, "final", seed))
    nested: dict[str, dict[str, dict[str, float]]] = {"scale": {}, "converged": {}, "condition": {}}
    for (group, target), part in fit.fits.items():
        nested["scale"].setdefault(group, {})[target] = part.sigma
        nested["converged"].setdefault(group, {})[target] = part.converged
        nested["condition"].setdefault(group, {})[target] = part.condition
    return Fitted(
        formula=one.text,
        key=one.key,
        n_params=one.n_params,
        ok=fit.ok,
        reason=fit.reason,
        params=selection.rounded(fit) if fit.ok else {},
        residual_scale=nested["scale"],
        converged=nested["converged"],
        condition=nested["condition"],
    )


@server.tool(annotations=hints(reads=True))
async def laws(
    data: Folder,
    formulas: Annotated[list[str], Field(max_length=512)],
    effort: Effort = "search",
    gate: Annotated[
        float | None, Field(description="Description length (nats) above which refits are skipped.")
    ] = None,
    seed: int = 0,
    *,
    ctx: Context[Any],
) -> Judged:
    """Fit and judge many formulas in one call: description length, nested hold-outs with refit, constraints.

    Progress is told after each formula; a cancelled call ends with the formula that is being fitted.
    """
    judge = await anyio.to_thread.run_sync(problem_of, data)
    # Only the law that is believed is fitted thoroughly (refit): that costs as much as all else a finalist needs.
    options = replace(_options(judge, effort, seed), thorough=False)
    limit = math.inf if gate is None else gate
    outcomes = []
    for done, formula in enumerate(formulas, start=1):
        outcome = await anyio.to_thread.run_sync(_judge, formula, judge, options, limit, effort)
        # JSON has no word for infinities: they travel as the trace writes them.
        outcomes.append(json.loads(dump(outcome_record(outcome))))
        await ctx.report_progress(done, len(formulas), f"{outcome.status} {formula[:80]}")
    return Judged(outcomes=outcomes)


@server.tool(annotations=hints(reads=True))
def scores(data: Folder, formula: str, seed: int = 0) -> Scores:
    """How one law extrapolates inside the rows: refitted below cuts along scale and features, errors beyond each."""
    judge = problem_of(data)
    return Judge(judge, _finalist(judge, seed), seed).scores(_parse(formula, data))


@server.tool(annotations=hints(reads=True))
async def compare(
    data: Folder,
    formulas: Annotated[list[str], Field(min_length=2, max_length=8)],
    seed: int = 0,
    *,
    ctx: Context[Any],
) -> Compared:
    """Formulas side by side on the same hidden rows: errors by cut, differences with standard errors, a verdict."""
    problem = await anyio.to_thread.run_sync(problem_of, data)
    candidates = [_parse(text, data) for text in dict.fromkeys(formulas)]
    judge = Judge(problem, _finalist(problem, seed), seed)
    scored = []
    for done, one in enumerate(candidates, start=1):
        scored.append(await anyio.to_thread.run_sync(judge.scores, one))
        if scored[-1].ok:
            await anyio.to_thread.run_sync(judge.left_out, one)
        await ctx.report_progress(done, len(candidates), one.text[:80])
    with refusals():
        return await anyio.to_thread.run_sync(compared, candidates, scored, judge)


@server.tool(annotations=hints(reads=True))
def refit(data: Folder, formula: str, draws: Annotated[int, Field(ge=20, le=5000)] = 200, seed: int = 0) -> Refitted:
    """A law's last fit, to every row, with intervals by bootstrap over training runs (not over rows of one run).

    Where the search saw a sample of a large table, the intervals are the sample's: wider than the table's own.
    """
    judge = problem_of(data)
    one = _parse(formula, data)
    options = _options(judge, "final", seed)
    fit = fit_rows(one, judge.rows, options)
    _, every = read_rows(Path(data), every=True)
    whole = fit if len(every) == len(judge.rows) else fit_rows(one, every, replace(options, starts=4), warm=fit)
    if not whole.ok:
        raise ToolError(f"{formula}: {whole.reason}")
    spread = bootstrap(one, judge.rows, fit, draws=draws, seed=seed, options=options)
    short = {
        g: {t: {p: (digits(low), digits(high)) for p, (low, high) in named.items()} for t, named in targets.items()}
        for g, targets in spread.items()
    }
    return Refitted(params=selection.rounded(whole), intervals=short)


@server.tool(annotations=hints(reads=True))
def choose(data: Folder, formulas: list[str], outcomes: list[dict[str, Any]]) -> Chosen:
    """Which finalist to believe: of those the rows cannot tell apart, the one nearest to what all of them predict."""
    laws = [_parse(text, data) for text in formulas]
    return Chosen(position=nearest_to_consensus(laws, [read_outcome(o) for o in outcomes], problem_of(data)))


@server.tool(annotations=hints(reads=True))
def baselines(data: Folder, formula: str, seed: int = 0) -> Beside:
    """A law beside predictions without a fit (nearest neighbour, group mean, last rung), on rows hidden from both."""
    judge = problem_of(data)
    found = rivals(_parse(formula, data), judge, _options(judge, "final", seed))
    rows = [{"name": r.name, "beyond": digits(r.beyond), "dev": asdict(short(r.dev))} for r in found]
    return Beside(beaten_by=beaten_by(found), rows=json.loads(dump(rows)))


@server.tool(annotations=hints(reads=True))
def luck(data: Folder, formula: str, formulas: Annotated[list[str], Field(max_length=512)], seed: int = 0) -> Lucky:
    """What the best of the formulas gains on shuffled targets, where there is nothing to find, beside a law's gain."""
    judge = problem_of(data)
    candidates = [_parse(text, data) for text in formulas]
    found = measure_luck(_parse(formula, data), candidates, judge, _options(judge, "search", seed), seed)
    figures = {"gain": digits(found.gain), "law_gain": digits(found.law_gain), "r2": digits(found.r2)}
    return Lucky(candidates=found.candidates, **json.loads(dump(figures)))


def _judge(formula: str, judge: selection.Problem, options: FitOptions, gate: float, effort: str) -> Outcome:
    try:
        one = parse(formula, judge.task.names)
    except AgentlabError as error:
        return Outcome("rejected", f"not a formula: {error}")
    outcome: Outcome = rounded_outcome(selection.evaluate(one, judge, options, gate=gate, final=effort == "final"))
    return outcome


def _parse(formula: str, data: str) -> Law:
    with refusals():
        return parse(formula, problem_of(data).task.names)


def _options(judge: selection.Problem, effort: str, seed: int) -> FitOptions:
    make = selection.search_options if effort == "search" else selection.fit_options
    return make(judge.task, STARTS[effort], seed)


def _finalist(judge: selection.Problem, seed: int) -> FitOptions:
    """How `laws` fits a finalist, so that the same law has the same objective here and there."""
    return replace(_options(judge, "final", seed), thorough=False)


if __name__ == "__main__":
    serve(server)
