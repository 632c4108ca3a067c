"""The operations of a law as NumPy functions, and what each hands back to its arguments in reverse accumulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from agentlab.types import FloatArray

Value = FloatArray
Backward = Callable[[Value, Value, Sequence[Value], Sequence[bool]], tuple[Value, ...]]

_LN2, _LN10 = float(np.log(2.0)), float(np.log(10.0))
_ZERO = np.zeros(())


def sigmoid(x: Value) -> Value:
    """1/(1 + exp(-x)) without overflow, accurate in both tails."""
    small = np.exp(-np.abs(x))
    return np.where(np.asarray(x) >= 0.0, 1.0, small) / (1.0 + small)


def power(x: Value, a: Value) -> Value:
    """x**a; through logarithms where every x is positive, which is several times faster than `np.power`."""
    if np.all(np.greater(x, 0.0)):
        return np.exp(a * np.log(x))
    return np.power(x, a)


def _least(*values: Value) -> Value:
    out = values[0]
    for value in values[1:]:
        out = np.minimum(out, value)
    return out


def _largest(*values: Value) -> Value:
    out = values[0]
    for value in values[1:]:
        out = np.maximum(out, value)
    return out


FORWARD: dict[str, Callable[..., Value]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": power,
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "min": _least,
    "max": _largest,
    "square": np.square,
    "reciprocal": np.reciprocal,
    "expmul": lambda logx, a: np.exp(logx * a),
}
"""Every operation of a tape: those of `law_tree.OPS` and three that stand for special powers (`expmul`: exp(log x * a))."""


def _times(g: Value, f: Value, x: Sequence[Value], needed: Sequence[bool]) -> tuple[Value, ...]:
    return (g * x[1] if needed[0] else _ZERO, g * x[0] if needed[1] else _ZERO)


def _over(g: Value, f: Value, x: Sequence[Value], needed: Sequence[bool]) -> tuple[Value, ...]:
    ratio = g / x[1]
    return (ratio, -ratio * f if needed[1] else _ZERO)


def _power(g: Value, f: Value, x: Sequence[Value], needed: Sequence[bool]) -> tuple[Value, ...]:
    """d(u**v): v*u**(v-1) and u**v*log u; the latter is set to 0 at u <= 0, where u**v is 0 or has no slope in v."""
    u, v = x
    in_base = in_exponent = _ZERO
    if needed[0]:
        in_base = g * v * (f / u if np.all(np.not_equal(u, 0.0)) else np.power(u, v - 1.0))
    if needed[1]:
        in_exponent = g * f * np.log(np.where(np.greater(u, 0.0), u, 1.0))
    return in_base, in_exponent


def _choice(g: Value, f: Value, x: Sequence[Value], needed: Sequence[bool]) -> tuple[Value, ...]:
    """min and max hand their adjoint to the first argument that attains the value: a subgradient."""
    out: list[Value] = []
    free = np.ones(np.shape(f), dtype=bool)
    for value in x:
        here = np.equal(f, value) & free
        out.append(np.where(here, g, 0.0))
        free &= ~here
    return tuple(out)


BACKWARD: dict[str, Backward] = {
    "+": lambda g, f, x, needed: (g, g),
    "-": lambda g, f, x, needed: (g, -g),
    "*": _times,
    "/": _over,
    "**": _power,
    "neg": lambda g, f, x, needed: (-g,),
    "exp": lambda g, f, x, needed: (g * f,),
    "log": lambda g, f, x, needed: (g / x[0],),
    "log2": lambda g, f, x, needed: (g / (x[0] * _LN2),),
    "log10": lambda g, f, x, needed: (g / (x[0] * _LN10),),
    "sqrt": lambda g, f, x, needed: (0.5 * g / f,),
    "abs": lambda g, f, x, needed: (g * np.sign(x[0]),),
    "tanh": lambda g, f, x, needed: (g * (1.0 - f * f),),
    "sigmoid": lambda g, f, x, needed: (g * f * (1.0 - f),),
    "min": _choice,
    "max": _choice,
    "square": lambda g, f, x, needed: (2.0 * g * x[0],),
    "reciprocal": lambda g, f, x, needed: (-g * f * f,),
    "expmul": lambda g, f, x, needed: (_ZERO, g * f * x[0]),
}
"""For every operation: (adjoint g, value f, arguments, which arguments are needed) -> adjoints of the arguments."""
