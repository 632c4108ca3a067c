"""The sandboxes that confine: a first process of ours inside (images/runner.py), and frames to and from it.

What is inside never touches a file, a socket or an object of this process: bytes of frames are all that comes out.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shlex
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import Protocol, Self

from agentlab.envs import MOST_INPUT, STRICT, Executed, Limits, SandboxError, Talk
from agentlab.envs._conversation import Command, Conversation
from agentlab.envs._seccomp import seccomp_filter

HEAD = struct.Struct(">BI")
WORK = "/tmp"  # noqa: S108 - the folder of the sandbox, a file system of its own in there
PROGRAMS = "/opt/agentlab"
RUNNER = "/opt/runner.pyc"
"""The first process, compiled: that takes 11 ms of the 34 that it needs to start."""
START = 30.0
"""Seconds until the first process must have spoken."""
ANSWER = 60.0
"""Seconds until a file must have been written or read."""
GRACE = 2.0
"""Seconds in which a killed command must be gone before the whole sandbox is killed."""

BARE = {
    "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": WORK, "TMPDIR": WORK, "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
}  # fmt: skip
"""The whole environment of a command, but for what its caller adds."""


class Reader(Protocol):
    """Where frames come from: `readexactly` of asyncio, raising IncompleteReadError at the end."""

    async def readexactly(self, n: int) -> bytes:
        """Exactly n bytes."""
        ...


@dataclass(frozen=True)
class Wire:
    """A running first process: its output and input, and what else can be done with it.

    `destroy` kills it with all it started, `memory_kills` counts processes that were killed for their memory, as far as
    it is seen from outside, `said` is what it wrote before it failed to start.
    """

    reader: Reader
    writer: asyncio.StreamWriter
    destroy: Callable[[], Awaitable[None]]
    memory_kills: Callable[[], int]
    said: Callable[[], Awaitable[str]]


def runner_argv(python: str, machine: str | None = None) -> list[str]:
    """The command of the first process inside."""
    code = seccomp_filter(machine or platform.machine()).hex()
    return [python, "-I", "-S", RUNNER, code]


class Confined(ABC):
    """Commands, files and talks over the frames of a wire; a subclass says how the wire is laid."""

    def __init__(self, limits: Limits = STRICT) -> None:
        self.limits = limits
        self._wire: Wire | None = None
        self._pump: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        self._command: Command | None = None
        self._answers: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self.broken = ""
        self._memory_kills = 0

    @abstractmethod
    async def _launch(self) -> Wire:
        """Starts the first process; raises SandboxError with what to do instead."""

    @abstractmethod
    def _rlimits(self) -> dict[str, int]:
        """The limits that each command gets from the runner, by the runner's names."""

    async def __aenter__(self) -> Self:
        """Starts the sandbox.

        A start is never broken off half-way, or nobody would end what it started: who is cancelled waits for it.
        """
        starting = asyncio.ensure_future(self._start_up())
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(SandboxError):
                await starting
                await self._destroy()
            raise
        return self

    async def _start_up(self) -> None:
        self.broken, self._memory_kills, self._answers = "", 0, asyncio.Queue()
        self._wire = wire = await self._launch()
        self._pump = asyncio.create_task(self._read(wire))
        try:
            kind, _ = await asyncio.wait_for(self._answers.get(), START)
        except BaseException as error:
            await asyncio.shield(self._destroy())
            if isinstance(error, TimeoutError):
                raise SandboxError(f"the sandbox did not start within {START:.0f} s; try again") from error
            raise
        if kind != b"H":
            said = await wire.said()
            await self._destroy()
            raise SandboxError(f"the sandbox did not start ({said or 'no message'}); see `agentlab doctor`")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kills and removes everything of it."""
        await asyncio.shield(self._destroy())

    async def _destroy(self) -> None:
        wire, pump, self._wire, self._pump = self._wire, self._pump, None, None
        if wire is not None:
            await wire.destroy()
            wire.writer.close()
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _read(self, wire: Wire) -> None:
        """Sorts frames until they end; what waits is woken."""
        try:
            while True:
                kind, size = HEAD.unpack(await wire.reader.readexactly(HEAD.size))
                if size > MOST_INPUT:
                    raise ConnectionError(f"a frame of {size} bytes")
                self._sort(bytes([kind]), await wire.reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError, ValueError, KeyError, TypeError):  # it ended, or talks nonsense
            self.broken = self.broken or "the sandbox ended; open a new one"
            self._answers.put_nowait((b"F", self.broken.encode()))
            if self._command is not None:
                self._command.woken.set()

    def _sort(self, kind: bytes, payload: bytes) -> None:
        command = self._command
        if kind in b"OR" and command is not None:
            command.keep(kind, payload)
        elif kind == b"X" and command is not None:
            command.code, command.memory_kills = map(int, payload.split())
        elif kind == b"F" and command is not None and command.code is None:
            command.failed = payload.decode(errors="replace")
        else:
            self._answers.put_nowait((kind, payload))
            return
        command.woken.set()

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        if self._wire is None:
            raise SandboxError("the sandbox is not open; use it in `async with`")
        if self.broken:
            raise SandboxError(self.broken)
        self._wire.writer.write(HEAD.pack(kind[0], len(payload)) + payload)

    def _start(self, argv: Sequence[str], cwd: str, env: Mapping[str, str] | None) -> Command:
        if not argv:
            raise SandboxError("(nothing): cannot be started; give the path of a program")
        limits = {"core": 0, **self._rlimits()}
        variables = {**BARE, **self._environment(), **(env or {})}
        named = [[f"{name}={value}" for name, value in one.items()] for one in (limits, variables)]
        words = [self._inside(cwd), *(w for part in (argv, *named) for w in (str(len(part)), *part))]
        if any("\0" in word for word in words):
            raise SandboxError(f"{shlex.join(argv)[:200]!r}: a zero byte ends a word; write the command without")
        self._command = Command(self.limits.output_bytes)
        self.send(b"S", os.fsencode("\0".join(words) + "\0"))
        return self._command

    def _environment(self) -> dict[str, str]:
        return {}

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - part of the sandbox protocol, and it kills the tree
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
    ) -> Executed:
        """Runs one command; raises SandboxError when it cannot be started or the sandbox is gone."""
        data, began = stdin.encode(), time.monotonic()
        if len(data) > MOST_INPUT:
            raise SandboxError(f"stdin of {len(data)} bytes is above {MOST_INPUT}; `put` a file in parts")
        async with self._busy:
            command = self._start(argv, cwd, env)
            self.send(b"E", data)
            try:
                timed_out = not await self._ended(command, timeout)
                if timed_out:
                    await self.stop(command)
            finally:
                if command.code is None and not command.failed:
                    await asyncio.shield(self.stop(command))
                self._command = None
            if command.failed:
                raise SandboxError(f"{shlex.join(argv)[:200]}: cannot be started ({command.failed})")
            memory = self.out_of_memory(command)
        if command.code is None and not (timed_out or memory):
            raise SandboxError(self.broken or "the sandbox ended; open a new one")
        out, err = bytes(command.out), bytes(command.err)
        return Executed(
            argv=tuple(argv), returncode=-9 if command.code is None else command.code,
            stdout=out.decode(errors="replace"), stderr=err.decode(errors="replace"), timed_out=timed_out,
            truncated=max(len(out), len(err)) >= command.limit, seconds=time.monotonic() - began, out_of_memory=memory,
        )  # fmt: skip

    async def _ended(self, command: Command, seconds: float | None) -> bool:
        """Whether the command (or the sandbox) ended within so many seconds."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while command.code is None and not command.failed and not self.broken:
            command.woken.clear()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            try:
                await asyncio.wait_for(command.woken.wait(), left)
            except TimeoutError:
                return False
        return True

    async def stop(self, command: Command) -> None:
        """Kills what runs; where it is not gone in time, or the kill cannot be sent, kills the sandbox."""
        if not self.broken and self._wire is not None:
            self.send(b"K")
            if await self._ended(command, GRACE) and not self.broken:
                return
        self.broken = self.broken or "the sandbox was killed with a command that did not die; open a new one"
        if self._wire is not None:
            await self._wire.destroy()

    def out_of_memory(self, command: Command) -> bool:
        """Whether a process was killed for its memory since this was last asked, even where its parent went on."""
        outside = 0 if self._wire is None else self._wire.memory_kills()
        before, self._memory_kills = self._memory_kills, max(self._memory_kills, command.memory_kills, outside)
        return self._memory_kills > before

    def release(self) -> None:
        """Lets the next command in; the one before is over."""
        self._command = None
        self._busy.release()

    async def open(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Talk:
        """Starts a program to talk to, which holds the sandbox until it is closed."""
        await self._busy.acquire()
        try:
            return Conversation(self, self._start(argv, ".", env))
        except BaseException:
            self._busy.release()
            raise

    async def put(self, path: str | PurePosixPath, data: bytes) -> None:
        """Writes a file, making the folders above it."""
        if len(data) > MOST_INPUT:
            raise SandboxError(f"{path}: {len(data)} bytes are above {MOST_INPUT}; put it in parts")
        name = self._inside(str(path)).encode()
        await self._ask(b"P", len(name).to_bytes(4, "big") + name + data, str(path))

    async def get(self, path: str | PurePosixPath) -> bytes:
        """Reads a plain file of at most 64 MiB; a link is not followed."""
        return await self._ask(b"G", self._inside(str(path)).encode(), str(path))

    async def _ask(self, kind: bytes, payload: bytes, path: str) -> bytes:
        async with self._busy:
            self.send(kind, payload)
            answer, data = b"", b""
            try:
                answer, data = await asyncio.wait_for(self._answers.get(), ANSWER)
            except TimeoutError as error:
                raise SandboxError(f"{path}: no answer within {ANSWER:.0f} s; open a new sandbox") from error
            finally:
                if not answer:  # one that comes later would be taken for the answer to the next question
                    self.broken = self.broken or "the sandbox was left in the middle of a file; open a new one"
                    if self._wire is not None:
                        await asyncio.shield(self._wire.destroy())
        if answer != b"D":
            why = data.decode(errors="replace")
            missing = "no such file in the sandbox" if "No such file" in why else why
            raise SandboxError(f"{path}: {missing}; `put` it or let the program write it first")
        return data

    @staticmethod
    def _inside(path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\0" in path:
            raise SandboxError(f"{path}: outside the sandbox's folder; give a path below it")
        return str(WORK / pure)
