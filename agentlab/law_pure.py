"""Arithmetic of what holds no variable, in normal form, less whatever a free parameter makes redundant.

A parameter that occurs once in the whole law is *free*: a pure sum, product or power that holds it takes every value
the parameter can give it, and is replaced by the parameter alone. So `A*B*x`, `2*A*x`, `exp(A)*x` are `A*x`. Powers
with exponents that are not whole numbers are taken to have positive bases, parameters and variables under them to be
positive, and a parameter of one sign (exp(A)) to be as good as one of either sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from agentlab.law_form import (
    ADD,
    FN,
    MUL,
    NUM,
    ONE,
    PAR,
    ZERO,
    Factor,
    Form,
    factors_of,
    function,
    num,
    par,
    parameters,
    pieces_of,
    powered,
    product,
    total,
    whole,
)

TINY = 1e-14
"""What is left of a number after terms that cancel but for rounding."""


class Pure:
    """Sums, products and powers of pure forms; `count` holds how often each parameter occurs in the law at the moment.

    `copied` tells whether anything was duplicated or taken away on the way, so that another pass may find more.
    """

    def __init__(self, count: dict[str, int]) -> None:
        self.count = count
        self.copied = False
        self._fresh = 0

    def free(self, form: Form) -> bool:
        """Whether the form is a parameter that occurs nowhere else."""
        return form.kind == PAR and self.count[form.name] == 1

    def fresh(self) -> Form:
        """A new parameter."""
        self._fresh += 1
        while (name := f"~{self._fresh}") in self.count:
            self._fresh += 1
        self.count[name] = 1
        return par(name)

    def copy(self, form: Form, copies: int) -> None:
        """Notes that `form` now stands in `copies` more places (fewer when negative)."""
        if copies and form.kind != NUM:
            self.copied = True
            for name in parameters(form):
                self.count[name] += copies

    def only(self, kept: Form, forms: Sequence[Form]) -> Form:
        """`kept`, all the other forms having been absorbed by it."""
        for form in forms:
            if form is not kept:
                self.copy(form, -1)
        return kept

    def sum(self, forms: Sequence[Form]) -> Form:
        """The sum: a free parameter among the forms, or numbers times distinct products."""
        for form in forms:
            if self.free(form):
                return self.only(form, forms)
        collected: dict[str, tuple[float, Form]] = {}
        for form in forms:
            terms = form.terms if form.kind == ADD else ((form, ONE),) if form.kind == NUM else ((ONE, form),)
            for coefficient, mono in terms:
                before = collected.get(mono.s, (0.0, mono))[0]
                collected[mono.s] = (before + coefficient.value, mono)
        return total([(num(value), mono) for value, mono in collected.values() if abs(value) > TINY])

    def product(self, forms: Sequence[Form]) -> Form:
        """The product: a free parameter among the forms, or a number times powers of distinct bases."""
        number = 1.0
        rest: list[Form] = []
        for form in forms:
            if form.kind == NUM:
                number *= form.value
            else:
                rest.append(form)
        if not rest:
            return num(number)
        if number == 0.0:
            return self.only(ZERO, forms)
        for form in rest:
            if self.free(form):
                return self.only(form, rest)
        if len(rest) == 1:
            return _times(number, rest[0])
        factors: list[Factor] = []
        for form in rest:
            coefficient, more = factors_of(form)
            number *= coefficient.value
            factors += more
        merged = product([powered(b, e) for b, e in self.merged(factors)])
        return _times(number, merged)

    def merged(self, factors: Sequence[Factor]) -> list[Factor]:
        """Factors of equal base as one, and pure exponentials as one."""
        found: dict[str, tuple[Form, list[Form]]] = {}
        inside: list[Form] = []
        for base, exponent in factors:
            if base.pure and base.kind == FN and base.name == "exp" and exponent.s == "1":
                inside.append(base.args[0])
            elif base.s in found:
                found[base.s][1].append(exponent)
            else:
                found[base.s] = (base, [exponent])
        out = [(b, e[0] if len(e) == 1 else self.sum(e)) for b, e in found.values()]
        out = [(b, e) for b, e in out if e.s != "0"]
        argument = self.sum(inside) if inside else ZERO
        return out if argument.s == "0" else [*out, (function("exp", (argument,)), ONE)]

    def power(self, form: Form, exponent: Form) -> Form:
        """form**exponent."""
        if exponent.s in ("0", "1") or form.s == "1":
            return form if exponent.s == "1" else self.only(ONE, [form, exponent])
        if self.free(form):
            return self.only(form, [exponent])
        if form.kind == NUM:
            return self._number_power(form, exponent)
        if self.free(exponent):
            return self.only(exponent, [form])
        number, pieces = pieces_of(form, whole(exponent))
        self.copy(exponent, len(pieces) - (number.s == "1"))
        out = [self.power(number, exponent)] if number.s != "1" else []
        for base, inner in pieces:
            if base.kind == FN and base.name == "exp" and inner.s == "1":
                out.append(self.exponential(self.product([exponent, base.args[0]])))
            else:
                out.append(powered(base, self.product([inner, exponent])))
        return self.product(out) if len(out) > 1 else out[0]

    def _number_power(self, form: Form, exponent: Form) -> Form:
        if exponent.kind == NUM:
            return computed(lambda: form.value**exponent.value) or powered(form, exponent)
        if form.value <= 0.0:
            return powered(form, exponent)
        return self.exponential(self.product([exponent, num(math.log(form.value))]))

    def exponential(self, form: Form) -> Form:
        """exp(form), with k*log(x) inside turned into x**k."""
        if form.kind == NUM:
            return computed(lambda: math.exp(form.value)) or function("exp", (form,))
        if self.free(form):
            return form
        out: list[Form] = []
        rest: list[tuple[Form, Form]] = []
        for number, mono in form.terms if form.kind == ADD else ((ONE, form),):
            if mono.s == "1":
                out.append(self.exponential(number))
            elif (found := _logarithmic(mono)) is not None:
                out.append(self.power(found[0], self.product([number, found[1]])))
            else:
                rest.append((number, mono))
        if rest:
            out.append(function("exp", (total(rest),)))
        return self.product(out) if len(out) > 1 else out[0]

    def logarithm(self, form: Form) -> Form:
        """log(form) as a sum of logarithms of its factors."""
        if form.kind == NUM:
            return num(math.log(form.value)) if form.value > 0.0 else function("log", (form,))
        if self.free(form):
            return form
        number, pieces = pieces_of(form, False)
        out = [self.logarithm(number)] if number.s != "1" else []
        for base, inner in pieces:
            inside = base.args[0] if base.kind == FN and base.name == "exp" else function("log", (base,))
            out.append(self.product([inner, inside]))
        return self.sum(out) if len(out) > 1 else out[0]


def computed(formula: Callable[[], float]) -> Form | None:
    """A number, unless it is not finite and real."""
    try:
        value = formula()
    except (OverflowError, ZeroDivisionError, ValueError):
        return None
    return num(value) if not isinstance(value, complex) and math.isfinite(value) else None


def _times(number: float, form: Form) -> Form:
    """A number times a pure form."""
    if form.kind == NUM:
        return num(number * form.value)
    if form.kind == ADD:
        return total([(num(number * c.value), m) for c, m in form.terms])
    return total([(num(number), form)])


def _logarithmic(mono: Form) -> tuple[Form, Form] | None:
    """(x, k) of a pure product k*log(x); None for any other."""
    if mono.kind == FN and mono.name == "log":
        return mono.args[0], ONE
    logs = [f for f in mono.args if f.kind == FN and f.name == "log"] if mono.kind == MUL else []
    if len(logs) != 1:
        return None
    return logs[0].args[0], product([f for f in mono.args if f is not logs[0]])
