"""What residuals ask for: the block that is missing, and nothing where nothing is."""

import numpy as np
import pytest
from test_selection import planted

from agentlab import selection
from agentlab.fitting import fit_rows
from agentlab.law import parse
from agentlab.selection_hints import asked_for
from agentlab.types import ALL, Rows, Task, Variable


def hints(formula: str, task: Task, rows: Rows) -> tuple[str, ...]:
    law = parse(formula, task.names)
    return asked_for(law, fit_rows(law, rows, selection.search_options(task, 10)), task, rows)


@pytest.mark.parametrize(("formula", "missing"), [("E + A/N**a", "D**a"), ("E + B/D**b", "N**a")])
def test_a_missing_term_is_asked_for_first(formula: str, missing: str) -> None:
    task, rows = planted(60)
    assert hints(formula, task, rows)[0] == missing


def test_the_true_form_asks_for_nothing() -> None:
    asked = [hints("E + A/N**a + B/D**b", *planted(60, seed=seed)) for seed in range(12)]
    assert sum(bool(a) for a in asked) <= 3


def test_a_bowl_between_two_scales_is_asked_for_as_their_product() -> None:
    rng = np.random.default_rng(0)
    size, rate = 10 ** rng.uniform(7, 9, 120), 10 ** rng.uniform(-4, -2, 120)
    loss = 2 + 400 / size**0.34 + 0.05 * (np.log(rate) + 0.3 * np.log(size)) ** 2 + 0.003 * rng.normal(size=120)
    rows = Rows({"N": size, "lr": rate}, {"loss": loss}, np.full(120, ALL), np.ones(120), size, np.arange(120))
    task = Task("bowl", (Variable("N"), Variable("lr")), ("loss",), scale="N")
    assert any("N" in h and "lr" in h for h in hints("E + A/N**a + B*(log(lr) - c)**2", task, rows))


def test_shares_and_zeros_are_asked_for_as_they_are() -> None:
    rng = np.random.default_rng(1)
    share = np.linspace(0, 1, 40)
    rows = Rows(
        {"p": share, "q": rng.random(40)},
        {"y": 1 + np.exp(2 * share) + 0.01 * rng.normal(size=40)},
        np.full(40, ALL),
        np.ones(40),
        None,
        np.arange(40),
    )
    task = Task("shares", (Variable("p", log=False), Variable("q", log=False)), ("y",))
    assert hints("E + A*q", task, rows)[0] == "exp(a*p)"


def test_a_law_without_residuals_asks_for_nothing() -> None:
    task, rows = planted(40, noise=0.0)
    law = parse("E + A/N**a + B/D**b", task.names)
    fit = fit_rows(law, rows, selection.fit_options(task, 12))
    exact = Rows(rows.columns, fit.predict(law, rows), rows.group, rows.weight, rows.scale, rows.run)
    assert asked_for(law, fit, task, exact) == ()
