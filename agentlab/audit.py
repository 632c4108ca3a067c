"""The Law Card: what a fitted law is worth, in one call, from its parameters to the decision it would make for you."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from agentlab import allocation
from agentlab.allocation_regret import regrets
from agentlab.audit_battery import battery
from agentlab.audit_extrapolate import cuts, decision, factors, residuals, rivals, worst
from agentlab.audit_facts import facts, verdict
from agentlab.audit_identify import convergence, parameters
from agentlab.audit_records import Card, Case, Pair
from agentlab.errors import EvaluationError
from agentlab.fitting import FitOptions, fit_rows
from agentlab.fitting_bootstrap import bootstrap_draws
from agentlab.law import Law
from agentlab.metrics import digits
from agentlab.run_rows import SAMPLE_ROWS, sample
from agentlab.selection import fit_options, problem, violations
from agentlab.types import FloatArray, Rows, StrArray, Task

STARTS = 48


@dataclass(frozen=True)
class Settings:
    """What is asked of an audit beside the law and its rows; see audit_words.AuditWords for the words.

    `told` are facts by name, `filters` the expressions that chose the rows.
    """

    draws: int = 1000
    seed: int = 0
    delta: float | None = None
    flops: float | None = None
    flops_per: str | None = None
    params: str | None = None
    tokens: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    filters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Beside:
    """Columns (n,) of the file that are not among the rows, and the names (n,) of the training runs."""

    columns: Mapping[str, FloatArray | StrArray] = field(default_factory=dict)
    labels: StrArray | None = None


@dataclass(frozen=True)
class Plan:
    """The best configuration at a compute, with bootstrap intervals (90%) and what it costs to be wrong.

    `regret` is (median, 95th percentile) over the bootstrap's laws: % of the compute that knowing each would save.
    """

    formula: str
    group: str
    target: str
    question: str
    compute: float
    cost: str | None
    config: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    ratio: float | None
    ratio90: tuple[float, float] | None
    value: float
    value90: tuple[float, float]
    regret: tuple[float, float]
    edge: tuple[str, ...]
    beyond: float | None


def case_of(law: Law, task: Task, rows: Rows, settings: Settings, beside: Beside | None = None) -> Case:
    """The law fitted to the rows, with its bootstrap and the decision it is for; larger tables are sampled.

    Raises:
        EvaluationError: the law does not fit.
        AllocationError: the decision that `settings` ask for cannot be made from the features.
    """
    rows, beside = _at_most(rows, beside or Beside(), settings.seed)
    question = allocation.asked(
        task,
        rows,
        flops=settings.flops,
        flops_per=settings.flops_per,
        params=settings.params,
        tokens=settings.tokens,
    )
    options = replace(fit_options(task, STARTS, settings.seed), delta=settings.delta)
    found = fit_rows(law, rows, options)
    if not found.ok:
        raise EvaluationError(f"{law.text} does not fit: {found.reason}")
    draws = bootstrap_draws(law, rows, found, draws=settings.draws, seed=settings.seed, options=options)
    labels = beside.labels
    return Case(
        law, task, rows, options, found, draws, _focus(rows, task), question, settings.seed, beside.columns, labels
    )


def _focus(rows: Rows, task: Task) -> Pair:
    """The group with most rows (the first of several), and the first target."""
    labels, counts = np.unique(rows.group, return_counts=True)
    return str(labels[counts.argmax()]), task.targets[0]


def _at_most(rows: Rows, beside: Beside, seed: int) -> tuple[Rows, Beside]:
    """At most SAMPLE_ROWS rows, with what stands beside them."""
    if len(rows) <= SAMPLE_ROWS:
        return rows, beside
    place = "row "  # no column of a file is named so: names of features are identifiers
    marked = replace(rows, columns={**rows.columns, place: np.arange(len(rows), dtype=np.float64)})
    kept = sample(marked, SAMPLE_ROWS, seed).columns[place].astype(np.int64)
    columns = {k: v[kept] for k, v in beside.columns.items()}
    return rows.take(kept), Beside(columns, None if beside.labels is None else beside.labels[kept])


def audit(
    law: Law, task: Task, rows: Rows, settings: Settings | None = None, beside: Beside | None = None
) -> tuple[Card, Case]:
    """Everything an audit finds about `law` on `rows`, and the fitted case that plots are drawn from.

    Raises:
        EvaluationError, AllocationError: as case_of.
    """
    settings = settings or Settings()
    case = case_of(law, task, rows, settings, beside)
    found, tied = parameters(case)
    chosen = decision(case, case.at, case.draws[case.focus])
    card = Card(
        task=task.name,
        formula=law.text,
        latex=law.latex(),
        key=law.key,
        n_params=law.n_params,
        rows=len(case.rows),
        focus=case.focus,
        question=allocation.summary(case.question),
        compute=case.question.compute if case.question.cost else None,
        cost=case.question.cost,
        settings=_told(case.options, settings),
        parameters=found,
        correlations=tied,
        convergence=convergence(case),
        residuals=residuals(case),
        worst=worst(case),
        factors=factors(case),
        cuts=cuts(case),
        rivals=rivals(case),
        battery=battery(case),
        decision=chosen,
        decision_regret90=None if chosen is None else _regrets(case, (50, 95)),
        violations=violations(law, case.fit, problem(task, case.rows, settings.seed)),
        facts=facts(case, settings.told, settings.filters),
        verdict=(),
        notes=_notes(case, len(rows)),
    )
    return replace(card, verdict=verdict(card)), case


def _told(options: FitOptions, settings: Settings) -> dict[str, str | float | int]:
    bend = "from the data" if options.delta is None else options.delta
    told: dict[str, str | float | int] = {"residual": options.residual, "robust": options.robust}
    told |= {} if options.robust == "none" else {"delta": bend}
    return told | {"starts": options.starts, "draws": settings.draws, "seed": settings.seed}


def _notes(case: Case, n: int) -> tuple[str, ...]:
    notes = []
    if len(case.rows) < n:
        notes.append(f"audited on a sample of {len(case.rows)} of {n} rows")
    if len(case.fit.fits) > 1:
        notes.append(f"decisions and the battery are for group {case.focus[0]}, target {case.focus[1]}")
    return tuple(notes)


def _regrets(case: Case, at: tuple[float, float]) -> tuple[float, float] | None:
    """Percentiles of what the fitted decision costs with draws of the bootstrap taken as the truth, in % of compute."""
    chosen = allocation.best(case.law, case.at, case.question).config
    lost = regrets(case.law, case.draws[case.focus][:REGRET_DRAWS], case.question, chosen)
    return None if not np.isfinite(lost).any() else _interval(lost, at)


REGRET_DRAWS = 400


def plan(law: Law, task: Task, rows: Rows, settings: Settings) -> Plan:
    """The best configuration at `settings.flops`.

    Raises:
        AllocationError: no compute is given or the features do not say what a run costs, or no feature can be chosen.
        EvaluationError: the law does not fit, or has no finite value at that compute.
    """
    case = case_of(law, task, rows, settings)
    question = case.question
    if question.cost is None or not allocation.active(law, question):
        raise allocation.AllocationError(
            "the features do not say what a run costs; write --flops-per as an expression over " + ", ".join(task.names)
            if question.cost is None
            else "the compute decides every feature: there is nothing left to choose"
        )
    choice = allocation.best(law, case.at, question)
    if not np.isfinite(choice.value[0]):
        raise EvaluationError(f"{law.text} has no finite value at {question.compute:.4g} FLOP")
    spread = allocation.best(law, case.draws[case.focus], question)
    ratio, ratios = choice.ratio(question), spread.ratio(question)
    lost = _regrets(case, (50, 95))
    spent = allocation.cost_of(question.cost, case.rows.columns)
    return Plan(
        law.text,
        *case.focus,
        allocation.summary(question),
        question.compute,
        question.cost,
        {k: digits(float(v[0])) for k, v in choice.config.items()},
        {k: _interval(v) for k, v in spread.config.items()},
        None if ratio is None else digits(float(ratio[0])),
        None if ratios is None else _interval(ratios),
        digits(float(choice.value[0])),
        _interval(spread.value),
        lost or (np.nan, np.nan),
        tuple(k for k, v in choice.edge.items() if v[0]),
        digits(question.compute / float(spent.max())),
    )


def _interval(values: FloatArray, at: tuple[float, float] = (5, 95)) -> tuple[float, float]:
    kept = values[np.isfinite(values)]
    low, high = np.percentile(kept, at) if len(kept) else (np.nan, np.nan)
    return digits(float(low)), digits(float(high))
