"""Where things run: one file, one class `Sandbox`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

from agentlab.errors import BackendError


@dataclass(frozen=True)
class Limits:
    """What the commands of a sandbox may use; None means no limit of our own.

    Bytes, CPU seconds a process, numbers of files and processes, processors. Each sandbox says which of them hold for
    one process and which for all of its processes together.
    """

    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    file_bytes: int | None = None
    open_files: int | None = 1024
    output_bytes: int = 16 << 20  # of stdout and of stderr each; the rest is read and thrown away
    processes: int | None = None
    disk_bytes: int | None = None
    cpus: float | None = None


STRICT = Limits(
    memory_bytes=512 << 20, cpu_seconds=600, file_bytes=32 << 20, open_files=256, output_bytes=1 << 20, processes=64,
    disk_bytes=64 << 20, cpus=1.0,
)  # fmt: skip
"""For programs that nobody has read."""

MOST_INPUT = 64 << 20
"""Bytes that one command or one question may be sent."""


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
    out_of_memory: bool = False


Failure = Literal["", "time-out", "ended", "flood", "memory"]
"""Why no answer came: too late, the program ended, a line above the limit, or it was killed for its memory."""


@dataclass(frozen=True)
class Reply:
    """The line (without its end) that a program answered with, or why it gave none."""

    line: bytes
    failure: Failure = ""


class SandboxError(BackendError):
    """The sandbox itself could not do what was asked: what, where, and what to do instead."""


class Talk(Protocol):
    """A running program that answers every line it is sent with one line."""

    async def ask(self, line: bytes, timeout: float) -> Reply:  # noqa: ASYNC109 - a late answer is a value
        """The answer to a line; after a failure the program is dead, and every later question fails as it did."""
        ...

    async def close(self) -> None:
        """Kills the program and whatever it started."""
        ...


@runtime_checkable
class Sandbox(Protocol):
    """A place for commands, with a folder of its own that lives as long as the sandbox.

    Paths of `put`, `get` and `cwd` are relative to that folder. Commands run one at a time, and what one leaves running
    is killed when it ends. Leaving the context kills whatever still runs.
    """

    confines: ClassVar[bool]
    """Whether code that nobody has read may run here."""
    strength: ClassVar[int]
    """`sandbox=auto` takes the strongest that works."""
    python: str
    """The Python interpreter in the sandbox."""
    programs: str
    """The folder in the sandbox with the programs of its image."""

    @classmethod
    def missing(cls, image: str = "law") -> str:
        """What keeps this sandbox from working here, and the one command that mends it; "" where it works."""
        ...

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

    async def open(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Talk:
        """Starts a program to talk to; it holds the sandbox until it is closed."""
        ...

    async def put(self, path: str | PurePosixPath, data: bytes) -> None:
        """Writes a file in the sandbox's folder."""
        ...

    async def get(self, path: str | PurePosixPath) -> bytes:
        """Reads a file from the sandbox's folder; raises SandboxError when it is not there."""
        ...
