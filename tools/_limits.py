"""Limits of formulas: found by algebra and confirmed by values far out, or seen in these alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np
from agentlab.tools._algebra_records import Limit
from agentlab.tools._derived import names_of, request
from agentlab.tools._points import Points, drawn, values
from agentlab.tools._symbolic import SymbolicError, ask

from agentlab.law import Law, parse
from agentlab.types import BoolArray, FloatArray

Place = Literal["0", "inf"]
PLACES: tuple[Place, ...] = ("0", "inf")

TAIL = 10.0 ** np.array([3, 6, 12, 24, 48, 96, 150])
"""How far a variable goes toward infinity, or its inverse toward 0."""

FAR = 3
"""The place in TAIL from which on values tell of the limit."""

ENOUGH = 0.85
"""Share of the draws that must agree with a limit; a few approach theirs too slowly to tell."""

LEAST = 8
"""Draws with finite values below which nothing is said."""


async def limit_of(law: Law, signs: Mapping[str, str], name: str, to: Place, seconds: float) -> Limit:
    """One limit: by algebra where values far out confirm it, else what those values say."""
    formula, reason = "", "no time was left"
    try:
        if seconds > 0:
            found = await ask(request("limit", law, signs, by=name, to=to), seconds)
            formula, reason = found.formula, found.reason
    except SymbolicError as error:
        reason = str(error)
    points = drawn(names_of(law), signs)
    seen = tails(law, points, name, to)
    if formula:
        place = np.full(len(seen), float(formula)) if formula in ("inf", "-inf") else None
        at = place if place is not None else values(parse(formula, law.variables), points)
        if confirmed(seen, at):
            return Limit(variable=name, to=to, limit=formula, how="symbolic")
        reason = f"algebra gives {formula}, which does not hold at all drawn parameters"
    ways = tendencies(seen)
    only = next(iter(ways)) if len(ways) == 1 else ""
    if only in ("inf", "-inf", "0"):
        return Limit(variable=name, to=to, limit=only, how="points", note=reason)
    counted = ", ".join(f"{way} {n}" for way, n in ways.items())
    return Limit(variable=name, to=to, limit="", how="open", note=f"{reason}; at drawn points: {counted}")


def tails(law: Law, points: Points, variable: str, to: str) -> FloatArray:
    """The law (draws, TAIL) as the variable goes to "inf" or "0", all other names as drawn."""
    columns = []
    for far in TAIL if to == "inf" else 1.0 / TAIL:
        moved = dict(points)
        moved[variable] = np.full(len(points[variable]), far)
        columns.append(values(law, moved))
    return np.stack(columns, axis=1)


def confirmed(seen: FloatArray, limit: FloatArray) -> bool:
    """Whether values (draws, TAIL) go to the limits (draws,), which may be infinite, in nearly all draws that tell."""
    told = ~np.isnan(seen[:, FAR]) & ~np.isnan(limit)
    if np.count_nonzero(told) < LEAST:
        return False
    with np.errstate(all="ignore"):
        fits = np.where(np.isinf(limit), _grows(seen, np.sign(limit)), _closes(seen, limit))
    return float(np.mean(fits[told])) >= ENOUGH


def _last(seen: FloatArray) -> FloatArray:
    """The last value of each draw that is a number."""
    known = ~np.isnan(seen)
    at = seen.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.asarray(seen[np.arange(len(seen)), at])


def _grows(seen: FloatArray, sign: FloatArray) -> BoolArray:
    last = _last(seen) * sign
    return np.asarray(np.isposinf(last) | (last > 2.0 * np.abs(seen[:, FAR])))


def _closes(seen: FloatArray, limit: FloatArray) -> BoolArray:
    error = np.abs(seen - limit[:, None])
    near = np.nanmin(np.where(np.isnan(error), np.inf, error)[:, 1:], axis=1) <= 1e-5 * (1e-3 + np.abs(limit))
    return np.asarray(near | (_last(error) < 0.5 * error[:, FAR]))


def tendencies(seen: FloatArray) -> dict[str, int]:
    """How many draws go to "inf", "-inf", "0", to another "finite" value, or are "unclear"."""
    with np.errstate(all="ignore"):
        last, middle = _last(seen), seen[:, FAR]
        still = np.abs(last - middle) <= 1e-3 * np.abs(last)
        up, down = _grows(seen, np.ones(len(seen))), _grows(seen, -np.ones(len(seen)))
        gone = np.abs(last) < 0.5 * np.abs(middle)
    words = np.select(
        [up, down, still & (last != 0), gone | (last == 0)], ["inf", "-inf", "finite", "0"], default="unclear"
    )
    return dict(sorted(Counter(words.tolist()).items()))
