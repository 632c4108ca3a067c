"""Better starting points for laws that bend a sum: the outer operations are undone on the data and the sum is solved inside.

In (E + A/N**a)**k the target to the power 1/k is linear in E and A once a and k are drawn; in a + b*tanh(c*x + d) it is
atanh((y - a)/b). The points are first-order right: rows are weighted by the slope of what was undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agentlab.law import Call, Law, Node, Sym, from_tree
from agentlab.descent import Limits
from agentlab.standard import Standard, standard
from agentlab.types import FloatArray
from agentlab.varpro import Bound, Data, Projected, split

LEAST = 2
"""Parameters that have to become linear for the detour to be worth its time."""

NARROWEST, WIDEST = 0.02, 3.0
"""A level drawn below (above) the data lies this many ranges of the data away from it."""


@dataclass(frozen=True)
class Path:
    """The operations from the root to a part: (node, which argument), and the part in its standard form."""

    outer: tuple[tuple[Call, int], ...]
    inner: Standard


def inner_path(law: Law, known: frozenset[str]) -> Path | None:
    """The way to the part in which most parameters are linear that are not in `known`; None where there is none."""
    best: tuple[int, tuple[tuple[Call, int], ...], Node] | None = None
    stack: list[tuple[Node, tuple[tuple[Call, int], ...]]] = [(law.tree, ())]
    while stack:
        node, outer = stack.pop()
        if not isinstance(node, Call):
            continue
        if outer and _bends(*outer[-1]):
            inside = standard(from_tree(node, law.variables)).law.linear
            gain = len(set(inside) - known)
            if gain >= LEAST and (best is None or gain > best[0]):
                best = gain, outer, node
        if node.op in _UNDO:
            stack.extend((arg, (*outer, (node, i))) for i, arg in enumerate(node.args))
    return Path(best[1], standard(from_tree(best[2], law.variables))) if best else None


def _bends(node: Call, side: int) -> bool:
    """Whether a law that is linear in the argument `side` of `node` need not be linear in the node."""
    return node.op not in ("+", "-", "*", "neg") and (node.op != "/" or side == 1)


def peel(path: Path, law: Law, data: Data, theta: FloatArray, uniform: FloatArray) -> FloatArray:
    """`theta` (B, P) of `law` with the parameters inside `path` solved for on the rows of `data`, each (B, m).

    `uniform` (B,) in (0, 1) places constants that stand beside the path just outside the data.
    """
    values = {name: theta[:, i].copy() for i, name in enumerate(law.params)}
    with np.errstate(all="ignore"):
        target, weight = data.y, data.weight
        for depth, (node, side) in enumerate(path.outer):
            other = None
            below = path.outer[depth + 1][0].op if depth + 1 < len(path.outer) else ""
            if len(node.args) == 2:
                sibling = node.args[1 - side]
                _place(sibling, node, side, below, target, uniform, values)
                other = _evaluate(sibling, law, data, values)
            target, slope = _UNDO[node.op](target, other, side)
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
    out = np.stack([values[p] for p in law.params], axis=1)
    return np.where(np.isfinite(out).all(axis=1)[:, None], out, theta)


def _place(
    sibling: Node, node: Call, side: int, below: str, target: FloatArray, uniform: FloatArray, values: dict[str, FloatArray]
) -> None:
    """Put a parameter that stands alone beside the path where the next step can be undone: a level below (or above)
    the data, or a scale above them."""
    if not isinstance(sibling, Sym) or sibling.name not in values or node.op not in ("+", "-", "*"):
        return
    low, high = np.nanmin(target, axis=1), np.nanmax(target, axis=1)
    away = NARROWEST * (WIDEST / NARROWEST) ** uniform
    if node.op == "*":
        largest, least = np.maximum(np.abs(low), np.abs(high)), np.nanmin(np.abs(target), axis=1)
        above = (below in ("tanh", "sigmoid")) | (np.arange(len(away)) % 2 == 0)
        values[sibling.name] = np.where(above, largest * (1.0 + away), least / (1.0 + away))
    elif node.op == "-" and side == 1:
        values[sibling.name] = high + (high - low) * away
    else:
        level = low - (high - low) * away
        values[sibling.name] = level if node.op == "+" else -level


def _evaluate(node: Node, law: Law, data: Data, values: Mapping[str, FloatArray]) -> FloatArray:
    part = from_tree(node, law.variables)
    theta = np.stack([values[p] for p in part.params], axis=1) if part.params else np.zeros((len(data.y), 0))
    return Bound(part, data).program(theta)


def _power(t: FloatArray, other: FloatArray, side: int) -> tuple[FloatArray, FloatArray]:
    if side == 1:
        return np.log(t) / np.log(other), t * np.log(other)
    u = t ** (1.0 / other)
    return u, other * t / u


_LN2, _LN10 = float(np.log(2.0)), float(np.log(10.0))
_UNDO = {
    "+": lambda t, v, i: (t - v, 1.0),
    "-": lambda t, v, i: (t + v, 1.0) if i == 0 else (v - t, 1.0),
    "*": lambda t, v, i: (t / v, v),
    "/": lambda t, v, i: (t * v, 1.0 / v) if i == 0 else (v / t, t * t / v),
    "**": _power,
    "neg": lambda t, v, i: (-t, 1.0),
    "exp": lambda t, v, i: (np.log(t), t),
    "log": lambda t, v, i: (np.exp(t), np.exp(-t)),
    "log2": lambda t, v, i: (np.exp(t * _LN2), np.exp(-t * _LN2)),
    "log10": lambda t, v, i: (np.exp(t * _LN10), np.exp(-t * _LN10)),
    "sqrt": lambda t, v, i: (np.where(t > 0, t * t, np.nan), 0.5 / t),
    "tanh": lambda t, v, i: (np.arctanh(t), 1.0 - t * t),
    "sigmoid": lambda t, v, i: (np.log(t / (1.0 - t)), t * (1.0 - t)),
}
"""For every operation: the value that gives t, and the slope there; v is the other argument, i which one is sought."""
