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

import ast
import asyncio
import base64
import binascii
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
from agentlab.selection import VOCABULARY, Problem, hidden_errors, objective_of, shown_cuts, supported
from agentlab.types import AgentlabError, BoolArray, FloatArray, Outcome, Rows, Task

MOST_TEXT = 64 << 10
"""Bytes of a program."""
MOST_ANSWER = 1 << 20
"""Bytes of an answer, beside what its rows need: parsed JSON takes twenty times the room."""
CHARACTERS = 8
"""Of a program for each node that its length is counted by, at the least."""
SECONDS = 30.0
"""What one request to a program may take."""
NO_FIT = "def fit(X, y):\n    raise NotImplementedError"
HELLO = json.dumps({"id": 0, "do": "ready"}).encode()

Params = dict[tuple[str, str], FloatArray]
"""Fitted parameters [k] by group and target."""


class ProgramError(AgentlabError):
    """What a program did wrong, in one line: the candidate is rejected for it, the run goes on."""


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


def complexity(text: str) -> int:
    """Nodes of the program that can carry meaning, outside of `fit` and the imports: what its length is counted by.

    A long constant or name counts by its characters, for it can hold a table. Raises ProgramError where the text is no
    program, or too long.
    """
    tree = _without_fit(text)
    kept = [n for n in tree.body if not isinstance(n, ast.Import | ast.ImportFrom)]
    silent = (ast.expr_context, ast.arguments, ast.arg, ast.Load, ast.Store)
    nodes = sum(not isinstance(node, silent) for one in kept for node in ast.walk(one))
    return max(nodes, len(_written(tree)) // CHARACTERS)


def _without_fit(text: str) -> ast.Module:
    try:
        size = len(text.encode())
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProgramError(f"the program is no Python: {' '.join(str(error).split())[:200]}") from error
    if size > MOST_TEXT:
        raise ProgramError(f"the program has {size} bytes; write at most {MOST_TEXT}")
    tree.body = [n for n in tree.body if getattr(n, "name", "") != "fit"]
    return tree


def _written(tree: ast.Module) -> str:
    try:
        return ast.unparse(tree)
    except RecursionError as error:
        raise ProgramError("the program is nested too deeply; write it in smaller steps") from error


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
    counted = f"{_written(_without_fit(text))}\n\n\n{NO_FIT}"
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
                answer = await self.ask({"do": "fit", "X": _sent(_inputs(part)), "y": _sent(part.targets[target])})
                params = _array(answer.get("params"), "params")
                if params.ndim != 1 or not 1 <= params.size <= self.task.max_params:
                    most = self.task.max_params
                    raise ProgramError(f"fit returned shape {params.shape}; return 1 to {most} parameters, shape (k,)")
                found[group, target] = params
        return found

    async def predict(self, rows: Rows, params: Params) -> dict[str, FloatArray]:
        """Predictions [n] by target at the rows."""
        found = {target: np.zeros(len(rows)) for target in self.task.targets}
        for group in rows.groups:
            here = rows.group == group
            inputs = _sent(_inputs(rows.take(here)))
            for target, values in found.items():
                if (group, target) not in params:
                    raise ProgramError(f"group {group!r} has no rows below the cut to fit on")
                asked = {"do": "law", "X": inputs, "params": _sent(params[group, target])}
                answer = await self.ask(asked, int(here.sum()))
                y = _array(answer.get("y"), "y")
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
        answer = _read(reply.line)
        if answer.get("id") != number:
            raise ProgramError(
                f"{request['do']}: the answer is not to what was asked; print nothing on the answers' pipe"
            )
        if "error" in answer:
            raise ProgramError(f"{request['do']}: {_printable(answer['error'])}")
        return answer


def _inputs(rows: Rows) -> FloatArray:
    return np.stack(list(rows.columns.values()), axis=1)


def _sent(array: FloatArray) -> list[object]:
    plain = np.ascontiguousarray(array, dtype=np.float64)
    return [list(plain.shape), base64.b64encode(plain.tobytes()).decode()]


def _read(line: bytes) -> dict[str, Any]:
    """A JSON object from a program that may write anything: no nan, no depth, no huge number gets through."""
    try:
        answer = json.loads(line, parse_constant=_refuse, parse_int=_short, parse_float=_short)
    except (ValueError, RecursionError) as error:
        raise ProgramError("the answer is no JSON") from error
    if not isinstance(answer, dict):
        raise ProgramError("the answer is no JSON object")
    return answer


def _refuse(word: str) -> float:
    raise ValueError(word)


def _short(text: str) -> int:
    """Only whole numbers of at most nine digits occur in an answer: ids and shapes."""
    if len(text) > 9:
        raise ValueError(text[:20])
    return int(text)


def _array(told: object, name: str) -> FloatArray:
    """The finite float64 array that [shape, base64] means."""
    try:
        shape, data = told if isinstance(told, list) else ((), "")
        raw = base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ProgramError(f"{name} is no array") from error
    if not isinstance(shape, list) or len(shape) > 2 or not all(type(s) is int and s >= 0 for s in shape):
        raise ProgramError(f"{name} has no shape that a law can have")
    if len(raw) != 8 * math.prod(shape):
        raise ProgramError(f"{name} has {len(raw)} bytes for shape {tuple(shape)}")
    array = np.frombuffer(raw, dtype="<f8").astype(np.float64).reshape(shape)
    if not np.all(np.isfinite(array)):
        raise ProgramError(f"{name} is not finite in {int(np.sum(~np.isfinite(array)))} of {array.size} places")
    return array


def _printable(text: object) -> str:
    """One short line of printable characters."""
    plain = "".join(c if c.isprintable() else " " for c in str(text)[:400])
    return " ".join(plain.split())
