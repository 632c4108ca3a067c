"""When a run's curve has already answered: what it will come to is known better than another seed would tell.

Runs that went to their end teach how the final value follows from the value at a share f of the way: a line in
logarithms with a scatter tau. A run that is stopped at f gives its prediction, with variance sigma^2 + tau^2 at a cost
of f, where sigma is the noise between seeds. It tells more per FLOP than a run to the end as soon as
tau^2 / sigma^2 < (1 - f) / f.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentlab.trace import Record

__all__ = ["Answered", "Curves"]

FEW = 6
"""Runs to the end from which the line is drawn, at least."""

NEAR = 0.02
"""Shares of the way that differ by less are the same."""

Point = tuple[float, float]
"""A share of the way, and the value there."""


@dataclass(frozen=True)
class Answered:
    """A run that can be stopped: at which share of the way, what it is predicted to come to, and the scatter of that.

    `scatter` is the standard deviation of the logarithm.
    """

    share: float
    value: float
    scatter: float


@dataclass(frozen=True)
class Curves:
    """Curves of runs that went to their end, each with its final value, and the noise between seeds in logarithms."""

    known: Sequence[tuple[Sequence[Point], float]]
    noise: float

    @classmethod
    def of(cls, measured: Sequence[Record], noise: float) -> Curves:
        """The curves of the runs on record."""
        whole = [r for r in measured if r["status"] == "ok" and r.get("curve") and "stopped" not in r]
        return cls([([(f, v) for f, v in r["curve"]], float(next(iter(r["targets"].values())))) for r in whole], noise)

    def answered(self, curve: Sequence[Point]) -> Answered | None:
        """The first point of a curve at which the run can be stopped; None where it had better go on."""
        for share, value in curve:
            if not (0 < share < 1 - NEAR and value > 0):
                continue
            pairs = self._pairs(share)
            if len(pairs) < FEW:
                continue
            final, scatter = _predicted(pairs, math.log(value))
            if scatter**2 < self.noise**2 * (1 - share) / share:
                return Answered(share, math.exp(final), scatter)
        return None

    def _pairs(self, share: float) -> list[Point]:
        """Logarithms of the value at `share` and of the final one, of every run that has both."""
        return [
            (math.log(v), math.log(final))
            for curve, final in self.known
            for f, v in curve
            if abs(f - share) < NEAR and v > 0 and final > 0
        ]


def _predicted(pairs: Sequence[Point], at: float) -> tuple[float, float]:
    """The final value at `at` on the line through the pairs, and the standard deviation of that prediction."""
    x, y = np.array(pairs).T
    middle = x.mean()
    spread = float(((x - middle) ** 2).sum())
    slope = float(((x - middle) * (y - y.mean())).sum()) / spread if spread > 0 else 0.0
    rest = y - y.mean() - slope * (x - middle)
    variance = float((rest**2).sum()) / (len(x) - 2)
    lever = 1.0 + 1.0 / len(x) + ((at - middle) ** 2 / spread if spread > 0 else 0.0)
    return float(y.mean()) + slope * (at - middle), math.sqrt(variance * lever)
