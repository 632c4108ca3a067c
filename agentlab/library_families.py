"""Laws for any number of variables at once: products, sums, mixtures and second-order surfaces of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from agentlab.law import Call, Node, Num, Sym
from agentlab.law_edit import add, log, power, times
from agentlab.types import Variable

Family = Callable[[Sequence[Variable]], Node]
"""A law over the variables it is given; its parameters are marked with "?"."""


def product(variables: Sequence[Variable]) -> Node:
    """A * x**a * y**b ...; a variable that is no scale enters as exp(a*x), so that shares give a mixture law."""
    powers = [power(Sym(v.name), Sym(f"?a{i}")) for i, v in enumerate(variables) if v.log]
    linear = [times(Sym(f"?a{i}"), Sym(v.name)) for i, v in enumerate(variables) if not v.log]
    return times(Sym("?A"), *powers, *([Call("exp", (add(linear),))] if linear else []))


def offset_product(variables: Sequence[Variable]) -> Node:
    """E + the product."""
    return add([Sym("?E"), product(variables)])


def additive(variables: Sequence[Variable]) -> Node:
    """E + A/x**a + B/y**b ..., a variable that is no scale as b*y."""
    return add([Sym("?E"), *(_term(v, i, f"?a{i}") for i, v in enumerate(variables))])


def tied_additive(variables: Sequence[Variable]) -> Node:
    """E + A/x**a + B/y**a ... with one exponent."""
    return add([Sym("?E"), *(_term(v, i, "?a") for i, v in enumerate(variables))])


def power_of_sum(variables: Sequence[Variable]) -> Node:
    """E + (A/x**a + B/y**b ...)**g."""
    return add([Sym("?E"), power(add([_term(v, i, f"?a{i}") for i, v in enumerate(variables)]), Sym("?g"))])


def power_of_mean(variables: Sequence[Variable]) -> Node:
    """E + (1 + b*x + c*y ...)**g: a power of a weighted sum of the variables themselves."""
    weighted = [times(Sym(f"?b{i}"), Sym(v.name)) for i, v in enumerate(variables)]
    return add([Sym("?E"), times(Sym("?A"), power(add([Num(1.0), *weighted]), Sym("?g")))])


def log_linear(variables: Sequence[Variable]) -> Node:
    """E + A*log(x) + B*log(y) ..."""
    return add([Sym("?E"), *(times(Sym(f"?b{i}"), _coordinate(v)) for i, v in enumerate(variables))])


def log_interactions(variables: Sequence[Variable]) -> Node:
    """The log-linear law and all products of two logs."""
    pairs = combinations(range(len(variables)), 2)
    mixed = [times(Sym(f"?c{i}{j}"), _coordinate(variables[i]), _coordinate(variables[j])) for i, j in pairs]
    return add([log_linear(variables), *mixed])


def log_quadratic(variables: Sequence[Variable]) -> Node:
    """The log-linear law and the squares of the logs: a bowl without tilt."""
    squares = [times(Sym(f"?d{i}"), power(_coordinate(v), Num(2.0))) for i, v in enumerate(variables)]
    return add([log_linear(variables), *squares])


def response_surface(variables: Sequence[Variable]) -> Node:
    """All terms up to the second order in the logs: a bowl whose centre moves with the other variables."""
    squares = [times(Sym(f"?d{i}"), power(_coordinate(v), Num(2.0))) for i, v in enumerate(variables)]
    return add([log_interactions(variables), *squares])


def _coordinate(variable: Variable) -> Node:
    return log(Sym(variable.name)) if variable.log else Sym(variable.name)


def _term(variable: Variable, number: int, exponent: str) -> Node:
    coefficient, symbol = Sym(f"?A{number}"), Sym(variable.name)
    return Call("/", (coefficient, power(symbol, Sym(exponent)))) if variable.log else times(coefficient, symbol)
