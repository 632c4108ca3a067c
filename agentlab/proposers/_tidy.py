"""Rewrites a law without the parameters that add nothing, so that edits do not spend the cap on redundant ones.

Every rule keeps the family of functions (up to signs): A*B*x -> A*x, E + (F + ..) -> E + .., x**a*x**b -> x**a,
A*exp(B + ..) -> A*exp(..), A*(B*x)**a -> A*x**a, log(A*x**a) -> A + a*log(x). A parameter that occurs twice is tied
and only absorbed where another one of its own kind stands beside it.
"""

from __future__ import annotations

from collections.abc import Collection

from agentlab.law import Call, Node, Num, Sym
from agentlab.law_edit import (
    ONE,
    ZERO,
    Factor,
    add,
    factors_of,
    log,
    multiply,
    negate,
    op_of,
    power,
    symbols,
    terms_of,
    times,
)

PASSES = 4
"""At most; a pass is only repeated where it left other parameters standing alone than it found."""


def tidy(node: Node, variables: Collection[str]) -> Node:
    """The law without redundant parameters; `variables` are the names that are no parameters."""
    free = _free(node, variables)
    for _ in range(PASSES):
        node = _Tidier(frozenset(variables), free).run(node)
        before, free = free, _free(node, variables)
        if free == before:
            break
    return node


def _free(node: Node, variables: Collection[str]) -> frozenset[str]:
    """The parameters that occur once."""
    once: set[str] = set()
    more: set[str] = set()
    for name in symbols(node):
        (more if name in once else once).add(name)
    return frozenset(once - more - set(variables))


class _Tidier:
    """One pass from the leaves to the root, with the parameters that occur once."""

    def __init__(self, variables: frozenset[str], free: frozenset[str]) -> None:
        self._variables = variables
        self._free = free
        self._known: dict[int, tuple[Node, bool]] = {}

    def run(self, node: Node) -> Node:
        if not isinstance(node, Call):
            return node
        if not self._varies(node):
            return self._constant(node)
        if node.op in ("+", "-", "neg"):
            return self._sum([t for arg in terms_of(node) for t in terms_of(self._signed(arg))])
        if node.op in ("*", "/"):
            return self._product([f for arg, d in factors_of(node) for f in factors_of(self.run(arg), d)])
        args = tuple([self.run(arg) for arg in node.args])
        if node.op == "**":
            return self._power(args[0], args[1])
        if node.op == "log":
            return self._log(args[0])
        if node.op == "exp" and isinstance(args[0], Call) and args[0].op == "log":
            return args[0].args[0]
        return Call(node.op, args)

    def _varies(self, node: Node) -> bool:
        """Whether a variable occurs in the subtree; remembered by identity, with the node kept so that its id is."""
        known = self._known.get(id(node))
        if known is not None:
            return known[1]
        if isinstance(node, Call):
            found = False
            for arg in node.args:
                found = self._varies(arg) or found
        else:
            found = isinstance(node, Sym) and node.name in self._variables
        self._known[id(node)] = node, found
        return found

    def _signed(self, term: Node) -> Node:
        if isinstance(term, Call) and term.op == "neg":
            return negate(self.run(term.args[0]))
        return self.run(term)

    def _constant(self, node: Node) -> Node:
        """A subtree without variables: one parameter where it holds a free one; numbers are folded."""
        for name in symbols(node):
            if name in self._free:
                return Sym(name)
        if isinstance(node, Call) and len(node.args) == 2 and all(isinstance(a, Num) for a in node.args):
            return _folded(node)
        return node

    def _sum(self, terms: list[Node]) -> Node:
        """A sum with one constant, and one term for each shape that has a coefficient of its own."""
        fixed = [t for t in terms if not self._varies(t)]
        varying = [t for t in terms if self._varies(t)]
        constant = self._one_constant(fixed, add(fixed))
        absorbs = isinstance(constant, Sym) and constant.name in self._free
        shapes: dict[Node, tuple[Node, Node]] = {}
        for term in varying:
            coefficient, shape = self._split(term)
            whole = _scaled(coefficient, shape) if op_of(term) == "neg" else term
            if absorbs and op_of(shape) in ("+", "-"):
                shape = self._without_constant(shape)
                whole = _scaled(coefficient, shape)
            if shape in shapes:
                both = [shapes[shape][0], coefficient]
                coefficient = self._one_constant(both, add(both))
                whole = _scaled(coefficient, shape)
            shapes[shape] = coefficient, whole
        parts = [whole for coefficient, whole in shapes.values() if coefficient != ZERO]
        if constant == ZERO:
            return add(parts)
        leads = terms[0] in fixed or (bool(parts) and op_of(parts[0]) == "neg")
        return add([constant, *parts] if leads else [*parts, constant])

    def _one_constant(self, fixed: list[Node], whole: Node) -> Node:
        if len(fixed) == 1 and isinstance(fixed[0], Sym):
            return fixed[0]
        return self._constant(whole)

    def _split(self, term: Node) -> tuple[Node, Node]:
        """A term as (coefficient without variables, shape); a sign before a free coefficient is absorbed."""
        factors = factors_of(term)
        fixed = [f for f in factors if not self._varies(f[0])]
        shape = multiply([f for f in factors if self._varies(f[0])])
        return (self._constant(multiply(fixed)) if fixed else ONE), shape

    def _without_constant(self, shape: Node) -> Node:
        """A bare sum less its free constant, which the constant of the sum around it absorbs."""
        terms = terms_of(shape)
        if len(terms) < 2:
            return shape
        kept = [t for t in terms if not (isinstance(t, Sym) and t.name in self._free)]
        return add(kept) if kept else shape

    def _product(self, factors: list[Factor]) -> Node:
        """A product with one coefficient and one power of each base."""
        fixed = [f for f in factors if not self._varies(f[0])]
        coefficient = self._constant(multiply(fixed)) if fixed else ONE
        powers: dict[Node | None, list[tuple[Node, bool]]] = {}
        for factor, divides in factors:
            if self._varies(factor):
                base, exponent = _as_power(factor)
                powers.setdefault(base, []).append((exponent, divides))
        absorbs = isinstance(coefficient, Sym) and coefficient.name in self._free
        parts: list[Factor] = []
        for base, exponents in powers.items():
            parts.append(self._joined(base, exponents, absorbs))
        return multiply([*factors_of(coefficient), *parts])

    def _joined(self, base: Node | None, exponents: list[tuple[Node, bool]], absorbs: bool) -> Factor:
        """The factors of one base as one factor; None stands for the base of exp."""
        divides = exponents[0][1]
        if len(exponents) > 1:
            joined = self._sum([t for e, d in exponents for t in terms_of(e if d == divides else negate(e))])
        else:
            joined = exponents[0][0]
        if base is None:
            return (Call("exp", (self._without_constant(joined) if absorbs else joined,)), divides)
        if absorbs and not self._varies(joined):
            base = self._without_scale(base)
        if isinstance(joined, Num) and joined.value < 0:
            joined, divides = Num(-joined.value), not divides
        return (power(base, joined), divides)

    def _without_scale(self, base: Node) -> Node:
        """The base of a power less the scale that a coefficient outside absorbs: (B*f)**a, (B + C*f)**a."""
        factors = factors_of(base)
        if len(factors) > 1:
            return multiply([f for f in factors if not (isinstance(f[0], Sym) and f[0].name in self._free)])
        terms = [self._split(t) for t in terms_of(base)]
        if len(terms) < 2 or not all(isinstance(c, Sym) and c.name in self._free for c, _ in terms):
            return base
        drop = next((i for i, (_, shape) in enumerate(terms) if shape != ONE), 0)
        return add([_scaled(ONE if i == drop else c, shape) for i, (c, shape) in enumerate(terms)])

    def _power(self, base: Node, exponent: Node) -> Node:
        if base in (ONE, ZERO) or exponent in (ONE, ZERO):
            return base if exponent != ZERO else ONE
        if isinstance(base, Call) and base.op == "**" and not _even(base.args[1]):
            return power(base.args[0], self.run(times(base.args[1], exponent)))
        if isinstance(base, Call) and base.op == "exp":
            return Call("exp", (self.run(times(exponent, base.args[0])),))
        return Call("**", (base, exponent))

    def _log(self, inside: Node) -> Node:
        """Log of a product as a sum, of a power as a product; log(exp(u)) as u."""
        if isinstance(inside, Call) and inside.op == "exp":
            return inside.args[0]
        if isinstance(inside, Call) and inside.op == "**" and not _even(inside.args[1]):
            return self.run(times(inside.args[1], log(inside.args[0])))
        factors = factors_of(inside)
        if len(factors) == 1 or any(isinstance(f, Num) and f.value <= 0 for f, _ in factors):
            return log(inside)
        parts = [(f if isinstance(f, Sym) and f.name in self._free else log(f), d) for f, d in factors]
        return self.run(add([negate(p) if d else p for p, d in parts]))


def _as_power(factor: Node) -> tuple[Node | None, Node]:
    if isinstance(factor, Call) and factor.op == "exp":
        return None, factor.args[0]
    if isinstance(factor, Call) and factor.op == "**":
        return factor.args[0], factor.args[1]
    return factor, ONE


def _scaled(coefficient: Node, shape: Node) -> Node:
    """Coefficient * shape, the coefficient as the numerator of a quotient."""
    if shape == ONE:
        return coefficient
    return multiply([*factors_of(coefficient), *factors_of(shape)]) if coefficient != ONE else shape


def _even(exponent: Node) -> bool:
    """Whether a power with this exponent forgets the sign of its base."""
    return isinstance(exponent, Num) and exponent.value % 2.0 == 0.0


def _folded(node: Call) -> Node:
    """Two numbers added, subtracted or multiplied; a quotient stays as it is, because 1/3 reads better than .333."""
    left, right = node.args
    if isinstance(left, Num) and isinstance(right, Num):
        if node.op == "+":
            return Num(left.value + right.value)
        if node.op == "-":
            return Num(left.value - right.value)
        if node.op == "*":
            return Num(left.value * right.value)
    return node
