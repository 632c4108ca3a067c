"""The canonical form of a law: its tree in normal form, pass after pass until nothing more is absorbed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from agentlab.law_algebra import Algebra
from agentlab.law_calls import call, power
from agentlab.law_form import ADD, FN, MINUS, MUL, NUM, ONE, PAR, POW, Form, num, par, parameters, total, var, whole
from agentlab.law_pure import Pure
from agentlab.law_tree import Call, Node, Num, Sym

MAX_PASSES = 8
MAX_FLIPS = 6
ROUNDING = 1e-12


def canonical(node: Node, variables: Collection[str]) -> list[Form]:
    """The normal forms of a law: one, or several that differ in the signs of parameters that occur more than once."""
    count: dict[str, int] = {}
    _tally(node, variables, count)
    algebra = Algebra(Pure(count))
    form = algebra.add([_built(node, variables, algebra)])
    if not algebra.pure.copied and all(n == 1 for n in count.values()):
        return [form]
    form = _settled(form)
    count = Counter(parameters(form))
    if all(n == 1 for n in count.values()):
        return [form]
    joined = _joined(form, count)
    if joined is not form:
        form = _settled(joined)
        count = Counter(parameters(form))
    return _signed(_scaled(form, count))


def _settled(form: Form) -> Form:
    """The form after passes that each count the parameters anew, until one changes nothing."""
    for _ in range(MAX_PASSES):
        after = rebuilt(form, {})
        if after.s == form.s:
            break
        form = after
    return form


def _tally(node: Node, variables: Collection[str], count: dict[str, int]) -> None:
    if isinstance(node, Sym):
        if node.name not in variables:
            count[node.name] = count.get(node.name, 0) + 1
    elif isinstance(node, Call):
        for arg in node.args:
            _tally(arg, variables, count)


def _built(node: Node, variables: Collection[str], algebra: Algebra) -> Form:
    """The normal form of a tree, bottom up."""
    if isinstance(node, Num):
        return num(node.value)
    if isinstance(node, Sym):
        return var(node.name) if node.name in variables else par(node.name)
    if node.op in ("+", "-", "neg"):
        terms: list[tuple[bool, Node]] = []
        _addends(node, False, terms)
        forms = [(minus, _built(n, variables, algebra)) for minus, n in terms]
        return algebra.add([algebra.scale(MINUS, f) if minus else f for minus, f in forms])
    if node.op in ("*", "/"):
        parts: list[tuple[bool, Node]] = []
        _factors(node, False, parts)
        forms = [(under, _built(n, variables, algebra)) for under, n in parts]
        return algebra.multiply([power(algebra, f, MINUS) if under else f for under, f in forms])
    args = [_built(a, variables, algebra) for a in node.args]
    return power(algebra, args[0], args[1]) if node.op == "**" else call(algebra, node.op, args)


def _addends(node: Node, minus: bool, out: list[tuple[bool, Node]]) -> None:
    """The terms of nested sums, differences and signs, each with whether it is subtracted."""
    if isinstance(node, Call) and node.op in ("+", "-"):
        _addends(node.args[0], minus, out)
        _addends(node.args[1], minus != (node.op == "-"), out)
    elif isinstance(node, Call) and node.op == "neg":
        _addends(node.args[0], not minus, out)
    else:
        out.append((minus, node))


def _factors(node: Node, under: bool, out: list[tuple[bool, Node]]) -> None:
    """The factors of nested products and quotients, each with whether it divides."""
    if isinstance(node, Call) and node.op in ("*", "/"):
        _factors(node.args[0], under, out)
        _factors(node.args[1], under != (node.op == "/"), out)
    else:
        out.append((under, node))


def rebuilt(form: Form, replace: Mapping[str, Form]) -> Form:
    """The form put together again, pure parts replaced as `replace` says by their texts, parameters counted anew."""
    algebra = Algebra(Pure(Counter(_remaining(form, replace))))
    return algebra.add([_again(form, algebra, replace)])


def _remaining(form: Form, replace: Mapping[str, Form]) -> Iterator[str]:
    """The parameters of the form after replacement, once for every time they occur."""
    if form.s in replace:
        yield from parameters(replace[form.s])
        return
    if form.kind == PAR:
        yield form.name
    for arg in form.args:
        yield from _remaining(arg, replace)
    for coefficient, mono in form.terms:
        yield from _remaining(coefficient, replace)
        yield from _remaining(mono, replace)


def _again(form: Form, algebra: Algebra, replace: Mapping[str, Form]) -> Form:
    if form.s in replace:
        return replace[form.s]
    if form.kind == ADD:
        pairs = [(_again(c, algebra, replace), _again(m, algebra, replace)) for c, m in form.terms]
        return algebra.add([algebra.scale(c, m) for c, m in pairs])
    if form.kind == MUL:
        args = [_again(a, algebra, replace) for a in form.args]
        return algebra.pure.product(args) if form.pure else algebra.multiply(args)
    if form.kind == POW:
        return power(algebra, _again(form.args[0], algebra, replace), _again(form.args[1], algebra, replace))
    if form.kind == FN:
        return call(algebra, form.name, [_again(a, algebra, replace) for a in form.args])
    return form


@dataclass(frozen=True, slots=True)
class _Place:
    """A pure part of the law that no larger pure part holds: `number` times `core`."""

    number: float
    core: Form


def _places(form: Form) -> Iterator[_Place]:
    """Every largest pure part that is not a number."""
    if not form.pure:
        for arg in form.args:
            yield from _places(arg)
        for coefficient, mono in form.terms:
            yield from _places(coefficient)
            if mono is not ONE:
                yield from _places(mono)
    elif form.kind == ADD:
        number = form.terms[0][0].value
        yield _Place(number, total([(num(c.value / number), m) for c, m in form.terms]))
    elif form.kind != NUM:
        yield _Place(1.0, form)


def _joined(form: Form, count: Mapping[str, int]) -> Form:
    """The form with one parameter for every pure part that alone holds some parameter, wherever that part repeats."""
    found: dict[str, tuple[Form, int]] = {}
    for place in _places(form):
        core, n = found.get(place.core.s, (place.core, 0))
        found[core.s] = (core, n + 1)
    replace: dict[str, Form] = {}
    for core, n in found.values():
        if core.kind == PAR or _bounded(core):
            continue
        inside = Counter(parameters(core))
        if any(k == 1 and count[name] == n for name, k in inside.items()):
            replace[core.s] = par(f"~j{len(replace)}")
    return rebuilt(_unscaled(form, replace), replace) if replace else form


def _unscaled(form: Form, replace: Mapping[str, Form]) -> Form:
    """The form with pure sums written as a number times one of the sums in `replace`."""
    if form.pure:
        if form.kind != ADD or form.s in replace:
            return form
        number = form.terms[0][0].value
        core = total([(num(c.value / number), m) for c, m in form.terms])
        return total([(num(number), core)]) if core.s in replace else form
    if form.kind == ADD:
        return total([(_unscaled(c, replace), _unscaled(m, replace)) for c, m in form.terms])
    return Form(
        form.kind, form.s, form.pure, form.name, tuple([_unscaled(a, replace) for a in form.args]), value=form.value
    )


def _bounded(core: Form) -> bool:
    """Whether a pure part holds a function that does not take every value."""
    if core.kind == FN and core.name not in ("exp", "log", "abs"):
        return True
    return any(_bounded(a) for a in core.args) or any(_bounded(m) for _, m in core.terms)


def _scaled(form: Form, count: Mapping[str, int]) -> Form:
    """The form with every parameter that only stands alone, times numbers, scaled so that the largest number is 1."""
    sizes: dict[str, list[float]] = {}
    inner: set[str] = set()
    for place in _places(form):
        if place.core.kind == PAR:
            sizes.setdefault(place.core.name, []).append(place.number)
        else:
            inner.update(parameters(place.core))
    replace: dict[str, Form] = {}
    for name, numbers in sizes.items():
        scale = max(abs(n) for n in numbers)
        if all(n < 0.0 for n in numbers):
            scale = -scale
        if count[name] > 1 and name not in inner and abs(scale - 1.0) > ROUNDING:
            replace["?" + name] = total([(num(1.0 / scale), par(name))])
    return rebuilt(form, replace) if replace else form


def _signed(form: Form) -> list[Form]:
    """The forms with the fewest minus signs among those that turn the signs of parameters that occur more than once."""
    places: list[tuple[bool, frozenset[str]]] = []
    blocked: set[str] = set()
    for place in _places(form):
        odd = frozenset(_odd(place.core))
        blocked.update(set(parameters(place.core)) - odd)
        places.append((place.number < 0.0, odd))
    turnable = sorted({n for _, odd in places for n in odd} - blocked)
    if not any(negative for negative, _ in places) or len(turnable) > MAX_FLIPS:
        return [form]
    best: dict[int, list[tuple[str, ...]]] = {}
    for size in range(len(turnable) + 1):
        for names in itertools.combinations(turnable, size):
            minus = sum(negative != (len(odd.intersection(names)) % 2 == 1) for negative, odd in places)
            best.setdefault(minus, []).append(names)
    chosen = best[min(best)]
    turned = [{"?" + n: total([(MINUS, par(n))]) for n in names} for names in chosen]
    return [rebuilt(form, replace) if replace else form for replace in turned]


def _odd(core: Form) -> Iterator[str]:
    """The parameters of which a pure product holds an odd power."""
    for factor in core.args if core.kind == MUL else (core,):
        if factor.kind == PAR:
            yield factor.name
        elif factor.kind == POW and factor.args[0].kind == PAR and whole(factor.args[1]) and factor.args[1].value % 2:
            yield factor.args[0].name
