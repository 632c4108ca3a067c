"""The scaling laws and building blocks that the search starts from, simple to rich, for any set of variables.

In the templates x, y, z, w stand for variables and every other name for a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, islice, permutations

from agentlab.law import Call, Node, Num, Sym, parse
from agentlab.proposers.trees import add, log, power, put, times, walk
from agentlab.types import Variable

SLOTS = ("x", "y", "z", "w")


@dataclass(frozen=True, slots=True)
class Template:
    """A law in x, y, z, w. `roles` are patterns for the names of variables: without a match the law is tried late.

    `first` is how many choices of variables are tried before the next law has its turn.
    """

    text: str
    roles: Mapping[str, str] = field(default_factory=dict)
    first: int = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """A parsed template: its slots in order, its parameters, and the slots used as a scale or as they are."""

    tree: Node
    slots: tuple[str, ...]
    params: tuple[str, ...]
    scaled: frozenset[str]
    raw: frozenset[str]


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


Family = Callable[[Sequence[Variable]], Node]

_TOKENS = r"tok|data|char|sample|^d$"
_REPEATED = {"y": _TOKENS, "z": r"uniq|distinct|fresh"}
_TUNED = {"x": r"par|size|^n$", "y": _TOKENS, "z": r"^lr$|learning|rate", "w": r"b.*si?ze?|batch|^b$"}
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
    tied_additive,
    power_of_sum,
    Template("E + A/(x + k)**a"),
    Template("E + A/(B + x**a)"),
    Template("(x + k)**(a + d*log(z) + g*log(y)**2 + b*log(y))", first=6),
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
    Template("(x + k)**(a + b*log(y))"),
    Template("A*(x + k)**a*y**b"),
    Template("E + A*(x + k)**a*y**b"),
    Template("x**(a + b*log(y) + c*log(y)**2)"),
    Template("(x + k)**(a + b*log(y) + c*log(y)**2)"),
    Template("A*(x + k)**(a + d*log(z) + g*log(y)**2 + b*log(y))"),
    Template("x**(a + d*log(z) + g*log(y)**2 + b*log(y))"),
    Template("(x + k)**(a + d*log(z) + b*log(y))"),
    Template("A*x**a*y**b*z**(c + d*log(x))"),
    Template("E + A/(1 + B*x**a*y**b)"),
    Template("D*x**a*(1/(y + s) + m)**(b + c*log(x))", _EXPERTS),
    Template("E + A/x**a*(1/(y + s) + m)**b"),
    Template(f"E + A/x**a + B/({_U}*(1 + R*(1 - exp(-(y/{_U} - 1)/R))))**b", _REPEATED),
    Template(f"E + A/x**a + B/({_U})**b", _REPEATED),
    Template("E + A/x**a + B/(z + k*(y - z))**b", _REPEATED),
    Template("E + A/x**a + B/y**b + C*(y/z)**c", _REPEATED),
    Template("E + A/x**a + B/y**b + C/z**c", _REPEATED),
    Template(
        f"E + A/({_UN}*(1 + S*(1 - exp(-(x/{_UN} - 1)/S))))**a + B/({_U}*(1 + R*(1 - exp(-(y/{_U} - 1)/R))))**b",
        _REPEATED,
    ),
    Template("E + A/x**a + B/x**b"),
    Template("A*x**a*(1 + B*x**b)"),
    Template("E + A*x**a*(1 + B*x**b)**c"),
    Template("E + A*log(1/(x + k) + B)"),
    Template("E + A*log(x) + B*log(x)**2 + C*log(x)**3"),
    Template("E + A/x**a + B*(log(y) - c - g*log(x))**2"),
    Template("E + A/x**a + B/y**b + C*(log(z) - c - g*log(x))**2"),
    Template("E + A/x**a + B/y**b + C*(log(z) - c - g*log(x) - h*log(y))**2", {"z": _TUNED["z"]}),
    Template("E + A/x**a + B/y**b + C*(log(w) - c - g*log(x) - h*log(y))**2 + D*(log(z) - d - m*log(x))**2", _TUNED),
    Template("A/y**a + B/x**b + C + D*(z - F*x**g*y**h)**2 + H*(log(w) + G*y**j/w)", _TUNED),
    Template("E + (A/z**g + B)/x**a + C/y**b"),
    Template("E + A/x**a + B/y**b + C/(x**a*y**b)"),
    Template("E + A*exp(a*x + b*y)"),
    Template("E + A*exp(a*x) + B*exp(b*y)"),
    power_of_mean,
    Template("E + A*exp(-x/k)*y**b"),
    Template("E + A*(1 - exp(-x/k))*y**b"),
    Template("exp(A*x**a + B) + exp(C*x**b + D)*y**(-exp(F*x**c + G))"),
    Template("E + A*z**a*x**(b + c*log(z)) + B*z**d*y**(f + g*log(z))"),
)
"""The seed laws, simple to rich: Chinchilla and Skaling, saturation, MoE leverage (arXiv 2507.17702), parallel scaling,
rectified, mixtures, tuning bowls, routed experts, data repetition, broken power laws, fine-grained MoE, Farseer."""

FACTORS: tuple[tuple[int, str], ...] = (
    (8, "x**a"),
    (3, "(x + k)**a"),
    (3, "x**(a + b*log(y))"),
    (3, "x**a*y**b"),
    (2, "log(x)"),
    (2, "log(x)**2"),
    (2, "(log(x) - c)**2"),
    (2, "1/(k + x**a)"),
    (2, "1 + B*x**a"),
    (2, "1 + B*log(x)"),
    (2, "exp(-x/k)"),
    (1, "exp(a*log(x)**2)"),
    (1, "x**(a + b*log(x))"),
    (1, "min(x, k)**a"),
    (1, "(x + k*y)**a"),
    (1, "1 + B*x**a*y**b"),
    (1, "log(x)*log(y)"),
    (1, "(log(x) - c - g*log(y))**2"),
    (4, "exp(a*x)"),
    (3, "x"),
    (2, "x**2"),
    (2, "sigmoid(a*x + b)"),
    (2, "x*y"),
    (2, "exp(a*x + b*y)"),
    (1, "exp(-((x - c)/s)**2)"),
)
"""Factors without a coefficient of their own, with the weights at which edits draw them."""


@cache
def shape_of(text: str) -> Shape:
    """A template parsed; a slot is used as a scale under log or a power, and raw anywhere else."""
    law = parse(text, SLOTS)
    scaled: set[str] = set()
    raw: set[str] = set()
    under: dict[tuple[int, ...], bool] = {}
    for path, node in walk(law.tree):
        above = under.get(path[:-1], False)
        under[path] = above or isinstance(node, Call) and (node.op == "log" or node.op == "**" and not _whole(node.args[1]))
        if isinstance(node, Sym) and node.name in SLOTS:
            (scaled if above else raw).add(node.name)
    return Shape(law.tree, tuple(s for s in SLOTS if s in law.used), law.params, frozenset(scaled), frozenset(raw))


def _whole(node: Node) -> bool:
    return isinstance(node, Num) and node.value == int(node.value) > 0


def suits(shape: Shape, variables: Sequence[Variable]) -> bool:
    """Whether each variable is of the kind that its slot wants: scales under logs and powers, others as they are."""
    for slot, variable in zip(shape.slots, variables, strict=True):
        if slot in shape.scaled and not (variable.log or _positive(variable)):
            return False
        if slot in shape.raw and slot not in shape.scaled and variable.log:
            return False
    return True


def _is_no_ratio(variable: Variable) -> bool:
    return variable.box is None or variable.box[1] > 1.0


def _positive(variable: Variable) -> bool:
    return variable.box is not None and variable.box[0] > 0


def filled(shape: Shape, variables: Sequence[Variable], mark: str = "?") -> Node:
    """The template over these variables; its parameters carry the mark, which no variable can."""
    values: dict[str, Node] = {s: Sym(v.name) for s, v in zip(shape.slots, variables, strict=True)}
    values.update((p, Sym(mark + p)) for p in shape.params)
    return put(shape.tree, values)


ROUNDS = (0, 4, 60)
"""Choices of variables that each round of the sweep adds for one law: few of all laws before many of one."""
LATE = 8
"""Choices of variables that suit a law badly, taken after all others."""


def sweep(variables: Sequence[Variable]) -> Iterator[Node]:
    """Laws in a fixed order: the seed laws in rounds, products of two factors, laws that suit badly, sums of two factors.

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
        if (suits(shape, chosen) and _matches(law, shape, chosen)) == suiting:
            yield filled(shape, chosen)


def _matches(law: Template, shape: Shape, chosen: Sequence[Variable]) -> bool:
    names = {s: v.name.lower() for s, v in zip(shape.slots, chosen, strict=True)}
    return all(re.search(pattern, names[slot]) for slot, pattern in law.roles.items())


def _pairs(variables: Sequence[Variable], *, joined: bool) -> Iterator[Node]:
    """E + A*f*g, or E + A*f + B*g, for all factors f, g of one variable each."""
    single = [shape for shape in (shape_of(text) for _, text in FACTORS) if len(shape.slots) == 1]
    blocks = [(shape, v) for shape in single for v in variables if suits(shape, [v])]
    for (f, u), (g, v) in combinations(blocks, 2):
        left, right = filled(f, [u], "?l"), filled(g, [v], "?r")
        body = [times(Sym("?A"), left, right)] if joined else [times(Sym("?A"), left), times(Sym("?B"), right)]
        yield add([Sym("?E"), *body])
