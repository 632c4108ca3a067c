"""Edits of one law and recombinations of two: every operator is a function of a draft, and one table weighs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from agentlab.law import Call, Node, Num, Sym, parse
from agentlab.law_edit import (
    ONE,
    add,
    at,
    factors_of,
    groups,
    log,
    multiply,
    op_of,
    power,
    put,
    replace,
    symbols,
    terms_of,
    times,
    uses,
    walk,
)
from agentlab.library import templates
from agentlab.library_shapes import filled
from agentlab.proposers._dice import Dice
from agentlab.proposers._draft import Draft
from agentlab.types import Variable

Part = TypeVar("Part")

SIMPLE_EXPONENTS = (Num(1.0), Num(0.5), Num(-1.0), Num(2.0))
"""Exponents that one is fixed to."""
FACTOR = 0.25
"""How often a block that the residuals ask for becomes a correction factor rather than a term."""
NEAR = 0.15
"""How near a fitted exponent must be to a simple one to be fixed there."""


def add_term(draft: Draft) -> Node | None:
    """Add a block with a coefficient to the law or to a sum inside it."""
    path = draft.dice.pick([(), *groups(draft.tree, terms_of)])
    return replace(draft.tree, path, add([at(draft.tree, path), times(Sym("?A"), draft.block())]))


def heed(draft: Draft) -> Node | None:
    """Add a block that the residuals ask for, to the law or as a correction factor of it; the best is heeded most."""
    if not draft.hints:
        return None
    text = draft.dice.weighted(tuple((1.0 / (i + 1), hint) for i, hint in enumerate(draft.hints)))
    asked = parse(text, sorted(draft.names))
    block = times(Sym("?A"), put(asked.tree, {p: Sym(f"?h{p}") for p in asked.params}))
    if draft.dice.chance(FACTOR):
        return times(draft.tree, add([ONE, block]))
    return add([draft.tree, block])


def drop_part(draft: Draft) -> Node | None:
    """Drop a term of a sum or a factor of a product."""
    sums, products = groups(draft.tree, terms_of), groups(draft.tree, factors_of)
    if not sums and not products:
        return None
    path = draft.dice.pick(sums + products)
    if path in sums:
        return replace(draft.tree, path, add(_less_one(terms_of(at(draft.tree, path)), draft.dice)))
    return replace(draft.tree, path, multiply(_less_one(factors_of(at(draft.tree, path)), draft.dice)))


def replace_subtree(draft: Draft) -> Node | None:
    """Replace a subtree with a variable in it by a block."""
    return replace(draft.tree, draft.dice.pick(draft.varying), draft.block())


def multiply_term(draft: Draft) -> Node | None:
    """Multiply or divide a term by a block."""
    path = draft.dice.pick(draft.varying)
    factors = [*factors_of(at(draft.tree, path)), (draft.block(), draft.dice.chance(0.2))]
    return replace(draft.tree, path, multiply(factors))


def wrap(draft: Draft) -> Node | None:
    """Put a subtree into a power, a saturation, a logarithm or an exponential."""
    path = draft.dice.pick(draft.varying)
    inside = at(draft.tree, path)
    wrapped: Node = draft.dice.weighted(
        (
            (4, power(inside, Sym("?p"))),
            (3, Call("/", (ONE, add([Sym("?k"), inside])))),
            (2, log(add([ONE, times(Sym("?k"), inside)]))),
            (2, times(Sym("?A"), Call("exp", (times(Sym("?k"), inside),)))),
            (2, power(add([Sym("?k"), inside]), Sym("?p"))),
            (1, add([Sym("?k"), inside])),
            (1, add([ONE, times(Sym("?k"), inside)])),
        )
    )
    return replace(draft.tree, path, wrapped)


def unwrap(draft: Draft) -> Node | None:
    """Replace an operation by one of its arguments that holds a variable."""
    calls = [p for p in draft.varying if isinstance(at(draft.tree, p), Call)]
    if not calls:
        return None
    path = draft.dice.pick(calls)
    inside = [p for p in draft.varying if len(p) == len(path) + 1 and p[:-1] == path]
    return replace(draft.tree, path, at(draft.tree, draft.dice.pick(inside)))


def shift(draft: Draft) -> Node | None:
    """Add a parameter to one occurrence of a variable: x -> x + x0."""
    path = draft.dice.pick(draft.occurrences)
    return replace(draft.tree, path, add([at(draft.tree, path), Sym("?k")]))


def tie(draft: Draft) -> Node | None:
    """Let one parameter stand for two: exponents with exponents, others with others."""
    bent = {at(draft.tree, p) for p in draft.exponents}
    kinds = draft.distinct(draft.exponents), [n for n in draft.distinct(draft.parameters) if Sym(n) not in bent]
    pairs = [kind for kind in kinds if len(kind) > 1]
    if not pairs:
        return None
    kind = draft.dice.pick(pairs)
    first = draft.dice.pick(kind)
    second = draft.dice.pick([n for n in kind if n != first])
    return put(draft.tree, {second: Sym(first)})


def untie(draft: Draft) -> Node | None:
    """Give one occurrence of a parameter that stands in several places its own value."""
    names = symbols(draft.tree)
    tied = [p for p in draft.parameters if names.count(draft.name_at(p)) > 1]
    return replace(draft.tree, draft.dice.pick(tied), Sym("?u")) if tied else None


def fix_exponent(draft: Draft) -> Node | None:
    """Fix an exponent at a simple number: the one it was fitted near to, else any."""
    if not draft.exponents:
        return None
    name = draft.name_at(draft.dice.pick(draft.exponents))
    value = draft.values.get(name)
    near = [] if value is None else [n for n in SIMPLE_EXPONENTS if abs(abs(value) - abs(n.value)) < NEAR]
    return put(draft.tree, {name: draft.dice.pick(near or SIMPLE_EXPONENTS)})


def free_number(draft: Draft) -> Node | None:
    """Make a parameter of a number, or of the exponent 1 that a bare variable has."""
    numbers = [p for p, n in draft.nodes if isinstance(n, Num)]
    bare = [p for p in draft.occurrences if not (p and p[-1] == 0 and op_of(at(draft.tree, p[:-1])) == "**")]
    if not numbers and not bare:
        return None
    path = draft.dice.pick(numbers + bare)
    node = at(draft.tree, path)
    return replace(draft.tree, path, Sym("?f") if isinstance(node, Num) else power(node, Sym("?f")))


def bend(draft: Draft) -> Node | None:
    """Let a parameter depend on a variable: x**a -> x**(a + b*log(y)); a coefficient also as a power of it."""
    if not draft.parameters:
        return None
    path = draft.dice.pick(draft.exponents if draft.exponents and draft.dice.chance(0.6) else draft.parameters)
    node = at(draft.tree, path)
    if path not in draft.exponents and draft.dice.chance(0.5):
        variable = draft.dice.pick(draft.variables)
        factor = _power_of(variable)
        return replace(draft.tree, path, times(node, factor))
    slope = times(Sym("?b"), draft.coordinate())
    if draft.dice.chance(0.2):
        slope = times(Sym("?b"), power(draft.coordinate(), Num(2.0)))
    return replace(draft.tree, path, add([node, slope]))


def swap_variables(draft: Draft) -> Node | None:
    """Exchange two variables everywhere, or put another variable in one place."""
    if len(draft.variables) < 2:
        return None
    first, second = (v.name for v in draft.several(2))
    if draft.dice.chance(0.5):
        return put(draft.tree, {first: Sym(second), second: Sym(first)})
    path = draft.dice.pick(draft.occurrences)
    others = [v.name for v in draft.variables if v.name != draft.name_at(path)]
    return replace(draft.tree, path, Sym(draft.dice.pick(others)))


def simplify(draft: Draft) -> Node | None:
    """Take out the parameter that is needed least: the one fitted nearest to a value at which it has no effect."""
    names = draft.distinct(draft.parameters)
    if not names:
        return None
    exponents = set(draft.distinct(draft.exponents))
    options = [(name, neutral) for name in names for neutral in ((0.0, 1.0) if name in exponents else (0.0,))]
    if draft.values and draft.dice.chance(0.7):
        known = [o for o in options if o[0] in draft.values]
        options = [min(known, key=lambda o: abs(draft.values[o[0]] - o[1]))] if known else options
    name, neutral = draft.dice.pick(options)
    return _at_neutral(draft, name, neutral)


def cross_terms(draft: Draft) -> Node | None:
    """Add a term of the other law, in the place of one of this law's or beside them."""
    mine, others = terms_of(draft.tree), terms_of(draft.other)
    gift = draft.dice.pick([t for t in others if uses(t, draft.names)] or others)
    kept = _less_one(mine, draft.dice) if len(mine) > 2 and draft.dice.chance(0.5) else mine
    return add([*kept, gift])


def cross_factors(draft: Draft) -> Node | None:
    """Multiply a term by a factor of the other law."""
    places = [p for p, _ in walk(draft.other)]
    products = groups(draft.other, factors_of) or [p for p in places if isinstance(at(draft.other, p), Call)]
    if not products:
        return None
    gifts = [f for f in factors_of(at(draft.other, draft.dice.pick(products))) if uses(f[0], draft.names)]
    if not gifts:
        return None
    path = draft.dice.pick(draft.varying)
    return replace(draft.tree, path, multiply([*factors_of(at(draft.tree, path)), draft.dice.pick(gifts)]))


def cross_subtree(draft: Draft) -> Node | None:
    """Replace a subtree with a variable in it by one of the other law's."""
    gifts = [n for p, n in walk(draft.other) if p and uses(n, draft.names)]
    return replace(draft.tree, draft.dice.pick(draft.varying), draft.dice.pick(gifts)) if gifts else None


def fresh(draft: Draft) -> Node | None:
    """A law of the grammar over other variables, or a new one from two blocks."""
    if draft.dice.chance(0.5):
        return filled(*draft.choose(templates()))
    left, right = draft.block("?l"), draft.block("?r")
    if draft.dice.chance(0.5):
        return add([Sym("?E"), times(Sym("?A"), left, right)])
    return add([Sym("?E"), times(Sym("?A"), left), times(Sym("?B"), right)])


Operator = Callable[[Draft], Node | None]

OPERATORS: tuple[tuple[float, Operator], ...] = (
    (4, add_term),
    (5, heed),
    (3, drop_part),
    (4, replace_subtree),
    (3, multiply_term),
    (3, wrap),
    (2, unwrap),
    (2, shift),
    (2, tie),
    (1, untie),
    (2, fix_exponent),
    (2, free_number),
    (6, bend),
    (2, swap_variables),
    (3, simplify),
    (3, cross_terms),
    (3, cross_factors),
    (3, cross_subtree),
    (1, fresh),
)
"""How often each operator is drawn. The names of the functions are the `operator` of proposals."""

PARENTS: dict[Operator, int] = {cross_terms: 2, cross_factors: 2, cross_subtree: 2, fresh: 0}
"""How many parents an operator reads, where it is not one."""


def _less_one(parts: Sequence[Part], dice: Dice) -> list[Part]:
    left_out = int(dice.unit() * len(parts))
    return [part for i, part in enumerate(parts) if i != left_out]


def _power_of(variable: Variable) -> Node:
    symbol = Sym(variable.name)
    return power(symbol, Sym("?q")) if variable.log else Call("exp", (times(Sym("?q"), symbol),))


def _at_neutral(draft: Draft, name: str, neutral: float) -> Node:
    """The law with a parameter fixed where it has no effect: a coefficient at 0 in a sum, else at 1."""
    if neutral:
        return put(draft.tree, {name: Num(neutral)})
    path = next(p for p in draft.parameters if draft.name_at(p) == name)
    for depth in range(len(path), 0, -1):
        op = op_of(at(draft.tree, path[: depth - 1]))
        if op in ("+", "-"):
            rest = at(draft.tree, (*path[: depth - 1], 1 - path[depth - 1]))
            return replace(draft.tree, path[: depth - 1], rest)
        if op == "**" and path[depth - 1] == 1:
            break
    return put(draft.tree, {name: ONE})
