"""The comparison on shared sets of real runs: tables, forms, statistics, the ledger, and one set from end to end."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CHECKOUT
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(CHECKOUT / "bench"))

import laws
import laws_score
import laws_tables
import operon
from laws_case import Words, prepare
from laws_score import OURS, Standing, compared, verdict
from laws_sets import CHINCHILLA, MULTI_POWER_GRID, SETS, LawSet

from agentlab.law import parse
from agentlab.words import UsageError

# ---- the sets ----


@pytest.mark.parametrize("one", SETS, ids=lambda s: s.name)
def test_every_form_is_a_law_of_the_sets_own_columns(one: LawSet) -> None:
    made = [f"mpl_{i}" for i in range(len(MULTI_POWER_GRID))]
    for form in one.forms:
        for text in form.formulas:
            law = parse(text, [*one.features, *made])
            assert law.used
            assert not form.params or set(law.params) == set(form.params)


@pytest.mark.parametrize("one", SETS, ids=lambda s: s.name)
def test_the_two_sides_of_the_inner_split_are_training_rows_of_the_primary_split(
    one: LawSet, third_party_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLAB_DATA", str(third_party_data))
    inner = prepare(Words(out=str(tmp_path), dev=True), one)
    whole = prepare(Words(out=str(tmp_path)), one)
    train = {tuple(r) for r in np.column_stack([*whole.train.columns.values(), *whole.train.targets.values()])}
    for rows in (inner.train, inner.test()):
        assert len(rows)
        assert {tuple(r) for r in np.column_stack([*rows.columns.values(), *rows.targets.values()])} <= train
    assert len(inner.train) < len(whole.train)


def test_an_unknown_set_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no set 'dense_steplow'; did you mean 'dense_steplaw'"):
        laws.chosen("chinchilla_epoch,dense_steplow")


# ---- the tables ----


def test_dense_runs_stand_in_the_group_of_every_router() -> None:
    lines = [{"run_id": r, "router_type": t} for r, t in (("1", "Hash"), ("2", "Dense"), ("3", "S-Base"))]
    groups = {(line["router_type"], line["run_id"]) for line in laws_tables.routed(lines)}
    assert groups == {("Hash", "1"), ("Hash", "2"), ("S-Base", "3"), ("S-Base", "2")}


def test_the_inner_split_of_a_curve_predicts_its_later_training_points() -> None:
    lines = [
        {"curve_id": c, "seen_examples": str(x), "is_train": str(int(x <= 8))} for c in "ab" for x in range(12, 0, -1)
    ]
    for line in laws_tables.curves(lines):
        expected = "0" if line["is_train"] == "0" else "1" if float(line["seen_examples"]) <= 5 else "2"
        assert line["inner"] == expected


def test_a_constant_schedule_has_no_fall_and_a_sum_that_counts_the_warm_up() -> None:
    step = np.array([2160.0, 2260.0, 3160.0])
    found = laws_tables.past(step, np.array([3e-4, 3e-4, 3e-4]))
    assert found["lr_sum"] == pytest.approx(3e-4 * (step - 1080.0))
    assert not found["lr_fall"].any()
    assert not found["mpl_0"].any()


def test_a_fall_of_the_learning_rate_is_remembered_and_then_forgotten() -> None:
    step = np.arange(2160.0, 32160.0, 100.0)
    rate = np.where(step < 3000, 3e-4, 1e-4)
    found = laws_tables.past(step, rate)
    for name in ("lr_fall", "mpl_0", f"mpl_{len(MULTI_POWER_GRID) - 1}"):
        values = found[name]
        assert not values[step < 3000].any()
        assert np.all(np.diff(values) >= -1e-15)
    assert found["lr_fall"][-1] == pytest.approx(2e-4 / (1 - laws_tables.MOMENTUM))
    assert np.all(found["mpl_0"] <= 2e-4)


# ---- who is better ----


def test_the_better_of_two_is_ahead_and_the_same_is_tied() -> None:
    rng = np.random.default_rng(0)
    y, run = rng.normal(size=200), np.arange(200)
    near, far = y + 0.1 * rng.normal(size=200), y + rng.normal(size=200)
    words = [s.word for a, b in ((near, far), (far, near), (near, near)) if (s := compared(y, a, b, run))]
    assert words == ["ahead", "behind", "tied"]


def test_rows_of_few_runs_do_not_count_as_independent() -> None:
    rng = np.random.default_rng(1)
    run = np.repeat(np.arange(4), 50)
    y = np.zeros(200)
    gain = np.array([0.3, 0.2, -0.1, 0.5])[run] + 0.01 * rng.normal(size=200)
    ours, theirs = np.sqrt(1.0 + gain), np.ones(200)
    by_run, by_row = compared(y, ours, theirs, run), compared(y, ours, theirs, np.arange(200))
    assert by_run is not None
    assert by_row is not None
    assert by_run.high - by_run.low > 3 * (by_row.high - by_row.low)


@given(seed=st.integers(0, 50), runs=st.integers(1, 20))
def test_seen_from_the_other_side_the_interval_is_its_mirror_image(seed: int, runs: int) -> None:
    rng = np.random.default_rng(seed)
    y, a, b = rng.normal(size=(3, 60))
    run = rng.integers(0, runs, 60)
    one, other = compared(y, a, b, run), compared(y, b, a, run)
    assert one is not None
    assert other is not None
    assert one.difference == pytest.approx(-other.difference)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
    assert one.low <= one.high


def test_a_prediction_that_is_not_finite_is_a_failure_and_never_a_tie() -> None:
    y = np.array([1.0, 2.0, 3.0])
    broken = np.array([1.0, np.nan, 3.0])
    assert compared(y, y, broken, np.arange(3)) is None
    assert laws_score.figures(y, broken) == {"r2": None, "mae": None, "are": None}
    scores = {OURS: laws_score.figures(y, y), "peer": laws_score.figures(y, broken)}
    assert verdict(scores, {"peer": None}) == "first"
    assert verdict({OURS: scores["peer"], "peer": scores[OURS]}, {"peer": None}) == "failed"


def test_the_verdict_is_tied_only_when_no_comparator_is_ahead() -> None:
    def scored(ours: float, *others: float) -> dict[str, dict[str, float | None]]:
        return {name: {"r2": r2} for name, r2 in zip((OURS, "a", "b"), (ours, *others), strict=True)}

    tied, behind, ahead = Standing(0.1, -0.1, 0.2), Standing(0.1, 0.05, 0.2), Standing(-0.1, -0.2, -0.05)
    assert verdict(scored(0.9, 0.8, 0.7), {"a": ahead, "b": tied}) == "first"
    assert verdict(scored(0.8, 0.9, 0.7), {"a": tied, "b": ahead}) == "tied"
    assert verdict(scored(0.8, 0.9, 0.9), {"a": tied, "b": behind}) == "behind: b"


def test_the_ledger_shows_a_second_opening_and_a_second_law(tmp_path: Path) -> None:
    ledger = tmp_path / "results" / "ledger.jsonl"
    first = laws_score.fingerprint("E", {"all": {"y": {"E": 1.0}}})
    second = laws_score.fingerprint("E", {"all": {"y": {"E": 2.0}}})
    looks = [laws_score.note_opening(ledger, "s", law, 5, {"seed": 0}) for law in (first, first, second)]
    assert looks == [{"openings": 1, "laws": 1}, {"openings": 2, "laws": 1}, {"openings": 3, "laws": 2}]
    assert laws_score.note_opening(ledger, "other", first, 5, {"seed": 0}) == {"openings": 1, "laws": 1}
    assert json.loads(ledger.read_text().splitlines()[0]) == {"set": "s", "law": first, "train_rows": 5, "seed": 0}


# ---- pyoperon ----


def test_a_formula_of_pyoperon_becomes_a_law_over_the_columns_in_their_own_units() -> None:
    law = operon.law_of("(1.5 + ((0.5 * X1) ^ (-0.25 * X2)))", {"n": 1e9, "d": 0.01})
    assert law is not None
    value = law.evaluate({"n": np.array([4e9]), "d": np.array([0.02])}, np.zeros(0))
    assert value == pytest.approx(1.5 + 2.0**-0.5)
    logged = operon.law_of("(2.0 * X1)", {"n": 1.0}, log=True)
    assert logged is not None
    assert logged.evaluate({"n": np.array([1.5])}, np.zeros(0)) == pytest.approx(np.exp(3.0))
    assert operon.law_of("cbrt(X1)", {"n": 1.0}) is None


def test_a_python_without_pyoperon_is_told_from_one_with_it(tmp_path: Path) -> None:
    assert not operon.installed(str(tmp_path / "nothing"))


# ---- from end to end ----


def shared(root: Path, rows: int = 60) -> None:
    """A small made-up set in the place of chinchilla_epoch."""
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(17, 22, rows)), np.exp(rng.uniform(21, 25, rows))
    loss = 1.7 + 400 / n**0.34 + 2000 / d**0.37
    folder = root / "laws" / "chinchilla_epoch"
    folder.mkdir(parents=True)
    split = {"primary": {"train": "compute_train<9.5e20", "test": "compute_train>=9.5e20"}}
    (root / "laws" / "MANIFEST.json").write_text(json.dumps({"datasets": {"chinchilla_epoch": {"split": split}}}))
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run_id", "n_params", "tokens", "compute_train", "loss", "is_outlier_besiroglu"])
        for i in range(rows):
            writer.writerow([i, n[i], d[i], 6 * n[i] * d[i], loss[i], 0])


def test_a_set_goes_from_search_to_verdict_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared(tmp_path)
    monkeypatch.setenv("AGENTLAB_DATA", str(tmp_path))
    words = Words(out=str(tmp_path / "out"), candidates=8, dev=True, operon=str(tmp_path / "no-python"))
    spec = replace(CHINCHILLA, forms=CHINCHILLA.forms[:1], dev=("compute_train<3e19", "compute_train>=3e19"))
    answer = laws.measure(words, spec)
    table = answer["table"]
    assert table["Chinchilla"]["r2"] > 0.99
    assert table["nearest neighbour"]["r2"] < table["Chinchilla"]["r2"]
    assert table["pyoperon with MDL"] == {"r2": None, "mae": None, "are": None, "ours": {}, "note": ""} | {
        "reason": "not installed"
    }
    assert answer["looks"] == {"openings": 1, "laws": 1}
    assert laws.measure(words, spec) == answer
    assert len((tmp_path / "out" / "dev_ledger.jsonl").read_text().splitlines()) == 1
