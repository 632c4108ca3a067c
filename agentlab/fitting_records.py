"""The records of fitting: how laws are fitted, and what a fit found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from agentlab.law import Law
from agentlab.objective import Loss
from agentlab.types import FloatArray, Rows


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How laws are fitted.

    `residual` is prediction - y ("plain") or log prediction - log y ("log"). A robust loss bends at `delta`, in the
    unit of the residuals; None takes it from the data (median absolute deviation). `bounds` hold by parameter name.
    `thorough` also fits every law with one parameter fixed at 0 or at 1 and starts from there, so that a fit is never
    worse than the fits of those; it costs about 2 P times as much. The last descent ends when a step gains less than
    `tolerance` of the cost.
    """

    starts: int = 24
    residual: Literal["plain", "log"] = "plain"
    robust: Loss = "none"
    seed: int = 0
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    delta: float | None = None
    max_steps: int = 60
    tolerance: float = 1e-13
    thorough: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """The parameters of one law on one set of rows, and how far they can be trusted.

    `params` (P,) in the order of `names`; `cost` is the mean (weighted, robust) squared residual, `rss` the sum of
    weighted squared residuals, `sigma` the residual scale with the parameters' degrees of freedom taken off, all in
    the space of the residuals. `converged` is the share of the `starts` that end at the best cost, `condition` that of
    the column-scaled Jacobian there; `delta` is where the robust loss bends. A failed fit has `ok` False, a `reason`
    and nan parameters.
    """

    names: tuple[str, ...]
    params: FloatArray
    cost: float
    rss: float
    sigma: float
    n: int
    converged: float
    condition: float
    starts: int
    delta: float = 1.0
    ok: bool = True
    reason: str = ""

    @property
    def named(self) -> dict[str, float]:
        """Parameters by name."""
        return {name: float(v) for name, v in zip(self.names, self.params, strict=True)}


@dataclass(frozen=True)
class Sample:
    """What one fit sees: columns and y (n,), weights (n,), and known points (P,) to start from."""

    columns: Mapping[str, FloatArray]
    y: FloatArray
    weight: FloatArray
    warm: tuple[FloatArray, ...] = ()


@dataclass(frozen=True)
class GroupFit:
    """One law fitted to every (group, target) of a table."""

    fits: Mapping[tuple[str, str], Fit]

    @property
    def ok(self) -> bool:
        """Whether every fit was made."""
        return all(f.ok for f in self.fits.values())

    @property
    def reason(self) -> str:
        """Why the first failed fit failed; "" when all were made."""
        return next((f.reason for f in self.fits.values() if not f.ok), "")

    @property
    def params(self) -> dict[str, dict[str, dict[str, float]]]:
        """Parameters by group, target and name."""
        nested: dict[str, dict[str, dict[str, float]]] = {}
        for (group, target), one in self.fits.items():
            nested.setdefault(group, {})[target] = one.named
        return nested

    @property
    def rss(self) -> float:
        """Sum of squared residuals of all fits."""
        return float(sum(f.rss for f in self.fits.values()))

    @property
    def n(self) -> int:
        """Residuals of all fits."""
        return sum(f.n for f in self.fits.values())

    @property
    def n_params(self) -> int:
        """Parameters of all fits."""
        return sum(len(f.names) for f in self.fits.values())

    def predict(self, law: Law, rows: Rows) -> dict[str, FloatArray]:
        """Predictions (n,) by target; nan for rows of a group that was not fitted."""
        out = {target: np.full(len(rows), np.nan) for _, target in self.fits}
        for (group, target), one in self.fits.items():
            mine = rows.group == group
            if mine.any():
                out[target][mine] = law.evaluate({k: v[mine] for k, v in rows.columns.items()}, one.params)
        return out
