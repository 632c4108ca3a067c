"""The files of a run's folder: which folders are runs, the settings of one, and how long it has taken."""

from __future__ import annotations

import json
from pathlib import Path

from agentlab.discover_files import TIMING
from agentlab.trace import follow
from agentlab.types import Approve, Budget, RunConfig
from agentlab.words import UsageError

CONFIG = "config.json"


def find(run_id: str, out: str = "runs") -> Path:
    """The folder of a run given by id or by folder."""
    for folder in (Path(run_id), Path(out) / run_id):
        if (folder / CONFIG).is_file():
            return folder
    near = ", ".join(p.name for p in list_runs(out)[-5:]) or "none yet"
    raise UsageError(f"no run {run_id!r} here or under {out}/; the latest there: {near}")


def list_runs(out: str = "runs") -> list[Path]:
    """The run folders under `out`, by name."""
    return sorted(p.parent for p in Path(out).glob(f"*/{CONFIG}"))


def read_config(folder: Path) -> RunConfig:
    """The settings a run was made with."""
    stored = json.loads((folder / CONFIG).read_text())
    nested = {"budget": Budget(**stored["budget"]), "approve": Approve(**stored.get("approve", {}))}
    return RunConfig(**{**stored, **nested})


def seconds_of(folder: Path) -> float:
    """Seconds spent on a run up to its last note; notes add up over resumes."""
    path = folder / TIMING
    last = follow(path)[0][-1:] if path.exists() else []
    return round(float(last[0]["seconds"]), 3) if last else 0.0
