"""Laws side by side on rows hidden from them: errors by cut, and whether a difference is more than chance.

Each law is refitted below every cut and predicts the rows beyond it, as in the choice of a law (agentlab.selection).
The difference of two laws is the weighted mean of that of their log mean squared errors over the cuts along the scale,
or over all folds. Its standard error is a jackknife over training runs in PARTS groups (Quenouille 1956; Efron 1982,
section 2): each group is left out in turn, both laws are refitted without it, and their difference is taken again. Rows
of one run are left out together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from agentlab import selection
from agentlab.fitting import FitOptions, GroupFit, fit_rows
from agentlab.law import Law
from agentlab.metrics import digits
from agentlab.selection import Problem
from agentlab.selection_cuts import SCALE, Cut
from agentlab.types import AgentlabError, FloatArray, Rows, Score, StrArray

PARTS = 10
"""Groups of training runs that are left out in turn."""

FAILED = 50.0
"""Log squared error, a target, of predictions that are no numbers."""

SURE = 2.0
"""Standard errors beyond which a difference is not put down to chance."""

Number = float | None
"""A figure; None where it is infinite or undefined, for which JSON has no word."""


class CutError(BaseModel):
    """A law's errors beyond one cut."""

    axis: str = Field(description="scale, fold, or the feature along which rows are hidden")
    share: float = Field(description="share of the rows that was asked for below the cut")
    fitted: int = Field(description="rows below, to which the law is refitted")
    hidden: int
    weight: float = Field(description="how much the cut counts")
    error: Number = Field(description="log mean squared residual of the hidden rows, noise floor added, in nats")
    mean_error: Number = Field(description="mean absolute error, in the target's unit")


class Scores(BaseModel):
    """How one law extrapolates inside the rows: refitted below each cut, judged beyond it."""

    formula: str
    ok: bool
    reason: str = ""
    mdl: Number = Field(default=None, description="description length of rows and law, in nats")
    objective: Number = Field(default=None, description="what the choice of a law minimises, in nats")
    n_params: int = 0
    complexity: int = 0
    violations: list[str] = Field(default_factory=list)
    cuts: list[CutError] = Field(default_factory=list)
    dev: dict[str, Number] | None = Field(default=None, description="pooled score of the top quarter by scale")


class Difference(BaseModel):
    """One law against the first-ranked: positive where the first predicts hidden rows better."""

    formula: str
    against: str
    nats: Number = Field(description="mean difference of log mean squared errors over the cuts along the scale")
    standard_error: Number
    mdl: Number = Field(description="difference of description lengths, in nats")
    verdict: Literal["worse", "alike", "better", "failed"]


class Compared(BaseModel):
    """Laws on the same rows, the best first, and a verdict in words."""

    laws: list[Scores]
    differences: list[Difference]
    verdict: str


class Judge:
    """A run's problem, and what laws predict of its hidden rows, with and without each group of runs."""

    def __init__(self, problem: Problem, options: FitOptions, seed: int) -> None:
        self._problem = problem
        self._options = options
        units, unit = np.unique(problem.rows.run, return_inverse=True)
        self._parts = min(PARTS, len(units))
        self._part = (np.random.default_rng([seed, len(units)]).permutation(len(units)) % self._parts)[unit]
        along = [i for i, cut in enumerate(problem.final_cuts) if cut.axis == SCALE]
        self._along = along or list(range(len(problem.final_cuts)))
        self._fits: dict[str, list[GroupFit]] = {}
        self._errors: dict[str, FloatArray] = {}

    def scores(self, law: Law) -> Scores:
        """The law's errors beyond every final cut; a law that cannot be judged has a reason."""
        judge = self._problem
        out = selection.evaluate(law, judge, self._options, final=True)
        head = Scores(formula=law.text, ok=False, n_params=law.n_params, complexity=law.complexity)
        if out.status != "ok":
            return head.model_copy(update={"reason": out.reason})
        fit = fit_rows(law, judge.rows, self._options)
        fits = [self._refitted(law, judge.rows.take(cut.train), fit, starts=4) for cut in judge.final_cuts]
        self._fits[law.text] = fits
        return head.model_copy(
            update={
                "ok": True,
                "mdl": finite(out.mdl),
                "objective": finite(out.objective),
                "violations": list(out.violations),
                "cuts": [self._cut_error(law, cut, one) for cut, one in zip(judge.final_cuts, fits, strict=True)],
                "dev": None if out.dev is None else _score(out.dev),
            }
        )

    def _refitted(self, law: Law, rows: Rows, warm: GroupFit, starts: int) -> GroupFit:
        tolerance = max(self._options.tolerance, 1e-6)
        options = replace(self._options, starts=starts, thorough=False, tolerance=tolerance, max_steps=20)
        return fit_rows(law, rows, options, warm=warm)

    def _cut_error(self, law: Law, cut: Cut, fit: GroupFit) -> CutError:
        beyond = self._problem.rows.take(cut.test)
        predicted = fit.predict(law, beyond)
        return CutError(
            axis=cut.axis,
            share=cut.share,
            fitted=int(np.count_nonzero(cut.train)),
            hidden=len(beyond),
            weight=digits(cut.weight),
            error=finite(selection.hidden_errors(self._problem, beyond, predicted)),
            mean_error=finite(self._problem.score([(beyond, predicted)]).mae),
        )

    def left_out(self, law: Law) -> FloatArray:
        """The law's errors (1 + parts, cuts along the scale): with every run, then without each group of runs.

        nan where no row is hidden. The law must have been scored.
        """
        if law.text not in self._errors:
            columns = [self._beyond(law, self._problem.final_cuts[i], self._fits[law.text][i]) for i in self._along]
            self._errors[law.text] = np.array(columns).T
        return self._errors[law.text]

    def _beyond(self, law: Law, cut: Cut, fit: GroupFit) -> list[float]:
        """One column of `left_out`; all refits share one call, as groups of one table, to be quick."""
        rows, parts = self._problem.rows, range(self._parts)
        kept = [np.flatnonzero(cut.train & (self._part != part)) for part in parts]
        labels = np.concatenate([_labelled(rows.group[index], part) for part, index in zip(parts, kept, strict=True)])
        known = {(f"{part}:{group}", t): one for part in parts for (group, t), one in fit.fits.items()}
        table = replace(rows.take(np.concatenate(kept)), group=labels)
        again = self._refitted(law, table, GroupFit(known), starts=1)
        errors = [self._error(law, fit, rows.take(cut.test))]
        for part in parts:
            hidden = rows.take(cut.test & (self._part != part))
            errors.append(self._error(law, again, replace(hidden, group=_labelled(hidden.group, part))))
        return errors

    def _error(self, law: Law, fit: GroupFit, hidden: Rows) -> float:
        if not hidden.weight.sum() > 0:
            return math.nan
        predicted = fit.predict(law, hidden)
        error = selection.hidden_errors(self._problem, hidden, {t: predicted[t] for t in self._problem.task.targets})
        return float(np.fmin(error, FAILED * len(predicted)))

    def difference(self, first: Law, other: Law) -> tuple[float, float]:
        """(other - first, its standard error) in nats, over the cuts by their weights. Both must have been scored."""
        gaps = self.left_out(other) - self.left_out(first)
        weights = np.where(np.isnan(gaps), 0.0, [self._problem.final_cuts[i].weight for i in self._along])
        with np.errstate(all="ignore"):
            means = np.nansum(gaps * weights, axis=1) / weights.sum(axis=1)
        told = means[1:][np.isfinite(means[1:])]
        spread = float(np.std(told)) * math.sqrt(len(told) - 1) if len(told) > 1 else math.inf
        return float(means[0]), spread


def _labelled(group: StrArray, part: int) -> StrArray:
    """Group labels that carry the number of the part that is left out."""
    return np.char.add(f"{part}:", group)


def compared(laws: Sequence[Law], scored: Sequence[Scores], judge: Judge) -> Compared:
    """The laws in order of their objective, each against the first. Raises AgentlabError where none could be judged."""
    order = sorted(range(len(laws)), key=lambda i: (len(scored[i].violations), _or_worst(scored[i].objective), i))
    best = order[0]
    if not scored[best].ok:
        raise AgentlabError(f"no formula could be judged; {scored[best].formula}: {scored[best].reason}")
    found = [_difference(laws[best], scored[best], laws[i], scored[i], judge) for i in order[1:]]
    return Compared(laws=[scored[i] for i in order], differences=found, verdict=_words(scored[best], found))


def _difference(first: Law, beside: Scores, law: Law, scored: Scores, judge: Judge) -> Difference:
    if not scored.ok:
        return Difference(
            formula=law.text, against=first.text, nats=None, standard_error=None, mdl=None, verdict="failed"
        )
    nats, error = judge.difference(first, law)
    verdict: Literal["worse", "alike", "better"] = "alike"
    if abs(nats) > SURE * error:
        verdict = "worse" if nats > 0 else "better"
    length = None if scored.mdl is None or beside.mdl is None else digits(scored.mdl - beside.mdl)
    return Difference(
        formula=law.text,
        against=first.text,
        nats=finite(nats),
        standard_error=finite(error),
        mdl=length,
        verdict=verdict,
    )


def _words(best: Scores, found: Sequence[Difference]) -> str:
    """The verdict: which law is believed, which others hidden rows cannot tell from it, and which are worse."""
    parts = [f"{best.formula} has the least objective"]
    for verdict, words in (
        ("alike", "hidden rows do not tell it from"),
        ("better", "hidden rows alone would prefer"),
        ("worse", "it predicts hidden rows better than"),
        ("failed", "could not be judged:"),
    ):
        those = [_figure(d) for d in found if d.verdict == verdict]
        if those:
            parts.append(f"{words} {', '.join(those)}")
    return "; ".join(parts)


def _figure(difference: Difference) -> str:
    if difference.nats is None or difference.standard_error is None:
        return difference.formula
    return f"{difference.formula} ({difference.nats:+.2g} ± {difference.standard_error:.2g} nats)"


def _score(score: Score) -> dict[str, Any]:
    return {k: v if k == "n" else finite(v) for k, v in asdict(score).items()}


def _or_worst(value: Number) -> float:
    return math.inf if value is None else value


def finite(value: float) -> Number:
    """Ten significant digits, or None for what is no number."""
    return digits(value) if math.isfinite(value) else None
