"""Parameters from rows: many seeded starts by variable projection, a polish of the true objective, and the record of a fit.

A fit that cannot be made is a value (`ok` False and a reason), not an exception. The same rows, options and seed give the
same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from agentlab.descent import NEAR_DAMPING, Limits, Normal, descend
from agentlab.law import Law
from agentlab.objective import Direct, Loss
from agentlab.search import Effort, Found, limits_of, search
from agentlab.standard import standard
from agentlab.types import FloatArray, IntArray, Rows
from agentlab.varpro import Bound, Data

SEARCH_ROWS = 4000
"""The search for a starting point sees at most this many rows; the polish sees all."""

DRAWS = 4_000_000
"""Values (draws x rows x parameters) of a bootstrap that are in memory at once."""

CANDIDATES = 4
"""Optima of the search that compete in the true objective."""

TOLERANCE, ROUGH = 1e-13, 1e-7
"""Relative gains below which a fit, or one draw of a bootstrap, is done."""

TUNING: Mapping[str, float] = {"huber": 1.345, "soft_l1": 1.0}
"""Robust losses bend at TUNING x the residual scale (Huber: 95% efficiency for normal noise)."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How laws are fitted.

    `residual` is prediction - y ("plain") or log prediction - log y ("log"). A robust loss bends at `delta`, in the unit of
    the residuals; None takes it from the data (median absolute deviation). `bounds` hold by parameter name. `thorough`
    also fits every law with one parameter fixed at 0 or at 1 and starts from there, so that a fit is never worse than
    the fits of those; it costs about 2 P times as much.
    """

    starts: int = 24
    residual: Literal["plain", "log"] = "plain"
    robust: Loss = "none"
    seed: int = 0
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    delta: float | None = None
    max_steps: int = 60
    thorough: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """The parameters of one law on one set of rows, and how far they can be trusted.

    `params` (P,) in the order of `names`; `cost` is the mean (weighted, robust) squared residual, `rss` the sum of
    weighted squared residuals, `sigma` the residual scale with the parameters' degrees of freedom taken off, all in
    the space of the residuals. `converged` is the share of the `starts` that end at the best cost, `condition` that of the
    column-scaled Jacobian there; `delta` is where the robust loss bends. A failed fit has `ok` False, a `reason` and nan parameters.
    """

    names: tuple[str, ...]
    params: FloatArray
    cost: float
    rss: float
    sigma: float
    n: int
    converged: float
    condition: float
    starts: int
    delta: float = 1.0
    ok: bool = True
    reason: str = ""

    @property
    def named(self) -> dict[str, float]:
        """Parameters by name."""
        return {name: float(v) for name, v in zip(self.names, self.params, strict=True)}


@dataclass(frozen=True)
class Sample:
    """What one fit sees: columns and y (n,), weights (n,), and known points (P,) to start from."""

    columns: Mapping[str, FloatArray]
    y: FloatArray
    weight: FloatArray
    warm: tuple[FloatArray, ...] = ()


@dataclass(frozen=True)
class GroupFit:
    """One law fitted to every (group, target) of a table."""

    fits: Mapping[tuple[str, str], Fit]

    @property
    def ok(self) -> bool:
        """Whether every fit was made."""
        return all(f.ok for f in self.fits.values())

    @property
    def reason(self) -> str:
        """Why the first failed fit failed; "" when all were made."""
        return next((f.reason for f in self.fits.values() if not f.ok), "")

    @property
    def params(self) -> dict[str, dict[str, dict[str, float]]]:
        """Parameters by group, target and name."""
        nested: dict[str, dict[str, dict[str, float]]] = {}
        for (group, target), one in self.fits.items():
            nested.setdefault(group, {})[target] = one.named
        return nested

    @property
    def rss(self) -> float:
        """Sum of squared residuals of all fits."""
        return float(sum(f.rss for f in self.fits.values()))

    @property
    def n(self) -> int:
        """Residuals of all fits."""
        return sum(f.n for f in self.fits.values())

    @property
    def n_params(self) -> int:
        """Parameters of all fits."""
        return sum(len(f.names) for f in self.fits.values())

    def predict(self, law: Law, rows: Rows) -> dict[str, FloatArray]:
        """Predictions (n,) by target; nan for rows of a group that was not fitted."""
        out = {target: np.full(len(rows), np.nan) for _, target in self.fits}
        for (group, target), one in self.fits.items():
            mine = rows.group == group
            if mine.any():
                out[target][mine] = law.evaluate({k: v[mine] for k, v in rows.columns.items()}, one.params)
        return out


def fit(
    law: Law,
    columns: Mapping[str, FloatArray],
    y: FloatArray,
    *,
    weight: FloatArray | None = None,
    options: FitOptions | None = None,
    warm: Sequence[FloatArray] = (),
) -> Fit:
    """Fit `law` to y (n,) given columns (n,) a variable; `weight` (n,) multiplies squared residuals, `warm` are known (P,) points."""
    y = np.asarray(y, dtype=np.float64)
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    used = {name: np.asarray(columns[name], dtype=np.float64) for name in law.used}
    return fit_samples(law, [Sample(used, y, weight, tuple(warm))], options or FitOptions())[0]


def fit_rows(law: Law, rows: Rows, options: FitOptions | None = None, warm: GroupFit | None = None) -> GroupFit:
    """Fit `law` once a (group, target) of `rows`; `warm` is a fit of the same law whose parameters are good starts."""
    keys, samples = [], []
    for group in rows.groups:
        mine = rows.group == group
        columns = {name: rows.columns[name][mine] for name in law.used}
        for target, y in rows.targets.items():
            before = warm.fits.get((group, target)) if warm is not None else None
            known = (before.params,) if before is not None and before.ok else ()
            keys.append((group, target))
            samples.append(Sample(columns, y[mine], rows.weight[mine], known))
    found = fit_samples(law, samples, options or FitOptions())
    return GroupFit(dict(zip(keys, found, strict=True)))


def fit_samples(law: Law, samples: Sequence[Sample], options: FitOptions) -> list[Fit]:
    """Fit one law to many samples at once: samples of similar length share a batch. One Fit a sample, in order."""
    found: dict[int, Fit] = {}
    todo: list[int] = []
    for i, sample in enumerate(samples):
        reason = _unfit(law, sample, options)
        if reason:
            found[i] = _failed(law, sample, reason)
        else:
            todo.append(i)
    for part in _alike(samples, todo):
        for i, one in zip(part, _fit_alike(law, [samples[i] for i in part], options), strict=True):
            found[i] = one
    fits = [found[i] for i in range(len(samples))]
    return _contained(law, samples, fits, replace(options, thorough=False)) if options.thorough else fits


def _contained(law: Law, samples: Sequence[Sample], fits: list[Fit], options: FitOptions) -> list[Fit]:
    """The fits, started again wherever a law with one parameter fixed at 0 or 1 fits better."""
    warm: list[list[FloatArray]] = [[] for _ in samples]
    for name in law.params:
        low, high = options.bounds.get(name, (-np.inf, np.inf))
        for value in (v for v in (0.0, 1.0) if low <= v <= high):
            plain = [replace(s, warm=()) for s in samples]
            for i, one in enumerate(fit_samples(law.substitute({name: value}), plain, options)):
                if one.ok and not fits[i].cost <= one.cost:
                    named = {**one.named, name: value}
                    warm[i].append(np.array([named[p] for p in law.params]))
    again = [i for i, some in enumerate(warm) if some]
    retried = [replace(samples[i], warm=(*samples[i].warm, *warm[i])) for i in again]
    for i, one in zip(again, fit_samples(law, retried, options), strict=True):
        fits[i] = one if not fits[i].cost <= one.cost else fits[i]
    return fits


def bootstrap(
    law: Law, rows: Rows, groupfit: GroupFit, *, draws: int = 500, seed: int = 0, options: FitOptions | None = None
) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """90% percentile intervals by group, target and parameter (Efron 1979), training runs resampled with replacement.

    Rows of one run stay together (`rows.run`); every draw starts at the fitted parameters. An interval is (nan, nan)
    where the fit failed, and (-inf, inf) where fewer than half of the draws could be fitted.
    """
    options = options or FitOptions()
    nested: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for order, ((group, target), one) in enumerate(groupfit.fits.items()):
        mine = rows.group == group
        sample = Sample({n: rows.columns[n][mine] for n in law.used}, rows.targets[target][mine], rows.weight[mine])
        counts = _resample(rows.run[mine], draws, np.random.default_rng([seed, order]))
        limits = _intervals(law, sample, one, counts, options)
        nested.setdefault(group, {})[target] = dict(zip(law.params, limits, strict=True))
    return nested


def _resample(run: IntArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """(draws, n) how often each row is in each draw."""
    _, which = np.unique(run, return_inverse=True)
    total = int(which.max()) + 1
    return rng.multinomial(total, np.full(total, 1.0 / total), size=draws)[:, which].astype(np.float64)


def _intervals(
    law: Law, sample: Sample, one: Fit, counts: FloatArray, options: FitOptions
) -> list[tuple[float, float]]:
    if not one.ok:
        return [(float("nan"), float("nan"))] * law.n_params
    draws, n = counts.shape
    limits, found = limits_of(law, options.bounds), []
    step = max(1, DRAWS // (n * (law.n_params + 4)))
    for i in range(0, draws, step):
        part = counts[i : i + step] * sample.weight
        data = Data(sample.columns, np.broadcast_to(sample.y, part.shape), part)
        delta = np.full(len(part), one.delta)
        system = Direct.bind(Bound(law, data), options.residual == "log", options.robust, delta)
        theta = np.tile(one.params, (len(part), 1))
        found.append(descend(system, system.at(theta), limits, steps=options.max_steps, tolerance=ROUGH))
    theta = np.concatenate([f.theta for f in found])
    theta = theta[np.isfinite(np.concatenate([f.cost for f in found]))]
    if 2 * len(theta) < draws:
        return [(-np.inf, np.inf)] * law.n_params
    return [(float(a), float(b)) for a, b in np.percentile(theta, [5.0, 95.0], axis=0).T]


def _unfit(law: Law, sample: Sample, options: FitOptions) -> str:
    """Why a sample cannot be fitted; "" when it can."""
    used = sample.weight > 0
    n = int(np.count_nonzero(used))
    if n < max(law.n_params, 1):
        return f"too few rows: {n} rows for {law.n_params} parameters"
    if not np.isfinite(sample.y[used]).all():
        return "non-finite target"
    if options.residual == "log" and not (sample.y[used] > 0).all():
        return "log residuals need positive targets"
    return ""


def _failed(law: Law, sample: Sample, reason: str, tried: int = 0) -> Fit:
    nan, inf = float("nan"), float("inf")
    n = int(np.count_nonzero(sample.weight > 0))
    return Fit(law.params, np.full(law.n_params, nan), inf, inf, inf, n, 0.0, inf, tried, ok=False, reason=reason)


def _alike(samples: Sequence[Sample], todo: Sequence[int]) -> list[list[int]]:
    """Samples in batches whose shortest has at least half the rows of the longest (short ones are padded)."""
    parts: list[list[int]] = []
    for i in sorted(todo, key=lambda i: (-len(samples[i].y), i)):
        n = len(samples[i].y)
        if parts and 2 * n >= len(samples[parts[-1][0]].y) and n * (len(parts[-1]) + 1) <= SEARCH_ROWS:
            parts[-1].append(i)
        else:
            parts.append([i])
    return parts


def _stack(law: Law, samples: Sequence[Sample]) -> Data:
    """One member a sample; rows that pad the short ones have weight 0 and repeat a row, so that they stay finite."""
    n = max(len(s.y) for s in samples)
    index = np.stack([np.where(np.arange(n) < len(s.y), np.arange(n), 0) for s in samples])
    real = np.stack([np.arange(n) < len(s.y) for s in samples])
    if all(s.columns is samples[0].columns for s in samples):
        columns = dict(samples[0].columns)
    else:
        pairs = list(zip(samples, index, strict=True))
        columns = {name: np.stack([s.columns[name][i] for s, i in pairs]) for name in law.used}
    y = np.stack([s.y[i] for s, i in zip(samples, index, strict=True)])
    weight = np.stack([s.weight[i] for s, i in zip(samples, index, strict=True)]) * real
    return Data(columns, np.where(weight > 0, y, 1.0), weight)


def _fit_alike(law: Law, samples: Sequence[Sample], options: FitOptions) -> list[Fit]:
    whole = seen = _stack(law, samples)
    limits = limits_of(law, options.bounds)
    if whole.y.shape[1] > SEARCH_ROWS:
        some = np.random.default_rng(options.seed).choice(whole.y.shape[1], SEARCH_ROWS, replace=False)
        seen = whole.rows(np.sort(some))
    effort = Effort(options.starts, options.max_steps, CANDIDATES, options.seed)
    # first order: d log f = df / y
    weight = seen.weight / seen.y**2 if options.residual == "log" else seen.weight
    form = standard(law, options.bounds)
    found = search(form, replace(seen, weight=weight), options.bounds, effort, [s.warm for s in samples])
    known = [s.warm or (best[0],) for s, best in zip(samples, found.theta, strict=True)]
    most = max(len(some) for some in known)
    known = np.stack([np.stack([some[i % len(some)] for i in range(most)]) for some in known])
    state, delta = _polish(law, seen, np.concatenate([found.theta, known], axis=1), limits, options)
    if seen is not whole:
        state, delta = _polish(law, whole, state.theta[:, None], limits, options)
    return _records(law, samples, whole, state, delta, found, options)


def _polish(
    law: Law, data: Data, theta: FloatArray, limits: Limits, options: FitOptions
) -> tuple[Normal, FloatArray]:
    """The best of (G, k, P) candidates after a descent of the true objective in all parameters, one a problem, and where
    the robust loss bends (G,)."""
    groups, k = theta.shape[:2]
    owner = np.repeat(np.arange(groups), k)
    points = np.clip(theta.reshape(groups * k, -1), limits.lower, limits.upper)
    plain = Direct.bind(Bound(law, data.take(owner) if k > 1 else data), options.residual == "log")
    state = plain.at(points)
    if options.residual == "plain" and options.robust == "none":
        # the search has minimised this very objective: only the best that survives the way back is polished
        best = _best(state.cost, groups)
        plain, state, owner = plain.take(best), state.take(best), np.arange(groups)
    state = descend(plain, state, limits, steps=options.max_steps, tolerance=TOLERANCE, damping=NEAR_DAMPING)
    delta = np.full(groups, 1.0)
    if options.robust != "none":
        for _ in range(1 if options.delta is not None else 2):
            delta = _bend(plain.residuals(state.theta), data.weight, state.cost, options)
            system = replace(plain, loss=options.robust, delta=delta[owner])
            state = descend(system, system.at(state.theta), limits, steps=4 * options.max_steps, tolerance=TOLERANCE)
    return state.take(_best(state.cost, groups)), delta


def _best(cost: FloatArray, groups: int) -> IntArray:
    """The position of the least cost of every problem; members of a problem follow one another."""
    return np.argmin(cost.reshape(groups, -1), axis=1) + np.arange(groups) * (len(cost) // groups)


def _bend(residual: FloatArray, weight: FloatArray, cost: FloatArray, options: FitOptions) -> FloatArray:
    """Where the robust loss bends (G,): TUNING x 1.4826 x the median |residual| of the best member of each problem."""
    groups = len(weight)
    if options.delta is not None:
        return np.full(groups, options.delta)
    middle = [np.median(np.abs(r[w > 0])) for r, w in zip(residual[_best(cost, groups)], weight, strict=True)]
    return np.maximum(TUNING[options.robust] * 1.4826 * np.array(middle), 1e-300)


def _records(
    law: Law,
    samples: Sequence[Sample],
    data: Data,
    state: Normal,
    delta: FloatArray,
    found: Found,
    options: FitOptions,
) -> list[Fit]:
    rss = state.cost
    if options.robust != "none":
        residual = Direct.bind(Bound(law, data), options.residual == "log").residuals(state.theta)
        rss = np.einsum("bn,bn,bn->b", data.weight, residual, residual)
    out = []
    for g, sample in enumerate(samples):
        if not np.isfinite(rss[g]) or not np.isfinite(state.theta[g]).all():
            out.append(_failed(law, sample, "non-finite", found.starts))
            continue
        n, total = int(np.count_nonzero(data.weight[g])), float(np.sum(data.weight[g]))
        out.append(
            Fit(
                law.params,
                state.theta[g].copy(),
                cost=float(state.cost[g]) / total,
                rss=float(rss[g]),
                sigma=float(np.sqrt(rss[g] / total * n / max(n - law.n_params, 1))),
                n=n,
                converged=float(found.converged[g]),
                condition=_condition(state.hessian[g]),
                starts=found.starts,
                delta=float(delta[g]),
            )
        )
    return out


def _condition(hessian: FloatArray) -> float:
    """Condition number of the column-scaled Jacobian, from its normal equations."""
    if not len(hessian):
        return 1.0
    scale = np.sqrt(np.diag(hessian))
    if not (scale > 0).all():
        return float("inf")
    values = np.linalg.eigvalsh(hessian / scale[:, None] / scale[None, :])
    return float(np.sqrt(values[-1] / values[0])) if values[0] > 0 else float("inf")
