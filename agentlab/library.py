"""The scaling laws that the search starts from, simple to rich, for any set of variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from itertools import combinations, islice, permutations

from agentlab.law import LawError, Node, Sym, from_tree
from agentlab.law_edit import add, times
from agentlab.library_families import (
    Family,
    additive,
    log_interactions,
    log_linear,
    log_quadratic,
    offset_product,
    power_of_mean,
    power_of_sum,
    product,
    response_surface,
    tied_additive,
)
from agentlab.library_naming import named
from agentlab.library_shapes import Shape, Template, factors, filled, shape_of, suits
from agentlab.types import Variable

_TOKENS = r"tok|data|char|sample|^d$"
_REPEATED = {"y": _TOKENS, "z": r"uniq|distinct|fresh"}
_TUNED = {"x": r"par|size|^n$", "y": _TOKENS, "z": r"(^|_)lr(_|$)|learning", "w": r"bsz|batch|^bs?$"}
_SPARSE = {"x": r"activ|ratio|spars|^a$", "y": r"gran|^g$"}
_LEVERAGE = {**_SPARSE, "z": r"flop|comp|^c$"}
_EXPERTS = {"y": r"exp|^e$"}
_U = "min(y, z)"
_UN = "min(x, ((a*A/(b*B))**(1/(a + b))*min(y, z))**(b/a)*(a*A/(b*B))**(1/(a + b)))"

LAWS: tuple[Family | Template, ...] = (
    product,
    offset_product,
    additive,
    Template("A*x**a", first=6),
    Template("E + A*x**a", first=6),
    log_linear,
    Template("E + A/x**a + B/y**b", first=6),
    Template("E + A*x**a*y**b", first=6),
    Template("D*x**a*(1/(y + s) + m)**(b + c*log(x))", _EXPERTS),
    Template(f"E + A/x**a + B/({_U}*(1 + R*(1 - exp(-(y/{_U} - 1)/R))))**b", _REPEATED),
    Template(f"E + A/x**a + B/({_U})**b", _REPEATED),
    Template("E + A/x**a + B/(z + k*(y - z))**b", _REPEATED),
    Template("E + A/x**a + B/y**b + C*(y/z)**c", _REPEATED),
    Template("E + A/x**a + B/y**b + C/z**c", _REPEATED),
    Template(
        f"E + A/({_UN}*(1 + S*(1 - exp(-(x/{_UN} - 1)/S))))**a + B/({_U}*(1 + R*(1 - exp(-(y/{_U} - 1)/R))))**b",
        _REPEATED,
    ),
    Template("E + A/x**a + B/y**b + C*(log(z) - c - g*log(x) - h*log(y))**2", {"z": _TUNED["z"]}),
    Template("E + A/x**a + B/y**b + C*(log(w) - c - g*log(x) - h*log(y))**2 + D*(log(z) - d - m*log(x))**2", _TUNED),
    Template("A/y**a + B/x**b + C + D*(z - F*x**g*y**h)**2 + H*(log(w) + G*y**j/w)", _TUNED),
    tied_additive,
    power_of_sum,
    Template("E + A/(x + k)**a"),
    Template("E + A/(B + x**a)"),
    Template("(x + k)**(a + d*log(z) + g*log(y)**2 + b*log(y))", _LEVERAGE, first=6),
    Template("E + A*z**c/x**a + B/y**b", first=6),
    Template("E + z**c*(A/x**a + B/y**b)", first=6),
    Template("A*x**(a + b*log(y))*y**c"),
    Template("E + A*x**(a + b*log(y))*y**c"),
    Template("E + A/x**a + B/(x**c*y**b)"),
    Template("E + (A/(x*(k*log(y) + 1)))**a"),
    Template("E + (A/x**a + B/y**b)**g"),
    log_interactions,
    log_quadratic,
    response_surface,
    Template("A*x**(a + b*log(x))"),
    Template("E + A*x**(a + b*log(x))"),
    Template("E + A*exp(a*x)"),
    Template("E + A*x + B*x**2"),
    Template("E + A*x + B*x**2 + C*x**3"),
    Template("E + A*x + B*x**2 + C*x**3 + D*x**4"),
    Template("E + A*x + B*x**2 + C*x**3 + D*x**4 + F*x**5"),
    Template("E + A*sigmoid(a*x + b)"),
    Template("E + A*exp(-((x - c)/s)**2)"),
    Template("E + A*sigmoid(a*x + b) + B*x"),
    Template("(x + k)**(a + b*log(y))", _SPARSE),
    Template("A*(x + k)**a*y**b"),
    Template("E + A*(x + k)**a*y**b"),
    Template("x**(a + b*log(y) + c*log(y)**2)", _SPARSE),
    Template("(x + k)**(a + b*log(y) + c*log(y)**2)", _SPARSE),
    Template("A*(x + k)**(a + d*log(z) + g*log(y)**2 + b*log(y))", _LEVERAGE),
    Template("x**(a + d*log(z) + g*log(y)**2 + b*log(y))", _LEVERAGE),
    Template("(x + k)**(a + d*log(z) + b*log(y))", _LEVERAGE),
    Template("A*x**a*y**b*z**(c + d*log(x))"),
    Template("E + A/(1 + B*x**a*y**b)"),
    Template("E + A/x**a*(1/(y + s) + m)**b"),
    Template("E + A/x**a + B/x**b"),
    Template("A*x**a*(1 + B*x**b)"),
    Template("E + A*x**a*(1 + B*x**b)**c"),
    Template("E + A*log(1/(x + k) + B)"),
    Template("E + A*log(x) + B*log(x)**2 + C*log(x)**3"),
    Template("E + A/x**a + B*(log(y) - c - g*log(x))**2"),
    Template("E + A/x**a + B/y**b + C*(log(z) - c - g*log(x))**2"),
    Template("E + (A/z**g + B)/x**a + C/y**b"),
    Template("E + A/x**a + B/y**b + C/(x**a*y**b)"),
    Template("E + A*exp(a*x + b*y)"),
    Template("E + A*exp(a*x) + B*exp(b*y)"),
    power_of_mean,
    Template("E + A*exp(-x/k)*y**b"),
    Template("E + A*(1 - exp(-x/k))*y**b"),
    Template("exp(A*x**a + B) + exp(C*x**b + D)*y**(-exp(F*x**c + G))"),
    Template("E + A*z**a*x**(b + c*log(z)) + B*z**d*y**(f + g*log(z))"),
    Template("x**a"),
    Template("A*x"),
    Template("A*log(x)"),
)
"""The seed laws, simple to rich: Chinchilla and Skaling, saturation, MoE leverage (arXiv 2507.17702), parallel scaling,
rectified, mixtures, tuning bowls, routed experts, data repetition, broken power laws, fine-grained MoE, Farseer."""


@cache
def templates() -> tuple[tuple[float, Shape], ...]:
    """The parsed seed laws that want no special variables, with equal weights."""
    return tuple((1.0, shape_of(law.text)) for law in LAWS if isinstance(law, Template) and not law.roles)


@lru_cache(maxsize=16)
def keys(variables: tuple[Variable, ...]) -> frozenset[str]:
    """The canonical keys of the known laws over these variables, in every choice of variables that suits them."""
    names = tuple(v.name for v in variables)
    found = set()
    for law in LAWS:
        for node in islice(_instances(law, variables[:MOST], True), CHOICES):
            with suppress(LawError):
                found.add(from_tree(named(node, names), names).key)
    return frozenset(found)


def _is_no_ratio(variable: Variable) -> bool:
    return variable.box is None or variable.box[1] > 1.0


ROUNDS = (0, 4, 60)
"""Choices of variables that each round of the sweep adds for one law: few of all laws before many of one."""
CHOICES = 60
"""Choices of variables in which one law is known at most."""
MOST = 8
"""Variables among which known laws are looked for: of more, the first."""
LATE = 8
"""Choices of variables that suit a law badly, taken after all others."""


def sweep(variables: Sequence[Variable]) -> Iterator[Node]:
    """Laws in a fixed order: seed laws in rounds, products of two factors, laws that suit badly, sums of two factors.

    Parameters are marked with "?"; laws can repeat, and can have more parameters than a task allows.
    """
    waiting = [(law.first if isinstance(law, Template) else 2, _instances(law, variables, True)) for law in LAWS]
    for more in ROUNDS:
        for first, instances in waiting:
            yield from islice(instances, more or first)
    yield from _pairs(variables, joined=True)
    for law in LAWS:
        yield from islice(_instances(law, variables, False), LATE)
    yield from _pairs(variables, joined=False)


def _instances(law: Family | Template, variables: Sequence[Variable], suiting: bool) -> Iterator[Node]:
    """The law over its choices of variables: a family over all and all but one, a template over ordered choices."""
    if not isinstance(law, Template):
        if suiting:
            yield law(variables)
            if len(variables) > 2:
                for left_out in reversed(variables):
                    yield law([v for v in variables if v is not left_out])
        return
    shape = shape_of(law.text)
    if len(shape.slots) > len(variables):
        return
    for chosen in permutations(sorted(variables, key=_is_no_ratio), len(shape.slots)):
        if (_matches(law, shape, chosen) if law.roles else suits(shape, chosen)) == suiting:
            yield filled(shape, chosen)


def _matches(law: Template, shape: Shape, chosen: Sequence[Variable]) -> bool:
    names = {s: v.name.lower() for s, v in zip(shape.slots, chosen, strict=True)}
    return all(re.search(pattern, names[slot]) for slot, pattern in law.roles.items())


def _pairs(variables: Sequence[Variable], *, joined: bool) -> Iterator[Node]:
    """E + A*f*g, or E + A*f + B*g, for all factors f, g of one variable each."""
    single = [shape for _, shape in factors() if len(shape.slots) == 1]
    blocks = [(shape, v) for shape in single for v in variables if suits(shape, [v])]
    for (f, u), (g, v) in combinations(blocks, 2):
        left, right = filled(f, [u], "?l"), filled(g, [v], "?r")
        body = [times(Sym("?A"), left, right)] if joined else [times(Sym("?A"), left), times(Sym("?B"), right)]
        yield add([Sym("?E"), *body])
