"""Designs that do not ask what a run would settle: grid, random, IsoFLOP ladder, D-optimal. Baselines of `design`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agentlab.belief import Belief
from agentlab.proposers._designing import Pick, Round, best_per_cost
from agentlab.types import FloatArray, IntArray

__all__ = ["BASELINES", "d_optimal", "grid", "isoflop", "random"]

LARGEST = 1e60
"""Sensitivities above this count as this: their products must stay numbers."""

RIDGE = 1e-6
"""Relative ridge of the information that D-optimal designs start from."""


def random(ask: Round) -> list[Pick]:
    """Points drawn so that costs are spread evenly in logarithms up to what is left, until the budget is spent."""
    rng, left = ask.chance(), ask.flops
    chosen: list[Pick] = []
    cost = np.log(ask.space.cost)
    for _ in range(ask.most):
        open_ = np.flatnonzero(ask.space.cost <= left)
        if not len(open_):
            break
        wanted = rng.uniform(cost[open_].min(), cost[open_].max())
        near = open_[np.argsort(np.abs(cost[open_] - wanted), kind="stable")[: max(len(open_) // 20, 1)]]
        pick = int(rng.choice(near))
        chosen.append(Pick(pick))
        left -= float(ask.space.cost[pick])
    return chosen


def grid(ask: Round) -> list[Pick]:
    """A full factorial over the knobs: as many levels as the runs allow, from the cheapest up to what it can cost."""
    keys = list(ask.space.places)
    sides = _sides(ask, keys)
    for top in np.linspace(1.0, 0.0, 61):
        cells = _cells(ask, keys, sides, float(top))
        if float(ask.space.cost[cells].sum()) <= ask.flops:
            return [Pick(int(i)) for i in sorted(cells, key=lambda i: (float(ask.space.cost[i]), i))]
    return []


def _sides(ask: Round, keys: Sequence[str]) -> list[int]:
    """Levels of every knob: one more for each in turn while the product is at most `most`."""
    levels = [len(np.unique(ask.space.places[k])) for k in keys]
    sides, grew = [1] * len(keys), True
    while grew:
        grew = False
        for j in range(len(keys)):
            wider = [*sides[:j], sides[j] + 1, *sides[j + 1 :]]
            if sides[j] < levels[j] and math.prod(wider) <= ask.most:
                sides, grew = wider, True
    return sides


def _cells(ask: Round, keys: Sequence[str], sides: Sequence[int], top: float) -> IntArray:
    """The points nearest to the cells of a grid whose costly knobs reach to the share `top` of their range."""
    axes = []
    for key, side in zip(keys, sides, strict=True):
        place = ask.space.places[key]
        high = float(place.max()) * (top if ask.space.dear[key] else 1.0)
        axes.append(np.linspace(0.0, high, side) if side > 1 else np.array([high / 2]))
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(keys))
    table = np.stack([ask.space.places[k] for k in keys], axis=1)
    near = [int(np.argmin(((table - cell) ** 2).sum(axis=1))) for cell in cells]
    return np.array(sorted(set(near)), dtype=np.int64)


def isoflop(ask: Round) -> list[Pick]:
    """Rungs of equal compute, a factor 3 apart, each with several shapes (Hoffmann et al. 2022, approach 2)."""
    rungs = 3 if ask.most >= 9 else 2
    width = max(ask.most // rungs, 1)
    cost = ask.space.cost
    share = ask.flops / (width * sum(3.0**-r for r in range(rungs)))
    chosen: list[int] = []
    for r in reversed(range(rungs)):
        wanted = max(share * 3.0**-r, float(cost.min()))
        near = np.flatnonzero(np.abs(np.log(cost / wanted)) <= math.log(1.35))
        near = near[cost[near] <= wanted * 1.35]
        if not len(near):
            near = np.array([int(np.argmin(np.abs(np.log(cost / wanted))))])
        chosen += _spread(ask, near, width)
    return within(ask, chosen)


def _spread(ask: Round, near: IntArray, width: int) -> list[int]:
    """At most `width` of the points, far from one another: each next one is the farthest from those chosen."""
    table = np.stack([v[near] for v in ask.space.places.values()], axis=1)
    rng = ask.chance()
    chosen = [int(rng.integers(len(near)))]
    while len(chosen) < min(width, len(near)):
        gap = np.min([((table - table[c]) ** 2).sum(axis=1) for c in chosen], axis=0)
        chosen.append(int(np.argmax(gap)))
    return [int(near[c]) for c in chosen]


@np.errstate(all="ignore")  # a law that overflows somewhere says nothing there
def d_optimal(ask: Round) -> list[Pick]:
    """Points that add most to the logarithm of the determinant of the best law's information, per FLOP and slot."""
    if not ask.beliefs:
        return random(ask)
    belief = ask.beliefs[0]
    slopes = sensitivities(belief, ask.space.columns)
    known = sensitivities(belief, ask.rows.columns)
    information = known.T @ known
    scale = np.sqrt(np.diag(information)) + 1e-300
    slopes, information = slopes / scale, information / np.outer(scale, scale)
    inverse = np.linalg.inv(information + RIDGE * np.eye(len(information)))
    chosen: list[Pick] = []
    left = ask.flops
    for slot in range(ask.most):
        moved = slopes @ inverse
        gain = np.log1p(np.maximum((moved * slopes).sum(axis=1), 0.0))
        pick = best_per_cost(gain, ask.space.cost, left, ask.most - slot)
        if pick is None:
            break
        u = moved[pick]
        inverse -= np.outer(u, u) / (1.0 + float(u @ slopes[pick]))
        chosen.append(Pick(pick))
        left -= float(ask.space.cost[pick])
    return chosen


def sensitivities(belief: Belief, columns: Mapping[str, FloatArray]) -> FloatArray:
    """(n, P): how the best law's prediction moves with each parameter, in standard deviations of the noise."""
    member = belief.best
    _, slope = belief.linear(member.law, member.fit.params, columns)
    return np.clip(np.where(np.isfinite(slope), slope, 0.0) / belief.noise, -LARGEST, LARGEST)


def within(ask: Round, chosen: Sequence[int]) -> list[Pick]:
    """The first of the points that the budget pays for."""
    kept: list[Pick] = []
    left = ask.flops
    for i in chosen[: ask.most]:
        if ask.space.cost[i] <= left:
            kept.append(Pick(i))
            left -= float(ask.space.cost[i])
    return kept


BASELINES: Mapping[str, Callable[[Round], list[Pick]]] = {
    "grid": grid,
    "random": random,
    "isoflop": isoflop,
    "d_optimal": d_optimal,
}
