"""Decisions: the compute-optimal allocation is the one of the closed form, and regret is what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.allocation import AllocationError, Question, asked, best, cost_of
from agentlab.allocation_regret import Yardstick, regrets
from agentlab.law import Law, parse
from agentlab.types import FloatArray, Rows, Task, Variable

CHINCHILLA = "E + A/n**a + B/d**b"
EPOCH = np.array([1.8172, 482.01, 0.3478, 2085.43, 0.3658])
EXPONENT = st.floats(0.15, 0.9)
SIZE = st.floats(1.0, 5.0).map(lambda x: 10.0**x)


def rows_of(unit: float = 1.0, **more: FloatArray) -> Rows:
    """A small design of sizes and tokens; tokens are counted in `unit`."""
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e10, 5), np.geomspace(1e9, 1e12, 5)))
    y = parse(CHINCHILLA, ("n", "d")).evaluate({"n": n, "d": d}, EPOCH)
    columns = {"n": n, "d": d / unit} | more
    return Rows(columns, {"loss": y}, np.full(len(n), "all"), np.ones(len(n)), None, np.arange(len(n)))


def task_of(*names: str, target: str = "loss", scale: str | None = None) -> Task:
    return Task("t", tuple(Variable(n) for n in names), (target,), scale=scale)


def law() -> Law:
    return parse(CHINCHILLA, ("n", "d"))


def question(flops: float = 5.76e23) -> Question:
    return asked(task_of("n", "d"), rows_of(), flops=flops)


@settings(deadline=None, max_examples=60)
@given(a=EXPONENT, b=EXPONENT, A=SIZE, B=SIZE, flops=st.floats(18.0, 25.0))
def test_the_compute_optimal_allocation_is_that_of_the_closed_form(
    a: float, b: float, A: float, B: float, flops: float
) -> None:
    """Hoffmann et al. (2022), equation 4: N = G (C/6)^(b/(a+b)) with G = (aA / bB)^(1/(a+b))."""
    compute = 10.0**flops
    wanted = (a * A / (b * B)) ** (1 / (a + b)) * (compute / 6) ** (b / (a + b))
    choice = best(law(), np.array([1.7, A, a, B, b]), question(compute))
    if 1e3 < wanted < compute / 1e3 / 6 and wanted < 1e15:
        assert choice.config["n"][0] == pytest.approx(wanted, rel=2e-3)
        assert 6 * choice.config["n"][0] * choice.config["d"][0] == pytest.approx(compute, rel=1e-9)
        assert not choice.edge["n"][0]


def test_a_decision_does_not_depend_on_the_unit_of_tokens() -> None:
    theta = EPOCH.copy()
    theta[3] /= 1e9 ** theta[4]
    billions = asked(task_of("n", "d"), rows_of(1e9), flops=5.76e23, flops_per="6e9*n*d")
    plain, scaled = best(law(), EPOCH, question()), best(law(), theta, billions)
    assert scaled.config["n"][0] == pytest.approx(plain.config["n"][0], rel=1e-3)
    assert 1e9 * scaled.config["d"][0] == pytest.approx(plain.config["d"][0], rel=1e-3)


@settings(deadline=None, max_examples=30)
@given(off=st.floats(0.02, 50.0))
def test_regret_is_the_compute_that_the_best_choice_would_have_saved(off: float) -> None:
    ask = question()
    n = best(law(), EPOCH, ask).config["n"] * off
    config = {"n": n, "d": ask.compute / (6 * n)}
    lost = float(Yardstick.of(law(), EPOCH, ask).regret(config)[0])
    as_good = best(law(), EPOCH, ask, ask.compute / (1 + lost / 100)).value[0]
    reached = law().evaluate(config, EPOCH)[0]
    assert lost >= 0
    assert as_good == pytest.approx(reached, rel=1e-4)


def test_the_best_choice_has_no_regret_and_a_worse_one_has_more() -> None:
    ask = question()
    n = best(law(), EPOCH, ask).config["n"] * np.array([1.0, 2.0, 4.0, 8.0])
    config = {"n": n, "d": ask.compute / (6 * n)}
    yardstick = Yardstick.of(law(), EPOCH, ask)
    lost = yardstick.regret(config)
    assert lost[0] == pytest.approx(0.0, abs=1e-4)
    assert np.all(np.diff(lost) > 0)
    assert np.all(np.diff(yardstick.shortfall(config)) > 0)


def test_regret_under_many_laws_is_regret_under_each() -> None:
    ask = question()
    chosen = best(law(), EPOCH, ask).config
    laws = EPOCH * np.array([[1, 1, 1, 1, 1], [1, 0.6, 0.98, 1, 1], [1.02, 1, 1.03, 2.0, 1.04]])
    each = [float(Yardstick.of(law(), theta, ask).regret(chosen)[0]) for theta in laws]
    assert regrets(law(), laws, ask, chosen) == pytest.approx(each, rel=0.02, abs=1e-3)


def test_compute_beyond_the_budget_counts_as_spent() -> None:
    ask = question()
    chosen = {k: 2.0 * v for k, v in best(law(), EPOCH, ask).config.items()}
    assert float(Yardstick.of(law(), EPOCH, ask).regret(chosen)[0]) == pytest.approx(0.0, abs=2.0)
    assert cost_of("6*n*d", chosen)[0] == pytest.approx(4 * ask.compute)


def test_choices_that_leave_an_input_open_are_judged_one_by_one() -> None:
    ask = question()
    yardstick = Yardstick.of(law(), EPOCH, ask)
    d = yardstick.config["d"] * np.array([1.0, 0.5, 0.1])
    assert yardstick.regret({"d": d}).shape == (3,)


def test_an_input_that_a_choice_does_not_name_is_chosen_well() -> None:
    ask = question()
    assert Yardstick.of(law(), EPOCH, ask).regret({}) == pytest.approx([0.0], abs=1e-6)


def test_a_law_that_knows_no_input_decides_nothing() -> None:
    choice = best(parse("E", ("n", "d")), EPOCH[:1], question())
    assert choice.edge["n"][0]
    assert choice.value[0] == EPOCH[0]


def test_a_law_without_an_optimum_inside_says_which_input_runs_to_the_edge() -> None:
    rising = parse("E + A/n**a", ("n", "d"))
    choice = best(rising, EPOCH[:3], question())
    assert choice.edge["n"][0]


def test_where_large_targets_are_good_the_largest_is_chosen() -> None:
    rows = Rows(
        {"G": np.linspace(0.5, 8, 9), "C": np.full(9, 1e12)},
        {"leverage": np.ones(9)},
        np.full(9, "all"),
        np.ones(9),
        None,
        np.arange(9),
    )
    hill = parse("p - (log(G) - q)**2", ("G", "C"))
    task = Task("t", (Variable("G", box=(0.5, 8.0)), Variable("C")), ("leverage",))
    ask = asked(task, rows)
    assert ask.sign == -1
    assert ask.cost is None
    choice = best(hill, np.array([1.0, math.log(3.0)]), ask)
    assert choice.config["G"][0] == pytest.approx(3.0, rel=1e-4)
    assert choice.value[0] == pytest.approx(1.0)
    assert np.isnan(Yardstick.of(hill, np.array([1.0, math.log(3.0)]), ask).regret(choice.config)).all()


@pytest.mark.parametrize(
    ("names", "paired"),
    [
        (("n", "d"), ("n", "d")),
        (("n_params", "tokens"), ("n_params", "tokens")),
        (("N", "D"), ("N", "D")),
        (("tokens", "params"), ("params", "tokens")),
        (("n_active", "num_experts", "tokens"), ("n_active", "tokens")),
        (("width", "depth"), (None, None)),
        (("num_params", "parallel_size"), (None, None)),
    ],
)
def test_parameters_and_tokens_are_known_by_their_names(names: tuple[str, ...], paired: tuple[str, str]) -> None:
    columns = {n: np.geomspace(1e6, 1e9, 5) for n in names}
    rows = Rows(columns, {"loss": np.ones(5)}, np.full(5, "all"), np.ones(5), None, np.arange(5))
    found = asked(task_of(*names), rows)
    assert (found.params, found.tokens) == paired


def test_what_cannot_be_asked_is_refused_in_one_line() -> None:
    with pytest.raises(AllocationError, match="not a feature; did you mean 'n'"):
        asked(task_of("n", "d"), rows_of(), params="nn")
    grid = {"width": np.arange(1.0, 5), "depth": np.arange(1.0, 5)}
    rows = Rows(grid, {"loss": np.ones(4)}, np.full(4, "all"), np.ones(4), None, np.arange(4))
    with pytest.raises(AllocationError, match="do not say what a run costs"):
        asked(task_of("width", "depth"), rows, flops=1e20)
    with pytest.raises(AllocationError, match="no column 'tokens'"):
        asked(task_of("n", "d"), rows_of(), flops_per="6*n*tokens")
