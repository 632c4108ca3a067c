"""The operations of a law as NumPy functions, and what each hands back to its arguments in reverse accumulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from agentlab.types import FloatArray

Value = FloatArray
Operation = Callable[..., Value]

_LN2, _LN10 = float(np.log(2.0)), float(np.log(10.0))
_NONE = np.zeros(())


class Scratch:
    """Arrays kept from one call to the next, handed out in the order in which operations ask for them.

    A fit calls one program hundreds of times with one shape of parameters; without this the system gives and takes
    back the same pages every time, which costs more than the arithmetic.
    """

    def __init__(self) -> None:
        self._arrays: list[Value | None] = []
        self._next = 0

    def rewind(self) -> None:
        """Starts a call: everything handed out before may be overwritten."""
        self._next = 0

    def run(self, ufunc: Operation, *args: Value) -> Value:
        """ufunc(*args), into the array that the same operation had in the call before."""
        k = self._next
        self._next = k + 1
        if k < len(self._arrays):
            return ufunc(*args, out=self._arrays[k])
        value = ufunc(*args)
        self._arrays.append(value if np.ndim(value) else None)
        return value


def sigmoid(x: Value) -> Value:
    """1/(1 + exp(-x)) without overflow, accurate in both tails."""
    small = np.exp(-np.abs(x))
    return np.where(np.greater_equal(x, 0.0), 1.0, small) / (1.0 + small)


def power(x: Value, a: Value) -> Value:
    """x**a; through logarithms where x is positive, which is several times faster than `np.power`.

    Element by element, so that a value does not depend on what else is in the batch.
    """
    out: Value = np.exp(a * np.log(x))
    beyond = ~np.greater(x, 0.0)
    if np.any(beyond):
        out = np.where(beyond, np.power(x, a), out)
    return out


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


UFUNCS: dict[str, Operation] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "tanh": np.tanh,
    "square": np.square,
    "reciprocal": np.reciprocal,
}
COMPOSED: dict[str, Operation] = {"**": power, "sigmoid": sigmoid, "min": _least, "max": _largest}


def forward(op: str, x: Sequence[Value], scratch: Scratch) -> Value:
    """The operation's value. Beside `law_tree.OPS` a tape holds square, reciprocal and expmul (exp(log x * a))."""
    if op == "expmul":
        product = scratch.run(np.multiply, x[0], x[1])
        return scratch.run(np.exp, product)
    if op in UFUNCS:
        return scratch.run(UFUNCS[op], *x)
    return COMPOSED[op](*x)


def backward(
    op: str, g: Value, f: Value, x: Sequence[Value], needed: Sequence[bool], scratch: Scratch
) -> Sequence[Value]:
    """The adjoints of the arguments x, from the adjoint g and the value f; of no meaning where not `needed`."""
    run = scratch.run
    match op:
        case "neg":
            return (run(np.negative, g),)
        case "+" | "-":
            return (g, run(np.negative, g) if op == "-" and needed[1] else g)
        case "*":
            first = run(np.multiply, g, x[1]) if needed[0] else _NONE
            return (first, run(np.multiply, g, x[0]) if needed[1] else _NONE)
        case "/":
            ratio = run(np.divide, g, x[1])
            return (ratio, run(np.negative, run(np.multiply, ratio, f)) if needed[1] else _NONE)
        case "expmul":
            return (_NONE, run(np.multiply, run(np.multiply, g, f), x[0]))
        case "**":
            return _power(g, f, x, needed)
        case "min" | "max":
            return _choice(g, f, x)
    return (run(np.multiply, g, SLOPES[op](f, x[0])),)


SLOPES: dict[str, Callable[[Value, Value], Value]] = {
    "exp": lambda f, _: f,
    "log": lambda _, x: 1.0 / x,
    "log2": lambda _, x: 1.0 / (x * _LN2),
    "log10": lambda _, x: 1.0 / (x * _LN10),
    "sqrt": lambda f, _: 0.5 / f,
    "abs": lambda _, x: np.sign(x),
    "tanh": lambda f, _: 1.0 - f * f,
    "sigmoid": lambda f, _: f * (1.0 - f),
    "square": lambda _, x: 2.0 * x,
    "reciprocal": lambda f, _: -f * f,
}
"""The derivative of a function of one argument, from its value and its argument."""


def _power(g: Value, f: Value, x: Sequence[Value], needed: Sequence[bool]) -> tuple[Value, Value]:
    """d(u**v): v*u**(v-1) and u**v*log u; the latter is set to 0 at u <= 0, where u**v is 0 or has no slope in v."""
    u, v = x
    in_base = in_exponent = _NONE
    if needed[0]:
        in_base = g * v * (f / u if np.all(np.not_equal(u, 0.0)) else np.power(u, v - 1.0))
    if needed[1]:
        in_exponent = g * f * np.log(np.where(np.greater(u, 0.0), u, 1.0))
    return in_base, in_exponent


def _choice(g: Value, f: Value, x: Sequence[Value]) -> list[Value]:
    """Of min and max the first argument that attains the value takes the adjoint: a subgradient."""
    out: list[Value] = []
    free = np.ones(np.shape(f), dtype=bool)
    for value in x:
        here = np.equal(f, value) & free
        out.append(np.where(here, g, 0.0))
        free &= ~here
    return out
