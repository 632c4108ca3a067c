"""What a round's search leaves: the laws that survive, what they leave open, and what the decision would waste."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from agentlab import allocation
from agentlab.belief import Belief, believe
from agentlab.law import parse
from agentlab.proposers.design import Outlook
from agentlab.selection import fit_options
from agentlab.space import Design
from agentlab.trace import Record
from agentlab.types import Rows, Task

SURVIVORS = 6
"""Laws that are believed in after a round."""

STARTS = 8
"""Starts of a survivor's fit, beside the parameters that the search found."""

LESS = 0.8
"""The share of the compute at which the slope of the best value is taken."""

JUDGES = 16
"""Draws of every law by which a decision is judged."""

MOST_REGRET = 1000.0
"""A regret above so many % counts as this, so that one draw that went astray does not decide alone."""

PAIRS = 4
"""(Group, target) pairs whose laws a design looks at."""


@dataclass(frozen=True)
class Survivor:
    """A law that a search ends with: its formula, its description length, and its parameters by group and target."""

    formula: str
    nats: float
    params: Mapping[str, Mapping[str, Mapping[str, float]]]


def survivors_of(found: Sequence[Record], task: Task) -> list[Survivor]:
    """The laws that a search ends with, the believed one first, each once."""
    best = next(r for r in found if r["kind"] == "law")
    judged = [r for r in found if r["kind"] == "finalist" and r["status"] == "ok" and not r.get("violations")]
    ranked = sorted(judged, key=lambda r: float(r["objective"]))
    laws: dict[str, Survivor] = {}
    for r in [best, *ranked]:
        law = parse(r["formula"], task.names)
        if len(laws) < SURVIVORS:
            laws.setdefault(law.key, Survivor(law.text, float(r["mdl"]), r["params"]))
    return list(laws.values())


def beliefs_of(
    survivors: Sequence[Survivor], task: Task, rows: Rows, noise: float | None, seed: int
) -> tuple[Belief, ...]:
    """What the rows leave open about each (group, target), at most PAIRS; those that no law fits are left out."""
    options = replace(fit_options(task, STARTS, seed), thorough=False)
    laws = [parse(s.formula, task.names) for s in survivors]
    nats = {law.text: s.nats for law, s in zip(laws, survivors, strict=True)}
    found: list[Belief] = []
    for group in rows.groups:
        mine = rows.take(rows.group == group)
        for target, y in rows.targets.items():
            one = Rows(mine.columns, {target: y[rows.group == group]}, mine.group, mine.weight, mine.scale, mine.run)
            warm = {
                law.text: np.array([s.params[group][target][p] for p in law.params])
                for law, s in zip(laws, survivors, strict=True)
                if target in s.params.get(group, {})
            }
            with suppress(ValueError):
                found.append(believe(laws, one, options, noise=noise, seed=seed, warm=warm, nats=nats))
    return tuple(found[:PAIRS])


def question_of(task: Task, rows: Rows, design: Design, flops: float | None = None) -> allocation.Question | None:
    """The decision that the runs are to settle; None where the law shall predict well instead."""
    if design.predict:
        return None
    found = allocation.asked(task, rows, flops=flops)
    return found if found.levers else None


def wasted(belief: Belief, question: allocation.Question, seen: Outlook) -> float:
    """The mean over the ensemble of what the decision wastes, in % of its compute; nan where compute has no price.

    What is lost in value is turned into compute by the slope of the best value in log C: exact for small losses, which
    is where it decides. At most MOST_REGRET for a draw.
    """
    if question.cost is None:
        return float("nan")
    config = {k: v[seen.chosen] for k, v in seen.config.items()}
    total = 0.0
    for member in belief.members:
        theta = member.draws[:: max(len(member.draws) // JUDGES, 1)]
        here, less = (
            question.sign * allocation.best(member.law, theta, question, question.compute * share).value
            for share in (1.0, LESS)
        )
        wide = {k: np.full((len(theta), 1), v) for k, v in config.items()}
        value = question.sign * allocation.predicted(member.law, theta, wide)[:, 0]
        with np.errstate(all="ignore"):
            lost = np.maximum(value - here, 0.0) / np.maximum(less - here, 1e-12) * -math.log(LESS)
            percent = np.minimum(100.0 * np.expm1(np.where(np.isfinite(lost), lost, np.inf)), MOST_REGRET)
        total += member.share * float(percent.mean())
    return total
