"""Better starting points for laws that bend a sum: outer operations are undone on the data, the sum is solved inside.

In (E + A/N**a)**k the target to the power 1/k is linear in E and A once a and k are drawn; in a + b*tanh(c*x + d) it is
atanh((y - a)/b). The points are first-order right: rows are weighted by the slope of what was undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from agentlab.descent import Limits
from agentlab.law import Call, Law, Node, Num, Sym, from_tree
from agentlab.standard import Standard, standard
from agentlab.types import FloatArray
from agentlab.varpro import Bound, Data, Projected, split

LEAST = 2
"""Parameters that have to become linear for the detour to be worth its time."""

UPWARD = 4
"""One of so many levels beside a quotient lies above the data."""

NARROWEST, WIDEST = 0.02, 3.0
"""A level drawn below (above) the data lies this many ranges of the data away from it."""


@dataclass(frozen=True)
class Path:
    """The operations from the root to a part: (node, which argument), and the part in its standard form.

    A scale above a line, A/(u + k v), is taken below it first, as 1/(A' (u + k v)) with A' = 1/A, so that the part is
    linear in two parameters: those `inverted`.
    """

    outer: tuple[tuple[Call, int], ...]
    inner: Standard
    inverted: tuple[str, ...] = ()


def inner_path(law: Law, known: frozenset[str]) -> Path | None:
    """The way to the part in which most parameters are linear that are not in `known`; None where there is none."""
    gain, path = _straight(law.tree, law, known)
    for tree, name in _lowered(law.tree, frozenset(law.params)):
        more, other = _straight(tree, law, known - {name})
        if other is not None and name in other.inner.law.linear and more > gain:
            gain, path = more, replace(other, inverted=(name,))
    return path


def _straight(tree: Node, law: Law, known: frozenset[str]) -> tuple[int, Path | None]:
    """How many parameters become linear at the end of the best way through a tree, and the way."""
    best: tuple[int, tuple[tuple[Call, int], ...], Node] | None = None
    stack: list[tuple[Node, tuple[tuple[Call, int], ...]]] = [(tree, ())]
    while stack:
        node, outer = stack.pop()
        if not isinstance(node, Call):
            continue
        if outer and _bends(*outer[-1]):
            inside = standard(from_tree(node, law.variables)).law.linear
            gain = len(set(inside) - known)
            if gain >= LEAST and (best is None or gain > best[0]):
                best = gain, outer, node
        if node.op in _UNDO or node.op in _BINARY:
            stack.extend((arg, (*outer, (node, i))) for i, arg in enumerate(node.args))
    if best is None:
        return 0, None
    return best[0], Path(best[1], standard(from_tree(best[2], law.variables)))


def _lowered(node: Node, params: frozenset[str]) -> list[tuple[Node, str]]:
    """The trees in which one parameter that is divided by a sum is taken below the line, and its name."""
    if not isinstance(node, Call):
        return []
    out: list[tuple[Node, str]] = []
    for i, arg in enumerate(node.args):
        for tree, name in _lowered(arg, params):
            out.append((Call(node.op, (*node.args[:i], tree, *node.args[i + 1 :])), name))
    if node.op != "/":
        return out
    above, below = node.args
    if isinstance(above, Sym) and above.name in params and isinstance(below, Call) and below.op in ("+", "-"):
        out.append((Call("/", (Num(1.0), Call("*", (above, below)))), above.name))
    return out


def _bends(node: Call, side: int) -> bool:
    """Whether a law that is linear in the argument `side` of `node` need not be linear in the node."""
    return node.op not in ("+", "-", "*", "neg") and (node.op != "/" or side == 1)


def peel(path: Path, law: Law, data: Data, theta: FloatArray, uniform: FloatArray) -> FloatArray:
    """`theta` (B, P) of `law` with the parameters inside `path` solved for on the rows of `data`, each (B, m).

    `uniform` (B,) in (0, 1) places constants that stand beside the path just outside the data.
    """
    values = {name: theta[:, i].copy() for i, name in enumerate(law.params)}
    with np.errstate(all="ignore"):
        for name in path.inverted:
            values[name] = 1.0 / values[name]
        target, weight = data.y, data.weight
        for depth, (node, side) in enumerate(path.outer):
            other = target
            below = path.outer[depth + 1][0].op if depth + 1 < len(path.outer) else ""
            if len(node.args) == 2:
                sibling = node.args[1 - side]
                _place(sibling, node, side, below, target, uniform, values)
                other = _evaluate(sibling, law, data, values)
            target, slope = _undone(node, side, target, other)
            weight = weight * slope**2
    inner = path.inner
    good = np.isfinite(target) & np.isfinite(weight)
    known = {k: data.columns[k] for k in inner.law.used}
    part = Data(known, np.where(good, target, 0.0), np.where(good, weight, 0.0))
    start = inner.there(np.stack([values[p] for p in inner.original.params], axis=1))
    free = np.full(inner.law.n_params, np.inf)
    system = Projected(Bound(inner.law, part), split(inner.law), Limits(-free, free))
    solved = inner.back(system.at(np.nan_to_num(start, nan=1.0)).theta)
    values |= {p: solved[:, i] for i, p in enumerate(inner.original.params)}
    with np.errstate(all="ignore"):
        for name in path.inverted:
            values[name] = 1.0 / values[name]
    out = np.stack([values[p] for p in law.params], axis=1)
    usable = np.isfinite(out).all(axis=1, keepdims=True)
    return np.where(usable, out, theta)


def _place(
    sibling: Node,
    node: Call,
    side: int,
    below: str,
    target: FloatArray,
    uniform: FloatArray,
    values: dict[str, FloatArray],
) -> None:
    """Put a parameter that stands alone beside the path where the next step can be undone.

    A level comes to lie below (or above) the data, a scale above them or, where nothing forbids, below.
    """
    if not isinstance(sibling, Sym) or sibling.name not in values or node.op not in ("+", "-", "*"):
        return
    low, high = np.fmin.reduce(target, axis=1), np.fmax.reduce(target, axis=1)
    away = NARROWEST * (WIDEST / NARROWEST) ** uniform
    if node.op == "*":
        largest, least = np.maximum(np.abs(low), np.abs(high)), np.fmin.reduce(np.abs(target), axis=1)
        above = np.asarray(np.arange(len(away)) % (1 if below in ("tanh", "sigmoid") else 2) == 0)
        values[sibling.name] = np.where(above, largest * (1.0 + away), least / (1.0 + away))
    elif node.op == "-" and side == 1:
        values[sibling.name] = high + (high - low) * away
    else:
        level = low - (high - low) * away
        if below == "/":  # what is left may be negative: a law can also come up to its level
            level = np.where(np.arange(len(away)) % UPWARD == 0, high + (high - low) * away, level)
        values[sibling.name] = level if node.op == "+" else -level


def _evaluate(node: Node, law: Law, data: Data, values: Mapping[str, FloatArray]) -> FloatArray:
    part = from_tree(node, law.variables)
    theta = np.stack([values[p] for p in part.params], axis=1) if part.params else np.zeros((len(data.y), 0))
    return Bound(part, data).program(theta)


def _undone(node: Call, side: int, target: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The value of argument `side` that gives `target`, and the slope of `node` there; `other` is the other one."""
    one = np.ones(())
    if node.op in _UNDO:
        inverse, slope = _UNDO[node.op]
        return inverse(target), slope(target)
    if node.op == "+":
        return target - other, one
    if node.op == "-":
        return (target + other if side == 0 else other - target), one
    if node.op == "*":
        return target / other, other
    if node.op == "/":
        return (target * other, 1.0 / other) if side == 0 else (other / target, target * target / other)
    if side == 1:
        return np.log(target) / np.log(other), target * np.log(other)
    base = np.power(target, 1.0 / other)
    return base, other * target / base


_Undo = Callable[[FloatArray], FloatArray]
_LN2, _LN10 = float(np.log(2.0)), float(np.log(10.0))
_UNDO: dict[str, tuple[_Undo, _Undo]] = {
    "neg": (np.negative, np.ones_like),
    "exp": (np.log, np.positive),
    "log": (np.exp, lambda t: np.exp(-t)),
    "log2": (np.exp2, lambda t: np.exp2(-t) / _LN2),
    "log10": (lambda t: np.exp(t * _LN10), lambda t: np.exp(-t * _LN10) / _LN10),
    "sqrt": (lambda t: np.where(t > 0, t * t, np.nan), lambda t: 0.5 / t),
    "tanh": (np.arctanh, lambda t: 1.0 - t * t),
    "sigmoid": (lambda t: np.log(t / (1.0 - t)), lambda t: t * (1.0 - t)),
}
"""For every function of one argument: its inverse, and its slope there, both in terms of its value t."""

_BINARY = ("+", "-", "*", "/", "**")
