"""A command of a confined sandbox, and talking to it line by line."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from agentlab.envs import MOST_INPUT, Failure, Reply, SandboxError

MOST_LINE = 32 << 20
"""Bytes of one answer."""


@dataclass
class Command:
    """What has come from the running command; `woken` is set whenever something came."""

    limit: int
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    total: int = 0
    lines: int = 0
    memory_kills: int = 0
    code: int | None = None
    failed: str = ""
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, kind: bytes, payload: bytes) -> None:
        """Keeps what a frame brought, up to the limit."""
        kept = self.out if kind == b"O" else self.err
        kept += payload[: max(0, self.limit - len(kept))]
        self.total += len(payload)
        self.lines += payload.count(b"\n") if kind == b"O" else 0


class Holder(Protocol):
    """What a conversation needs of its sandbox."""

    broken: str
    """Why the sandbox is of no use any more, "" while it is."""

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """One frame to the first process."""
        ...

    async def stop(self, command: Command) -> None:
        """Kills the command and whatever it started, if need be with the sandbox."""
        ...

    def out_of_memory(self, command: Command) -> bool:
        """Whether a process was killed for its memory since this was last asked."""
        ...

    def release(self) -> None:
        """Lets the next command in."""
        ...


class Conversation:
    """Lines to and from the running program of a sandbox."""

    def __init__(self, sandbox: Holder, command: Command) -> None:
        self._sandbox, self._command = sandbox, command
        self._failure: Failure = ""
        command.limit = MOST_LINE
        self._open = True

    async def ask(self, line: bytes, timeout: float) -> Reply:  # noqa: ASYNC109 - a late answer is a value
        """The next line after this one was sent; its first failure is its last answer."""
        command, sandbox = self._command, self._sandbox
        if not self._failure:
            if len(line) > MOST_INPUT or b"\n" in line:
                raise SandboxError(f"a line of {len(line)} bytes; send one line of at most {MOST_INPUT}")
            command.out.clear()  # what it said before it was asked answers nothing
            command.total = command.lines = 0
            sandbox.send(b"I", line + b"\n")
            self._failure = await self._wait(time.monotonic() + timeout)
        if self._failure:
            await self.close()
            return Reply(b"", self._failure)
        answer, _, rest = bytes(command.out).partition(b"\n")
        command.out[:] = rest
        return Reply(answer)

    async def _wait(self, deadline: float) -> Failure:
        command, sandbox = self._command, self._sandbox
        while not command.lines:
            if command.total > command.limit:
                return "flood"
            if command.code is not None or command.failed or sandbox.broken:
                return "memory" if sandbox.out_of_memory(command) else "ended"
            command.woken.clear()
            try:
                await asyncio.wait_for(command.woken.wait(), deadline - time.monotonic())
            except TimeoutError:
                return "time-out"
        return "flood" if command.total > command.limit else ""

    async def close(self) -> None:
        """Kills the program; the sandbox is free again."""
        if not self._open:
            return
        self._open, sandbox = False, self._sandbox
        if not self._failure:
            self._failure = "ended"
        try:
            if self._command.code is None and not self._command.failed:
                await asyncio.shield(sandbox.stop(self._command))
        finally:
            sandbox.release()
