"""The section of a report that says how to make the run again: commands, versions, and digests of what it read."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agentlab import __version__
from agentlab.replay import Run
from agentlab.report_parts import Block, Code, Heading, Para, Pre
from agentlab.types import RunConfig

PACKAGES = ("numpy", "scipy", "sympy", "langgraph", "mcp", "openai")
FILES = ("config.json", "task.json", "rows.npz", "sample.npz", "design.json", "runs.csv", "law.json", "trace.jsonl")


def reproduce(run: Run) -> list[Block]:
    """Commands that search again, go through the record again, and audit; versions; digests."""
    again = command(run.config)
    same = (
        "The same settings and rows give the same trace, byte for byte, where no model is asked and no clock stops it."
    )
    if run.config.model:
        same = "A model answers otherwise each time: the trace holds its replies, and is gone through again without it."
    folder = shlex.quote(run.folder.resolve().name)
    lines = [again, f"agentlab replay {folder}", f"agentlab audit {folder}"]
    return [
        Heading(["How to reproduce"]),
        Para([same]),
        Pre("\n".join(lines if not run.law.program else lines[:2])),
        Heading(["Versions that wrote this report"], 3),
        Pre("\n".join([f"agentlab {__version__}", f"Python {platform.python_version()}", *_versions()])),
        Heading(["Digests, ", Code("SHA-256")], 3),
        Pre("\n".join(_digests(run))),
    ]


def command(config: RunConfig) -> str:
    """The `agentlab discover` of these settings; those that are as usual are left out."""
    usual = RunConfig()
    words = []
    for field in dataclasses.fields(RunConfig):
        value, plain = getattr(config, field.name), getattr(usual, field.name)
        if field.name in ("out", "workers", "base_url", "address") or value == plain:
            continue
        if dataclasses.is_dataclass(value):
            inner = [(f.name, getattr(value, f.name), getattr(plain, f.name)) for f in dataclasses.fields(value)]
            words += [f"{field.name}.{name}={told}" for name, told, as_usual in inner if told != as_usual]
        else:
            words.append(f"{field.name}={str(value).lower() if isinstance(value, bool) else value}")
    return " ".join(["agentlab discover", *(shlex.quote(w) for w in words)])


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _digests(run: Run) -> list[str]:
    files = [run.folder / name for name in FILES]
    source = Path(run.task.train_file) if run.task.train_file else None
    found = [f"{_digest(path)}  {path.name}" for path in files if path.is_file()]
    if source is not None and source.is_file():
        found.append(f"{_digest(source)}  {source.name}, the file that was searched")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
