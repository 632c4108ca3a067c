"""What a law must beat: predictions without a fit on the same hidden rows, and the best law on shuffled targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentlab import baselines
from agentlab.fitting import FitOptions, fit_rows
from agentlab.law import Law, parse
from agentlab.library_naming import endless
from agentlab.run_rows import sample
from agentlab.selection import Problem, evaluate, hidden_errors, problem, shown_cuts
from agentlab.selection_cuts import SCALE, Cut
from agentlab.types import FloatArray, Rows, Score

LAW = "law"

FAILED = 50.0
"""Log squared error, a target, of predictions that are no numbers."""

LUCK_ROWS = 400
"""Rows of a larger table that the shuffled search sees: luck does not grow with them."""

FEW = 4
"""Rows a group must have to be shuffled by itself."""

STARTS = 8

Predict = Callable[[Rows, Rows], dict[str, FloatArray]]
"""Predictions by target at the second rows, from the first ones."""


@dataclass(frozen=True)
class Rival:
    """How something predicts hidden rows: the mean log squared error beyond the cuts (nats), and its `dev` score."""

    name: str
    beyond: float
    dev: Score


@dataclass(frozen=True)
class Luck:
    """What the best laws of a search gain where there is nothing to find; a search of its own there would find more.

    `gain` is what the best of `candidates` laws saves over a constant, in nats a row, on targets shuffled within their
    groups, and `r2` its inner extrapolation; `law_gain` is what the law saves on the targets as they are.
    """

    candidates: int
    gain: float
    law_gain: float
    r2: float


def rivals(law: Law, judge: Problem, options: FitOptions) -> list[Rival]:
    """The law, refitted below every cut, and every baseline, on the same hidden rows."""
    fit = fit_rows(law, judge.rows, options)

    def refitted(below: Rows, beyond: Rows) -> dict[str, FloatArray]:
        return fit_rows(law, below, replace(options, starts=8, thorough=False), warm=fit).predict(law, beyond)

    def plainly(name: str) -> Predict:
        return lambda below, beyond: baselines.predict(name, judge.task, below, beyond)

    return [_rival(LAW, refitted, judge), *(_rival(name, plainly(name), judge) for name in baselines.NAMES)]


def _rival(name: str, predict: Predict, judge: Problem) -> Rival:
    cuts = judge.final_cuts
    shown = shown_cuts(cuts)
    along: list[Cut] = [c for c in cuts if c.axis == SCALE] or list(cuts)
    errors, parts = [], []
    for cut in along:
        beyond = judge.rows.take(cut.test)
        predicted = predict(judge.rows.take(cut.train), beyond)
        errors.append(float(np.fmin(hidden_errors(judge, beyond, predicted), FAILED * len(judge.task.targets))))
        if cut in shown:
            parts.append((beyond, predicted))
    return Rival(name, float(np.average(errors, weights=[c.weight for c in along])), judge.score(parts))


def beaten_by(found: Sequence[Rival]) -> str:
    """The best baseline's name where it predicts hidden rows better than the law, on all cuts and on `dev`; or ""."""
    law = next(r for r in found if r.name == LAW)
    others = [r for r in found if r.name != LAW]
    best = min(others, key=lambda r: (_or_worst(r.beyond), r.name))
    worse = _or_worst(law.beyond) > _or_worst(best.beyond) and _or_worst(law.dev.mae) > _or_worst(best.dev.mae)
    return best.name if worse else ""


def _or_worst(value: float) -> float:
    """The value; one that is no number is as bad as can be."""
    return math.inf if math.isnan(value) else value


def luck(law: Law, candidates: Sequence[Law], judge: Problem, options: FitOptions, seed: int) -> Luck:
    """The best of the candidates on shuffled targets, beside the law on the targets as they are."""
    task = judge.task
    quick = replace(options, starts=STARTS, tolerance=1e-4, max_steps=12, thorough=False)
    rows = sample(judge.rows, LUCK_ROWS, seed)
    real, null = problem(task, rows, seed), problem(task, shuffled(rows, seed), seed)
    constant = parse(next(name for name in endless("E") if name not in task.names), task.names)
    outcomes = [evaluate(one, null, quick) for one in candidates]
    size = len(rows) * len(task.targets)
    best = min((o for o in outcomes if o.status == "ok"), key=lambda o: o.objective, default=None)
    floor = evaluate(constant, null, quick).objective
    law_gain = _gain(evaluate(constant, real, quick).objective, evaluate(law, real, quick).objective, size)
    if best is None or best.dev is None:
        return Luck(len(candidates), 0.0, law_gain, 0.0)
    return Luck(len(candidates), max(_gain(floor, best.objective, size), 0.0), law_gain, best.dev.r2)


def _gain(constant: float, objective: float, size: int) -> float:
    """Nats a row; nothing where one of the two could not be judged on the sample."""
    gain = (constant - objective) / size
    return gain if math.isfinite(gain) else 0.0


def shuffled(rows: Rows, seed: int) -> Rows:
    """The rows with their targets dealt anew within each group; groups of fewer than FEW rows are dealt together."""
    rng = np.random.default_rng([seed, len(rows)])
    order = np.arange(len(rows))
    few = np.zeros(len(rows), dtype=bool)
    for group in rows.groups:
        mine = np.flatnonzero(rows.group == group)
        few[mine] = len(mine) < FEW
        order[mine] = rng.permutation(mine)
    order[few] = rng.permutation(order[few])
    return replace(rows, targets={t: y[order] for t, y in rows.targets.items()})
