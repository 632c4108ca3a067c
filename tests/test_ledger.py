"""A budget that many share: the worst case fits before a call is made, and what was booked is what was paid."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.ledger import BrokenBoundError, Ledger, OverBudgetError


@given(st.integers(20, 2000), st.integers(1, 300), st.integers(0, 10**6))
def test_many_callers_never_overrun_and_the_books_equal_the_receipts(cap: int, callers: int, seed: int) -> None:
    ledger, chance, receipts = Ledger(cap), random.Random(seed), []  # noqa: S311 - a simulation, no secret

    async def caller() -> None:
        while True:
            worst = chance.randint(1, 20)
            try:
                hold = await ledger.reserve(worst)
            except OverBudgetError:
                return
            assert ledger.spent + ledger.held <= cap
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
            receipts.append(chance.randint(1, worst))
            hold.settle(receipts[-1])

    async def all_of_them() -> None:
        await asyncio.gather(*(caller() for _ in range(callers)))

    asyncio.run(all_of_them())
    assert (ledger.spent, ledger.receipts, ledger.held) == (sum(receipts), len(receipts), 0)
    assert cap - 20 < ledger.spent <= cap


def test_a_caller_waits_for_what_others_may_give_back() -> None:
    async def wait() -> list[str]:
        ledger, told = Ledger(10), []
        first = await ledger.reserve(8)

        async def second() -> None:
            (await ledger.reserve(6)).settle(6)
            told.append("served")

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        told.append("waits")
        first.settle(1)
        await waiting
        return told

    assert asyncio.run(wait()) == ["waits", "served"]


def test_one_who_gives_up_waiting_leaves_the_place_to_the_next() -> None:
    async def wait() -> float:
        ledger = Ledger(10)
        first = await ledger.reserve(8)
        gone, next_one = (asyncio.create_task(ledger.reserve(worst)) for worst in (10, 2))
        await asyncio.sleep(0)
        gone.cancel()
        async with asyncio.timeout(30):  # nobody waits for ever
            (await next_one).settle(2)
        first.settle(8)
        return ledger.spent

    assert asyncio.run(wait()) == 10


def test_a_caller_that_is_served_and_cancelled_at_once_gives_everything_back() -> None:
    async def wait() -> tuple[float, float, int]:
        ledger = Ledger(10)
        first = await ledger.reserve(8)
        waiting = asyncio.create_task(ledger.reserve(6))
        await asyncio.sleep(0)
        first.settle(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return ledger.spent, ledger.held, ledger.receipts

    assert asyncio.run(wait()) == (1, 0, 1)


def test_who_came_first_is_served_first() -> None:
    async def wait() -> list[int]:
        ledger, order = Ledger(10), []
        first = await ledger.reserve(9)

        async def caller(number: int, worst: float) -> None:
            hold = await ledger.reserve(worst)
            order.append(number)
            hold.settle(1)

        callers = [asyncio.create_task(caller(i, worst)) for i, worst in enumerate((6, 1, 1))]
        await asyncio.sleep(0)
        first.settle(1)
        await asyncio.gather(*callers)
        return order

    assert asyncio.run(wait()) == [0, 1, 2]


def test_what_cannot_fit_is_refused_in_one_line() -> None:
    ledger = Ledger(10, "tokens")
    ledger.hold(4).settle(4)
    with pytest.raises(OverBudgetError, match=r"the budget of 10 tokens has 6 left; the next call may take 7"):
        ledger.hold(7)
    with pytest.raises(OverBudgetError, match="may take 7"):
        asyncio.run(ledger.reserve(7))


def test_a_call_that_broke_its_bound_is_booked_and_told() -> None:
    ledger = Ledger(10)
    hold = ledger.hold(2)
    with pytest.raises(BrokenBoundError, match="took 3 tokens, more than the 2"):
        hold.settle(3)
    assert (ledger.spent, ledger.held) == (3, 0)
    with pytest.raises(ValueError, match="settled already"):
        hold.settle(1)
    with pytest.raises(ValueError, match="0 or more"):
        ledger.hold(-5)


def test_an_amount_that_is_none_is_neither_set_aside_nor_booked() -> None:
    ledger = Ledger(10)
    for worst in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite, 0 or more"):
            asyncio.run(ledger.reserve(worst))
    for actual in (-1, float("nan")):
        with pytest.raises(ValueError, match="what was spent is 0 or more"):
            ledger.hold(2).settle(actual)
        with pytest.raises(ValueError, match="what was spent is 0 or more"):
            ledger.book(actual)
    assert (ledger.spent, ledger.held, ledger.receipts) == (0, 0, 0)
    with pytest.raises(ValueError, match="a cap is 0 or more"):
        Ledger(-1)


def test_what_calls_under_way_have_set_aside_is_not_there_for_one_that_does_not_wait() -> None:
    ledger = Ledger(10)
    first = ledger.hold(8)
    with pytest.raises(OverBudgetError, match="has 2 left; the next call may take 3"):
        ledger.hold(3)
    first.free()
    with pytest.raises(ValueError, match="settled already"):
        first.free()
    ledger.hold(10).settle(10)
    assert (ledger.spent, ledger.receipts) == (10, 1)
