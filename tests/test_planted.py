"""Planted laws: known truth, drawn from (family, seed), of which one family in four is outside the starting grammar."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.catalog import load_task
from agentlab.fitting import fit_rows
from agentlab.law import from_tree, parse
from agentlab.library import sweep
from agentlab.library_naming import named
from agentlab.metrics import pooled
from agentlab.planted import Design, Family, Planted, PlantedError, families, family, plant
from agentlab.planted_designs import NEAR, REACH
from agentlab.planted_files import write_task
from agentlab.planted_records import DESIGNS
from agentlab.selection import fit_options
from agentlab.types import FloatArray

NAMES = [f.name for f in families()]
OUTSIDE = [f for f in families() if f.outside]
FROZEN = "b460c8dc0dae98a3b3e7f7918120d41da4a70302d14c966866d5e546457a058f"


def keys(one: Family) -> set[str]:
    return {parse(text, one.names).key for text in (one.formula, *one.equal)}


def test_there_are_twenty_families_of_which_five_are_outside() -> None:
    assert len(set(NAMES)) == 20
    assert len(OUTSIDE) == 5


def test_the_outside_families_are_what_they_were_before_any_tuning() -> None:
    definitions = "\n".join(repr(one) for one in OUTSIDE)
    assert hashlib.sha256(definitions.encode()).hexdigest() == FROZEN, "these families are frozen: never change them"


def seed_keys(name: str) -> set[str]:
    """The keys of all laws that the search starts from on a set of this family."""
    task = plant(name, 0).task
    return {from_tree(named(tree, task.names), task.names).key for tree in sweep(task.features)}


@pytest.mark.parametrize("one", families(), ids=lambda f: f.name)
def test_only_the_outside_families_are_missing_from_the_laws_that_the_search_starts_from(one: Family) -> None:
    assert bool(keys(one) & seed_keys(one.name)) != one.outside


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_a_truth_has_its_constant_and_every_column_its_place(name: str) -> None:
    one = plant(name, 0)
    law = parse(one.formula, one.task.names)
    assert set(law.used) == set(one.task.names) == set(one.rows.columns)
    for targets in one.params.values():
        assert set(targets[one.task.targets[0]]) == set(law.params)
    assert law.n_params <= one.task.max_params
    assert one.task.reference is None, "a search must not be handed the truth"


@pytest.mark.parametrize("name", NAMES)
def test_the_hold_out_follows_the_truth_at_2_to_100_times_the_scale(name: str) -> None:
    one = plant(name, 1)
    law = parse(one.formula, one.task.names)
    for target, truth in law.predict(one.holdout.columns, one.holdout.group, one.params).items():
        np.testing.assert_array_equal(one.holdout.targets[target], truth)
    assert one.rows.scale is not None
    assert one.holdout.scale is not None
    times = one.holdout.scale / one.rows.scale.max()
    assert times.min() >= NEAR
    assert times.max() <= REACH


@given(st.sampled_from(NAMES), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_same_family_and_seed_give_the_same_set(name: str, seed: int) -> None:
    one, again, other = plant(name, seed), plant(name, seed), plant(name, seed + 1)
    assert same(one, again)
    assert not same(one, other)


def same(one: Planted, two: Planted) -> bool:
    def drawn(of: Planted) -> tuple[object, ...]:
        return of.params, of.noise, of.design, of.outliers

    def arrays(of: Planted) -> list[FloatArray]:
        return [v for rows in (of.rows, of.holdout) for some in (rows.columns, rows.targets) for v in some.values()]

    return drawn(one) == drawn(two) and all(map(np.array_equal, arrays(one), arrays(two)))


@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.sampled_from(DESIGNS))
@settings(max_examples=60, deadline=None)
def test_every_set_is_finite_and_lies_in_its_ranges(name: str, seed: int, design: Design) -> None:
    kind, one = family(name), plant(name, seed, design=design)
    assert kind.rows[0] <= len(one.rows) <= kind.rows[1]
    assert one.rows.groups == one.holdout.groups == tuple(one.params)
    assert all(np.isfinite(y).all() for rows in (one.rows, one.holdout) for y in rows.targets.values())
    for feature in kind.features:
        values = one.rows.columns[feature.name]
        assert feature.low * (1 - 1e-9) <= values.min() <= values.max() <= feature.high * (1 + 1e-9)
        assert not feature.choices or set(values) <= set(feature.choices)


def test_setting_the_noise_leaves_the_law_and_the_design_as_drawn() -> None:
    one, quiet = plant("skaling", 5), plant("skaling", 5, noise=0.0, outliers=0.0)
    assert one.params == quiet.params
    np.testing.assert_array_equal(one.rows.columns["N"], quiet.rows.columns["N"])
    truth = parse(quiet.formula, quiet.task.names).predict(quiet.rows.columns, quiet.rows.group, quiet.params)
    np.testing.assert_array_equal(quiet.rows.targets["loss"], truth["loss"])


def test_noise_and_outliers_are_as_large_as_asked_for() -> None:
    one, quiet = (plant("vocab", 2, noise=noise, outliers=out, rows=2000) for noise, out in ((0.01, 0.05), (0.0, 0.0)))
    error = np.abs(one.rows.targets["loss"] / quiet.rows.targets["loss"] - 1)
    assert np.median(error) == pytest.approx(0.6745 * 0.01, rel=0.15)
    assert np.mean(error > 0.0499) == pytest.approx(0.05, abs=0.002)


def test_what_cannot_be_planted_is_refused_in_one_line() -> None:
    with pytest.raises(PlantedError, match="chinchilla"):
        plant("chinchila", 0)
    with pytest.raises(PlantedError, match="noise=-1"):
        plant("chinchilla", 0, noise=-1.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_true_form_fitted_to_quiet_rows_extrapolates_on_most_seeds(name: str) -> None:
    found = [true_r2(plant(name, seed, noise=0.002, outliers=0.0, rows=family(name).rows[1])) for seed in range(3)]
    assert np.median(found) >= 0.9, found


def true_r2(one: Planted) -> float:
    law = parse(one.formula, one.task.names)
    predicted = fit_rows(law, one.rows, replace(fit_options(one.task, 16), thorough=False)).predict(law, one.holdout)
    return pooled({target: (y, predicted[target]) for target, y in one.holdout.targets.items()}).r2


@pytest.mark.parametrize("name", NAMES)
def test_what_ships_in_tasks_is_what_seed_0_gives(name: str, checkout: Path, tmp_path: Path) -> None:
    shipped = checkout / "tasks" / f"planted_{name}"
    write_task(plant(name, 0), family(name), tmp_path)
    for file in ("task.toml", "reference.toml"):
        assert (shipped / file).read_text() == (tmp_path / file).read_text()
    for file in ("data/train.csv", "data/holdout.csv"):
        ours, theirs = table(shipped / file), table(tmp_path / file)
        assert ours.keys() == theirs.keys()
        for column in ours.keys() - {"group"}:
            np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-8)


def table(path: Path) -> dict[str, list[float]]:
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {name: [float(line[name]) if name != "group" else 0.0 for line in lines] for name in lines[0]}


def test_a_shipped_set_reads_back_as_its_task() -> None:
    read, drawn = load_task("planted_moe_leverage"), plant("moe_leverage", 0)
    assert read.features == drawn.task.features
    assert read.reference is not None
    assert read.reference.formula == drawn.formula
    assert read.reference.params == pytest.approx(drawn.params["all"]["EL"])
