"""What sandboxes leave behind: their containers, processes and control groups, counted from outside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
RUNNER = b"/opt/runner.pyc"


@dataclass(frozen=True)
class Left:
    """What is there now, by name."""

    containers: frozenset[str]
    processes: frozenset[str]
    groups: frozenset[str]


def left(started: Sequence[str]) -> Left:
    """Those of the started containers that are there, first processes of sandboxes below us or of no parent, groups."""
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--no-trunc"], capture_output=True, text=True, check=True
    )
    parents = {os.getpid(), 1}
    processes = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _parent(p) in parents and _sandbox(p)]
    return Left(
        frozenset(listed.stdout.split()) & frozenset(started),
        frozenset(p.name for p in processes),
        frozenset(p.name for p in GROUPS.glob("**/agentlab/*/") if _mine(p)),
    )


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _sandbox(process: Path) -> bool:
    try:
        return RUNNER in (process / "cmdline").read_bytes()
    except OSError:
        return False


BEGAN = time.time()


def _mine(folder: Path) -> bool:
    """A group made since this program began."""
    try:
        return folder.stat().st_mtime >= BEGAN
    except OSError:
        return False
