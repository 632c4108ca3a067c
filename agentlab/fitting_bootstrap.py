"""How far fitted parameters can be trusted: intervals by refitting training runs drawn again with replacement."""

from __future__ import annotations

import numpy as np

from agentlab.descent import Schedule, descend
from agentlab.fitting_records import Fit, FitOptions, GroupFit, Sample
from agentlab.law import Law
from agentlab.objective import Direct
from agentlab.search import limits_of
from agentlab.types import FloatArray, IntArray, Rows
from agentlab.varpro import Bound, Data

VALUES = 4_000_000
"""Values (draws x rows x parameters) that are in memory at once."""

TOLERANCE = 1e-7
"""Relative gain below which one draw is fitted: far below the spread between draws."""


def bootstrap(
    law: Law, rows: Rows, groupfit: GroupFit, *, draws: int = 500, seed: int = 0, options: FitOptions | None = None
) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """90% percentile intervals by group, target and parameter (Efron 1979), training runs resampled with replacement.

    Rows of one run stay together (`rows.run`); every draw starts at the fitted parameters. An interval is (nan, nan)
    where the fit failed, and (-inf, inf) where fewer than half of the draws could be fitted.
    """
    nested: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for (group, target), found in bootstrap_draws(law, rows, groupfit, draws=draws, seed=seed, options=options).items():
        one = groupfit.fits[group, target]
        nested.setdefault(group, {})[target] = dict(zip(law.params, _intervals(one, found, draws), strict=True))
    return nested


@np.errstate(all="ignore")
def bootstrap_draws(
    law: Law, rows: Rows, groupfit: GroupFit, *, draws: int = 500, seed: int = 0, options: FitOptions | None = None
) -> dict[tuple[str, str], FloatArray]:
    """The parameters (B, P) of every draw of `bootstrap` by (group, target), without draws that could not be fitted."""
    options = options or FitOptions()
    out: dict[tuple[str, str], FloatArray] = {}
    for order, ((group, target), one) in enumerate(groupfit.fits.items()):
        mine = rows.group == group
        sample = Sample({n: rows.columns[n][mine] for n in law.used}, rows.targets[target][mine], rows.weight[mine])
        counts = _resample(rows.run[mine], draws, np.random.default_rng([seed, order]))
        out[group, target] = _refitted(law, sample, one, counts, options)
    return out


def _resample(run: IntArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """(draws, n) how often each row is in each draw."""
    _, which = np.unique(run, return_inverse=True)
    total = int(which.max()) + 1
    return rng.multinomial(total, np.full(total, 1.0 / total), size=draws)[:, which].astype(np.float64)


def _intervals(one: Fit, theta: FloatArray, draws: int) -> list[tuple[float, float]]:
    if not one.ok:
        return [(float("nan"), float("nan"))] * len(one.names)
    if 2 * len(theta) < draws:
        return [(-np.inf, np.inf)] * len(one.names)
    return [(float(a), float(b)) for a, b in np.percentile(theta, [5.0, 95.0], axis=0).T]


def _refitted(law: Law, sample: Sample, one: Fit, counts: FloatArray, options: FitOptions) -> FloatArray:
    """(B, P): one descent a draw from the fitted parameters; `counts` (draws, n) say how often each row is drawn."""
    if not one.ok:
        return np.empty((0, law.n_params))
    draws, n = counts.shape
    limits, found = limits_of(law, options.bounds), []
    step = max(1, VALUES // (n * (law.n_params + 4)))
    for i in range(0, draws, step):
        part = counts[i : i + step] * sample.weight
        data = Data(sample.columns, np.broadcast_to(sample.y, part.shape), part)
        delta = np.full(len(part), one.delta)
        system = Direct.bind(Bound(law, data), options.residual == "log", options.robust, delta)
        theta = np.tile(one.params, (len(part), 1))
        found.append(descend(system, system.at(theta), limits, Schedule(options.max_steps, TOLERANCE)))
    theta = np.concatenate([f.theta for f in found])
    kept: FloatArray = theta[np.isfinite(np.concatenate([f.cost for f in found]))]
    return kept
