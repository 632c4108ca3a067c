"""A law rewritten so that more of its parameters are linear, with the way back: the form in which parameters are searched.

    (A g)**e       ->  A' g**e            A' = A**e   (e without variables)
    exp(p + g)     ->  p' exp(g)          p' = exp(p)
    A (u + k v)    ->  A u + k' v         k' = k A

A parameter keeps its name and place and only changes its meaning; each must occur once in the formula. The first two need A' > 0
and p' > 0 (`positive`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from agentlab.law import Call, Law, Node, Num, Sym, from_tree
from agentlab.types import FloatArray

Values = dict[str, FloatArray]
LARGEST = 1e150
"""Parameters are kept below this size when they are mapped, so that a degenerate point stays finite."""


@dataclass(frozen=True)
class Rule:
    """One change of meaning of parameter `name`: `there` from the law's own to the standard form, `back` the inverse."""

    name: str
    there: Callable[[Values], FloatArray]
    back: Callable[[Values], FloatArray]


@dataclass(frozen=True)
class Standard:
    """The rewritten `law`, the parameters that must be positive in it, and the rules in the order they were applied."""

    law: Law
    original: Law
    positive: frozenset[str]
    rules: tuple[Rule, ...]

    def there(self, theta: FloatArray) -> FloatArray:
        """Parameters (..., P) of the original law -> of the standard form; nan where it cannot express them."""
        return self._map(theta, self.original, self.law, [(r.name, r.there) for r in self.rules])

    def back(self, theta: FloatArray) -> FloatArray:
        """Parameters (..., P) of the standard form -> of the original law."""
        return self._map(theta, self.law, self.original, [(r.name, r.back) for r in reversed(self.rules)])

    def _map(
        self, theta: FloatArray, source: Law, target: Law, steps: list[tuple[str, Callable[[Values], FloatArray]]]
    ) -> FloatArray:
        values = {name: theta[..., i] for i, name in enumerate(source.params)}
        with np.errstate(all="ignore"):
            for name, step in steps:
                values[name] = np.clip(step(values), -LARGEST, LARGEST)
        return np.stack([values[name] for name in target.params], axis=-1) if target.params else theta


def standard(law: Law, keep: Collection[str] = ()) -> Standard:
    """The standard form of `law`; parameters in `keep` (those with bounds) do not change their meaning."""
    kept = frozenset(keep)
    while True:
        work = _Rewriting(law, kept)
        tree = work.distributed(work.pulled(law.tree))
        if not work.rules:
            return Standard(law, law, frozenset(), ())
        form = Standard(from_tree(tree, law.variables), law, frozenset(work.positive), tuple(work.rules))
        idle = form.positive - frozenset(form.law.linear)
        if not idle:
            return form
        kept |= idle


class _Rewriting:
    """The rules found so far, and what may still be rewritten."""

    def __init__(self, law: Law, keep: Collection[str]) -> None:
        counts = _counts(law.tree)
        self.params = frozenset(law.params)
        self.free = {p for p in law.params if counts[p] == 1 and p not in keep}
        self.rules: list[Rule] = []
        self.positive: set[str] = set()

    def pulled(self, node: Node) -> Node:
        """Scales pulled out of powers and exponentials, innermost first."""
        if not isinstance(node, Call):
            return node
        node = Call(node.op, tuple(self.pulled(a) for a in node.args))
        if node.op == "**" and not _symbols(node.args[1]) - self.params:
            return self._power(node.args[0], node.args[1])
        if node.op == "sqrt":
            return self._power(node.args[0], Num(0.5), root=True)
        if node.op == "exp":
            return self._exponential(node.args[0])
        return node

    def _power(self, base: Node, exponent: Node, root: bool = False) -> Node:
        """(A g)**e -> A' g**e, one scale at a time."""
        name, over, rest = self._scale(base)
        plain = Call("sqrt", (base,)) if root else Call("**", (base, exponent))
        if not name or rest is None or isinstance(exponent, Num) and exponent.value == 0:
            return plain
        self._rule(
            name,
            lambda v, e=exponent, s=-1.0 if over else 1.0: v[name] ** (s * _value(e, v)),
            lambda v, e=exponent, s=-1.0 if over else 1.0: v[name] ** (s / _value(e, v)),
        )
        return Call("*", (Sym(name), self._power(rest, exponent, root)))

    def _exponential(self, argument: Node) -> Node:
        """exp(p + g) -> p' exp(g)."""
        terms = _terms(argument)
        for i, (term, sign) in enumerate(terms):
            if isinstance(term, Sym) and term.name in self.free and len(terms) > 1:
                name = term.name
                self._rule(name, lambda v, s=sign: np.exp(s * v[name]), lambda v, s=sign: s * np.log(np.maximum(v[name], 1e-300)))
                return Call("*", (term, Call("exp", (_sum(terms[:i] + terms[i + 1 :]),))))
        return Call("exp", (argument,))

    def _rule(self, name: str, there: Callable[[Values], FloatArray], back: Callable[[Values], FloatArray]) -> None:
        self.rules.append(Rule(name, there, back))
        self.positive.add(name)
        self.free.discard(name)

    def _scale(self, node: Node) -> tuple[str, bool, Node | None]:
        """A free parameter that multiplies (or divides: True) the node, and what is left without it."""
        if not isinstance(node, Call) or node.op not in ("*", "/"):
            return "", False, None
        left, right = node.args
        for i, side in enumerate((left, right)):
            other = right if i == 0 else left
            over = node.op == "/" and i == 1
            if isinstance(side, Sym) and side.name in self.free:
                if i == 0 and node.op == "/":
                    return side.name, False, Call("/", (Num(1.0), other))
                return side.name, over, other
            name, below, rest = self._scale(side)
            if name and rest is not None:
                args = (rest, right) if i == 0 else (left, rest)
                return name, below != over, Call(node.op, args)
        return "", False, None

    def distributed(self, node: Node) -> Node:
        """A (u + k v) -> A u + k' v wherever the law is a sum of products."""
        terms = []
        for term, sign in _terms(node):
            terms.extend((part, sign * s) for part, s in self._expanded(term))
        return _sum(terms)

    def _expanded(self, term: Node) -> list[tuple[Node, float]]:
        factors = _factors(term)
        scale = next((f.name for f, power in factors if power > 0 and isinstance(f, Sym) and f.name in self.params and self._linear(f.name)), "")
        if not scale:
            return [(term, 1.0)]
        for i, (factor, power) in enumerate(factors):
            inside = _terms(factor)
            if power < 0 or len(inside) < 2:
                continue
            marked = [(t, s, next((f.name for f, p in _factors(t) if p > 0 and isinstance(f, Sym) and f.name in self.free), "")) for t, s in inside]
            bare = [m for m in marked if not m[2]]
            if not bare or len(bare) == len(marked):
                continue
            others = factors[:i] + factors[i + 1 :]
            without = [f for f in others if f[0] != Sym(scale)]
            out = [(_product([*others, *_factors(_sum([(t, s) for t, s, _ in bare]))]), 1.0)]
            for t, s, name in marked:
                if name:
                    self._multiply(name, scale)
                    out.append((_product([*without, *_factors(t)]), s))
            return out
        return [(term, 1.0)]

    def _linear(self, name: str) -> bool:
        return name in self.free or name in self.positive

    def _multiply(self, name: str, scale: str) -> None:
        """k' = k A."""
        self.rules.append(Rule(name, lambda v: v[name] * v[scale], lambda v: v[name] / np.where(v[scale] == 0, 1e-300, v[scale])))
        self.free.discard(name)


def _counts(node: Node) -> dict[str, int]:
    counts: dict[str, int] = {}
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, Call):
            stack.extend(item.args)
        elif isinstance(item, Sym):
            counts[item.name] = counts.get(item.name, 0) + 1
    return counts


def _symbols(node: Node) -> set[str]:
    return set(_counts(node))


def _terms(node: Node, sign: float = 1.0) -> list[tuple[Node, float]]:
    """The terms of a sum with their signs."""
    if isinstance(node, Call) and node.op in ("+", "-"):
        return [*_terms(node.args[0], sign), *_terms(node.args[1], sign if node.op == "+" else -sign)]
    if isinstance(node, Call) and node.op == "neg":
        return _terms(node.args[0], -sign)
    return [(node, sign)]


def _sum(terms: list[tuple[Node, float]]) -> Node:
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


def _product(factors: list[tuple[Node, int]]) -> Node:
    out: Node | None = None
    for factor, power in sorted(factors, key=lambda f: -f[1]):
        if factor == Num(1.0):
            continue
        if out is None:
            out = factor if power > 0 else Call("/", (Num(1.0), factor))
        else:
            out = Call("*" if power > 0 else "/", (out, factor))
    return Num(1.0) if out is None else out


def _value(node: Node, values: Values) -> FloatArray:
    """A part without variables at (...,) parameter values."""
    if isinstance(node, Num):
        return np.asarray(node.value)
    if isinstance(node, Sym):
        return values[node.name]
    law = from_tree(node, ())
    theta = np.stack(np.broadcast_arrays(*[values[name] for name in law.params]), axis=-1)
    return law.evaluate({}, theta)[..., 0]
