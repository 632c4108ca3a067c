"""Metrics: the definitions of FACTS section 1, and what happens where they have none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agentlab import metrics
from agentlab.types import AgentlabError, FloatArray

Y = np.array([1.0, 2.0, 4.0, 5.0])
PREDICTION = np.array([1.5, 2.0, 3.0, 7.0])

floats = st.floats(-1e6, 1e6, allow_nan=False)
samples = arrays(np.float64, st.integers(3, 20), elements=floats, unique=True)


def test_each_metric_is_its_formula() -> None:
    assert metrics.mse(Y, PREDICTION) == pytest.approx((0.25 + 0 + 1 + 4) / 4)
    assert metrics.mae(Y, PREDICTION) == pytest.approx((0.5 + 0 + 1 + 2) / 4)
    assert metrics.nmse(Y, PREDICTION) == pytest.approx(5.25 / 10)
    assert metrics.nmae(Y, PREDICTION) == pytest.approx(3.5 / 6)
    assert metrics.are(Y, PREDICTION) == pytest.approx((0.5 + 0 + 0.25 + 0.4) / 4)
    assert metrics.r2(Y, PREDICTION) == pytest.approx(1 - 5.25 / 10)


def test_a_score_holds_every_metric() -> None:
    score = metrics.score(Y, PREDICTION)
    for name in ("r2", "nmse", "nmae", "mae", "are"):
        assert getattr(score, name) == getattr(metrics, name)(Y, PREDICTION)
    assert score.n == 4


def test_a_pooled_score_is_the_mean_over_targets() -> None:
    other = (10 * Y, 10 * PREDICTION + 3)
    pooled = metrics.pooled({"a": (Y, PREDICTION), "b": other})
    parts = [metrics.score(Y, PREDICTION), metrics.score(*other)]
    for name in ("nmse", "nmae", "mae", "are"):
        assert getattr(pooled, name) == pytest.approx(np.mean([getattr(p, name) for p in parts]))
    assert pooled.r2 == pytest.approx(1 - pooled.nmse)
    assert pooled.n == 8


def test_r2_is_not_clipped() -> None:
    assert metrics.r2(Y, Y + 100) < -1000


def test_relative_metrics_of_a_constant_target_are_infinitely_bad_and_never_nan() -> None:
    constant = np.full(7, 0.1)
    score = metrics.score(constant, constant + 1)
    assert (score.nmse, score.nmae, score.r2) == (np.inf, np.inf, -np.inf)
    assert score.mae == pytest.approx(1)
    assert metrics.score(constant, constant).nmse == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_prediction_that_is_no_number_is_infinitely_wrong(bad: float) -> None:
    prediction = PREDICTION.copy()
    prediction[1] = bad
    score = metrics.score(Y, prediction)
    assert score.nmse == np.inf
    assert score.r2 == -np.inf
    assert not np.isnan([score.nmae, score.mae, score.are]).any()


def test_the_relative_error_is_infinite_where_an_observation_is_zero() -> None:
    assert metrics.are(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == np.inf


def test_nothing_to_score_is_said_in_one_line() -> None:
    with pytest.raises(AgentlabError, match="no row to score"):
        metrics.score(np.zeros(0), np.zeros(0))
    with pytest.raises(AgentlabError, match="as many predictions"):
        metrics.score(Y, PREDICTION[:2])
    with pytest.raises(AgentlabError, match="no target"):
        metrics.pooled({})


@given(samples)
def test_perfect_predictions_score_one_and_the_mean_scores_zero(y: FloatArray) -> None:
    assert metrics.score(y, y).r2 == 1
    assert metrics.r2(y, np.full(len(y), y.mean())) == pytest.approx(0, abs=1e-6)


@given(samples, st.floats(1e-3, 1e3), st.sampled_from([-1.0, 1.0]))
def test_relative_metrics_do_not_depend_on_the_unit(y: FloatArray, scale: float, sign: float) -> None:
    prediction = np.roll(y, 1)
    for metric in (metrics.nmse, metrics.nmae):
        assert metric(sign * scale * y, sign * scale * prediction) == pytest.approx(metric(y, prediction), rel=1e-6)
