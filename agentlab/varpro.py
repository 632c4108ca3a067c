"""Least squares for a batch of problems of one law: linear parameters are eliminated, the others descend together.

Variable projection (Golub & Pereyra 1973) with Kaufman's (1975) Jacobian: at given nonlinear parameters the linear ones are
a small linear least-squares problem, solved for every member of the batch at once. Levenberg-Marquardt (More 1978)
moves the members side by side, each with its own damping; members that have converged leave the batch.
Arrays are (B,) members, (B, P) parameters, (B, n) rows. Nothing here raises or warns for numbers that overflow: a member
whose residuals are not finite has cost inf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np

from agentlab.law import Call, Law, Node, Program, Sym
from agentlab.types import BoolArray, FloatArray, IntArray

RIDGE = 1e-14
"""Relative ridge on the column-scaled normal equations: keeps them solvable where columns are collinear."""

EXACT = 1e-30
"""A cost below EXACT x the sum of squares of the data is rounding noise: the law is exact."""

MATMUL_WORK = 200_000
"""Products of more than this many multiplications are summed block by block, so that BLAS never splits them between
threads and the bits do not depend on the number of threads."""


@dataclass(frozen=True)
class Batch:
    """B least-squares problems of one law: `columns` are (n,) shared or (B, n), `y` and `weight` (B, n)."""

    law: Law
    program: Program
    columns: Mapping[str, FloatArray]
    y: FloatArray
    weight: FloatArray

    @classmethod
    def bind(cls, law: Law, columns: Mapping[str, FloatArray], y: FloatArray, weight: FloatArray) -> Self:
        """The batch of `law` over these rows."""
        program = law.compile(columns)
        program.n = y.shape[1]  # columns may be (B, n) or, for a law of parameters only, absent
        return cls(law, program, columns, y, weight)

    def take(self, index: IntArray | BoolArray) -> Batch:
        """The members at `index`."""
        y, weight = self.y[index], self.weight[index]
        if all(c.ndim == 1 for c in self.columns.values()):
            return replace(self, y=y, weight=weight)
        columns = {k: c if c.ndim == 1 else c[index] for k, c in self.columns.items()}
        return Batch.bind(self.law, columns, y, weight)

    def rows(self, part: slice | IntArray) -> Batch:
        """Every member on some of its rows."""
        columns = {k: c[..., part] for k, c in self.columns.items()}
        return Batch.bind(self.law, columns, self.y[:, part], self.weight[:, part])


@dataclass(frozen=True)
class Split:
    """How a law is linear: positions of its linear and nonlinear parameters in `law.params`.

    `home[j]` is the only linear parameter (an index into `linear`) that multiplies everything nonlinear parameter j
    occurs in, so that df/dnu_j is proportional to it; None where some j has no such home. `offset` tells that a part of the law
    has no linear parameter.
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
        if name in linear:
            return {name: frozenset()}
        return {"": frozenset([name]) & nonlinear}
    parts = [_terms(arg, linear, nonlinear) for arg in node.args]
    if node.op in ("+", "-", "neg"):
        return {k: frozenset().union(*(p[k] for p in parts if k in p)) for k in {k: None for p in parts for k in p}}
    everything = frozenset().union(*(inside for p in parts for inside in p.values()))
    keys = [k for p in parts for k in p if k]
    return {k: everything for k in keys} if keys else {"": everything}


@dataclass(frozen=True)
class Normal:
    """One linearisation of B members: `theta` (B, P) with the linear parameters filled in, `cost` (B,), and over the q
    parameters that move: half the negative `gradient` (B, q), the Gauss-Newton `hessian` (B, q, q), its `scale` (B, q)."""

    theta: FloatArray
    cost: FloatArray
    gradient: FloatArray
    hessian: FloatArray
    scale: FloatArray

    def where(self, other: Normal, keep: BoolArray) -> Normal:
        """Members of `self` where `keep`, of `other` elsewhere."""
        return Normal(
            np.where(keep[:, None], self.theta, other.theta),
            np.where(keep, self.cost, other.cost),
            np.where(keep[:, None], self.gradient, other.gradient),
            np.where(keep[:, None, None], self.hessian, other.hessian),
            np.where(keep[:, None], self.scale, other.scale),
        )

    def take(self, index: IntArray | BoolArray) -> Normal:
        """The members at `index`."""
        return Normal(*(getattr(self, f)[index] for f in ("theta", "cost", "gradient", "hessian", "scale")))


class System(Protocol):
    """What `descend` minimises: `moving` are the positions of the parameters that it steps in."""

    @property
    def moving(self) -> IntArray: ...

    @property
    def exact(self) -> FloatArray:
        """(B,) costs below which a member is exact."""

    def at(self, theta: FloatArray) -> Normal:
        """Linearise at (B, P) parameters."""

    def take(self, index: IntArray | BoolArray) -> Self:
        """The members at `index`."""


@dataclass(frozen=True)
class Projected:
    """Plain weighted least squares with the linear parameters eliminated; `lower`, `upper` (P,) bound all parameters."""

    batch: Batch
    split: Split
    lower: FloatArray
    upper: FloatArray

    @property
    def moving(self) -> IntArray:
        """The nonlinear parameters."""
        return self.split.nonlinear

    @property
    def exact(self) -> FloatArray:
        """(B,) costs at which only rounding is left."""
        return EXACT * np.einsum("bn,bn,bn->b", self.batch.weight, self.batch.y, self.batch.y)

    def take(self, index: IntArray | BoolArray) -> Self:
        """The members at `index`."""
        return replace(self, batch=self.batch.take(index))

    def at(self, theta: FloatArray) -> Normal:
        """Solve for the linear parameters at (B, P) `theta` and linearise in the nonlinear ones."""
        with np.errstate(all="ignore"):
            return self._at(theta)

    def _at(self, theta: FloatArray) -> Normal:
        lin, non = self.split.linear, self.split.nonlinear
        theta = theta.copy()
        theta[:, lin] = 1.0
        _, jacobian = self.batch.program.with_jacobian(theta)
        basis = jacobian[:, lin]
        weighted = basis * self.batch.weight[:, None]
        target = self._target(theta)
        c, inverse, target = self._solve(basis, weighted, target)
        theta[:, lin] = c
        cost = np.einsum("bn,bn,bn->b", self.batch.weight, target, target)
        if not len(non):
            return _guard(Normal(theta, cost, cost[:, None][:, :0], cost[:, None, None][:, :0, :0], cost[:, None][:, :0]))
        if self.split.home is None:
            slopes = self.batch.program.with_jacobian(theta)[1][:, non]
        else:
            slopes = jacobian[:, non] * c[:, self.split.home, None]
        heavy = slopes * self.batch.weight[:, None]
        cross = product(heavy, basis)
        full = product(heavy, slopes)
        hessian = full - cross @ inverse @ cross.transpose(0, 2, 1)
        scale = np.einsum("bii->bi", full)
        gradient = np.einsum("bqn,bn->bq", heavy, target)
        return _guard(Normal(theta, cost, gradient, hessian, scale))

    def _target(self, theta: FloatArray) -> FloatArray:
        if not self.split.offset:
            return self.batch.y
        bare = theta.copy()
        bare[:, self.split.linear] = 0.0
        return self.batch.y - self.batch.program(bare)

    def _solve(
        self, basis: FloatArray, weighted: FloatArray, target: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Linear parameters (B, K), the inverse Gram matrix of the free ones (B, K, K), and the residuals (B, n)."""
        gram = product(weighted, basis)
        size = len(self.split.linear)
        lower, upper = self.lower[self.split.linear], self.upper[self.split.linear]
        free = np.ones((len(basis), size), dtype=bool)
        c = np.zeros((len(basis), size))
        for _ in range(1 + size):
            inverse = _inverse(gram, free)
            residual = target - _combine(c * ~free, basis)
            step = _apply(inverse, np.einsum("bkn,bn->bk", weighted, residual))
            c = np.where(free, step, c)
            residual = residual - _combine(c * free, basis)
            fix = _apply(inverse, np.einsum("bkn,bn->bk", weighted, residual))
            c = c + fix
            residual = residual - _combine(fix, basis)
            out = free & ((c < lower) | (c > upper))
            if not out.any():
                break
            c, free = np.clip(c, lower, upper), free & ~out
        return c, inverse, residual


Loss = Literal["none", "huber", "soft_l1"]


@dataclass(frozen=True)
class Direct:
    """The true objective in all parameters: plain or log residuals, weights, and a robust loss of scale `delta` (B,)."""

    batches: tuple[Batch, ...]
    log: bool
    loss: Loss
    delta: FloatArray

    @classmethod
    def bind(cls, batch: Batch, log: bool, loss: Loss, delta: FloatArray, block: int) -> Self:
        """Rows are bound in blocks of at most `block` values, which bounds the memory."""
        step = max(block // max(len(batch.y), 1), 256)
        n = batch.y.shape[1]
        if n <= step:
            return cls((batch,), log, loss, delta)
        return cls(tuple(batch.rows(slice(i, i + step)) for i in range(0, n, step)), log, loss, delta)

    @property
    def moving(self) -> IntArray:
        """All parameters."""
        return np.arange(len(self.batches[0].law.params))

    @property
    def exact(self) -> FloatArray:
        """(B,) costs at which only rounding is left."""
        return sum((EXACT * np.sum(b.weight * (1.0 if self.log else b.y**2), axis=1) for b in self.batches), np.zeros(1))

    def take(self, index: IntArray | BoolArray) -> Self:
        """The members at `index`."""
        return replace(self, batches=tuple(b.take(index) for b in self.batches), delta=self.delta[index])

    def at(self, theta: FloatArray) -> Normal:
        """Linearise at (B, P) `theta`."""
        with np.errstate(all="ignore"):
            parts = [self._block(b, theta) for b in self.batches]
        total = [sum(p[1:], p[0]) for p in zip(*parts, strict=True)]
        return _guard(Normal(theta, *total))

    def residuals(self, theta: FloatArray) -> FloatArray:
        """(B, n) residuals in the space of the fit."""
        with np.errstate(all="ignore"):
            return np.concatenate([self._residual(b, b.program(theta)) for b in self.batches], axis=1)

    @property
    def weight(self) -> FloatArray:
        """(B, n) weights of the residuals."""
        return np.concatenate([b.weight for b in self.batches], axis=1)

    def _residual(self, batch: Batch, f: FloatArray) -> FloatArray:
        if not self.log:
            return batch.y - f
        return np.log(batch.y) - np.log(f)

    def _block(self, batch: Batch, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        f, jacobian = batch.program.with_jacobian(theta)
        residual = self._residual(batch, f)
        if self.log:
            jacobian = jacobian / f[:, None]
        rho, first, curvature = robust(residual, self.delta[:, None], self.loss)
        cost = np.einsum("bn,bn->b", batch.weight, rho)
        heavy = jacobian * (batch.weight * first)[:, None]
        gradient = np.einsum("bpn,bn->bp", heavy, residual)
        if self.loss == "none":
            hessian = product(heavy, jacobian)
            return cost, gradient, hessian, np.einsum("bii->bi", hessian)
        scale = np.einsum("bpn,bpn->bp", heavy, jacobian)
        return cost, gradient, product(jacobian * (batch.weight * curvature)[:, None], jacobian), scale


def robust(residual: FloatArray, delta: FloatArray, loss: Loss) -> tuple[FloatArray, FloatArray, FloatArray]:
    """delta^2 rho(z) with z = (residual / delta)^2, its rho'(z), and the curvature rho' + 2 z rho'' (floored).

    Huber (1964): rho = z up to 1, then 2 sqrt(z) - 1; soft l1: 2 (sqrt(1 + z) - 1).
    """
    if loss == "none":
        return residual**2, np.ones_like(residual), np.ones_like(residual)
    z = (residual / delta) ** 2
    if loss == "soft_l1":
        root = np.sqrt(1.0 + z)
        return delta**2 * 2.0 * (root - 1.0), 1.0 / root, 1.0 / root**3
    size = np.sqrt(np.maximum(z, 1.0))
    return delta**2 * np.where(z <= 1.0, z, 2.0 * size - 1.0), 1.0 / size, np.where(z <= 1.0, 1.0, 1e-3 / size)


def descend(
    system: System,
    theta: FloatArray,
    *,
    steps: int,
    tolerance: float,
    lower: FloatArray,
    upper: FloatArray,
    held: BoolArray | None = None,
) -> Normal:
    """Levenberg-Marquardt on every member from (B, P) `theta`; a member stops when a step gains less than `tolerance`
    of its cost. `held` (B, P) marks parameters that stay, `lower` and `upper` (P,) bound them. Returns the last state."""
    moving = system.moving
    held = np.zeros(theta.shape, dtype=bool)[:, moving] if held is None else held[:, moving]
    lower, upper = lower[moving], upper[moving]
    state = final = system.at(theta)
    live = np.arange(len(theta))
    damping, growth = np.full(len(theta), 1e-2), np.full(len(theta), 2.0)
    exact = system.exact
    if not len(moving):
        return final
    for _ in range(steps):
        here = state.theta[:, moving]
        blocked = held | ((here <= lower) & (state.gradient < 0)) | ((here >= upper) & (state.gradient > 0))
        step, expected = _step(state, damping, blocked)
        trial = state.theta.copy()
        trial[:, moving] = np.clip(here + step, lower, upper)
        new = system.at(trial)
        with np.errstate(invalid="ignore", divide="ignore"):
            gain = np.where(np.isfinite(new.cost), state.cost - new.cost, -np.inf)
            gain[np.isinf(state.cost) & np.isfinite(new.cost)] = np.inf
            ratio = np.clip(np.where(gain > 0, gain / expected, 0.0), 0.0, 2.0)
        small = tolerance * state.cost + exact
        accept = gain > 0
        done = (expected <= small) & (np.abs(gain) <= small) | (expected <= 1e-3 * small) | (damping > 1e12)
        state = new.where(state, accept)
        # Nielsen's (1999) update: damping falls smoothly with the quality of the step and rises ever faster on failure
        damping = np.where(accept, damping * np.clip(1.0 - (2.0 * ratio - 1.0) ** 3, 0.1, 2.0), damping * growth)
        damping, growth = np.clip(damping, 1e-14, 1e14), np.where(accept, 2.0, np.minimum(growth * 2.0, 64.0))
        done |= np.isinf(state.cost) & (damping > 1e3)
        if done.all():
            break
        if np.count_nonzero(done) * 3 >= len(done):
            final = _store(final, state, live)
            stay = ~done
            state, live, system, held = state.take(stay), live[stay], system.take(stay), held[stay]
            damping, growth, exact = damping[stay], growth[stay], exact[stay]
    return _store(final, state, live)


def _store(final: Normal, state: Normal, live: IntArray) -> Normal:
    if len(live) == len(final.cost):
        return state
    stored = {}
    for name in ("theta", "cost", "gradient", "hessian", "scale"):
        values = getattr(final, name).copy()
        values[live] = getattr(state, name)
        stored[name] = values
    return Normal(**stored)


def _step(state: Normal, damping: FloatArray, blocked: BoolArray) -> tuple[FloatArray, FloatArray]:
    """The damped step (B, q) in the parameters that are not blocked, and the gain the linear model expects (B,)."""
    scale = np.sqrt(np.where((state.scale > 0) & ~blocked, state.scale, 1.0))
    free = np.where(blocked, 0.0, 1.0)
    gradient = free * state.gradient / scale
    hessian = state.hessian / scale[:, :, None] / scale[:, None, :] * free[:, :, None] * free[:, None, :]
    eye = np.eye(hessian.shape[1])
    damped = hessian + eye * (damping[:, None] + (1.0 - free) + RIDGE)[:, None]
    z = solve(damped, gradient)
    expected = 2.0 * np.einsum("bq,bq->b", gradient, z) - np.einsum("bp,bpq,bq->b", z, hessian, z)
    return z / scale, np.maximum(expected, 0.0)


def solve(matrices: FloatArray, right: FloatArray) -> FloatArray:
    """Solve (B, q, q) systems for (B, q) right-hand sides; minimum norm where a matrix is singular."""
    if matrices.shape[1] == 1:
        return right / np.where(matrices[:, 0] != 0, matrices[:, 0], 1.0)
    try:
        return np.linalg.solve(matrices, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return _apply(np.linalg.pinv(matrices, hermitian=True), right)


def product(a: FloatArray, b: FloatArray) -> FloatArray:
    """(B, p, n) times (B, q, n) over rows -> (B, p, q), in blocks small enough for one thread (see MATMUL_WORK)."""
    n = a.shape[2]
    block = max(MATMUL_WORK // max(a.shape[1] * b.shape[1], 1), 64)
    if n <= block:
        return a @ b.transpose(0, 2, 1)
    parts = [a[:, :, i : i + block] @ b[:, :, i : i + block].transpose(0, 2, 1) for i in range(0, n, block)]
    return np.sum(parts, axis=0)


def _inverse(gram: FloatArray, free: BoolArray) -> FloatArray:
    """Inverse of the rows and columns of (B, K, K) `gram` that are free, zero elsewhere; scaled columns, tiny ridge."""
    diagonal = np.einsum("bii->bi", gram)
    use = free & (diagonal > 0) & np.isfinite(diagonal)
    scale = np.where(use, 1.0 / np.sqrt(np.where(use, diagonal, 1.0)), 0.0)
    scaled = gram * scale[:, :, None] * scale[:, None, :]
    scaled = np.where(np.isfinite(scaled), scaled, 0.0)
    scaled += np.eye(gram.shape[1]) * (RIDGE + (scale == 0))[:, None]
    try:
        inverse = np.linalg.inv(scaled)
    except np.linalg.LinAlgError:
        inverse = np.linalg.pinv(scaled, hermitian=True)
    return inverse * scale[:, :, None] * scale[:, None, :]


def _combine(c: FloatArray, basis: FloatArray) -> FloatArray:
    return np.einsum("bk,bkn->bn", c, basis)


def _apply(matrices: FloatArray, vectors: FloatArray) -> FloatArray:
    return (matrices @ vectors[..., None])[..., 0]


def _guard(state: Normal) -> Normal:
    """Cost inf and no gradient where anything is not finite."""
    bad = ~(np.isfinite(state.cost) & np.isfinite(state.gradient).all(axis=1) & np.isfinite(state.hessian).all(axis=(1, 2)))
    if not bad.any():
        return state
    return Normal(
        state.theta,
        np.where(bad, np.inf, state.cost),
        np.where(bad[:, None], 0.0, state.gradient),
        np.where(bad[:, None, None], 0.0, state.hessian),
        np.where(bad[:, None], 1.0, state.scale),
    )
