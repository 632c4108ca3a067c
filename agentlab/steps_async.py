"""Chains side by side, each waiting for its own answers: how jobs advance that ask a model over a network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from agentlab.ledger import OverBudgetError
from agentlab.steps import Chain, Walk
from agentlab.vote import Answer, Wave, held

TURN = 16
"""Steps after which a chain lets the others in, where its answers do not make it wait."""


class SideBySide:
    """The `go` of a Walk whose jobs draw with a coroutine function; a context manager that owns the event loop.

    The chains' tasks live from superstep to superstep; between two of them the loop stands still, so that what goes to
    disk is one moment of all chains, and no chain waits for another.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._goal, self._until = 0, 0.0
        self._enough, self._open = asyncio.Event(), asyncio.Event()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        self._runner.__exit__(kind, value, tb)

    def __call__(self, walk: Walk[Any], goal: int, until: float) -> None:
        """Advance until so many steps are decided or that time has come. Raises what a chain raised.

        A chain that failed is taken up again by the next call.
        """
        self._runner.run(self._advance(walk, goal, until))

    def run(self, waited: Coroutine[Any, Any, object]) -> None:
        """Run something else on the chains' event loop, such as the end of what they talk to."""
        self._runner.run(waited)

    def stop(self) -> None:
        """End the chains' tasks where they wait: before what they use, a journal or a client, is closed."""
        tasks = [*self._tasks.values()]
        self._tasks.clear()
        if tasks:
            self._runner.run(_ended(tasks))

    async def _advance(self, walk: Walk[Any], goal: int, until: float) -> None:
        self._goal, self._until = goal, until
        self._enough.clear()
        self._open.set()
        for number, chain in enumerate(walk.chains):
            if not chain.over and (number not in self._tasks or self._tasks[number].done()):
                self._tasks[number] = asyncio.create_task(self._chain(walk, chain))
        enough = asyncio.create_task(self._enough.wait())
        waiting: set[asyncio.Task[Any]] = {enough, *(t for t in self._tasks.values() if not t.done())}
        try:
            while len(waiting) > 1 and not enough.done():
                left = max(0.0, until - walk.clock())
                done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if not done:
                    return
        finally:
            self._open.clear()
            enough.cancel()

    async def _chain(self, walk: Walk[Any], chain: Chain[Any]) -> None:
        while not chain.over:
            index = chain.index
            walk.note(chain, index, await _step(chain))
            if walk.steps >= self._goal or walk.clock() >= self._until:
                self._enough.set()
                self._open.clear()
                await self._open.wait()  # for the next superstep
            elif not index % TURN:
                await asyncio.sleep(0)  # answers that are there at once would let no other chain in


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _step(chain: Chain[Any]) -> list[Any]:
    """Decide one step; the answers elected, none where it is undecided or the budget is spent."""
    k, drawn = chain.voting.ahead, 0
    done: list[Any] = []
    ballot = held(k, chain.voting.rules)
    item = next(ballot)
    try:
        while isinstance(item, Wave):
            answers = await _drawn(chain, item)
            drawn += item.count
            item = ballot.send(answers)
    except OverBudgetError as error:
        chain.cut_short(drawn, error)
        return done
    chain.conclude(item, k, done)
    return done


async def _drawn(chain: Chain[Any], wave: Wave) -> list[Answer]:
    """The answers of a wave; its calls are set aside in the ledger before, and booked after."""
    ledger = chain.voting.ledger
    if ledger is None:
        return list(await chain.job.draw(chain.state, chain.index, wave))
    hold = await ledger.reserve(wave.count)
    try:
        return list(await chain.job.draw(chain.state, chain.index, wave))
    finally:
        hold.settle(wave.count)
