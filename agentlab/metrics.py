"""How far predictions are from observations: one function a metric, and the pooled score of a law.

A prediction that is not a finite number is infinitely wrong, so a metric is never nan. The relative metrics (nmse,
nmae, r2) have no meaning where the observations do not vary, nor ARE where one is zero: they are infinitely bad there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from agentlab.types import AgentlabError, FloatArray, Rows, Score


def mse(y: FloatArray, prediction: FloatArray) -> float:
    """Mean squared error of (n,) predictions, in the target's unit squared."""
    with np.errstate(over="ignore"):
        return float(np.mean(np.square(_errors(y, prediction))))


def mae(y: FloatArray, prediction: FloatArray) -> float:
    """Mean absolute error of (n,) predictions, in the target's unit."""
    return float(np.mean(_errors(y, prediction)))


def nmse(y: FloatArray, prediction: FloatArray) -> float:
    """MSE / var(y) (FACTS section 1); inf where y is constant."""
    return _ratio(mse(y, prediction), 0.0 if np.ptp(y) == 0 else float(np.var(y)))


def nmae(y: FloatArray, prediction: FloatArray) -> float:
    """MAE / mean|y - mean(y)| (FACTS section 1); inf where y is constant."""
    return _ratio(mae(y, prediction), 0.0 if np.ptp(y) == 0 else float(np.mean(np.abs(y - np.mean(y)))))


def r2(y: FloatArray, prediction: FloatArray) -> float:
    """1 - NMSE, not clipped; -inf where y is constant."""
    return 1.0 - nmse(y, prediction)


def are(y: FloatArray, prediction: FloatArray) -> float:
    """Mean absolute relative error, mean |prediction - y| / |y| (arXiv 2410.11840); inf where a y is zero."""
    if not np.all(y):
        return float("inf")
    with np.errstate(over="ignore"):
        return float(np.mean(_errors(y, prediction) / np.abs(y)))


def score(y: FloatArray, prediction: FloatArray) -> Score:
    """Every metric of one target's (n,) predictions; n counts the rows. Raises AgentlabError where there is no row."""
    y, prediction = np.asarray(y, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if y.ndim != 1 or y.shape != prediction.shape:
        raise AgentlabError(f"scores need as many predictions as observations, not {prediction.shape} for {y.shape}")
    if not len(y):
        raise AgentlabError("there is no row to score: give at least one observation")
    relative = nmse(y, prediction)
    return Score(1.0 - relative, relative, nmae(y, prediction), mae(y, prediction), are(y, prediction), len(y))


def pooled(per_target: Mapping[str, tuple[FloatArray, FloatArray]]) -> Score:
    """The score of a law: per target over the pooled rows of all groups, then the mean over targets (FACTS section 1).

    `per_target` holds (y, prediction), each (n,), by target. R2 = 1 - the mean NMSE. `n` counts the predictions of
    all targets.
    """
    if not per_target:
        raise AgentlabError("there is no target to score: name at least one")
    scores = [score(y, prediction) for y, prediction in per_target.values()]
    relative = float(np.mean([s.nmse for s in scores]))
    return Score(
        r2=1.0 - relative,
        nmse=relative,
        nmae=float(np.mean([s.nmae for s in scores])),
        mae=float(np.mean([s.mae for s in scores])),
        are=float(np.mean([s.are for s in scores])),
        n=sum(s.n for s in scores),
    )


def pooled_at(rows: Rows, predicted: Mapping[str, FloatArray]) -> Score:
    """The pooled score of predictions (n,) by target at some rows."""
    return pooled({target: (rows.targets[target], values) for target, values in predicted.items()})


def residuals(prediction: FloatArray, y: FloatArray, *, log: bool) -> FloatArray:
    """Prediction - y, or with `log` log prediction - log y; undefined ones are nan or inf, without a warning."""
    with np.errstate(all="ignore"):
        return np.log(prediction) - np.log(y) if log else prediction - y


def digits(value: float) -> float:
    """Ten significant digits: what traces keep, the same on machines whose last bits differ."""
    return float(f"{value:.10g}")


def _errors(y: FloatArray, prediction: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(prediction - y)
    return np.where(np.isfinite(prediction), distance, np.inf)


def _ratio(value: float, spread: float) -> float:
    return value / spread if spread > 0 else float("inf")
