"""A law as a Python program, `fit(X, y)` and `law(X, params)`: run in a sandbox, believed only in what it predicts.

X is [n, d], the task's features in their order; y is [n]; params is [k], k at most the task's cap, fitted for every
group and target. The program sees inner splits only. Two rules make cheating pointless:

- `law` runs in a sandbox that never saw a target and is sent only what `law` needs of the text, all of which is
  counted: all that passes from the fit is k numbers;
- neither happens in a sandbox that was sent the target of a row which the fit is to be judged on, or numbers that a
  fit made of it.

A third keeps it a law: what it says of a row must not depend on other rows, on chance or on what it was asked before.
What comes back is bytes of float64: no object of the program's ever exists in this process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentlab.envs._pool import Pool
from agentlab.metrics import digits
from agentlab.program_checks import check_answers, check_fit
from agentlab.program_talk import HELLO, Params, law_alone, loaded, programs
from agentlab.program_text import ProgramError, complexity
from agentlab.selection import (
    VIOLATION_COST,
    VOCABULARY,
    Problem,
    hidden_errors,
    objective_of,
    shown_cuts,
    supported,
)
from agentlab.types import BoolArray, FloatArray, GroupParams, Outcome, Rows, Task

__all__ = [
    "HELLO",
    "Predicted",
    "Split",
    "judge_program",
    "named",
    "predict_rows",
    "predict_splits",
    "programs",
    "sessions",
]

SECONDS = 30.0
"""What one request to a program may take."""


@dataclass(frozen=True)
class Split:
    """Rows to fit on and rows to predict, as masks; `test` hides its targets from the fit, None hides nothing."""

    train: BoolArray
    test: BoolArray | None


@dataclass(frozen=True)
class Predicted:
    """A program's parameters from a split's training rows, and its predictions [m] by target at the rows asked for.

    `broken` are the constraints that it breaks in the extrapolation box, where the split hides nothing.
    """

    params: Params
    values: dict[str, FloatArray]
    broken: tuple[str, ...] = ()


async def judge_program(
    text: str, judge: Problem, pool: Pool, *, final: bool = False, seconds: float = SECONDS
) -> Outcome:
    """The outcome of a program as a candidate: description length, errors beyond the cuts, parameters p0, p1, ..

    A program that breaks a rule, hangs or answers nonsense is rejected with its reason. Raises SandboxError where no
    sandbox can be had.
    """
    refused = Outcome("rejected")
    try:
        nodes = complexity(text)
        refused = replace(refused, complexity=nodes)
        cuts = judge.final_cuts if final else judge.cuts
        shown = shown_cuts(cuts)
        splits = [Split(c.train, c.test) for c in cuts]
        everything = np.ones(len(judge.rows), dtype=bool)
        *parts, whole = await predict_splits(text, judge, [*splits, Split(everything, None)], pool, seconds)
        if all(np.array_equal(v, whole.params[key]) for part in parts for key, v in part.params.items()):
            await check_fit(text, judge, whole.params, pool, seconds)  # no noise in the rows, or no fit
    except ProgramError as error:
        return replace(refused, reason=f"program: {error}")
    size = sum(len(p) for p in whole.params.values())
    counted = supported(cuts, size / len(judge.task.targets))
    n = len(judge.rows) * len(judge.task.targets)
    form = 0.5 * size * math.log(n) + nodes * math.log(VOCABULARY)
    within = hidden_errors(judge, judge.rows, whole.values)
    beyond = [(judge.rows.take(c.test), p.values) for c, p in zip(cuts, parts, strict=True)]
    errors = tuple(hidden_errors(judge, *one) for c, one in zip(cuts, beyond, strict=True) if c in counted)
    objective = objective_of(judge, form, within, errors, counted) + VIOLATION_COST * n * len(whole.broken)
    dev = judge.score([one for c, one in zip(cuts, beyond, strict=True) if c in shown])
    if not math.isfinite(objective) or not math.isfinite(dev.mae):
        return replace(refused, reason="not finite beyond a cut")
    return replace(
        refused, status="ok", objective=objective, mdl=form + 0.5 * len(judge.rows) * within, n_params=size, dev=dev,
        cuts=errors, violations=whole.broken, params=named(whole.params),
    )  # fmt: skip


async def predict_splits(
    text: str, judge: Problem, splits: Sequence[Split], pool: Pool, seconds: float = SECONDS
) -> list[Predicted]:
    """What the program predicts for each split: at its test rows, or at its own training rows where it hides none.

    Every split costs one question more, by which a law is found out that looks at other rows (program_checks).
    Raises ProgramError with the program's fault, SandboxError where no sandbox can be had.
    """
    alone = law_alone(text)
    found: dict[int, Predicted] = {}
    for session in sessions(splits):
        async with loaded(text, judge.task, pool, seconds) as program:
            fits = {i: await program.fit(judge.rows.take(splits[i].train)) for i in session}
        async with loaded(alone, judge.task, pool, seconds) as program:
            for i in session:
                train, test = splits[i].train, splits[i].test
                at = judge.rows.take(train if test is None else test)
                values = await program.predict(at, fits[i])
                broken = await check_answers(program, judge, at, fits[i], values, every=test is None)
                found[i] = Predicted(fits[i], values, broken)
    return [found[i] for i in range(len(splits))]


def sessions(splits: Sequence[Split]) -> list[list[int]]:
    """The splits in groups, each for a sandbox of its own, in the order in which they are fitted there.

    No fit is asked for after its sandbox was sent the target of a row that the fit is judged on. Nested cuts along a
    scale make one group, k folds make k.
    """
    groups: list[tuple[list[int], BoolArray]] = []
    for index in sorted(range(len(splits)), key=lambda i: int(splits[i].train.sum())):
        split = splits[index]
        for members, seen in groups:
            if split.test is None or not np.any(seen & split.test):
                members.append(index)
                np.logical_or(seen, split.train, out=seen)
                break
        else:
            groups.append(([index], split.train.copy()))
    return [members for members, _ in groups]


def named(params: Params) -> dict[str, dict[str, dict[str, float]]]:
    """Parameters by group, target and name (p0, p1, ..), at ten significant digits."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (group, target), values in params.items():
        found.setdefault(group, {})[target] = {f"p{i}": digits(float(v)) for i, v in enumerate(values)}
    return found


async def predict_rows(
    text: str, task: Task, rows: Rows, params: GroupParams, pool: Pool, seconds: float = SECONDS
) -> dict[str, FloatArray]:
    """Predictions [n] by target of the program with parameters as `named` gives them; nan for groups without any.

    Only `law` runs, in a sandbox that is sent the features of the rows and the parameters: no target.
    Raises ProgramError with the program's fault, SandboxError where no sandbox can be had.
    """
    found = {target: np.full(len(rows), np.nan) for target in task.targets}
    known = np.isin(rows.group, list(params))
    if np.any(known):
        async with loaded(law_alone(text), task, pool, seconds) as program:
            predicted = await program.predict(rows.take(known), _numbered(params))
        for target, values in predicted.items():
            found[target][known] = values
    return found


def _numbered(params: GroupParams) -> Params:
    """Parameters as `named` gives them, as arrays again."""
    return {
        (group, target): np.array([values[f"p{i}"] for i in range(len(values))])
        for group, targets in params.items()
        for target, values in targets.items()
    }
