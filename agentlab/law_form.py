"""The records of a law's normal form: sums of terms, a term being a pure coefficient times a product of powers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

NUM, PAR, VAR, FN, POW, MUL, ADD = range(7)

Term = tuple["Form", "Form"]
Factor = tuple["Form", "Form"]


class Form:
    """One expression in normal form; never changed once made.

    By `kind`: NUM has `value`; PAR and VAR `name`; FN `name` and `args`; POW `args` = (base, exponent), the exponent
    pure; MUL `args` = factors; ADD `terms` = (pure coefficient, product) pairs. `pure` says that no variable occurs,
    `s` identifies the expression (numbers to 12 digits).
    """

    __slots__ = ("args", "kind", "name", "pure", "s", "terms", "value")

    def __init__(
        self,
        kind: int,
        s: str,
        pure: bool,
        name: str = "",
        args: tuple[Form, ...] = (),
        terms: tuple[Term, ...] = (),
        value: float = math.nan,
    ) -> None:
        self.kind = kind
        self.s = s
        self.pure = pure
        self.name = name
        self.args = args
        self.terms = terms
        self.value = value


def num(value: float) -> Form:
    """A number."""
    return Form(NUM, f"{value + 0.0:.12g}", True, value=value)


ZERO, ONE, MINUS = num(0.0), num(1.0), num(-1.0)
HALF, TWO = num(0.5), num(2.0)


def par(name: str) -> Form:
    """A parameter."""
    return Form(PAR, "?" + name, True, name)


def var(name: str) -> Form:
    """A variable."""
    return Form(VAR, name, False, name)


def function(name: str, args: tuple[Form, ...]) -> Form:
    """A function of forms, as it stands."""
    pure = True
    for arg in args:
        pure = pure and arg.pure
    return Form(FN, f"{name}({','.join([a.s for a in args])})", pure, name, args)


def powered(base: Form, exponent: Form) -> Form:
    """base**exponent as it stands; the base itself for exponent 1."""
    if exponent.s == "1":
        return base
    return Form(POW, f"[{base.s}]^[{exponent.s}]", base.pure, args=(base, exponent))


def product(factors: Sequence[Form]) -> Form:
    """The product of factors (powers and atoms with distinct bases), as it stands."""
    if len(factors) == 1:
        return factors[0]
    if not factors:
        return ONE
    ordered = sorted(factors, key=_text)
    pure = True
    for factor in ordered:
        pure = pure and factor.pure
    return Form(MUL, "{" + "*".join([f.s for f in ordered]) + "}", pure, args=tuple(ordered))


def total(terms: Sequence[Term]) -> Form:
    """The sum of terms with distinct products, as it stands but for zero coefficients; a lone product stays bare."""
    kept = [t for t in terms if t[0].s != "0"]
    if not kept:
        return ZERO
    if len(kept) == 1:
        coefficient, mono = kept[0]
        if coefficient.s == "1":
            return mono
        if mono.s == "1":
            return coefficient
    kept.sort(key=_mono_text)
    pure = True
    for coefficient, mono in kept:
        pure = pure and mono.pure and coefficient.pure
    return Form(ADD, "(" + "+".join([f"{c.s}*{m.s}" for c, m in kept]) + ")", pure, terms=tuple(kept))


def _text(form: Form) -> str:
    return form.s


def _mono_text(term: Term) -> str:
    return term[1].s


def parameters(form: Form) -> Iterator[str]:
    """The parameters below `form`, once for every time they occur."""
    if form.kind == PAR:
        yield form.name
    for arg in form.args:
        yield from parameters(arg)
    for coefficient, mono in form.terms:
        yield from parameters(coefficient)
        yield from parameters(mono)


def whole(form: Form) -> bool:
    """Whether the form is a whole number."""
    return form.kind == NUM and form.value == round(form.value)


def even(form: Form) -> bool:
    """Whether the form is an even whole number."""
    return form.kind == NUM and form.value % 2.0 == 0.0


def factors_of(form: Form) -> tuple[Form, list[Factor]]:
    """(pure coefficient, [(base, exponent), ...]) of an expression; a sum of several terms is one base.

    Of a pure expression the coefficient is its number.
    """
    coefficient = ONE
    if form.kind == ADD and len(form.terms) == 1:
        coefficient, form = form.terms[0]
    if form.kind == NUM:
        return form, []
    items = form.args if form.kind == MUL else (form,)
    return coefficient, [(f.args[0], f.args[1]) if f.kind == POW else (f, ONE) for f in items]
