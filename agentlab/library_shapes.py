"""Templates of laws and factors: text in x, y, z, w, parsed once and filled with variables of the kinds they want.

In a template x, y, z, w stand for variables and every other name for a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from agentlab.law import Call, Node, Num, Sym, parse
from agentlab.law_edit import put, walk
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
        under[path] = above or (isinstance(node, Call) and _wants_scale(node))
        if isinstance(node, Sym) and node.name in SLOTS:
            (scaled if above else raw).add(node.name)
    return Shape(law.tree, tuple(s for s in SLOTS if s in law.used), law.params, frozenset(scaled), frozenset(raw))


@cache
def factors() -> tuple[tuple[float, Shape], ...]:
    """The parsed factors with their weights."""
    return tuple((float(weight), shape_of(text)) for weight, text in FACTORS)


def _wants_scale(node: Call) -> bool:
    """Whether what stands inside must be positive: in a logarithm, and in powers that are not 2, 3, ..."""
    if node.op != "**":
        return node.op == "log"
    exponent = node.args[1]
    return not (isinstance(exponent, Num) and exponent.value == int(exponent.value) > 0)


def suits(shape: Shape, variables: Sequence[Variable]) -> bool:
    """Whether each variable is of the kind that its slot wants: scales under logs and powers, others as they are."""
    for slot, variable in zip(shape.slots, variables, strict=True):
        if slot in shape.scaled and not (variable.log or _positive(variable)):
            return False
        if slot in shape.raw and slot not in shape.scaled and variable.log:
            return False
    return True


def _positive(variable: Variable) -> bool:
    return variable.box is not None and variable.box[0] > 0


def filled(shape: Shape, variables: Sequence[Variable], mark: str = "?") -> Node:
    """The template over these variables; its parameters carry the mark, which no variable can."""
    values: dict[str, Node] = {s: Sym(v.name) for s, v in zip(shape.slots, variables, strict=True)}
    values.update((p, Sym(mark + p)) for p in shape.params)
    return put(shape.tree, values)
