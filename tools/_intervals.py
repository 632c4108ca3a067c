"""Interval arithmetic over law trees: bounds that hold for every point of a box, of a value and of its slope.

Ends are rounded outward. An end may be infinite and then means "no bound"; the values themselves are real numbers, so
that 0 times an unbounded value is 0 (Moore, Kearfott and Cloud 2009, sections 2 and 4).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from agentlab.law import Node, Num, Sym

_INF = math.inf
_HUGE = sys.float_info.max
_TINY = math.ulp(0.0)
_TOP = 709.7
"""exp of more is taken to have no bound."""


class Interval(NamedTuple):
    """The real numbers from `low` to `high`."""

    low: float
    high: float


class Dual(NamedTuple):
    """Bounds of a value and of its derivative."""

    value: Interval
    slope: Interval


WHOLE = Interval(-_INF, _INF)
ZERO = Interval(0.0, 0.0)
ONE = Interval(1.0, 1.0)
HALF = Interval(0.5, 0.5)
_LN = {"log2": math.log(2.0), "log10": math.log(10.0)}

Box = Mapping[str, Interval]


def slope_bounds(node: Node, box: Box, by: str) -> Interval:
    """Bounds of the derivative of the tree in the name `by`, anywhere in the box; WHOLE where it may be undefined."""
    return _dual(node, box, by).slope


def bounds(node: Node, box: Box) -> Interval:
    """Bounds of the tree anywhere in the box; WHOLE where it may be undefined."""
    return _dual(node, box, "").value


def _dual(node: Node, box: Box, by: str) -> Dual:
    if isinstance(node, Num):
        return Dual(Interval(node.value, node.value), ZERO)
    if isinstance(node, Sym):
        return Dual(box[node.name], ONE if node.name == by else ZERO)
    args = [_dual(a, box, by) for a in node.args]
    found = _RULES[node.op](*args)
    return Dual(found.value, ZERO) if all(a.slope == ZERO for a in args) else found


# ---- arithmetic ----


def _out(low: float, high: float, steps: int = 1) -> Interval:
    """The interval some floats wider at each end, but for an exact 0; nan means no bound."""
    low, high = (-_INF if math.isnan(low) else low), (_INF if math.isnan(high) else high)
    for _ in range(steps):
        low = low if low == 0.0 else math.nextafter(low, -_INF)
        high = high if high == 0.0 else math.nextafter(high, _INF)
    return Interval(min(low, _HUGE), max(high, -_HUGE))


def plus(u: Interval, v: Interval) -> Interval:
    """u + v."""
    return _out(u.low + v.low, u.high + v.high)


def minus(u: Interval) -> Interval:
    """-u."""
    return Interval(-u.high, -u.low)


def times(u: Interval, v: Interval) -> Interval:
    """u * v."""
    ends = [0.0 if 0.0 in (a, b) else a * b or math.copysign(_TINY, a * b) for a in u for b in v]
    return _out(min(ends), max(ends))


def over(u: Interval, v: Interval) -> Interval:
    """u / v; WHOLE where v may be 0 on both sides, or is 0."""
    if v.low < 0.0 < v.high or v == ZERO:
        return WHOLE
    high = _INF if v.low == 0.0 else 1.0 / v.low
    low = -_INF if v.high == 0.0 else 1.0 / v.high
    return times(u, _out(low, high))


def power(u: Interval, v: Interval) -> Interval:
    """u**v; WHOLE for a base that may be negative, unless the exponent is one whole number."""
    if v.low == v.high and v.low == round(v.low) and abs(v.low) <= 64:
        return _whole_power(u, int(v.low))
    if u.low < 0.0:
        return WHOLE
    return exponential(times(v, logarithm(u)))


def _whole_power(u: Interval, n: int) -> Interval:
    if n < 0:
        return over(ONE, _whole_power(u, -n))
    low, high = _float_power(u.low, n), _float_power(u.high, n)
    if n % 2:
        return _out(low, high, 2)
    least = 0.0 if u.low <= 0.0 <= u.high else min(low, high)
    return _out(least, max(low, high), 2)


def _float_power(x: float, n: int) -> float:
    try:
        return x**n or (math.copysign(_TINY, x**n) if x else 0.0)
    except OverflowError:
        return _INF if x > 0 or n % 2 == 0 else -_INF


def _monotone(f: Callable[[float], float], u: Interval) -> Interval:
    """A rising function: its values at the ends, two floats wider."""
    return _out(f(u.low), f(u.high), 2)


def exponential(u: Interval) -> Interval:
    """exp(u)."""
    low, high = _monotone(_exp, u)
    return Interval(min(max(low, 0.0), math.exp(_TOP)), max(high, _TINY))


def _exp(x: float) -> float:
    return _INF if x > _TOP else math.exp(x)


def logarithm(u: Interval) -> Interval:
    """log(u); WHOLE where u may be negative."""
    if u.low < 0.0:
        return WHOLE
    return _monotone(lambda x: -_INF if x == 0.0 else _INF if x == _INF else math.log(x), u)


def root(u: Interval) -> Interval:
    """sqrt(u); WHOLE where u may be negative."""
    return WHOLE if u.low < 0.0 else _monotone(math.sqrt, u)


def absolute(u: Interval) -> Interval:
    """abs(u)."""
    return Interval(0.0 if u.low <= 0.0 <= u.high else min(abs(u.low), abs(u.high)), max(abs(u.low), abs(u.high)))


def _within(u: Interval, low: float, high: float) -> Interval:
    """What is known to lie between low and high."""
    return Interval(min(max(u.low, low), high), max(min(u.high, high), low))


# ---- values and slopes together ----


def _sum(u: Dual, v: Dual) -> Dual:
    return Dual(plus(u.value, v.value), plus(u.slope, v.slope))


def _product(u: Dual, v: Dual) -> Dual:
    return Dual(times(u.value, v.value), plus(times(u.slope, v.value), times(u.value, v.slope)))


def _quotient(u: Dual, v: Dual) -> Dual:
    if v.slope == ZERO:
        return Dual(over(u.value, v.value), over(u.slope, v.value))
    if u.slope == ZERO:
        return Dual(over(u.value, v.value), minus(over(times(u.value, v.slope), _whole_power(v.value, 2))))
    rise = plus(times(u.slope, v.value), minus(times(u.value, v.slope)))
    return Dual(over(u.value, v.value), over(rise, _whole_power(v.value, 2)))


def _power(u: Dual, v: Dual) -> Dual:
    value = power(u.value, v.value)
    slope = ZERO
    if u.slope != ZERO:
        lower = power(u.value, plus(v.value, Interval(-1.0, -1.0)) if v.value.low != v.value.high else _less(v.value))
        slope = times(times(v.value, lower), u.slope)
    if v.slope != ZERO:
        slope = plus(slope, times(times(value, logarithm(u.value)), v.slope))
    return Dual(value, slope)


def _less(v: Interval) -> Interval:
    """A known exponent less 1, without widening: whole powers stay whole."""
    exact = v.low - 1.0
    return Interval(exact, exact) if exact + 1.0 == v.low else plus(v, Interval(-1.0, -1.0))


def _exponential(u: Dual) -> Dual:
    value = exponential(u.value)
    return Dual(value, times(value, u.slope))


def _logarithm(u: Dual) -> Dual:
    return Dual(logarithm(u.value), WHOLE if u.value.low < 0.0 else over(u.slope, u.value))


def _scaled_logarithm(base: str) -> Callable[[Dual], Dual]:
    unit = Interval(math.nextafter(_LN[base], 0.0), math.nextafter(_LN[base], _INF))

    def rule(u: Dual) -> Dual:
        natural = _logarithm(u)
        return Dual(over(natural.value, unit), over(natural.slope, unit))

    return rule


def _root(u: Dual) -> Dual:
    value = root(u.value)
    return Dual(value, WHOLE if u.value.low < 0.0 else times(HALF, over(u.slope, value)))


def _absolute(u: Dual) -> Dual:
    sign = Interval(1.0 if u.value.low >= 0.0 else -1.0, -1.0 if u.value.high <= 0.0 else 1.0)
    return Dual(absolute(u.value), times(sign, u.slope))


def _tanh(u: Dual) -> Dual:
    value = _within(_monotone(math.tanh, u.value), -1.0, 1.0)
    steep = _within(plus(ONE, minus(_whole_power(value, 2))), 0.0, 1.0)
    return Dual(value, times(steep, u.slope))


def _sigmoid(u: Dual) -> Dual:
    value = _within(_monotone(lambda x: 1.0 / (1.0 + _exp(-x)), u.value), 0.0, 1.0)
    steep = _within(times(value, plus(ONE, minus(value))), 0.0, 0.25)
    return Dual(value, times(steep, u.slope))


def _least(*args: Dual) -> Dual:
    high = min(a.value.high for a in args)
    able = [a.slope for a in args if a.value.low <= high]
    slope = Interval(min(s.low for s in able), max(s.high for s in able))
    return Dual(Interval(min(a.value.low for a in args), high), slope)


def _negated(u: Dual) -> Dual:
    return Dual(minus(u.value), minus(u.slope))


_RULES: Mapping[str, Callable[..., Dual]] = {
    "+": _sum,
    "-": lambda u, v: _sum(u, _negated(v)),
    "*": _product,
    "/": _quotient,
    "**": _power,
    "neg": _negated,
    "exp": _exponential,
    "log": _logarithm,
    "log2": _scaled_logarithm("log2"),
    "log10": _scaled_logarithm("log10"),
    "sqrt": _root,
    "abs": _absolute,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "min": _least,
    "max": lambda *args: _negated(_least(*[_negated(a) for a in args])),
}
