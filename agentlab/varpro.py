"""Least squares of a law for a batch of problems, with the parameters that enter linearly eliminated.

Variable projection (Golub & Pereyra 1973) with Kaufman's (1975) Jacobian: at given nonlinear parameters the linear ones
are a small least-squares problem, solved for every member of the batch at once. Arrays are (B,) members, (B, P)
parameters, (B, n) rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from agentlab.descent import RIDGE, Limits, Normal, apply, diagonal, guarded
from agentlab.law import Call, Law, Node, Program, Sym
from agentlab.types import BoolArray, FloatArray, IntArray

EXACT = 1e-30
"""A cost below EXACT x the sum of squares of the data is rounding noise: the law is exact."""

FLAT = 1e-10
"""Share of a column's norm below which what is left of it outside the linear columns is rounding noise."""

MATMUL_WORK, MATMUL_SIZE = 200_000, 8192
"""Products with more multiplications, or longer factors, are summed block by block, so that BLAS never splits one
between threads (OpenBLAS does above 262,144 and 9,216) and the bits do not depend on how many there are."""


@dataclass(frozen=True)
class Data:
    """The rows of B least-squares problems: `columns` are (n,) shared or (B, n), `y` and `weight` (B, n)."""

    columns: Mapping[str, FloatArray]
    y: FloatArray
    weight: FloatArray

    def take(self, index: IntArray | BoolArray) -> Data:
        """The members at `index`."""
        columns = {k: c if c.ndim == 1 else c[index] for k, c in self.columns.items()}
        return Data(columns, self.y[index], self.weight[index])

    def rows(self, part: slice | IntArray) -> Data:
        """Every member on some of its rows."""
        return Data({k: c[..., part] for k, c in self.columns.items()}, self.y[:, part], self.weight[:, part])

    @property
    def shared(self) -> bool:
        """Whether all members see the same columns."""
        return all(c.ndim == 1 for c in self.columns.values())


@dataclass(frozen=True)
class Bound:
    """A law bound to the rows of a batch."""

    law: Law
    data: Data

    @cached_property
    def program(self) -> Program:
        """The compiled law."""
        program = self.law.compile(self.data.columns)
        program.n = self.data.y.shape[1]  # columns may be (B, n) or, for a law of parameters only, absent
        return program

    @cached_property
    def root(self) -> FloatArray | None:
        """The roots of the weights (B, n); None where all are 1."""
        return None if np.all(self.data.weight == 1.0) else np.sqrt(self.data.weight)

    def take(self, index: IntArray | BoolArray) -> Bound:
        """The members at `index`; what was computed is kept, but for a program that holds members' own columns."""
        part = Bound(self.law, self.data.take(index))
        if "root" in self.__dict__:
            part.__dict__["root"] = None if self.root is None else self.root[index]
        if self.data.shared:
            part.__dict__["program"] = self.program
        return part


@dataclass(frozen=True)
class Split:
    """How a law is linear: positions of its linear and nonlinear parameters in `law.params`.

    `home[j]` is the only linear parameter (an index into `linear`) that multiplies everything nonlinear parameter j
    occurs in, so that df/dnu_j is proportional to it; None where some j has no such home. `offset` tells that a part
    of the law has no linear parameter.
    """

    linear: IntArray
    nonlinear: IntArray
    home: IntArray | None
    offset: bool


def split(law: Law) -> Split:
    """Read from the tree which parameters are eliminated and how the others hang on them."""
    position = {name: i for i, name in enumerate(law.params)}
    linear = [p for p in law.params if p in law.linear]
    nonlinear = [p for p in law.params if p not in law.linear]
    terms = _terms(law.tree, frozenset(linear), frozenset(nonlinear))
    homes: list[int] = []
    for name in nonlinear:
        at = [k for k, inside in terms.items() if name in inside]
        homes.append(linear.index(at[0]) if len(at) == 1 and at[0] else -1)
    home = np.array(homes, dtype=np.int64) if homes and min(homes) >= 0 else None
    return Split(
        np.array([position[p] for p in linear], dtype=np.int64),
        np.array([position[p] for p in nonlinear], dtype=np.int64),
        home,
        "" in terms,
    )


def _terms(node: Node, linear: frozenset[str], nonlinear: frozenset[str]) -> dict[str, frozenset[str]]:
    """For each linear parameter ("" for none) the nonlinear ones that occur in what it multiplies."""
    if not isinstance(node, Call):
        name = node.name if isinstance(node, Sym) else ""
        return {name: frozenset()} if name in linear else {"": frozenset([name]) & nonlinear}
    parts = [_terms(arg, linear, nonlinear) for arg in node.args]
    if node.op in ("+", "-", "neg"):
        keys = {k: None for p in parts for k in p}
        return {k: frozenset().union(*(p[k] for p in parts if k in p)) for k in keys}
    everything: frozenset[str] = frozenset().union(*(inside for p in parts for inside in p.values()))
    named = [k for p in parts for k in p if k]
    return dict.fromkeys(named, everything) if named else {"": everything}


@dataclass(frozen=True)
class Projected:
    """Plain weighted least squares in the nonlinear parameters; the linear ones are solved for, within their limits."""

    bound: Bound
    split: Split
    limits: Limits

    @property
    def moving(self) -> IntArray:
        """The nonlinear parameters."""
        return self.split.nonlinear

    @property
    def exact(self) -> FloatArray:
        """(B,) costs at which only rounding is left."""
        data = self.bound.data
        return np.asarray(EXACT * np.einsum("bn,bn,bn->b", data.weight, data.y, data.y))

    def take(self, index: IntArray | BoolArray) -> Self:
        """The members at `index`."""
        return replace(self, bound=self.bound.take(index))

    def at(self, theta: FloatArray) -> Normal:
        """Solve for the linear parameters at (B, P) `theta` and linearise in the nonlinear ones."""
        with np.errstate(all="ignore"):
            return guarded(self._at(theta))

    def _at(self, theta: FloatArray) -> Normal:
        lin, non, size = self.split.linear, self.split.nonlinear, theta.shape[1]
        theta = theta.copy()
        theta[:, lin] = 1.0
        value, rows = self.bound.program.with_jacobian(theta, spare=1)
        rows[:, size] = self._target(theta, value, rows)
        gram = self._gram(rows)
        c, inverse = self._solve(gram[:, lin[:, None], lin], gram[:, lin, size])
        theta[:, lin] = c
        if self.split.home is None:
            value, rows = self.bound.program.with_jacobian(theta, spare=1)
            residual = np.subtract(self.bound.data.y, value, out=rows[:, size])
            gram = self._gram(rows)
            slope, cross, full = gram[:, non, size], gram[:, non[:, None], lin], gram[:, non[:, None], non]
        else:
            every = np.zeros((len(theta), size + 1))
            every[:, lin], every[:, size] = -c, 1.0
            residual = np.einsum("bp,bpn->bn", every, rows)
            home, cross = c[:, self.split.home], gram[:, non[:, None], lin]
            slope = (gram[:, non, size] - apply(cross, c)) * home
            cross = cross * home[:, :, None]
            full = gram[:, non[:, None], non] * (home[:, :, None] * home[:, None, :])
        cost = np.einsum("bn,bn->b", residual, residual)
        hessian = full - cross @ inverse @ cross.transpose(0, 2, 1)
        return Normal(theta, cost, slope, hessian, np.maximum(diagonal(hessian), FLAT * diagonal(full)))

    def _gram(self, rows: FloatArray) -> FloatArray:
        """The products (B, P + 1, P + 1) of weighted rows (B, P + 1, n), which are weighted in place."""
        root = self.bound.root
        if root is not None:
            rows *= root[:, None]
        return product(rows, rows)

    def _target(self, theta: FloatArray, value: FloatArray, jacobian: FloatArray) -> FloatArray:
        """What the terms with linear parameters have to explain, where `value` is the law with all of those at 1."""
        if not self.split.offset:
            return self.bound.data.y
        if self.split.home is None:  # the residuals come from a second evaluation; here rounding does not matter
            return np.asarray(self.bound.data.y - value + np.sum(jacobian[:, self.split.linear], axis=1))
        bare = theta.copy()
        bare[:, self.split.linear] = 0.0
        return np.asarray(self.bound.data.y - self.bound.program(bare))

    def _solve(self, gram: FloatArray, moment: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Linear parameters (B, K) and the inverse Gram matrix of the free ones (B, K, K), zero elsewhere.

        Parameters that leave their limits are fixed there and the others solved again.
        """
        inverse = _inverse(gram)
        c = apply(inverse, moment)
        if not self.limits.any:
            return c, inverse
        free = np.ones(moment.shape, dtype=bool)
        lower, upper = self.limits.lower[self.split.linear], self.limits.upper[self.split.linear]
        for _ in range(moment.shape[1]):
            out = free & ((c < lower) | (c > upper))
            if not out.any():
                break
            free = free & ~out
            fixed = np.where(free, 0.0, np.minimum(np.maximum(c, lower), upper))
            inverse = _inverse(gram, free)
            c = fixed + apply(inverse, moment - apply(gram, fixed))
        return c, inverse


def product(a: FloatArray, b: FloatArray) -> FloatArray:
    """(B, p, n) times (B, q, n) over rows -> (B, p, q), in blocks small enough for one thread (see MATMUL_WORK)."""
    n = a.shape[2]
    p, q = max(a.shape[1], 1), max(b.shape[1], 1)
    block = max(min(MATMUL_WORK // (p * q), MATMUL_SIZE // max(p, q)), 64)
    if n <= block:
        return np.asarray(a @ b.transpose(0, 2, 1))
    parts = [a[:, :, i : i + block] @ b[:, :, i : i + block].transpose(0, 2, 1) for i in range(0, n, block)]
    return np.asarray(np.sum(parts, axis=0))


def _inverse(gram: FloatArray, free: BoolArray | None = None) -> FloatArray:
    """Inverse of the rows and columns of (B, K, K) `gram` that are free, zero elsewhere; scaled columns, tiny ridge."""
    if gram.shape[1] == 1 and free is None:
        return np.where(np.isfinite(1.0 / gram), 1.0 / gram, 0.0)
    scale = 1.0 / np.sqrt(diagonal(gram))
    ridge: float | FloatArray = RIDGE
    if free is not None or not np.isfinite(np.add.reduce(scale, axis=None)):
        use = np.isfinite(scale) if free is None else free & np.isfinite(scale)
        scale, ridge = np.where(use, scale, 0.0), np.where(use, RIDGE, 1.0)
    outer = scale[:, :, None] * scale[:, None, :]
    scaled = np.ascontiguousarray(gram * outer)
    if not np.isfinite(np.add.reduce(scaled, axis=None)):
        scaled = np.where(np.isfinite(scaled), scaled, 0.0)
    diagonal(scaled)[...] += ridge
    try:
        inverse = np.linalg.inv(scaled)
    except np.linalg.LinAlgError:
        inverse = np.linalg.pinv(scaled, hermitian=True)
    return np.asarray(inverse * outer)


def along(rows: FloatArray, vector: FloatArray) -> FloatArray:
    """(B, p, n) times (B, n) over rows -> (B, p), without BLAS."""
    return np.asarray(np.einsum("bpn,bn->bp", rows, vector))
