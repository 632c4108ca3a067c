"""How noisy the rows are: the residual scale that no smooth law can go below."""

from __future__ import annotations

import math

import numpy as np

from agentlab.types import FloatArray, Rows, Task


def estimate_noise(task: Task, rows: Rows, target: str) -> float:
    """The residual scale of one target, in the space of the residuals (log or plain).

    From replicates (rows of one group with equal features) where they leave five degrees of freedom, else from a
    second-order polynomial in the (log) features, an upper bound for smooth laws.
    """
    y = np.log(rows.targets[target]) if task.residual == "log" else rows.targets[target]
    x = np.column_stack([_scaled(task, rows, name) for name in task.names])
    _, cell = np.unique(
        np.column_stack([x, np.unique(rows.group, return_inverse=True)[1]]), axis=0, return_inverse=True
    )
    counts = np.bincount(cell)
    freedom = int(np.sum(counts - 1))
    floor = 1e-9 * max(float(np.std(y)), 1e-12)
    if freedom >= 5:
        centre = np.bincount(cell, weights=y) / counts
        return max(math.sqrt(float(np.sum((y - centre[cell]) ** 2)) / freedom), floor)
    residual = np.concatenate([_quadratic_residual(x[rows.group == g], y[rows.group == g]) for g in rows.groups])
    return max(float(1.4826 * np.median(np.abs(residual))), floor)


def _scaled(task: Task, rows: Rows, name: str) -> FloatArray:
    column = rows.columns[name]
    log = next(v.log for v in task.features if v.name == name)
    return np.log(column) if log and float(column.min()) > 0 else column


def _quadratic_residual(x: FloatArray, y: FloatArray) -> FloatArray:
    """Residuals of a second-order polynomial, or of the mean where rows are few, inflated for lost freedom."""
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    design = [np.ones(len(y))]
    columns = [z[:, i] for i in range(z.shape[1])]
    columns += [z[:, i] * z[:, j] for i in range(z.shape[1]) for j in range(i, z.shape[1])]
    for column in columns:
        if len(design) < len(y) // 3:
            design.append(column)
    basis = np.column_stack(design)
    residual = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
    return np.asarray(residual * math.sqrt(len(y) / max(len(y) - basis.shape[1], 1)))
