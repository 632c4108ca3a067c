"""Warm sandboxes: each holds a started program that waits for its first line, serves one candidate and is destroyed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from agentlab.envs import Sandbox, SandboxError, Talk

WARM_SECONDS = 60.0
"""How long a program may take until it answers for the first time."""


@dataclass(frozen=True)
class _Warm:
    box: Sandbox
    talk: Talk


class Pool:
    """Keeps `size` warm sandboxes ready; `async with pool.take() as talk` gives one that nobody used before.

    `make` makes a sandbox, `argv` says which program to start in it, `hello` is the line that it answers when it is
    warm. At most `starting` sandboxes start at once. What was taken is destroyed in the background: a program that
    hangs delays nobody but its own caller.
    """

    def __init__(
        self,
        make: Callable[[], Sandbox],
        argv: Callable[[Sandbox], Sequence[str]],
        hello: bytes,
        *,
        size: int = 4,
        starting: int = 2,
    ) -> None:
        self._make, self._argv, self._hello, self._size = make, argv, hello, size
        self._ready: asyncio.Queue[_Warm | BaseException] = asyncio.Queue()
        self._slots = asyncio.Semaphore(starting)
        self._filling: set[asyncio.Task[_Warm]] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Starts warming; does not wait for it."""
        for _ in range(self._size):
            self._refill()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Destroys every sandbox, warm or taken, and waits until all are gone."""
        for task in self._filling:
            task.cancel()
        await asyncio.gather(*self._filling, return_exceptions=True)
        while not self._ready.empty():
            self._end(self._ready.get_nowait())
        await asyncio.gather(*self._ending, return_exceptions=True)

    @property
    def ready(self) -> int:
        """How many sandboxes wait."""
        return self._ready.qsize()

    async def filled(self) -> None:
        """Waits until nothing is being warmed: the pool is full, or could not be filled."""
        while self._filling:
            await asyncio.wait(self._filling)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Talk]:
        """A warm program that nobody has talked to; raises SandboxError where none can be started."""
        warm = await self._ready.get()
        self._refill()
        if isinstance(warm, BaseException):
            raise warm
        try:
            yield warm.talk
        finally:
            self._end(warm)

    def _refill(self) -> None:
        task = asyncio.create_task(self._fill())
        self._filling.add(task)
        task.add_done_callback(self._filled)

    async def _fill(self) -> _Warm:
        async with self._slots:
            return await self._warm()

    def _filled(self, task: asyncio.Task[_Warm]) -> None:
        """Whoever takes next gets the sandbox, or the error that kept it from starting, whatever it is."""
        self._filling.discard(task)
        if not task.cancelled():
            self._ready.put_nowait(task.exception() or task.result())

    async def _warm(self) -> _Warm:
        box = self._make()
        await box.__aenter__()
        try:
            talk = await box.open(self._argv(box))
            reply = await talk.ask(self._hello, WARM_SECONDS)
        except BaseException:
            await asyncio.shield(box.__aexit__(None, None, None))
            raise
        if reply.failure:
            await box.__aexit__(None, None, None)
            raise SandboxError(f"the program of the sandbox did not start ({reply.failure}); see `agentlab doctor`")
        return _Warm(box, talk)

    def _end(self, warm: _Warm | BaseException) -> None:
        if isinstance(warm, BaseException):
            return
        task = asyncio.create_task(warm.box.__aexit__(None, None, None))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
