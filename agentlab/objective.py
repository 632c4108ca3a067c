"""The true objective of a fit in all parameters: plain or log residuals, weights, and a robust loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from agentlab.descent import Normal, guarded
from agentlab.types import BoolArray, FloatArray, IntArray
from agentlab.varpro import EXACT, Bound, along, product

Loss = Literal["none", "huber", "soft_l1"]

BLOCK = 2_000_000
"""Values (members x rows x parameters) that are in memory at once."""


@dataclass(frozen=True)
class Direct:
    """B members on rows in blocks; `delta` (B,) is where the robust loss bends, in the unit of the residuals."""

    blocks: tuple[Bound, ...]
    log: bool
    loss: Loss
    delta: FloatArray

    @classmethod
    def bind(cls, bound: Bound, log: bool, loss: Loss = "none", delta: FloatArray | None = None) -> Self:
        """The objective over the rows of a batch, in blocks that bound the memory."""
        members, n = bound.data.y.shape
        step = max(BLOCK // (members * (bound.law.n_params + 1)), 256)
        parts: tuple[Bound, ...] = (bound,)
        if n > step:
            parts = tuple(Bound(bound.law, bound.data.rows(slice(i, i + step))) for i in range(0, n, step))
        return cls(parts, log, loss, np.ones(members) if delta is None else delta)

    @property
    def moving(self) -> IntArray:
        """All parameters."""
        return np.arange(self.blocks[0].law.n_params)

    @property
    def exact(self) -> FloatArray:
        """(B,) costs at which only rounding is left."""
        sums = [np.sum(b.data.weight * (1.0 if self.log else b.data.y**2), axis=1) for b in self.blocks]
        return np.asarray(EXACT * np.sum(sums, axis=0))

    def take(self, index: IntArray | BoolArray) -> Self:
        """The members at `index`."""
        return replace(self, blocks=tuple(b.take(index) for b in self.blocks), delta=self.delta[index])

    def at(self, theta: FloatArray) -> Normal:
        """Linearise at (B, P) `theta`; cost inf where a value is not finite or, with log residuals, not positive."""
        with np.errstate(all="ignore"):
            parts = [self._block(b, theta) for b in self.blocks]
            total = parts[0] if len(parts) == 1 else [np.sum(p, axis=0) for p in zip(*parts, strict=True)]
            return guarded(Normal(theta, *total))

    def residuals(self, theta: FloatArray) -> FloatArray:
        """(B, n) residuals in the space of the fit; 0 where the weight is."""
        with np.errstate(all="ignore"):
            parts = [np.where(b.data.weight > 0, self._residual(b, b.program(theta)), 0.0) for b in self.blocks]
        return np.concatenate(parts, axis=1)

    def _residual(self, bound: Bound, f: FloatArray) -> FloatArray:
        return np.log(bound.data.y) - np.log(f) if self.log else bound.data.y - f

    def _block(self, bound: Bound, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Cost, gradient, Hessian and scale of one block of rows."""
        weight = bound.data.weight
        f, jacobian = bound.program.with_jacobian(theta)
        residual = self._residual(bound, f)
        if self.log:
            jacobian = jacobian / f[:, None]
        if self.loss == "none":
            heavy = jacobian * weight[:, None]
            hessian = product(heavy, jacobian)
            cost = np.einsum("bn,bn,bn->b", weight, residual, residual)
            return cost, along(heavy, residual), hessian, np.einsum("bpp->bp", hessian)
        rho, first, curvature = robust(residual, self.delta[:, None], self.loss)
        heavy = jacobian * (weight * first)[:, None]
        scale = np.einsum("bpn,bpn->bp", heavy, jacobian)
        hessian = product(jacobian * (weight * curvature)[:, None], jacobian)
        return np.einsum("bn,bn->b", weight, rho), along(heavy, residual), hessian, scale


def robust(residual: FloatArray, delta: FloatArray, loss: Loss) -> tuple[FloatArray, FloatArray, FloatArray]:
    """delta^2 rho(z) with z = (residual / delta)^2, the weight rho'(z), and the curvature rho' + 2 z rho'' (floored).

    Huber (1964): rho = z up to 1, then 2 sqrt(z) - 1; soft l1: 2 (sqrt(1 + z) - 1).
    """
    z = (residual / delta) ** 2
    if loss == "soft_l1":
        root = np.sqrt(1.0 + z)
        return delta**2 * 2.0 * (root - 1.0), 1.0 / root, 1.0 / root**3
    size = np.sqrt(np.maximum(z, 1.0))
    return delta**2 * np.where(z <= 1.0, z, 2.0 * size - 1.0), 1.0 / size, np.where(z <= 1.0, 1.0, 1e-3 / size)
