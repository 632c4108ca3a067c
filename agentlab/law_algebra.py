"""Sums and products of expressions in normal form; scales move to where they are redundant and are dropped there."""

from __future__ import annotations

from collections.abc import Sequence

from agentlab.law_form import (
    ADD,
    FN,
    MINUS,
    MUL,
    NUM,
    ONE,
    POW,
    ZERO,
    Factor,
    Form,
    Term,
    factors_of,
    function,
    leading,
    num,
    powered,
    product,
    total,
    whole,
)
from agentlab.law_pure import Pure


class Algebra:
    """Sums and products over one law, whose parameters `pure` counts."""

    def __init__(self, pure: Pure) -> None:
        self.pure = pure

    def add(self, forms: Sequence[Form]) -> Form:
        """The sum: one pure constant, and pure coefficients times distinct products."""
        if len(forms) == 1 and not _unspread(forms[0]):
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
        terms = [(c[0] if len(c) == 1 else self.pure.sum(c), mono) for mono, c in collected.values()]
        if constants:
            terms.append((constants[0] if len(constants) == 1 else self.pure.sum(constants), ONE))
        return total(terms)

    def _spread(self, coefficient: Form, mono: Form) -> Form | None:
        """k*x*(A + B*y) as k*A*x + k*B*x*y, where x holds no parameter; None for any other product."""
        sums = [f for f in mono.args if f.kind == ADD]
        if len(sums) != 1:
            return None
        rest = [f for f in mono.args if f.kind != ADD]
        if any("?" in f.s for f in rest):
            return None
        self.pure.copy(coefficient, len(sums[0].terms) - 1)
        return self.add([self.multiply([coefficient, c, m, *rest]) for c, m in sums[0].terms])

    def scale(self, coefficient: Form, form: Form) -> Form:
        """A pure coefficient times any form; it goes to every term of a sum."""
        if form.pure:
            return self.pure.product([coefficient, form])
        if coefficient.s == "1":
            return form
        if coefficient.s == "0":
            return self.pure.only(ZERO, [form])
        if form.kind in (MUL, POW):
            return self.assembled([coefficient], factors_of(form)[1])
        if form.kind != ADD:
            return total([(coefficient, form)])
        self.pure.copy(coefficient, len(form.terms) - 1)
        if len(form.terms) == 1:
            return self.multiply([coefficient, *form.terms[0]])
        terms: list[Term] = []
        for c, mono in form.terms:
            if mono.kind in (MUL, POW):
                part = self.assembled([coefficient, c], factors_of(mono)[1])
                terms.append(part.terms[0] if part.kind == ADD else (ONE, part))
            else:
                terms.append((self.pure.product([coefficient, c]), mono))
        return total(terms)

    def multiply(self, forms: Sequence[Form]) -> Form:
        """The product: a pure coefficient times powers of distinct bases, or a sum."""
        coefficients: list[Form] = []
        factors: list[Factor] = []
        for form in forms:
            if form.pure:
                coefficients.append(form)
            else:
                coefficient, more = factors_of(form)
                coefficients.append(coefficient)
                factors += more
        return self.assembled(coefficients, factors)

    def assembled(self, coefficients: Sequence[Form], factors: Sequence[Factor]) -> Form:
        """Pure coefficients times powers of bases that hold variables."""
        shed, factors = self._merged(factors) if len(factors) > 1 else (ONE, list(factors))
        all_pure = [c for c in (*coefficients, shed) if c.s != "1"]
        coefficient = all_pure[0] if len(all_pure) == 1 else self.pure.product(all_pure)
        if not factors or coefficient.s == "0":
            return coefficient
        if len(factors) == 1 and factors[0][0].kind == ADD and factors[0][1].s == "1":
            return self.scale(coefficient, factors[0][0])
        if any(base.kind == ADD and len(base.terms) > 1 for base, _ in factors):
            coefficient, factors = self._balanced(coefficient, factors)
        return total([(coefficient, product([powered(b, e) for b, e in factors]))])

    def _merged(self, factors: Sequence[Factor]) -> tuple[Form, list[Factor]]:
        """Factors of equal base as one, exponentials as one; and the pure coefficient that comes off on the way."""
        inside = [b.args[0] for b, e in factors if b.kind == FN and b.name == "exp" and e.s == "1"]
        if len(inside) < 2:
            return ONE, self.pure.merged(factors)
        rest = [(b, e) for b, e in factors if not (b.kind == FN and b.name == "exp" and e.s == "1")]
        argument = self.add(inside)
        out = self.pure.merged(rest)
        if argument.pure:
            return self.pure.exponential(argument), out
        return ONE, [*out, (function("exp", (argument,)), ONE)]

    def _balanced(self, coefficient: Form, factors: Sequence[Factor]) -> tuple[Form, list[Factor]]:
        """Moves the free scale of a product into its sums, so that A/(1 + B*x), 1/(A + B*x) and A/(B + x) agree.

        Where the product has a free scale (a free coefficient, or a sum whose terms all have one), a sum with one
        fixed term gets a free coefficient there; other sums give up their common content to the coefficient.
        """
        pure = self.pure
        fixed = [
            sum(not pure.free(c) for c, _ in b.terms) if b.kind == ADD and len(b.terms) > 1 else -1 for b, _ in factors
        ]
        scaled = pure.free(coefficient) or 0 in fixed
        out: list[Factor] = []
        contents = [coefficient]
        for (base, exponent), n in zip(factors, fixed, strict=True):
            if scaled and n == 1:
                out.append((self._loosened(base), exponent))
            elif n > 0:
                content, reduced = self.reduced(base, whole(exponent))
                if content.s != "1":
                    if exponent.kind != NUM:
                        pure.copy(exponent, 1)
                    contents.append(pure.power(content, exponent))
                out.append((reduced, exponent))
            else:
                out.append((base, exponent))
        if not (scaled and (0 in fixed or 1 in fixed)):
            return pure.product(contents) if len(contents) > 1 else coefficient, out
        odd = any(n in (0, 1) and whole(e) and e.value % 2.0 for (_, e), n in zip(factors, fixed, strict=True))
        return self._sign(contents, odd), out

    def _sign(self, contents: Sequence[Form], odd: bool) -> Form:
        """What a sum that takes any scale leaves of its coefficient: the sign, unless an odd power takes that too."""
        pure = self.pure
        coefficient = pure.product(contents) if len(contents) > 1 else contents[0]
        if odd:
            return pure.only(ONE, [coefficient])
        if coefficient.kind == NUM:
            return MINUS if coefficient.value < 0.0 else ONE
        if pure.free(coefficient):
            return coefficient
        pure.copy(coefficient, -1)
        return pure.fresh()

    def _loosened(self, base: Form) -> Form:
        """The sum with a fresh parameter for the coefficient of its only fixed term."""
        terms = []
        for coefficient, mono in base.terms:
            if self.pure.free(coefficient):
                terms.append((coefficient, mono))
            else:
                self.pure.copy(coefficient, -1)
                terms.append((self.pure.fresh(), mono))
        return total(terms)

    def reduced(self, base: Form, signed: bool) -> tuple[Form, Form]:
        """(content, sum): what the fixed coefficients share, and the sum without it.

        That is their common pure factors and the number that makes a leading coefficient 1, with a minus sign only
        where `signed`; free coefficients absorb the change. One term at least must be fixed.
        """
        free = [self.pure.free(c) for c, _ in base.terms]
        parts = [(c, []) if c.kind == NUM else factors_of(c) for c, _ in base.terms]
        number = leading([(p[0].value, m) for p, (_, m), f in zip(parts, base.terms, free, strict=True) if not f])
        number = number if signed else abs(number)
        powers = [[powered(b, e) for b, e in p[1]] for p, f in zip(parts, free, strict=True) if not f]
        shared = set.intersection(*[{f.s for f in p} for p in powers])
        if number == 1.0 and not shared:
            return ONE, base
        common = [f for f in powers[0] if f.s in shared]
        terms = []
        for (value, factors), (coefficient, mono), loose in zip(parts, base.terms, free, strict=True):
            rest = [f for f in (powered(b, e) for b, e in factors) if f.s not in shared]
            terms.append((coefficient if loose else self.pure.product([num(value.value / number), *rest]), mono))
        content = product(common)
        self.pure.copy(content, 1 - len(powers))
        return self.pure.product([num(number), content]), total(terms)


def _unspread(form: Form) -> bool:
    """Whether a lone summand holds a product that `add` may have to spread."""
    return form.kind == MUL or (form.kind == ADD and any(m.kind == MUL for _, m in form.terms))
