"""Baselines: predictions without a fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agentlab import baselines
from agentlab.types import ALL, AgentlabError, FloatArray, Rows, Task, Variable

TASK = Task("t", (Variable("n"), Variable("d")), ("loss",))
ONE = Task("t", (Variable("n"),), ("loss",))


def rows(
    loss: list[float], group: list[str] | None = None, scale: list[float] | None = None, **columns: list[float]
) -> Rows:
    count = len(loss)
    return Rows(
        {name: np.array(values, dtype=float) for name, values in columns.items()},
        {"loss": np.array(loss, dtype=float)},
        np.array(group) if group else np.full(count, ALL),
        np.ones(count),
        None if scale is None else np.array(scale, dtype=float),
        np.arange(count),
    )


def at(group: list[str] | None = None, **columns: list[float]) -> Rows:
    return rows([0.0] * len(next(iter(columns.values()))), group, **columns)


def ask(name: str, task: Task, train: Rows, points: Rows) -> FloatArray:
    return baselines.predict(name, task, train, points)["loss"]


def test_the_nearest_neighbour_is_near_in_log_space() -> None:
    train = rows([1, 2, 3], n=[1, 10, 1000])
    assert ask("nearest neighbour", ONE, train, at(n=[4, 90, 110, 1e9])).tolist() == [2, 2, 3, 3]


def test_a_feature_that_is_no_log_feature_counts_as_it_is() -> None:
    task = replace(ONE, features=(Variable("n", log=False),))
    train = rows([1, 2, 3], n=[-1, 10, 1000])
    assert ask("nearest neighbour", task, train, at(n=[4.6, 90, 504, 506])).tolist() == [2, 2, 2, 3]


def test_features_are_measured_in_their_own_spread() -> None:
    train = rows([1, 2, 3, 4], n=[1, 1, 1e8, 1e8], d=[1, 2, 1, 2])
    assert ask("nearest neighbour", TASK, train, at(n=[1e3, 1e5], d=[1.9, 1.1])).tolist() == [2, 3]


@pytest.mark.parametrize("task", [ONE, TASK])
def test_ties_are_averaged_by_weight(task: Task) -> None:
    train = rows([1, 2, 6], n=[1, 1, 100], d=[5, 5, 5])
    points = at(n=[1, 10], d=[5, 5])
    assert ask("nearest neighbour", task, train, points).tolist() == [1.5, 3]
    heavy = replace(train, weight=np.array([3.0, 1.0, 0.0]))
    assert ask("nearest neighbour", task, heavy, points).tolist() == [1.25, 1.25]


def test_a_group_is_predicted_from_its_own_rows() -> None:
    train = rows([1, 2, 3, 5], ["a", "a", "b", "b"], n=[1, 10, 1, 10])
    points = at(["a", "b", "c"], n=[10, 10, 10])
    for name, expected in {"nearest neighbour": [2, 5], "group mean": [1.5, 4], "last rung": [2, 5]}.items():
        found = ask(name, ONE, train, points)
        assert found[:2].tolist() == expected
        assert np.isnan(found[2])


def test_the_last_rung_is_the_largest_scale_and_the_nearest_row_there() -> None:
    train = rows([9, 1, 2, 3], scale=[1e3, 1e6, 1e6, 0.995e6], n=[10, 10, 100, 1000], d=[5, 5, 5, 5])
    assert ask("last rung", TASK, train, at(n=[10, 90, 1e6], d=[5, 5, 5])).tolist() == [1, 2, 3]
    same = rows([9, 1, 2], scale=[1, 2, 2], n=[1, 2, 2])
    assert ask("last rung", ONE, same, at(n=[1, 50])).tolist() == [1.5, 1.5]


def test_without_a_scale_the_last_rung_is_the_nearest_neighbour() -> None:
    train, points = rows([1, 2, 3], n=[1, 10, 1000]), at(n=[2, 2000])
    assert ask("last rung", ONE, train, points).tolist() == ask("nearest neighbour", ONE, train, points).tolist()


def test_log_features_may_hold_zeros_and_signs() -> None:
    train = rows([1, 2, 3, 4], n=[-100, 0, 1, 1e6])
    found = ask("nearest neighbour", ONE, train, at(n=[-1e9, 0.1, 2, 1e4]))
    assert found.tolist() == [1, 2, 3, 4]
    assert ask("nearest neighbour", ONE, rows([1, 2], n=[1, 10]), at(n=[0, -5])).tolist() == [1, 1]


def test_every_target_is_predicted() -> None:
    task = replace(ONE, targets=("loss", "error"))
    train = rows([1, 2], n=[1, 10])
    both = replace(train, targets={"loss": train.targets["loss"], "error": np.array([7.0, 8.0])})
    for name in baselines.NAMES:
        assert list(baselines.predict(name, task, both, at(n=[1, 20]))) == ["loss", "error"]
    assert baselines.predict("nearest neighbour", task, both, at(n=[20]))["error"].tolist() == [8]


def test_an_unknown_baseline_is_named_in_the_error() -> None:
    with pytest.raises(AgentlabError, match="no baseline 'nearst'; there is: nearest neighbour"):
        baselines.predict("nearst", ONE, rows([1], n=[1]), at(n=[1]))


values = st.floats(-1e300, 1e300, allow_nan=False)


@given(
    known=arrays(np.float64, st.tuples(st.integers(1, 8), st.just(2)), elements=values),
    asked=arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=values),
    log=st.booleans(),
    name=st.sampled_from(baselines.NAMES),
)
def test_predictions_stay_within_what_was_seen_whatever_the_numbers(
    known: FloatArray, asked: FloatArray, log: bool, name: str
) -> None:
    task = replace(TASK, features=(Variable("n", log=log), Variable("d", log=log)))
    loss = np.arange(len(known), dtype=float)
    train = rows(loss.tolist(), scale=loss.tolist(), n=known[:, 0].tolist(), d=known[:, 1].tolist())
    points = at(n=asked[:, 0].tolist(), d=asked[:, 1].tolist())
    found = ask(name, task, train, points)
    assert np.all((found >= loss.min()) & (found <= loss.max()))
    alone = [ask(name, task, train, points.take(np.array([i])))[0] for i in range(len(points))]
    assert found.tolist() == alone


@given(x=arrays(np.float64, st.integers(2, 12), elements=st.floats(1e-6, 1e6)), seed=st.integers(0, 5))
def test_the_order_of_the_training_rows_and_the_unit_of_a_feature_do_not_matter(x: FloatArray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(x))
    train = rows(np.arange(0.0, len(x)).tolist(), n=x.tolist(), d=(x[::-1] ** 2).tolist())
    points = at(n=[1e-3, 1.0, 1e3], d=[1.0, 1.0, 1.0])
    other = rows(np.arange(0.0, len(x))[order].tolist(), n=x[order].tolist(), d=(x[::-1] ** 2)[order].tolist())
    first, second = ask("nearest neighbour", TASK, train, points), ask("nearest neighbour", TASK, other, points)
    assert first == pytest.approx(second)


def test_blocks_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    train = rows(rng.normal(size=50).tolist(), n=rng.uniform(1, 9, 50).tolist(), d=rng.uniform(1, 9, 50).tolist())
    points = at(n=rng.uniform(1, 9, 40).tolist(), d=rng.uniform(1, 9, 40).tolist())
    whole = ask("nearest neighbour", TASK, train, points)
    monkeypatch.setattr(baselines, "BLOCK", 130)
    assert ask("nearest neighbour", TASK, train, points).tolist() == whole.tolist()
