"""Where things run: one file, one class `Sandbox`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import Protocol, Self, runtime_checkable


@dataclass(frozen=True)
class Limits:
    """What one command may use; None means no limit of our own. Bytes, CPU seconds and numbers of files."""

    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    file_bytes: int | None = None
    open_files: int | None = 1024
    output_bytes: int = 16 << 20  # of stdout and of stderr each; the rest is read and thrown away


@dataclass(frozen=True)
class Executed:
    """How a command ended: returncode is -signal when it was killed; stdout and stderr may be cut at the limit."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    timed_out: bool
    truncated: bool
    seconds: float


class SandboxError(RuntimeError):
    """The sandbox itself could not do what was asked: what, where, and what to do instead."""


@runtime_checkable
class Sandbox(Protocol):
    """A place for commands, with a folder of its own that lives as long as the sandbox.

    Paths of `put`, `get` and `cwd` are relative to that folder. Leaving the context kills whatever still runs.
    """

    async def __aenter__(self) -> Self:
        """Makes the folder (or container, or actor)."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kills what still runs and removes what was made."""
        ...

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - it must kill the whole tree, which a cancelled scope does not
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
    ) -> Executed:
        """Runs one command to its end; a time-out kills its whole process tree and is a value, not an exception."""
        ...

    async def put(self, path: str | PurePosixPath, data: bytes) -> None:
        """Writes a file in the sandbox's folder."""
        ...

    async def get(self, path: str | PurePosixPath) -> bytes:
        """Reads a file from the sandbox's folder; raises SandboxError when it is not there."""
        ...
