"""The tasks that a board knows: those of the catalog, with the rows that are searched and their digests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from agentlab.catalog import load_task, task_names
from agentlab.errors import nearest
from agentlab.leaderboard_records import RefusedError, Submission, fingerprint, version
from agentlab.run_rows import Intake
from agentlab.table import intake
from agentlab.types import AgentlabError, Rows, RunConfig, Task

PLANTED = "planted_"
"""What the names of tasks begin with whose reference is the truth that their rows were drawn from."""


@dataclass(frozen=True)
class Known:
    """A task as the board has it, with its searched rows, whose digest is `rows`; `sealed` is its hold-out's file."""

    task: Task
    searched: Rows
    rows: str
    version: str
    sealed: str | None


@lru_cache(maxsize=64)
def known_task(name: str) -> Known:
    """The task of that name. Raises RefusedError where the board has none; a path is no name."""
    names = task_names()
    if name not in names:
        raise RefusedError("no such task", f"{name!r}; {nearest(name, names)}")
    try:
        task, rows = load_task(name), intake(RunConfig(task=name)).rows
    except AgentlabError as error:
        raise RefusedError("no such task", f"the board has no rows of {name} ({error})") from None
    return Known(replace(task, holdout_file=None), rows, fingerprint(rows), version(task, rows), task.holdout_file)


def task_of(one: Submission) -> Known:
    """The task of a submission. Raises RefusedError where the board has none, or its rows are others."""
    known = known_task(one.task)
    if one.manifest.rows != known.rows:
        raise RefusedError(
            "other rows", f"the runs searched rows with another digest than those of {one.task} {known.version}"
        )
    return known


def intake_of(config: RunConfig) -> Intake:
    """The task as a run with these settings sees it, and its rows; no hold-out is within reach."""
    taken = intake(RunConfig(
        task=config.task, max_params=config.max_params, residual=config.residual, robust=config.robust,
        monotone=config.monotone, box=config.box,
    ))  # fmt: skip
    return replace(taken, task=replace(taken.task, holdout_file=None), holdout=None)
