"""The checkpoints that replicas agreed on: put away whole, read back, checked before every use, the last two kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from agentlab.tools._job_files import Fields, Lines
from pydantic import TypeAdapter, ValidationError

from agentlab.errors import AgentlabError
from agentlab.files import sync

CHECKPOINT = "checkpoint.pt"
KEPT = 2
"""Checkpoints that stay: the newest, and the one before for the day on which the newest is found damaged."""


class DiskError(AgentlabError):
    """A disk that does not give back what was written to it."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """A checkpoint that was voted for.

    Attributes:
        segment: Number of the segment that it ends.
        step: Training steps done.
        flops: Training FLOPs of one run up to here.
        state: Digest of the whole state, as the trainer counts it.
        sha256: Of the file.
        flops_spent: Training FLOPs of all replicas and redraws up to here.
        lines: What the log says of the segment; said again where a job is taken up, lest it be killed before it was.
    """

    segment: int
    step: int
    flops: int
    state: str
    sha256: str
    flops_spent: int
    lines: Lines


class Shelf:
    """The agreed checkpoints below one folder, each a folder of its own that appears whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def checkpoint(self, agreed: Agreed) -> Path:
        """Where its file lies."""
        return self.folder / _name(agreed.segment) / CHECKPOINT

    def latest(self, tell: Callable[[Fields], None]) -> Agreed | None:
        """The newest whose file still has its digest; a damaged one is told of and thrown away, the one before taken.

        None where there is none: the run then begins anew, which costs time and gives the same result.
        """
        for place in reversed(self._places()):
            found = _read(place)
            if found is not None:
                return found
            tell({"event": "damaged", "checkpoint": f"{self.folder.name}/{place.name}"})
            shutil.rmtree(place)
        return None

    def add(self, checkpoint: Path, agreed: Agreed) -> None:
        """Moves a checkpoint here: synced, renamed in one step, read back; only then does the oldest go.

        Raises:
            DiskError: what was read back has another digest; the checkpoint before is still there.
        """
        part, place = self.folder / ".part", self.folder / _name(agreed.segment)
        for stale in (part, place):
            shutil.rmtree(stale, ignore_errors=True)
        part.mkdir(parents=True)
        checkpoint.replace(part / CHECKPOINT)
        (part / "agreed.json").write_text(json.dumps(asdict(agreed)) + "\n", encoding="utf-8")
        for path in (part / CHECKPOINT, part / "agreed.json", part):
            sync(path)
        part.rename(place)
        sync(self.folder)
        _forget(place / CHECKPOINT)
        if _read(place) != agreed:
            shutil.rmtree(place)
            raise DiskError(f"{place}: the checkpoint does not read back as it was written; look at the disk")
        for old in self._places()[:-KEPT]:
            shutil.rmtree(old)

    def _places(self) -> list[Path]:
        """The folders, oldest first."""
        return sorted(p for p in self.folder.glob("[0-9]*") if p.is_dir())


def sha256_of(path: Path) -> str | None:
    """sha256 of a file's bytes; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _forget(path: Path) -> None:
    """Asks the system to drop its copy in memory, so that reading back reads the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _name(segment: int) -> str:
    return f"{segment:07d}"


def _read(place: Path) -> Agreed | None:
    """The record in a folder, None where it or its checkpoint is damaged or missing."""
    try:
        found = TypeAdapter(Agreed).validate_json((place / "agreed.json").read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.sha256 == sha256_of(place / CHECKPOINT) else None
