"""Commands that answer one call: a process each, joined when asked for twice, killed when nobody waits any more.

A call gets its answer within WAIT seconds, or is told that the command goes on: the same call again gets the answer.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import anyio
from mcp.server.mcpserver.exceptions import ToolError

WAIT = 15.0
"""Seconds that a call waits for its command: clients give up on calls that take longer than about 20."""
LOOK = 0.03
LONGEST = 900.0
"""Seconds after which a command is ended that nobody has asked for again."""
KEPT = 32
"""Answers that are kept for who asks again."""
CLI = ("-P", "-c", "from agentlab.cli import main; main()")
"""Arguments of Python that are the command line `agentlab`."""

Tell = Callable[[float], Awaitable[None]]

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


@dataclass
class _Under:
    """A command under way, who waits for it, and what it said once it has ended."""

    process: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]
    began: float
    waiting: int = 0
    answer: dict[str, Any] | None = None

    def read(self) -> dict[str, Any]:
        """What the command said; it has ended."""
        if self.answer is None:
            texts = []
            for file in (self.out, self.err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
                file.close()
            self.answer = _answer(self.process.returncode, *texts)
        return self.answer

    def kill(self) -> None:
        """End it and all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.out.close()
        self.err.close()


class Calls:
    """The commands of one server. All methods belong to its event loop."""

    def __init__(self) -> None:
        self._under: dict[str, _Under] = {}
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._closes = False

    async def ask(
        self, argv: Sequence[str], told: object = None, tell: Tell | None = None, *,
        stamp: object = None, keys: bool = False, keep: bool = True,
    ) -> dict[str, Any] | None:  # fmt: skip
        """The JSON object that `python ARGV` prints last, given `told` as JSON; None while it is not there yet.

        Args:
            argv: What follows Python on the command line.
            told: What the command reads from its standard input.
            tell: Awaited with the seconds that the call has waited, once a second.
            stamp: What the answer depends on beside the arguments: another stamp is another question.
            keys: Whether it gets our API keys.
            keep: Whether the answer may be given again and again; else once, to who asked.

        Raises:
            ToolError: the command refuses, in its own line, or there is no room for it.
        """
        request = json.dumps([list(argv), told, stamp], sort_keys=True)
        end = time.monotonic() + WAIT
        self._sweep()
        if request in self._answers:
            return self._told(request, self._answers.pop(request), keep=keep)
        while (one := self._under.get(request)) is None and not self._room():
            if time.monotonic() > end:
                raise ToolError(f"{len(self._under)} commands are being carried out; call again in a while")
            await anyio.sleep(LOOK)
        if one is None:
            one = self._begin(request, argv, told, keys=keys)
        if not await self._ended(request, one, end, tell):
            return None
        self._under.pop(request, None)
        return self._told(request, one.read(), keep=keep)

    def _told(self, request: str, found: dict[str, Any], *, keep: bool) -> dict[str, Any]:
        """What a command said, to who asks; a refusal is told once, for what it speaks of may be mended."""
        if "error" in found:
            raise ToolError(str(found["error"]))
        if keep:
            self._keep(request, found)
        return found

    async def _ended(self, request: str, one: _Under, end: float, tell: Tell | None) -> bool:
        """Wait for a command; it is killed where the last who waited goes away."""
        one.waiting += 1
        second = 0
        try:
            while one.process.poll() is None:
                waited = time.monotonic() - end + WAIT
                if waited > WAIT:
                    return False
                if tell is not None and waited > second + 1:
                    second = int(waited)
                    await tell(second)
                await anyio.sleep(LOOK)
        except anyio.get_cancelled_exc_class():
            if one.waiting == 1 and self._under.pop(request, None) is one:
                one.kill()
            raise
        finally:
            one.waiting -= 1
        return True

    def _sweep(self) -> None:
        """Lay by what commands said that ended when nobody waited, and end those that nobody has come back for."""
        for request, one in [(r, o) for r, o in self._under.items() if not o.waiting]:
            if one.process.poll() is not None:
                del self._under[request]
                self._keep(request, one.read())
            elif time.monotonic() - one.began > LONGEST:
                del self._under[request]
                one.kill()

    def _keep(self, request: str, found: dict[str, Any]) -> None:
        self._answers[request] = found
        while len(self._answers) > KEPT:
            self._answers.popitem(last=False)

    def _room(self) -> bool:
        """Whether another command may start: as many as there are processors, two at least."""
        return sum(one.process.poll() is None for one in self._under.values()) < max(2, os.cpu_count() or 1)

    def _begin(self, request: str, argv: Sequence[str], told: object, *, keys: bool) -> _Under:
        if not self._closes:
            self._closes = True
            atexit.register(self.close)
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 -- closed when they are read
        try:
            with tempfile.TemporaryFile() as given:
                given.write(json.dumps(told).encode())
                given.seek(0)
                process = subprocess.Popen(
                    [sys.executable, *argv], stdin=given, stdout=out, stderr=err, env=variables(keys=keys),
                    start_new_session=True,
                )  # fmt: skip
        except (OSError, ValueError) as error:  # a NUL in a word, or more words than the system takes
            out.close()
            err.close()
            raise ToolError(f"the command cannot be started ({error}); send shorter, plain texts") from error
        self._under[request] = one = _Under(process, out, err, time.monotonic())
        return one

    def close(self) -> None:
        """End every command that is under way."""
        while self._under:
            self._under.popitem()[1].kill()


def variables(*, keys: bool = False) -> dict[str, str]:
    """Our environment without secrets, one thread a command; with `keys` the variables that end in API_KEY stay."""
    kept = {k: v for k, v in os.environ.items() if not _SECRET.search(k) or (keys and k.endswith("API_KEY"))}
    return kept | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def _answer(code: int, said: str, errors: str) -> dict[str, Any]:
    last = (said.strip().splitlines() or [""])[-1]
    if code == 0:
        with suppress(ValueError):
            value = json.loads(last)
            return value if isinstance(value, dict) else {"rows": value}
    line = (errors.strip().splitlines() or [f"the command ended with code {code} and said nothing"])[-1]
    return {"error": line.removeprefix("agentlab: ")}
