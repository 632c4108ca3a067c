"""Refits a submitted law to the board's own rows, compares it with what was claimed, and predicts at given points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentlab import allocation
from agentlab.allocation_regret import Yardstick
from agentlab.audit_identify import DECADE, ILL
from agentlab.fitting import GroupFit, fit_rows
from agentlab.fitting_bootstrap import bootstrap_draws
from agentlab.law import Law, LawError, parse
from agentlab.leaderboard_checks import (
    arrangements,
    check_alone,
    check_constants,
    check_program_constants,
    check_twin,
    depends_on_units,
    spread,
)
from agentlab.leaderboard_records import RefusedError
from agentlab.leaderboard_tasks import PLANTED
from agentlab.metrics import digits
from agentlab.program import Split, named, predict_rows, predict_splits, programs
from agentlab.program_checks import check_fit
from agentlab.program_text import ProgramError, complexity
from agentlab.selection import fit_options, problem, rounded
from agentlab.types import FloatArray, GroupParams, Rows, Task

STARTS, DRAWS = 48, 200
"""Starts of a fit and draws of its bootstrap, as a run's last fit has them."""

TIGHT, ROUND = 0.02, 1e-7
"""How far a claimed law may be from the refit at the rows: a share of the residuals' scale, and of the largest target.

Runs on other machines differ in the last digits; a fit to other rows moves by a tenth of the scale and more.
"""

REACH = 0.9
"""The share of new measurements that predicted intervals are to cover."""


@dataclass(frozen=True)
class Judged:
    """A law as the board fitted it: parameters, predictions (n,) by target at the points, with intervals, and figures.

    `held` says why the law cannot be verified though nothing in it is false; "" where nothing holds it.
    """

    params: GroupParams
    predicted: Mapping[str, FloatArray]
    low: Mapping[str, FloatArray]
    high: Mapping[str, FloatArray]
    figures: Mapping[str, Any]
    held: str = ""


def judge_formula(told: Mapping[str, Any], task: Task, rows: Rows, points: Rows, seed: int, twin: int) -> Judged:
    """Refit a formula, check it, and predict; `twin` seeds the twin rows.

    Raises:
        RefusedError: the law is not what was claimed, or learned its rows by heart.
    """
    try:
        law = parse(told["formula"], task.names)
    except LawError as error:
        raise RefusedError("no law", str(error)) from None
    check_constants(law, task)
    options = fit_options(task, STARTS, seed)
    fit = fit_rows(law, rows, options)
    if not fit.ok:
        raise RefusedError("does not fit", f"{law.text}: {fit.reason}")
    params = rounded(fit)
    _check_claimed(told["params"], law, fit, task, rows)
    check_twin(law, fit, task, rows, twin)
    held = depends_on_units(law, fit, task, rows, options)
    predicted = law.predict(points.columns, points.group, params)
    for index in arrangements(len(points)):
        part = points.take(index)
        check_alone(predicted, law.predict(part.columns, part.group, params), index)
    _check_finite(predicted)
    draws = bootstrap_draws(law, rows, fit, draws=DRAWS, seed=seed, options=options)
    low, high = _intervals(law, fit, draws, task, rows, points, seed)
    figures = {
        "n_params": law.n_params,
        "complexity": law.complexity,
        "latex": law.latex(),
        "key": law.key,
        "identifiable": _identifiable(fit, draws),
        "regret": _regret(law, fit, task, rows),
    }
    return Judged(params, predicted, low, high, figures, held)


def _check_claimed(claimed: GroupParams, law: Law, fit: GroupFit, task: Task, rows: Rows) -> None:
    """The claimed parameters say at the rows what the refit's say."""
    if set(claimed) != set(rows.groups):
        raise RefusedError("wrong numbers", f"parameters of the groups {sorted(claimed)[:5]}, the rows have others")
    said, own = law.predict(rows.columns, rows.group, claimed), fit.predict(law, rows)
    for target, values in own.items():
        scale = spread(values, rows.targets[target], task)
        with np.errstate(all="ignore"):
            gap = np.abs(np.log(said[target] / values)) if task.residual == "log" else np.abs(said[target] - values)
        size = 1.0 if task.residual == "log" else float(np.max(np.abs(values)))
        if not np.all(gap <= TIGHT * scale + ROUND * size):
            raise RefusedError("wrong numbers", "the parameters are not those that a fit to the task's rows gives")


def _check_finite(predicted: Mapping[str, FloatArray]) -> None:
    for values in predicted.values():
        if wrong := int(np.count_nonzero(~np.isfinite(values))):
            raise RefusedError("not finite", f"the law says no number at {wrong} of {len(values)} points")


def _intervals(
    law: Law,
    fit: GroupFit,
    draws: Mapping[tuple[str, str], FloatArray],
    task: Task,
    rows: Rows,
    points: Rows,
    seed: int,
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Where REACH of new measurements are expected: the bootstrap's laws, each with noise as the residuals have it."""
    rng = np.random.default_rng([seed, len(points)])
    ends = tuple({t: np.full(len(points), np.nan) for t in task.targets} for _ in range(2))
    own = fit.predict(law, rows)
    for (group, target), theta in draws.items():
        mine, here = points.group == group, rows.group == group
        if not mine.any() or not len(theta):
            continue
        scale = spread(own[target][here], rows.targets[target][here], task)
        values = law.evaluate({k: v[mine] for k, v in points.columns.items()}, theta)
        noise = scale * rng.standard_normal(values.shape)
        with np.errstate(all="ignore"):
            values = values * np.exp(noise) if task.residual == "log" else values + noise
            found = np.nanpercentile(values, [50 * (1 - REACH), 50 * (1 + REACH)], axis=0)
        for end, value in zip(ends, found, strict=True):
            end[target][mine] = value
    return ends[0], ends[1]


def _identifiable(fit: GroupFit, draws: Mapping[tuple[str, str], FloatArray]) -> bool:
    """Whether every parameter is known to its sign and to an order of magnitude, in every fit."""
    for pair, one in fit.fits.items():
        theta = draws[pair]
        if not len(theta) or one.condition > ILL:
            return False
        for low, high in np.percentile(theta, [5.0, 95.0], axis=0).T:
            if low < 0 < high or max(abs(low), abs(high)) > DECADE * min(abs(low), abs(high)):
                return False
    return True


def _regret(law: Law, fit: GroupFit, task: Task, rows: Rows) -> float | None:
    """What following the law's best configuration costs under the truth, in % of compute; None where none is known."""
    truth = task.reference
    if truth is None or not task.name.startswith(PLANTED) or len(fit.fits) != 1:
        return None
    true = parse(truth.formula, task.names)
    if not set(true.params) <= set(truth.params):
        return None
    try:
        question = allocation.asked(task, rows)
    except allocation.AllocationError:
        return None
    if question.cost is None:
        return None
    (one,) = fit.fits.values()
    with np.errstate(all="ignore"):
        yardstick = Yardstick.of(true, np.array([truth.params[p] for p in true.params]), question)
        found = float(yardstick.regret(allocation.best(law, one.params, question).config)[0])
    return None if np.isnan(found) else digits(found)


async def judge_program(told: Mapping[str, Any], task: Task, rows: Rows, points: Rows) -> Judged:
    """The same for a law that is a program, which runs in sandboxes only; it has no intervals and no twin.

    Raises:
        RefusedError: the program breaks a rule, or is not what was claimed.
        SandboxError: no sandbox here confines it.
    """
    text = told["formula"]
    check_program_constants(text, task)
    async with programs(size=1, starting=1) as (pool, _):
        try:
            whole = problem(task, rows)
            (found,) = await predict_splits(text, whole, [Split(np.ones(len(rows), dtype=bool), None)], pool)
            await check_fit(text, whole, found.params, pool, 30.0)
            params = named(found.params)
            if params != told["params"]:
                raise RefusedError("wrong numbers", "the program's parameters are not those that its fit gives")
            predicted = await predict_rows(text, task, points, params, pool)
            for index in arrangements(len(points)):
                check_alone(predicted, await predict_rows(text, task, points.take(index), params, pool), index)
        except ProgramError as error:
            raise RefusedError("program", str(error)) from None
    _check_finite(predicted)
    count = max(len(v) for v in found.params.values())
    figures = {"n_params": count, "complexity": complexity(text), "latex": "", "key": told["key"],
               "identifiable": None, "regret": None}  # fmt: skip
    return Judged(params, predicted, {}, {}, figures)
