"""What our laws are compared with: published forms under our fitter, pyoperon, and the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import operon
from laws_case import Case
from laws_sets import Form

from agentlab import baselines
from agentlab.errors import BackendError, EvaluationError
from agentlab.fitting import Fit, fit_rows
from agentlab.law import parse
from agentlab.selection import estimate_noise, fit_options
from agentlab.types import FloatArray, Rows

STARTS = 48
OPERON_TOTAL = 4_000_000
"""Evaluations that pyoperon may spend on a set, over all its groups."""


@dataclass(frozen=True)
class Fitted:
    """What a comparator learned: predicts (n,) at rows, or says why it cannot."""

    laws: tuple[tuple[str, str, Mapping[str, float]], ...] = ()
    baseline: str = ""
    note: str = ""
    reason: str = ""


def comparators(one: Case) -> dict[str, Fitted]:
    """Everything that ours is compared with, fitted to the training rows."""
    found = {form.name: fitted(one, form) for form in one.spec.forms}
    found["pyoperon with MDL"] = operon_laws(one)
    return found | {name: Fitted(baseline=name) for name in baselines.NAMES}


def fitted(one: Case, form: Form) -> Fitted:
    """A published form fitted by our fitter with the task's residual and loss; the best of its formulas a group."""
    names = one.wide.names
    if form.params:
        return Fitted(tuple((g, form.formulas[0], form.params) for g in one.train.groups), note="nothing fitted")
    best: dict[str, tuple[str, Fit]] = {}
    reason = ""
    for text in form.formulas:
        options = fit_options(one.task, STARTS, one.words.seed)
        # a grid is searched with few starts: its formulas differ by a constant only
        options = replace(options, starts=8, thorough=False) if len(form.formulas) > 1 else options
        fit = fit_rows(parse(text, names), one.train, options)
        reason = fit.reason or reason
        for (group, _), part in fit.fits.items():
            if part.ok and (group not in best or part.cost < best[group][1].cost):
                best[group] = (text, part)
    if len(best) < len(one.train.groups):
        return Fitted(reason=reason or "not fitted")
    return Fitted(tuple((group, text, part.named) for group, (text, part) in best.items()))


def operon_laws(one: Case) -> Fitted:
    """pyoperon on every group, in the target's own unit, where it does better than in logarithms."""
    groups, target = one.train.groups, one.spec.target
    plain = replace(one.task, residual="plain")
    evaluations = min(operon.EVALUATIONS, OPERON_TOTAL // len(groups))
    tables = []
    for group in groups:
        rows = one.train.take(one.train.group == group)
        columns = {name: rows.columns[name] for name in one.task.names}
        tables.append(operon.Table(columns, rows.targets[target], estimate_noise(plain, rows, target)))
    try:
        found = operon.search_tables(tables, python=one.words.operon, seed=one.words.seed, evaluations=evaluations)
    except BackendError:
        return Fitted(reason="not installed")
    except EvaluationError as error:
        return Fitted(reason=str(error))
    empty: Mapping[str, float] = {}
    laws = tuple((group, best.models[0].law.text, empty) for group, best in zip(groups, found, strict=True))
    return Fitted(laws, note=f"pyoperon {found[0].version}, {evaluations} evaluations a group")


def predicted(one: Case, known: Fitted, at: Rows) -> FloatArray:
    """The predictions (n,) of a comparator; nan where it has none."""
    out = np.full(len(at), np.nan)
    if known.baseline:
        return baselines.predict(known.baseline, one.task, one.train, at)[one.spec.target]
    for group, text, params in known.laws:
        mine = at.group == group
        law = parse(text, one.wide.names)
        here = {name: values[mine] for name, values in at.columns.items()}
        out[mine] = law.evaluate(here, np.array([params[p] for p in law.params]))
    return out
