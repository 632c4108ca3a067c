"""A law as an estimator: the conventions of scikit-learn, and the same predictions by every way to ask for them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from finished_runs import finished
from sklearn.base import clone  # type: ignore[import-untyped]
from sklearn.metrics import r2_score  # type: ignore[import-untyped]
from sklearn.model_selection import cross_val_score  # type: ignore[import-untyped]
from test_discover_model import agentlab

from agentlab.estimator import ScalingLaw
from agentlab.replay import open_run
from agentlab.replay_cells import Cell
from agentlab.replay_notebook import execute, notebook_of
from agentlab.words import UsageError


def table() -> pd.DataFrame:
    sizes = np.geomspace(1e6, 1e9, 12)
    return pd.DataFrame({"N": sizes, "loss": 1.7 + 400 / sizes**0.34}, index=[f"run {i}" for i in range(12)])


def test_it_keeps_its_arguments_as_they_are_and_can_be_cloned_and_cross_validated() -> None:
    one = ScalingLaw("E + A/N**a", seed=3)
    assert one.get_params()["seed"] == 3
    assert clone(one).get_params() == one.get_params()
    assert repr(one.set_params(seed=4)) == "ScalingLaw(formula='E + A/N**a', seed=4)"
    with pytest.raises(UsageError, match="no argument 'sead'; did you mean 'seed'"):
        one.set_params(sead=1)
    data = table().sample(frac=1.0, random_state=0)
    scores = cross_val_score(one, data[["N"]], data["loss"], cv=3)
    assert scores.min() > 0.999


def test_a_fit_finds_the_law_in_frames_and_in_arrays_alike() -> None:
    data = table()
    named = ScalingLaw("E + A/N**a").fit(data[["N"]], data["loss"])
    plain = ScalingLaw("E + A/x0**a").fit(data[["N"]].to_numpy(), data["loss"].to_numpy())
    assert named.params_["all"]["loss"]["E"] == pytest.approx(1.7, rel=1e-4)
    assert list(named.feature_names_in_) == ["N"]
    assert named.predict(data[["N"]]).tolist() == plain.predict(data[["N"]].to_numpy()).tolist()
    assert named.score(data[["N"]], data["loss"]) > 0.9999
    low, high = named.predict_interval(data[["N"]], ci=0.9)
    assert np.all(low <= high)
    assert set(named.intervals_["all"]["loss"]) == {"E", "A", "a"}
    assert named.law_.card().rows == len(data)  # though the folder that it was fitted in is gone


def test_rows_that_hold_no_number_are_named() -> None:
    data = table()
    gaps = data.assign(loss=np.where(data.index == "run 3", np.nan, data["loss"]))
    with pytest.raises(UsageError, match="loss: row 3 is nan; leave such rows out"):
        ScalingLaw("E + A/N**a").fit(gaps[["N"]], gaps["loss"])
    fitted = ScalingLaw("E + A/N**a").fit(data[["N"]], data["loss"])
    with pytest.raises(UsageError, match="loss: row 3 is nan"):
        fitted.score(gaps[["N"]], gaps["loss"])
    with pytest.raises(UsageError, match="names no column of X; there is: x0"):
        ScalingLaw("E + A/N**a").fit(data[["N"]].to_numpy(), data["loss"].to_numpy())
    words = data.assign(N=["one", *map(str, data["N"][1:])])
    with pytest.raises(UsageError, match="N: row 0 is 'one', no number"):
        ScalingLaw("E + A/N**a").fit(words[["N"]], words["loss"])


def test_scores_take_targets_by_name_and_weights_as_scikit_learn_does() -> None:
    sizes = np.geomspace(1e6, 1e9, 16)
    noise = np.random.default_rng(1).normal(1, 0.02, (2, 16))
    data = pd.DataFrame(
        {"N": sizes, "b": (1.7 + 400 / sizes**0.34) * noise[0], "a": (0.9 + 90 / sizes**0.25) * noise[1]}
    )
    law = ScalingLaw("E + A/N**p").fit(data[["N"]], data[["b", "a"]])
    weight = np.linspace(0.1, 3, 16)
    said = law.predict(data[["N"]])
    for given in (None, weight):
        expected = r2_score(data[["b", "a"]], said, sample_weight=given)
        assert law.score(data[["N"]], data[["b", "a"]], sample_weight=given) == pytest.approx(expected, rel=1e-12)
        assert law.score(data[["N"]], data[["a", "b"]], sample_weight=given) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(UsageError, match="1 columns; the law has 2 targets"):
        law.score(data[["N"]], data["a"])


def test_without_a_formula_it_searches_also_where_an_event_loop_runs() -> None:
    data = table()

    async def fitted() -> ScalingLaw:
        return ScalingLaw(candidates=4, max_params=3).fit(data[["N"]], data["loss"])

    one = asyncio.run(fitted())
    assert one.score(data[["N"]], data["loss"]) > 0.99
    assert one.params_


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.ones(3), r"shape \(3,\); give one of \(rows, features\)"),
        (np.ones((2, 2)), "2 columns; the law was fitted to 1"),
    ],
)
def test_data_of_another_shape_are_refused_in_one_line(
    X: Any, words: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(UsageError, match=words):
        ScalingLaw.from_run(finished("plain", tmp_path_factory)).predict(X)
    with pytest.raises(UsageError, match="not fitted yet"):
        ScalingLaw("E + A/N").predict(np.ones((2, 1)))


def test_the_same_law_predicts_the_same_by_command_line_notebook_estimator_and_exported_python(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = open_run(finished("plain", tmp_path_factory))
    points = pd.DataFrame({"N": np.geomspace(1e5, 1e12, 40)})
    points.to_csv(tmp_path / "points.csv", index=False)
    done = agentlab("predict", str(run.folder), f"data={tmp_path / 'points.csv'}", "by=law", "--json")
    found = {"command line": json.loads(done.out.splitlines()[-1])["columns"]["loss"]}
    code = (
        f"import json\nfrom agentlab.replay import open_run\nrun = open_run({str(run.folder)!r})\n"
        f"print(json.dumps(run.law.predict({{'N': {points['N'].tolist()!r}}})['loss'].tolist()))"
    )
    notebook = notebook_of([Cell(code, code=True)])
    assert execute(notebook, tmp_path) == ""
    found["notebook"] = json.loads(notebook.cells[0].outputs[0].text)
    found["estimator"] = ScalingLaw.from_run(run).predict(points).tolist()
    exported: dict[str, Any] = {}
    exec(run.law.to_python(), exported)  # noqa: S102 -- our own text
    found["exported Python"] = exported["predict"]({"N": points["N"].to_numpy()}).tolist()
    mine = run.law.predict(points)["loss"].to_numpy()
    for way, values in found.items():
        assert np.max(np.abs(np.array(values) / mine - 1)) <= 1e-12, way
