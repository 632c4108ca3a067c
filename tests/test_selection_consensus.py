"""The finalist nearest to what the finalists say together."""

import numpy as np
from test_selection import planted

from agentlab import selection
from agentlab.law import Law, parse
from agentlab.selection_consensus import nearest_to_consensus
from agentlab.types import Outcome

GOOD = {"E": 1.69, "A": 406.4, "a": 0.34, "B": 410.7, "b": 0.28}


def finalist(text: str, objective: float, violations: tuple[str, ...] = (), **params: float) -> tuple[Law, Outcome]:
    law = parse(text, ("N", "D"))
    named = {p: params[p] for p in law.params}
    return law, Outcome("ok", objective=objective, violations=violations, params={"all": {"loss": named}})


def believed(*finalists: tuple[Law, Outcome]) -> int | None:
    task, rows = planted(40)
    judge = selection.problem(task, rows)
    return nearest_to_consensus([f[0] for f in finalists], [f[1] for f in finalists], judge)


def chinchilla(objective: float, shift: float = 0.0, violations: tuple[str, ...] = ()) -> tuple[Law, Outcome]:
    text = "E + A/N**a + B/D**b"
    return finalist(text, objective, violations, **{**GOOD, "a": GOOD["a"] + shift})


def test_of_laws_that_the_rows_cannot_tell_apart_the_middle_one_is_believed() -> None:
    stray = finalist("A*N**a*D**b", -101.0, A=40.0, a=-0.05, b=-0.08)
    assert believed(stray, chinchilla(-100.0), chinchilla(-99.0, 0.002), chinchilla(-99.0, -0.002)) in {1, 2, 3}


def test_a_law_that_is_far_ahead_is_believed_whatever_the_others_say() -> None:
    ahead = finalist("A*N**a*D**b", -300.0, A=40.0, a=-0.05, b=-0.08)
    assert believed(chinchilla(-100.0), ahead, chinchilla(-99.0, 0.002), chinchilla(-99.0, -0.002)) == 1


def test_laws_that_break_constraints_are_not_heard_while_others_break_none() -> None:
    broken = [chinchilla(-200.0, shift, ("finite",)) for shift in (0.1, 0.1, 0.1)]
    assert believed(*broken, chinchilla(-100.0)) == 3
    assert believed(*broken) == 0


def test_nothing_is_believed_where_nothing_was_fitted() -> None:
    law = parse("E", ("N", "D"))
    task, rows = planted(40)
    judge = selection.problem(task, rows)
    assert nearest_to_consensus([law], [Outcome("rejected", "non-finite")], judge) is None


def test_a_law_that_is_infinite_in_the_box_is_no_middle() -> None:
    pole = finalist("E + A/(N - k)", -101.0, E=1.7, A=1e6, k=float(np.float64(1e9)))
    assert believed(pole, chinchilla(-100.0), chinchilla(-99.5, 0.001)) in (1, 2)
