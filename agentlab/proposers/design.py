"""Proposes the runs that would change the decision most per FLOP, from the ensemble of laws that the rows leave open.

The decision is a configuration at a compute that nobody can afford yet (allocation.Question). Every draw of the
ensemble has an optimum of its own; what matters is how much better one of these is than the one that would be chosen
now. A run is worth what it takes off the variance of these contrasts: a linear Bayesian update of the ensemble, seed
noise included, as in the ensemble Kalman filter (Evensen 1994) and in Bayesian design for a functional of the
parameters (Chaloner and Verdinelli 1995, section 2.2). Runs of a batch are chosen one after another, each after the
update by those before it, so that no two ask the same. The value of a run is divided by its cost, so cheap rungs come
first as long as they teach anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agentlab.allocation import Choice, Question
from agentlab.belief import Belief
from agentlab.law import Law
from agentlab.proposers._designing import Pick, Round, best_per_cost
from agentlab.proposers._designs import BASELINES, random
from agentlab.proposers._misfit import misfit_vectors
from agentlab.types import BoolArray, FloatArray, Rows

__all__ = ["DESIGNS", "Outlook", "Pick", "Round", "choose", "outlook"]

OPTIMA = 40
"""Optima that stand for all of the ensemble."""

PRICE = 0.1
"""What a slot of a batch costs, in shares of the budget: cheap runs go first, and what they save is kept for later."""

LINEARISATIONS = 6
"""Draws at which the ensemble is linearised; a run's value is the mean over them."""

USUAL = 0.9
"""The share of the optima that count: one far from all others comes from a draw that went astray."""

LOOSE = 1e-10
"""Directions of the parameters that the rows say less about than this, relative to the best known, count as this."""


@dataclass(frozen=True)
class Outlook:
    """What the ensemble says about a decision.

    `config` (J,) by feature are optima that stand for all, `chosen` which of them loses least on average; `regret` (J,)
    is what each loses on average, in the space of the residuals.
    """

    config: Mapping[str, FloatArray]
    chosen: int
    regret: FloatArray

    @property
    def expected(self) -> float:
        """The regret to be expected of the best decision that can be taken now."""
        return float(self.regret[self.chosen])

    @property
    def decision(self) -> dict[str, float]:
        """The configuration that would be chosen now."""
        return {name: float(values[self.chosen]) for name, values in self.config.items()}


def outlook(belief: Belief, question: Question) -> Outlook:
    """The decision as the ensemble sees it."""
    config = _optima(belief.decisions(question), belief, question)
    value, weight = _sound(question.sign * belief.at(config), belief.weight)
    regret = weight @ (value - value.min(axis=1, keepdims=True))
    chosen = int(np.argmin(regret))
    return Outlook(config, chosen, regret)


def _sound(value: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The values (M, k) and weights; draws that are not finite everywhere go to the others' mean, with weight 0."""
    good: BoolArray = np.asarray(np.isfinite(value).all(axis=1))
    if not good.any():
        return np.zeros_like(value), weight
    weight = np.where(good, weight, 0.0)
    weight = weight / weight.sum()
    value = np.where(good[:, None], value, 0.0)
    value[~good] = weight @ value
    return value, weight


def _optima(choices: Sequence[Choice], belief: Belief, question: Question) -> dict[str, FloatArray]:
    """At most OPTIMA of the optima, each law its share; a lever that a law does not know stands where others put it."""
    usual = {lever.name: math.sqrt(lever.low * lever.high) if lever.log else lever.low for lever in question.levers}
    for choice in reversed(choices):
        usual |= {n: float(v[0]) for n, v in choice.config.items()}
    parts: dict[str, list[FloatArray]] = {n: [] for n in sorted(usual)}
    for member, choice in zip(belief.members, choices, strict=True):
        count = max(2, round(OPTIMA * member.share))
        index = np.unique(np.linspace(0, len(member.draws) - 1, count).astype(np.int64))
        for n, part in parts.items():
            part.append(np.asarray(choice.config[n])[index] if n in choice.config else np.full(len(index), usual[n]))
    found = {n: np.concatenate(v) for n, v in parts.items()}
    good = np.all([np.isfinite(v) for v in found.values()], axis=0)
    return {n: v[good] for n, v in found.items()} if good.any() else found


@dataclass
class _Open:
    """What one belief leaves open, linearised: a run or a contrast is a vector over q unknowns of variance 1 each.

    `runs` (X, q) and `contrasts` (J, q) are such vectors, `known` (q, q) the covariance of the unknowns that is left.
    These are the parameters of every law, scaled by their posterior, which `inside` marks, then which law holds.
    """

    runs: FloatArray
    contrasts: FloatArray
    noise: float
    known: FloatArray
    inside: BoolArray
    before: float

    def gain(self) -> FloatArray:
        """(X,): the share of the contrasts' variance that each run would take off."""
        return self._gain(np.ones(len(self.inside), dtype=bool))

    def between(self, place: int) -> float:
        """The part of a run's gain that would be missing if the laws agreed."""
        whole, alone = float(self.gain()[place]), float(self._gain(self.inside)[place])
        return float(np.clip(1.0 - alone / whole, 0.0, 1.0)) if whole > 0 else 0.0

    def update(self, place: int) -> None:
        """The run at `place` is taken as made."""
        moved = self.known @ self.runs[place]
        self.known = self.known - np.outer(moved, moved) / (float(self.runs[place] @ moved) + self.noise**2)

    def _gain(self, of: BoolArray) -> FloatArray:
        known = self.known[np.ix_(of, of)]
        moved = self.runs[:, of] @ known
        total = np.maximum((moved * self.runs[:, of]).sum(axis=1), 0.0) + self.noise**2
        return np.asarray(((moved @ self.contrasts[:, of].T) ** 2).mean(axis=1) / total / self.before)


@np.errstate(all="ignore")  # draws that went astray overflow; what is not finite is left out
def _open(ask: Round, belief: Belief) -> list[_Open]:
    """What a belief leaves open, linearised at several of its draws."""
    if ask.question is not None:
        seen = outlook(belief, ask.question)
        points, chosen = _usual(seen), seen.chosen
    else:
        points, chosen = dict(ask.box or ask.space.columns), None
    found = []
    for t in range(LINEARISATIONS):
        runs, targets, inside = _vectors(belief, ask, points, t)
        contrasts = targets - (targets[:1] if chosen is not None else 0.0)
        good: BoolArray = np.asarray(np.isfinite(contrasts).all(axis=1))
        runs = np.where(np.asarray(np.isfinite(runs).all(axis=1))[:, None], runs, 0.0)
        before = float((contrasts[good] ** 2).sum(axis=1).mean()) if good.any() else 0.0
        if before > 0:
            found.append(_Open(runs, contrasts[good], belief.noise, np.eye(len(inside)), inside, before))
    return found


def _usual(seen: Outlook) -> dict[str, FloatArray]:
    """The decision that would be taken first, then the optima that stand for all, without the outermost."""
    far = np.zeros(len(seen.regret))
    for values in seen.config.values():
        if (values > 0).all():
            far = far + np.log(values / values[seen.chosen]) ** 2
    kept: BoolArray = np.asarray(far <= np.quantile(far, USUAL))
    return {n: np.concatenate([v[seen.chosen : seen.chosen + 1], v[kept]]) for n, v in seen.config.items()}


def _vectors(
    belief: Belief, ask: Round, points: Mapping[str, FloatArray], number: int
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Vectors (X, q) of the runs and (k, q) of the points over what is not known, and which of these are parameters."""
    runs, targets, inside = [], [], []
    middle_runs, middle_targets, shares = [], [], []
    for member in belief.members:
        theta = member.draws[number * len(member.draws) // LINEARISATIONS if number else 0]
        root = _root(belief, member.law, theta, ask.rows)
        value, slope = belief.linear(member.law, theta, ask.space.columns)
        there, steep = belief.linear(member.law, theta, points)
        runs.append(math.sqrt(member.share) * slope @ root)
        targets.append(math.sqrt(member.share) * steep @ root)
        middle_runs.append(value)
        middle_targets.append(there)
        shares.append(member.share)
        inside += [True] * root.shape[1]
    share = np.array(shares)
    for middle, vectors in ((np.stack(middle_runs), runs), (np.stack(middle_targets), targets)):
        vectors.append((np.sqrt(share)[:, None] * (middle - share @ middle)).T)
    inside += [False] * len(share)
    if ask.misfit > 0:
        near, far = misfit_vectors(ask.misfit, belief.noise, ask.rows, ask.space.columns, points)
        runs.append(near)
        targets.append(far)
        inside += [True] * near.shape[1]
    return np.concatenate(runs, axis=1), np.concatenate(targets, axis=1), np.array(inside)


def _root(belief: Belief, law: Law, theta: FloatArray, rows: Rows) -> FloatArray:
    """(P, P): a square root of the posterior covariance of the parameters at `theta`, by the rows' information."""
    _, slope = belief.linear(law, theta, rows.columns)
    slope = np.where(np.isfinite(slope), slope, 0.0) * np.sqrt(rows.weight)[:, None]
    scale = np.sqrt((slope**2).sum(axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    values, axes = np.linalg.eigh((slope / scale).T @ (slope / scale))
    sizes = belief.noise / np.sqrt(np.maximum(values, LOOSE * max(float(values.max()), 1e-300)))
    return np.asarray((axes * sizes) / scale[:, None])


def choose(ask: Round) -> list[Pick]:
    """The runs to make next, in the order in which they were chosen.

    At random before any law could be fitted, and where all draws say the same: an ensemble that is as sure as this
    knows too little about its own errors.
    """
    if not ask.beliefs:
        return random(ask)
    parts = [part for belief in ask.beliefs for part in _open(ask, belief)]
    if not parts:
        return random(ask)
    picks: list[Pick] = []
    left, cost = ask.flops, ask.space.cost
    for slot in range(ask.most):
        gain = np.mean([p.gain() for p in parts], axis=0)
        place = best_per_cost(gain, cost, left, ask.most - slot, PRICE)
        if place is None:
            break
        picks.append(Pick(place, float(gain[place]), float(np.mean([p.between(place) for p in parts]))))
        for p in parts:
            p.update(place)
        left -= float(cost[place])
    return picks or random(ask)


DESIGNS: Mapping[str, Callable[[Round], list[Pick]]] = {"design": choose, **BASELINES}
"""How the next runs can be chosen; all but the first are baselines."""
