"""Symbolic answers in bounded time: a SymPy process that is started before it is needed, kept, and killed when late."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from agentlab.errors import AgentlabError

START = 60.0
"""Seconds in which the process must be ready; importing SymPy takes about one on a free core."""

QUEUE = 120.0
"""Seconds that a call waits for those before it."""

_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_COMMAND = (sys.executable, "-m", "agentlab.tools._symbolic_worker")


class SymbolicError(AgentlabError):
    """No symbolic answer: it took too long, or SymPy could not find one."""


class TooLongError(SymbolicError):
    """The time ran out; the process was killed and another takes its place."""


@dataclass(frozen=True)
class Answer:
    """The best formula found ("" where none was), whether the search for better ones ended, and why there is none."""

    formula: str
    finished: bool
    reason: str = ""

    @property
    def note(self) -> str:
        """What to say of an answer that was cut short."""
        return "" if self.finished else "time ran out: there may be a shorter form (seconds= to change)"


class Worker:
    """One SymPy process, one request at a time; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._pending = b""

    def start(self) -> None:
        """Start the process without waiting until it is ready; nothing where it runs already."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        env = {k: os.environ[k] for k in _PASSED if k in os.environ} | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
        )
        self._ready, self._pending = False, b""
        atexit.register(self.stop)

    def stop(self) -> None:
        """Kill the process and wait for its end."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def ask(self, request: Mapping[str, Any], seconds: float) -> Answer:
        """The answer to one request of `_symbolic_worker`, or the best one there is after `seconds`.

        Raises:
            TooLongError: nothing was found in that time.
            SymbolicError: SymPy could not answer, or its process died, of memory for instance.
        """
        if not self._lock.acquire(timeout=QUEUE):
            raise SymbolicError(f"the symbolic process had no time for {QUEUE:.0f} s; ask again")
        try:
            return self._ask(json.dumps(dict(request)).encode() + b"\n", seconds)
        finally:
            self._lock.release()

    def _ask(self, line: bytes, seconds: float) -> Answer:
        self.start()
        if not self._ready:
            self._wait_ready()
        told: dict[str, Any] = {}
        try:
            self._send(line)
            end = time.monotonic() + seconds
            while "done" not in told:
                told |= self._read(end)
            formula = told.get("formula", "")
            return Answer(formula, finished=True, reason="" if formula else told.get("reason", "nothing was found"))
        except TimeoutError:
            self._replace()
            if "formula" in told:
                return Answer(told["formula"], finished=False)
            raise TooLongError(f"no answer in {seconds:g} s; write a simpler formula, or give more seconds=") from None
        except EOFError:
            self._replace()
            raise SymbolicError("the symbolic process ended early; write a simpler formula") from None

    def _wait_ready(self) -> None:
        try:
            self._ready = bool(self._read(time.monotonic() + START).get("ready"))
        except (TimeoutError, EOFError):
            self.stop()
            raise SymbolicError("the symbolic process did not start; is the package sympy installed?") from None

    def _replace(self) -> None:
        """Another process in place of one that is late or dead; it gets ready while nobody waits."""
        self.stop()
        self.start()

    def _send(self, line: bytes) -> None:
        assert self._process is not None  # noqa: S101  - started just before
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            raise EOFError from None

    def _read(self, end: float) -> dict[str, Any]:
        """The next line. Raises TimeoutError after `end` (monotonic seconds) and EOFError where the process ended."""
        assert self._process is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if not select.select([pipe], [], [], max(end - time.monotonic(), 0.0))[0]:
                raise TimeoutError
            more = os.read(pipe, 65536)
            if not more:
                raise EOFError
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told


WORKER = Worker()
"""The process that all tools of a server share; nothing runs before the first request or `WORKER.start()`."""


async def ask(request: Mapping[str, Any], seconds: float) -> Answer:
    """`WORKER.ask` from a coroutine; a cancelled call returns at once and its request ends within `seconds`."""
    return await anyio.to_thread.run_sync(WORKER.ask, request, seconds, abandon_on_cancel=True)
