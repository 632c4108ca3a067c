"""The battery: the choices that change the conclusions of published fits, each made otherwise (arXiv 2502.18969).

Form, optimiser, initialisation, loss, counting, checkpoint filter, learning-rate filter and D/N range are varied one at
a time, on the focus (group, target): what it does to the error beyond the inner cut, and to the decision, with its
regret under the audited law. What cannot be varied for want of a column is a blank line that says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from agentlab.allocation import LEARNING_RATE, PARAMS
from agentlab.audit_extrapolate import decision, judged, refit_options
from agentlab.audit_forms import forms
from agentlab.audit_optimisers import by_bfgs, by_simplex
from agentlab.audit_records import Case, Decision, Variant
from agentlab.fitting import FitOptions, fit
from agentlab.law import Law
from agentlab.metrics import digits, pooled_at
from agentlab.objective import Loss
from agentlab.selection import DEV_CUT, make_cut
from agentlab.types import BoolArray, FloatArray, Rows
from agentlab.varpro import Data

Solver = Callable[[Law, Data, FitOptions], FloatArray]

AXES = (
    "form",
    "optimiser",
    "initialisation",
    "loss",
    "counting",
    "checkpoint filter",
    "learning-rate filter",
    "D/N range",
)

EMBEDDING = 47491.0
"""N_total = N + EMBEDDING N^(1/3): parameters with and without embeddings, fitted over published transformers
(Pearce & Song 2024, arXiv 2406.12907)."""

FEW = 3
"""Rows a filter must leave beyond the number of parameters."""


@dataclass(frozen=True)
class Trial:
    """One choice made otherwise: what is None or left out is as audited.

    `keep` (n,) are the rows that are fitted, `columns` replace the law's inputs, `back` turns a configuration in those
    inputs into one in the audited ones.
    """

    axis: str
    name: str
    law: Law | None = None
    options: FitOptions | None = None
    keep: BoolArray | None = None
    columns: Mapping[str, FloatArray] | None = None
    back: Callable[[Mapping[str, float]], dict[str, float]] | None = None
    solver: Solver | None = None
    blank: str = ""


def battery(case: Case) -> tuple[Variant, ...]:
    """Every variant, axis by axis, after the fit as it was audited."""
    mine = case.rows.group == case.focus[0]
    rows = case.rows.take(mine)
    rows = replace(rows, targets={case.focus[1]: rows.targets[case.focus[1]]})
    beside = {k: v[mine] for k, v in case.beside.items()}
    case = replace(case, rows=rows, beside=beside, task=replace(case.task, targets=(case.focus[1],), group=None))
    test = make_cut(case.task, rows, DEV_CUT, case.seed).test
    trials = [Trial("as audited", case.law.text)]
    for of_axis in (_forms, _optimisers, _starts, _losses, _counting, _checkpoints, _rates, _ranges):
        trials += list(of_axis(case))
    return tuple(_tried(case, t, test) for t in trials)


def _tried(case: Case, trial: Trial, test: BoolArray) -> Variant:
    if trial.blank:
        return Variant(trial.axis, trial.name, blank=trial.blank)
    law, rows = trial.law or case.law, case.rows
    keep = np.ones(len(rows), dtype=bool) if trial.keep is None else trial.keep
    n = int(keep.sum())
    if int((keep & ~test).sum()) < law.n_params + FEW:
        return Variant(trial.axis, trial.name, n, blank=f"leaves {n} rows: too few for {law.n_params} parameters")
    rows = rows if trial.columns is None else replace(rows, columns={**rows.columns, **trial.columns})
    inner = _solved(case, trial, law, rows.take(keep & ~test))
    whole = _solved(case, trial, law, rows.take(keep))
    if inner is None or whole is None:
        return Variant(trial.axis, trial.name, n, blank="the fit failed")
    beyond = rows.take(test)
    score = pooled_at(beyond, {case.focus[1]: law.evaluate(beyond.columns, inner)})
    chosen = _decided(case, trial, law, whole, rows)
    return Variant(trial.axis, trial.name, n, digits(score.are), chosen, trial.axis == "as audited")


def _solved(case: Case, trial: Trial, law: Law, rows: Rows) -> FloatArray | None:
    """The parameters (P,) by the trial's solver, else by ours; None where they are not finite."""
    y, options = rows.targets[case.focus[1]], trial.options or refit_options(case)
    columns = {k: rows.columns[k] for k in law.used}
    if trial.solver is None:
        found = fit(law, columns, y, weight=rows.weight, options=options)
        return found.params if found.ok else None
    if options.robust != "none" and options.delta is None:
        options = replace(options, delta=case.fit.fits[case.focus].delta)
    theta = trial.solver(law, Data(columns, y[None, :], rows.weight[None, :]), options)
    return theta if np.isfinite(theta).all() else None


def _decided(case: Case, trial: Trial, law: Law, theta: FloatArray, rows: Rows) -> Decision | None:
    """The decision of a variant; one made in other inputs is told and judged in the audited ones."""
    if trial.back is None:
        return decision(case, theta, law=law)
    levers = tuple(  # the same search, in the other unit
        replace(x, low=x.low * _ratio(rows, case.rows, x.name), high=x.high * _ratio(rows, case.rows, x.name))
        for x in case.question.levers
    )
    there = decision(replace(case, question=replace(case.question, levers=levers)), theta, law=law)
    if there is None:
        return None
    config = trial.back(there.config)
    lost, short = judged(case, {k: np.array([v]) for k, v in config.items()})
    ratio = case.question.ratio(config)
    told = {name: digits(value) for name, value in config.items()}
    return replace(there, config=told, ratio=None if ratio is None else digits(ratio), regret=lost, shortfall=short)


def _ratio(new: Rows, old: Rows, name: str) -> float:
    return float(np.median(new.columns[name]) / np.median(old.columns[name]))


# ---- the axes ----


def _forms(case: Case) -> Iterator[Trial]:
    for name, law in forms(case.law, case.task, case.question):
        yield Trial("form", f"{name}: {law.text}", law=law)


def _optimisers(case: Case) -> Iterator[Trial]:
    yield Trial("optimiser", "BFGS, 1 start", solver=lambda law, data, o: by_bfgs(law, data, o, 1))
    yield Trial("optimiser", "BFGS, best of 10 starts", solver=lambda law, data, o: by_bfgs(law, data, o, 10))
    yield Trial(
        "optimiser",
        "BFGS on the mean of the loss, best of 10 starts",
        solver=lambda law, data, o: by_bfgs(law, data, o, 10, averaged=True),
    )
    yield Trial("optimiser", "simplex, best of 3 starts", solver=lambda law, data, o: by_simplex(law, data, o, 3))
    early = replace(case.options, starts=4, max_steps=8, tolerance=1e-3, thorough=False)
    yield Trial("optimiser", "variable projection, stopped after 8 steps", options=early)


def _starts(case: Case) -> Iterator[Trial]:
    for seed in range(1, 5):
        options = replace(case.options, starts=1, seed=case.seed + 1000 * seed, thorough=False)
        yield Trial("initialisation", f"1 start, seed {seed}", options=options)
    yield Trial("initialisation", "96 starts", options=replace(case.options, starts=96, thorough=False))


def _losses(case: Case) -> Iterator[Trial]:
    base = replace(case.options, starts=24, thorough=False)
    positive = bool((case.rows.targets[case.focus[1]] > 0).all())
    shapes: tuple[tuple[Loss, float | None], ...] = (
        ("none", None),
        ("huber", None),
        ("huber", 1e-3),
        ("soft_l1", None),
    )
    residuals: tuple[Literal["log", "plain"], ...] = ("log", "plain")
    for residual in residuals:
        for robust, delta in shapes:
            options = replace(base, residual=residual, robust=robust, delta=delta)
            if residual == "log" and not positive:
                continue
            if (options.residual, options.robust, options.delta) != (base.residual, base.robust, base.delta):
                yield Trial("loss", _loss_name(options), options=options)


def _loss_name(options: FitOptions) -> str:
    shape = {"none": "squares", "huber": "Huber", "soft_l1": "soft l1"}[options.robust]
    bend = (
        "" if options.robust == "none" else ", bend from the data" if options.delta is None else f", {options.delta:g}"
    )
    return f"{shape}{bend} of {'log ' if options.residual == 'log' else ''}residuals"


def _counting(case: Case) -> Iterator[Trial]:
    n = case.question.params
    if n is None:
        yield Trial("counting", "", blank="no feature counts parameters")
        return
    mine = case.rows.columns[n]
    others = [
        (k, np.asarray(v, dtype=np.float64))
        for k, v in case.beside.items()
        if k not in case.task.names and PARAMS.fullmatch(k) and v.dtype.kind == "f"
    ]
    told = 0
    for name, column in others:
        if np.all(column > 0) and np.all(np.isfinite(column)) and np.ptp(column) > 0 and not np.allclose(column, mine):
            told += 1
            yield Trial("counting", f"N is {name}", columns={n: column}, back=_counted(n, np.log(column), np.log(mine)))
    if not told:
        yield Trial("counting", "", blank="the file counts parameters one way only")
    if float(mine.min()) > 1e5:
        yield Trial(
            "counting",
            "what if N counts embeddings, and is taken without (arXiv 2406.12907)",
            columns={n: without_embeddings(mine)},
            back=lambda config: {**config, n: config[n] + EMBEDDING * config[n] ** (1 / 3)},
        )


def _counted(name: str, new: FloatArray, old: FloatArray) -> Callable[[Mapping[str, float]], dict[str, float]]:
    """A configuration with the logarithm of `name` turned from one count (n,) into another.

    A straight line through the larger half of the models: the decision lies beyond them.
    """
    top = new >= np.median(new)
    slope, offset = np.polyfit(new[top], old[top], 1) if np.ptp(new[top]) > 0 else (1.0, float(np.mean(old - new)))
    return lambda config: {**config, name: math.exp(float(offset) + float(slope) * math.log(config[name]))}


def without_embeddings(total: FloatArray) -> FloatArray:
    """N (n,) with N + EMBEDDING N^(1/3) = total, by Newton's method in the cube root."""
    root = np.cbrt(total)
    for _ in range(60):
        root = root - (root**3 + EMBEDDING * root - total) / (3 * root**2 + EMBEDDING)
    return np.asarray(root**3)


def _checkpoints(case: Case) -> Iterator[Trial]:
    axis, rows = "checkpoint filter", case.rows
    if len(np.unique(rows.run)) == len(rows):
        yield Trial(axis, "", blank="one row a run; whether it is the last checkpoint is not said")
        return
    order = rows.columns[case.question.tokens] if case.question.tokens else rows.scale
    if order is None:
        yield Trial(axis, "", blank="nothing orders the rows of a run (tokens= or scale= names a column)")
        return
    top = np.zeros(int(rows.run.max()) + 1)
    np.maximum.at(top, rows.run, order)
    for name, share in (("the last checkpoint of every run", 1.0), ("the last half of every run", 0.5)):
        yield Trial(axis, name, keep=order >= share * top[rows.run])
    yield Trial(axis, "without the first tenth of every run", keep=order >= 0.1 * top[rows.run])
    if case.question.tokens:
        yield Trial(axis, "without the first 10B tokens (arXiv 2410.11840)", keep=order >= 1e10)


def _rates(case: Case) -> Iterator[Trial]:
    axis = "learning-rate filter"
    known = {**{k: v for k, v in case.beside.items() if v.dtype.kind == "f"}, **case.rows.columns}
    rate = next((k for k in known if LEARNING_RATE.fullmatch(k)), None)
    if rate is None:
        yield Trial(axis, "", blank="no column holds the learning rate")
        return
    rest = [v for k, v in case.rows.columns.items() if not LEARNING_RATE.fullmatch(k)]
    _, cell = np.unique(np.column_stack([np.zeros(len(case.rows)), *rest]), axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    y = case.question.sign * case.rows.targets[case.focus[1]]
    best = np.full(int(cell.max()) + 1, np.inf)
    np.minimum.at(best, cell, y)
    if len(best) == len(y):
        yield Trial(axis, "", blank=f"every configuration has one {rate}: no worse one to leave out")
        return
    yield Trial(axis, f"the best {rate} of every configuration", keep=y <= best[cell])
    rates = np.asarray(known[rate], dtype=np.float64)
    low, high = np.quantile(rates, [0.25, 0.75])
    yield Trial(axis, f"the middle half of {rate}", keep=(rates >= low) & (rates <= high))


def _ranges(case: Case) -> Iterator[Trial]:
    axis, n, d = "D/N range", case.question.params, case.question.tokens
    if n is None or d is None:
        yield Trial(axis, "", blank="the features are not parameters and tokens")
        return
    ratio = case.rows.columns[d] / case.rows.columns[n]
    low, high = (float(x) for x in np.quantile(ratio, [1 / 3, 2 / 3]))
    yield Trial(axis, f"D/N up to {high:.3g} (the lower two thirds)", keep=ratio <= high)
    yield Trial(axis, f"D/N from {low:.3g} (the upper two thirds)", keep=ratio >= low)
    yield Trial(axis, "D/N from 5 to 100", keep=(ratio >= 5) & (ratio <= 100))
