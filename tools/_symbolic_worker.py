"""The process that computes with SymPy for `_symbolic`: one JSON request a line, answers that get better line by line.

It is killed when it takes too long, so it holds nothing that anyone would miss.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sympy as sp
from agentlab.tools._sympy import Expr, expression_of, size_of, symbol, tree_of
from sympy.series.limits import Limit

from agentlab.law import LawError, from_tree, parse

MEMORY = 4 << 30
"""Bytes of address space: a formula that wants more is not worth the machine."""

ORPHAN = 60
"""Seconds after which a request ends this process, should its parent be gone and not end it."""

SMALL = 400
"""Operations above which an expression is not handed to the slow simplifiers."""

_FAILURES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    sp.PoleError,
    sp.polys.polyerrors.BasePolynomialError,
)
"""What SymPy raises where it cannot go on; anything else ends the process, and the caller is told so."""

_DOUBT = re.compile(r"sign of (.+)$")

Answer = dict[str, Any]


def main() -> None:
    """Answer requests until stdin closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _say({"ready": True})
    for line in sys.stdin:
        signal.alarm(ORPHAN)
        try:
            for answer in answers(json.loads(line)):
                _say(answer)
            _say({"done": True})
        except (*_FAILURES, LawError) as error:
            _say({"done": True, "reason": _reason(error)})
        signal.alarm(0)


def _say(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _reason(error: Exception) -> str:
    """Why there is no answer, in one line."""
    text = " ".join(str(error).split())
    doubt = _DOUBT.search(text)
    if doubt:
        return f"it depends on the sign of {doubt[1].strip(' .')[:80]}"
    return text[:160] or type(error).__name__


def answers(request: Mapping[str, Any]) -> Iterator[Answer]:
    """The answers to a request, each at least as good as the one before.

    A request has `op`, `formula`, `signs` (by name), and for some `by` (a name) and `to` ("0" or "inf").
    """
    signs: Mapping[str, str] = request["signs"]
    expr = expression_of(parse(request["formula"], ()).tree, signs)
    match request["op"]:
        case "simplify":
            yield from _shorter(expr)
        case "derivative":
            yield from _shorter(sp.diff(expr, symbol(request["by"], signs.get(request["by"], "+"))))
        case "limit":
            yield _limit(expr, symbol(request["by"], "+"), request["to"])


def _shorter(expr: Expr) -> Iterator[Answer]:
    """The expression as a formula, then every shorter way to write it that SymPy finds."""
    node = tree_of(expr)
    yield {"formula": from_tree(node, ()).text}
    least = size_of(node) + 1  # joined powers go before split ones of the same length
    for way in _WAYS if sp.count_ops(expr) <= SMALL else ():
        try:
            node = tree_of(way(expr))
        except _FAILURES:
            continue
        if size_of(node) < least:
            least = size_of(node)
            yield {"formula": from_tree(node, ()).text}


def _factored(expr: Expr) -> Expr:
    return sp.factor_terms(sp.powsimp(expr))


_WAYS: tuple[Callable[[Expr], Expr], ...] = (
    sp.powsimp,
    _factored,
    sp.simplify,
    lambda e: sp.factor_terms(sp.simplify(e)),
)


def _limit(expr: Expr, variable: Expr, to: str) -> Answer:
    """The limit from above at 0, or at infinity, as a formula, "inf" or "-inf"."""
    place = sp.S.Infinity if to == "inf" else sp.S.Zero
    found = _at(_chosen(expr, variable, place), variable, place)
    if found in (sp.S.Infinity, sp.S.NegativeInfinity):
        return {"formula": "inf" if found is sp.S.Infinity else "-inf"}
    if isinstance(found, Limit) or found.has(sp.S.NaN, sp.S.ComplexInfinity, sp.AccumBounds, Limit):
        return {"reason": "there is no limit, or none was found"}
    if found.has(sp.S.Infinity, sp.S.NegativeInfinity):
        return {"reason": "it is infinite, with a sign that depends on the other names"}
    return {"formula": from_tree(tree_of(found), ()).text}


def _at(expr: Expr, variable: Expr, place: Expr) -> Expr:
    return sp.limit(expr, variable, place, "+" if place == 0 else "-")


def _chosen(expr: Expr, variable: Expr, place: Expr) -> Expr:
    """The expression with every min and max of the variable replaced by the argument that holds near the limit.

    SymPy takes no limit of them by itself. Raises NotImplementedError where the signs do not decide.
    """
    if not expr.args or not expr.has(sp.Min, sp.Max):
        return expr
    args = [_chosen(a, variable, place) for a in expr.args]
    if expr.func not in (sp.Min, sp.Max) or not expr.has(variable):
        return expr.func(*args)
    best = args[0]
    for other in args[1:]:
        gap = _at(other - best, variable, place)
        if not (gap.is_extended_positive or gap.is_extended_negative):
            raise NotImplementedError(f"Not sure of sign of {other - best}")
        if bool(gap.is_extended_negative) == (expr.func is sp.Min):
            best = other
    return best


if __name__ == "__main__":
    main()
