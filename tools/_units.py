"""Units of formulas: exponents carry none, sums are of like terms, and parameters take the unit that this leaves them.

A dimension is a product of base units and of unknown units of parameters, each to a power. A power may itself hold
parameters (x**a): it is kept as a formula together with its value at drawn parameters, which tells equal from unequal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from agentlab.tools._unit_powers import HALF, MINUS, NONE, ONE, Dimension, Power, number, product, raised, unit_text

from agentlab.law import Call, Law, Node, Num, Sym, from_tree

UNKNOWN = "?"
"""Marks the unknown unit of a parameter among the base units."""


@dataclass(frozen=True)
class Break:
    """Where units do not agree: the term, the whole it stands in, what its unit is and what it should be."""

    term: str
    inside: str
    unit: str
    needed: str
    advice: str


class Units:
    """The units of one formula: `declared` by variable, and by parameter where known; solved as the tree is walked.

    Attributes:
        breaks: the terms whose units do not agree, in reading order.
    """

    def __init__(self, declared: Mapping[str, Dimension], variables: tuple[str, ...], seed: int = 0) -> None:
        self.breaks: list[Break] = []
        self._declared = declared
        self._variables = variables
        self._solved: dict[str, Dimension] = {}
        self._draw = np.random.default_rng(seed)
        self._drawn: dict[Node, Fraction] = {}

    def of(self, node: Node) -> Dimension:
        """The unit of a tree; notes every break below it."""
        if isinstance(node, Num):
            return NONE
        if isinstance(node, Sym):
            return self._symbol(node.name)
        args = node.args
        match node.op:
            case "+" | "-" | "min" | "max":
                return self._alike(node)
            case "neg" | "abs":
                return self.of(args[0])
            case "*":
                return product(self.of(args[0]), self.of(args[1]))
            case "/":
                return product(self.of(args[0]), raised(self.of(args[1]), MINUS))
            case "**":
                return self._power(node)
        return self._function(node)

    def _alike(self, node: Call) -> Dimension:
        first = self.of(node.args[0])
        for other in node.args[1:]:
            self.agree(other, self.of(other), first, node, "terms of a sum, min or max need like units")
        return self.solved(first)

    def _function(self, node: Call) -> Dimension:
        unit = self.of(node.args[0])
        if node.op == "sqrt":
            return raised(unit, HALF)
        advice = f"{node.op} takes a number without a unit: write {node.op}(x/x0) with a parameter x0"
        self.agree(node.args[0], unit, NONE, node, advice)
        return NONE

    def _symbol(self, name: str) -> Dimension:
        if name in self._declared:
            return self._declared[name]
        return self.solved({UNKNOWN + name: ONE})

    def _power(self, node: Call) -> Dimension:
        base, exponent = node.args
        self.agree(exponent, self.of(exponent), NONE, node, "an exponent carries no unit")
        unit = self.of(base)
        if not self._varies(exponent):
            return raised(unit, self._exponent(exponent))
        advice = "a power that varies needs a base without a unit: write (x/x0)**..."
        self.agree(base, unit, NONE, node, advice)
        return NONE

    def _exponent(self, node: Node) -> Power:
        value = self._value(node)
        if isinstance(node, Num):
            return number(value)
        if isinstance(node, Call) and node.op == "neg":
            return self._exponent(node.args[0]).times(MINUS)
        return Power(value, Fraction(1), (node,))

    def _varies(self, node: Node) -> bool:
        if isinstance(node, Sym):
            return node.name in self._variables
        return isinstance(node, Call) and any(self._varies(a) for a in node.args)

    def _value(self, node: Node) -> Fraction:
        """The exponent's value at drawn parameters: exact for + - * /, and a drawn number for anything else."""
        if isinstance(node, Num):
            return Fraction(repr(node.value))
        if isinstance(node, Call) and node.op in ("+", "-", "*", "/", "neg"):
            values = [self._value(a) for a in node.args]
            if node.op == "neg":
                return -values[0]
            if node.op == "/":
                return values[0] / (values[1] or Fraction(1))
            left, right = values
            return left + right if node.op == "+" else left - right if node.op == "-" else left * right
        if node not in self._drawn:
            self._drawn[node] = Fraction(int(self._draw.integers(10**6, 10**7)), 10**6 + 3)
        return self._drawn[node]

    def agree(self, node: Node, unit: Dimension, needed: Dimension, inside: Node, advice: str) -> None:
        """Let a parameter's unknown unit make the two alike, or note a break."""
        gap = self.solved(product(unit, raised(needed, MINUS)))
        unknown = [n for n in gap if n.startswith(UNKNOWN)]
        if not unknown:
            if gap:
                texts = (self.text(unit), self.text(needed))
                self.breaks.append(Break(_text(node), _text(inside), *texts, advice))
            return
        # a power of 1 is solved without a division, which keeps the units of parameters short
        chosen = min(unknown, key=lambda n: (abs(gap[n].value) != 1, bool(gap[n].above or gap[n].below)))
        rest = {n: p for n, p in gap.items() if n != chosen}
        found = {n: p.times(MINUS).over(gap[chosen]) for n, p in rest.items()}
        self._solved = {n: _replaced(d, chosen, found) for n, d in self._solved.items()}
        self._solved[chosen] = found

    def solved(self, unit: Dimension) -> Dimension:
        """The unit with what is known of the parameters' units put in."""
        out = unit
        for name in [n for n in unit if n in self._solved]:
            out = _replaced(out, name, self._solved[name])
        return out

    def text(self, unit: Dimension) -> str:
        """The unit as a formula of base units; "any" where nothing fixes it."""
        unit = self.solved(unit)
        shown = {f"unit_of_{n.removeprefix(UNKNOWN)}" if n.startswith(UNKNOWN) else n: p for n, p in unit.items()}
        text: str = unit_text(shown)
        return text


def _replaced(unit: Dimension, name: str, by: Dimension) -> Dimension:
    if name not in unit:
        return unit
    return product({n: p for n, p in unit.items() if n != name}, raised(by, unit[name]))


def _text(node: Node) -> str:
    return from_tree(node, ()).text


@dataclass(frozen=True)
class Solved:
    """The unit of a formula, those of its parameters, and where units do not agree."""

    unit: str
    parameters: Mapping[str, str]
    breaks: tuple[Break, ...]


def solve(law: Law, declared: Mapping[str, Dimension], target: Dimension | None) -> Solved:
    """The units of a law; variables without a declared unit are plain numbers, parameters take what is left to them."""
    known = {**dict.fromkeys(law.used, NONE), **declared}
    units = Units(known, law.used)
    unit = units.of(law.tree)
    if target is not None:
        units.agree(law.tree, unit, target, law.tree, "give the formula a coefficient that carries the target's unit")
    named = {p: units.text(units.of(Sym(p))) for p in law.params}
    return Solved(units.text(unit), named, tuple(units.breaks))
