"""Whether a law has learned its rows by heart: constants in its text, other rows, units, and a twin of the task."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from agentlab.fitting import FitOptions, GroupFit, fit_rows
from agentlab.law import Law, Num, parse
from agentlab.law_tree import walk
from agentlab.leaderboard_records import RefusedError
from agentlab.metrics import residuals
from agentlab.program_text import parsed
from agentlab.selection import fit_options
from agentlab.types import FloatArray, IntArray, Rows, Task

PRECISE = 3
"""Significant digits from which a number in a formula was fitted somewhere, and counts as a parameter."""

ODD = 2
"""Numbers in a formula that are no small whole numbers, for each parameter that the task allows."""

TIMES, LITTLE = 5.0, 0.9
"""On a twin a law may miss this many times as much as on the rows, or leave less than a tenth unexplained."""

TWINS, STRAY = 5, 1
"""Twins that are made, and how many of them a law may miss: constants are not always moved far."""

UNITS = 1000.0
"""The factor of another unit, and the span from which a feature without a unit counts something."""

TRIES = 20


def check_constants(law: Law, task: Task) -> None:
    """Raise RefusedError where the formula holds more numbers than a law needs: a table is no law."""
    numbers = {abs(n.value) for n in walk(law.tree) if isinstance(n, Num)}
    fitted = sum(_digits(v) > PRECISE for v in numbers)
    odd = sum(not _plain(v) for v in numbers)
    if law.n_params + fitted > task.max_params or odd > ODD * task.max_params:
        raise RefusedError(
            "memorised constants", f"{law.n_params} parameters and {max(fitted, odd)} numbers in the formula; "
            f"the task allows {task.max_params}"
        )  # fmt: skip


def check_program_constants(text: str, task: Task) -> None:
    """The same for a program: numbers written into it, and texts long enough to hold a table."""
    tree = parsed(text)
    told = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    numbers = {abs(v) for v in told if isinstance(v, int | float) and not isinstance(v, bool)}
    odd = sum(not _plain(float(v)) for v in numbers)
    long = max((len(v) for v in told if isinstance(v, str | bytes)), default=0)
    docs = {ast.get_docstring(n, clean=False) for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.Module)}
    texts = [v for v in told if isinstance(v, str) and v not in docs and len(v) > 80]
    if odd > ODD * task.max_params + 8 or texts or (long > 80 and any(isinstance(v, bytes) for v in told)):
        raise RefusedError("memorised constants", f"{odd} numbers and {len(texts)} long texts in the program")


def _plain(value: float) -> bool:
    """Small whole numbers and their halves, and powers of ten: what a law is written with."""
    return (value <= 12 and (2 * value).is_integer()) or _digits(value) == 1


def _digits(value: float) -> int:
    """Significant digits of a number as it is written."""
    return len(re.sub(r"e.*|[^0-9]", "", repr(float(value))).strip("0")) or 1


def arrangements(n: int) -> list[IntArray]:
    """Other ways to ask for n points: last first, and every other one alone."""
    return [np.arange(n)[::-1], np.arange(0, n, 2)]


def check_alone(predicted: Mapping[str, FloatArray], again: Mapping[str, FloatArray], index: IntArray) -> None:
    """Raise RefusedError where the points at `index`, asked for by themselves, got other predictions than among all."""
    for target, values in predicted.items():
        if not np.allclose(again[target], values[index], rtol=1e-7, atol=0.0, equal_nan=True):
            raise RefusedError("depends on other rows", f"{target} at a point changes with the points beside it")


def spread(predicted: FloatArray, y: FloatArray, task: Task) -> float:
    """The scale of the residuals, by their median: stray rows do not count."""
    size = np.abs(residuals(predicted, y, log=task.residual == "log"))
    return float(1.4826 * np.median(np.where(np.isfinite(size), size, np.inf)))


def check_twin(law: Law, fit: GroupFit, task: Task, rows: Rows, seed: int) -> None:
    """Raise RefusedError where the law fits the rows, and not their twins: rows of the reference with other constants.

    A law holds for what it is a law of; a text that holds these very rows does not. Without a reference nothing is
    checked.
    """
    missed = [text for i in range(TWINS) if (text := _missed(law, fit, task, rows, seed + i))]
    if len(missed) > STRAY:
        raise RefusedError("memorised", f"{missed[0]}; so on {len(missed)} of {TWINS} twins")


def _missed(law: Law, fit: GroupFit, task: Task, rows: Rows, seed: int) -> str:
    """How the law misses one twin, in words; "" where it does not."""
    made = twin_of(task, rows, seed)
    if made is None:
        return ""
    twin, known = made
    other = fit_rows(law, twin, replace(fit_options(task, 6, seed), thorough=False), warm=fit)
    if not other.ok:
        return f"the law does not fit a twin of the task: {other.reason}"
    here, there = fit.predict(law, rows), other.predict(law, twin)
    for target, y in twin.targets.items():
        noise = spread(known[target], y, task)
        before = max(spread(here[target], rows.targets[target], task), noise)
        after, whole = spread(there[target], y, task), spread(np.full(len(y), np.median(y)), y, task)
        if not after <= max(TIMES * before, (1 - LITTLE) * whole):
            return (
                f"the law misses {target} by {before:.2g} on the rows, and by {after:.2g} on a twin of the task, whose "
                "law has other constants"
            )
    return ""


def twin_of(task: Task, rows: Rows, seed: int) -> tuple[Rows, dict[str, FloatArray]] | None:
    """Rows like the task's whose law is known, and what that law says; None where the task names no law.

    The reference law is fitted to the rows, its constants are moved by up to a fifth, and noise as the rows have it
    is added.
    """
    if task.reference is None:
        return None
    known = parse(task.reference.formula, task.names)
    fit = fit_rows(known, rows, replace(fit_options(task, 12), thorough=False))
    if not fit.ok:
        return None
    rng, own = np.random.default_rng([seed, len(rows)]), fit.predict(known, rows)
    for _ in range(TRIES):
        moved = {
            g: {t: {p: v * np.exp(rng.uniform(-0.2, 0.2)) for p, v in named.items()} for t, named in targets.items()}
            for g, targets in fit.params.items()
        }
        true = known.predict(rows.columns, rows.group, moved)
        log = task.residual == "log"
        if all(np.all(np.isfinite(v)) and np.ptp(v) > 0 and (not log or np.all(v > 0)) for v in true.values()):
            break
    else:
        return None
    noisy: dict[str, FloatArray] = {}
    for target, values in true.items():
        error = spread(own[target], rows.targets[target], task) * rng.standard_normal(len(rows))
        noisy[target] = values * np.exp(error) if log else values + error
    return replace(rows, targets=noisy), true


def depends_on_units(law: Law, fit: GroupFit, task: Task, rows: Rows, options: FitOptions) -> str:
    """Why the law holds in one unit only: refitted to features in another unit, it misses more; "" where it does not.

    Features with a unit are looked at, and where none has one, those that span a factor of UNITS.
    """
    named = [v.name for v in task.features if v.unit not in ("", "1") and v.name in law.used]
    if not any(v.unit for v in task.features):
        named = [v.name for v in task.features if v.name in law.used and _spans(rows.columns[v.name])]
    if not named or options.bounds:
        return ""
    columns = {k: v / UNITS if k in named else v for k, v in rows.columns.items()}
    other = replace(rows, columns=columns)
    again = fit_rows(law, other, replace(options, starts=24, thorough=False))
    here, there = fit.predict(law, rows), again.predict(law, other) if again.ok else {}
    for target, y in rows.targets.items():
        before = spread(here[target], y, task)
        after = spread(there[target], y, task) if again.ok else np.inf
        if not after <= 2.0 * before + 1e-9 * float(np.max(np.abs(y))):
            return f"in other units of {', '.join(named)} it misses {target} by {after:.2g}, not {before:.2g}"
    return ""


def _spans(values: FloatArray) -> bool:
    return bool(values.min() > 0 and values.max() >= UNITS * values.min())
