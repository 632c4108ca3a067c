"""A run as an object: what of it is read, that laws predict and are refitted as on record, and how it is forked."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from finished_runs import finished

from agentlab import runs
from agentlab.replay import Run, compare, open_run
from agentlab.replay_checks import Check, difference
from agentlab.replay_recompute import recompute
from agentlab.types import AgentlabError
from agentlab.words import UsageError


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(finished("plain", tmp_path_factory))


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(finished("grouped", tmp_path_factory))


# ---- what is read ----


def test_entries_are_those_of_the_trace_with_the_line_that_holds_each(plain: Run) -> None:
    lines = (plain.folder / "trace.jsonl").read_text().splitlines()
    assert len(plain) == 12
    for entry in plain.entries:
        told = json.loads(lines[entry.line - 1])
        assert (told["id"], told["formula"], told["key"]) == (entry.id, entry.formula, entry.key)
        assert plain[entry.id] is entry
    with pytest.raises(UsageError, match="no entry 12; there are 0 to 11"):
        plain[12]


def test_generations_are_blocks_of_the_window_and_the_best_never_gets_worse(plain: Run) -> None:
    assert [len(g.entries) for g in plain.generations] == [4, 4, 4]
    best = [g.best.objective for g in plain.generations if g.best]
    assert best == sorted(best, reverse=True)
    assert plain.best_so_far()[-1][1] == min(e.objective for e in plain.entries)
    assert sum(len(g.improved) for g in plain.generations) == len(plain.best_so_far())
    assert plain.generations[0].structures


def test_laws_are_the_believed_one_and_then_the_finalists_by_objective(plain: Run) -> None:
    told = plain.result["law"]
    assert plain.law.formula == told["formula"]
    assert plain.law.params == told["params"]
    assert plain.laws[0] is plain.law
    objective = {r["entry"]: r["objective"] for r in plain.of("finalist")}
    order = [objective[law.entry] for law in plain.laws[1:]]
    assert order == sorted(order)


def test_a_run_that_is_still_going_on_is_read_as_far_as_it_is(plain: Run, tmp_path: Path) -> None:
    for name in ("config.json", "task.json", "rows.npz"):
        shutil.copy2(plain.folder / name, tmp_path / name)
    lines = (plain.folder / "trace.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "trace.jsonl").write_bytes(b"".join(lines[:6]) + lines[6][:20])
    run = open_run(tmp_path)
    assert not run.done
    assert len(run) == 5
    assert run.best is not None
    with pytest.raises(UsageError, match="no law yet"):
        _ = run.law


def test_models_calls_and_training_runs_stand_with_their_lines(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = open_run(finished("models", tmp_path_factory))
    calls = run.prompts()
    assert calls
    assert all(run.records[c["trace_line"] - 1]["kind"] in ("reply", "lost") for c in calls)
    loop = open_run(finished("training", tmp_path_factory))
    made = loop.experiments()
    assert made
    assert all(m["targets"]["loss"] > 0 and m["columns"]["N"] > 0 for m in made)
    assert loop.entries[0].trace == f"rounds/{loop.rounds[-1].id}/trace.jsonl"


# ---- laws ----


def test_predictions_take_columns_and_frames_and_keep_the_index(grouped: Run) -> None:
    points = pd.DataFrame({"corpus": ["web", "code"], "N": [1e9, 1e9]}, index=["a", "b"])
    found = grouped.law.predict(points, ci=0.9)
    assert list(found.index) == ["a", "b"]
    assert list(found.columns) == ["loss", "loss_low", "loss_high"]
    assert (found["loss_low"] <= found["loss_high"]).all()
    same = grouped.law.predict({"corpus": ["web", "code"], "N": 1e9})
    assert same["loss"].tolist() == found["loss"].tolist()


def test_intervals_grow_with_their_share_and_hold_the_law(plain: Run) -> None:
    points = {"N": np.geomspace(1e6, 1e11, 20)}
    wide, narrow = (plain.law.predict(points, ci=ci) for ci in (0.95, 0.5))
    assert np.all(wide["loss_high"] - wide["loss_low"] >= narrow["loss_high"] - narrow["loss_low"])
    assert np.all((wide["loss_low"] <= wide["loss"]) & (wide["loss"] <= wide["loss_high"]))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ({"n": [1.0]}, "no column 'N'; did you mean 'n'"),
        ({"N": ["many"]}, "'N' holds something that is no number"),
        ({"N": [1.0, float("nan")]}, "'N' holds no number in row 1"),
    ],
)
def test_points_that_do_not_fit_are_refused_in_one_line(
    plain: Run, points: dict[str, list[object]], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as told:
        plain.law.predict(points)
    assert "\n" not in str(told.value)


def test_a_group_that_was_not_there_is_refused(grouped: Run) -> None:
    with pytest.raises(UsageError, match="group 'wep' was not in the run; did you mean 'web'"):
        grouped.law.predict({"corpus": ["wep"], "N": [1e9]})


def test_a_refit_has_the_parameters_and_intervals_on_record(grouped: Run) -> None:
    again = grouped.law.refit()
    assert again is not grouped.law
    assert again.params == grouped.law.params
    assert again.intervals == grouped.law.intervals
    entry = next(e for e in grouped.entries if e.status == "ok")
    assert entry.law.refit().params == entry.params


def test_a_refit_to_other_rows_has_other_parameters_and_its_own_intervals(plain: Run) -> None:
    sizes = np.geomspace(1e6, 1e9, 10)
    other = plain.law.refit({"N": sizes, "loss": 3.0 * plain.law.predict({"N": sizes})["loss"]})
    ratio = other.predict({"N": sizes})["loss"] / plain.law.predict({"N": sizes})["loss"]
    assert ratio == pytest.approx(np.full(10, 3.0), rel=1e-5)
    assert other.intervals != plain.law.intervals


def test_residuals_and_the_error_beyond_the_shown_cut_are_those_of_the_run(plain: Run) -> None:
    told = plain.law.residuals()
    assert told["residual"] == pytest.approx(np.log(told["predicted"] / told["observed"]))
    assert len(told["observed"]) == len(plain.rows)
    (shown,) = [h for h in plain.law.extrapolation() if h.shown]
    assert shown.score.are == pytest.approx(plain.result["score"]["dev"]["are"], rel=1e-9)


def test_a_program_predicts_in_a_sandbox_where_an_event_loop_runs_already(
    bwrap: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    law = open_run(finished("programs", tmp_path_factory)).law

    async def inside() -> np.ndarray:
        return law.predict({"n": [1e3, 2e6]})["y"]  # type: ignore[no-any-return]

    assert asyncio.run(inside()) == pytest.approx(2 + 0.3 * np.sin(4 * np.log([1e3, 2e6])), abs=1e-3)
    with pytest.raises(UsageError, match="no bootstrap"):
        law.predict({"n": [1e3]}, ci=0.9)


def test_runs_are_compared_by_law_rows_errors_and_cost(plain: Run, grouped: Run) -> None:
    first, second = compare(plain, grouped)
    assert first["same_law"]
    assert first["same_rows"]
    assert not second["same_rows"]
    assert first["holdout_are"] == plain.result["score"]["holdout"]["are"]
    assert second["holdout_are"] is None


# ---- recomputing ----


def test_a_value_that_was_changed_by_a_millionth_does_not_hold(plain: Run) -> None:
    records = [r | ({"law_gain": r["law_gain"] * (1 + 1e-6)} if r["kind"] == "luck" else {}) for r in plain.records]
    wrong = [c for c in recompute(Run(plain.folder, tuple(records)), entries=1) if not c.holds]
    assert [(c.name, records[c.line - 1]["kind"]) for c in wrong] == [("luck law_gain", "luck")]
    assert wrong[0].difference == pytest.approx(1e-6, rel=1e-3)


def test_differences_are_relative_and_of_unlike_values_without_bound() -> None:
    assert difference(1.0, 1.0 + 1e-9) == pytest.approx(1e-9)
    assert difference("inf", "inf") == 0.0
    assert difference(1.0, None) == difference("a", "b") == float("inf")
    read = Check("loss", "measured (read)", 1.0, None, 3)
    assert read.holds
    assert not replace(read, kind="recomputed").holds


# ---- forks ----


def test_a_fork_without_changes_ends_with_the_bytes_of_the_run(plain: Run, tmp_path: Path) -> None:
    made = plain.fork(gen=1, out=tmp_path)
    assert len(made) == 8
    assert not made.done
    assert made.forked_from is not None
    assert (made.forked_from["run"], made.forked_from["generation"]) == (plain.id, 1)
    runs.carry_out(made.folder, lambda _: None)
    assert (made.folder / "trace.jsonl").read_bytes() == (plain.folder / "trace.jsonl").read_bytes()


def test_a_fork_with_another_budget_keeps_what_was_found_and_says_so_in_its_first_line(
    plain: Run, tmp_path: Path
) -> None:
    made = plain.fork(gen=0, out=tmp_path, budget__candidates=40, patience=7)
    assert made.config.budget.candidates == made.records[0]["budget"]["candidates"] == 40
    assert made.records[0]["patience"] == made.config.patience == 7
    assert made.records[1:] == plain.records[1:5]
    assert made.forked_from == {**(made.forked_from or {}), "changes": {"budget.candidates": 40, "patience": 7}}


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("plain", {"seed": 1}, "seed= cannot change: what is kept was found with it"),
        ("plain", {"bugdet__usd": 1}, "bugdet.usd= is no setting of a run .*did you mean 'budget'"),
        ("models", {"budget__candidates": 40}, "the models of this run were told of it"),
        ("training", {}, r"made runs; fork one of its searches: run.rounds\[0\]"),
    ],
)
def test_a_fork_whose_past_would_be_another_runs_is_refused_in_one_line(
    kind: str, changes: dict[str, int], words: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(AgentlabError, match=words) as told:
        open_run(finished(kind, tmp_path_factory)).fork(0, tmp_path, **changes)
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_a_generation_that_there_is_not_cannot_be_forked(plain: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has generations 0 to 2"):
        plain.fork(3, tmp_path)
