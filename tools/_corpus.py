"""Builds a task's training text as a job: the download may take longer than a call may."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from agentlab.tools._budgets import task_file
from agentlab.tools._command import Command, prepare
from agentlab.tools._job_files import Job
from agentlab.tools._jobs import Store
from agentlab.tools._trainer import program

from agentlab.files import cache_folder

FIELDS = ("folder", "train_bytes", "valid_bytes")


@dataclass(frozen=True)
class Text:
    """A corpus by its pins: where it lies or will lie, and what builds it."""

    out: Path
    arguments: tuple[str, ...]

    def sizes(self) -> tuple[int, int] | None:
        """Bytes of the training and of the validation text, None while one of them is missing."""
        paths = [self.out / "train.bin", self.out / "valid.bin"]
        return (paths[0].stat().st_size, paths[1].stat().st_size) if all(p.is_file() for p in paths) else None


def text_of(task: str, wheel: str | None) -> Text:
    """The corpus of a task, given by name or folder. Raises ToolError for one without pins."""
    pins = task_file(task, "corpus.toml").resolve()
    out = cache_folder() / "corpus" / hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    return Text(out, (str(pins), str(out), *([str(Path(wheel).resolve())] if wheel else [])))


def build(store: Store, text: Text) -> Job:
    """The job that builds it; one whose text was deleted since is done again."""

    def argv_of(folder: Path) -> list[str]:
        builds = (sys.executable, program("train_corpus.py"), *text.arguments)
        argv: list[str] = prepare(folder, Command("corpus", builds, str(folder), json={k: k for k in FIELDS}))
        return argv

    config = {"out": str(text.out), "arguments": list(text.arguments)}
    job = store.start("corpus", config, argv_of)
    if job.state == "done" and text.sizes() is None:
        store.forget(job.id)
        job = store.start("corpus", config, argv_of)
    return job
