"""Judging laws: cuts, noise, constraints, description length, and the choice between finalists."""

from dataclasses import replace

import numpy as np
import pytest

from agentlab import selection
from agentlab.fitting import fit_rows
from agentlab.law import parse
from agentlab.types import ALL, Outcome, Rows, Task, Variable


def planted(n: int = 60, seed: int = 0, noise: float = 0.005, group: int = 1) -> tuple[Task, Rows]:
    """Rows of a Chinchilla law with multiplicative noise (synthetic)."""
    rng = np.random.default_rng(seed)
    size, tokens = 10 ** rng.uniform(7, 9, n), 10 ** rng.uniform(9, 11, n)
    loss = (1.69 + 406.4 / size**0.34 + 410.7 / tokens**0.28) * np.exp(noise * rng.normal(size=n))
    labels = np.array([f"g{i % group}" for i in range(n)]) if group > 1 else np.full(n, ALL)
    rows = Rows({"N": size, "D": tokens}, {"loss": loss}, labels, np.ones(n), size * tokens, np.arange(n))
    features = (Variable("N", monotone="-"), Variable("D", monotone="-"))
    return Task("planted", features, ("loss",), scale="N*D", residual="log"), rows


def judged(formula: str, task: Task, rows: Rows, *, final: bool = False) -> Outcome:
    law = parse(formula, task.names)
    return selection.evaluate(law, selection.problem(task, rows), selection.fit_options(task, 12), final=final)


def test_a_cut_hides_the_top_of_the_scale_and_keeps_ties_together() -> None:
    task, rows = planted(80)
    tied = replace(rows, scale=np.repeat([1.0, 2.0, 3.0, 4.0], 20))
    cut = selection.make_cut(task, tied, 0.75)
    assert tied.scale is not None
    assert set(tied.scale[cut.test]) == {4.0}
    assert set(tied.scale[cut.train]) == {1.0, 2.0, 3.0}
    plain = selection.make_cut(task, rows, 0.75)
    assert rows.scale is not None
    assert rows.scale[plain.train].max() < rows.scale[plain.test].min()
    assert plain.test.sum() == 20


def test_runs_of_one_budget_stay_together_though_they_end_a_step_apart() -> None:
    task, rows = planted(80)
    near = np.repeat([1e11, 3e11, 1e12, 3e12], 20) * (1 - 1e-4 * np.random.default_rng(0).random(80))
    cut = selection.make_cut(task, replace(rows, scale=near), 0.7)
    assert near[cut.train].max() < 1.1e12
    assert near[cut.test].min() > 2e12
    smooth = np.geomspace(1.0, 2.0, 80)
    assert selection.make_cut(task, replace(rows, scale=smooth), 0.75).test.sum() == 20


def test_a_group_that_lies_above_the_cut_is_cut_at_its_own_quantile() -> None:
    task, rows = planted(80, group=2)
    assert rows.scale is not None
    shifted = replace(rows, scale=np.where(rows.group == "g1", rows.scale * 1e9, rows.scale))
    cut = selection.make_cut(task, shifted, 0.5)
    for group in rows.groups:
        mine = rows.group == group
        assert (mine & cut.train).sum() > task.max_params
    above = rows.group == "g1"
    assert 0 < (above & cut.test).sum() < above.sum()


def test_without_a_scale_every_row_is_hidden_once() -> None:
    task, rows = planted(40)
    judge = selection.problem(replace(task, scale=None), replace(rows, scale=None))
    assert len(judge.cuts) == 4
    assert np.array_equal(np.sum([c.test for c in judge.cuts], axis=0), np.ones(40))
    outcome = selection.evaluate(parse("E + A/N**a", task.names), judge, selection.fit_options(task, 8))
    assert outcome.dev is not None
    assert outcome.dev.n == 40


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.05])
def test_the_noise_estimate_is_near_the_truth(noise: float) -> None:
    task, rows = planted(200, noise=noise)
    assert 0.6 * noise < selection.estimate_noise(task, rows, "loss") < 2.5 * noise


def test_replicates_give_the_noise_directly() -> None:
    task, rows = planted(50, noise=0.0)
    twice = rows.take(np.tile(np.arange(50), 2))
    rng = np.random.default_rng(1)
    noisy = replace(twice, targets={"loss": twice.targets["loss"] * np.exp(0.03 * rng.normal(size=100))})
    assert selection.estimate_noise(task, noisy, "loss") == pytest.approx(0.03, rel=0.3)


def test_the_true_form_beats_poorer_and_richer_ones() -> None:
    task, rows = planted(60, seed=3)
    true = judged("E + A/N**a + B/D**b", task, rows)
    poor = judged("E + A/N**a", task, rows)
    rich = judged("E + A/N**a + B/D**b + C*log(N)", task, rows)
    assert true.objective < rich.objective < poor.objective


def test_a_law_that_turns_negative_or_rises_in_the_box_is_told_apart() -> None:
    task, rows = planted(60, seed=1)
    assert judged("E + A/N**a + B/D**b", task, rows).violations == ()
    falling = judged("a + b*log(N) + c*log(D)", task, replace(rows, targets={"loss": rows.targets["loss"] - 1.68}))
    assert "bounded" in falling.violations
    bowl = judged("a + b*log(N) + c*log(N)**2 + d*log(D)", task, rows)
    assert "monotone N" in bowl.violations


def test_a_gate_saves_the_refits() -> None:
    task, rows = planted()
    judge = selection.problem(task, rows)
    outcome = selection.evaluate(parse("E + A/N**a", task.names), judge, selection.fit_options(task, 8), gate=-1e6)
    assert (outcome.status, outcome.reason, outcome.cuts) == ("rejected", "outclassed", ())


def test_a_law_over_the_cap_is_rejected_unfitted() -> None:
    task, rows = planted()
    outcome = judged("a + b*N**c + d*D**e + f*N**g", task, rows)
    assert (outcome.status, outcome.reason) == ("rejected", "too many parameters")


def test_the_noise_floor_gives_nothing_for_fitting_below_the_noise() -> None:
    task, rows = planted(60)
    judge = selection.problem(task, rows)
    law = parse("E + A/N**a + B/D**b", task.names)
    fit = fit_rows(law, rows, selection.fit_options(task, 12))
    exact = replace(judge, rows=replace(rows, targets=fit.predict(law, rows)))
    gain = selection.description_length(law, fit, judge) - selection.description_length(law, fit, exact)
    assert 0 < gain < 60 * np.log(4.0)


def test_the_choice_prefers_laws_that_break_nothing() -> None:
    good = Outcome("ok", objective=-10.0)
    better_but_broken = Outcome("ok", objective=-50.0, violations=("finite",))
    failed = Outcome("rejected", "non-finite")
    assert selection.choose([failed, better_but_broken, good]) == 2
    assert selection.choose([failed, better_but_broken]) == 1
    assert selection.choose([failed]) is None


def test_rows_that_nothing_orders_or_weighs_are_still_judged() -> None:
    task, rows = planted(40)
    law = parse("E + A/N**a", task.names)
    weight = np.where(np.arange(40) < 30, 1.0, 0.0)
    cases = {
        "one scale value": replace(rows, scale=np.full(40, 1e18)),
        "one run": replace(rows, scale=None, run=np.zeros(40, dtype=np.int64)),
        "three runs": replace(rows, scale=None, run=np.arange(40) % 3),
        "no weight at the top": replace(rows, scale=np.arange(40.0), weight=weight),
    }
    for name, case in cases.items():
        judge = selection.problem(replace(task, scale=None if case.scale is None else "N"), case)
        outcome = selection.evaluate(law, judge, selection.search_options(task, 6))
        assert outcome.status == "ok", name
        assert outcome.dev is not None, name
    few = selection.problem(task, rows.take(np.arange(5)))
    line = selection.evaluate(parse("A/N**a", task.names), few, selection.search_options(task, 6))
    assert line.status == "ok"


def test_a_constant_top_is_no_reason_to_reject_a_law() -> None:
    task, rows = planted(40)
    assert rows.scale is not None
    top = rows.scale > np.quantile(rows.scale, 0.7)
    flat = replace(rows, targets={"loss": np.where(top, 2.0, rows.targets["loss"])})
    assert judged("E + A/N**a + B/D**b", task, flat).status == "ok"


def test_cuts_run_along_the_scale_and_along_every_feature_that_grows() -> None:
    task, rows = planted(60)
    judge = selection.problem(task, rows)
    assert {c.axis for c in judge.cuts} == {"scale"}
    assert {c.axis for c in judge.final_cuts} == {"scale", "N", "D"}
    for cut in judge.final_cuts:
        values = rows.scale if cut.axis == "scale" else rows.columns[cut.axis]
        assert values is not None
        assert values[cut.train].max() < values[cut.test].min()


def test_late_cuts_count_more_and_side_cuts_less() -> None:
    task, rows = planted(60)
    along = [c for c in selection.problem(task, rows).final_cuts if c.axis == "scale"]
    assert [c.weight for c in along] == sorted(c.weight for c in along)
    side = next(c for c in selection.problem(task, rows).final_cuts if c.axis == "N")
    assert side.weight < max(c.weight for c in along)


def test_one_bad_refit_is_bounded() -> None:
    """Below half of twelve rows four parameters are not settled; the law is still judged by the later cuts."""
    size = np.geomspace(200, 4e5, 12)
    y = 1.0 + 8.0 / (size**0.4 + 3.0)
    rows = Rows({"D": size}, {"loss": y}, np.full(12, ALL), np.ones(12), size, np.arange(12))
    task = Task("few", (Variable("D"),), ("loss",), scale="D")
    outcome = judged("E + A/(D**a + B)", task, rows, final=True)
    assert outcome.status == "ok"
    assert len(outcome.cuts) < len(selection.problem(task, rows).final_cuts)
    assert outcome.dev is not None
    assert outcome.dev.n == 3


def test_shares_of_one_whole_keep_their_sum_in_the_box() -> None:
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(3), 40)
    columns = {f"p{i}": shares[:, i] for i in range(3)}
    rows = Rows(columns, {"loss": 2 - shares[:, 0]}, np.full(40, ALL), np.ones(40), None, np.arange(40))
    task = Task("mixture", tuple(Variable(n, log=False) for n in columns), ("loss",))
    box = selection.problem(task, rows).box
    assert np.allclose(sum(box.values()), 1.0)
    assert len(box["p0"]) > 100


def test_a_target_that_cannot_leave_its_range_makes_laws_that_do_break_it() -> None:
    task, rows = planted(40)
    free = judged("E + A*N**a*D**b", task, rows)
    held = judged("E + A*N**a*D**b", replace(task, limits={"loss": (1.69, 2.0)}), rows)
    assert "bounded" not in free.violations
    assert "bounded" in held.violations


def test_folds_leave_every_group_rows_to_fit() -> None:
    task, rows = planted(24, group=6)
    apart = replace(rows, scale=None, run=np.unique(rows.group, return_inverse=True)[1].astype(np.int64))
    judge = selection.problem(replace(task, scale=None), apart)
    for cut in judge.cuts:
        assert set(rows.group[cut.train]) == set(rows.group)
    law = parse("A/N**a", task.names)
    assert selection.evaluate(law, judge, selection.search_options(task, 6)).status == "ok"
