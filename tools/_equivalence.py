"""Whether two laws say the same: by their keys, by their values, or because each can take the other's values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from agentlab.tools._points import agreement, drawn, values

from agentlab.fitting import FitOptions, fit
from agentlab.law import Law

ROWS = 60
SETS = 3
"""Rows that are fitted, and sets of parameters whose values they are."""

STARTS = 24

SAME = 1e-5
"""Root mean square error of a refit, over the spread of the values, below which they are met."""

Verdict = Literal["same law", "same function", "each fits the other", "left fits right", "right fits left", "different"]


@dataclass(frozen=True)
class Equal:
    """The verdict, what decided it, and how far the worse refit was off (None where none was made)."""

    verdict: Verdict
    how: Literal["key", "points", "fit"]
    points: int = 0
    error: float | None = None
    note: str = ""


def compared(left: Law, right: Law, signs: Mapping[str, str]) -> Equal:
    """Compare two laws over the same variables.

    A fit that fails proves nothing: "different" says that no refit met the other's values.
    """
    if set(left.params) == set(right.params):
        points = drawn((*left.used, *right.used, *left.params), signs)
        equal, told = agreement(values(left, points), values(right, points))
        if equal == told > 0:
            note = "and the same law by its key" if left.key == right.key else ""
            return Equal("same function", "points", told, note=note)
    if left.key == right.key:
        return Equal(
            "same law", "key", note="the same family of functions; parameters may be named or scaled otherwise"
        )
    onto_left, onto_right = _misfit(right, left, signs), _misfit(left, right, signs)
    verdict: Verdict = "different"
    if onto_left <= SAME and onto_right <= SAME:
        verdict = "each fits the other"
    elif onto_left <= SAME:
        verdict = "right fits left"
    elif onto_right <= SAME:
        verdict = "left fits right"
    worst = max(onto_left, onto_right)
    return Equal(verdict, "fit", ROWS * SETS, worst if math.isfinite(worst) else None, "seen in refits, not proven")


def _misfit(law: Law, truth: Law, signs: Mapping[str, str]) -> float:
    """The largest relative error with which `law` takes the values of `truth`, over drawn parameters; inf for none."""
    worst, sets = 0.0, 0
    for seed in range(2 * SETS):
        points = drawn((*law.used, *truth.used, *truth.params), signs, seed=seed, count=ROWS)
        fixed = {name: np.full(ROWS, points[name][0]) for name in truth.params}
        y = values(truth, {**points, **fixed})
        spread = float(np.std(y)) if np.isfinite(y).all() else 0.0
        if not spread > 0:
            continue
        columns = {name: points[name] for name in law.used}
        found = fit(law, columns, y, options=FitOptions(starts=STARTS, seed=seed))
        worst = max(worst, math.sqrt(found.rss / ROWS) / spread if found.ok else math.inf)
        sets += 1
        if sets == SETS or worst > SAME:
            break
    return worst if sets else math.inf
