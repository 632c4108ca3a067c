"""What the rows leave open: an ensemble of laws, each with draws of its parameters, weighted by how well it explains.

An ensemble holds M members, each one law with one parameter vector. Laws are weighed by the Bayesian information
criterion (Schwarz 1978) of their fits with the noise that is known or estimated; the draws of a law are refits to rows
drawn anew from it with that noise (parametric bootstrap, Efron and Tibshirani 1993, section 6.5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agentlab.allocation import Choice, Question, best
from agentlab.descent import Schedule, descend
from agentlab.fitting import Fit, FitOptions, Sample, fit_samples
from agentlab.law import Law
from agentlab.objective import Direct
from agentlab.search import limits_of
from agentlab.types import FloatArray, IntArray, Rows
from agentlab.varpro import Bound, Data

__all__ = ["Belief", "Member", "believe"]

DRAWS = 48
"""Draws of the parameters of each law."""

TEMPER = 0.3
"""Differences between laws count for so much: all of them only approximate what happens (Bissiri et al. 2016)."""

TOLERANCE = 1e-6
"""Relative gain below which a draw is fitted: far below the spread between draws."""

LEAST_WEIGHT = 1e-3
"""Laws that weigh less are left out."""

FEW = 6
"""Repeats, or rows beyond the parameters, from which residuals may speak about the noise."""

PRIOR_ROWS = 4.0
"""Rows that a noise known beforehand counts for beside the residuals."""


@dataclass(frozen=True)
class Member:
    """One law of an ensemble: its fit, its share of the weight, and draws (B, P) of its parameters."""

    law: Law
    fit: Fit
    share: float
    draws: FloatArray


@dataclass(frozen=True)
class Belief:
    """An ensemble over one (group, target): the laws by falling weight, the noise, and whether residuals are log ones.

    `noise` is the standard deviation between seeds, in the space of the residuals.
    """

    members: tuple[Member, ...]
    noise: float
    log: bool

    @property
    def best(self) -> Member:
        """The law that explains best."""
        return self.members[0]

    @property
    def weight(self) -> FloatArray:
        """(M,) weights of all draws, which sum to 1."""
        return np.concatenate([np.full(len(m.draws), m.share / len(m.draws)) for m in self.members])

    def at(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """(M, n) what every draw predicts at the points, in the space of the residuals; nan where it is undefined."""
        n = len(next(iter(columns.values())))
        with np.errstate(all="ignore"):
            parts = [_evaluate(m.law, m.draws, columns, n) for m in self.members]
            value = np.concatenate(parts)
            return np.log(value) if self.log else value

    def linear(self, law: Law, theta: FloatArray, columns: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """A law's values (n,) in the space of the residuals, and its slopes (n, P) in the parameters."""
        n = len(next(iter(columns.values())))
        with np.errstate(all="ignore"):
            program = law.compile({name: columns[name] for name in law.used})
            program.n = n
            value, slope = program.with_jacobian(theta)
            value, slope = np.broadcast_to(value, (n,)), np.moveaxis(slope, -2, -1)
            return (np.log(value), slope / value[:, None]) if self.log else (value, slope)

    def decisions(self, question: Question) -> list[Choice]:
        """The best configurations under every draw, one Choice a law."""
        return [best(m.law, m.draws, question) for m in self.members]


def _evaluate(law: Law, theta: FloatArray, columns: Mapping[str, FloatArray], n: int) -> FloatArray:
    program = law.compile({name: columns[name] for name in law.used})
    program.n = n
    return np.asarray(program(theta), dtype=np.float64)


def believe(  # noqa: PLR0913 - what may be known beforehand, each with its default
    laws: Sequence[Law],
    rows: Rows,
    options: FitOptions,
    *,
    noise: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    warm: Mapping[str, FloatArray] | None = None,
    nats: Mapping[str, float] | None = None,
    temper: float = TEMPER,
) -> Belief:
    """The ensemble of `laws` on rows of one group and one target.

    `noise` is what is known of the standard deviation between seeds, as four rows would tell it; `warm` are known
    parameters by the text of a law. `nats` are description lengths by the text of a law, which then decide in place of
    the criterion; differences between laws count `temper` times. Laws that cannot be fitted are left out.

    Raises:
        ValueError: no law could be fitted, or the rows hold several groups or targets.
    """
    if len(rows.groups) != 1 or len(rows.targets) != 1:
        raise ValueError("believe: rows of one group and one target, please")
    (y,) = rows.targets.values()
    known = warm or {}
    fits = [
        fit_samples(
            law,
            [
                Sample(
                    {n: rows.columns[n] for n in law.used},
                    y,
                    rows.weight,
                    (known[law.text],) if law.text in known else (),
                )
            ],
            options,
        )[0]
        for law in laws
    ]
    pairs = [(law, fit) for law, fit in zip(laws, fits, strict=True) if fit.ok]
    if not pairs:
        raise ValueError("believe: no law could be fitted; give more rows or simpler laws")
    sigma = _noise(pairs, rows, noise, log=options.residual == "log")
    told = nats or {}
    scores = np.array([told.get(law.text, 0.5 * _bic(fit, law.n_params, sigma)) for law, fit in pairs])
    share = np.exp(temper * (scores.min() - scores))
    share /= share.sum()
    order = [i for i in np.argsort(-share, kind="stable") if share[i] >= LEAST_WEIGHT]
    members = []
    for i in order:
        law, fit = pairs[i]
        members.append(Member(law, fit, float(share[i]), _draws(law, fit, rows, sigma, options, draws, seed)))
    return Belief(tuple(members), sigma, options.residual == "log")


def _noise(pairs: Sequence[tuple[Law, Fit]], rows: Rows, known: float | None, *, log: bool) -> float:
    """The noise between seeds: what repeats of one configuration tell, else the best law's residuals, and `known`."""
    (y,) = rows.targets.values()
    value = np.log(y) if log else y
    table = np.stack(list(rows.columns.values()), axis=1)
    _, place = np.unique(table, axis=0, return_inverse=True)
    square, degrees = _within(value, np.ravel(place))
    if degrees < FEW:
        spare = [(fit.rss / max(fit.n - law.n_params, 1), fit.n - law.n_params) for law, fit in pairs]
        found = [(variance, free) for variance, free in spare if free >= FEW]
        if found:
            variance, free = min(found)
            square, degrees = square + variance * free, degrees + free
    if known is not None:
        square, degrees = square + PRIOR_ROWS * known**2, degrees + PRIOR_ROWS
    if not degrees:
        variance = min((fit.rss / max(fit.n - law.n_params, 1) for law, fit in pairs), default=0.0)
        return max(math.sqrt(variance), 1e-3)
    return max(math.sqrt(square / degrees), 1e-9)


def _within(value: FloatArray, place: IntArray) -> tuple[float, float]:
    """The sum of squares within repeats, and its degrees of freedom."""
    count = np.bincount(place)
    mean = np.bincount(place, value) / count
    return float(((value - mean[place]) ** 2).sum()), float((count - 1).sum())


def _bic(fit: Fit, n_params: int, sigma: float) -> float:
    return fit.rss / sigma**2 + n_params * math.log(max(fit.n, 2))


@np.errstate(all="ignore")
def _draws(law: Law, fit: Fit, rows: Rows, sigma: float, options: FitOptions, draws: int, seed: int) -> FloatArray:
    """(B, P): the parameters refitted to rows drawn anew from the fitted law; the fit itself is the first."""
    rng = np.random.default_rng([seed, draws])
    columns = {name: rows.columns[name] for name in law.used}
    middle = np.broadcast_to(law.evaluate(rows.columns, fit.params), (len(rows),))
    chance = sigma * rng.standard_normal((draws - 1, len(rows)))
    y = middle * np.exp(chance) if options.residual == "log" else middle + chance
    weight = np.broadcast_to(rows.weight, y.shape)
    system = Direct.bind(Bound(law, Data(columns, y, weight)), options.residual == "log")
    theta = np.tile(fit.params, (draws - 1, 1))
    state = descend(system, system.at(theta), limits_of(law, options.bounds), Schedule(30, TOLERANCE))
    kept = state.theta[np.isfinite(state.cost)]
    return np.concatenate([fit.params[None, :], kept])
