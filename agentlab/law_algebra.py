"""Sums, products, powers and functions in normal form, with the absorption of whatever a free parameter makes redundant.

A parameter that occurs once in the whole law is *free*: a pure sum, product or power that holds it takes every value
the parameter can give it, and is replaced by the parameter alone. So `A*B*x`, `2*A*x`, `exp(A)*x` are `A*x`, and the
scale k of `(k*N)**a` goes into the coefficient. Powers with exponents that are not whole numbers are taken to have
positive bases, parameters and variables under them to be positive, and a parameter of one sign (exp(A)) to be as good
as one of either sign.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from agentlab.law_form import (
    ADD,
    FN,
    HALF,
    MINUS,
    MUL,
    NUM,
    ONE,
    PAR,
    TWO,
    ZERO,
    Factor,
    Form,
    even,
    factors_of,
    function,
    num,
    par,
    parameters,
    powered,
    product,
    total,
    whole,
)

_NAMES = re.compile(r"\?[A-Za-z0-9_~]+")


class Algebra:
    """Normal-form arithmetic over one law; `count` holds how often each parameter occurs in it at the moment.

    `copied` tells whether anything was duplicated or taken away on the way, so that another pass may find more.
    """

    def __init__(self, count: dict[str, int]) -> None:
        self.count = count
        self.copied = False
        self._fresh = 0

    # -- free parameters ------------------------------------------------------------------------------------------

    def free(self, form: Form) -> bool:
        """Whether the form is a parameter that occurs nowhere else."""
        return form.kind == PAR and self.count[form.name] == 1

    def fresh(self) -> Form:
        """A new parameter."""
        self._fresh += 1
        name = f"~{self._fresh}"
        while name in self.count:
            self._fresh += 1
            name = f"~{self._fresh}"
        self.count[name] = 1
        return par(name)

    def _copied(self, form: Form, copies: int) -> None:
        """Notes that `form` now stands in `copies` more places (fewer when negative)."""
        if copies and form.kind != NUM:
            self.copied = True
            for name in parameters(form):
                self.count[name] += copies

    def _only(self, kept: Form, forms: Sequence[Form]) -> Form:
        """`kept`, all the other forms having been absorbed by it."""
        for form in forms:
            if form is not kept:
                self._copied(form, -1)
        return kept

    # -- sums -----------------------------------------------------------------------------------------------------

    def add(self, forms: Sequence[Form]) -> Form:
        """The sum."""
        if len(forms) == 1 and forms[0].kind != MUL:
            return forms[0]
        constants: list[Form] = []
        collected: dict[str, tuple[Form, list[Form]]] = {}
        queue = list(forms)
        for form in queue:
            if form.pure:
                constants.append(form)
                continue
            for coefficient, mono in form.terms if form.kind == ADD else ((ONE, form),):
                if mono.s == "1":
                    constants.append(coefficient)
                elif mono.kind == MUL and (spread := self._spread(coefficient, mono)) is not None:
                    queue.append(spread)
                elif mono.s in collected:
                    collected[mono.s][1].append(coefficient)
                else:
                    collected[mono.s] = (mono, [coefficient])
        terms = [(c[0] if len(c) == 1 else self.pure_sum(c), mono) for mono, c in collected.values()]
        if constants:
            terms.append((constants[0] if len(constants) == 1 else self.pure_sum(constants), ONE))
        return total(terms)

    def _spread(self, coefficient: Form, mono: Form) -> Form | None:
        """coefficient * x * (A + B*y) as A*x + B*x*y, where x holds no parameter; None for any other product."""
        sums = [f for f in mono.args if f.kind == ADD]
        if len(sums) != 1:
            return None
        rest = [f for f in mono.args if f.kind != ADD]
        if any(True for f in rest for _ in parameters(f)):
            return None
        self._copied(coefficient, len(sums[0].terms) - 1)
        return self.add([self.multiply([coefficient, c, m, *rest]) for c, m in sums[0].terms])

    def pure_sum(self, forms: Sequence[Form]) -> Form:
        """The sum of pure forms: a free parameter among them, or numbers times distinct products."""
        for form in forms:
            if self.free(form):
                return self._only(form, forms)
        collected: dict[str, tuple[float, Form]] = {}
        for form in forms:
            terms = form.terms if form.kind == ADD else ((form, ONE),) if form.kind == NUM else ((ONE, form),)
            for coefficient, mono in terms:
                before = collected.get(mono.s, (0.0, mono))[0]
                collected[mono.s] = (before + coefficient.value, mono)
        return total([(num(value), mono) for value, mono in collected.values() if abs(value) > 1e-14])

    # -- products -------------------------------------------------------------------------------------------------

    def scale(self, coefficient: Form, form: Form) -> Form:
        """A pure coefficient times any form; it goes to every term of a sum."""
        if form.pure:
            return self.pure_product([coefficient, form])
        if coefficient.s == "1":
            return form
        if coefficient.s == "0":
            return self._only(ZERO, [form])
        if form.kind != ADD:
            return total([(coefficient, form)])
        self._copied(coefficient, len(form.terms) - 1)
        return total([(self.pure_product([coefficient, c]), m) for c, m in form.terms])

    def pure_product(self, forms: Sequence[Form]) -> Form:
        """The product of pure forms: a free parameter among them, or a number times powers of distinct bases."""
        number = 1.0
        rest: list[Form] = []
        for form in forms:
            if form.kind == NUM:
                number *= form.value
            else:
                rest.append(form)
        if number == 0.0:
            return self._only(ZERO, forms)
        for form in rest:
            if self.free(form):
                return self._only(form, rest)
        if not rest:
            return num(number)
        if len(rest) == 1 and rest[0].kind == ADD:
            return total([(num(number * c.value), m) for c, m in rest[0].terms])
        factors: list[Factor] = []
        for form in rest:
            coefficient, more = factors_of(form)
            number *= coefficient.value
            factors += more
        _, merged = self._merged(factors)
        return total([(num(number), product([powered(b, e) for b, e in merged]))])

    def multiply(self, forms: Sequence[Form]) -> Form:
        """The product."""
        coefficients: list[Form] = []
        factors: list[Factor] = []
        for form in forms:
            if form.pure:
                coefficients.append(form)
            else:
                coefficient, more = factors_of(form)
                coefficients.append(coefficient)
                factors += more
        return self._assembled(coefficients, factors)

    def _assembled(self, coefficients: list[Form], factors: list[Factor]) -> Form:
        """Pure coefficients times powers of bases that hold variables."""
        extra: list[Form] = []
        if len(factors) > 1:
            extra, factors = self._merged(factors)
        if len(factors) == 1 and factors[0][0].kind == ADD and factors[0][1].s == "1":
            return self.scale(self.pure_product([*coefficients, *extra]), factors[0][0])
        coefficients = coefficients + extra
        coefficient = coefficients[0] if len(coefficients) == 1 else self.pure_product(coefficients)
        for base, _ in factors:
            if base.kind == ADD:
                coefficient, factors = self._balanced(coefficient, factors)
                break
        return self.scale(coefficient, product([powered(b, e) for b, e in factors]))

    def _merged(self, factors: Sequence[Factor]) -> tuple[list[Form], list[Factor]]:
        """Factors of equal base as one; products of exponentials as one (which may shed pure coefficients)."""
        found: dict[str, tuple[Form, list[Form]]] = {}
        inside: list[Form] = []
        for base, exponent in factors:
            if base.kind == FN and base.name == "exp" and exponent.s == "1":
                inside.append(base.args[0])
            elif base.s in found:
                found[base.s][1].append(exponent)
            else:
                found[base.s] = (base, [exponent])
        out = [(b, e[0] if len(e) == 1 else self.pure_sum(e)) for b, e in found.values()]
        out = [(b, e) for b, e in out if e.s != "0"]
        if not inside:
            return [], out
        if len(inside) == 1:
            return [], [*out, (function("exp", (inside[0],)), ONE)]
        argument = self.add(inside)
        if argument.pure:
            return [self.exponential(argument)], out
        return [], [*out, (function("exp", (argument,)), ONE)]

    def _balanced(self, coefficient: Form, factors: list[Factor]) -> tuple[Form, list[Factor]]:
        """Moves the free scale of a product into its sums, so that A*(1 + B*x)**c, (A + B*x)**c and A*(B + x)**c agree.

        Where the product has a free scale (a free coefficient, or a sum whose terms all have one), a sum with one
        fixed term gets a free coefficient there; other sums give up their common content to the coefficient.
        """
        fixed = [
            sum(not self.free(c) for c, _ in base.terms) if base.kind == ADD and len(base.terms) > 1 else -1
            for base, _ in factors
        ]
        scaled = self.free(coefficient) or 0 in fixed
        out: list[Factor] = []
        contents = [coefficient]
        for (base, exponent), n in zip(factors, fixed, strict=True):
            if scaled and n == 1:
                out.append((self._loosened(base), exponent))
            elif n > 0:
                content, reduced = self._reduced(base, exponent)
                if content.s != "1":
                    contents.append(self.power(content, exponent))
                out.append((reduced, exponent))
            else:
                out.append((base, exponent))
        if scaled and (0 in fixed or 1 in fixed):
            return self._only(ONE, contents), out
        return self.pure_product(contents), out

    def _loosened(self, base: Form) -> Form:
        """The sum with a fresh parameter for the coefficient of its only fixed term."""
        terms = []
        for coefficient, mono in base.terms:
            if not self.free(coefficient):
                self._copied(coefficient, -1)
                coefficient = self.fresh()
            terms.append((coefficient, mono))
        return total(terms)

    def _reduced(self, base: Form, exponent: Form) -> tuple[Form, Form]:
        """(content, sum): the common pure factor of all terms, and the number that makes a leading coefficient 1."""
        parts = [factors_of(c) if c.kind != NUM else (c, []) for c, _ in base.terms]
        rests = [product([powered(b, e) for b, e in p[1]]) for p in parts]
        common = rests[0] if all(r.s == rests[0].s for r in rests) else ONE
        leading = min(range(len(parts)), key=lambda i: (_shape(base.terms[i][1].s), -abs(parts[i][0].value)))
        value = parts[leading][0].value
        if not whole(exponent):
            value = abs(value)
        if value == 1.0 and common is ONE:
            return ONE, base
        terms = []
        for (number, _), rest, (_, mono) in zip(parts, rests, base.terms, strict=True):
            ratio = num(number.value / value)
            terms.append((ratio if common is not ONE else self.pure_product([ratio, rest]), mono))
        self._copied(common, 1 - len(parts))
        if exponent.s != "1":
            self._copied(exponent, 1)
        return self.pure_product([num(value), common]), total(terms)

    # -- powers and functions -------------------------------------------------------------------------------------

    def power(self, form: Form, exponent: Form) -> Form:
        """form**exponent; an exponent with variables turns it into an exponential."""
        if not exponent.pure:
            return self.exponential(self.multiply([exponent, self.logarithm(form)]))
        if exponent.s == "1" or form.s == "1":
            return form if exponent.s == "1" else self._only(form, [exponent])
        if exponent.s == "0":
            return self._only(ONE, [form])
        if form.pure and (simple := self._simple_power(form, exponent)) is not None:
            return simple
        coefficient, pieces = _pieces(form, whole(exponent))
        kept = coefficient.s == "1" or self.free(coefficient)
        self._copied(exponent, len(pieces) - kept)
        coefficients = [coefficient if kept else self.power(coefficient, exponent)]
        factors: list[Factor] = []
        for base, inner in pieces:
            if base.kind == FN and base.name == "exp" and inner.s == "1":
                shed, more = factors_of(self.exponential(self.scale(exponent, base.args[0])))
                coefficients.append(shed)
                factors += more
            else:
                factors.append((base, self.pure_product([inner, exponent])))
        if form.pure:
            return self.pure_product([*coefficients, *[powered(b, e) for b, e in factors]])
        return self._assembled(coefficients, factors)

    def _simple_power(self, form: Form, exponent: Form) -> Form | None:
        """A power of a pure base where a rule or plain arithmetic settles it."""
        if self.free(form):
            return self._only(form, [exponent])
        if form.kind != NUM:
            return self._only(exponent, [form]) if self.free(exponent) else None
        if exponent.kind == NUM:
            return _computed(lambda: form.value**exponent.value) or powered(form, exponent)
        if form.value <= 0.0:
            return powered(form, exponent)
        return self.exponential(self.pure_product([exponent, num(math.log(form.value))]))

    def exponential(self, form: Form) -> Form:
        """exp(form): constants become coefficients, k*log(x) becomes x**k."""
        if form.kind == NUM:
            return _computed(lambda: math.exp(form.value)) or function("exp", (form,))
        if self.free(form):
            return form
        if form.kind == MUL and not form.pure:
            form = self.add([form])
        out: list[Form] = []
        rest: list[tuple[Form, Form]] = []
        for coefficient, mono in form.terms if form.kind == ADD else ((ONE, form),):
            if mono.s == "1":
                out.append(coefficient if form.pure and self.free(coefficient) else self.exponential(coefficient))
            elif mono.kind == FN and mono.name == "log":
                out.append(self.power(mono.args[0], coefficient))
            elif form.pure and (found := _logarithmic(mono)) is not None:
                out.append(self.power(found[0], self.pure_product([coefficient, found[1]])))
            else:
                rest.append((coefficient, mono))
        if not out:
            return function("exp", (form,))
        if rest:
            out.append(function("exp", (total(rest),)))
        return self.multiply(out) if not form.pure else self.pure_product(out)

    def logarithm(self, form: Form) -> Form:
        """log(form): the logarithm of a product is a sum where no factor's sign is in doubt."""
        if form.kind == NUM and form.value > 0.0:
            return num(math.log(form.value))
        if form.kind == NUM:
            return function("log", (form,))
        if self.free(form):
            return form
        coefficient, pieces = _pieces(form, False)
        out = [self.logarithm(coefficient)] if coefficient.s != "1" else []
        for base, inner in pieces:
            if base.kind == FN and base.name == "exp":
                inside = base.args[0]
            else:
                if base.kind == ADD and len(base.terms) > 1:
                    content, base = self._reduced(base, HALF)
                    if content.s != "1":
                        self._copied(inner, 1)
                        out.append(self.multiply([inner, self.logarithm(content)]))
                inside = function("log", (base,))
            out.append(self.scale(inner, inside))
        return self.add(out)

    def call(self, name: str, args: Sequence[Form]) -> Form:
        """Any function of `law_tree.FUNCTIONS`."""
        x = args[0]
        if name == "exp":
            return self.exponential(x)
        if name == "log":
            return self.logarithm(x)
        if name == "sqrt":
            return self.power(x, HALF)
        if name in ("log2", "log10"):
            return self.scale(num(1.0 / math.log(2.0 if name == "log2" else 10.0)), self.logarithm(x))
        if name == "abs":
            return self._absolute(x)
        if name in ("min", "max"):
            return self._extreme(name, args)
        if x.kind == NUM:
            value = math.tanh(x.value) if name == "tanh" else 0.5 + 0.5 * math.tanh(0.5 * x.value)
            return num(value)
        if x.pure:
            return function(name, (x,))
        if name == "sigmoid":
            return self.power(self.add([ONE, self.exponential(self.scale(MINUS, x))]), MINUS)
        return self.add([ONE, self.scale(num(-2.0), self.power(self.add([ONE, self.exponential(self.scale(TWO, x))]), MINUS))])

    def _absolute(self, form: Form) -> Form:
        """abs of a product is the product of abs; powers that cannot be negative shed it."""
        if form.kind == NUM:
            return num(abs(form.value))
        if self.free(form):
            return form
        coefficient, factors = factors_of(form)
        out = [coefficient if self.free(coefficient) else self._absolute(coefficient)]
        for base, exponent in factors:
            positive = (base.kind == FN and base.name in ("exp", "abs")) or even(exponent) or not whole(exponent)
            out.append(powered(base if positive else function("abs", (base,)), exponent))
        return self.pure_product(out) if form.pure else self.multiply(out)

    def _extreme(self, name: str, args: Sequence[Form]) -> Form:
        """min, with max as minus the min of the negatives: flat, sorted, without repetition."""
        if name == "max":
            return self.scale(MINUS, self._extreme("min", [self.scale(MINUS, a) for a in args]))
        flat: dict[str, Form] = {}
        least = math.inf
        for arg in args:
            for item in arg.args if arg.kind == FN and arg.name == "min" else (arg,):
                if item.kind == NUM:
                    least = min(least, item.value)
                else:
                    flat[item.s] = item
        if least < math.inf:
            flat["#"] = num(least)
        if len(flat) == 1:
            return next(iter(flat.values()))
        return function("min", tuple([flat[s] for s in sorted(flat)]))


def _computed(formula: Callable[[], float]) -> Form | None:
    """A number, unless it is not finite and real."""
    try:
        value = formula()
    except (OverflowError, ZeroDivisionError, ValueError):
        return None
    return num(value) if not isinstance(value, complex) and math.isfinite(value) else None


def _shape(text: str) -> str:
    """An expression's text without the names of its parameters, which must not decide anything."""
    return _NAMES.sub("?", text)


def _doubtful(base: Form) -> bool:
    """Whether the sign of a factor is open; parameters and variables under a power are taken to be positive."""
    return base.kind == ADD or (base.kind == FN and base.name not in ("exp", "abs"))


def _pieces(form: Form, whole_power: bool) -> tuple[Form, list[Factor]]:
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
    if negative:
        coefficient = num(-coefficient.value)
        doubtful = doubtful or sure[:]
        sure = [f for f in sure if f not in doubtful]
    if negative and len(doubtful) == 1 and doubtful[0][0].kind == ADD and doubtful[0][1].s == "1":
        base = total([(num(-c.value) if c.kind == NUM else total([(MINUS, c)]), m) for c, m in doubtful[0][0].terms])
        return coefficient, [*sure, (base, ONE)]
    if negative or len(doubtful) > 1:
        base = product([powered(b, e) for b, e in doubtful])
        return coefficient, [*sure, (total([(MINUS, base)]) if negative else base, ONE)]
    return coefficient, sure + doubtful


def _logarithmic(mono: Form) -> tuple[Form, Form] | None:
    """(x, k) of a pure product k*log(x); None for any other."""
    logs = [f for f in mono.args if f.kind == FN and f.name == "log"] if mono.kind == MUL else []
    if len(logs) != 1:
        return None
    return logs[0].args[0], product([f for f in mono.args if f is not logs[0]])
