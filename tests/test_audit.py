"""The Law Card: what it flags, what it leaves visibly blank, and that it says the same for the same rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_discover import agentlab, write_csv

from agentlab.audit import Settings, audit
from agentlab.audit_battery import AXES, without_embeddings
from agentlab.audit_files import record, write
from agentlab.audit_optimisers import _bfgs, _Objective, _side_by_side, _simplex
from agentlab.audit_page import BLANK, markdown
from agentlab.audit_records import Card, Case
from agentlab.audit_words import audit_words, beside, settings_of
from agentlab.fitting import FitOptions
from agentlab.fitting_bootstrap import bootstrap_draws
from agentlab.law import parse
from agentlab.table import intake
from agentlab.trace import dump
from agentlab.types import Rows, Task, Variable
from agentlab.varpro import Data

CHINCHILLA = "E + A/n_params**a + B/tokens**b"
EPOCH = {"E": 1.8172, "A": 482.01, "a": 0.3478, "B": 2085.43, "b": 0.3658}
QUICK = Settings(draws=60)


def line(count: int = 60, noise: float = 0.01, seed: int = 0) -> tuple[Task, Rows]:
    """Rows of y = 2 + x/2 with x centred, which a straight line is sure about."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, count)
    y = 2.0 + 0.5 * x + noise * rng.standard_normal(count)
    rows = Rows({"x": x}, {"y": y}, np.full(count, "all"), np.ones(count), np.linspace(1, 100, count), np.arange(count))
    return Task("line", (Variable("x", log=False),), ("y",), scale="s", robust="none"), rows


def published(folder: Path) -> Path:
    """A file of checkpoints, two learning rates and two counts of parameters, planted with Epoch's law."""
    rng = np.random.default_rng(3)
    sizes, rates = np.geomspace(2e7, 4e9, 7), (1e-3, 4e-3)
    table: dict[str, list[Any]] = {k: [] for k in ("run_id", "n_params", "n_params_no_embed", "tokens", "lr", "loss")}
    for i, n in enumerate(sizes):
        for rate in rates:
            for tokens in np.geomspace(2e9, 2e11, 5):
                loss = EPOCH["E"] + EPOCH["A"] / n ** EPOCH["a"] + EPOCH["B"] / tokens ** EPOCH["b"]
                loss *= math.exp(0.02 * (rate > 2e-3) + 0.003 * rng.standard_normal())
                cells = (f"run{i}-{rate}", n, float(without_embeddings(np.array([n]))[0]), tokens, rate, loss)
                for name, cell in zip(table, cells, strict=True):
                    table[name].append(cell)
    return write_csv(folder / "published.csv", dict(table))


def card_of(path: Path, law: str, *more: str) -> tuple[Card, Case]:
    draws = () if any(w.startswith("draws=") for w in more) else ("draws=60",)
    given = audit_words([str(path), "target=loss", "features=n_params,tokens", *draws, *more], "audit")
    taken = intake(given)
    known = beside(given, taken.task, len(taken.rows))
    return audit(parse(law, taken.task.names), taken.task, taken.rows, settings_of(given), known)


@pytest.fixture(scope="module")
def chinchilla(third_party_data: Path) -> tuple[Card, Case]:
    """The card of Epoch's digitised Chinchilla runs, as their refit was made."""
    return card_of(
        third_party_data / "laws/chinchilla_epoch/data.csv",
        CHINCHILLA,
        "scale=compute_train",
        "where=is_outlier_besiroglu==0",
        *("residual=log", "robust=huber", "delta=1e-3", "flops=5.76e23", "draws=1000"),
    )


def test_the_chinchilla_parameters_are_not_identified(chinchilla: tuple[Card, Case]) -> None:
    card, _ = chinchilla
    assert card.rows == 240
    assert {p.name for p in card.parameters if p.unidentified} == {"A", "a", "B", "b"}
    tied = {(c.a, c.b): c for c in card.correlations}
    for pair in (("log A", "a"), ("log B", "b")):
        assert tied[pair].bootstrap == pytest.approx(0.999, abs=1e-3)
        assert tied[pair].jacobian == pytest.approx(0.999, abs=1e-3)
    assert "Not identified one by one: A, a, B, b" in " ".join(card.verdict)


def test_the_intervals_of_the_published_refit_are_reproduced(chinchilla: tuple[Card, Case]) -> None:
    """Published from 4,000 draws: alpha .348 [.317, .373], beta .366 [.331, .415] at 95%."""
    card, case = chinchilla
    values = {p.name: p.value for p in card.parameters}
    assert values["E"] == pytest.approx(EPOCH["E"], abs=2e-3)
    assert values["a"] == pytest.approx(EPOCH["a"], abs=2e-3)
    assert values["b"] == pytest.approx(EPOCH["b"], abs=3e-3)
    draws = bootstrap_draws(case.law, case.rows, case.fit, draws=4000, seed=1, options=case.options)[case.focus]
    ends = dict(zip(case.law.params, np.percentile(draws, [2.5, 97.5], axis=0).T, strict=True))
    assert ends["a"] == pytest.approx([0.317, 0.373], abs=0.004)
    assert ends["b"] == pytest.approx([0.331, 0.415], abs=0.006)


def test_the_chinchilla_decision_moves_with_the_cut_while_the_error_does_not(chinchilla: tuple[Card, Case]) -> None:
    card, _ = chinchilla
    decided = [c.decision.ratio for c in card.cuts if c.decision is not None]
    assert [c.share for c in card.cuts] == [0.5, 0.7, 0.9, 1.0]
    assert decided == pytest.approx([2.4, 4.9, 9.1, 17.9], abs=0.06)
    errors = [c.error_beyond for c in card.cuts[:-1]]
    assert all(e is not None and 0.008 <= e <= 0.011 for e in errors)
    lost = [c.decision.regret for c in card.cuts if c.decision is not None and c.decision.regret is not None]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 10
    assert lost[-1] == 0
    assert card.verdict[0].startswith("Do not spend on its decision yet")


def test_what_the_chinchilla_file_does_not_hold_is_left_visibly_blank(chinchilla: tuple[Card, Case]) -> None:
    card, _ = chinchilla
    assert {v.axis for v in card.battery} == {"as audited", *AXES}
    blank = {v.axis: v.blank for v in card.battery if v.blank}
    assert set(blank) == {"counting", "checkpoint filter", "learning-rate filter"}
    assert {f.name for f in card.facts if not f.value} >= {"tokenizer", "schedule", "embeddings", "what N counts"}
    page = markdown(card, {})
    assert f"| tokenizer | {BLANK} |" in page
    assert f"| learning-rate filter | {BLANK} |" in page


def test_searches_side_by_side_end_where_each_ends_alone() -> None:
    _, rows = line(40)
    law = parse("p + q*x", ("x",))
    data = Data({"x": rows.columns["x"]}, rows.targets["y"][None, :], rows.weight[None, :])
    objective = _Objective(law, data, FitOptions(residual="plain"))
    first = np.random.default_rng(0).standard_normal((4, 2))
    for method in (_bfgs, _simplex):
        together = _side_by_side(objective, [method(x) for x in first])
        alone = [_side_by_side(objective, [method(x)])[0] for x in first]
        assert np.array_equal(together, alone)
        assert np.allclose(together, [2.0, 0.5], atol=0.02)


def test_a_law_that_is_averaged_into_an_early_stop_is_seen(chinchilla: tuple[Card, Case]) -> None:
    """The mean loss is so small that BFGS's absolute tolerance ends it early (arXiv 2404.10102)."""
    card, _ = chinchilla
    by_name = {v.name: v for v in card.battery if v.axis == "optimiser"}
    early = by_name["BFGS on the mean of the loss, best of 10 starts"]
    assert early.error is not None
    assert early.error > 2 * (card.battery[0].error or 0.0)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Card, Case]:
    """The card of a file that holds everything that can be varied, with what its user knows of it."""
    facts = "facts=tokenizer: GPT-2; schedule: cosine; cluster: none"
    return card_of(published(tmp_path_factory.mktemp("planted")), CHINCHILLA, facts)


def test_every_axis_is_varied_where_the_file_allows_it(planted: tuple[Card, Case]) -> None:
    card, case = planted
    varied = {v.axis for v in card.battery if v.error is not None}
    assert varied == {"as audited", *AXES}
    names = " ".join(v.name for v in card.battery)
    for part in ("N is n_params_no_embed", "the last checkpoint of every run", "the best lr of every configuration"):
        assert part in names
    assert case.labels is not None
    assert all(w.run.startswith("run") for w in card.worst)
    told = {f.name: f.value for f in card.facts}
    assert "70 rows of 14 runs" in told["checkpoints"]
    counted = {v.name.split(" ")[0]: v.decision for v in card.battery if v.axis == "counting"}
    column, hypothesis = counted["N"], counted["what"]  # the same count, from the file and by the published relation
    assert column is not None
    assert hypothesis is not None
    # Turned back into the audited count: one exactly, the other by a line through the larger models.
    assert column.ratio == pytest.approx(hypothesis.ratio, rel=0.1)
    assert column.ratio == pytest.approx(column.config["tokens"] / column.config["n_params"], rel=1e-6), "audited unit"
    assert column.regret == pytest.approx(hypothesis.regret, abs=2.0)


def test_a_law_that_the_rows_determine_is_called_identified() -> None:
    task, rows = line()
    card, _ = audit(parse("p + q*x", ("x",)), task, rows, QUICK)
    assert not any(p.unidentified for p in card.parameters)
    assert "Every parameter is identified." in card.verdict
    assert not any(r.trend for r in card.residuals)
    low, high = card.parameters[1].interval90
    assert low < 0.5 < high


def test_a_parameter_too_many_is_named() -> None:
    task, rows = line()
    card, _ = audit(parse("p + r + q*x", ("x",)), task, rows, QUICK)
    loose = {p.name: p.unidentified for p in card.parameters}
    assert loose["p"]
    assert loose["r"]
    assert not loose["q"]


def test_a_term_that_is_missing_shows_in_the_residuals() -> None:
    task, rows = line()
    bent = Rows(
        rows.columns, {"y": rows.targets["y"] + rows.columns["x"] ** 2}, rows.group, rows.weight, rows.scale, rows.run
    )
    card, _ = audit(parse("p + q*x", ("x",)), task, bent, QUICK)
    assert {r.name for r in card.residuals if r.trend} >= {"x"}


def test_intervals_of_a_true_law_cover_what_lies_beyond() -> None:
    covered = []
    for seed in range(4):
        task, rows = line(seed=seed)
        card, _ = audit(parse("p + q*x", ("x",)), task, rows, QUICK)
        covered += [f.coverage90 for f in card.factors if f.coverage90 is not None and f.factor <= 2]
    assert 0.8 <= float(np.mean(covered)) <= 0.98


def test_a_card_is_the_same_for_the_same_rows_and_seed() -> None:
    task, rows = line(30)
    first, second = (audit(parse("p + q*x", ("x",)), task, rows, QUICK)[0] for _ in range(2))
    assert dump(record(first)) == dump(record(second))


def test_groups_and_targets_are_audited_each(tmp_path: Path) -> None:
    task, rows = line(40)
    half = np.arange(40) % 2
    grouped = Rows(rows.columns, rows.targets, np.where(half > 0, "b", "a"), rows.weight, rows.scale, rows.run)
    card, case = audit(parse("p + q*x", ("x",)), task, grouped, QUICK)
    assert {(p.group, p.name) for p in card.parameters} == {(g, n) for g in "ab" for n in "pq"}
    assert card.focus == ("a", "y")
    assert any("group a" in note for note in card.notes)
    files, missing = write(card, case, tmp_path / "card")
    assert not missing
    assert all(Path(f).stat().st_size > 0 for f in files)


def test_what_the_user_knows_fills_the_checklist(planted: tuple[Card, Case]) -> None:
    card, _ = planted
    told = {f.name: (f.value, f.source) for f in card.facts}
    assert told["tokenizer"] == ("GPT-2", "told")
    assert told["schedule"] == ("cosine", "told")
    assert told["cluster"] == ("none", "told")


def test_embeddings_are_taken_off_as_published() -> None:
    """N_total = N + 47491 N^(1/3) (arXiv 2406.12907)."""
    without = np.array([1e6, 1e8, 1e10])
    assert without_embeddings(without + 47491 * np.cbrt(without)) == pytest.approx(without, rel=1e-9)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with published.csv and one finished run of it."""
    folder = tmp_path_factory.mktemp("audit")
    path = published(folder)
    given = ("data=published.csv", "target=loss", "features=n_params,tokens", "where=lr<2e-3")
    agentlab("discover", *given, "budget.candidates=6", "window=4", "--plain", cwd=path.parent)
    return folder


GIVEN = ("published.csv", "target=loss", "features=n_params,tokens", "where=lr<2e-3", "draws=60", "--law", CHINCHILLA)


def test_audit_writes_a_card_with_plots_and_says_what_comes_next(place: Path) -> None:
    shown = agentlab("audit", *GIVEN, cwd=place).stdout
    for part in ("law ", "90% interval", "not identified", "wrote     audit/audit.md"):
        assert part in shown
    assert shown.strip().splitlines()[-1].startswith("next: agentlab plan published.csv")
    page = (place / "audit/audit.md").read_text()
    for plot in ("parameters", "residuals", "extrapolation", "cuts", "battery"):
        assert f"(audit-{plot}.svg)" in page
        assert (place / f"audit/audit-{plot}.svg").read_text().startswith("<?xml")
    kept = json.loads((place / "audit/audit.json").read_text())
    assert kept["formula"] == CHINCHILLA
    assert len(kept["cuts"]) == 4


def test_a_run_is_audited_in_its_folder_and_planned_from(place: Path) -> None:
    card = json.loads(agentlab("audit", "published.csv-001", "draws=60", "--json", cwd=place).stdout.splitlines()[-1])
    found = json.loads(agentlab("runs", "show", "published.csv-001", "--json", cwd=place).stdout)
    assert card["formula"] == found["law"]["formula"]
    assert (place / "runs/published.csv-001/audit.md").is_file()
    plan = agentlab("plan", "published.csv-001", "draws=60", "--flops", "1e23", cwd=place).stdout
    for part in ("1e+23", "n_params", "tokens / param"):
        assert part in plan


def test_a_plan_spends_the_compute_and_tells_what_being_wrong_costs(place: Path) -> None:
    answer = json.loads(agentlab("plan", *GIVEN, "--flops", "1e23", "--json", cwd=place).stdout.splitlines()[-1])
    n, d = answer["config"]["n_params"], answer["config"]["tokens"]
    assert 6 * n * d == pytest.approx(1e23, rel=1e-6)
    low, high = answer["intervals"]["n_params"]
    assert low <= n <= high
    assert 0 <= answer["regret"][0] <= answer["regret"][1]
    cheaper = agentlab(
        "plan", *GIVEN, "--flops", "1e23", "--flops-per", "2*n_params*tokens", "--json", cwd=place
    ).stdout
    assert json.loads(cheaper.splitlines()[-1])["value"] < answer["value"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("audit", *GIVEN[:-2]), "no formula"),
        (("audit", "data=published.csv", *GIVEN[1:-2]), "no formula"),
        (("audit", *GIVEN, "flop=1e23"), "did you mean 'flops'"),
        (("audit", *GIVEN, "facts=GPT-2"), "NAME: VALUE"),
        (("audit", *GIVEN, "params=size"), "not a feature"),
        (("audit", "published.csv-001", "target=loss"), "target= does not go with a run"),
        (("plan", *GIVEN), "--flops 1e23"),
        (("plan", *GIVEN, "--flops", "-1"), "--flops 1e23"),
        (("plan", *GIVEN, "--flops", "1e23", "--flops-per", "6*n*tokens"), "no column"),
    ],
)
def test_a_mistake_is_told_in_one_line(place: Path, given: tuple[str, ...], said: str) -> None:
    done = agentlab(*given, cwd=place, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
