"""The race of a search: starts descend side by side, leaders finish on all rows, problems hand on their optima."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agentlab.descent import SAME, Limits, Normal, Schedule, descend
from agentlab.peel import Path
from agentlab.standard import Standard
from agentlab.types import BoolArray, FloatArray
from agentlab.varpro import Bound, Data, Projected, Split

TOLERANCE = 1e-8

QUICK = 1e-6
"""A search for less than this relative gain is quick: it races on few rows, and hands optima from group to group."""

RACE_ROWS = 400
"""Rows on which a quick search races; those that lead go on over all rows."""

EXTRA = 4
"""The leaders of a race may go on for EXTRA times its steps: some optima lie at the end of a long valley."""

QUICK_LAP, FINER = 2, 0.1
"""A quick race: steps between two looks at who falls behind, and the share of the tolerance that a step must gain."""

CROWD, FEWEST = 9, 3
"""Above CROWD problems a quick search gives each sqrt(CROWD / problems) of the starts, FEWEST at least."""

DONORS, BETTER = 12, 1e-4
"""Problems whose optimum is offered to all others of a quick search; one that gains this share of the cost is taken."""


@dataclass(frozen=True)
class Effort:
    """How hard to look: how many starts, how many steps each, how many optima to return, and the seed.

    `nonnegative` keeps the linear parameters from going below 0, which keeps sums of powers positive. A descent ends
    when a step gains less than `tolerance` of the cost.
    """

    starts: int
    steps: int
    keep: int
    seed: int
    nonnegative: bool = False
    tolerance: float = TOLERANCE

    @property
    def quick(self) -> bool:
        """Whether the optimum is wanted roughly and soon."""
        return self.tolerance > QUICK

    def shared(self, problems: int) -> Effort:
        """The effort for each of many problems: a quick search lets them help one another."""
        if not self.quick or problems <= CROWD:
            return self
        fewer = max(FEWEST, round(self.starts * (CROWD / problems) ** 0.5))
        return replace(self, starts=min(self.starts, fewer))


@dataclass(frozen=True)
class Found:
    """What a search of G problems found.

    Distinct optima `theta` (G, k, P), best first; the share of the starts that end at the best (G,); how many starts.
    """

    theta: FloatArray
    converged: FloatArray
    starts: int


@dataclass(frozen=True)
class Plan:
    """What a search needs to know of a law: its standard form, how that is linear, and the bent part to solve for."""

    form: Standard
    split: Split
    path: Path | None


def raced(
    way: Plan, data: Data, limits: Limits, effort: Effort, points: FloatArray, held: BoolArray | None = None
) -> Normal:
    """The last states of all of (G, M, P) starts; `held` (M, P) marks what stays in the first steps."""
    groups, count = points.shape[:2]
    problem = np.repeat(np.arange(groups), count)
    system = Projected(Bound(way.form.law, data.take(problem)), way.split, limits)
    schedule = Schedule(effort.steps, TOLERANCE, extra=EXTRA * effort.steps)
    if effort.quick:
        schedule = replace(schedule, tolerance=FINER * effort.tolerance, lap=QUICK_LAP)
    return descend(
        system,
        system.at(points.reshape(groups * count, -1)),
        limits,
        schedule,
        held=np.tile(held, (groups, 1)) if held is not None and held.any() else None,
        problem=problem,
    )


def followed(way: Plan, data: Data, limits: Limits, effort: Effort, theta: FloatArray) -> FloatArray:
    """Optima (G, k, P) on some of the rows -> on all of them."""
    last = raced(way, data, limits, effort, theta)
    return distinct(last.theta.reshape(theta.shape), last.cost.reshape(theta.shape[:2]), effort.keep)


def exchanged(way: Plan, data: Data, limits: Limits, effort: Effort, theta: FloatArray) -> FloatArray:
    """Optima (G, k, P) after every problem has tried the nonlinear parameters that are best for some others."""
    groups = len(theta)
    donors = np.linspace(0, groups - 1, min(groups, DONORS)).astype(np.int64)
    points = np.concatenate([theta[:, :1], np.repeat(theta[None, donors, 0], groups, axis=0)], axis=1)
    count = points.shape[1]
    system = Projected(Bound(way.form.law, data.take(np.repeat(np.arange(groups), count))), way.split, limits)
    cost = system.at(points.reshape(groups * count, -1)).cost.reshape(groups, count)
    best = np.argsort(cost[:, 1:], axis=1, kind="stable")[:, 0] + 1
    better = np.flatnonzero(cost[np.arange(groups), best] < cost[:, 0] * (1 - BETTER))
    if not len(better):
        return theta
    last = raced(way, data.take(better), limits, effort, points[better, best[better]][:, None])
    out = theta.copy()
    out[better] = np.concatenate([last.theta[:, None], theta[better, :-1]], axis=1)
    return out


def distinct(theta: FloatArray, cost: FloatArray, keep: int) -> FloatArray:
    """The `keep` best points of every problem that differ in cost; the best repeated where there are fewer."""
    order = np.argsort(cost, axis=1, kind="stable")
    ranked = np.take_along_axis(cost, order, axis=1)
    picked = np.repeat(order[:, :1], keep, axis=1)
    number, last = np.ones(len(cost), dtype=np.int64), ranked[:, 0]
    for j in range(1, cost.shape[1]):
        new = (number < keep) & np.isfinite(ranked[:, j]) & (ranked[:, j] > last * (1 + SAME))
        picked[new, number[new]] = order[new, j]
        last = np.where(new, ranked[:, j], last)
        number += new
    return np.take_along_axis(theta, picked[:, :, None], axis=1)
