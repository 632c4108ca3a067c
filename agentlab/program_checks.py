"""Whether a program is a law: a row's answer is its own, the same when asked again, and holds where it will be used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agentlab.envs._pool import Pool
from agentlab.program_talk import Params, Program, inputs, loaded
from agentlab.program_text import ProgramError
from agentlab.selection import Problem
from agentlab.types import BoolArray, FloatArray, Rows

STEP = 1e-3
"""Share by which a feature grows where the law must rise or fall with it."""
SAME, NEAR = 1e-7, 1e-9
"""Relative distance of two answers that are one, and distance by the largest: sums are rounded in another order."""


async def check_answers(
    program: Program, judge: Problem, rows: Rows, params: Params, values: dict[str, FloatArray], *, every: bool
) -> tuple[str, ...]:
    """Ask `law` again, for every other row, last first, beside the points of the extrapolation box.

    Returns the constraints that it breaks in the box, as selection.violations names them; `every` group and target is
    asked, otherwise only the largest group, for one target. Raises ProgramError where a row gets another answer now.
    """
    names = [v.name for v in judge.task.features if v.monotone] if every else []
    box = [judge.box, *(judge.box | {name: _grown(judge.box[name])} for name in names)]
    company = np.vstack([inputs(points, judge.task) for points in box])
    broken: set[str] = set()
    for group in sorted(rows.groups, key=lambda g: -int(np.sum(rows.group == g))):
        here = rows.group == group
        X = inputs(rows.take(here).columns, judge.task)
        for target in judge.task.targets:
            told = await _told_again(program, X, params[group, target], values[target][here], company)
            if not every:
                return ()
            broken |= _broken(judge, target, np.split(told, len(box)))
    return tuple(sorted(broken))


async def check_fit(text: str, judge: Problem, params: Params, pool: Pool, seconds: float) -> None:
    """Raise ProgramError where `fit` gives the parameters that it gave for every row for quite other targets, too."""
    group = judge.rows.groups[0]
    rows = judge.rows.take(judge.rows.group == group)
    others = {t: 1.5 * y[::-1] + 0.25 * (float(np.abs(y).max()) or 1.0) for t, y in rows.targets.items()}
    async with loaded(text, judge.task, pool, seconds) as program:
        try:
            again = await program.fit(replace(rows, targets=others))
        except ProgramError:
            return  # it listened
    if all(np.array_equal(values, params[key]) for key, values in again.items()):
        raise ProgramError("fit gives the same numbers whatever y is; constants are fitted, not written")


async def _told_again(
    program: Program, X: FloatArray, params: FloatArray, y: FloatArray, company: FloatArray
) -> FloatArray:
    """The answers at the company; raises ProgramError where those at the rows are not y any more."""
    order = np.arange(len(X))[::-2]
    told = await program.law(np.vstack([X[order], company]), params, finite=False)
    if not np.all(_same(told[: len(order)], y[order])):
        if not np.all(_same(await program.law(X, params, finite=False), y)):
            raise ProgramError("law gives two answers to one question; it has no randomness and no state")
        raise ProgramError("law's answer at a row depends on the other rows")
    return told[len(order) :]


def _same(one: FloatArray, other: FloatArray) -> BoolArray:
    with np.errstate(all="ignore"):
        near: BoolArray = np.abs(one - other) <= SAME * np.abs(other) + NEAR * np.abs(other).max()
    return near


def _grown(values: FloatArray) -> FloatArray:
    return values + STEP * np.abs(values)


def _broken(judge: Problem, target: str, told: list[FloatArray]) -> set[str]:
    """The constraints broken by answers in the box, and in the box with each monotone feature grown a little."""
    values, *grown = told
    low, high = judge.limits[target]
    broken = set()
    if not np.all(np.isfinite(values)):
        broken.add("finite")
    elif np.any(values <= low) or np.any(values > high):
        broken.add("bounded")
    scale = float(np.nanmax(np.abs(values), initial=1e-300))
    monotone = [v for v in judge.task.features if v.monotone]
    for variable, further in zip(monotone, grown, strict=True):
        with np.errstate(all="ignore"):
            slope = (further - values) / STEP * (1.0 if variable.monotone == "+" else -1.0)
        if np.any(~(slope >= -1e-9 * scale)):
            broken.add(f"monotone {variable.name}")
    return broken
