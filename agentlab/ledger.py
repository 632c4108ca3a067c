"""A budget that many callers share and none can overrun: the worst case of a call is set aside before it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from agentlab.errors import AgentlabError


class OverBudgetError(AgentlabError):
    """The worst case of a call no longer fits into what is left; `paid` calls asked for beside it were made.

    `unit` is that of the budget it does not fit into.
    """

    exit_code = 3
    paid: int = 0

    def __init__(self, text: str, unit: str = "tokens") -> None:
        super().__init__(text)
        self.unit = unit


class BrokenBoundError(AgentlabError):
    """A call cost more than was set aside for it: what was said to be its worst case was not."""

    exit_code = 4


class Hold:
    """An amount that is set aside for one call; `settle` it with what the call really cost, or `free` it, once."""

    __slots__ = ("_ledger", "worst")

    def __init__(self, ledger: Ledger, worst: float) -> None:
        self._ledger: Ledger | None = ledger
        self.worst = worst

    def settle(self, actual: float) -> None:
        """Book the receipt. More than the worst case is booked as it is, and raised: the bound was no bound.

        Raises:
            BrokenBoundError: `actual` is above the amount set aside.
            ValueError: it is no amount, or it was settled before.
        """
        ledger = self._closed()
        try:
            ledger.book(actual)
        finally:
            ledger._free(self.worst)  # noqa: SLF001 - the other half of this class
        if actual > self.worst:
            told = f"a call took {ledger.number(actual)} {ledger.unit}, more than the {ledger.number(self.worst)}"
            raise BrokenBoundError(f"{told} that bound it")

    def free(self) -> None:
        """Give all of it back: there was no call, or it cost nothing. Raises ValueError where it was settled before."""
        self._closed()._free(self.worst)  # noqa: SLF001 - the other half of this class

    def _closed(self) -> Ledger:
        if self._ledger is None:
            raise ValueError("this amount is settled already")
        ledger, self._ledger = self._ledger, None
        return ledger


class Ledger:
    """`cap` in `unit`s; `spent` is booked, `held` is set aside, `receipts` counts the calls that were booked.

    spent + held never passes the cap, as long as no call costs more than was set aside for it. Whole numbers are kept
    whole, so sums of them are exact.

    Args:
        cap: what may be spent.
        unit: its name in errors.
        scale: how many of what is counted make one unit, such as 10**9 where dollars are counted in nano-dollars.
        key: the setting that raises the cap.
        line: where its callers wait; ledgers that are reserved together share one.
    """

    def __init__(
        self, cap: float = math.inf, unit: str = "tokens", *, scale: int = 1, key: str = "", line: Line | None = None
    ) -> None:
        if not cap >= 0:
            raise ValueError(f"{cap:g} {unit}: a cap is 0 or more")
        self.cap, self.unit, self.scale, self.key = cap, unit, scale, key
        self.spent: float = 0
        self.held: float = 0
        self.receipts = 0
        self._open = 0
        self._line = Line() if line is None else line

    @property
    def left(self) -> float:
        """What is neither spent nor set aside."""
        return self.cap - self.spent - self.held

    def number(self, amount: float) -> str:
        """An amount of what is counted, as a number of units."""
        return f"{amount / self.scale:,.12g}"

    def hold(self, worst: float) -> Hold:
        """Set an amount aside now.

        Raises:
            OverBudgetError: it does not fit.
            ValueError: it is no amount.
        """
        (hold,) = self._line.hold(((self, worst),))
        return hold

    async def reserve(self, worst: float) -> Hold:
        """Set an amount aside, once the calls under way have given back enough; first come, first served.

        Raises:
            OverBudgetError: it does not fit, and would not if every call under way cost nothing.
            ValueError: it is no amount.
        """
        (hold,) = await self._line.reserve(((self, worst),))
        return hold

    def book(self, actual: float) -> None:
        """Book what was spent without a hold, such as what is on record. Raises ValueError where it is no amount."""
        if not actual >= 0:
            raise ValueError(f"{actual:g} {self.unit}: what was spent is 0 or more")
        self.spent += actual
        self.receipts += 1

    def refusal(self, worst: float, left: float) -> OverBudgetError:
        """The error for an amount that is more than what is left."""
        has = f"the budget of {self.number(self.cap)} {self.unit} has {self.number(max(0.0, left))} left"
        more = f"; raise {self.key}=" if self.key else ""
        return OverBudgetError(f"{has}; the next call may take {self.number(worst)}{more}", self.unit)

    def _take(self, worst: float) -> Hold:
        self.held += worst
        self._open += 1
        return Hold(self, worst)

    def _free(self, worst: float) -> None:
        self.held = self.held - worst if self._open > 1 else 0
        self._open -= 1
        self._line.serve()


Asked: TypeAlias = Sequence[tuple[Ledger, float]]
"""The amounts that a call may take of each ledger."""


class Line:
    """Those who wait until amounts of one ledger or of several are free: all or none, first come, first served.

    Nobody who waits has set anything aside, so no two callers can wait for each other.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Asked, asyncio.Future[tuple[Hold, ...]]]] = deque()

    def hold(self, asked: Asked) -> tuple[Hold, ...]:
        """Set all the amounts aside now, before those who wait.

        Raises:
            OverBudgetError: one does not fit.
            ValueError: one is no amount.
        """
        _check(asked)
        if (refusal := _refusal(asked, idle=False)) is not None:
            raise refusal
        return _taken(asked)

    async def reserve(self, asked: Asked) -> tuple[Hold, ...]:
        """Set all the amounts aside, once the calls under way have given back enough of each.

        Raises:
            OverBudgetError: one does not fit, and would not if every call under way cost nothing.
            ValueError: one is no amount.
        """
        _check(asked)
        if (refusal := _refusal(asked, idle=True)) is not None:
            raise refusal
        if not self._waiting and _refusal(asked, idle=False) is None:
            return _taken(asked)
        turn: asyncio.Future[tuple[Hold, ...]] = asyncio.get_running_loop().create_future()
        place = (asked, turn)
        self._waiting.append(place)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                for hold in turn.result():
                    hold.free()  # it was served and cancelled in the same moment
            elif place in self._waiting:
                self._waiting.remove(place)
                self.serve()
            raise

    def serve(self) -> None:
        """Hand what has come free to those who wait, in order; tell them when it cannot come any more."""
        while self._waiting:
            asked, turn = self._waiting[0]
            if turn.done():  # cancelled
                self._waiting.popleft()
            elif (refusal := _refusal(asked, idle=True)) is not None:
                self._waiting.popleft()
                turn.set_exception(refusal)
            elif _refusal(asked, idle=False) is None:
                self._waiting.popleft()
                turn.set_result(_taken(asked))
            else:
                return


def _check(asked: Asked) -> None:
    for ledger, worst in asked:
        if not 0 <= worst < math.inf:
            raise ValueError(f"{worst:g} {ledger.unit}: an amount to set aside is finite, 0 or more")


def _refusal(asked: Asked, *, idle: bool) -> OverBudgetError | None:
    """Why the amounts do not fit; with `idle`, why they would not if every call under way cost nothing."""
    for ledger, worst in asked:
        left = ledger.cap - ledger.spent if idle else ledger.left
        if worst > left:
            return ledger.refusal(worst, left)
    return None


def _taken(asked: Asked) -> tuple[Hold, ...]:
    return tuple(ledger._take(worst) for ledger, worst in asked)  # noqa: SLF001 - the other half of its queue
