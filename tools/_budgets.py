"""Which training budgets are sealed: those at or above the hold-out of a task, whatever backend would train them."""

from __future__ import annotations

import hashlib
import os
import tomllib
from importlib.resources import files
from pathlib import Path

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import JsonValue

SEALED_KEY = "AGENTLAB_SEALED_KEY"
"""Variable with the key that opens sealed budgets; unset means that nothing opens them."""

ROUNDING = 1e-9
"""A cost that a formula counts may come out this much too low."""


def refuse_sealed(task: str | None, corpus: JsonValue, flops: float | None, key: str | None) -> None:
    """Refuse a budget at or above the hold-out of the task that is named, or of any task with this corpus.

    Args:
        task: Name or folder of a task.
        corpus: Folder of the training text, if there is one.
        flops: Training FLOPs that the run will take; None where the backend cannot tell, which is refused as well.
        key: What the caller gave to open sealed budgets.

    Raises:
        ToolError: the budget is sealed, or cannot be told and might be.
    """
    for name in dict.fromkeys([*([] if task is None else [task]), *_tasks_of(corpus)]):
        _refuse(name, flops, key)


def _refuse(task: str, flops: float | None, key: str | None) -> None:
    limit = tomllib.loads(task_file(task, "task.toml").read_text(encoding="utf-8")).get("data", {}).get("sealed_flops")
    opened = os.environ.get(SEALED_KEY)
    if limit is None or (opened and key == opened):
        return
    if flops is None:
        what = f"flops: {task} has a sealed hold-out and the backend does not tell what the run costs"
        raise ToolError(f"{what}; give its template a line `flops` that counts it")
    if flops >= limit * (1 - ROUNDING):
        raise ToolError(f"{flops:.4g} FLOPs is in the sealed hold-out of {task}: ask for less than {limit:.4g}")


def task_file(task: str, name: str) -> Path:
    """A file of a task, given its name or the path of its folder; what is installed goes first."""
    for folder in (Path(str(files("agentlab.tasks"))) / task, Path("tasks") / task, Path(task)):
        if (folder / name).is_file():
            return folder / name
    raise ToolError(f"task {task} has no {name}: give the name of a task or the path of its folder")


def _tasks_of(corpus: JsonValue) -> list[str]:
    """The installed tasks whose pinned text is the one in the folder `corpus`."""
    text = Path(str(corpus)) / "train.bin"
    if not text.is_file():
        return []
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    pins = sorted(Path(str(files("agentlab.tasks"))).glob("*/corpus.toml"))
    return [p.parent.name for p in pins if tomllib.loads(p.read_text(encoding="utf-8")).get("train_sha256") == digest]
