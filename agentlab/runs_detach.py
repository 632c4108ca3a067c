"""Starts a run that outlives its command: `agentlab discover .. --detach`, or `python -m agentlab.runs_detach WORDS`.

A start with a key happens once: the same key again, from whatever process and whenever, names the run that is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab import detach
from agentlab.files import write_json
from agentlab.runs_files import CONFIG
from agentlab.trace import dump
from agentlab.types import AgentlabError, RunConfig
from agentlab.words import UsageError, read_words, refuse_unused

KEYS = ".keys"
"""Folder under `out` with a file for every key that a run was started with."""
PATIENCE = 60.0
"""Seconds that a start with a key waits for another one under way."""


@dataclass(frozen=True, slots=True)
class Detached:
    """A run that goes on by itself: its folder, whether this call began it, and what the intake chose."""

    folder: Path
    new: bool
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The same as JSON."""
        folder = self.folder
        told = {"run": folder.name, "dir": str(folder), "new": self.new, "state": detach.life(folder)}
        return told | {"output": str(folder / detach.OUTPUT), "notes": list(self.notes)}


def start(config: RunConfig, key: str = "") -> Detached:
    """Make the folder of a run and start it in a session of its own; with a `key` that is known, find its run.

    Raises:
        UsageError: the key belongs to a run with other settings, or to one that was deleted.
        AgentlabError: as `runs.create` and `table.intake`: wrong words are refused before anything is started.
    """
    if not key:
        return _begin(config)
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    with _alone(Path(config.out) / KEYS) as keys:
        known = keys / f"{name}.json"
        asked = dataclasses.asdict(config)
        if not known.exists():
            return _begin(config, known, asked)
        told = json.loads(known.read_text(encoding="utf-8"))
        folder = Path(config.out) / told["run"]
        if told["asked"] != asked:
            changed = sorted(k for k in asked if asked[k] != told["asked"].get(k))
            raise UsageError(
                f"key {key!r} has started {folder.name} with another {', '.join(changed)}=; give another key, or the "
                "same words"
            )
        if not (folder / CONFIG).is_file():
            raise UsageError(f"key {key!r} has started {folder.name}, which is not there any more; give another key")
        if detach.process_of(folder) is None:  # the command that was starting it was killed
            detach.launch(folder)
        return Detached(folder, new=False)


def _begin(config: RunConfig, known: Path | None = None, asked: object = None) -> Detached:
    # Seconds to import, and a start with a known key, which is often asked for again, needs neither.
    from agentlab import runs  # noqa: PLC0415
    from agentlab.table import intake  # noqa: PLC0415

    refuse_unused(config)
    taken = intake(config)
    folder = runs.create(config, taken)
    if known is not None:  # before the process: a run that nothing is at yet is started by the next call
        write_json(known, {"run": folder.name, "asked": asked})
    detach.launch(folder)
    return Detached(folder, new=True, notes=taken.notes)


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """One start with a key at a time; the system frees the lock however its holder ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise UsageError(f"out={folder.parent}: {error.strerror}; give a folder that can be written") from error
    with file:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise UsageError(f"{folder} is busy with another start; try again") from None
                time.sleep(0.02)
        yield folder


def main(argv: Sequence[str]) -> int:
    """Start the run that the words describe and print one JSON line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="agentlab.runs_detach", description="Start a run that outlives this command.")
    parser.add_argument("words", nargs="+", metavar="key=value")
    parser.add_argument("--key", default="", help="the same key again names the run that it started")
    given = parser.parse_args(argv)
    try:
        config = read_words(given.words, RunConfig)
        sys.stdout.write(dump(start(config, given.key).record()).decode())
    except AgentlabError as error:
        sys.stderr.write(f"agentlab: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
