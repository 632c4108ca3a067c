"""What the residuals of a law ask for: the blocks that would explain most of them.

A block b(x) added to a fitted law with a small coefficient lowers the squared residuals by (b . r)^2 / (b . b), where b
and the residuals r are first freed of what the law's own parameters can do (their projections onto the columns of its
Jacobian): Rao's score test (1948), with one degree of freedom a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from agentlab.fitting import GroupFit
from agentlab.law import Law
from agentlab.metrics import residuals
from agentlab.types import FloatArray, Rows, Task, Variable

COUNT = 3
"""Blocks named at most."""

LEAST = 3.0
"""Nats that a block must promise, its coefficient paid for."""

ROWS = 400
"""Rows looked at; more are thinned out evenly."""

FITS = 12
"""Fits (groups x targets) looked at."""

POWERS = (-0.7, -0.3, 0.3, 0.7)
"""Exponents that stand for a free one, of a variable divided by its geometric mean."""

STRAY = 4.0
"""Median absolute residuals beyond which a residual counts no more."""

Block = tuple[str, FloatArray]
"""A block as text, with its free parameters, and one column (n,) that stands for it."""


def asked_for(law: Law, fit: GroupFit, task: Task, rows: Rows) -> tuple[str, ...]:
    """The blocks that promise most, as text with free parameters a and b; best first, none that promises little."""
    with np.errstate(all="ignore"):
        return _ranked(law, fit, task, rows)


def _ranked(law: Law, fit: GroupFit, task: Task, rows: Rows) -> tuple[str, ...]:
    promised: dict[str, float] = {}
    for (group, target), one in list(fit.fits.items())[:FITS]:
        mine = np.flatnonzero(rows.group == group)
        some = rows.take(mine[:: max(len(mine) // ROWS, 1)])
        found = _residuals(law, one.params, some, some.targets[target], log=task.residual == "log")
        if found is None:
            continue
        best: dict[str, float] = {}
        for text, column in _blocks(task.features, some):
            best[text] = max(best.get(text, -np.inf), _promise(column, *found))
        for text, gain in best.items():
            promised[text] = promised.get(text, 0.0) + gain
    ranked = sorted((-gain, text) for text, gain in promised.items() if gain > LEAST)
    return tuple(text for _, text in ranked[:COUNT])


def _residuals(
    law: Law, params: FloatArray, rows: Rows, y: FloatArray, *, log: bool
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Residuals (n,) freed of the law's tangent space, its orthonormal basis (n, k), and d residual / d prediction."""
    value, jacobian = law.value_and_jacobian(rows.columns, params)
    slope = 1.0 / value if log else np.ones(len(y))
    residual = residuals(value, y, log=log)
    tangent = jacobian * slope[:, None]
    tangent = tangent / np.linalg.norm(tangent, axis=0)
    tangent = tangent[:, np.isfinite(tangent).all(axis=0)]
    if not np.isfinite(residual).all() or not np.isfinite(slope).all() or len(y) <= tangent.shape[1] + 1:
        return None
    u, s, _ = np.linalg.svd(tangent, full_matrices=False)
    basis = u[:, s > 1e-9 * s.max(initial=0.0)]
    limit = STRAY * float(np.median(np.abs(residual)))
    tempered = np.clip(residual, -limit, limit)
    return tempered - basis @ (basis.T @ tempered), basis, slope


def _promise(column: FloatArray, residual: FloatArray, basis: FloatArray, slope: FloatArray) -> float:
    """Nats by which the block's column would shorten the description of the residuals, one coefficient paid for."""
    block = column * slope
    free = block - basis @ (basis.T @ block)
    left, size = float(free @ free), float(block @ block)
    total = float(residual @ residual)
    if not np.isfinite(size) or left <= 1e-8 * size or total <= 0:
        return 0.0
    share = min(float(free @ residual) ** 2 / (left * total), 1 - 1e-12)
    if not share >= 0:
        return 0.0
    return -0.5 * len(residual) * float(np.log1p(-share)) - 0.5 * float(np.log(len(residual)))


def _blocks(variables: tuple[Variable, ...], rows: Rows) -> Iterator[Block]:
    """Powers, logarithms and products of scales; lines, squares and exponentials of other variables."""
    scales: dict[str, FloatArray] = {}
    for variable in variables:
        x = rows.columns[variable.name]
        if variable.log and float(x.min()) > 0:
            scales[variable.name] = np.log(x) - float(np.mean(np.log(x)))
        else:
            yield variable.name, x
            yield f"{variable.name}**2", x**2
            yield from ((f"exp(a*{variable.name})", np.exp(k * x)) for k in (-2.0, 2.0) if float(np.abs(x).max()) < 20)
    for name, z in scales.items():
        yield f"log({name})", z
        yield f"log({name})**2", z**2
        yield from ((f"{name}**a", np.exp(p * z)) for p in POWERS)
    for (name, z), (other, w) in combinations(scales.items(), 2):
        yield f"log({name})*log({other})", z * w
        yield from ((f"{name}**a*{other}**b", np.exp(p * z + q * w)) for p in POWERS[::2] for q in POWERS[::2])
        yield from ((f"{name}**a*{other}**b", np.exp(p * z + q * w)) for p in POWERS[1::2] for q in POWERS[1::2])
