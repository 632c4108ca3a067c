"""What a fitted law tells you to do: the best configuration at a given compute, and what a wrong one costs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from agentlab.errors import AgentlabError, nearest
from agentlab.law import Law, LawError, column_expression
from agentlab.selection_box import spread
from agentlab.types import FloatArray, Rows, Task, Variable

__all__ = [
    "AllocationError",
    "Choice",
    "Lever",
    "Question",
    "active",
    "asked",
    "best",
    "cost_of",
    "predicted",
    "summary",
]

PARAMS = re.compile(
    r"(n|(n_?|num_?)?(total_|active_|dense_)?param(eter)?s?\w*|n_(active|total)|model_size|size)", re.IGNORECASE
)
TOKENS = re.compile(r"(d|(n_|num_|train_|training_)?tokens?(_seen|_total)?|dataset_size|seen_examples)", re.IGNORECASE)
COMPUTE = re.compile(r"(?<![A-Za-z])(C|\w*flops?\w*|\w*compute\w*)(?!\w)", re.IGNORECASE)
LEARNING_RATE = re.compile(r"(lr|(peak_|max_)?(lr|learning_rate)(_max|_peak)?)", re.IGNORECASE)
LARGER_IS_BETTER = re.compile(r"(acc|accuracy|leverage|score|reward|auc|bleu|el|pass\w*)", re.IGNORECASE)

WIDE = 1e6
"""Parameters and tokens are looked for this factor beyond the data on both sides: the compute ties them together."""

FIRST, NEXT, ROUNDS, SHRINK = 512, 48, 14, 0.4
"""Points of the first look (times the number of levers), of every closer one, how many, how much smaller each is."""

NEAR_EDGE = 1e-3
"""Share of a lever's range within which an optimum counts as lying on its edge."""


Size = TypeVar("Size", float, FloatArray)
"""One configuration has numbers, several have arrays."""


class AllocationError(AgentlabError):
    """A law that does not answer what was asked of it."""


@dataclass(frozen=True, slots=True)
class Lever:
    """One input that may be chosen, between `low` and `high`, in the input's unit."""

    name: str
    low: float
    high: float
    log: bool = True


@dataclass(frozen=True)
class Question:
    """What is to be decided: the best value of the law over `levers`, where `cost` equals `compute`.

    `cost` is an expression over the features, in FLOPs, solved for the feature `solved` (at least `least`); where it
    is None the levers alone are chosen. `sign` is 1 where small targets are good, -1 where large ones are.
    `params` and `tokens` name the features that count parameters and training tokens, or are None.
    """

    levers: tuple[Lever, ...]
    cost: str | None
    solved: str | None
    compute: float
    sign: float = 1.0
    params: str | None = None
    tokens: str | None = None
    least: float = 1.0

    @property
    def paired(self) -> bool:
        """Whether the decision is a compute-optimal number of parameters and of tokens."""
        return self.params is not None and self.tokens is not None

    def ratio(self, config: Mapping[str, Size]) -> Size | None:
        """Tokens per parameter of a configuration, or None where the question is another one."""
        if self.params is None or self.tokens is None:
            return None
        return config[self.tokens] / config[self.params]


@dataclass(frozen=True)
class Choice:
    """The best configurations of B laws: (B,) by feature, the targets predicted there, and what lies on an edge.

    `compute` is what each was chosen for; `edge` is (B,) True where a lever ends at its limit or no point is finite.
    """

    config: Mapping[str, FloatArray]
    value: FloatArray
    edge: Mapping[str, FloatArray]
    compute: float

    def ratio(self, question: Question) -> FloatArray | None:
        """Tokens per parameter (B,), or None where the question is another one."""
        return question.ratio(self.config)


def asked(
    task: Task,
    rows: Rows,
    *,
    flops: float | None = None,
    flops_per: str | None = None,
    params: str | None = None,
    tokens: str | None = None,
) -> Question:
    """The decision that a task's features allow: by the names of the features, or as `params` and `tokens` say.

    The cost is `flops_per`, else 6 N D (Kaplan et al. 2020, section 2.1) where there are parameters and tokens, else
    the task's scale where the features determine it. `flops` defaults to ten times the largest cost among the rows.

    Raises:
        AllocationError: a name is no feature, or the cost cannot be computed from the features.
    """
    for key, name in (("params", params), ("tokens", tokens)):
        if name is not None and name not in task.names:
            raise AllocationError(f"{key}={name}: not a feature; {nearest(name, task.names)}")
    n, d = params or _named(task, PARAMS, tokens), tokens or _named(task, TOKENS, params)
    if n is None or d is None or n == d:
        n = d = None
    cost = flops_per or (f"6*{n}*{d}" if n else _scale_of(task, rows))
    spent = None if cost is None else cost_of(cost, rows.columns)
    if flops is not None and spent is None:
        raise AllocationError(
            "the features do not say what a run costs; write flops_per= (--flops-per) as an expression over "
            + ", ".join(task.names)
        )
    solved = _solved(cost, task, d) if cost is not None else None
    levers = tuple(_lever(v, rows, wide=v.name == n) for v in task.features if v.name != solved)
    compute = flops or (10.0 * float(spent.max()) if spent is not None else math.nan)
    sign = -1.0 if any(LARGER_IS_BETTER.fullmatch(part) for part in re.split(r"_|\W", task.targets[0])) else 1.0
    least = 1.0 if d else (1e-9 if solved is None else float(rows.columns[solved].min()) * 1e-9)
    return Question(tuple(x for x in levers if x.high > x.low), cost, solved, compute, sign, n, d, least)


def _named(task: Task, pattern: re.Pattern[str], other: str | None) -> str | None:
    return next((n for n in task.names if n != other and pattern.fullmatch(n)), None)


def _scale_of(task: Task, rows: Rows) -> str | None:
    """The scale of the task as a cost, where it is computed from the features alone and looks like compute."""
    if task.scale is None or rows.scale is None or not rows.scale.min() > 0 or not _is_compute(task.scale, task):
        return None
    try:
        found = cost_of(task.scale, rows.columns)
    except AllocationError:
        return None
    return task.scale if np.allclose(found, rows.scale, rtol=1e-6) else None


def _is_compute(scale: str, task: Task) -> bool:
    """Whether a scale is told to be compute: by its name, or by the unit or the words of a feature in it."""
    said = [f"{v.unit} {v.description}" for v in task.features if re.search(rf"\b{re.escape(v.name)}\b", scale)]
    return COMPUTE.search(scale) is not None or any(re.search(r"flop", text, re.IGNORECASE) for text in said)


def cost_of(expression: str, columns: Mapping[str, FloatArray]) -> FloatArray:
    """The cost of every row (n,), in FLOPs. Raises AllocationError where the expression cannot be computed."""
    try:
        return np.asarray(column_expression(expression, columns), dtype=np.float64)
    except LawError as exc:
        raise AllocationError(f"flops_per={expression!r}: {exc}") from exc


def _solved(cost: str, task: Task, tokens: str | None) -> str:
    """The feature that the budget decides: tokens where there are any, else the last one that the cost names."""
    named = [n for n in task.names if re.search(rf"(?<![\w.]){re.escape(n)}(?!\w)", cost)]
    if not named:
        raise AllocationError(f"flops_per={cost!r} names no feature; write one over {', '.join(task.names)}")
    return tokens if tokens in named and tokens is not None else named[-1]


def _lever(variable: Variable, rows: Rows, *, wide: bool) -> Lever:
    column = rows.columns[variable.name]
    low, high = variable.box or (float(column.min()), float(column.max()))
    log = variable.log and low > 0
    if wide and variable.box is None and low > 0:
        return Lever(variable.name, low / WIDE, high * WIDE)
    return Lever(variable.name, low, high, log)


def best(law: Law, theta: FloatArray, question: Question, compute: FloatArray | float | None = None) -> Choice:
    """The best configuration for every parameter vector (B, P); `compute` (B,) or one number replaces the question's.

    A look at an even spread of points over all levers, then closer and closer around the best of every vector. Inputs
    that neither the law nor the cost knows are left out; where nothing makes a difference all lie on the edge.
    """
    theta, question = np.atleast_2d(theta), replace(question, levers=active(law, question))
    size, d = len(theta), len(question.levers)
    budget = np.broadcast_to(np.asarray(question.compute if compute is None else compute, dtype=np.float64), (size,))
    centre, half, count = np.full((size, d), 0.5), 0.5, FIRST * max(d, 1)
    found: tuple[FloatArray, FloatArray] | None = None
    flat = np.zeros(size, dtype=bool)
    for _ in range(ROUNDS if d else 1):
        unit = np.clip(centre[:, None, :] + half * (2.0 * spread(count, d) - 1.0), 0.0, 1.0)
        if found is not None:
            unit = np.concatenate([found[0][:, None, :], unit], axis=1)
        value = _values(law, theta, question, unit, budget)
        least = np.argmin(value, axis=1)
        flat |= (found is None) & (value.min(axis=1) == value.max(axis=1))
        found = (unit[np.arange(size), least], value[np.arange(size), least])
        half = min(half * SHRINK, 4.0 * count ** (-1.0 / max(d, 1))) if half == 0.5 else half * SHRINK
        centre, count = found[0], NEXT * max(d, 1)
    assert found is not None  # noqa: S101 - there is always a first round
    config = {k: v[:, 0] for k, v in _config(question, found[0][:, None, :], budget).items()}
    edge = {
        lever.name: (flat | (np.abs(found[0][:, j] - 0.5) > 0.5 - NEAR_EDGE)).astype(np.float64)
        for j, lever in enumerate(question.levers)
    }
    return Choice(config, question.sign * found[1], edge, float(budget[0]) if size else question.compute)


def active(law: Law, question: Question) -> tuple[Lever, ...]:
    """The levers that the law or the cost knows."""
    named = set(law.used) | set(re.findall(r"[A-Za-z_]\w*", question.cost or ""))
    return tuple(lever for lever in question.levers if lever.name in named)


def _config(question: Question, unit: FloatArray, compute: FloatArray) -> dict[str, FloatArray]:
    """Configurations (B, k) by feature at points (B, k, d) of the unit cube; the budget (B,) decides the last one."""
    config: dict[str, FloatArray] = {}
    for j, lever in enumerate(question.levers):
        u = unit[:, :, j]
        config[lever.name] = (
            lever.low * (lever.high / lever.low) ** u if lever.log else lever.low + u * (lever.high - lever.low)
        )
    if question.cost is not None and question.solved is not None:
        shape = unit.shape[:2]
        flat = {k: v.reshape(-1) for k, v in config.items()}
        wanted = np.repeat(compute, shape[1])
        config[question.solved] = _solve(question.cost, question.solved, flat, wanted).reshape(shape)
    return config


def _solve(cost: str, name: str, columns: Mapping[str, FloatArray], wanted: FloatArray) -> FloatArray:
    """The values (m,) of `name` at which the cost is `wanted`, by secants in logarithms: exact at once for products."""
    before, x = np.zeros(len(wanted)), np.full(len(wanted), 1.0)
    with np.errstate(all="ignore"):
        last = np.log(cost_of(cost, {**columns, name: np.exp(before)}) / wanted)
        for _ in range(40):
            now = np.log(cost_of(cost, {**columns, name: np.exp(x)}) / wanted)
            slope = np.where(now == last, 1.0, (now - last) / np.where(x == before, 1.0, x - before))
            before, last, x = x, now, np.where(np.abs(now) < 1e-12, x, x - now / slope)
            if not np.any(np.abs(now) > 1e-12):
                break
        return np.where(np.abs(last) < 1e-6, np.exp(x), np.nan)


def _values(law: Law, theta: FloatArray, question: Question, unit: FloatArray, compute: FloatArray) -> FloatArray:
    """The signed law (B, k), inf where it is not finite or a run would be empty."""
    config = _config(question, unit, compute)
    value = question.sign * predicted(law, theta, config, unit.shape[1])
    bad = ~np.isfinite(value)
    if question.solved is not None:
        bad |= ~(config[question.solved] >= question.least)
    return np.where(bad, np.inf, value)


def predicted(law: Law, theta: FloatArray, config: Mapping[str, FloatArray], width: int = 1) -> FloatArray:
    """The law (B, width) of parameters (B, P) at configurations (B, width), every vector at its own."""
    program = law.compile({name: config[name] for name in law.used})
    program.n = width
    return program(theta)


def summary(question: Question) -> str:
    """What a decision is about, in words."""
    if question.paired:
        return f"tokens per parameter at {question.compute:.4g} FLOP (C = {question.cost})"
    names = ", ".join(lever.name for lever in question.levers) or "nothing: no feature can be chosen"
    return f"best {names}" + (f" at {question.cost} = {question.compute:.4g}" if question.cost else "")
