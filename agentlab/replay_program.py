"""What a law that is a program says at new points, asked of a sandbox; also from a notebook, whose event loop runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from agentlab.program import Split, named, predict_rows, predict_splits, programs
from agentlab.program import judge_program as judged
from agentlab.selection import Problem
from agentlab.types import BoolArray, FloatArray, GroupParams, Outcome, Rows, Task

Answer = TypeVar("Answer")

SECONDS = 300.0
"""What one request to a program may take: ten times what it had when it was judged."""


def predict(text: str, task: Task, rows: Rows, params: GroupParams, sandbox: str) -> dict[str, FloatArray]:
    """Predictions (n,) by target at the rows, whose targets the sandbox is not sent.

    Raises ProgramError with the program's fault, SandboxError where no sandbox can be had.
    """

    async def inner() -> dict[str, FloatArray]:
        async with programs(sandbox, size=1, starting=1) as (pool, _):
            return await predict_rows(text, task, rows, params, pool, SECONDS)

    return apart(inner)


def judge(texts: list[str], problem: Problem, sandbox: str, *, final: bool, seconds: float) -> list[Outcome]:
    """Outcomes of programs, one after another, as the tool server `program` finds them."""

    async def inner() -> list[Outcome]:
        async with programs(sandbox, size=2, starting=2) as (pool, _):
            return [await judged(text, problem, pool, final=final, seconds=seconds) for text in texts]

    return apart(inner)


def fit(text: str, problem: Problem, keep: BoolArray, sandbox: str) -> dict[str, dict[str, dict[str, float]]]:
    """The parameters that the program fits to the rows of the mask."""

    async def inner() -> dict[str, dict[str, dict[str, float]]]:
        async with programs(sandbox, size=2, starting=2) as (pool, _):
            (found,) = await predict_splits(text, problem, [Split(keep, None)], pool, SECONDS)
            return named(found.params)

    return apart(inner)


def apart(inner: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """The answer of a coroutine, run by an event loop of a thread of its own: the caller's may be running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(inner())).result()
