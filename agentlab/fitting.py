"""Parameters from rows: a search by variable projection from many seeded starts, then a polish of the true objective.

A fit that cannot be made is a value (`ok` False and a reason), not an exception. The same rows, options and seed give
the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from agentlab.descent import NEAR_DAMPING, Limits, Normal, Schedule, descend
from agentlab.fitting_bootstrap import bootstrap
from agentlab.fitting_records import Fit, FitOptions, GroupFit, Sample
from agentlab.law import Law, LawError
from agentlab.objective import Direct
from agentlab.search import limits_of, search
from agentlab.search_race import TOLERANCE, Effort, Found
from agentlab.types import AgentlabError, FloatArray, IntArray, Rows
from agentlab.varpro import Bound, Data

__all__ = ["Fit", "FitOptions", "GroupFit", "Sample", "bootstrap", "fit", "fit_rows", "fit_samples"]

SEARCH_ROWS = 4000
"""The search for a starting point sees at most this many rows; the polish sees all."""

CANDIDATES = 4
"""Optima of the search that compete in the true objective."""

TUNING: Mapping[str, float] = {"huber": 1.345, "soft_l1": 1.0}
"""Robust losses bend at TUNING x the residual scale (Huber: 95% efficiency for normal noise)."""


SHARPEST = 1e-100
"""The least bend of a robust loss, where a law is exact for half of the rows: its square is still a number."""


def fit(
    law: Law,
    columns: Mapping[str, FloatArray],
    y: FloatArray,
    *,
    weight: FloatArray | None = None,
    options: FitOptions | None = None,
    warm: Sequence[FloatArray] = (),
) -> Fit:
    """Fit `law` to y (n,), given a column (n,) for each of its variables.

    `weight` (n,) multiplies the squared residuals; `warm` are known parameter vectors (P,), which a fit never makes
    worse. Raises AgentlabError where a column is missing and for empty bounds.
    """
    y = np.asarray(y, dtype=np.float64)
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    used = {name: np.asarray(values, dtype=np.float64) for name, values in _used(law, columns).items()}
    return fit_samples(law, [Sample(used, y, weight, tuple(warm))], options or FitOptions())[0]


def _used(law: Law, columns: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The columns of a law. Raises AgentlabError where one is missing."""
    for name in law.used:
        if name not in columns:
            raise AgentlabError(f"the law {law.text} needs the column {name}; the data have {', '.join(columns)}")
    return {name: columns[name] for name in law.used}


def fit_rows(law: Law, rows: Rows, options: FitOptions | None = None, warm: GroupFit | None = None) -> GroupFit:
    """Fit `law` once a (group, target) of `rows`; `warm` is a fit of the same law whose parameters are good starts."""
    keys, samples = [], []
    for group in rows.groups:
        mine = rows.group == group
        columns = {name: values[mine] for name, values in _used(law, rows.columns).items()}
        for target, y in rows.targets.items():
            before = warm.fits.get((group, target)) if warm is not None else None
            known = (before.params,) if before is not None and before.ok else ()
            keys.append((group, target))
            samples.append(Sample(columns, y[mine], rows.weight[mine], known))
    found = fit_samples(law, samples, options or FitOptions())
    return GroupFit(dict(zip(keys, found, strict=True)))


@np.errstate(all="ignore")  # what overflows or is undefined comes out as a cost of inf, and then as a reason
def fit_samples(law: Law, samples: Sequence[Sample], options: FitOptions) -> list[Fit]:
    """Fit one law to many samples at once: samples of similar length share a batch. One Fit a sample, in order."""
    reasons = [_unfit(law, sample, options) for sample in samples]
    fits = [_failed(law, sample, reason) for sample, reason in zip(samples, reasons, strict=True)]
    for part in _alike(samples, [i for i, reason in enumerate(reasons) if not reason]):
        for i, one in zip(part, _fit_alike(law, [samples[i] for i in part], options), strict=True):
            fits[i] = one
    return _contained(law, samples, fits, replace(options, thorough=False)) if options.thorough else fits


def _contained(law: Law, samples: Sequence[Sample], fits: list[Fit], options: FitOptions) -> list[Fit]:
    """The fits, started again wherever a law with one parameter fixed at 0 or 1 fits better."""
    warm: list[list[FloatArray]] = [[] for _ in samples]
    for name in law.params:
        low, high = options.bounds.get(name, (-np.inf, np.inf))
        for value in (v for v in (0.0, 1.0) if low <= v <= high):
            try:
                simpler = law.substitute({name: value})
            except LawError:  # 1/0, log(0): the law has no such member
                continue
            plain = [replace(s, warm=()) for s in samples]
            for i, one in enumerate(fit_samples(simpler, plain, options)):
                if one.ok and not fits[i].cost <= one.cost:
                    named = {**one.named, name: value}
                    warm[i].append(np.array([named[p] for p in law.params]))
    again = [i for i, some in enumerate(warm) if some]
    retried = [replace(samples[i], warm=(*samples[i].warm, *warm[i])) for i in again]
    for i, one in zip(again, fit_samples(law, retried, options), strict=True):
        fits[i] = one if not fits[i].cost <= one.cost else fits[i]
    return fits


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
    # first order: d log f = df / y
    with np.errstate(all="ignore"):  # a target near the smallest number: the fit comes out non-finite, and says so
        easy = replace(seen, weight=seen.weight / seen.y**2) if options.residual == "log" else seen
    effort = Effort(
        options.starts,
        options.max_steps,
        CANDIDATES,
        options.seed,
        tolerance=max(options.tolerance, TOLERANCE),
    )
    warm = [s.warm for s in samples]
    found = search(law, easy, options.bounds, effort, warm)
    state, delta = _polish(law, seen, np.concatenate([found.theta, _warm(warm, found.theta)], axis=1), limits, options)
    if options.residual == "log" and np.isinf(state.cost).any():
        # the least squares are not positive everywhere, where logarithms need it: look again among those that are
        again = search(law, easy, options.bounds, replace(effort, nonnegative=True), warm)
        theta = np.concatenate([state.theta[:, None], again.theta], axis=1)
        state, delta = _polish(law, seen, theta, limits, options)
    if seen is not whole:
        state, delta = _polish(law, whole, state.theta[:, None], limits, options)
    return _records(law, samples, whole, state, delta, found, options)


def _warm(warm: Sequence[Sequence[FloatArray]], theta: FloatArray) -> FloatArray:
    """The warm points (G, W, P) of every sample; one with fewer than the others repeats its own, or its optimum."""
    most = max(len(some) for some in warm)
    if not most:
        return theta[:, :0]
    known = [some or (best[0],) for some, best in zip(warm, theta, strict=True)]
    return np.stack([np.stack([some[i % len(some)] for i in range(most)]) for some in known])


def _polish(law: Law, data: Data, theta: FloatArray, limits: Limits, options: FitOptions) -> tuple[Normal, FloatArray]:
    """The best of (G, k, P) candidates after a descent of the true objective in all parameters, one a problem.

    With it, where the robust loss bends (G,).
    """
    groups, k = theta.shape[:2]
    owner = np.repeat(np.arange(groups), k)
    points = np.clip(theta.reshape(groups * k, -1), limits.lower, limits.upper)
    plain = Direct.bind(Bound(law, data.take(owner) if k > 1 else data), options.residual == "log")
    state = plain.at(points)
    if options.residual == "plain" and options.robust == "none":
        # the search has minimised this very objective: only the best that survives the way back is polished
        best = _best(state.cost, groups)
        plain, state, owner = plain.take(best), state.take(best), np.arange(groups)
    near = Schedule(options.max_steps, options.tolerance, NEAR_DAMPING)
    state = descend(plain, state, limits, near, problem=owner)
    delta = np.full(groups, 1.0)
    if options.robust != "none":
        for _ in range(1 if options.delta is not None else 2):
            delta = _bend(plain.residuals(state.theta), data.weight, state.cost, options)
            system = replace(plain, loss=options.robust, delta=delta[owner])
            far = Schedule(4 * options.max_steps, options.tolerance)
            state = descend(system, system.at(state.theta), limits, far, problem=owner)
    return state.take(_best(state.cost, groups)), delta


def _best(cost: FloatArray, groups: int) -> IntArray:
    """The position of the least cost of every problem; members of a problem follow one another."""
    return np.asarray(np.argmin(cost.reshape(groups, -1), axis=1) + np.arange(groups) * (len(cost) // groups))


def _bend(residual: FloatArray, weight: FloatArray, cost: FloatArray, options: FitOptions) -> FloatArray:
    """Where the robust loss bends (G,): TUNING x 1.4826 x the median |residual| of the best member of each problem."""
    groups = len(weight)
    if options.delta is not None:
        return np.full(groups, options.delta)
    middle = [np.median(np.abs(r[w > 0])) for r, w in zip(residual[_best(cost, groups)], weight, strict=True)]
    return np.maximum(TUNING[options.robust] * 1.4826 * np.array(middle), SHARPEST)


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
        n, total = int(np.count_nonzero(data.weight[g])), float(np.sum(data.weight[g]))
        cost, sigma = state.cost[g] / total, np.sqrt(rss[g] / total * n / max(n - law.n_params, 1))
        if not np.isfinite([cost, sigma, rss[g], *state.theta[g]]).all():
            out.append(_failed(law, sample, "non-finite", found.starts))
            continue
        out.append(
            Fit(
                law.params,
                state.theta[g].copy(),
                cost=float(cost),
                rss=float(rss[g]),
                sigma=float(sigma),
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
