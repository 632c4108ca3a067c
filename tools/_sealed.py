"""Hold-outs stay sealed: no tool reads a file that holds one, whatever it is called or copied to."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agentlab.catalog import find_data, load_task, task_names
from agentlab.errors import AgentlabError

NAME = "holdout"
"""How the names of sealed files begin."""


class SealedError(AgentlabError):
    """A file that no tool may read: only the leaderboard does, once a run."""


def readable(name: str) -> Path:
    """The file of that path, or of that path in a data folder, once it is known to hold no hold-out.

    Raises:
        SealedError: the file, or what it links to, is a hold-out by name, or has the bytes of one that is known here.
    """
    path = find_data(name) or Path(name).expanduser()
    refuse_sealed(path)
    return path


def refuse_sealed(path: Path) -> None:
    """Raises SealedError for a hold-out; links are followed, hard links and copies are told by their bytes."""
    real = path.resolve()
    if any(p.name.casefold().startswith(NAME) for p in (path, real)) or _is_copy(real):
        raise SealedError(f"{path.name} is a sealed hold-out: give the training runs")


def _is_copy(path: Path) -> bool:
    if not path.is_file():
        return False
    size = path.stat().st_size
    return any(s.stat().st_size == size and filecmp.cmp(s, path, shallow=False) for s in _sealed_beside(path))


def _sealed_beside(path: Path) -> Iterator[Path]:
    """The hold-outs of the tasks, and those that lie in the file's own folder."""
    yield from (p for p in path.parent.glob(f"{NAME}*") if p.is_file())
    for name in task_names():
        with suppress(AgentlabError):
            sealed = load_task(name).holdout_file
            if sealed is not None and Path(sealed).is_file():
                yield Path(sealed)
