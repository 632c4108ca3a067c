"""Which law to believe: description length, nested hold-outs ordered by scale with refit, and label-free constraints.

The rules start from FACTS section 5: in-sample fit never decides. A candidate's objective, in nats, is

    form     k/2 log n + c log V          k parameters over all groups and targets (BIC; Schwarz 1978), c nodes of a
                                          vocabulary of V symbols; a law of the library is named by its number
    fit      FIT n/2 log(s2)              every row
    cuts     n/2 mean_c log(s2_c)         errors on rows beyond each cut by a law refitted below it; late cuts count
                                          most, none more than WORST nats a row above the fit, few rows less than many

with every s2 floored by a share of the noise estimated from the data, so that nothing is gained below the noise. The
weights were chosen on planted laws and on inner splits of real runs (bench/selection.py; LOG.md has the figures).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentlab import library
from agentlab.fitting import FitOptions, GroupFit, fit_rows
from agentlab.law import Law
from agentlab.metrics import digits, pooled, residuals
from agentlab.selection_box import box_points, limits
from agentlab.selection_cuts import DEV_CUT, FOLD, SCALE, Cut, final_cuts, make_cut, search_cuts
from agentlab.selection_hints import asked_for
from agentlab.selection_noise import estimate_noise
from agentlab.types import FloatArray, Outcome, Rows, Score, Task

__all__ = [
    "DEV_CUT",
    "Cut",
    "Problem",
    "choose",
    "description_length",
    "estimate_noise",
    "evaluate",
    "fit_options",
    "hidden_errors",
    "make_cut",
    "objective_of",
    "problem",
    "rounded",
    "search_options",
    "shown_cuts",
    "supported",
    "violations",
]

VOCABULARY = 12
"""Symbols a node is drawn from, for the length of a formula (operators, variables, parameters)."""

KNOWN = 5.0
"""Nats that name a law of the library, however long its formula is: about the logarithm of how many there are (60 for
two features, 200 for three)."""

NOISE_SHARE = 0.5
"""s2 is floored at (NOISE_SHARE x estimated noise)^2: the estimate is an upper bound for smooth laws."""

FIT = 3.0
"""How much the fit to every row counts beside the errors beyond the cuts."""

WORST = 3.0
"""Log of the squared error by which a cut can exceed the fit before it counts no more: one bad refit is not the law."""

FEW = 25.0
"""Hidden rows at which a cut's excess over the fit counts half: few rows say little."""

WORST_FOLD = 10.0
"""The same for folds: nothing is extrapolated there, so a law that goes astray is told by it."""

SUPPORT = 3.0
"""Rows a parameter that an early cut must leave below; cuts above EARLY are judged all the same."""

EARLY = 0.8

FAR = 5.0
"""Noise scales beyond which an error on a hidden row counts linearly."""

VIOLATION_COST = 0.25
"""Nats a row that a violated constraint adds to the objective while searching; the final choice excludes violators."""


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

    def score(self, parts: Sequence[tuple[Rows, Mapping[str, FloatArray]]]) -> Score:
        """The pooled score of predictions (n,) by target at some rows."""
        both = {
            t: (np.concatenate([r.targets[t] for r, _ in parts]), np.concatenate([p[t] for _, p in parts]))
            for t in self.task.targets
        }
        return pooled(both)


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
    noise = {t: estimate_noise(task, rows, t) for t in task.targets}
    search, final = search_cuts(task, rows, seed), final_cuts(task, rows, seed)
    return Problem(task, rows, search, final, box_points(task, rows), limits(task, rows), noise)


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
    form, within = _lengths(law, fit, judge)
    mdl = form + 0.5 * len(rows) * within
    if not math.isfinite(mdl):
        return replace(refused, reason="non-finite")
    if not mdl <= gate:
        return replace(refused, reason="outclassed", mdl=mdl)
    if not final and options.robust != "none":
        # Plain least squares finds the basin cheaply; the robust loss is worth its price only for those that stay.
        fit = fit_rows(law, rows, replace(options, starts=1), warm=fit)
        form, within = _lengths(law, fit, judge)
        mdl = form + 0.5 * len(rows) * within
    broken = violations(law, fit, judge)
    hints = () if final else asked_for(law, fit, judge.task, judge.rows)
    outcome = replace(refused, status="ok", mdl=mdl, violations=broken, params=rounded(fit), hints=hints)
    cuts = judge.final_cuts if final else judge.cuts
    counted = supported(cuts, fit.n_params / len(task.targets))
    beyond = _beyond(law, judge, options, fit, cuts, counted)
    if beyond is None:
        return replace(outcome, status="rejected", reason="does not fit below a cut")
    objective = objective_of(judge, form, within, beyond.errors, counted)
    objective += VIOLATION_COST * len(rows) * len(task.targets) * len(broken)
    if not math.isfinite(objective) or not math.isfinite(beyond.dev.mae):
        return replace(outcome, status="rejected", reason="not finite beyond a cut")
    return replace(outcome, objective=objective, cuts=beyond.errors, dev=beyond.dev)


@dataclass(frozen=True)
class _Beyond:
    """How refits did on the rows beyond the cuts: their errors, and the score of the shown ones."""

    errors: tuple[float, ...]
    dev: Score


def _beyond(
    law: Law, judge: Problem, options: FitOptions, fit: GroupFit, cuts: Sequence[Cut], counted: Sequence[Cut]
) -> _Beyond | None:
    """The law refitted below every cut that counts or is shown; None where it does not fit below one."""
    shown = shown_cuts(cuts)
    refit = replace(options, starts=4, thorough=False, tolerance=max(options.tolerance, 1e-6), max_steps=20)
    errors, dev = [], []
    for cut in [*counted, *(c for c in shown if c not in counted)]:
        below, beyond = judge.rows.take(cut.train), judge.rows.take(cut.test)
        part = fit_rows(law, below, refit, warm=fit)
        if not part.ok:
            return None
        predicted = part.predict(law, beyond)
        if cut in counted:
            errors.append(hidden_errors(judge, beyond, predicted))
        if cut in shown:
            dev.append((beyond, predicted))
    return _Beyond(tuple(errors), judge.score(dev))


def objective_of(judge: Problem, form: float, within: float, errors: Sequence[float], counted: Sequence[Cut]) -> float:
    """The objective in nats (see the module's head) of a law of length `form`.

    `within` is the hidden_errors of the fit to every row, `errors` those beyond each counted cut.
    """
    beyond = within + _excess(np.array(errors) - within, counted, len(judge.task.targets))
    return form + 0.5 * len(judge.rows) * (FIT * within + beyond)


def _excess(excess: FloatArray, cuts: Sequence[Cut], targets: int) -> float:
    """The mean over cuts of the log squared error above that of the fit, bounded, and shrunk where rows are few."""
    hidden = np.array([float(np.count_nonzero(c.test)) for c in cuts])
    worst = targets * np.array([WORST_FOLD if c.axis == FOLD else WORST for c in cuts])
    tempered = np.fmin(excess, worst) * hidden / (hidden + FEW)
    return float(np.average(tempered, weights=[c.weight for c in cuts]))


def supported(cuts: Sequence[Cut], size: float) -> list[Cut]:
    """The cuts that leave `size` parameters rows enough, the late ones, the last along the scale, and all folds."""
    last = [c for c in cuts if c.axis == SCALE][-1:]

    def counts(cut: Cut) -> bool:
        enough = np.count_nonzero(cut.train) >= SUPPORT * size
        return cut.axis == FOLD or cut in last or float(np.mean(cut.train)) >= EARLY or bool(enough)

    return [c for c in cuts if counts(c)]


def shown_cuts(cuts: Sequence[Cut]) -> list[Cut]:
    """The cuts whose predictions are reported as `dev`: the top quarter by scale, or all folds."""
    along = [c for c in cuts if c.axis == SCALE]
    return [min(along, key=lambda c: abs(float(np.mean(c.train)) - DEV_CUT))] if along else list(cuts)


def hidden_errors(judge: Problem, rows: Rows, predicted: Mapping[str, FloatArray]) -> float:
    """Log of the mean squared residual, stray rows tempered, noise floor added; the sum over targets."""
    total = 0.0
    for target, values in predicted.items():
        y, noise = rows.targets[target], judge.noise[target]
        with np.errstate(all="ignore"):
            residual = residuals(values, y, log=judge.task.residual == "log")
            mean = float(np.average(_huber(residual, FAR * noise), weights=rows.weight))
        total += math.log(mean + (NOISE_SHARE * noise) ** 2)
    return total


def _huber(residual: FloatArray, delta: float) -> FloatArray:
    """Squared residuals that grow linearly beyond `delta`: one stray run must not decide between laws."""
    size = np.abs(residual)
    return np.where(size <= delta, size**2, 2 * delta * size - delta**2)


def description_length(law: Law, fit: GroupFit, judge: Problem) -> float:
    """Code length of all rows and of the law, in nats (see the module's head)."""
    form, within = _lengths(law, fit, judge)
    return form + 0.5 * len(judge.rows) * within


def _lengths(law: Law, fit: GroupFit, judge: Problem) -> tuple[float, float]:
    """The length of the law in nats, and the log of the mean squared residual of every row, summed over targets."""
    n = len(judge.rows) * len(judge.task.targets)
    form = 0.5 * fit.n_params * math.log(n) + _formula_length(law, judge.task)
    return form, hidden_errors(judge, judge.rows, fit.predict(law, judge.rows))


def _formula_length(law: Law, task: Task) -> float:
    """Nats that name the formula: by its number in the library, or node by node."""
    spelled = law.complexity * math.log(VOCABULARY)
    return min(KNOWN, spelled) if law.key in library.keys(task.features) else spelled


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
