"""Where the search for a law's parameters begins: random points that fit the role each parameter has in the formula.

The tree is walked from the root with the size that a part should have. Parts without free parameters are evaluated on a
few rows; a parameter that multiplies or is added to something is drawn about the size that makes it matter there;
exponents are drawn about zero, multipliers inside exp, tanh or sigmoid about one over the size of what they multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from agentlab.descent import Limits
from agentlab.law import Call, Law, Node, Num, Sym
from agentlab.types import BoolArray, FloatArray, IntArray

ROWS = 16
"""Rows a draw looks at to know the size of a part."""

EXPONENTS = {1: (0.6, 1.5, 1.5, 5.0, 25.0), 2: (0.6, 0.6, 1.5, 1.5, 5.0), 3: (0.6, 1.5)}
"""Exponents are uniform in plus or minus one of these, each as often, by the number of nonlinear parameters: only where
there are few can the draws reach far and still be dense."""

STRATA = 64
"""Sets of stratified numbers drawn at once for a walk."""

SPREAD = 3.0
"""Sizes are log-uniform within e^-SPREAD .. e^SPREAD of what fits."""

MOST_REDUCED = 12
"""Points that are screened for each law the law contains, at least."""

POSITIVE = 0.1
"""Chance of a negative parameter where the part should stay positive: in the base of a power, in a logarithm."""

FUNCTIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "exp": np.exp,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "neg": np.negative,
}
OPERATORS: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": np.power,
    "min": np.minimum,
    "max": np.maximum,
}


def draw(
    law: Law,
    columns: Mapping[str, FloatArray],
    size: FloatArray,
    count: int,
    bounds: Mapping[str, tuple[float, float]],
    seed: int,
) -> FloatArray:
    """`count` random parameter vectors for each of G problems -> (G, count, P).

    `columns` are (G, m) values at a few rows, `size` (G,) the typical magnitude of the target. The same seed gives
    the same points; every parameter is stratified over the `count` draws.
    """
    walk = _Walk(law, {k: np.repeat(v, count, axis=0) for k, v in columns.items()}, count, seed)
    with np.errstate(all="ignore"):
        walk.value(law.tree, np.repeat(size, count), 0.2)
    total = len(size) * count
    theta = np.ones((total, law.n_params))
    for i, name in enumerate(law.params):
        values = np.broadcast_to(walk.drawn.get(name, np.ones(total)), (total,))
        theta[:, i] = np.where(np.isfinite(values), values, 1.0)
        if name in bounds:
            theta[:, i] = _within(theta[:, i], bounds[name], walk.uniform())
    return theta.reshape(len(size), count, law.n_params)


@dataclass(frozen=True)
class Kind:
    """Points (G, M, P) of one kind: free, or with parameter `holds` at a fixed value."""

    theta: FloatArray
    holds: int | None

    def mask(self) -> BoolArray:
        """(M, P) which parameters are held."""
        mask = np.zeros(self.theta.shape[1:], dtype=bool)
        if self.holds is not None:
            mask[:, self.holds] = True
        return mask


def reduced(theta: FloatArray, moving: IntArray, limits: Limits) -> list[Kind]:
    """Points of the laws a law contains: each nonlinear parameter at 0 and at 1, the others from `theta` (G, M, P).

    What bounds exclude is left out.
    """
    values = [(j, v) for j in moving for v in (0.0, 1.0) if limits.lower[j] <= v <= limits.upper[j]]
    each = max(theta.shape[1] // max(len(values), 1), min(MOST_REDUCED, theta.shape[1]))
    kinds = []
    for order, (j, value) in enumerate(values):
        pick = (np.arange(each) + order * each) % theta.shape[1]
        points = theta[:, pick].copy()
        points[:, :, j] = value
        kinds.append(Kind(points if len(moving) > 1 else points[:, :1], int(j)))
    return kinds


def _within(values: FloatArray, bound: tuple[float, float], u: FloatArray) -> FloatArray:
    """Log-uniform inside positive finite bounds, uniform inside other finite ones, clipped at a single bound."""
    low, high = bound
    if not np.isfinite(low) or not np.isfinite(high):
        return np.clip(values, low, high)
    if low > 0:
        return np.clip(low * (high / low) ** u, low, high)
    return low + (high - low) * u


class _Walk:
    """One walk over the tree: `drawn` collects (B,) values by parameter, B = G x count members."""

    def __init__(self, law: Law, columns: Mapping[str, FloatArray], count: int, seed: int) -> None:
        self.columns = columns
        self.params = frozenset(law.params)
        self.count = count
        self.members = len(next(iter(columns.values()))) if columns else count
        rng = np.random.default_rng(seed)
        grid = rng.permuted(np.tile(np.arange(count), (STRATA, 1)), axis=1)
        self.strata = np.tile((grid + rng.random(grid.shape)) / count, self.members // count)
        self.used = 0
        nonlinear = law.n_params - len(law.linear)
        self.exponents = np.array(EXPONENTS[min(max(nonlinear, 1), max(EXPONENTS))])
        self.drawn: dict[str, FloatArray] = {}

    def uniform(self) -> FloatArray:
        """(B,) numbers in (0, 1), stratified over the draws, the same in every problem."""
        self.used += 1
        return np.asarray(self.strata[(self.used - 1) % STRATA])

    def scale(self, values: FloatArray) -> FloatArray:
        """(B,) a magnitude of (B, m) values: their geometric mean in half of the draws, one row's in the others."""
        size = _size(values)
        row = (self.uniform() * values.shape[-1]).astype(np.int64)
        one = np.abs(np.broadcast_to(values, (self.members, values.shape[-1]))[np.arange(self.members), row])
        return np.where((self.uniform() < 0.5) & (one > 1e-9 * size) & np.isfinite(one), one, size)

    def around(self, size: FloatArray, negative: float) -> FloatArray:
        """(B,) numbers log-uniform about `size`, negative with the given probability."""
        sign = np.where(self.uniform() < negative, -1.0, 1.0)
        return sign * size * np.exp(SPREAD * (2.0 * self.uniform() - 1.0))

    def value(self, node: Node, want: FloatArray | None, negative: float) -> FloatArray:
        """(B, m) values of a part, whose parameters are drawn so that its size is about `want` (B,), where given."""
        if isinstance(node, Num):
            return np.array([[node.value]])
        if isinstance(node, Sym):
            return self._leaf(node.name, want, negative)
        if node.op in ("+", "-", "min", "max"):
            return self._sum(node, want, negative)
        if node.op in ("*", "/"):
            return self._product(node, want, negative)
        if node.op == "**":
            return self._power(node, want, negative)
        return self._function(node, want, negative)

    def _leaf(self, name: str, want: FloatArray | None, negative: float) -> FloatArray:
        if name not in self.params:
            return self.columns[name]
        if name not in self.drawn:
            self.drawn[name] = self.around(np.ones(self.members) if want is None else want, negative)
        return self.drawn[name][:, None]

    def _sum(self, node: Call, want: FloatArray | None, negative: float) -> FloatArray:
        """Parts of known size first; the others are drawn about the size of what they are added to."""
        values: dict[int, FloatArray] = {}
        known: FloatArray | None = None
        order = sorted(range(len(node.args)), key=lambda i: (self._scalable(node.args[i]), self._bare(node.args[i])))
        for i in order:
            arg = node.args[i]
            if known is not None and node.op != "+" and self._bare(arg):
                values[i] = self._location(arg, known)
                continue
            part = want if known is None else self.scale(known)
            chance = negative if known is None or self._bare(arg) or negative <= POSITIVE else 0.5
            values[i] = self.value(arg, None if part is None else np.broadcast_to(part, (self.members,)), chance)
            known = values[i]
        result = values[0]
        for i in range(1, len(node.args)):
            result = OPERATORS[node.op](result, values[i])
        return result

    def _location(self, node: Node, known: FloatArray) -> FloatArray:
        """A parameter that is compared with (subtracted from, or bounds) `known`: one of its values."""
        if not isinstance(node, Sym):
            return self.value(node, _size(known), 0.0)
        known = np.sort(np.broadcast_to(known, (self.members, known.shape[1])), axis=1)
        at = (self.uniform() * known.shape[1]).astype(np.int64)
        self.drawn[node.name] = known[np.arange(self.members), at]
        return self.drawn[node.name][:, None]

    def _product(self, node: Call, want: FloatArray | None, negative: float) -> FloatArray:
        """Factors with a size of their own first; a parameter that multiplies them brings the product to `want`."""
        factors = _factors(node, 1)
        result = np.ones((1, 1))
        for part, power in sorted(factors, key=lambda f: self._bare(f[0])):
            aim = None
            if self._bare(part):
                goal = np.ones(self.members) if want is None else want
                size = self.scale(result)
                aim = goal / size if power > 0 else size / goal
            value = self.value(part, aim, negative)
            result = result * value if power > 0 else result / value
        return result

    def _power(self, node: Call, want: FloatArray | None, negative: float) -> FloatArray:
        base, exponent = node.args
        if self._bare(base) and not self._bare(exponent):
            power = self.value(exponent, None, negative)
            if isinstance(base, Sym):
                self.drawn[base.name] = np.exp(np.clip(self.around(1.0 / _size(power), 0.5), -30, 30))
                return np.asarray(self.drawn[base.name][:, None] ** power)
        power = self._exponent(exponent)
        aim = None
        if want is not None and self._scalable(base) and power.shape[-1] == 1:
            aim = np.exp(np.clip(np.log(want) / power[:, 0], -30, 30))
        return np.asarray(self.value(base, aim, min(negative, POSITIVE)) ** power)

    def _exponent(self, node: Node) -> FloatArray:
        inner, sign = (node.args[0], -1.0) if isinstance(node, Call) and node.op == "neg" else (node, 1.0)
        if isinstance(inner, Sym) and self._bare(inner):
            size = self.exponents[(self.uniform() * len(self.exponents)).astype(np.int64)]
            self.drawn[inner.name] = size * (2.0 * self.uniform() - 1.0)
            return sign * self.drawn[inner.name][:, None]
        return self.value(node, np.full(self.members, 0.5), 0.5)

    def _function(self, node: Call, want: FloatArray | None, negative: float) -> FloatArray:
        (arg,) = node.args
        if node.op == "exp":
            aim = None if want is None else 1.0 + np.abs(np.log(want)) * self.uniform()
            return np.asarray(np.exp(self.value(arg, aim, 0.5)))
        if node.op == "sqrt":
            return np.asarray(np.sqrt(self.value(arg, None if want is None else want**2, negative)))
        if node.op in ("abs", "neg"):
            return np.asarray(FUNCTIONS[node.op](self.value(arg, want, negative)))
        if node.op.startswith("log"):
            return np.asarray(FUNCTIONS[node.op](self.value(arg, None, POSITIVE)))
        return np.asarray(FUNCTIONS[node.op](self.value(arg, np.ones(self.members), 0.5)))

    def _bare(self, node: Node) -> bool:
        """A parameter that has not been drawn yet."""
        return isinstance(node, Sym) and node.name in self.params and node.name not in self.drawn

    def _scalable(self, node: Node) -> bool:
        """Whether a parameter that has not been drawn yet sets the size of the part."""
        if not isinstance(node, Call):
            return self._bare(node)
        if node.op in ("*", "/", "neg", "abs"):
            return any(self._scalable(a) for a in node.args)
        if node.op in ("+", "-"):
            return all(self._scalable(a) for a in node.args)
        return node.op in ("**", "sqrt") and self._scalable(node.args[0])


def _factors(node: Node, power: int) -> list[tuple[Node, int]]:
    """The factors of a product with their exponents, +1 or -1."""
    if isinstance(node, Call) and node.op == "*":
        return [f for a in node.args for f in _factors(a, power)]
    if isinstance(node, Call) and node.op == "/":
        return [*_factors(node.args[0], power), *_factors(node.args[1], -power)]
    return [(node, power)]


def _size(values: FloatArray) -> FloatArray:
    """Geometric mean magnitude over the rows where there is something, (B, m) -> (B,)."""
    size = np.clip(np.abs(np.nan_to_num(values, nan=1.0)), 0.0, 1e200)
    seen = size > 1e-9 * np.max(size, axis=-1, keepdims=True)
    logs = np.log(np.where(seen, size, 1.0))
    return np.asarray(np.exp(np.sum(logs, axis=-1) / np.maximum(np.sum(seen, axis=-1), 1)))
