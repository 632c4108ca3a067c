"""How Chinchilla's form is fitted elsewhere: L-BFGS from a grid, vectorised with exact gradients, or row by row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from agentlab.types import FloatArray

DELTA = 1e-3
"""Where Huber's loss bends, in log units (Hoffmann et al. 2022)."""

POWERS, LEVELS, SCALES = np.arange(0, 2.5, 0.5), np.arange(-1, 1.5, 0.5), np.arange(0, 30, 5)
TIGHT = {"maxiter": 5_000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-10}

Objective = Callable[[FloatArray], tuple[float, FloatArray]] | Callable[[FloatArray], float]


@dataclass(frozen=True, slots=True)
class Found:
    """The costs at the ends of the starts that were run, and the seconds they took together."""

    ends: tuple[float, ...]
    seconds: float

    @property
    def starts(self) -> int:
        """How many were run."""
        return len(self.ends)

    @property
    def best(self) -> float:
        """The least cost."""
        return min(self.ends)

    def share(self, best: float) -> float:
        """The share that ended within 1e-6 of `best`."""
        return sum(end <= best * (1 + 1e-6) for end in self.ends) / len(self.ends)


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to do it, tried from `starts` random points of the grid; `exact` where it has gradients of its own."""

    objective: Callable[[FloatArray, FloatArray, FloatArray], Objective]
    starts: int
    exact: bool
    grid: int = len(POWERS) ** 2 * len(LEVELS) * len(SCALES) ** 2

    def run(self, size: FloatArray, tokens: FloatArray, loss: FloatArray, seed: int) -> Found:
        """L-BFGS-B from the points, to the end."""
        points = np.array(list(product(SCALES, SCALES, LEVELS, POWERS, POWERS)))
        some = points[np.random.default_rng(seed).permutation(len(points))[: self.starts]]
        call = self.objective(size, tokens, loss)
        began = time.perf_counter()
        ends = [minimize(call, p, jac=self.exact, method="L-BFGS-B", options=TIGHT).fun for p in some]
        return Found(tuple(float(e) for e in ends), time.perf_counter() - began)


def vectorised(size: FloatArray, tokens: FloatArray, loss: FloatArray) -> Objective:
    """Huber of log residuals with log A, log B, log E, alpha, beta, and its exact gradient."""
    log_size, log_tokens, log_loss = np.log(size), np.log(tokens), np.log(loss)

    def objective(x: FloatArray) -> tuple[float, FloatArray]:
        terms = np.stack([x[0] - x[3] * log_size, x[1] - x[4] * log_tokens, np.full(len(loss), x[2])])
        total = logsumexp(terms, axis=0)
        residual = total - log_loss
        far = np.abs(residual) > DELTA
        value = np.where(far, DELTA * (np.abs(residual) - 0.5 * DELTA), 0.5 * residual**2)
        share = np.exp(terms - total) * np.clip(residual, -DELTA, DELTA)
        slope = [share[0].sum(), share[1].sum(), share[2].sum(), -share[0] @ log_size, -share[1] @ log_tokens]
        return float(value.sum()), np.array(slope)

    return objective


def by_row(size: FloatArray, tokens: FloatArray, loss: FloatArray) -> Objective:
    """The same in a loop over rows, gradients by finite differences: what a first script looks like."""
    rows = [(math.log(n), math.log(d), math.log(y)) for n, d, y in zip(size, tokens, loss, strict=True)]

    def objective(x: FloatArray) -> float:
        a, b, e, alpha, beta = (float(v) for v in x)
        total = 0.0
        for log_size, log_tokens, log_loss in rows:
            terms = (a - alpha * log_size, b - beta * log_tokens, e)
            most = max(terms)
            residual = abs(most + math.log(sum(math.exp(t - most) for t in terms)) - log_loss)
            total += 0.5 * residual**2 if residual <= DELTA else DELTA * (residual - 0.5 * DELTA)
        return total

    return objective


PEERS = {
    "L-BFGS from the grid, exact gradients": Peer(vectorised, 150, exact=True),
    "L-BFGS from the grid, a loop over rows": Peer(by_row, 12, exact=False),
}
