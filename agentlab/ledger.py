"""A budget that many callers share and none can overrun: the worst case of a call is set aside before it."""

from __future__ import annotations

import asyncio
import math
from collections import deque

from agentlab.errors import AgentlabError


class OverBudgetError(AgentlabError):
    """The worst case of a call no longer fits into what is left; `paid` calls asked for beside it were made."""

    exit_code = 3
    paid: int = 0


class BrokenBoundError(AgentlabError):
    """A call cost more than was set aside for it: what was said to be its worst case was not."""

    exit_code = 4


class Hold:
    """An amount that is set aside for one call; `settle` it with what the call really cost, exactly once."""

    __slots__ = ("_ledger", "worst")

    def __init__(self, ledger: Ledger, worst: float) -> None:
        self._ledger: Ledger | None = ledger
        self.worst = worst

    def settle(self, actual: float) -> None:
        """Book the receipt. More than the worst case is booked as it is, and raised: the bound was no bound.

        Raises:
            BrokenBoundError: `actual` is above the amount set aside.
            ValueError: it was settled before.
        """
        if self._ledger is None:
            raise ValueError("this amount is settled already")
        ledger, self._ledger = self._ledger, None
        ledger._book(self.worst, actual)  # noqa: SLF001 - the other half of this class
        if actual > self.worst:
            raise BrokenBoundError(f"a call took {actual:g} {ledger.unit}, more than the {self.worst:g} that bound it")


class Ledger:
    """`cap` in `unit`s; `spent` is booked, `held` is set aside, `receipts` counts the calls that were booked.

    spent + held never passes the cap, as long as no call costs more than was set aside for it.
    """

    def __init__(self, cap: float = math.inf, unit: str = "tokens") -> None:
        self.cap, self.unit = cap, unit
        self.spent = 0.0
        self.held = 0.0
        self.receipts = 0
        self._open = 0
        self._waiting: deque[tuple[float, asyncio.Future[Hold]]] = deque()

    @property
    def left(self) -> float:
        """What is neither spent nor set aside."""
        return self.cap - self.spent - self.held

    def hold(self, worst: float) -> Hold:
        """Set an amount aside now.

        Raises:
            OverBudgetError: it does not fit.
            ValueError: it is negative.
        """
        if worst < 0:
            raise ValueError(f"{worst:g} {self.unit}: an amount to set aside is 0 or more")
        if worst > self.left:
            raise self._over(worst)
        return self._take(worst)

    async def reserve(self, worst: float) -> Hold:
        """Set an amount aside, once the calls under way have given back enough; first come, first served.

        Raises:
            OverBudgetError: it does not fit, and would not if every call under way cost nothing.
        """
        if not self._waiting and worst <= self.left:
            return self.hold(worst)
        if worst > self.cap - self.spent:
            raise self._over(worst)
        turn: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()
        place = (worst, turn)
        self._waiting.append(place)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(turn.result())  # it was served and cancelled in the same moment
            elif place in self._waiting:
                self._waiting.remove(place)
                self._serve()
            raise

    def _take(self, worst: float) -> Hold:
        self.held += worst
        self._open += 1
        return Hold(self, worst)

    def _book(self, worst: float, actual: float) -> None:
        self.spent += actual
        self.receipts += 1
        self._free(worst)

    def _give_back(self, hold: Hold) -> None:
        hold._ledger = None  # noqa: SLF001 - the other half of this class
        self._free(hold.worst)

    def _free(self, worst: float) -> None:
        self.held = self.held - worst if self._open > 1 else 0.0
        self._open -= 1
        self._serve()

    def _serve(self) -> None:
        """Hand what has come free to those who wait, in order; tell them when it cannot come any more."""
        while self._waiting:
            worst, turn = self._waiting[0]
            if turn.done():  # cancelled
                self._waiting.popleft()
            elif worst <= self.left:
                self._waiting.popleft()
                turn.set_result(self._take(worst))
            elif worst > self.cap - self.spent:
                self._waiting.popleft()
                turn.set_exception(self._over(worst))
            else:
                return

    def _over(self, worst: float) -> OverBudgetError:
        left = max(0.0, self.cap - self.spent)
        return OverBudgetError(
            f"the budget of {self.cap:g} {self.unit} has {left:g} left; the next call may take {worst:g}"
        )
