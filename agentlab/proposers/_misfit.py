"""What no law of an ensemble can say: a smooth error that the rows know nearby and nobody knows far from them.

Model inadequacy as a Gaussian process (Kennedy and O'Hagan 2001, section 4.2), with a squared-exponential covariance
over the decades of the features. Without it every row teaches the parameters of laws that are taken as true, so that
the cheapest run says as much about the largest scale as any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from agentlab.types import FloatArray, Rows

__all__ = ["misfit_vectors"]

REACH = 1.0
"""Decades over which the error of the laws changes."""

KEPT = 1e-4
"""Places where less than this share of the variance is left tell nothing new."""

RANK = 200
"""Places that stand for all others."""


def misfit_vectors(
    size: float, noise: float, rows: Rows, runs: Mapping[str, FloatArray], points: Mapping[str, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """The error at runs (X, r) and at points (k, r), over r unknowns of variance 1 that the rows leave open.

    `size` is the standard deviation of the error where no row is near, and `noise` that between seeds, both in the
    space of the residuals. Errors at places that do not differ are one and the same.
    """
    names = [n for n in sorted(rows.columns) if n in runs and n in points]
    if not names:
        return np.zeros((_length(runs), 0)), np.zeros((_length(points), 0))
    tables = [
        np.stack([np.asarray(t[n], dtype=np.float64) for n in names], axis=1) for t in (rows.columns, runs, points)
    ]
    table = np.concatenate(tables)
    positive = (table > 0).all(axis=0)
    spread = np.maximum(np.ptp(tables[0], axis=0), 1e-300)
    place = np.where(positive, np.log10(np.where(positive, table, 1.0)), table / spread) / REACH
    seen = len(rows)
    covariance = _covariance(size, place[:seen], place)
    noisy = covariance[:, :seen] + np.diag(noise**2 / np.maximum(rows.weight, 1e-12))
    known = np.linalg.solve(np.linalg.cholesky(noisy), covariance)
    vectors = _root(size, place, known)
    return vectors[seen : seen + len(tables[1])], vectors[seen + len(tables[1]) :]


def _covariance(size: float, one: FloatArray, other: FloatArray) -> FloatArray:
    square = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2.0 * one @ other.T
    return np.asarray(size**2 * np.exp(-0.5 * np.maximum(square, 0.0)))


def _root(size: float, place: FloatArray, known: FloatArray) -> FloatArray:
    """(n, r): a root of the covariance that is left, by pivoted Cholesky (Harbrecht, Peters and Schneider 2012)."""
    left = size**2 - (known**2).sum(axis=0)
    found: list[FloatArray] = []
    for _ in range(RANK):
        pivot = int(np.argmax(left))
        if left[pivot] <= KEPT * size**2:
            break
        column = _covariance(size, place, place[pivot : pivot + 1])[:, 0] - known.T @ known[:, pivot]
        for other in found:
            column = column - other * other[pivot]
        found.append(column / np.sqrt(left[pivot]))
        left = left - found[-1] ** 2
    return np.stack(found, axis=1) if found else np.zeros((len(place), 0))


def _length(columns: Mapping[str, FloatArray]) -> int:
    return len(next(iter(columns.values())))
