"""The figures of a run: how the search went, how the law fits, what its residuals show, how it does beyond the fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentlab.replay import Run
from agentlab.replay_law import FoundLaw, Hidden
from agentlab.replay_svg import Axis, Figure, Series
from agentlab.selection_cuts import SCALE
from agentlab.types import FloatArray

MOST_SERIES = 6


def progress(run: Run) -> Figure | None:
    """The objective of the best law so far, by candidate; None without any."""
    steps = run.best_so_far()
    if not steps:
        return None
    at = np.array([*(float(i) for i, _ in steps), float(len(run.entries) - 1)])
    best = np.array([*(o for _, o in steps), steps[-1][1]])
    # From the first good law on: the worst ones would flatten all that follows.
    good = best <= best[-1] + max(20.0, 3 * abs(float(np.median(best) - best[-1])))
    series = Series("", at[good], best[good], line=True, step=True)
    axes = (
        Axis.over("candidate", [at], log=False),
        Axis.over("objective of the best so far (nats)", [series.y], log=False),
    )
    return Figure("The search", *axes, [series], text=f"{len(steps)} laws were the best so far when they came")


def fit(law: FoundLaw) -> Figure:
    """Predicted against observed, every row that is not sealed, by (group, target)."""
    told = law.residuals()
    log = law.ground.task.residual == "log"
    series = [Series(name, told["observed"][m], told["predicted"][m]) for name, m in _parts(told)]
    ends = [told["observed"], told["predicted"]]
    axes = Axis.over("observed", ends, log=log), Axis.over("predicted", ends, log=log)
    return Figure(
        "Fit: predicted against observed", *axes, series, diagonal=True,
        text="every row that is not sealed; on the dashed line a prediction is exact",
    )  # fmt: skip


def residuals(law: FoundLaw) -> Figure:
    """Residuals against the scale, or against the prediction where the task has none."""
    told = law.residuals()
    scaled = "scale" in told and float(np.min(told["scale"])) > 0
    x, label = (told["scale"], f"scale {law.ground.task.scale}") if scaled else (told["predicted"], "predicted")
    series = [Series(name, x[m], told["residual"][m]) for name, m in _parts(told)]
    unit = "log predicted - log observed" if law.ground.task.residual == "log" else "predicted - observed"
    axes = Axis.over(label, [x], log=scaled), Axis.over(unit, [told["residual"]], log=False)
    return Figure("Residuals", *axes, series, level=0.0, text="every row that is not sealed")


def _parts(told: dict[str, Any]) -> list[tuple[str, FloatArray]]:
    """Masks (n,) over the rows by (group, target), named where there are several."""
    pairs = list(dict.fromkeys(zip(told["group"].tolist(), told["target"].tolist(), strict=True)))
    if len(pairs) > MOST_SERIES:
        return [("", np.ones(len(told["group"]), dtype=bool))]
    several, targets = len(pairs) > 1, len({t for _, t in pairs}) > 1
    found = []
    for group, target in pairs:
        name = (f"{group}, {target}" if targets else group) if several else ""
        found.append((name, (told["group"] == group) & (told["target"] == target)))
    return found


def extrapolation(law: FoundLaw, hidden: tuple[Hidden, ...] | None = None) -> Figure:
    """Errors on rows hidden from the fit, one series a cut along the scale (or a fold), in %."""
    found = law.extrapolation() if hidden is None else hidden
    along = [h for h in found if h.axis == SCALE] or list(found)
    target = law.ground.task.targets[0]
    scaled = all(h.scale is not None and float(h.scale.min()) > 0 for h in along)
    series = []
    for h in along[:MOST_SERIES]:
        with np.errstate(all="ignore"):
            error = 100.0 * (h.predicted[target] / h.observed[target] - 1.0)
        x = h.scale if scaled and h.scale is not None else h.observed[target]
        series.append(Series(f"fitted on {h.train} rows below", np.asarray(x), error))
    label = f"scale {law.ground.task.scale}" if scaled else f"observed {target}"
    axes = Axis.over(label, [s.x for s in series], log=scaled), Axis.over("error (%)", [s.y for s in series], log=False)
    return Figure(
        "Extrapolation: errors on rows beyond the fit", *axes, series, level=0.0,
        text=f"{target}: the law fitted below each cut and judged on the rows above it",
    )  # fmt: skip
