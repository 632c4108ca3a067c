"""A law with its recorded parameters, and what can be made of it: predictions with intervals, refits, figures, code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from agentlab import replay_program, selection
from agentlab.audit import Plan, Settings, audit, plan
from agentlab.audit_records import Card
from agentlab.audit_words import beside, run_words, settings_of
from agentlab.fitting import FitOptions, GroupFit, bootstrap, fit_rows
from agentlab.fitting_bootstrap import bootstrap_draws
from agentlab.law import Law, parse
from agentlab.metrics import digits, residuals
from agentlab.replay_ground import Ground, Made
from agentlab.replay_points import Points, in_the_form_of, points_of, rows_of
from agentlab.types import EvaluationError, FloatArray, GroupParams, Outcome, Rows, Score, StrArray
from agentlab.words import UsageError

__all__ = ["DRAWS", "FoundLaw", "Ground", "Hidden", "Made"]

DRAWS = 200
"""Draws behind the intervals that a run puts on record; predictions have as many."""

Intervals = Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]
"""90% intervals (low, high) by group, target and parameter."""


@dataclass(frozen=True)
class Hidden:
    """How a law does on rows hidden from its fit: `train` rows below a cut along `axis`, `test` rows beyond it.

    `nats` is the log of the mean squared error, tempered as selection does it. `observed` and `predicted` (test,) are
    by target; `shown` says that the cut is one of those behind the run's `dev`.
    """

    axis: str
    share: float
    train: int
    test: int
    shown: bool
    score: Score
    nats: float
    scale: FloatArray | None
    observed: Mapping[str, FloatArray]
    predicted: Mapping[str, FloatArray]


@dataclass(frozen=True, eq=False)
class FoundLaw:
    """One law of a run: its formula, or its text where it is a program, with its parameters as they are on record.

    `entry` is the number of its entry, `made` how the parameters came about. `on` holds the rows of a fit made here.
    """

    formula: str
    params: GroupParams
    ground: Ground = field(repr=False)
    entry: int | None = None
    program: bool = False
    made: Made = "law"
    recorded: Intervals = field(default_factory=dict, repr=False)
    on: Rows | None = field(default=None, repr=False)

    @cached_property
    def law(self) -> Law:
        """The formula as a law. Raises UsageError where it is a program."""
        self._refuse_program("law.law")
        return parse(self.formula, self.ground.task.names)

    @cached_property
    def intervals(self) -> Intervals:
        """90% intervals of the parameters: those on record, else by a bootstrap now; none for a program."""
        if self.recorded or self.program:
            return self.recorded
        found = bootstrap(
            self.law, self._rows, self.fit, draws=DRAWS, seed=self.ground.config.seed, options=self._options
        )
        return _rounded_intervals(found)

    def predict(self, points: Points, ci: float | None = None, target: str | None = None) -> Any:  # noqa: ANN401
        """What the law says at points: a mapping of columns or a DataFrame, with a column for the group if any.

        Args:
            points: The features, and the group where the task has groups; other columns are left alone.
            ci: Also gives <target>_low and <target>_high, between which that share of the bootstrap's laws lie: where
                the law runs, not where single noisy runs fall.
            target: One of the targets; all without it.

        Returns:
            Columns (n,) by name; a DataFrame with the same index where one was given.

        Raises:
            UsageError: the points do not fit the task, or `ci` is asked of a program.
        """
        task = self.ground.task
        if target is not None and target not in task.targets:
            raise UsageError(f"target={target!r}: no target of {task.name}; there is: {', '.join(task.targets)}")
        columns, group = points_of(points, task, tuple(self.params))
        n = len(group)
        wanted = task.targets if target is None else (target,)
        if self.program:
            if ci is not None:
                raise UsageError("ci=: the law is a program, which has no bootstrap; leave ci= out")
            rows = Rows(columns, {t: np.zeros(n) for t in task.targets}, group, np.ones(n), None, np.arange(n))
            found = replay_program.predict(self.formula, task, rows, self.params, self.ground.config.sandbox)
        else:
            found = self.law.predict(columns, group, self.params)
        out = {t: found[t] for t in wanted}
        if ci is not None:
            for t in wanted:
                out[f"{t}_low"], out[f"{t}_high"] = self._between(columns, group, t, ci)
        return in_the_form_of(points, out)

    def _between(
        self,
        columns: Mapping[str, FloatArray],
        group: StrArray,
        target: str,
        ci: float,
    ) -> tuple[FloatArray, FloatArray]:
        if not 0 < ci < 1:
            raise UsageError(f"ci={ci}: not between 0 and 1; write ci=0.9 for 90%")
        ends = np.full((2, len(group)), np.nan)
        for label in np.unique(group):
            mine = group == label
            spread = self.law.evaluate({k: v[mine] for k, v in columns.items()}, self.draws[str(label), target])
            ends[:, mine] = np.nanpercentile(spread, [50 * (1 - ci), 50 * (1 + ci)], axis=0)
        return ends[0], ends[1]

    @cached_property
    def draws(self) -> Mapping[tuple[str, str], FloatArray]:
        """The parameters (B, P) of the bootstrap's laws by (group, target), from the run's seed."""
        return bootstrap_draws(
            self.law, self._rows, self.fit, draws=DRAWS, seed=self.ground.config.seed, options=self._options
        )

    @property
    def _rows(self) -> Rows:
        return self.ground.rows if self.on is None else self.on

    @property
    def _options(self) -> FitOptions:
        return self.ground.options("law")

    @cached_property
    def fit(self) -> GroupFit:
        """The law fitted in earnest to the rows, as the run fits the law that it believes."""
        found = fit_rows(self.law, self._rows, self._options)
        if not found.ok:
            raise EvaluationError(f"{self.formula} does not fit: {found.reason}")
        return found

    @cached_property
    def outcome(self) -> Outcome:
        """What judging finds, computed anew: as a candidate where it is one of a search, else as a finalist."""
        final = self.made != "search"
        stage: Made = "search" if self.made == "search" else "finalist"
        if self.program:
            config = self.ground.config
            return replay_program.judge(
                [self.formula], self.ground.judge, config.sandbox, final=final, seconds=config.program_seconds
            )[0]
        return selection.evaluate(self.law, self.ground.judge, self.ground.options(stage), final=final)

    def refit(self, rows: Points | Rows | None = None, starts: int | None = None) -> FoundLaw:
        """The law with parameters computed anew.

        Without arguments they are made as those on record were, and equal them. `rows` are others to fit on: a mapping
        or DataFrame with features, targets and the group, if any. `starts` is another number of starting points.

        Raises:
            EvaluationError: the law does not fit the rows.
        """
        on = rows if rows is None or isinstance(rows, Rows) else rows_of(rows, self.ground.task)
        if self.program:
            return self._refit_program(on)
        if on is None and starts is None:
            return self._refit_as_recorded()
        options = self._options if starts is None else replace(self._options, starts=starts)
        found = fit_rows(self.law, self.ground.every if on is None else on, options)
        if not found.ok:
            raise EvaluationError(f"{self.formula} does not fit: {found.reason}")
        return replace(
            self, params=selection.rounded(found), made="refit", recorded={}, on=self.ground.every if on is None else on
        )

    def _refit_as_recorded(self) -> FoundLaw:
        if self.made in ("search", "finalist"):
            return replace(self, params=self.outcome.params)
        whole = self.fit
        if self.on is None and len(self.ground.every) != len(self.ground.rows):
            whole = fit_rows(self.law, self.ground.every, replace(self._options, starts=4), warm=self.fit)
        again = replace(self, params=selection.rounded(whole), recorded={})
        return replace(again, recorded=again.intervals) if self.recorded else again

    def _refit_program(self, on: Rows | None) -> FoundLaw:
        ground = self.ground
        judge = ground.judge if on is None else replace(ground.judge, rows=on)
        keep = np.ones(len(judge.rows), dtype=bool)
        params = replay_program.fit(self.formula, judge, keep, ground.config.sandbox)
        return replace(self, params=params, made=self.made if on is None else "refit", on=on)

    def residuals(self) -> dict[str, Any]:
        """Every row that is not sealed beside the law, in columns (n x targets,), for tables and figures.

        Columns: the features, `group`, `target`, `observed`, `predicted`, `residual` (predicted - observed, of the
        logarithms where the fit is in logarithms) and `scale` where the task has one.
        """
        rows, task = self.ground.every if self.on is None else self.on, self.ground.task
        points = dict(rows.columns) | ({} if task.group is None else {task.group: rows.group})
        said = self.predict(points)
        count = len(task.targets)
        observed = np.concatenate([rows.targets[t] for t in task.targets])
        predicted = np.concatenate([said[t] for t in task.targets])
        columns: dict[str, Any] = {name: np.tile(values, count) for name, values in rows.columns.items()}
        columns |= {"group": np.tile(rows.group, count), "target": np.repeat(np.array(task.targets), len(rows))}
        columns |= {"observed": observed, "predicted": predicted}
        columns["residual"] = residuals(predicted, observed, log=task.residual == "log")
        return columns | ({} if rows.scale is None else {"scale": np.tile(rows.scale, count)})

    def extrapolation(self) -> tuple[Hidden, ...]:
        """How the law, refitted below each inner cut, predicts the rows beyond it: what finalists are judged by."""
        judge, options = self.ground.judge, self.ground.options("finalist")
        shown = selection.shown_cuts(judge.final_cuts)
        below = replace(options, starts=4, tolerance=max(options.tolerance, 1e-6), max_steps=20)
        warm, found = fit_rows(self.law, judge.rows, options), []
        for cut in judge.final_cuts:
            hidden = judge.rows.take(cut.test)
            said = fit_rows(self.law, judge.rows.take(cut.train), below, warm=warm).predict(self.law, hidden)
            found.append(
                Hidden(
                    cut.axis, cut.share, int(cut.train.sum()), len(hidden), any(c is cut for c in shown),
                    judge.score([(hidden, said)]), selection.hidden_errors(judge, hidden, said), hidden.scale,
                    hidden.targets, said,
                )
            )  # fmt: skip
        return tuple(found)

    def allocate(self, flops: float) -> Plan:
        """The best configuration at a compute in FLOPs, with 90% intervals and what it costs to be wrong.

        Raises:
            AllocationError: the features do not say what a run costs, or leave nothing to choose.
        """
        return plan(self.law, self.ground.task, self.ground.every, Settings(flops=flops))

    def card(self) -> Card:
        """The Law Card, as `agentlab audit` makes it: everything an audit finds about the law on the run's rows."""
        task, every = self.ground.task, self.ground.every
        words = run_words((), "audit", self.ground.config)
        return audit(self.law, task, every, settings_of(words), beside(words, task, len(every)))[0]

    def latex(self) -> str:
        """The formula as LaTeX, without dollar signs."""
        self._refuse_program("law.latex()")
        return self.law.latex()

    def to_python(self) -> str:
        """Source of a module that needs NumPy only and holds the parameters; a program's own text."""
        return self.formula if self.program else self.law.to_python(self.params)

    def _repr_latex_(self) -> str | None:
        return None if self.program else f"$${self.law.latex()}$$"

    def _refuse_program(self, call: str) -> None:
        if self.program:
            raise UsageError(f"{call}: the law is a program, and this reads formulas; its text is law.formula")


def _rounded_intervals(found: Intervals) -> Intervals:
    return {
        g: {t: {p: (digits(low), digits(high)) for p, (low, high) in named.items()} for t, named in targets.items()}
        for g, targets in found.items()
    }
