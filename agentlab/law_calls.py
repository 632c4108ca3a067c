"""Powers and functions of expressions in normal form."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentlab.law_algebra import Algebra
from agentlab.law_form import (
    ADD,
    FN,
    HALF,
    MINUS,
    NUM,
    ONE,
    TWO,
    Factor,
    Form,
    even,
    factors_of,
    function,
    num,
    pieces_of,
    powered,
    total,
    whole,
)


def power(algebra: Algebra, form: Form, exponent: Form) -> Form:
    """form**exponent; an exponent with variables turns it into an exponential."""
    pure = algebra.pure
    if not exponent.pure:
        return exponential(algebra, algebra.multiply([exponent, logarithm(algebra, form)]))
    if form.pure or exponent.s == "0":
        return pure.power(form, exponent)
    if exponent.s == "1":
        return form
    coefficient, pieces = pieces_of(_split(algebra, form), whole(exponent))
    kept = coefficient.s == "1" or pure.free(coefficient)
    pure.copy(exponent, len(pieces) - kept)
    coefficients = [coefficient if kept else pure.power(coefficient, exponent)]
    factors: list[Factor] = []
    for base, inner in pieces:
        if base.kind == FN and base.name == "exp" and inner.s == "1":
            shed, more = factors_of(exponential(algebra, algebra.scale(exponent, base.args[0])))
            coefficients.append(shed)
            factors += more
        else:
            factors.append((base, pure.product([inner, exponent])))
    return algebra.assembled(coefficients, factors)


def _split(algebra: Algebra, form: Form) -> Form:
    """A sum whose terms share a factor as a product; anything else as it stands."""
    if form.kind == ADD and len(form.terms) > 1:
        coefficient, factors = factors_of(form)
        if len(factors) > 1:
            return algebra.assembled([coefficient], factors)
    return form


def exponential(algebra: Algebra, form: Form) -> Form:
    """exp(form): constants become coefficients, k*log(x) becomes x**k."""
    if form.pure:
        return algebra.pure.exponential(form)
    form = algebra.add([form])
    out: list[Form] = []
    rest: list[tuple[Form, Form]] = []
    for coefficient, mono in form.terms if form.kind == ADD else ((ONE, form),):
        if mono.s == "1":
            out.append(algebra.pure.exponential(coefficient))
        elif mono.kind == FN and mono.name == "log":
            out.append(power(algebra, mono.args[0], coefficient))
        else:
            rest.append((coefficient, mono))
    if not out:
        return function("exp", (form,))
    if rest:
        out.append(function("exp", (total(rest),)))
    return algebra.multiply(out)


def logarithm(algebra: Algebra, form: Form) -> Form:
    """log(form): the logarithm of a product is a sum where no factor's sign is in doubt."""
    pure = algebra.pure
    if form.pure:
        return pure.logarithm(form)
    coefficient, pieces = pieces_of(_split(algebra, form), whole_power=False)
    out = [pure.logarithm(coefficient)] if coefficient.s != "1" else []
    for base, inner in pieces:
        if base.kind == FN and base.name == "exp":
            out.append(algebra.scale(inner, base.args[0]))
            continue
        content, rest = algebra.reduced(base, signed=False) if _fixed(algebra, base) else (ONE, base)
        if content.s != "1":
            pure.copy(inner, 1)
            out.append(pure.product([inner, pure.logarithm(content)]))
        out.append(algebra.scale(inner, function("log", (rest,))))
    return algebra.add(out)


def _fixed(algebra: Algebra, base: Form) -> bool:
    """Whether a base is a sum of several terms, not all of which have free coefficients."""
    return base.kind == ADD and len(base.terms) > 1 and not all(algebra.pure.free(c) for c, _ in base.terms)


def call(algebra: Algebra, name: str, args: Sequence[Form]) -> Form:
    """Any function of `law_tree.FUNCTIONS`."""
    x = args[0]
    match name:
        case "exp":
            return exponential(algebra, x)
        case "log":
            return logarithm(algebra, x)
        case "sqrt":
            return power(algebra, x, HALF)
        case "log2" | "log10":
            return algebra.scale(num(1.0 / math.log(int(name[3:]))), logarithm(algebra, x))
        case "abs":
            return _absolute(algebra, x)
        case "min":
            return _least(algebra, args)
        case "max":
            return algebra.scale(MINUS, _least(algebra, [algebra.scale(MINUS, a) for a in args]))
    return _squashed(algebra, name, x)


def _squashed(algebra: Algebra, name: str, x: Form) -> Form:
    """Sigmoid and tanh of a variable as 1/(1 + exp(-x)) and 1 - 2/(1 + exp(2*x)); of a parameter as they stand."""
    if x.kind == NUM:
        return num(math.tanh(x.value) if name == "tanh" else 0.5 + 0.5 * math.tanh(0.5 * x.value))
    if x.pure:
        return function(name, (x,))
    inside = exponential(algebra, algebra.scale(MINUS if name == "sigmoid" else TWO, x))
    out = power(algebra, algebra.add([ONE, inside]), MINUS)
    return out if name == "sigmoid" else algebra.add([ONE, algebra.scale(num(-2.0), out)])


def _absolute(algebra: Algebra, form: Form) -> Form:
    """The absolute value of every factor; powers that cannot be negative stay as they are."""
    if form.kind == NUM:
        return num(abs(form.value))
    if algebra.pure.free(form):
        return form
    coefficient, factors = factors_of(form)
    out = [coefficient if algebra.pure.free(coefficient) else _absolute(algebra, coefficient)] if factors else []
    for whole_base, exponent in factors:
        content, base = algebra.reduced(whole_base, signed=True) if _fixed(algebra, whole_base) else (ONE, whole_base)
        if content.s != "1":
            out.append(algebra.pure.power(_absolute(algebra, content), exponent))
        positive = (base.kind == FN and base.name in ("exp", "abs")) or even(exponent) or not whole(exponent)
        out.append(powered(base if positive else function("abs", (base,)), exponent))
    return algebra.pure.product(out) if form.pure else algebra.multiply(out)


def _least(algebra: Algebra, args: Sequence[Form]) -> Form:
    """The least of several: flat, sorted, without repetition, one number at most."""
    flat: dict[str, Form] = {}
    least = math.inf
    for arg in args:
        for item in arg.args if arg.kind == FN and arg.name == "min" else (algebra.add([arg]),):
            if item.kind == NUM:
                least = min(least, item.value)
            else:
                flat[item.s] = item
    if least < math.inf:
        flat["#"] = num(least)
    if len(flat) == 1:
        return next(iter(flat.values()))
    return function("min", tuple([flat[s] for s in sorted(flat)]))
