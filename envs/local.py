"""Runs trusted programs of ours on this machine: process groups, resource limits, time-outs that kill the whole tree.

This is no protection against hostile code: a program run here can read and write whatever its user can.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import ClassVar, Self

from agentlab.envs import MOST_INPUT, Executed, Failure, Limits, Reply, SandboxError, Talk
from agentlab.envs._processes import MARK, environment, kill_tree

MOST_LINE = 32 << 20
"""Bytes of one answer."""
GRACE = 2.0
"""Seconds in which asyncio must have collected a program that was killed."""


class Local:
    """The sandbox for trusted programs: a folder, limits, and no environment beyond what is needed."""

    confines: ClassVar[bool] = False
    strength: ClassVar[int] = 1

    def __init__(self, image: str = "law", limits: Limits | None = None, *, folder: Path | None = None) -> None:
        self._given, self._limits = folder, limits or Limits()
        self.python = sys.executable
        self.programs = str(files("agentlab.envs") / "images" / image)
        self._folder: Path | None = None
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Self:
        """Makes a temporary folder, or uses the one given, which is kept on leaving."""
        if self._given is None:
            self._folder = Path(tempfile.mkdtemp(prefix="agentlab-"))
        else:
            self._given.mkdir(parents=True, exist_ok=True)
            self._folder = self._given.resolve()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kills what still runs; removes the folder if it was made here."""
        for mark, process in list(self._running.items()):
            await _end(process, mark)
        if self._given is None and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - part of the sandbox protocol, and it kills the tree
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
    ) -> Executed:
        """Runs one command; raises SandboxError when it cannot be started."""
        mark, began = uuid.uuid4().hex, time.monotonic()
        process = await self._spawn(argv, self._path(cwd), {**environment(env), MARK: mark})
        self._running[mark] = process
        self._limit(process.pid)
        reading = asyncio.ensure_future(self._talk(process, stdin.encode()))
        ending = asyncio.ensure_future(_exit_of(process.pid))
        try:
            done, _ = await asyncio.wait({ending}, timeout=timeout)
            kill_tree(process.pid, mark)  # what it left behind may hold its output open
            out, err = await reading
            code = await process.wait()
            del self._running[mark]
        finally:
            kill_tree(process.pid, mark)  # one that was broken off is collected when the sandbox is left
            for task in (reading, ending):
                task.cancel()
        return Executed(
            argv=tuple(argv), returncode=code, stdout=out.decode(errors="replace"), stderr=err.decode(errors="replace"),
            timed_out=not done, truncated=max(len(out), len(err)) >= self._limits.output_bytes,
            seconds=time.monotonic() - began,
        )  # fmt: skip

    @classmethod
    def missing(cls, image: str = "law") -> str:
        """Nothing: it works wherever agentlab does."""
        del image
        return ""

    async def open(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Talk:
        """Starts a program to talk to."""
        mark = uuid.uuid4().hex
        process = await self._spawn(argv, self._path("."), {**environment(env), MARK: mark}, errors=False)
        self._running[mark] = process
        self._limit(process.pid)
        return _Conversation(process, mark, self._running)

    async def put(self, path: str | PurePosixPath, data: bytes) -> None:
        """Writes a file, making the folders above it."""
        target = self._path(str(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    async def get(self, path: str | PurePosixPath) -> bytes:
        """Reads a file."""
        target = self._path(str(path))
        if not target.is_file():
            raise SandboxError(f"{path}: no such file in the sandbox; `put` it or let the program write it first")
        return target.read_bytes()

    def _path(self, relative: str) -> Path:
        if self._folder is None:
            raise SandboxError("the sandbox is not open; use it in `async with`")
        target = (self._folder / relative).resolve()
        if not target.is_relative_to(self._folder):
            raise SandboxError(f"{relative}: outside the sandbox's folder; give a path below it")
        return target

    async def _spawn(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], *, errors: bool = True
    ) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        said = pipe if errors else asyncio.subprocess.DEVNULL
        try:
            return await asyncio.create_subprocess_exec(
                *argv, stdin=pipe, stdout=pipe, stderr=said, cwd=cwd, env=env, start_new_session=True, limit=MOST_LINE
            )
        except (OSError, ValueError) as error:
            name = argv[0] if argv else "(nothing)"
            raise SandboxError(f"{name}: cannot be started ({error}); give the path of a program") from error

    def _limit(self, pid: int) -> None:
        """Sets limits from outside just after the start: the program is trusted, and so nothing runs before exec."""
        limits = self._limits
        wanted = {
            resource.RLIMIT_AS: limits.memory_bytes,
            resource.RLIMIT_CPU: limits.cpu_seconds,
            resource.RLIMIT_FSIZE: limits.file_bytes,
            resource.RLIMIT_NOFILE: limits.open_files,
            resource.RLIMIT_CORE: 0,
        }
        if sys.platform != "linux":
            return
        for kind, value in wanted.items():
            if value is not None:
                try:
                    hard = resource.prlimit(pid, kind)[1]
                    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
                    resource.prlimit(pid, kind, (bound, bound))
                except ProcessLookupError:  # it ended already
                    return

    async def _talk(self, process: asyncio.subprocess.Process, stdin: bytes) -> tuple[bytes, bytes]:
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        out, err, _ = await asyncio.gather(
            self._read(process.stdout), self._read(process.stderr), _feed(process.stdin, stdin)
        )
        return out, err

    async def _read(self, stream: asyncio.StreamReader) -> bytes:
        kept = bytearray()
        while block := await stream.read(1 << 16):
            kept += block[: max(0, self._limits.output_bytes - len(kept))]
        return bytes(kept)


async def _exit_of(pid: int) -> None:
    """Waits until the process has exited; asyncio's own wait also waits for whoever else holds its output open."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, exited = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(fd, exited.set)
        await exited.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> None:
    try:
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()
    except (BrokenPipeError, ConnectionResetError):  # the program did not read it all
        return


class _Conversation:
    """Lines to and from a running program."""

    def __init__(
        self, process: asyncio.subprocess.Process, mark: str, running: dict[str, asyncio.subprocess.Process]
    ) -> None:
        self._process, self._mark, self._running = process, mark, running
        self._failure: Failure = ""

    async def ask(self, line: bytes, timeout: float) -> Reply:  # noqa: ASYNC109 - a late answer is a value
        """The next line after this one was sent; its first failure is its last answer."""
        if len(line) > MOST_INPUT or b"\n" in line:
            raise SandboxError(f"a line of {len(line)} bytes; send one line of at most {MOST_INPUT}")
        if not self._failure:
            answer = await self._answer(line, timeout)
            if not self._failure:
                return Reply(answer)
            await self.close()
        return Reply(b"", self._failure)

    async def _answer(self, line: bytes, seconds: float) -> bytes:
        process = self._process
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        try:
            async with asyncio.timeout(seconds):
                process.stdin.write(line + b"\n")
                await process.stdin.drain()
                answer = await process.stdout.readline()
        except TimeoutError:
            self._failure = "time-out"
        except ValueError:
            self._failure = "flood"
        except (BrokenPipeError, ConnectionResetError):
            self._failure = "ended"
        else:
            self._failure = "" if answer.endswith(b"\n") else "ended"
            return answer.removesuffix(b"\n")
        return b""

    async def close(self) -> None:
        """Kills the program and what it started."""
        self._failure = self._failure or "ended"
        if self._running.pop(self._mark, None) is not None:
            await _end(self._process, self._mark)


async def _end(process: asyncio.subprocess.Process, mark: str) -> None:
    """Kills a program with what it started; the loop has collected it when this returns.

    asyncio waits for the end of its output too, which it does not see where nobody reads on: not for ever, then.
    """
    kill_tree(process.pid, mark)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE)


Sandbox = Local
