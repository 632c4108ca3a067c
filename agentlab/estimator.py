"""A scaling law as an estimator with `fit` and `predict`, for those who work with pandas and scikit-learn."""

from __future__ import annotations

import csv
import inspect
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from agentlab import selection
from agentlab.csv_header import TableError
from agentlab.errors import nearest
from agentlab.metrics import pooled
from agentlab.replay import Run, open_run
from agentlab.replay_law import FoundLaw, Ground, Intervals
from agentlab.table import intake
from agentlab.types import Budget, FloatArray, GroupParams, RunConfig
from agentlab.words import UsageError

WEIGHT = "sample_weight"
ROWS = "rows.csv"

Data = Any
"""A DataFrame, or an array (n, features)."""


class ScalingLaw:
    """A law fitted to rows: of the form that `formula` writes, or, where it is None, of one that is searched.

    Args:
        formula: Such as "E + A/N**a"; names that are no columns of X are parameters. None searches.
        candidates: Laws that a search tries at most.
        seed: Of all chance: the same rows and seed give the same law.
        group: The column of X that says which group a row is of; parameters are fitted for each group.
        scale: An expression over columns, such as "6*N*D", that orders rows for extrapolation.
        residual: "log" for relative errors, "plain"; None takes it from the data.
        robust: The loss of the fits: "huber", "soft_l1" or "none"; None takes it from the data.
        max_params: Parameters that a law may have for one group and target.

    After `fit`: `law_` with the law, `params_` and `intervals_` by group, target and name, `formula_`, `run_` where it
    was searched, `n_features_in_`, `feature_names_in_`, `targets_`.
    """

    _estimator_type = "regressor"

    def __init__(
        self,
        formula: str | None = None,
        *,
        candidates: int = 200,
        seed: int = 0,
        group: str | None = None,
        scale: str | None = None,
        residual: Literal["log", "plain"] | None = None,
        robust: Literal["none", "huber", "soft_l1"] | None = None,
        max_params: int | None = None,
    ) -> None:
        self.formula = formula
        self.candidates = candidates
        self.seed = seed
        self.group = group
        self.scale = scale
        self.residual = residual
        self.robust = robust
        self.max_params = max_params

    @classmethod
    def from_run(cls, run: Run | str | Path) -> Self:
        """An estimator that is fitted already: with the law of a finished run, as its parameters are on record."""
        one = run if isinstance(run, Run) else open_run(run)
        law, task = one.law, one.task
        made = cls(
            None if law.program else law.formula, seed=one.config.seed, group=task.group, scale=task.scale,
            residual=task.residual, robust=task.robust, max_params=task.max_params,
        )  # fmt: skip
        made._keep(law, [*task.names, *([task.group] if task.group else [])], task.targets)
        return made

    # ---- the conventions of scikit-learn, without a need for it ----

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - scikit-learn's signature
        """The arguments that the estimator was made with."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:  # noqa: ANN401 - values of the arguments
        """Change arguments; `fit` goes by them. Raises UsageError for one that there is not."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise UsageError(f"ScalingLaw: no argument {name!r}; {nearest(name, list(known))}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        usual = {n: p.default for n, p in inspect.signature(type(self)).parameters.items()}
        told = [f"{k}={v!r}" for k, v in self.get_params().items() if v != usual[k]]
        return f"ScalingLaw({', '.join(told)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "law_")

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn asks, and has the type
        utils: Any = import_module("sklearn.utils")

        target = utils.TargetTags(required=True, one_d_labels=False, multi_output=True)
        return utils.Tags(estimator_type="regressor", target_tags=target, regressor_tags=utils.RegressorTags())

    # ---- fitting ----

    def fit(self, X: Data, y: Data, sample_weight: FloatArray | None = None) -> Self:
        """Fit the law to features X (n, d) and targets y, (n,) or (n, t).

        Columns of a DataFrame have their names; those of an array are called x0, x1, .. and its target y.

        Raises:
            UsageError: the data are not what a law can be fitted to.
            EvaluationError: the formula does not fit.
            NoLawError: no law was found.
        """
        columns, targets = _columns(X), _targets(y)
        _refuse_gaps({**columns, **targets})
        _refuse_words({name: values for name, values in columns.items() if name != self.group})
        if twice := [t for t in targets if t in columns]:
            raise UsageError(f"y: {twice[0]!r} is a column of X as well; name it otherwise")
        if self.group is not None and self.group not in columns:
            raise UsageError(f"group={self.group!r}: no column of X; {nearest(self.group, list(columns))}")
        weight = {} if sample_weight is None else {WEIGHT: np.asarray(sample_weight, dtype=np.float64)}
        with tempfile.TemporaryDirectory(prefix="agentlab-fit-") as name:
            folder = Path(name)
            _write(folder / ROWS, {**columns, **targets, **weight})
            features = [c for c in columns if c != self.group]
            try:
                law = self._made(folder, features, list(targets), weighted=bool(weight))
            except TableError as error:
                raise UsageError(str(error).replace(str(folder / ROWS), "the rows of X and y")) from None
        self._keep(law, list(columns), tuple(targets))
        return self

    def _made(self, folder: Path, features: list[str], targets: list[str], *, weighted: bool) -> FoundLaw:
        from agentlab import runs  # noqa: PLC0415 - brings the whole loop along

        config = RunConfig(
            data=str(folder / ROWS), target=",".join(targets), features=",".join(features), group=self.group,
            weights=WEIGHT if weighted else None, scale=self.scale, residual=self.residual, robust=self.robust,
            max_params=self.max_params, seed=self.seed, budget=Budget(candidates=self.candidates), out=str(folder),
        )  # fmt: skip
        taken = intake(config)
        made = runs.create(config, replace(taken, holdout=None))
        if self.formula is None:
            # A thread of its own: in a notebook the caller's event loop runs already.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(runs.carry_out, made, lambda _: None).result()
            law = open_run(made).law
        else:
            free = FoundLaw(self.formula, {}, Ground(made, taken.task, config))
            if not free.law.used:
                raise UsageError(f"formula={self.formula!r}: names no column of X; there is: {', '.join(features)}")
            law = replace(free, params=selection.rounded(free.fit))
        # The folder goes: what is needed of it later is read now.
        _ = law.ground.rows, law.ground.every
        return law

    def _keep(self, law: FoundLaw, columns: list[str], targets: tuple[str, ...]) -> None:
        self.law_ = law
        self.formula_ = law.formula
        self.params_: GroupParams = law.params
        self.targets_ = targets
        self.n_features_in_ = len(columns)
        self.feature_names_in_ = np.array(columns, dtype=object)

    @property
    def intervals_(self) -> Intervals:
        """90% intervals of the parameters by resampled rows; those on record for a law of a run."""
        return self._fitted().intervals

    # ---- using ----

    def predict(self, X: Data) -> FloatArray:
        """Predictions (n,), or (n, t) for several targets."""
        found = self._fitted().predict(self._named(X))
        return self._stacked([found[t] for t in self.targets_])

    def predict_interval(self, X: Data, ci: float = 0.9) -> tuple[FloatArray, FloatArray]:
        """Where the law lies, (low, high), each as `predict` gives it, in the share `ci` of the bootstrap's laws."""
        found = self._fitted().predict(self._named(X), ci=ci)
        low, high = ([found[f"{t}_{end}"] for t in self.targets_] for end in ("low", "high"))
        return self._stacked(low), self._stacked(high)

    def score(self, X: Data, y: Data, sample_weight: FloatArray | None = None) -> float:
        """R2, the mean over the targets, not clipped; columns of a DataFrame `y` are taken by their names."""
        found, targets = self._fitted().predict(self._named(X)), _targets(y)
        _refuse_gaps(targets)
        if len(targets) != len(self.targets_):
            raise UsageError(f"y: {len(targets)} columns; the law has {len(self.targets_)} targets: give as many")
        if hasattr(y, "columns") and len(targets) > 1:
            if missing := [t for t in self.targets_ if t not in targets]:
                raise UsageError(f"y: no column {missing[0]!r}; {nearest(missing[0], list(targets))}")
            targets = {t: targets[t] for t in self.targets_}
        pairs = {t: (seen, np.asarray(found[t])) for t, seen in zip(self.targets_, targets.values(), strict=True)}
        if sample_weight is None:
            return pooled(pairs).r2
        return float(np.mean([_weighted_r2(seen, said, sample_weight) for seen, said in pairs.values()]))

    def _fitted(self) -> FoundLaw:
        if not hasattr(self, "law_"):
            raise UsageError("ScalingLaw: not fitted yet; call fit(X, y) first, or make it with from_run")
        return self.law_

    def _named(self, X: Data) -> dict[str, Any]:
        """The columns of X by the names of the features: by their place where X is an array."""
        columns = _columns(X)
        if hasattr(X, "columns"):
            return columns
        if len(columns) != self.n_features_in_:
            raise UsageError(f"X: {len(columns)} columns; the law was fitted to {self.n_features_in_}: give as many")
        return dict(zip([str(n) for n in self.feature_names_in_], columns.values(), strict=True))

    def _stacked(self, columns: list[FloatArray]) -> FloatArray:
        return np.asarray(columns[0]) if len(columns) == 1 else np.column_stack(columns)


def _columns(X: Data) -> dict[str, Any]:
    """The columns by name: those of a DataFrame, or x0, x1, .. of an array."""
    if hasattr(X, "columns"):
        return {str(name): np.asarray(X[name]) for name in X.columns}
    values = np.asarray(X)
    if values.ndim != 2 or not values.shape[1]:
        raise UsageError(f"X: an array of shape {values.shape}; give one of (rows, features), or a DataFrame")
    return {f"x{i}": values[:, i] for i in range(values.shape[1])}


def _targets(y: Data) -> dict[str, FloatArray]:
    """The targets by name: those of a DataFrame or Series, or y, or y0, y1, .. of an array."""
    if hasattr(y, "columns"):
        return {str(name): _numbers(y[name]) for name in y.columns}
    values = _numbers(y)
    if values.ndim not in (1, 2):
        raise UsageError(f"y: an array of shape {values.shape}; give one of (rows,) or (rows, targets)")
    if values.ndim == 1:
        return {str(getattr(y, "name", None) or "y"): values}
    return {f"y{i}": values[:, i] for i in range(values.shape[1])}


def _refuse_gaps(columns: Mapping[str, Any]) -> None:
    """Raise UsageError for a number that is missing or infinite, with its row, counted from 0."""
    for name, values in columns.items():
        if values.dtype.kind == "f" and len(gaps := np.flatnonzero(~np.isfinite(values))):
            more = f", and {len(gaps) - 1} more" if len(gaps) > 1 else ""
            raise UsageError(f"{name}: row {gaps[0]} is {values[gaps[0]]}{more}; leave such rows out, or fill them in")


def _refuse_words(columns: Mapping[str, Any]) -> None:
    """Raise UsageError for a feature that is no number, with its row, counted from 0."""
    for name, values in columns.items():
        for i, value in enumerate(values if values.dtype.kind not in "fiub" else ()):
            try:
                float(value)
            except (TypeError, ValueError):
                raise UsageError(
                    f"{name}: row {i} is {value!r}, no number; leave the column out, or name it group="
                ) from None


def _numbers(y: Data) -> FloatArray:
    try:
        return np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError("y: holds something that is no number; write numbers") from error


def _weighted_r2(seen: FloatArray, said: FloatArray, weight: FloatArray) -> float:
    """R2 of one target where row i counts weight[i] times."""
    w = _numbers(weight)
    if not seen.shape == said.shape == w.shape:
        raise UsageError(f"X, y and sample_weight differ in length: {len(said)}, {len(seen)} and {w.size} rows")
    spread = float(np.sum(w * (seen - np.average(seen, weights=w)) ** 2)) if w.sum() else 0.0
    return 1 - float(np.sum(w * (seen - said) ** 2)) / spread if spread else float("nan")


def _write(path: Path, columns: Mapping[str, Any]) -> None:
    """A table that reads back to the same bits."""
    sizes = {len(values) for values in columns.values()}
    if len(sizes) > 1:
        raise UsageError(f"X, y and sample_weight differ in length: {', '.join(map(str, sorted(sizes)))} rows")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*([_cell(v) for v in values] for values in columns.values()), strict=True))


def _cell(value: object) -> str:
    return repr(float(value)) if isinstance(value, int | float | np.number) else str(value)
