"""Parameters from rows: many seeded starts by variable projection, a polish of the true objective, and the record of a fit.

A fit that cannot be made is a value (`ok` False and a reason), not an exception. The same rows, options and seed give the
same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from agentlab import starts
from agentlab.law import Law
from agentlab.types import AgentlabError, BoolArray, FloatArray, IntArray, Rows
from agentlab.peel import inner_path, peel
from agentlab.standard import Standard, standard
from agentlab.varpro import Batch, Direct, Loss, Normal, Projected, descend, split

SEARCH_ROWS = 4000
"""The search for a starting point sees at most this many rows; the polish sees all."""

SCREEN_ROWS = 48
"""Rows on which random points are screened before any descent."""

SCREEN = 4
"""Random points drawn per start."""

RACE_STEPS = 6
"""Steps after which starts that fell behind are dropped."""

BEHIND = 4.0
"""A start is behind when its cost is more than this many times the best."""

SAME = 1e-6
"""Costs within this relative distance are the same optimum."""

BLOCK = 2_000_000
"""Values (members x rows) in one block of the polish, which bounds its memory."""

TUNING: Mapping[str, float] = {"huber": 1.345, "soft_l1": 1.0}
"""Robust losses bend at TUNING x the residual scale (Huber: 95% efficiency for normal noise)."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How laws are fitted.

    `residual` is prediction - y ("plain") or log prediction - log y ("log"). A robust loss bends at `delta`, in the unit of
    the residuals; None takes it from the data (median absolute deviation). `bounds` hold by parameter name.
    """

    starts: int = 24
    residual: Literal["plain", "log"] = "plain"
    robust: Loss = "none"
    seed: int = 0
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    delta: float | None = None
    max_steps: int = 60


@dataclass(frozen=True, slots=True)
class Fit:
    """The parameters of one law on one set of rows, and how far they can be trusted.

    `params` (P,) in the order of `names`; `cost` is the mean (weighted, robust) squared residual, `rss` the sum of
    weighted squared residuals, `sigma` the residual scale with the parameters' degrees of freedom taken off, all in
    the space of the residuals. `converged` is the share of the `starts` that end at the best cost, `condition` that of the
    column-scaled Jacobian there. A failed fit has `ok` False, a `reason` and nan parameters.
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
    return [found[i] for i in range(len(samples))]


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
    lower, upper = _limits(law, options)
    step = max(1, 4_000_000 // (n * (law.n_params + 4)))
    found = []
    for i in range(0, draws, step):
        part = counts[i : i + step]
        weight = part * sample.weight
        batch = Batch.bind(law, sample.columns, np.broadcast_to(sample.y, part.shape), weight)
        theta = np.broadcast_to(one.params, (len(part), law.n_params)).copy()
        delta = np.full(len(part), _delta(one.sigma, options))
        system = Direct.bind(batch, options.residual == "log", options.robust, delta, BLOCK)
        found.append(descend(system, theta, steps=options.max_steps, tolerance=1e-7, lower=lower, upper=upper))
    theta = np.concatenate([f.theta for f in found])
    theta = theta[np.isfinite(np.concatenate([f.cost for f in found]))]
    if 2 * len(theta) < draws:
        return [(-np.inf, np.inf)] * law.n_params
    return [(float(a), float(b)) for a, b in np.percentile(theta, [5.0, 95.0], axis=0).T]


def _delta(sigma: float, options: FitOptions) -> float:
    if options.delta is not None:
        return options.delta
    return max(TUNING.get(options.robust, 1.0) * sigma, 1e-300)


def _limits(law: Law, options: FitOptions) -> tuple[FloatArray, FloatArray]:
    """Bounds (P,) of the parameters, infinite where none are set. Raises AgentlabError for an empty range."""
    pairs = [options.bounds.get(name, (-np.inf, np.inf)) for name in law.params]
    for name, (low, high) in zip(law.params, pairs, strict=True):
        if not low <= high:
            raise AgentlabError(f"bounds of {name}: {low:g} is not below {high:g}; write (low, high)")
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])


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
    params = np.full(law.n_params, nan)
    n = int(np.count_nonzero(sample.weight > 0))
    return Fit(law.params, params, inf, inf, inf, n, 0.0, inf, tried, ok=False, reason=reason)


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


def _stack(law: Law, samples: Sequence[Sample]) -> Batch:
    """One member a sample; rows that pad the short ones have weight 0 and repeat a row, so that they stay finite."""
    n = max(len(s.y) for s in samples)
    index = np.stack([np.where(np.arange(n) < len(s.y), np.arange(n), 0) for s in samples])
    real = np.stack([np.arange(n) < len(s.y) for s in samples])
    shared = all(s.columns is samples[0].columns for s in samples)
    columns = {
        name: samples[0].columns[name]
        if shared
        else np.stack([s.columns[name][i] for s, i in zip(samples, index, strict=True)])
        for name in law.used
    }
    y = np.stack([s.y[i] for s, i in zip(samples, index, strict=True)])
    weight = np.stack([s.weight[i] for s, i in zip(samples, index, strict=True)]) * real
    return Batch.bind(law, columns, np.where(weight > 0, y, 1.0), weight)


def _fit_alike(law: Law, samples: Sequence[Sample], options: FitOptions) -> list[Fit]:
    whole = _stack(law, samples)
    lower, upper = _limits(law, options)
    seen = whole
    if whole.y.shape[1] > SEARCH_ROWS:
        some = np.random.default_rng(options.seed).choice(whole.y.shape[1], SEARCH_ROWS, replace=False)
        seen = whole.rows(np.sort(some))
    form = standard(law, options.bounds)
    theta, converged, tried = search(form, seen, options, [s.warm for s in samples])
    final = _polish(whole, seen, form.back(theta), options, lower, upper)
    return _records(law, samples, whole, final, converged, tried, options)


def _flat(batch: Batch, members: int) -> tuple[Batch, IntArray]:
    """`members` copies of every problem of a batch, and which problem each is of."""
    owner = np.repeat(np.arange(len(batch.y)), members)
    return batch.take(owner), owner


def search(
    form: Standard, batch: Batch, options: FitOptions, warm: Sequence[Sequence[FloatArray]]
) -> tuple[FloatArray, FloatArray, int]:
    """Distinct optima of the squared residuals: (G, k, P) best first, the share of starts at the best (G,), the starts.

    All in the standard form. Random points are screened on a few rows, the best descend together with reduced starts (a
    parameter held at 0 or 1, released later) and warm ones; those that fall behind are dropped.
    """
    law = form.law
    lower, upper = _limits(law, options)
    lower = np.where([p in form.positive for p in law.params], np.maximum(lower, 0.0), lower)
    warm = [[form.there(w) for w in some] for some in warm]
    # first order: d log f = df / y
    weight = batch.weight / batch.y**2 if options.residual == "log" else batch.weight
    batch = Batch.bind(law, batch.columns, batch.y, weight) if law is not batch.law else replace(batch, weight=weight)
    apart = split(law)
    points, held = _points(form, batch, apart.nonlinear, options, warm, lower, upper)
    groups, count = points.shape[:2]
    flat, owner = _flat(batch, count)
    system = Projected(flat, apart, lower, upper)
    limits = {"lower": lower, "upper": upper}
    first = descend(
        system, points.reshape(groups * count, -1), steps=RACE_STEPS, tolerance=1e-10, held=np.tile(held, (groups, 1)), **limits
    )
    cost = first.cost.reshape(groups, count)
    theta = first.theta.reshape(groups, count, -1)
    if len(apart.nonlinear):
        order = np.argsort(cost, axis=1, kind="stable")
        best = np.take_along_axis(cost, order[:, :1], axis=1)
        rank = np.argsort(order, axis=1, kind="stable")
        stay = (rank < 2) | (cost <= BEHIND * best) & (rank < max(3, count // 2))
        index = np.flatnonzero(stay.ravel())
        last = descend(system.take(index), first.theta[index], steps=options.max_steps, tolerance=1e-12, **limits)
        cost.ravel()[index] = last.cost
        theta.reshape(groups * count, -1)[index] = last.theta
    best = cost.min(axis=1, keepdims=True)
    converged = np.mean(cost <= best * (1 + SAME), axis=1)
    return _distinct(theta, cost, 3 if options.residual == "log" or options.robust != "none" else 1), converged, count


def _points(
    form: Standard,
    batch: Batch,
    moving: IntArray,
    options: FitOptions,
    warm: Sequence[Sequence[FloatArray]],
    lower: FloatArray,
    upper: FloatArray,
) -> tuple[FloatArray, BoolArray]:
    """Starts (G, M, P) in the standard form and the parameters held in each (M, P)."""
    law, groups = form.law, len(batch.y)
    extra = max((len(w) for w in warm), default=0)
    if not len(moving):
        return np.ones((groups, 1, law.n_params)), np.zeros((1, law.n_params), dtype=bool)
    rng = np.random.default_rng(options.seed)
    some = np.sort(rng.choice(batch.y.shape[1], min(batch.y.shape[1], SCREEN_ROWS), replace=False))
    few = batch.rows(some)
    drawn = _drawn(form, few, options)
    reduced, held = starts.neutral(law, drawn, moving, lower, upper)
    keep = max(options.starts - reduced.shape[1], options.starts // 2, 2)
    flat, _ = _flat(few, drawn.shape[1])
    cost = Projected(flat, split(law), lower, upper).at(drawn.reshape(-1, law.n_params)).cost.reshape(groups, -1)
    best = np.argsort(cost, axis=1, kind="stable")[:, :keep]
    chosen = np.take_along_axis(drawn, best[:, :, None], axis=1)
    warm = [[p for p in w if np.isfinite(p).all()] for w in warm]
    known = np.stack([np.stack([w[i % len(w)] if len(w) else c[0] for i in range(extra)]) for w, c in zip(warm, chosen, strict=True)]) if extra else chosen[:, :0]
    points = np.concatenate([chosen, reduced, known], axis=1)
    mask = np.zeros((points.shape[1], law.n_params), dtype=bool)
    mask[keep : keep + len(held)] = held
    return np.clip(points, lower, upper), mask


def _drawn(form: Standard, few: Batch, options: FitOptions) -> FloatArray:
    """Random points (G, M, P) in the standard form: drawn by role, and again with the inner part solved for."""
    law, groups = form.original, len(few.y)
    count = SCREEN * options.starts
    pick = slice(None, None, max(1, few.y.shape[1] // starts.ROWS))
    columns = {k: np.broadcast_to(c, few.y.shape) for k, c in few.columns.items()}
    size = np.exp(np.mean(np.log(np.abs(few.y[:, pick]) + 1e-300), axis=1))
    drawn = starts.draw(law, {k: c[:, pick] for k, c in columns.items()}, size, count, options.bounds, options.seed)
    flat = drawn.reshape(groups * count, -1)
    path = inner_path(law, frozenset(form.law.linear))
    if path is not None:
        every = {k: np.repeat(c, count, axis=0) for k, c in columns.items()}
        u = np.tile(np.random.default_rng(options.seed).permutation(count) + 0.5, groups) / count
        solved = peel(path, law, every, *(np.repeat(a, count, axis=0) for a in (few.y, few.weight)), flat, u)
        flat = np.concatenate([flat.reshape(groups, count, -1), solved.reshape(groups, count, -1)], axis=1)
    return np.nan_to_num(form.there(flat), nan=1.0).reshape(groups, -1, law.n_params)


def _distinct(theta: FloatArray, cost: FloatArray, keep: int) -> FloatArray:
    """The `keep` best points of every problem that differ in cost; the best repeated where there are fewer."""
    out = np.empty((len(theta), keep, theta.shape[2]))
    for g in range(len(theta)):
        order = np.argsort(cost[g], kind="stable")
        picked = [order[0]]
        for i in order[1:]:
            if len(picked) < keep and np.isfinite(cost[g, i]) and cost[g, i] > cost[g, picked[-1]] * (1 + SAME):
                picked.append(i)
        out[g] = theta[g, (picked + picked[:1] * keep)[:keep]]
    return out


def _polish(
    whole: Batch, seen: Batch, theta: FloatArray, options: FitOptions, lower: FloatArray, upper: FloatArray
) -> Normal:
    """The best of (G, k, P) candidates after a descent of the true objective in all parameters, one a problem."""
    groups, k = theta.shape[:2]
    log, limits = options.residual == "log", {"lower": lower, "upper": upper}
    flat, owner = _flat(seen, k)
    points = np.clip(theta.reshape(groups * k, -1), lower, upper)
    plain = Direct.bind(flat, log, "none", np.ones(groups * k), BLOCK)
    state = descend(plain, points, steps=options.max_steps, tolerance=1e-13, **limits)
    if seen is not whole:
        plain = Direct.bind(whole, log, "none", np.ones(groups), BLOCK)
        state = descend(plain, _best(state, groups).theta, steps=options.max_steps, tolerance=1e-13, **limits)
        owner = np.arange(groups)
    if options.robust == "none":
        return _best(state, groups)
    for _ in range(1 if options.delta is not None else 2):
        delta = _bend(plain.residuals(state.theta), plain.weight, state.cost, groups, options)
        system = replace(plain, loss=options.robust, delta=delta[owner])
        state = descend(system, state.theta, steps=4 * options.max_steps, tolerance=1e-13, **limits)
    return _best(state, groups)


def _bend(residual: FloatArray, weight: FloatArray, cost: FloatArray, groups: int, options: FitOptions) -> FloatArray:
    """Where the robust loss bends in every problem (G,): at TUNING x 1.4826 x the median |residual| of its best member."""
    if options.delta is not None:
        return np.full(groups, options.delta)
    best = np.argmin(cost.reshape(groups, -1), axis=1) + np.arange(groups) * (len(cost) // groups)
    middle = [np.median(np.abs(r[w > 0])) for r, w in zip(residual[best], weight[best], strict=True)]
    return np.maximum(TUNING[options.robust] * 1.4826 * np.array(middle), 1e-300)


def _best(state: Normal, groups: int) -> Normal:
    cost = state.cost.reshape(groups, -1)
    return state.take(np.argmin(cost, axis=1) + np.arange(groups) * cost.shape[1])


def _records(
    law: Law,
    samples: Sequence[Sample],
    whole: Batch,
    final: Normal,
    converged: FloatArray,
    tried: int,
    options: FitOptions,
) -> list[Fit]:
    plain = Direct.bind(whole, options.residual == "log", "none", np.ones(len(samples)), BLOCK)
    residual = np.where(whole.weight > 0, plain.residuals(final.theta), 0.0)
    rss = np.sum(whole.weight * residual**2, axis=1)
    out = []
    for g, sample in enumerate(samples):
        if not np.isfinite(rss[g]) or not np.isfinite(final.theta[g]).all():
            out.append(_failed(law, sample, "non-finite", tried))
            continue
        n = int(np.count_nonzero(whole.weight[g] > 0))
        total = float(np.sum(whole.weight[g]))
        sigma = float(np.sqrt(rss[g] / total * n / max(n - law.n_params, 1)))
        condition = _condition(final.hessian[g])
        out.append(Fit(law.params, final.theta[g].copy(), float(final.cost[g]) / total, float(rss[g]), sigma, n, float(converged[g]), condition, tried))
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
