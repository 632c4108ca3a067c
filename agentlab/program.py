"""A law as a Python program, `fit(X, y)` and `law(X, params)`: run in a sandbox, believed only in what it predicts.

X is [n, d], the task's features in their order; y is [n]; params is [k], k at most the task's cap, fitted for every
group and target. The program sees inner splits only. Two rules make cheating pointless:

- `law` runs in a sandbox that never saw a target, without the text of `fit` and the comments, which are not counted:
  all that passes from the fit is k numbers;
- neither happens in a sandbox that was sent the target of a row which the fit is to be judged on, or numbers that a
  fit made of it.

What comes back is bytes of float64: no object of the program's ever exists in this process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agentlab.envs import STRICT, Limits, Talk
from agentlab.envs._choose import Choice, choose
from agentlab.envs._pool import Pool
from agentlab.metrics import digits
from agentlab.program_answers import array_of, printable, read_answer, sent
from agentlab.program_text import ProgramError, complexity, without_fit, written
from agentlab.selection import VOCABULARY, Problem, hidden_errors, objective_of, shown_cuts, supported
from agentlab.types import BoolArray, FloatArray, Outcome, Rows, Task

MOST_ANSWER = 1 << 20
"""Bytes of an answer, beside what its rows need: parsed JSON takes twenty times the room."""
SECONDS = 30.0
"""What one request to a program may take."""
NO_FIT = "def fit(X, y):\n    raise NotImplementedError"
HELLO = json.dumps({"id": 0, "do": "ready"}).encode()

Params = dict[tuple[str, str], FloatArray]
"""Fitted parameters [k] by group and target."""


@dataclass(frozen=True)
class Split:
    """Rows to fit on and rows to predict, as masks; `test` hides its targets from the fit, None hides nothing."""

    train: BoolArray
    test: BoolArray | None


@dataclass(frozen=True)
class Predicted:
    """A program's parameters from a split's training rows, and its predictions [m] by target at the rows asked for."""

    params: Params
    values: dict[str, FloatArray]


@asynccontextmanager
async def programs(
    sandbox: str = "auto", *, size: int = 2, starting: int = 2, limits: Limits = STRICT
) -> AsyncIterator[tuple[Pool, Choice]]:
    """A pool of sandboxes for programs, and which sandbox it is; raises SandboxError where none confines them."""
    chosen = await asyncio.to_thread(choose, sandbox, image="law")
    async with Pool(
        lambda: chosen.make("law", limits), lambda box: [box.python, f"{box.programs}/main.py"], HELLO, size=size,
        starting=starting,
    ) as pool:  # fmt: skip
        yield pool, chosen


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
    except ProgramError as error:
        return replace(refused, reason=f"program: {error}")
    size = sum(len(p) for p in whole.params.values())
    counted = supported(cuts, size / len(judge.task.targets))
    n = len(judge.rows) * len(judge.task.targets)
    form = 0.5 * size * math.log(n) + nodes * math.log(VOCABULARY)
    within = hidden_errors(judge, judge.rows, whole.values)
    beyond = [(judge.rows.take(c.test), p.values) for c, p in zip(cuts, parts, strict=True)]
    errors = tuple(hidden_errors(judge, *one) for c, one in zip(cuts, beyond, strict=True) if c in counted)
    objective = objective_of(judge, form, within, errors, counted)
    dev = judge.score([one for c, one in zip(cuts, beyond, strict=True) if c in shown])
    if not math.isfinite(objective) or not math.isfinite(dev.mae):
        return replace(refused, reason="not finite beyond a cut")
    return replace(
        refused, status="ok", objective=objective, mdl=form + 0.5 * len(judge.rows) * within, n_params=size, dev=dev,
        cuts=errors, params=named(whole.params),
    )  # fmt: skip


async def predict_splits(
    text: str, judge: Problem, splits: Sequence[Split], pool: Pool, seconds: float = SECONDS
) -> list[Predicted]:
    """What the program predicts for each split: at its test rows, or at its own training rows where it hides none.

    Raises ProgramError with the program's fault, SandboxError where no sandbox can be had.
    """
    counted = f"{written(without_fit(text))}\n\n\n{NO_FIT}"
    found: dict[int, Predicted] = {}
    for session in sessions(splits):
        async with _loaded(text, judge.task, pool, seconds) as program:
            fits = {i: await program.fit(judge.rows.take(splits[i].train)) for i in session}
        async with _loaded(counted, judge.task, pool, seconds) as program:
            for i in session:
                train, test = splits[i].train, splits[i].test
                at = judge.rows.take(train if test is None else test)
                found[i] = Predicted(fits[i], await program.predict(at, fits[i]))
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


@asynccontextmanager
async def _loaded(text: str, task: Task, pool: Pool, seconds: float) -> AsyncIterator[_Program]:
    """A fresh sandbox with the program in it."""
    async with pool.take() as talk:
        program = _Program(talk, task, seconds)
        await program.ask({"do": "load", "program": text})
        yield program


@dataclass
class _Program:
    """A loaded program: requests to it, and its answers once they are checked."""

    talk: Talk
    task: Task
    seconds: float
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def fit(self, rows: Rows) -> Params:
        """The parameters for every group and target of the rows."""
        found: Params = {}
        for group in rows.groups:
            part = rows.take(rows.group == group)
            for target in self.task.targets:
                answer = await self.ask(
                    {"do": "fit", "X": sent(_inputs(part, self.task)), "y": sent(part.targets[target])}
                )
                params = array_of(answer.get("params"), "params")
                if params.ndim != 1 or not 1 <= params.size <= self.task.max_params:
                    most = self.task.max_params
                    raise ProgramError(f"fit returned shape {params.shape}; return 1 to {most} parameters, shape (k,)")
                found[group, target] = np.array([digits(float(v)) for v in params])  # what the record will say
        return found

    async def predict(self, rows: Rows, params: Params) -> dict[str, FloatArray]:
        """Predictions [n] by target at the rows."""
        found = {target: np.zeros(len(rows)) for target in self.task.targets}
        for group in rows.groups:
            here = rows.group == group
            inputs = sent(_inputs(rows.take(here), self.task))
            for target, values in found.items():
                if (group, target) not in params:
                    raise ProgramError(f"group {group!r} has no rows below the cut to fit on")
                asked = {"do": "law", "X": inputs, "params": sent(params[group, target])}
                answer = await self.ask(asked, int(here.sum()))
                y = array_of(answer.get("y"), "y")
                if y.shape != (int(here.sum()),):
                    raise ProgramError(f"law returned shape {y.shape} for {int(here.sum())} rows; return shape (n,)")
                values[here] = y
        return found

    async def ask(self, request: Mapping[str, object], rows: int = 0) -> dict[str, Any]:
        """The checked answer to one request, of at most so many rows."""
        number = next(self.numbers)
        reply = await self.talk.ask(json.dumps({"id": number, **request}).encode(), self.seconds)
        if reply.failure:
            told = {
                "time-out": f"no answer within {self.seconds:g} s", "ended": "the process ended",
                "flood": "too much output", "memory": "out of memory",
            }  # fmt: skip
            raise ProgramError(f"{request['do']}: {told[reply.failure]}")
        if len(reply.line) > MOST_ANSWER + 12 * rows:
            raise ProgramError(f"{request['do']}: an answer of {len(reply.line)} bytes; return an array of its shape")
        answer = read_answer(reply.line)
        if answer.get("id") != number:
            raise ProgramError(
                f"{request['do']}: the answer is not to what was asked; print nothing on the answers' pipe"
            )
        if "error" in answer:
            raise ProgramError(f"{request['do']}: {printable(answer['error'])}")
        return answer


def _inputs(rows: Rows, task: Task) -> FloatArray:
    """X [n, d], the features in the task's order."""
    return np.stack([rows.columns[name] for name in task.names], axis=1)
