"""How the law does where it will be used: residuals, errors by factor beyond the fit, cuts, rivals on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from agentlab import allocation, baselines, metrics
from agentlab.audit_records import Bin, Case, Cut, Decision, Factor, Residuals, Rival, Worst
from agentlab.errors import AgentlabError
from agentlab.fitting import FitOptions, GroupFit, fit_rows
from agentlab.fitting_bootstrap import bootstrap_draws
from agentlab.law import Law, parse
from agentlab.metrics import digits, pooled_at
from agentlab.selection import DEV_CUT, make_cut
from agentlab.types import BoolArray, FloatArray, Rows

FACTORS = (2.0, 4.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
SHARES = (0.5, 0.7, 0.9, 1.0)
BINS = 5
WORST = 5
DRAWS = 200
"""Draws behind the intervals of a factor or a cut."""

LIKELY = 0.01
"""A rank correlation less likely than this by chance is a trend; so is a bin mean this many errors from 0:"""
BIN_ERRORS = 3.0
LARGE = 0.2
"""With many rows anything is unlikely: a trend is also a correlation of this size, or so many standard deviations."""


def residual_of(case: Case, predicted: FloatArray, observed: FloatArray) -> FloatArray:
    """Prediction - observation (n,), in the space of the fit."""
    return metrics.residuals(predicted, observed, log=case.options.residual == "log")


def residuals(case: Case) -> tuple[Residuals, ...]:
    """Residuals in units of the fit against every feature, the scale and the target itself, all groups and targets."""
    z, observed = [], []
    found = case.fit.predict(case.law, case.rows)
    for target, values in found.items():
        z.append(residual_of(case, values, case.rows.targets[target]))
        observed.append(case.rows.targets[target])
    inputs = {n: np.tile(c, len(z)) for n, c in case.rows.columns.items()}
    if case.rows.scale is not None and case.task.scale not in inputs:
        inputs[f"scale {case.task.scale}"] = np.tile(case.rows.scale, len(z))
    if len(found) == 1:
        inputs[f"predicted {case.focus[1]}"] = found[case.focus[1]]
    return tuple(_against(name, x, np.concatenate(z)) for name, x in inputs.items())


def _against(name: str, x: FloatArray, z: FloatArray) -> Residuals:
    good = np.isfinite(z) & np.isfinite(x)
    x, z = x[good], z[good]
    correlation, p = _spearman(x, z)
    edges = np.unique(np.quantile(x, np.linspace(0, 1, BINS + 1))) if len(x) else np.zeros(0)
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, max(len(edges) - 2, 0))
    bins, spread = [], float(z.std()) if len(z) else 0.0
    for k in range(max(len(edges) - 1, 0)):
        here = z[place == k]
        if len(here):
            error = float(here.std(ddof=1) / math.sqrt(len(here))) if len(here) > 1 else math.inf
            bins.append(Bin(float(edges[k]), float(edges[k + 1]), len(here), digits(float(here.mean())), digits(error)))
    off = len(bins) > 1 and any(abs(b.mean) > max(BIN_ERRORS * b.error, LARGE * spread) for b in bins if b.n > 3)
    tilted = p is not None and correlation is not None and p < LIKELY and abs(correlation) > LARGE
    return Residuals(name, correlation, p, tuple(bins), off or tilted)


def _spearman(x: FloatArray, z: FloatArray) -> tuple[float | None, float | None]:
    """Spearman's rank correlation with ties averaged, and its two-sided chance (normal approximation)."""
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(z) == 0:
        return None, None
    rho = float(np.corrcoef(_ranks(x), _ranks(z))[0, 1])
    return digits(rho), digits(math.erfc(abs(rho) * math.sqrt((len(x) - 1) / 2)))


def _ranks(x: FloatArray) -> FloatArray:
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2.0)[place])


def worst(case: Case) -> tuple[Worst, ...]:
    """The rows that the law misses by most residual scales of their (group, target), by name where the file has one."""
    found = case.fit.predict(case.law, case.rows)
    scored = []
    for target, values in found.items():
        z = residual_of(case, values, case.rows.targets[target])
        scale = np.array([case.fit.fits[str(g), target].sigma for g in case.rows.group])
        with np.errstate(all="ignore"):
            scored += [(-abs(float(s)), i, target, float(s)) for i, s in enumerate(z / scale) if math.isfinite(s)]
    out = []
    for _, i, target, scales in sorted(scored)[:WORST]:
        label = f"row {i + 1}" if case.labels is None else str(case.labels[i])
        inputs = {n: digits(float(c[i])) for n, c in case.rows.columns.items()}
        observed, predicted = float(case.rows.targets[target][i]), digits(float(found[target][i]))
        out.append(Worst(label, str(case.rows.group[i]), target, inputs, observed, predicted, digits(scales)))
    return tuple(out)


def factors(case: Case) -> tuple[Factor, ...]:
    """Errors and coverage when the law is fitted below C / f and predicts up to C, the largest scale."""
    scale = case.rows.scale
    if scale is None:
        return (Factor(2.0, 0, 0, blank="the rows have no scale (scale= names one)"),)
    top, out = float(scale.max()), []
    for f in FACTORS:
        below = scale <= top / f
        problem = _too_few(case, below)
        n = int(below.sum())
        out.append(Factor(f, n, len(scale) - n, blank=problem) if problem else _factor(case, f, below))
        if problem:
            break
    return tuple(out)


def _too_few(case: Case, below: BoolArray) -> str:
    """Why the law cannot be fitted to these rows; "" where it can."""
    if below.all():
        return "no row lies beyond"
    for group in case.rows.groups:
        n = int(np.count_nonzero(below & (case.rows.group == group)))
        if n < case.law.n_params + 2:
            where = "" if len(case.rows.groups) == 1 else f" of group {group}"
            return f"{n} rows{where} below: too few for {case.law.n_params} parameters"
    return ""


def _factor(case: Case, f: float, below: BoolArray) -> Factor:
    inside, beyond = case.rows.take(below), case.rows.take(~below)
    options = refit_options(case)
    part = fit_rows(case.law, inside, options)
    counts = (len(inside), len(beyond))
    if not part.ok:
        return Factor(f, *counts, blank=part.reason)
    predicted = part.predict(case.law, beyond)
    score = pooled_at(beyond, predicted)
    z = np.concatenate([residual_of(case, v, beyond.targets[t]) for t, v in predicted.items()])
    covered = coverage(case, part, inside, beyond, options)
    bias = float(np.mean(z)) if np.isfinite(z).all() else math.inf
    return Factor(f, *counts, digits(score.are), digits(covered), digits(bias))


def refit_options(case: Case) -> FitOptions:
    """How laws are fitted to part of the rows: from starts of their own, as what is fitted to all has seen the rest."""
    return replace(case.options, starts=24, thorough=False)


def coverage(case: Case, part: GroupFit, inside: Rows, beyond: Rows, options: FitOptions) -> float:
    """The share of the rows beyond inside their 90% prediction intervals.

    An interval holds the bootstrap's parameters and, added to each, a residual of the fit inside, inflated for the
    freedom the parameters took.
    """
    draws = bootstrap_draws(case.law, inside, part, draws=DRAWS, seed=case.seed, options=options)
    rng = np.random.default_rng([case.seed, len(inside)])
    hits: list[BoolArray] = []
    for (group, target), theta in draws.items():
        mine, known = beyond.group == group, inside.group == group
        if not mine.any() or not len(theta):
            continue
        here = {k: v[known] for k, v in inside.columns.items()}
        one = part.fits[group, target]
        e = residual_of(case, case.law.evaluate(here, one.params), inside.targets[target][known])
        e = (e - e.mean()) * math.sqrt(len(e) / max(len(e) - len(one.names), 1))
        at = case.law.evaluate({k: v[mine] for k, v in beyond.columns.items()}, theta)
        noise = rng.choice(e, size=at.shape)
        with np.errstate(all="ignore"):
            low, high = np.percentile(at * np.exp(noise) if case.options.residual == "log" else at + noise, [5, 95], 0)
        y = beyond.targets[target][mine]
        hits.append((y >= low) & (y <= high))
    return float(np.mean(np.concatenate(hits))) if hits else math.nan


def decision(case: Case, theta: FloatArray, draws: FloatArray | None = None, law: Law | None = None) -> Decision | None:
    """The best configuration by parameters (P,) of `law`, the audited one unless told; None where there is no choice.

    `draws` (B, P) give the interval of the tokens per parameter. The regret is judged by the audited law and fit.
    """
    question = case.question
    if not allocation.active(law or case.law, question) or not np.isfinite(theta).all():
        return None
    choice = allocation.best(law or case.law, theta, question)
    if not math.isfinite(choice.value[0]):
        return None
    ratio = choice.ratio(question)
    limits = None
    if draws is not None and ratio is not None and len(draws):
        low, high = np.percentile(_finite(allocation.best(law or case.law, draws, question).ratio(question)), [5, 95])
        limits = (digits(float(low)), digits(float(high)))
    lost, short = judged(case, choice.config)
    return Decision(
        {k: digits(float(v[0])) for k, v in choice.config.items()},
        None if ratio is None else digits(float(ratio[0])),
        digits(float(choice.value[0])),
        tuple(k for k, v in choice.edge.items() if v[0]),
        limits,
        lost,
        short,
        loose=ratio is not None and bool(choice.edge.get(str(question.params), np.zeros(1))[0]),
    )


def judged(case: Case, config: Mapping[str, FloatArray]) -> tuple[float | None, float | None]:
    """Regret and shortfall of one configuration under the audited law; None where there is none."""
    found = (float(case.yardstick.regret(config)[0]), float(case.yardstick.shortfall(config)[0]))
    lost, short = (None if math.isnan(v) else digits(v) for v in found)
    return lost, short


def _finite(values: FloatArray | None) -> FloatArray:
    kept = np.zeros(0) if values is None else values[np.isfinite(values)]
    return kept if len(kept) else np.array([math.nan])


def cuts(case: Case) -> tuple[Cut, ...]:
    """The law fitted to the lowest 50, 70, 90 and 100% of the rows by scale: parameters, errors, decision."""
    if case.rows.scale is None:
        return tuple(Cut(s, 0, {}, None, None, None, "the rows have no scale (scale= names one)") for s in SHARES)
    return tuple(_cut(case, share) for share in SHARES)


def _cut(case: Case, share: float) -> Cut:
    assert case.rows.scale is not None  # noqa: S101 - cuts() asked
    below = case.rows.scale <= np.quantile(case.rows.scale, share)
    problem = "" if below.all() else _too_few(case, below)
    if problem:
        return Cut(share, int(below.sum()), {}, None, None, None, problem)
    inside, options = case.rows.take(below), refit_options(case)
    part = case.fit if below.all() else fit_rows(case.law, inside, options)
    if not part.ok:
        return Cut(share, len(inside), {}, None, None, None, part.reason)
    above = case.rows.take(~below)
    beyond = None if below.all() else pooled_at(above, part.predict(case.law, above)).are
    draws = (
        case.draws
        if below.all()
        else bootstrap_draws(case.law, inside, part, draws=DRAWS, seed=case.seed, options=options)
    )
    one = part.fits[case.focus]
    return Cut(
        share,
        len(inside),
        {k: digits(v) for k, v in one.named.items()},
        None if beyond is None else digits(beyond),
        digits(pooled_at(inside, part.predict(case.law, inside)).are),
        decision(case, one.params, draws[case.focus]),
    )


def rivals(case: Case) -> tuple[Rival, ...]:
    """The law, the baselines and the reference law, each predicting the top quarter by scale from the rows below."""
    cut = make_cut(case.task, case.rows, DEV_CUT, case.seed)
    inside, beyond = case.rows.take(cut.train), case.rows.take(cut.test)
    out = [_fitted_rival(case, f"this law, {case.law.text}", case.law, inside, beyond)]
    for name in baselines.NAMES:
        score = pooled_at(beyond, baselines.predict(name, case.task, inside, beyond))
        out.append(Rival(f"baseline: {name}", digits(score.are), digits(score.r2), score.n))
    reference = case.task.reference
    if reference is None:
        return (*out, Rival("reference law", None, None, 0, "the task names none (reference= gives one)"))
    try:
        law = parse(reference.formula, case.task.names)
    except AgentlabError as exc:
        return (*out, Rival("reference law", None, None, 0, str(exc)))
    if law.key != case.law.key:
        out.append(_fitted_rival(case, f"reference refitted, {law.text}", law, inside, beyond))
    if reference.params and set(reference.params) == set(law.params):
        at = np.array([reference.params[p] for p in law.params])
        score = pooled_at(beyond, dict.fromkeys(case.task.targets, law.evaluate(beyond.columns, at)))
        out.append(Rival("reference, published constants", digits(score.are), digits(score.r2), score.n))
    return tuple(out)


def _fitted_rival(case: Case, name: str, law: Law, inside: Rows, beyond: Rows) -> Rival:
    part = fit_rows(law, inside, refit_options(case))
    if not part.ok:
        return Rival(name, None, None, len(beyond), part.reason)
    score = pooled_at(beyond, part.predict(law, beyond))
    return Rival(name, digits(score.are), digits(score.r2), score.n)
