"""Runs trusted programs of ours on this machine: process groups, resource limits, time-outs that kill the whole tree.

This is no protection against hostile code: a program run here can read and write whatever its user can.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from agentlab.envs import Executed, Limits, SandboxError

MARK = "AGENTLAB_PROCESS_TREE"
"""Variable by which the processes of one command are found again, even those that left its group and parent."""

_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Started:
    """A detached process; start_ticks (since boot) tells it from a later process of the same number."""

    pid: int
    start_ticks: int
    mark: str


def environment(extra: Mapping[str, str] | None = None, threads: int = 1) -> dict[str, str]:
    """What a program of ours needs of the environment, and nothing else; one thread pool size for all libraries.

    glibc is told to keep freed memory: giving tensors back to the system at every step costs 5-15% of the time.
    """
    kept = {name: os.environ[name] for name in _PASSED if name in os.environ}
    pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    memory = {
        "MALLOC_TRIM_THRESHOLD_": "2000000000",
        "MALLOC_MMAP_THRESHOLD_": "2000000000",
        "MALLOC_TOP_PAD_": "100000000",
    }
    return {**kept, **pools, **memory, "PYTHONUNBUFFERED": "1", **(extra or {})}


def start_ticks(pid: int) -> int | None:
    """Clock ticks since boot at which the process began; None when there is none, or only its zombie."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])


def alive(process: Started) -> bool:
    """Whether that very process still runs."""
    return start_ticks(process.pid) == process.start_ticks


def start(argv: Sequence[str], *, log: Path, errors: Path, cwd: Path, env: Mapping[str, str]) -> Started:
    """A detached process that outlives this one; its output is appended to `log`, its errors to `errors`."""
    mark = uuid.uuid4().hex
    with log.open("ab") as out, errors.open("ab") as err:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd,
            env={**env, MARK: mark}, start_new_session=True,
        )  # fmt: skip
    began = start_ticks(process.pid)
    process.returncode = 0  # not ours to wait for: `reap` collects it, and no warning is due when it is forgotten
    return Started(process.pid, began if began is not None else -1, mark)


def reap(pid: int) -> None:
    """Collects a dead child, if it is ours and dead; never waits."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def kill_tree(pid: int, mark: str) -> None:
    """Kills the group led by `pid` and every process that carries `mark`, until none is left."""
    for _ in range(100):
        _signal_group(pid)
        left = _marked(mark)
        for other in left:
            _signal(other)
        if not left and start_ticks(pid) is None:
            return
        time.sleep(0.01)  # a dying process keeps its number and loses its environment first


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _signal_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _marked(mark: str) -> list[int]:
    """Processes whose environment carries the mark; those of other users cannot be read and are not ours."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in variables:
            found.append(int(entry.name))
    return found


class Local:
    """The sandbox for trusted programs: a folder, limits, and no environment beyond what is needed."""

    def __init__(self, folder: Path | None = None, limits: Limits | None = None) -> None:
        self._given, self._limits = folder, limits or Limits()
        self._folder: Path | None = None
        self._running: dict[str, int] = {}

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
        for mark, pid in list(self._running.items()):
            kill_tree(pid, mark)
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
        self._running[mark] = process.pid
        self._limit(process.pid)
        reading = asyncio.ensure_future(self._talk(process, stdin.encode()))
        try:
            done, _ = await asyncio.wait({reading}, timeout=timeout)
            if not done:
                kill_tree(process.pid, mark)
            out, err = await reading
            code = await process.wait()
        finally:
            kill_tree(process.pid, mark)
            del self._running[mark]
            if not reading.done():
                reading.cancel()
        return Executed(
            argv=tuple(argv), returncode=code, stdout=out.decode(errors="replace"), stderr=err.decode(errors="replace"),
            timed_out=not done, truncated=max(len(out), len(err)) >= self._limits.output_bytes,
            seconds=time.monotonic() - began,
        )  # fmt: skip

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

    async def _spawn(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        try:
            return await asyncio.create_subprocess_exec(
                *argv, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=env, start_new_session=True
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
                hard = resource.prlimit(pid, kind)[1]
                bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
                try:
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


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> None:
    try:
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()
    except (BrokenPipeError, ConnectionResetError):  # the program did not read it all
        return


Sandbox = Local
