"""A law rewritten so that more of its parameters are linear, with the way back: the form they are searched in.

    (A g)**e       ->  A' g**e            A' = A**e   (e without variables)
    exp(p + g)     ->  p' exp(g)          p' = exp(p)
    A (u + k v)    ->  A u + k' v         k' = k A

A parameter keeps its name and place and only changes its meaning; each must occur once in the formula. The first two
need A' > 0 and p' > 0 (`positive`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from agentlab.law import Call, Law, Node, Num, Sym, from_tree
from agentlab.law_edit import symbols
from agentlab.types import FloatArray

Values = dict[str, FloatArray]

LARGEST, SMALLEST = 1e150, 1e-300
"""Parameters are kept between these sizes when they are mapped, so that a degenerate point stays finite."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One change of meaning of parameter `name`: to the power `by`, to exp(`sign` x), or times the parameter `by`."""

    kind: Literal["power", "exp", "times"]
    name: str
    by: Node
    sign: float = 1.0

    def there(self, values: Values) -> FloatArray:
        """From the law's own meaning to that of the standard form."""
        x, by = values[self.name], _value(self.by, values)
        if self.kind == "exp":
            return np.exp(self.sign * x)
        return np.power(x, self.sign * by) if self.kind == "power" else x * by

    def back(self, values: Values) -> FloatArray:
        """The inverse of `there`."""
        x, by = values[self.name], _value(self.by, values)
        if self.kind == "exp":
            return self.sign * np.log(np.maximum(x, SMALLEST))
        return np.power(x, self.sign / by) if self.kind == "power" else x / np.where(by == 0, SMALLEST, by)


@dataclass(frozen=True)
class Standard:
    """The rewritten `law`, the parameters that must be positive in it, and the rules in the order they were applied."""

    law: Law
    original: Law
    positive: frozenset[str]
    rules: tuple[Rule, ...]

    def there(self, theta: FloatArray) -> FloatArray:
        """Parameters (..., P) of the original law -> of the standard form; nan where it cannot express them."""
        values = {name: theta[..., i] for i, name in enumerate(self.original.params)}
        with np.errstate(all="ignore"):
            for rule in self.rules:
                values[rule.name] = _tamed(rule.there(values))
        return _stacked(values, self.law, theta)

    def back(self, theta: FloatArray) -> FloatArray:
        """Parameters (..., P) of the standard form -> of the original law."""
        values = {name: theta[..., i] for i, name in enumerate(self.law.params)}
        with np.errstate(all="ignore"):
            for rule in reversed(self.rules):
                values[rule.name] = _tamed(rule.back(values))
        return _stacked(values, self.original, theta)


def standard(law: Law, keep: Collection[str] = ()) -> Standard:
    """The standard form of `law`; parameters in `keep` (those with bounds) do not change their meaning."""
    kept = frozenset(keep)
    while True:
        work = _Rewriting(law, kept)
        tree = work.distributed(work.pulled(folded(law.tree)))
        if not work.rules:
            plain = folded(law.tree)
            return Standard(law if plain == law.tree else from_tree(plain, law.variables), law, frozenset(), ())
        form = Standard(from_tree(tree, law.variables), law, frozenset(work.positive), tuple(work.rules))
        idle = form.positive - frozenset(form.law.linear)
        if not idle:
            return form
        kept |= idle  # pulled out for nothing: it did not become linear


class _Scale(NamedTuple):
    """A free parameter that multiplies a part (`sign` 1) or divides it (-1), and the part without it."""

    name: str
    sign: float
    rest: Node


class _Rewriting:
    """The rules found so far, and what may still be rewritten."""

    def __init__(self, law: Law, keep: Collection[str]) -> None:
        counts = Counter(symbols(law.tree))
        self.params = frozenset(law.params)
        self.free = {p for p in law.params if counts[p] == 1 and p not in keep}
        self.rules: list[Rule] = []
        self.positive: set[str] = set()

    def pulled(self, node: Node) -> Node:
        """Scales pulled out of powers and exponentials, innermost first."""
        if not isinstance(node, Call):
            return node
        node = Call(node.op, tuple(self.pulled(a) for a in node.args))
        if node.op == "**" and not frozenset(symbols(node.args[1])) - self.params:
            return self._power(node)
        if node.op == "sqrt":
            return self._power(node)
        if node.op == "exp":
            return self._exponential(node)
        return node

    def _power(self, node: Call) -> Node:
        """(A g)**e -> A' g**e, one scale at a time."""
        exponent = Num(0.5) if node.op == "sqrt" else node.args[1]
        scale = self._scale(node.args[0])
        if scale is None or exponent == Num(0.0):
            return node
        self._pull(Rule("power", scale.name, exponent, scale.sign))
        return Call("*", (Sym(scale.name), self._power(Call(node.op, (scale.rest, *node.args[1:])))))

    def _exponential(self, node: Call) -> Node:
        """exp(p + g) -> p' exp(g)."""
        terms = _terms(node.args[0])
        for i, (term, sign) in enumerate(terms):
            if isinstance(term, Sym) and term.name in self.free and len(terms) > 1:
                self._pull(Rule("exp", term.name, Num(1.0), sign))
                return Call("*", (term, Call("exp", (_sum(terms[:i] + terms[i + 1 :]),))))
        return node

    def _pull(self, rule: Rule) -> None:
        self.rules.append(rule)
        self.positive.add(rule.name)
        self.free.discard(rule.name)

    def _scale(self, node: Node) -> _Scale | None:
        """The first free parameter among the factors of a part."""
        if not isinstance(node, Call) or node.op not in ("*", "/"):
            return None
        left, right = node.args
        if isinstance(left, Sym) and left.name in self.free:
            return _Scale(left.name, 1.0, right if node.op == "*" else Call("/", (Num(1.0), right)))
        if isinstance(right, Sym) and right.name in self.free:
            return _Scale(right.name, 1.0 if node.op == "*" else -1.0, left)
        if (inner := self._scale(left)) is not None:
            return inner._replace(rest=Call(node.op, (inner.rest, right)))
        if (inner := self._scale(right)) is not None:
            sign = inner.sign if node.op == "*" else -inner.sign
            return _Scale(inner.name, sign, Call(node.op, (left, inner.rest)))
        return None

    def distributed(self, node: Node) -> Node:
        """A (u + k v) -> A u + k' v in every term of the law."""
        return _sum([(part, sign * s) for term, sign in _terms(node) for part, s in self._expanded(term)])

    def _expanded(self, term: Node) -> list[tuple[Node, float]]:
        """The terms that a product of a scale and a sum of scaled parts becomes; itself where it is no such product."""
        factors = _factors(term)
        scale = self._named(factors, self.free | self.positive)
        if not scale:
            return [(term, 1.0)]
        for i, (factor, power) in enumerate(factors):
            inside = [(part, sign, self._named(_factors(part), self.free)) for part, sign in _terms(factor)]
            bare = [(part, sign) for part, sign, name in inside if not name]
            if power < 0 or not 0 < len(bare) < len(inside):
                continue
            others = factors[:i] + factors[i + 1 :]
            rest = [f for f in others if f[0] != Sym(scale)]
            out = [(_product([*others, (_sum(bare), 1)]), 1.0)]
            for part, sign, name in inside:
                if name:
                    self.rules.append(Rule("times", name, Sym(scale)))
                    self.free.discard(name)
                    out.append((_product([*rest, *_factors(part)]), sign))
            return out
        return [(term, 1.0)]

    def _named(self, factors: Sequence[tuple[Node, int]], names: Collection[str]) -> str:
        """The first of `names` that multiplies; "" where none does."""
        return next((f.name for f, power in factors if power > 0 and isinstance(f, Sym) and f.name in names), "")


def folded(node: Node) -> Node:
    """The tree without what a factor 0, a factor or power 1, or a term 0 leaves nothing of."""
    if not isinstance(node, Call):
        return node
    node = Call(node.op, tuple(folded(a) for a in node.args))
    left, right = node.args[0], node.args[-1]
    if node.op == "*" and zero in (left, right):
        return zero
    if node.op == "**" and right == zero:
        return one
    if (node.op == "*" and left == one) or (node.op == "+" and left == zero):
        return right
    if right == (one if node.op in ("*", "/", "**") else zero) and node.op in ("*", "/", "**", "+", "-"):
        return left
    return node


zero, one = Num(0.0), Num(1.0)


def _terms(node: Node, sign: float = 1.0) -> list[tuple[Node, float]]:
    """The terms of a sum with their signs."""
    if isinstance(node, Call) and node.op in ("+", "-"):
        return [*_terms(node.args[0], sign), *_terms(node.args[1], sign if node.op == "+" else -sign)]
    if isinstance(node, Call) and node.op == "neg":
        return _terms(node.args[0], -sign)
    return [(node, sign)]


def _sum(terms: Sequence[tuple[Node, float]]) -> Node:
    node, sign = terms[0]
    out = node if sign > 0 else Call("neg", (node,))
    for term, s in terms[1:]:
        out = Call("+" if s > 0 else "-", (out, term))
    return out


def _factors(node: Node, power: int = 1) -> list[tuple[Node, int]]:
    """The factors of a product, +1 above the line and -1 below it."""
    if isinstance(node, Call) and node.op == "*":
        return [*_factors(node.args[0], power), *_factors(node.args[1], power)]
    if isinstance(node, Call) and node.op == "/":
        return [*_factors(node.args[0], power), *_factors(node.args[1], -power)]
    return [(node, power)]


def _product(factors: Sequence[tuple[Node, int]]) -> Node:
    above = [f for f, power in factors if power > 0 and f != Num(1.0)]
    out: Node = above[0] if above else Num(1.0)
    for factor in above[1:]:
        out = Call("*", (out, factor))
    for factor in [f for f, power in factors if power < 0]:
        out = Call("/", (out, factor))
    return out


def _value(node: Node, values: Values) -> FloatArray:
    """A part without variables at (...,) parameter values."""
    if isinstance(node, Num):
        return np.asarray(node.value)
    if isinstance(node, Sym):
        return values[node.name]
    law = from_tree(node, ())
    return law.evaluate({}, np.stack([values[name] for name in law.params], axis=-1))[..., 0]


def _tamed(values: FloatArray) -> FloatArray:
    return np.minimum(np.maximum(values, -LARGEST), LARGEST)


def _stacked(values: Values, law: Law, theta: FloatArray) -> FloatArray:
    """Parameters (..., P) in the order of `law`; those that the other form has lost are 1."""
    if not law.params:
        return theta[..., :0]
    return np.stack([values[name] if name in values else np.ones(theta.shape[:-1]) for name in law.params], axis=-1)
