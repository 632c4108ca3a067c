"""Where a law's parameters are looked for: many cheap points, a race of starts by squared residuals, a few optima."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from agentlab import starts
from agentlab.descent import SAME, Limits, Schedule, descend
from agentlab.law import Law
from agentlab.peel import inner_path, peel
from agentlab.search_race import CROWD, RACE_ROWS, TOLERANCE, Effort, Found, Plan, distinct, exchanged, followed, raced
from agentlab.standard import Standard, standard
from agentlab.types import AgentlabError, BoolArray, FloatArray, IntArray
from agentlab.varpro import Bound, Data, Projected, split

SCREEN = 8
"""At most this many random points are drawn per start; 1 + the number of nonlinear parameters where that is less."""

SCREEN_ROWS = 48
"""Rows on which the points are screened before any start descends on all of them."""

LONE = 3
"""One of so many free starts is chosen for lying apart from better ones."""

EASY = 2
"""With at most this many nonlinear parameters the cost alone chooses the starts well."""

MORE = 4
"""At most so many times as many points as starts warm up; 1 + the nonlinear parameters above EASY if that is less."""

STRIDE, WARM_UP, QUICK_WARM_UP = 3, 10, 6
"""Steps a start has to warm up on the few rows: STRIDE for each nonlinear parameter above EASY, WARM_UP at
most, or QUICK_WARM_UP in a quick search."""


@lru_cache(maxsize=128)
def plan(law: Law, bounded: frozenset[str] = frozenset()) -> Plan:
    """The plan for a law with bounds on some parameters; kept, because a candidate is fitted several times."""
    form = standard(law, bounded)
    return Plan(form, split(form.law), inner_path(law, frozenset(form.law.linear)))


def limits_of(law: Law, bounds: Mapping[str, tuple[float, float]]) -> Limits:
    """Bounds of the parameters in order, infinite where none are set. Raises AgentlabError for an empty range."""
    pairs = [bounds.get(name, (-np.inf, np.inf)) for name in law.params]
    for name, (low, high) in zip(law.params, pairs, strict=True):
        if not low <= high:
            raise AgentlabError(f"bounds of {name}: {low:g} is not below {high:g}; write (low, high)")
    return Limits(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))


def search(
    law: Law,
    data: Data,
    bounds: Mapping[str, tuple[float, float]],
    effort: Effort,
    warm: Sequence[Sequence[FloatArray]],
) -> Found:
    """Optima of the weighted squared residuals of G problems, in the parameters of the original law.

    `warm` holds known parameter vectors (P,) a problem, which start too.
    """
    way = plan(law, frozenset(bounds))
    form = way.form
    limits = limits_of(form.law, bounds)
    least = frozenset(form.law.linear) if effort.nonnegative else form.positive
    positive = np.array([p in least for p in form.law.params], dtype=bool)
    limits = Limits(np.where(positive, np.maximum(limits.lower, 0.0), limits.lower), limits.upper)
    effort = effort.shared(len(data.y))
    points, held = _points(way, data, limits, bounds, effort, warm)
    few = effort.quick and data.y.shape[1] > RACE_ROWS
    seen = data.rows(_some(data, RACE_ROWS, effort.seed)) if few else data
    last = raced(way, seen, limits, effort, points, held)
    groups, count = points.shape[:2]
    cost, theta = last.cost.reshape(groups, count), last.theta.reshape(groups, count, -1)
    converged = np.mean(cost <= cost.min(axis=1, keepdims=True) * (1 + SAME), axis=1)
    found = distinct(theta, cost, effort.keep)
    if few:
        found = followed(way, data, limits, effort, found)
    if effort.quick and groups > CROWD and effort.starts > 1 and len(way.split.nonlinear):
        found = exchanged(way, data, limits, effort, found)
    return Found(form.back(found), converged, count)


def _points(
    way: Plan,
    data: Data,
    limits: Limits,
    bounds: Mapping[str, tuple[float, float]],
    effort: Effort,
    warm: Sequence[Sequence[FloatArray]],
) -> tuple[FloatArray, BoolArray]:
    """Starts (G, M, P) in the standard form, and what each holds (M, P): the best random, reduced and warm ones."""
    groups, size = len(data.y), way.form.law.n_params
    if not len(way.split.nonlinear):
        return np.ones((groups, 1, size)), np.zeros((1, size), dtype=bool)
    few = data.rows(_some(data, SCREEN_ROWS, effort.seed))
    drawn = np.clip(_drawn(way, few, bounds, effort), limits.lower, limits.upper)
    known = _known(way.form, warm, drawn)
    kinds = starts.reduced(drawn, way.split.nonlinear, limits)
    each = max(effort.starts // (2 * len(kinds)), 1) if kinds else 0
    free = max(effort.starts - each * len(kinds) - known.shape[1], effort.starts // 2, 2)
    chosen, held = _chosen(way, few, limits, [starts.Kind(drawn, None), *kinds], free, each, quick=effort.quick)
    held = np.concatenate([held, np.zeros((known.shape[1], size), dtype=bool)])
    return np.clip(np.concatenate([chosen, known], axis=1), limits.lower, limits.upper), held


def _some(data: Data, most: int, seed: int) -> slice | np.ndarray:
    n = data.y.shape[1]
    return slice(None) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _drawn(way: Plan, few: Data, bounds: Mapping[str, tuple[float, float]], effort: Effort) -> FloatArray:
    """Random points (G, M, P) in the standard form: drawn by role, and again with a bent part solved for."""
    law, groups = way.form.original, len(few.y)
    count = min(1 + len(way.split.nonlinear), SCREEN) * effort.starts
    columns = {k: np.broadcast_to(c, few.y.shape) for k, c in few.columns.items()}
    thin = slice(None, None, max(1, few.y.shape[1] // starts.ROWS))
    size = np.exp(np.mean(np.log(np.abs(few.y[:, thin]) + 1e-300), axis=1))
    flat = starts.draw(law, {k: c[:, thin] for k, c in columns.items()}, size, count, bounds, effort.seed)
    flat = flat.reshape(groups * count, -1)
    if way.path is not None:
        every = Data(columns, few.y, few.weight).take(np.repeat(np.arange(groups), count))
        u = np.tile(np.random.default_rng(effort.seed).permutation(count) + 0.5, groups) / count
        solved = peel(way.path, law, every, flat, u)
        flat = np.concatenate([flat.reshape(groups, count, -1), solved.reshape(groups, count, -1)], axis=1)
    return np.nan_to_num(way.form.there(flat), nan=1.0).reshape(groups, -1, way.form.law.n_params)


def _known(form: Standard, warm: Sequence[Sequence[FloatArray]], drawn: FloatArray) -> FloatArray:
    """Warm starts (G, W, P) in the standard form; a problem with fewer than the others repeats its own."""
    usable = [[p for p in (form.there(w) for w in some) if np.isfinite(p).all()] for some in warm]
    most = max((len(some) for some in usable), default=0)
    if not most:
        return drawn[:, :0]
    return np.stack(
        [np.stack([some[i % len(some)] if some else drawn[g, i] for i in range(most)]) for g, some in enumerate(usable)]
    )


def _chosen(
    way: Plan,
    few: Data,
    limits: Limits,
    kinds: Sequence[starts.Kind],
    free: int,
    each: int,
    *,
    quick: bool,
) -> tuple[FloatArray, BoolArray]:
    """Starts (G, M, P) that are best on a few rows and what they hold: `free` of the first kind, `each` of the others.

    Some of the free ones lie apart from better ones, so that no basin takes them all. Where the law is not easy, more
    points than that warm up on the few rows and are compared then.
    """
    points = np.concatenate([k.theta for k in kinds], axis=1)
    held = np.concatenate([k.mask() for k in kinds])
    groups, count, size = points.shape
    apart = way.split
    system = Projected(Bound(way.form.law, few.take(np.repeat(np.arange(groups), count))), apart, limits)
    state = system.at(points.reshape(groups * count, size))
    cost = state.cost.reshape(groups, count)
    ends = np.cumsum([k.theta.shape[1] for k in kinds])
    order = _order(cost[:, : ends[0]])
    better = order[:, : (ends[0] + 1) // 2]
    nonlinear = np.take_along_axis(points[:, : ends[0]], order[:, :, None], axis=1)[:, :, apart.nonlinear]
    lone = np.take_along_axis(better, _apart(nonlinear, better.shape[1])[:, : free // LONE], axis=1)
    runs = [(better, free - lone.shape[1]), (lone, lone.shape[1])]
    for first, last in pairwise(ends):
        runs.append((first + _order(cost[:, first:last]), each))
    hard = max(len(apart.nonlinear) - EASY, 0)
    some = [run[:, : min(1 + hard, MORE) * most] for run, most in runs]
    chosen = np.concatenate(some, axis=1)
    index = (chosen + np.arange(groups)[:, None] * count).ravel()
    state = state.take(index)
    if hard:
        steps = min(STRIDE * hard, QUICK_WARM_UP if quick else WARM_UP)
        whole = Schedule(steps, TOLERANCE, hold=steps + 1)
        state = descend(system.take(index), state, limits, whole, held=held[chosen.ravel()])
    most = [(run.shape[1], keep) for run, (_, keep) in zip(some, runs, strict=True)]
    best = _least(state.cost.reshape(groups, -1), most)
    points = np.take_along_axis(state.theta.reshape(groups, chosen.shape[1], size), best[:, :, None], axis=1)
    return points, held[np.take_along_axis(chosen, best, axis=1)[0]]


def _apart(points: FloatArray, most: int) -> IntArray:
    """Positions (G, most) of the first `most` of (G, M, q) points in order of cost, farthest from any better one first.

    Distances are in ranks, so that scales do not matter (compare Rinnooy Kan & Timmer 1987).
    """
    ranks = np.argsort(np.argsort(points, axis=1, kind="stable"), axis=1, kind="stable")[:, :most]
    distance = np.max(np.abs(ranks[:, :, None] - ranks[:, None]), axis=3)
    distance = np.where(np.tri(most, k=-1, dtype=bool), distance, points.shape[1])
    return np.argsort(-np.min(distance, axis=2), axis=1, kind="stable")


def _order(cost: FloatArray) -> IntArray:
    """Positions (G, M) by cost, one of several equal ones first: a plateau counts once."""
    order = np.argsort(cost, axis=1, kind="stable")
    ranked = np.take_along_axis(cost, order, axis=1)
    again = np.zeros(cost.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        again[:, 1:] = ~(np.diff(ranked, axis=1) > SAME * ranked[:, 1:])
    return np.take_along_axis(order, np.argsort(again, axis=1, kind="stable"), axis=1)


def _least(cost: FloatArray, runs: Sequence[tuple[int, int]]) -> IntArray:
    """Positions (G, ..) of the least costs in consecutive runs of columns: for each run (its length, how many)."""
    found, first = [], 0
    for count, most in runs:
        found.append(first + np.argsort(cost[:, first : first + count], axis=1, kind="stable")[:, :most])
        first += count
    return np.concatenate(found, axis=1)
