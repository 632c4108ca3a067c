"""A law that is a program at work: a sandbox with the program in it, what it is asked, its answers once checked.

`fit` and `law` are never asked of the same sandbox: that of `law` was sent what `law` needs of the text, and numbers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentlab.envs import STRICT, Limits, Talk
from agentlab.envs._choose import Choice, choose
from agentlab.envs._pool import Pool
from agentlab.metrics import digits
from agentlab.program_answers import array_of, printable, read_answer, sent
from agentlab.program_text import ProgramError, without_fit, written
from agentlab.types import FloatArray, Rows, Task

MOST_ANSWER = 1 << 20
"""Bytes of an answer, beside what its rows need: parsed JSON takes twenty times the room."""
MOST_ROWS = 1 << 16
"""Rows of one question to `law`."""
NO_FIT = "def fit(X, y):\n    raise NotImplementedError"
HELLO = json.dumps({"id": 0, "do": "ready"}).encode()

Params = dict[tuple[str, str], FloatArray]
"""Fitted parameters [k] by group and target."""


@asynccontextmanager
async def programs(
    sandbox: str = "auto", *, size: int = 2, starting: int = 2, limits: Limits = STRICT
) -> AsyncIterator[tuple[Pool, Choice]]:
    """A pool of sandboxes for programs, and which sandbox it is; raises SandboxError where none confines them.

    Who is cancelled need not wait for their end, but none outlives it by more than it takes to die.
    """
    chosen = await asyncio.to_thread(choose, sandbox, image="law")
    pool = Pool(
        lambda: chosen.make("law", limits), lambda box: [box.python, f"{box.programs}/main.py"], HELLO, size=size,
        starting=starting,
    )  # fmt: skip
    await pool.__aenter__()
    try:
        yield pool, chosen
    finally:
        # A scope of anyio's cancels again at every wait; the pool would end half-way, and its sandboxes would go on.
        await asyncio.shield(pool.__aexit__(None, None, None))


def law_alone(text: str) -> str:
    """The program as the sandbox of `law` is sent it. Raises ProgramError where the text is none."""
    return f"{written(without_fit(text))}\n\n\n{NO_FIT}"


@asynccontextmanager
async def loaded(text: str, task: Task, pool: Pool, seconds: float) -> AsyncIterator[Program]:
    """A fresh sandbox with the program in it."""
    async with pool.take() as talk:
        program = Program(talk, task, seconds)
        await program.ask({"do": "load", "program": text})
        yield program


def inputs(columns: Mapping[str, FloatArray], task: Task) -> FloatArray:
    """X [n, d], the features in the task's order."""
    return np.stack([columns[name] for name in task.names], axis=1)


@dataclass
class Program:
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
            asked = {"do": "fit", "X": sent(inputs(part.columns, self.task))}
            for target in self.task.targets:
                answer = await self.ask(asked | {"y": sent(part.targets[target])})
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
            X = inputs(rows.take(here).columns, self.task)
            for target, values in found.items():
                if (group, target) not in params:
                    raise ProgramError("a group has no rows below the cut to fit on")
                values[here] = await self.law(X, params[group, target])
        return found

    async def law(self, X: FloatArray, params: FloatArray, *, finite: bool = True) -> FloatArray:
        """What `law` says [n] at X [n, d]; with `finite` every number of it is."""
        parts = [await self._law(X[i : i + MOST_ROWS], params, finite=finite) for i in range(0, len(X), MOST_ROWS)]
        return np.concatenate(parts)

    async def _law(self, X: FloatArray, params: FloatArray, *, finite: bool) -> FloatArray:
        answer = await self.ask({"do": "law", "X": sent(X), "params": sent(params)}, len(X))
        y = array_of(answer.get("y"), "y", finite=finite)
        if y.shape != (len(X),):
            raise ProgramError(f"law returned shape {y.shape} for {len(X)} rows; return shape (n,)")
        return y

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
