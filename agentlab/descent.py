"""Levenberg-Marquardt for a batch: many members descend side by side, each with its own damping, and leave when done.

Members may race: those that cannot catch up with the best of their problem at the pace of their last steps stop early.
Nothing here raises or warns for numbers that overflow; a member whose residuals are not finite has cost inf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from agentlab.types import BoolArray, FloatArray, IntArray

RIDGE = 1e-14
"""Relative ridge on column-scaled normal equations: keeps them solvable where columns are collinear."""

FIRST_DAMPING, NEAR_DAMPING = 1e-2, 1e-7
"""Damping of the first step, relative to the diagonal of the Hessian: far from an optimum, and close to one."""

LAP = 4
"""Steps between two looks at who falls behind."""

SAME = 1e-6
"""Costs within this relative distance are the same optimum."""

LEADERS = 2
"""Members of a problem that may go on when the race is over."""

WORTH = 30.0
"""A leader goes on while a lap gains WORTH x what a step must gain."""

PATIENCE = 3.0
"""A member is behind when PATIENCE more laps like its last would not bring it to the best cost."""


@dataclass(frozen=True)
class Normal:
    """One linearisation of B members at `theta` (B, P) with `cost` (B,).

    Over the q parameters that move: half the negative `gradient` (B, q), the Gauss-Newton `hessian` (B, q, q), and the
    `scale` (B, q) that damping is relative to.
    """

    theta: FloatArray
    cost: FloatArray
    gradient: FloatArray
    hessian: FloatArray
    scale: FloatArray

    def where(self, keep: BoolArray, other: Normal) -> Normal:
        """Members of `self` where `keep`, of `other` elsewhere."""
        column = keep[:, None]
        return Normal(
            np.where(column, self.theta, other.theta),
            np.where(keep, self.cost, other.cost),
            np.where(column, self.gradient, other.gradient),
            np.where(column[:, None], self.hessian, other.hessian),
            np.where(column, self.scale, other.scale),
        )

    def take(self, index: IntArray | BoolArray) -> Normal:
        """The members at `index`."""
        return Normal(self.theta[index], self.cost[index], self.gradient[index], self.hessian[index], self.scale[index])

    def put(self, index: IntArray, other: Normal) -> Normal:
        """A copy with the members at `index` replaced."""
        if len(index) == len(self.cost):
            return other
        copies = []
        for name in ("theta", "cost", "gradient", "hessian", "scale"):
            copies.append(getattr(self, name).copy())
            copies[-1][index] = getattr(other, name)
        return Normal(*copies)


class System(Protocol):
    """What `descend` minimises."""

    @property
    def moving(self) -> IntArray:
        """Positions of the parameters that are stepped in."""

    @property
    def exact(self) -> FloatArray:
        """(B,) costs below which only rounding noise is left."""

    def at(self, theta: FloatArray) -> Normal:
        """Linearise at (B, P) parameters."""

    def take(self, index: IntArray | BoolArray) -> Self:
        """The members at `index`."""


@dataclass(frozen=True)
class Limits:
    """Bounds (P,) of all parameters, infinite where there are none."""

    lower: FloatArray
    upper: FloatArray

    @property
    def any(self) -> bool:
        """Whether something is bounded."""
        return bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())


@dataclass(frozen=True)
class Schedule:
    """How long to descend: at most `steps`, until one gains less than `tolerance` of the cost.

    `damping` is that of the first step; held parameters are released after `hold` steps. Every `lap` steps those
    that fall behind leave the race, and after `steps` only the LEADERS of every problem go on, for `extra` steps more.
    """

    steps: int
    tolerance: float
    damping: float = FIRST_DAMPING
    hold: int = LAP
    lap: int = LAP
    extra: int = 0


def descend(
    system: System,
    state: Normal,
    limits: Limits,
    schedule: Schedule,
    *,
    held: BoolArray | None = None,
    problem: IntArray | None = None,
) -> Normal:
    """The last state of every member, from `state`, the linearisation of `system` at its start.

    `held` (B, P) marks parameters that stay for the first steps. `problem` (B,) numbers the problem of each member and
    lets the members of one problem race.
    """
    moving = system.moving
    final = state
    if not len(moving):
        return final
    fixed = None if held is None else held[:, moving]
    live, lap, before = np.arange(len(state.cost)), state.cost, state.cost
    pace = _Pace.start(len(live), schedule.damping)
    exact = system.exact
    with np.errstate(all="ignore"):
        for count in range(1, schedule.steps + schedule.extra + 1):
            new, expected = _tried(system, state, pace.damping, fixed, limits)
            gain = np.where(np.isinf(state.cost) & np.isfinite(new.cost), np.inf, state.cost - new.cost)
            better = gain > 0
            small = schedule.tolerance * state.cost + exact
            done = (expected <= small) & (np.abs(gain) <= small) | (expected <= 1e-3 * small) | (pace.damping > 1e12)
            done |= np.isinf(state.cost) & (pace.damping > 1e3)
            state = new if better.all() else new.where(better, state)
            pace = pace.after(better, gain / expected)
            if problem is not None and count % schedule.lap == 0:
                done |= _decided(final, live, state.cost, lap, problem, done)
                lap = state.cost
            if problem is not None and schedule.extra and count >= schedule.steps:
                done |= rank(state.cost, problem[live]) >= LEADERS
                if count % LAP == 0:
                    done |= ~(before - state.cost > WORTH * schedule.tolerance * state.cost)
                    before = state.cost
            if fixed is not None:
                done &= ~fixed.any(axis=1)
                fixed = fixed if count < schedule.hold else None
            if done.all():
                break
            if 2 * np.count_nonzero(done) >= len(done):
                final, stay = final.put(live, state), np.flatnonzero(~done)
                state, live, system, pace = state.take(stay), live[stay], system.take(stay), pace.take(stay)
                fixed, exact, lap, before = None if fixed is None else fixed[stay], exact[stay], lap[stay], before[stay]
    return final.put(live, state)


@dataclass(frozen=True)
class _Pace:
    """Damping (B,) and how fast it grows on failure (B,)."""

    damping: FloatArray
    growth: FloatArray

    @classmethod
    def start(cls, members: int, damping: float) -> Self:
        return cls(np.full(members, damping), np.full(members, 2.0))

    def after(self, better: BoolArray, ratio: FloatArray) -> _Pace:
        """Nielsen's (1999) update: damping falls with the quality of a step and rises ever faster on failure."""
        quality = 2.0 * np.minimum(np.where(better, ratio, 0.0), 1.0) - 1.0
        damping = self.damping * np.where(better, np.maximum(1.0 - quality * quality * quality, 0.1), self.growth)
        growth = np.where(better, 2.0, np.minimum(2.0 * self.growth, 64.0))
        return _Pace(np.minimum(np.maximum(damping, 1e-14), 1e14), growth)

    def take(self, index: IntArray) -> _Pace:
        return _Pace(self.damping[index], self.growth[index])


def _tried(
    system: System, state: Normal, damping: FloatArray, fixed: BoolArray | None, limits: Limits
) -> tuple[Normal, FloatArray]:
    """Every member after one damped step inside the limits, and the gain that was expected of it (B,)."""
    moving, trial = system.moving, state.theta.copy()
    here = state.theta[:, moving]
    if not limits.any:
        step, expected = _step(state, damping, fixed)
        trial[:, moving] = here + step
        return system.at(trial), expected
    lower, upper = limits.lower[moving], limits.upper[moving]
    pressed = _pressed(here, state.gradient, lower, upper)
    step, expected = _step(state, damping, pressed if fixed is None else fixed | pressed)
    trial[:, moving] = np.minimum(np.maximum(here + step, lower), upper)
    return system.at(trial), expected


def _pressed(here: FloatArray, gradient: FloatArray, lower: FloatArray, upper: FloatArray) -> BoolArray:
    """Parameters at a bound that the gradient pushes outwards."""
    return np.asarray((here <= lower) & (gradient < 0) | (here >= upper) & (gradient > 0))


def _decided(
    final: Normal, live: IntArray, cost: FloatArray, before: FloatArray, problem: IntArray, done: BoolArray
) -> BoolArray:
    """Members whose race is over.

    PATIENCE more laps like the last would not bring them to the best cost of their problem, or they have come to where
    the best already stands still.
    """
    everyone, resting = final.cost.copy(), np.ones(len(final.cost), dtype=bool)
    everyone[live], resting[live] = cost, done
    best = np.full(int(problem.max()) + 1, np.inf)
    rested = best.copy()
    np.minimum.at(best, problem, everyone)
    np.minimum.at(rested, problem[resting], everyone[resting])
    gain = np.where(np.isfinite(before), before - cost, np.inf)
    behind = ~(cost - PATIENCE * gain <= best[problem[live]])
    return np.asarray(behind | (np.abs(cost - rested[problem[live]]) <= SAME * cost))


def rank(cost: FloatArray, problem: IntArray) -> IntArray:
    """(B,) how many members of the same problem cost less; of equal ones the first counts as less."""
    order = np.lexsort((cost, problem))
    places = np.empty(len(cost), dtype=np.int64)
    places[order] = np.arange(len(cost)) - np.searchsorted(problem[order], problem[order])
    return places


def _step(state: Normal, damping: FloatArray, blocked: BoolArray | None) -> tuple[FloatArray, FloatArray]:
    """The damped step (B, q) in the parameters that are not blocked, and the gain the linear model expects (B,)."""
    use = state.scale > 0 if blocked is None else (state.scale > 0) & ~blocked
    inverse = np.where(use, 1.0 / np.sqrt(state.scale), 0.0)
    gradient = inverse * state.gradient
    hessian = state.hessian * (inverse[:, :, None] * inverse[:, None, :])
    damped = hessian.copy()
    diagonal(damped)[...] += damping[:, None] + np.where(use, RIDGE, 1.0)
    z = solve(damped, gradient)
    expected = np.sum(z * (2.0 * gradient - apply(hessian, z)), axis=1)
    return z * inverse, np.maximum(expected, 0.0)


def diagonal(matrices: FloatArray) -> FloatArray:
    """The diagonals (B, q) of contiguous (B, q, q) matrices, as a view."""
    return matrices.reshape(len(matrices), matrices.shape[1] ** 2)[:, :: matrices.shape[1] + 1]


def solve(matrices: FloatArray, right: FloatArray) -> FloatArray:
    """Solve (B, q, q) symmetric systems for (B, q) right-hand sides; minimum norm where a matrix is singular."""
    if matrices.shape[1] == 1:
        return right / matrices[:, 0]
    try:
        return np.asarray(np.linalg.solve(matrices, right[..., None])[..., 0])
    except np.linalg.LinAlgError:
        return apply(np.asarray(np.linalg.pinv(matrices, hermitian=True)), right)


def apply(matrices: FloatArray, vectors: FloatArray) -> FloatArray:
    """(B, p, q) times (B, q) -> (B, p)."""
    return np.asarray((matrices @ vectors[..., None])[..., 0])


def _total(values: FloatArray) -> float:
    return float(np.add.reduce(values, axis=None))


def guarded(state: Normal) -> Normal:
    """Cost inf and no gradient where anything is not finite."""
    if np.isfinite(_total(state.cost) + _total(state.gradient) + _total(state.hessian)):
        return state
    bad = ~np.isfinite(state.cost + state.gradient.sum(axis=1) + state.hessian.sum(axis=(1, 2)))
    return Normal(
        state.theta,
        np.where(bad, np.inf, state.cost),
        np.where(bad[:, None], 0.0, state.gradient),
        np.where(bad[:, None, None], 0.0, state.hessian),
        np.where(bad[:, None], 1.0, state.scale),
    )
