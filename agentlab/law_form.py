"""The records of a law's normal form: sums of terms, a term being a pure coefficient times a product of powers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

NUM, PAR, VAR, FN, POW, MUL, ADD = range(7)

Term = tuple["Form", "Form"]
Factor = tuple["Form", "Form"]

_NAMES = re.compile(r"\?[A-Za-z0-9_~]+")


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
    """(coefficient, [(base, exponent), ...]) of an expression.

    The coefficient of a pure expression is its number (of a sum, that of its leading term); of any other, what is pure.
    A sum of several terms gives up the powers of parameter-free bases that its terms share, so that x*(A + B*y) and
    A*x + B*x*y have the same factors.
    """
    coefficient = ONE
    if form.kind == ADD:
        if len(form.terms) > 1:
            return _content(form) if form.pure else _shared(form)
        coefficient, form = form.terms[0]
    if form.kind == NUM:
        return form, []
    items = form.args if form.kind == MUL else (form,)
    return coefficient, [_factor(f) for f in items]


def _factor(form: Form) -> Factor:
    return (form.args[0], form.args[1]) if form.kind == POW else (form, ONE)


def leading(terms: Sequence[tuple[float, Form]]) -> float:
    """The number of the term that comes first whatever its parameters are called."""
    return min(terms, key=lambda t: (shape(t[1].s), -abs(t[0])))[0]


def shape(text: str) -> str:
    """An expression's text without the names of its parameters, which must not decide anything."""
    return _NAMES.sub("?", text)


def _content(form: Form) -> tuple[Form, list[Factor]]:
    """A pure sum as its leading number times a sum that begins with 1."""
    number = leading([(c.value, m) for c, m in form.terms])
    if number == 1.0:
        return ONE, [(form, ONE)]
    return num(number), [(total([(num(c.value / number), m) for c, m in form.terms]), ONE)]


def _shared(form: Form) -> tuple[Form, list[Factor]]:
    """A sum as powers of parameter-free bases, each the lowest that any term holds, times what is left."""
    lowest: dict[str, tuple[Form, float, int]] = {}
    split: list[list[Factor]] = []
    for _, mono in form.terms:
        factors = factors_of(mono)[1]
        split.append(factors)
        for base, exponent in factors:
            if exponent.kind == NUM and "?" not in base.s:
                _, least, times = lowest.get(base.s, (base, exponent.value, 0))
                lowest[base.s] = (base, min(least, exponent.value), times + 1)
    n = len(form.terms)
    out = {s: (b, least if times == n else min(least, 0.0)) for s, (b, least, times) in lowest.items()}
    out = {s: (b, power) for s, (b, power) in out.items() if power != 0.0}
    if not out:
        return ONE, [(form, ONE)]
    terms = [(c, _divided(factors, out)) for (c, _), factors in zip(form.terms, split, strict=True)]
    return ONE, [*[(b, num(power)) for b, power in out.values()], (total(terms), ONE)]


def _divided(factors: Sequence[Factor], by: Mapping[str, tuple[Form, float]]) -> Form:
    """The product of `factors` over the powers in `by`."""
    left = {s: (b, -power) for s, (b, power) in by.items()}
    rest: list[Form] = []
    for base, exponent in factors:
        if exponent.kind == NUM and base.s in left:
            left[base.s] = (base, left[base.s][1] + exponent.value)
        else:
            rest.append(powered(base, exponent))
    return product(rest + [powered(b, num(power)) for b, power in left.values() if power != 0.0])


def pieces_of(form: Form, whole_power: bool) -> tuple[Form, list[Factor]]:
    """(coefficient, factors) that a power or a logarithm reaches one by one.

    For a whole power these are all factors. Otherwise even powers stay closed, and factors whose signs are in doubt,
    or a minus sign, stay together.
    """
    coefficient, factors = factors_of(form)
    if whole_power:
        return coefficient, factors
    sure: list[Factor] = []
    doubtful: list[Factor] = []
    for base, exponent in factors:
        if even(exponent):
            sure.append((powered(base, exponent), ONE))
        elif _doubtful(base) and whole(exponent):
            doubtful.append((base, exponent))
        else:
            sure.append((base, exponent))
    negative = coefficient.kind == NUM and coefficient.value < 0.0
    if not negative and len(doubtful) < 2:
        return coefficient, sure + doubtful
    if negative:
        coefficient = num(-coefficient.value)
    if not doubtful:
        sure, doubtful = [], sure
    if negative and len(doubtful) == 1 and doubtful[0][0].kind == ADD and doubtful[0][1].s == "1":
        return coefficient, [*sure, (_negated(doubtful[0][0]), ONE)]
    base = product([powered(b, e) for b, e in doubtful])
    return coefficient, [*sure, (total([(MINUS, base)]) if negative else base, ONE)]


def _negated(form: Form) -> Form:
    """The sum with every sign turned."""
    return total([(num(-c.value) if c.kind == NUM else _minus(c), m) for c, m in form.terms])


def _minus(form: Form) -> Form:
    """A pure form with its sign turned."""
    if form.kind != ADD:
        return total([(MINUS, form)])
    return total([(num(-c.value), m) for c, m in form.terms])


def _doubtful(base: Form) -> bool:
    """Whether the sign of a factor is open; parameters and variables under a power are taken to be positive."""
    return base.kind == ADD or (base.kind == FN and base.name not in ("exp", "abs"))
