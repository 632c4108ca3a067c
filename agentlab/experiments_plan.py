"""The next runs that would settle a decision, what they cost, and what each would settle: for `agentlab plan RUN`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.catalog import load_design
from agentlab.discover_files import TRACE
from agentlab.experiments import seeds_of
from agentlab.experiments_laws import Survivor, beliefs_of, question_of, survivors_of
from agentlab.experiments_open import DESIGN, read_kept
from agentlab.metrics import digits
from agentlab.proposers.design import Round, choose
from agentlab.run_rows import read_rows
from agentlab.runs_files import read_config
from agentlab.selection_box import box_points
from agentlab.space import Design, read_design, space_of
from agentlab.trace import read
from agentlab.types import Task
from agentlab.words import UsageError

RUNS = 8
"""Runs that are planned unless told."""


@dataclass(frozen=True)
class NextRun:
    """One run: the features of the law, its config for the `tool` that makes it, its FLOPs, and what it settles.

    `closes` is the share of the open variance that it takes off after those before it; `between_laws` the part of this
    that comes from laws that disagree.
    """

    columns: Mapping[str, float]
    config: Mapping[str, Any]
    flops: float
    closes: float
    between_laws: float
    tool: str


def next_runs(folder: Path, flops: float, *, runs: int = RUNS, spend: float | None = None) -> list[NextRun] | None:
    """The runs to make next for the decision at `flops`; None where the run's task has no design space.

    Args:
        folder: The folder of a finished run.
        flops: The compute of the decision.
        runs: How many at most.
        spend: FLOPs that they may cost together; without it, so many runs of the usual cost.

    Raises:
        UsageError: nothing can be paid for.
    """
    task, rows = read_rows(folder, every=True)
    design = _design_of(folder, task)
    if design is None:
        return None
    space = space_of(design, task)
    most = runs * space.usual if spend is None else spend
    if most < float(space.cost.min()):
        raise UsageError(f"--spend {most:g}: the cheapest run costs {float(space.cost.min()):.4g} FLOPs; give more")
    config = read_config(folder)
    records = list(read(folder / TRACE))
    rounds = [r for r in records if r["kind"] == "round" and r["laws"]]
    laws = [Survivor(**law) for law in rounds[-1]["laws"]] if rounds else survivors_of(records, task)
    beliefs = beliefs_of(laws, task, rows, design.noise, config.seed)
    question = question_of(task, rows, design, flops)
    box = box_points(task, rows)
    picks = choose(Round(space, rows, beliefs, question, most, runs, config.seed, len(rounds), box, design.misfit))
    made = [r["config"] for r in records if r["kind"] == "experiment"]
    configs = [space.configs[p.place] for p in picks]
    seeds = seeds_of(design, configs, made, config.seed)
    return [
        NextRun(
            {k: digits(float(v[p.place])) for k, v in space.columns.items()},
            {**whole, design.seed: seed} if design.seed else whole,
            float(space.cost[p.place]),
            digits(p.closes),
            digits(p.between),
            design.tool,
        )
        for p, whole, seed in zip(picks, configs, seeds, strict=True)
    ]


def _design_of(folder: Path, task: Task) -> Design | None:
    if (folder / DESIGN).exists():
        return read_kept(folder, task)
    name = read_config(folder).task
    told = load_design(name) if name else None
    return None if told is None else read_design(told[1], task)


def page(found: Sequence[NextRun], folder: Path) -> str:
    """The next runs as a table."""
    if not found:
        return "next runs: none would change the decision"
    names = list(found[0].columns)
    lines = ["next runs, in this order:"]
    lines.append("  ".join([*(f"{n:>10s}" for n in names), f"{'FLOPs':>10s}", f"{'closes':>7s}", "  what it settles"]))
    for one in found:
        cells = [f"{one.columns[n]:10.4g}" for n in names]
        closes = "" if math.isnan(one.closes) else f"{one.closes:.1%}"
        lines.append("  ".join([*cells, f"{one.flops:10.3g}", f"{closes:>7s}", f"  {_settles(one)}"]))
    total = math.fsum(one.flops for one in found)
    lines.append(
        f"together {total:.3g} FLOPs; `closes` is a share of what is open about the decision, one after another"
    )
    lines.append(
        f"next: agentlab discover task={read_config(folder).task} experiments={len(found)} budget.flops={total:.3g}"
    )
    return "\n".join(lines)


def _settles(one: NextRun) -> str:
    if math.isnan(one.between_laws):
        return "the first law"
    if one.between_laws > 2 / 3:
        return "which law holds"
    return "the constants of the laws" if one.between_laws < 1 / 3 else "which law holds, and its constants"
