"""The hard caps of a run on tokens, money, FLOPs and time: no call begins unless its worst case fits into all of them.

with await purse.reserve(prompt_bound(prompt), max_tokens, price) as claim:
    claim.settle(await model.complete(prompt, ...))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from agentlab.budget_cost import NANO, Cost, cost_of, nanos, worst_of
from agentlab.budget_regime import Regime, Use, block, known, number, regime, stance, tightest
from agentlab.errors import AgentlabError
from agentlab.ledger import Asked, Hold, Ledger, Line, OverBudgetError
from agentlab.models import Reply
from agentlab.models_prices import Price
from agentlab.types import Budget

__all__ = [
    "Claim",
    "Cost",
    "Left",
    "Price",
    "Purse",
    "Regime",
    "Spent",
    "UnpricedError",
    "Use",
    "block",
    "cost_of",
    "regime",
    "stance",
    "tightest",
    "worst_of",
]

WARN = (0.5, 0.8)
"""Shares of a cap at which a person is told."""

NO_PRICE = "budget.usd= limits money, and a model has no price; write one into the file that $AGENTLAB_PRICES names"


class UnpricedError(AgentlabError):
    """Money has a cap, and a model is asked whose price is not known."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a run can still spend; infinite where there is no cap."""

    tokens: float
    usd: float
    flops: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has spent: `cost` is that of all `calls` that took something, `lost` of them without a reply."""

    cost: Cost
    calls: int
    lost: int
    flops: float
    seconds: float

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        return self.cost.tokens

    @property
    def usd(self) -> float:
        """What they cost in USD."""
        return self.cost.usd


class Claim:
    """What is set aside for one call: `settle` it with the reply, or say that it is `lost` or cost nothing, once.

    Left as a context manager without any of these, the reply is lost: nobody waits for it any more.
    """

    __slots__ = ("_money", "_price", "_purse", "_tokens", "worst")

    def __init__(self, purse: Purse, worst: Cost, price: Price | None, holds: tuple[Hold, ...]) -> None:
        self.worst = worst
        self._purse: Purse | None = purse
        self._price = price
        self._tokens, self._money = holds

    def settle(self, reply: Reply) -> Cost:
        """Book what the reply took, and return it.

        Raises:
            BrokenBoundError: it is more than was set aside; it is booked as it is.
            ValueError: the claim was settled before.
        """
        return self._book(cost_of(reply, self._price), lost=False)

    def lost(self) -> Cost:
        """Book the worst case: the model may have worked on a reply. Raises ValueError where it was settled before."""
        return self._book(self.worst, lost=True)

    def free(self) -> None:
        """Book nothing: the call was refused. Raises ValueError where it was settled before."""
        self._closed()
        self._tokens.free()
        self._money.free()

    def _book(self, cost: Cost, *, lost: bool) -> Cost:
        self._closed()._count(cost, lost=lost)  # noqa: SLF001 - the other half of this class
        try:
            self._money.settle(cost.nanos)
        finally:
            self._tokens.settle(cost.tokens)
        return cost

    def _closed(self) -> Purse:
        if self._purse is None:
            raise ValueError("this call is settled already")
        purse, self._purse = self._purse, None
        return purse

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._purse is not None:
            self.lost()


class Purse:
    """What a run may spend in all: `tokens`, `usd` (in whole nano-dollars) and `flops` are the ledgers.

    A resource without a cap is counted all the same.

    Args:
        tokens: Tokens, in and out.
        usd: Dollars; every call then needs a price.
        flops: FLOPs of training runs.
        seconds: Seconds; never set aside: no call begins once they are over.
        clock: Seconds that the run has taken so far, those before a resume included.

    Raises:
        ValueError: seconds without a clock.
    """

    def __init__(
        self,
        *,
        tokens: float = math.inf,
        usd: float = math.inf,
        flops: float = math.inf,
        seconds: float = math.inf,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if clock is None and seconds < math.inf:
            raise ValueError("a cap on seconds needs a clock")
        self._line = Line()
        self.tokens = Ledger(tokens, "tokens", key="budget.tokens", line=self._line)
        self.usd = Ledger(nanos(usd), "USD", scale=NANO, key="budget.usd", line=self._line)
        self.flops = Ledger(flops, "FLOPs", key="budget.flops")
        self._seconds, self._clock = seconds, clock or (lambda: 0.0)
        self._cost, self._calls, self._lost = Cost(), 0, 0
        self._told: dict[str, float] = {}

    @classmethod
    def of(cls, budget: Budget, clock: Callable[[], float] | None = None) -> Purse:
        """The purse of a run's settings; candidates are not its matter."""
        caps = (budget.tokens, budget.usd, budget.flops, budget.seconds)
        tokens, usd, flops, seconds = (math.inf if cap is None else cap for cap in caps)
        return cls(tokens=tokens, usd=usd, flops=flops, seconds=seconds, clock=clock)

    async def reserve(self, tokens_in: int, tokens_out: int, price: Price | None = None) -> Claim:
        """Set the worst case of a call aside, in tokens and in money, or neither; first come, first served.

        It waits while what does not fit is only set aside by calls under way.

        Args:
            tokens_in: The most tokens that the prompt can come to.
            tokens_out: The most tokens of the reply.
            price: What the model's tokens cost, None where it is not known.

        Raises:
            OverBudgetError: a cap has no room for it, and would not if every call under way cost nothing.
            UnpricedError: there is a cap on money and no price.
        """
        worst = self._worst(tokens_in, tokens_out, price)
        claim = Claim(self, worst, price, await self._line.reserve(self._asked(worst)))
        try:
            self._in_time()
        except OverBudgetError:
            claim.free()
            raise
        return claim

    def hold(self, tokens_in: int, tokens_out: int, price: Price | None = None) -> Claim:
        """Set the worst case of a call aside now, before those who wait in `reserve`.

        Raises:
            OverBudgetError: a cap has no room for it; it may, once calls under way have ended.
            UnpricedError: there is a cap on money and no price.
        """
        worst = self._worst(tokens_in, tokens_out, price)
        return Claim(self, worst, price, self._line.hold(self._asked(worst)))

    def hold_flops(self, worst: float) -> Hold:
        """Set the FLOPs of a training run aside; settle the hold with what it took. Raises OverBudgetError."""
        return self.flops.hold(worst)

    def recall(self, tokens_in: int, tokens_cached: int, tokens_out: int, usd: float, *, calls: int = 1) -> None:
        """Book what a trace says was spent before a resume, even where the caps are lower now."""
        cost = Cost(tokens_in, tokens_cached, tokens_out, round(usd * NANO))
        self.tokens.book(cost.tokens)
        self.usd.book(cost.nanos)
        self._count(cost, lost=False, calls=calls)

    def spent(self) -> Spent:
        """What is booked so far; calls under way are not in it."""
        return Spent(self._cost, self._calls, self._lost, self.flops.spent, self._clock())

    def left(self) -> Left:
        """What is not booked yet of each cap; what calls under way have set aside counts as left."""
        tokens, usd, flops = (max(0, one.cap - one.spent) for one in (self.tokens, self.usd, self.flops))
        return Left(tokens, usd / NANO, flops, max(0.0, self._seconds - self._clock()))

    def uses(self) -> tuple[Use, ...]:
        """What is used of each cap but that on time."""
        named = {"tokens": self.tokens, "usd": self.usd, "flops": self.flops}
        capped = ((name, one) for name, one in named.items() if one.cap < math.inf)
        return tuple(Use(name, one.spent / one.scale, one.cap / one.scale) for name, one in capped)

    def time_regime(self) -> Regime | None:
        """The regime of time by the clock, None where it has no cap: a run puts it on record and then goes by that."""
        return None if (use := self._time()) is None else use.regime

    def regimes(self, time_regime: str | None = None) -> dict[str, Regime]:
        """The regime of each resource that has a cap, of time as it is on record."""
        found = {use.resource: use.regime for use in self.uses()}
        return found if time_regime is None else found | {"time": known(time_regime)}

    def overall(self, time_regime: str | None = None) -> Regime:
        """The tightest of the regimes."""
        return tightest(self.regimes(time_regime).values())

    def block(self, time_regime: str | None = None) -> str:
        """The lines of a prompt that say what is used and what is left, of time as it is on record."""
        return block(self.uses(), time_regime)

    def warnings(self) -> list[str]:
        """A line for a person for each resource that has passed half or four fifths of its cap since it was last asked.

        Each is told once, the lower not after the higher one. Time is among them, so the lines belong in no trace.
        """
        time = self._time()
        lines = []
        for use in (*self.uses(), *(() if time is None else (time,))):
            passed = max((share for share in WARN if use.share >= share), default=0.0)
            if passed > self._told.get(use.resource, 0.0):
                self._told[use.resource] = passed
                lines.append(_warning(use))
        return lines

    def _worst(self, tokens_in: int, tokens_out: int, price: Price | None) -> Cost:
        if price is None and self.usd.cap < math.inf:
            raise UnpricedError(NO_PRICE)
        self._in_time()
        return worst_of(tokens_in, tokens_out, price)

    def _asked(self, worst: Cost) -> Asked:
        return ((self.tokens, worst.tokens), (self.usd, worst.nanos))

    def _time(self) -> Use | None:
        return None if math.isinf(self._seconds) else Use("seconds", self._clock(), self._seconds)

    def _in_time(self) -> None:
        if self._clock() >= self._seconds:
            told = f"the budget of {number('seconds', self._seconds)} seconds has 0 left"
            raise OverBudgetError(f"{told}, and the next call takes some; raise budget.seconds=", "seconds")

    def _count(self, cost: Cost, *, lost: bool, calls: int = 1) -> None:
        self._cost += cost
        self._calls += calls
        self._lost += lost


def _warning(use: Use) -> str:
    key = f"budget.{use.resource}"
    of = f"{number(use.resource, use.used)} of {number(use.resource, use.cap)}"
    return f"{key}: {of} used ({math.floor(100 * use.share)}%); raise {key}= to go on for longer"
