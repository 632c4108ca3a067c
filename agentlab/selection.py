"""Which law to believe: description length, nested hold-outs ordered by scale with refit, and label-free constraints.

The rules start from FACTS section 5: in-sample fit never decides. A candidate's objective is a code length in nats:

    fit      n/2 log(s2) + k/2 log n      every row, k parameters over all groups and targets (BIC; Schwarz 1978)
    form     c log V                      c nodes of a vocabulary of V symbols: simpler formulas are cheaper to name
    cuts     n/2 mean_c log(s2_c)         errors on rows beyond each cut by a law refitted below it

with every s2 floored by a share of the noise estimated from the data, so that nothing is gained below the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentlab.fitting import FitOptions, GroupFit, fit_rows
from agentlab.law import Law
from agentlab.metrics import digits, pooled
from agentlab.types import BoolArray, FloatArray, Outcome, Rows, Score, Task

VOCABULARY = 12
"""Symbols a node is drawn from, for the length of a formula (operators, variables, parameters)."""

NOISE_SHARE = 0.5
"""s2 is floored at (NOISE_SHARE x estimated noise)^2: the estimate is an upper bound for smooth laws."""

SEARCH_CUTS = (0.5, 0.75)
FINAL_CUTS = (0.4, 0.5, 0.6, 0.75, 0.85)
DEV_CUT = 0.75
"""The cut whose predictions are reported as `dev`: the top quarter of the rows by scale (DESIGN section 4)."""

FAR = 5.0
"""Noise scales beyond which an error on a hidden row counts linearly."""

FOLDS = 4
"""Folds where nothing orders the rows (DESIGN section 4)."""

BOX_POINTS = 128
VIOLATION_COST = 0.25
"""Nats a row that a violated constraint adds to the objective while searching; the final choice excludes violators."""


@dataclass(frozen=True)
class Cut:
    """One inner hold-out: a law is fitted on `train` and judged on `test` (masks over the rows)."""

    share: float
    train: BoolArray
    test: BoolArray


@dataclass(frozen=True)
class Problem:
    """A task, its search rows and everything about them that does not depend on the candidate."""

    task: Task
    rows: Rows
    cuts: tuple[Cut, ...]
    final_cuts: tuple[Cut, ...]
    box: dict[str, FloatArray]
    limits: dict[str, tuple[float, float]]
    noise: dict[str, float]
    ordered: bool


def fit_options(task: Task, starts: int, seed: int = 0) -> FitOptions:
    """How a task's laws are fitted when the parameters themselves matter: never worse than a law they contain."""
    return FitOptions(
        starts=starts, residual=task.residual, robust=task.robust, seed=seed, bounds=task.bounds, thorough=True
    )


def search_options(task: Task, starts: int, seed: int = 0) -> FitOptions:
    """How candidates are fitted while searching: to a hundredth of a nat where they converge at all."""
    return replace(fit_options(task, starts, seed), tolerance=1e-4, max_steps=12, thorough=False)


def problem(task: Task, rows: Rows, seed: int = 0) -> Problem:
    """Prepare a task's rows for judging: cuts, points of the extrapolation box, the noise of the data."""
    cuts = {share: make_cut(task, rows, share, seed) for share in {*SEARCH_CUTS, *FINAL_CUTS}}
    noise = {t: estimate_noise(task, rows, t) for t in task.targets}
    folds = _distinct(rows, _folds(rows, seed))
    ordered = rows.scale is not None
    search = (_distinct(rows, [cuts[s] for s in SEARCH_CUTS]) if ordered else ()) or folds
    final = (_distinct(rows, [cuts[s] for s in FINAL_CUTS]) if ordered else ()) or folds
    by_scale = ordered and search is not folds
    return Problem(task, rows, search, final, box_points(task, rows), _limits(rows), noise, by_scale)


def make_cut(task: Task, rows: Rows, share: float, seed: int = 0) -> Cut:
    """Split off the rows above the `share` quantile of the scale; rows of one scale value stay together.

    A group that would keep fewer rows than the parameter cap + 1 is cut at its own quantile instead; one that is
    too small even for that stays whole in the training part. Without a scale the first of four folds is returned.
    """
    if rows.scale is None:
        return _folds(rows, seed)[0]
    level = _level(rows.scale, share)
    test = rows.scale > level
    for group in rows.groups:
        mine = rows.group == group
        if np.count_nonzero(mine & ~test) > task.max_params:
            continue
        own = mine & (rows.scale > _level(rows.scale[mine], share))
        test = np.where(mine, own, test)
        if np.count_nonzero(mine & ~test) < 3:
            test = test & ~mine
    return Cut(share, ~test, test)


def _level(scale: FloatArray, share: float) -> float:
    """The scale value to cut above: of the distinct values, the one whose share of rows at or below is nearest."""
    values, counts = np.unique(_budgets(scale), return_counts=True)
    at_or_below = np.cumsum(counts)[:-1] / len(scale)
    return float(values[:-1][np.argmin(np.abs(at_or_below - share))]) if len(at_or_below) else float(values[0])


def _budgets(scale: FloatArray) -> FloatArray:
    """The scale (n,) with runs of one budget tied: a sweep's runs end within a step of their budget, not exactly on it.

    Values less than 1% apart are one budget where that leaves no group wider than 2%; other scales stay as they are.
    """
    values, place = np.unique(scale, return_inverse=True)
    if values[0] <= 0:
        return scale
    starts = np.concatenate([[0], np.flatnonzero(values[1:] > 1.01 * values[:-1]) + 1])
    ends = np.concatenate([starts[1:], [len(values)]]) - 1
    if np.any(values[ends] > 1.02 * values[starts]):
        return scale
    return np.repeat(values[ends], ends - starts + 1)[place]


def _distinct(rows: Rows, cuts: Sequence[Cut]) -> tuple[Cut, ...]:
    """The cuts that differ and have rows of some weight on both sides."""
    kept: dict[bytes, Cut] = {}
    for cut in cuts:
        if rows.weight[cut.test].sum() > 0 and rows.weight[cut.train].sum() > 0:
            kept[cut.test.tobytes()] = cut
    return tuple(kept.values())


def _folds(rows: Rows, seed: int) -> tuple[Cut, ...]:
    """Four seeded folds over training runs, or over rows where there are fewer than four runs."""
    unit = rows.run if len(np.unique(rows.run)) >= FOLDS else np.arange(len(rows))
    values = np.unique(unit)
    folds = min(FOLDS, len(values))
    order = np.random.default_rng(seed).permutation(len(values))
    part = order[np.searchsorted(values, unit)] % folds
    return tuple(Cut(f / folds, part != f, part == f) for f in range(folds))


def estimate_noise(task: Task, rows: Rows, target: str) -> float:
    """The residual scale of one target, in the space of the residuals (log or plain).

    From replicates (rows of one group with equal features) where they leave five degrees of freedom, else from a
    second-order polynomial in the (log) features, an upper bound for smooth laws.
    """
    y = np.log(rows.targets[target]) if task.residual == "log" else rows.targets[target]
    x = np.column_stack([_scaled(task, rows, name) for name in task.names])
    _, cell = np.unique(
        np.column_stack([x, np.unique(rows.group, return_inverse=True)[1]]), axis=0, return_inverse=True
    )
    counts = np.bincount(cell)
    freedom = int(np.sum(counts - 1))
    floor = 1e-9 * max(float(np.std(y)), 1e-12)
    if freedom >= 5:
        centre = np.bincount(cell, weights=y) / counts
        return max(math.sqrt(float(np.sum((y - centre[cell]) ** 2)) / freedom), floor)
    residual = np.concatenate([_quadratic_residual(x[rows.group == g], y[rows.group == g]) for g in rows.groups])
    return max(float(1.4826 * np.median(np.abs(residual))), floor)


def _scaled(task: Task, rows: Rows, name: str) -> FloatArray:
    column = rows.columns[name]
    log = next(v.log for v in task.features if v.name == name)
    return np.log(column) if log and float(column.min()) > 0 else column


def _quadratic_residual(x: FloatArray, y: FloatArray) -> FloatArray:
    """Residuals of a second-order polynomial, or of the mean where rows are few, inflated for lost freedom."""
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    design = [np.ones(len(y))]
    columns = [z[:, i] for i in range(z.shape[1])]
    columns += [z[:, i] * z[:, j] for i in range(z.shape[1]) for j in range(i, z.shape[1])]
    for column in columns:
        if len(design) < len(y) // 3:
            design.append(column)
    basis = np.column_stack(design)
    residual = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
    return np.asarray(residual * math.sqrt(len(y) / max(len(y) - basis.shape[1], 1)))


def box_points(task: Task, rows: Rows) -> dict[str, FloatArray]:
    """Points (BOX_POINTS + corners,) a feature in the box where the law will be used; log-spaced where declared.

    An undeclared box reaches from half the smallest value seen to ten times the largest (log variables) or over the
    observed range (others): half, so that a pole just below the data is seen.
    """
    d = len(task.features)
    unit = _spread(BOX_POINTS, d)
    if d <= 6:
        corners = np.array(np.meshgrid(*[[0.0, 1.0]] * d)).reshape(d, -1).T
        unit = np.vstack([unit, corners])
    points = {}
    for j, variable in enumerate(task.features):
        column = rows.columns[variable.name]
        log = variable.log and float(column.min()) > 0
        low, high = variable.box or (
            float(column.min()) * (0.5 if log else 1.0),
            float(column.max()) * (10.0 if log else 1.0),
        )
        u = unit[:, j]
        points[variable.name] = (
            np.exp(np.log(low) + u * np.log(high / low)) if log and low > 0 else low + u * (high - low)
        )
    return points


def _spread(n: int, d: int) -> FloatArray:
    """Points (n, d) spread evenly over the unit cube: a Kronecker sequence on powers of the root of x^(d+1) = x + 1."""
    root = 2.0
    for _ in range(64):
        root = (1.0 + root) ** (1.0 / (d + 1))
    return np.outer(np.arange(1, n + 1), root ** -np.arange(1.0, d + 1)) % 1.0


def _limits(rows: Rows) -> dict[str, tuple[float, float]]:
    """The values a target may take in the box: positive targets stay positive and within ten times their range."""
    limits = {}
    for name, y in rows.targets.items():
        low, high = float(y.min()), float(y.max())
        span = max(high - low, 1e-12)
        limits[name] = (0.0, 10.0 * high) if low > 0 else (low - 3 * span, high + 3 * span)
    return limits


def violations(law: Law, fit: GroupFit, judge: Problem) -> tuple[str, ...]:
    """The constraints that the fitted law breaks in the box: "finite", "bounded", "monotone x" (sorted, distinct)."""
    broken = set()
    signs = [(v.name, 1.0 if v.monotone == "+" else -1.0) for v in judge.task.features if v.monotone]
    for (_, target), one in fit.fits.items():
        values = law.evaluate(judge.box, one.params)
        low, high = judge.limits[target]
        if not np.all(np.isfinite(values)):
            broken.add("finite")
        elif np.any(values <= low) or np.any(values > high):
            broken.add("bounded")
        scale = float(np.nanmax(np.abs(values), initial=1e-300))
        for name, sign in signs:
            slope = sign * law.gradient(judge.box, one.params, name) * judge.box[name]
            if np.any(~(slope >= -1e-9 * scale)):
                broken.add(f"monotone {name}")
    return tuple(sorted(broken))


def evaluate(law: Law, judge: Problem, options: FitOptions, *, gate: float = math.inf, final: bool = False) -> Outcome:
    """Fit, refit and judge one candidate; `gate` is the description length above which the refits are not worth it."""
    task, rows = judge.task, judge.rows
    refused = Outcome("rejected", n_params=law.n_params, complexity=law.complexity, structure=law.structure)
    if law.n_params > task.max_params:
        return replace(refused, reason="too many parameters")
    fit = fit_rows(law, rows, options if final else replace(options, robust="none"))
    if not fit.ok:
        return replace(refused, reason=fit.reason)
    mdl = description_length(law, fit, judge)
    if not math.isfinite(mdl):
        return replace(refused, reason="non-finite")
    if not mdl <= gate:
        return replace(refused, reason="outclassed", mdl=mdl)
    if not final and options.robust != "none":
        # Plain least squares finds the basin cheaply; the robust loss is worth its price only for those that stay.
        fit = fit_rows(law, rows, replace(options, starts=1), warm=fit)
        mdl = description_length(law, fit, judge)
    broken = violations(law, fit, judge)
    outcome = replace(refused, status="ok", mdl=mdl, violations=broken, params=rounded(fit))
    return _judge_cuts(law, judge, options, fit, outcome, final=final)


def _judge_cuts(
    law: Law, judge: Problem, options: FitOptions, fit: GroupFit, outcome: Outcome, *, final: bool
) -> Outcome:
    rows, errors, dev = judge.rows, [], []
    cuts = judge.final_cuts if final else judge.cuts
    refit = replace(options, starts=24 if final else 4, thorough=False)
    for cut in cuts:
        below, beyond = rows.take(cut.train), rows.take(cut.test)
        part = fit_rows(law, below, refit, warm=fit)
        if not part.ok:
            return replace(outcome, status="rejected", reason="does not fit below a cut")
        predicted = part.predict(law, beyond)
        errors.append(float(np.mean(_log_errors(judge, beyond, predicted))))
        if not judge.ordered or cut is _nearest(cuts, DEV_CUT):
            dev.append((beyond, predicted))
    n = len(rows) * len(judge.task.targets)
    objective = outcome.mdl + 0.5 * n * float(np.mean(errors)) + VIOLATION_COST * n * len(outcome.violations)
    score = _pool(dev, judge.task.targets)
    if not math.isfinite(objective) or not math.isfinite(score.mae):
        return replace(outcome, status="rejected", reason="not finite beyond a cut")
    return replace(outcome, objective=objective, cuts=tuple(errors), dev=score)


def _nearest(cuts: Sequence[Cut], share: float) -> Cut:
    return min(cuts, key=lambda c: abs(c.share - share))


def _log_errors(judge: Problem, rows: Rows, predicted: dict[str, FloatArray]) -> list[float]:
    """A target each: log of the mean squared residual, stray rows tempered, noise floor added."""
    logs = []
    for target, values in predicted.items():
        y, noise = rows.targets[target], judge.noise[target]
        with np.errstate(all="ignore"):
            residual = np.log(values) - np.log(y) if judge.task.residual == "log" else values - y
            mean = float(np.average(_huber(residual, FAR * noise), weights=rows.weight))
        logs.append(math.log(mean + (NOISE_SHARE * noise) ** 2))
    return logs


def _huber(residual: FloatArray, delta: float) -> FloatArray:
    """Squared residuals that grow linearly beyond `delta`: one stray run must not decide between laws."""
    size = np.abs(residual)
    return np.where(size <= delta, size**2, 2 * delta * size - delta**2)


def _pool(parts: Sequence[tuple[Rows, dict[str, FloatArray]]], targets: Sequence[str]) -> Score:
    return pooled(
        {
            t: (np.concatenate([r.targets[t] for r, _ in parts]), np.concatenate([p[t] for _, p in parts]))
            for t in targets
        }
    )


def description_length(law: Law, fit: GroupFit, judge: Problem) -> float:
    """Code length of all rows and of the law, in nats (see the module's head)."""
    n = len(judge.rows)
    total = 0.5 * fit.n_params * math.log(n * len(judge.task.targets)) + law.complexity * math.log(VOCABULARY)
    errors = _log_errors(judge, judge.rows, fit.predict(law, judge.rows))
    return total + 0.5 * n * sum(errors)


def rounded(fit: GroupFit) -> dict[str, dict[str, dict[str, float]]]:
    """Parameters by group, target and name, at ten significant digits."""
    return {
        g: {t: {name: digits(v) for name, v in byname.items()} for t, byname in targets.items()}
        for g, targets in fit.params.items()
    }


def choose(finalists: Sequence[Outcome]) -> int | None:
    """The position of the law to believe: least objective among those that break no constraint, or the fewest."""
    scored = [(len(o.violations), o.objective, i) for i, o in enumerate(finalists) if o.status == "ok"]
    return min(scored)[2] if scored else None
