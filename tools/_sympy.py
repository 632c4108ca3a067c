"""Law trees as SymPy expressions and back, built node by node: no text is ever given to SymPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp

from agentlab.law import OPS, Call, Node, Num, Sym

Expr = Any
"""A SymPy expression; SymPy has no types of its own."""

MAX_EXACT = 10**15
"""Whole numbers up to here are exact in a float, as formulas hold them."""

MAX_CHOICES = OPS["min"][1]

_ASSUMED: Mapping[str, Mapping[str, bool]] = {"+": {"positive": True}, "-": {"negative": True}, "any": {"real": True}}


class UnwritableError(ValueError):
    """An expression that has no formula: it holds something a law cannot say."""


def symbol(name: str, sign: str) -> Expr:
    """A real symbol; `sign` is "+", "-" or "any"."""
    return sp.Symbol(name, **_ASSUMED[sign])


def expression_of(node: Node, signs: Mapping[str, str]) -> Expr:
    """The tree as an expression of real symbols with these signs ("+" where a name has none).

    SymPy evaluates as it builds, which can take for ever: do it where it can be killed.
    """
    if isinstance(node, Num):
        return _number(node.value)
    if isinstance(node, Sym):
        return symbol(node.name, signs.get(node.name, "+"))
    return _BUILD[node.op](*[expression_of(a, signs) for a in node.args])


def _number(value: float) -> Expr:
    """A short decimal as an exact fraction, so that 0.34 stays 0.34; a long one as a float."""
    text = repr(value)
    digits = text.partition("e")[0].replace("-", "").replace(".", "")
    exact = len(digits) <= 15 and (value == 0 or 1e-30 < abs(value) < 1e30)
    return sp.Rational(text) if exact else sp.Float(value)


_BUILD: Mapping[str, Any] = {
    "+": lambda u, v: u + v,
    "-": lambda u, v: u - v,
    "*": lambda u, v: u * v,
    "/": lambda u, v: u / v,
    "**": lambda u, v: u**v,
    "neg": lambda u: -u,
    "exp": sp.exp,
    "log": sp.log,
    "log2": lambda u: sp.log(u) / sp.log(2),
    "log10": lambda u: sp.log(u) / sp.log(10),
    "sqrt": sp.sqrt,
    "abs": sp.Abs,
    "tanh": sp.tanh,
    "sigmoid": lambda u: 1 / (1 + sp.exp(-u)),
    "min": sp.Min,
    "max": sp.Max,
}
_WRITE: Mapping[Any, str] = {sp.exp: "exp", sp.log: "log", sp.tanh: "tanh", sp.Abs: "abs"}
_CHOICES: Mapping[Any, str] = {sp.Min: "min", sp.Max: "max"}


def tree_of(expr: Expr) -> Node:
    """The expression as a law tree. Raises UnwritableError for what no formula can hold, such as infinity."""
    if expr.is_Symbol:
        return Sym(str(expr.name))
    if expr.is_Number:
        return _constant(expr)
    if expr is sp.E:
        return Call("exp", (Num(1.0),))
    if expr.is_Add:
        return _sum(expr)
    if expr.is_Mul:
        return _product(expr)
    return _function(expr)


def _function(expr: Expr) -> Node:
    if expr.func in _WRITE and len(expr.args) == 1:
        return Call(_WRITE[expr.func], (tree_of(expr.args[0]),))
    if expr.func in _CHOICES:
        args = tuple(tree_of(a) for a in sorted(expr.args, key=sp.default_sort_key))
        return Call(_CHOICES[expr.func], args) if len(args) <= MAX_CHOICES else _folded(_CHOICES[expr.func], args)
    if expr.is_Pow:
        return _power(expr.base, expr.exp)
    if expr.func in (sp.sign, sp.Heaviside):
        return _step(expr)
    raise UnwritableError(f"{expr.func.__name__} is nothing a formula can hold")


def _constant(expr: Expr) -> Node:
    if not expr.is_finite:
        raise UnwritableError(f"{expr} is no number")
    if expr.is_Rational:
        value = float(expr)
        if expr == sp.Rational(repr(value)) and (expr.q == 1 or len(repr(value)) <= 8):
            return Num(value)
        if abs(expr.p) <= MAX_EXACT and expr.q <= MAX_EXACT:
            return Call("/", (Num(float(expr.p)), Num(float(expr.q))))
        return Num(value)
    return Num(float(expr))


def _sum(expr: Expr) -> Node:
    """Terms in SymPy's order, those without a minus sign first."""
    terms = expr.as_ordered_terms()
    negative = [t for t in terms if t.could_extract_minus_sign()]
    positive = [t for t in terms if not t.could_extract_minus_sign()]
    out = _folded("+", [tree_of(t) for t in positive]) if positive else tree_of(negative.pop(0))
    for term in negative:
        out = Call("-", (out, tree_of(-term)))
    return out


def _product(expr: Expr) -> Node:
    """A numerator over a denominator: factors with a negative power, and what divides a fraction, go below."""
    coefficient, factors = expr.as_coeff_mul()
    if not coefficient.is_Rational:
        factors, coefficient = (coefficient, *factors), sp.Integer(1)
    above: list[Node] = []
    below: list[Node] = []
    for factor in sorted(factors, key=_order):
        base, exponent = factor.as_base_exp()
        if factor.is_Pow and base is not sp.E and _negative(exponent):
            below.append(_power(base, -exponent))
        else:
            above.append(tree_of(factor))
    size = abs(coefficient)
    short = _constant(size)
    if isinstance(short, Num):
        above = above if size == 1 and above else [short, *above]
    else:
        above = [Num(float(size.p)), *above] if size.p != 1 or not above else above
        below = [Num(float(size.q)), *below]
    above = above or [Num(1.0)]
    if coefficient.is_negative:
        first = above[0]
        above[0] = Num(-first.value) if isinstance(first, Num) else Call("neg", (first,))
    out = _folded("*", above)
    return Call("/", (out, _folded("*", below))) if below else out


def _order(factor: Expr) -> tuple[int, Any]:
    """Bare parameters and variables first, sums last."""
    return (2 if factor.is_Add else 0 if factor.is_Symbol else 1), sp.default_sort_key(factor)


def _power(base: Expr, exponent: Expr) -> Node:
    if exponent == 1:
        return tree_of(base)
    if exponent == sp.Rational(1, 2):
        return Call("sqrt", (tree_of(base),))
    if _negative(exponent):
        return Call("/", (Num(1.0), _power(base, -exponent)))
    return Call("**", (tree_of(base), tree_of(exponent)))


def _negative(exponent: Expr) -> bool:
    """Whether every term of an exponent carries a minus sign."""
    return all(term.as_coeff_Mul()[0].is_negative for term in sp.Add.make_args(exponent))


def _step(expr: Expr) -> Node:
    """sign(u) as u/abs(u), a step as (1 + sign(u))/2: both undefined at 0, where the slope is."""
    inner = tree_of(expr.args[0])
    sign = Call("/", (inner, Call("abs", (inner,))))
    return sign if expr.func is sp.sign else Call("/", (Call("+", (Num(1.0), sign)), Num(2.0)))


def _folded(op: str, nodes: Sequence[Node]) -> Node:
    out = nodes[0]
    for node in nodes[1:]:
        out = Call(op, (out, node))
    return out


def size_of(node: Node) -> int:
    """The nodes of a tree."""
    return 1 + sum(size_of(a) for a in node.args) if isinstance(node, Call) else 1
