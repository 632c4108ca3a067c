"""Whether the data determine the parameters: intervals, correlations, profiles, and what single starts end at."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from agentlab.audit_records import Case, Convergence, Correlation, Pair, Parameter
from agentlab.fitting import Fit, FitOptions, GroupFit, fit, fit_rows
from agentlab.metrics import digits
from agentlab.types import FloatArray

TIED = 0.99
"""Absolute correlation from which two parameters are not told apart."""

DECADE = 10.0
"""Ratio of an interval's ends from which it spans an order of magnitude."""

ILL = 1e5
"""Condition number of the scaled Jacobian above which single parameters mean little."""

IN_DIRECTION = 0.1
"""Share of the weakest direction (of length 1) from which a parameter belongs to it."""

CHI90 = 2.7055
"""The 90% point of chi-square with one degree of freedom: a deviance below it is within the noise."""

SINGLE = 16
"""Single starts whose ends are compared."""

SAME_COST, SAME_PARAMS = 1e-5, 1e-2
"""Two ends are one optimum where costs and every parameter agree to these shares."""

MAX_PROFILED = 6
"""(group, target) pairs whose parameters are profiled; the bootstrap is made for all."""


def parameters(case: Case) -> tuple[tuple[Parameter, ...], tuple[Correlation, ...]]:
    """Every parameter with intervals and the reasons why it is not identified, and all correlations."""
    found: list[Parameter] = []
    tied: list[Correlation] = []
    for order, (pair, one) in enumerate(case.fit.fits.items()):
        related, weak = _correlations(case, pair, one), _weak(case, pair, one)
        tied += related
        for j, name in enumerate(one.names):
            column = case.draws[pair][:, j]
            profile = _profile(case, pair, one, name) if order < MAX_PROFILED else (None, None)
            found.append(_parameter(pair, name, one, column, profile, related, weak))
    return tuple(found), tuple(tied)


def _parameter(
    pair: Pair,
    name: str,
    one: Fit,
    column: FloatArray,
    profile: tuple[float | None, float | None],
    related: list[Correlation],
    weak: set[str],
) -> Parameter:
    nan = (float("nan"), float("nan"))
    ends = [tuple(digits(v) for v in np.percentile(column, q)) if len(column) else nan for q in ((5, 95), (2.5, 97.5))]
    (low, high), (wide_low, wide_high) = ends
    reasons = [
        f"correlation of {c.a} with {c.b} {c.bootstrap:.3f}"
        for c in related
        if name in {c.a.removeprefix("log "), c.b.removeprefix("log ")} and abs(c.bootstrap) > TIED
    ]
    if not math.isfinite(low + high):
        reasons.append("the bootstrap failed")
    elif low < 0 < high:
        reasons.append("its interval spans both signs")
    elif max(abs(low), abs(high)) > DECADE * min(abs(low), abs(high)):
        reasons.append("its interval spans more than an order of magnitude")
    flat = [w for w, v in zip(("half", "twice"), profile, strict=True) if v is not None and v < CHI90]
    if flat:
        reasons.append(f"its profile is flat: {' and '.join(flat)} the value fits as well (deviance below 2.71)")
    if name in weak:
        reasons.append(f"condition number {one.condition:.1e}, in the direction of this parameter")
    return Parameter(
        *pair, name, digits(one.named[name]), (low, high), (wide_low, wide_high), *profile, unidentified=tuple(reasons)
    )


def _correlations(case: Case, pair: Pair, one: Fit) -> list[Correlation]:
    """All pairs of parameters; linear ones of one sign are taken in logarithms, as power laws are straight there."""
    draws = case.draws[pair]
    if len(draws) < 3 or not one.ok:
        return []
    signed = np.all(draws * np.sign(one.params) > 0, axis=0)
    logged = [s and n in case.law.linear for n, s in zip(one.names, signed, strict=True)]
    names = [f"log {n}" if on else n for n, on in zip(one.names, logged, strict=True)]
    with np.errstate(all="ignore"):
        moved = np.where(logged, np.log(np.abs(draws)), draws)
        by_draws = np.corrcoef(moved, rowvar=False).reshape(len(names), len(names))
    by_slope = _by_jacobian(case, pair, one)
    return [
        Correlation(*pair, names[i], names[j], digits(float(by_draws[i, j])), digits(float(by_slope[i, j])))
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]


def _by_jacobian(case: Case, pair: Pair, one: Fit) -> FloatArray:
    """The correlations (P, P) of the linearised fit, from (J'WJ)^-1 (signs as for the parameters themselves)."""
    scaled = _scaled_jacobian(case, pair, one)
    with np.errstate(all="ignore"):
        covariance = np.linalg.pinv(scaled.T @ scaled, rcond=1e-14)
        spread = np.sqrt(np.diag(covariance))
        return np.asarray(covariance / np.outer(spread, spread) * np.outer(np.sign(one.params), np.sign(one.params)))


def _scaled_jacobian(case: Case, pair: Pair, one: Fit) -> FloatArray:
    """The derivatives (n, P) of the residuals, columns of length 1 (0 where a parameter has no effect)."""
    mine = case.rows.group == pair[0]
    value, jacobian = case.law.value_and_jacobian({k: v[mine] for k, v in case.rows.columns.items()}, one.params)
    with np.errstate(all="ignore"):
        if case.options.residual == "log":
            jacobian = jacobian / value[:, None]
        heavy = jacobian * np.sqrt(case.rows.weight[mine])[:, None]
        length = np.linalg.norm(heavy, axis=0)
        unit = heavy / np.where(length > 0, length, 1.0)
    return np.asarray(np.nan_to_num(unit, posinf=0.0, neginf=0.0), dtype=np.float64)


def _weak(case: Case, pair: Pair, one: Fit) -> set[str]:
    """The parameters along the direction that the rows determine least, where that is ill-conditioned."""
    if not one.ok or not one.condition > ILL:
        return set()
    direction = np.linalg.svd(_scaled_jacobian(case, pair, one), full_matrices=False)[2][-1]
    return {n for n, v in zip(one.names, direction, strict=True) if abs(v) > IN_DIRECTION}


def deviance(cost: float, best: float, n: int) -> float:
    """How much worse a cost is than the best, as a chi-square: n log(cost / best), the likelihood ratio (Wilks 1938).

    With a robust loss it is that of the loss taken as a likelihood with its scale profiled out.
    """
    return n * math.log(cost / best) if best > 0 and math.isfinite(cost) else math.inf


def _profile(case: Case, pair: Pair, one: Fit, name: str) -> tuple[float | None, float | None]:
    """The deviance with the parameter held at half and at twice its value and all others fitted again."""
    value = one.named[name]
    if not one.ok or value == 0 or len(one.names) < 2:
        return None, None
    mine = case.rows.group == pair[0]
    columns = {k: v[mine] for k, v in case.rows.columns.items()}
    y, weight = case.rows.targets[pair[1]][mine], case.rows.weight[mine]
    options = replace(case.options, starts=4, thorough=False, delta=one.delta)
    bounds = {k: v for k, v in options.bounds.items() if k != name}
    rest = np.array([v for n, v in one.named.items() if n != name])
    found = []
    for factor in (0.5, 2.0):
        held = case.law.substitute({name: factor * value})
        again = fit(held, columns, y, weight=weight, options=replace(options, bounds=bounds), warm=[rest])
        found.append(digits(deviance(again.cost, one.cost, one.n)) if again.ok else math.inf)
    return found[0], found[1]


def convergence(case: Case) -> tuple[Convergence, ...]:
    """What single starts end at, a (group, target) each."""
    singles = [fit_rows(case.law, case.rows, _single(case.options, case.seed + i)) for i in range(SINGLE)]
    return tuple(_ends(pair, one, singles) for pair, one in case.fit.fits.items())


def _single(options: FitOptions, seed: int) -> FitOptions:
    return replace(options, starts=1, seed=seed, thorough=False)


def _ends(pair: Pair, one: Fit, singles: list[GroupFit]) -> Convergence:
    ends = sorted((s.fits[pair] for s in singles if s.fits[pair].ok), key=lambda f: f.cost)
    optima: list[Fit] = [one]
    at_best = 0
    for end in ends:
        same = next((k for k, known in enumerate(optima) if _same(end, known)), None)
        if same is None:
            optima.append(end)
        at_best += same == 0
    near = sum(deviance(o.cost, one.cost, one.n) < CHI90 for o in optima[1:])
    share = at_best / len(singles)
    return Convergence(*pair, one.n, digits(one.sigma), digits(one.condition), share, len(singles), len(optima), near)


def _same(a: Fit, b: Fit) -> bool:
    """Whether two ends are one optimum, up to the noise of where a descent stops along a valley."""
    if abs(a.cost - b.cost) > SAME_COST * max(a.cost, b.cost):
        return False
    return bool(np.allclose(a.params, b.params, rtol=SAME_PARAMS, atol=1e-12))
