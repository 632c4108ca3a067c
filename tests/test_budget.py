"""The caps of a run: never passed by concurrent calls, equal to what they cost, and told in words before and after."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.budget import Purse, UnpricedError, Use, block, regime, stance, tightest
from agentlab.budget_call import charged, worst_call
from agentlab.budget_cost import NANO, Cost, cost_of, worst_of
from agentlab.budget_estimate import estimate, told, total
from agentlab.budget_regime import REGIMES
from agentlab.decisions import OUT_OF, Option, Question, decide, pick_run
from agentlab.errors import BackendError
from agentlab.ledger import BrokenBoundError, OverBudgetError
from agentlab.models import LostReplyError, Message, ModelError, Prompt, Reply, Schema, prompt_bound
from agentlab.models_prices import Price
from agentlab.types import Budget
from agentlab.vote import Rules, Undecided

PRICES = (Price(0.15, 0.6, 0.075), Price(3.0, 15.0, 0.3, call=0.0001), Price(0.0, 0.0, 0.0), Price(1 / 3, 0.7, 1.1))
"""Some with rates that no float holds; the last one charges more for what it had cached."""

CALLERS, CALLS = 16, 6
PATIENCE = 30.0
"""Seconds after which a wait is taken to be for ever; a run takes some milliseconds."""


@dataclass
class Moody:
    """A model that replies, fails, loses replies and takes its time as its dice say, and keeps the bill on its own."""

    price: Price
    purse: Purse
    dice: random.Random
    under_way: list[Cost]
    bill: list[Cost] = field(default_factory=list)
    busiest: int = 0

    async def complete(
        self,
        prompt: Prompt,
        *,
        temperature: float,  # noqa: ARG002 -- as models do
        seed: int,  # noqa: ARG002
        max_tokens: int,
        schema: Schema | None = None,
    ) -> Reply:
        worst = worst_call(prompt, max_tokens, schema=schema, price=self.price)
        self.under_way.append(worst)
        self.busiest = max(self.busiest, len(self.under_way))
        assert self.purse.tokens.held >= sum(one.tokens for one in self.under_way)
        assert self.purse.usd.held >= sum(one.nanos for one in self.under_way)
        cost = worst  # of a caller who does not wait for the reply
        try:
            for _ in range(self.dice.randint(0, 6)):
                check(self.purse)
                await asyncio.sleep(0)
            mood = self.dice.random()
            if mood < 0.15:
                cost = Cost()
                raise ModelError("rate limit", "refused")
            if mood < 0.3:
                raise LostReplyError("time-out", "no reply")
            reply = self._reply(prompt_bound(prompt, schema), max_tokens)
            cost = cost_of(reply, self.price)
            return reply
        finally:
            self.under_way.remove(worst)
            self.bill.append(cost)

    def _reply(self, bound: int, max_tokens: int) -> Reply:
        tokens_in = self.dice.choice([bound, self.dice.randint(0, bound)])
        tokens_out = self.dice.choice([max_tokens, self.dice.randint(0, max_tokens)])
        return Reply("words", "stop", tokens_in, tokens_out, self.dice.choice([0, self.dice.randint(0, tokens_in)]))


def check(purse: Purse) -> None:
    for ledger in (purse.tokens, purse.usd):
        assert ledger.spent + ledger.held <= ledger.cap


async def crowd(seed: int) -> tuple[Purse, list[Moody], list[BaseException]]:
    """Sixteen callers on one purse until it is empty; some of them are cancelled, and others come in their place."""
    dice = random.Random(seed)  # noqa: S311 - a simulation, no secret
    tokens, usd = (
        dice.choice([math.inf, dice.randint(2_000, 60_000)]),
        dice.choice([math.inf, dice.uniform(0.001, 0.1)]),
    )
    purse = Purse(tokens=tokens, usd=usd)
    under_way: list[Cost] = []
    models = [Moody(price, purse, dice, under_way) for price in PRICES[: 3 if seed % 2 else 4]]
    ends: list[BaseException] = []

    async def caller(calls: int) -> None:
        for number in range(calls):
            model, prompt = dice.choice(models), "N" * dice.randint(0, 900)
            try:
                await charged(
                    model, prompt, purse, temperature=0.0, seed=number, max_tokens=dice.randint(1, 400),
                    schema=dice.choice([None, {"type": "object"}]), price=model.price,
                )  # fmt: skip
            except ModelError:
                continue
            except OverBudgetError as error:
                ends.append(error)
            finally:
                check(purse)

    tasks = [asyncio.create_task(caller(CALLS)) for _ in range(CALLERS)]
    async with asyncio.timeout(PATIENCE):
        for _ in range(CALLERS // 2):
            for _ in range(dice.randint(0, 5)):
                await asyncio.sleep(0)
                check(purse)
            place = dice.randrange(CALLERS)
            tasks[place].cancel()
            tasks.append(tasks[place])
            tasks[place] = asyncio.create_task(caller(CALLS))
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(one is None or isinstance(one, asyncio.CancelledError) for one in found), found
    return purse, models, ends


def test_in_200_crowded_runs_no_cap_is_ever_passed_and_the_books_equal_the_bills() -> None:
    refused, busiest, lost = set(), 0, 0
    for seed in range(200):
        purse, models, ends = asyncio.run(crowd(seed))
        bill = sum((cost for model in models for cost in model.bill), Cost())
        spent = purse.spent()
        assert spent.cost == bill
        assert not models[0].under_way
        assert (purse.tokens.spent, purse.usd.spent) == (bill.tokens, bill.nanos)
        assert (spent.tokens, spent.usd) == (bill.tokens, bill.usd)
        assert purse.tokens.held == purse.usd.held == 0
        check(purse)
        refused |= {error.unit for error in ends if isinstance(error, OverBudgetError)}
        busiest, lost = max(busiest, *(model.busiest for model in models)), lost + spent.lost
    assert refused == {"tokens", "USD"}, "no run came to its cap"
    assert busiest == CALLERS
    assert lost > 200


class Plain:
    """A model that does the same each time."""

    def __init__(self, reply: Reply | BackendError) -> None:
        self.reply, self.schemas = reply, list[Schema | None]()

    async def complete(
        self,
        prompt: Prompt,  # noqa: ARG002 -- as models do
        *,
        temperature: float,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        max_tokens: int,  # noqa: ARG002
        schema: Schema | None = None,
    ) -> Reply:
        self.schemas.append(schema)
        if isinstance(self.reply, BackendError):
            raise self.reply
        return self.reply


PRICE = Price(1000.0, 2000.0, 100.0)
"""A tenth of a cent for a token in, so that sums can be done in the head."""


def ask(
    purse: Purse, reply: Reply | BackendError, *, price: Price | None = PRICE, schema: Schema | None = None
) -> Reply:
    model = Plain(reply)
    return asyncio.run(charged(model, "E", purse, temperature=0.0, seed=0, max_tokens=10, price=price, schema=schema))


def test_a_reply_is_booked_with_its_cached_tokens_in_tokens_and_in_money() -> None:
    purse = Purse(tokens=1000, usd=1.0)
    ask(purse, Reply("", "stop", 100, 5, 60))
    assert purse.spent().cost == Cost(100, 60, 5, 56 * NANO // 1000)
    assert (purse.spent().calls, purse.spent().lost) == (1, 0)
    assert purse.spent().usd == 0.056
    assert (purse.left().tokens, purse.left().usd, purse.left().flops) == (895, 0.944, math.inf)


def test_a_thousand_tenths_of_a_cent_are_a_dollar() -> None:
    purse = Purse(usd=1.2)
    for _ in range(1000):
        purse.hold(1, 0, PRICE).settle(Reply("", "stop", 1, 0))
    assert purse.usd.spent == NANO
    assert purse.spent().usd == 1.0


def test_a_call_that_does_not_fit_is_refused_with_the_cap_what_is_left_and_what_it_may_take() -> None:
    bound = prompt_bound("E") + 10
    with pytest.raises(
        OverBudgetError, match=rf"^the budget of 100 tokens has 100 left; the next call may take {bound}; raise budget"
    ) as raised:
        ask(Purse(tokens=100), Reply("", "stop", 1, 1))
    assert str(raised.value).endswith("raise budget.tokens=")
    purse = Purse(usd=0.5)
    purse.recall(1, 0, 1, 0.375)
    usd = PRICE.worst(prompt_bound("E"), 10)
    with pytest.raises(OverBudgetError, match=rf"^the budget of 0.5 USD has 0.125 left; .* {usd:g}; raise budget.usd="):
        ask(purse, Reply("", "stop", 1, 1))
    with pytest.raises(OverBudgetError, match=r"^the budget of 1e\+15 FLOPs has 1e\+15 left"):
        Purse(flops=1e15).hold_flops(1.1e15)
    assert raised.value.exit_code == 3


def test_neither_cap_keeps_anything_of_a_call_that_the_other_one_refused() -> None:
    purse = Purse(tokens=10_000, usd=0.0)
    for hold in (purse.hold, lambda *asked: asyncio.run(purse.reserve(*asked))):
        with pytest.raises(OverBudgetError, match="USD"):
            hold(10, 10, PRICE)
        assert (purse.tokens.held, purse.usd.held) == (0, 0)


def test_one_who_waits_for_money_does_not_keep_tokens_from_those_under_way() -> None:
    async def wait() -> list[str]:
        purse, told = Purse(tokens=1000, usd=1.0), []
        first = purse.hold(400, 0, Price(2000.0, 0.0, 0.0))

        async def caller(name: str, tokens: int, price: Price) -> None:
            claim = await purse.reserve(tokens, 0, price)
            told.append(name)
            claim.free()

        dear = asyncio.create_task(caller("dear", 500, PRICE))
        cheap = asyncio.create_task(caller("cheap", 1000, PRICES[2]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (purse.tokens.held, told) == (400, [])
        first.free()
        await asyncio.gather(dear, cheap)
        return told

    assert asyncio.run(wait()) == ["dear", "cheap"]


@pytest.mark.parametrize("end", ["settle", "lost", "free"])
def test_a_claim_is_settled_exactly_once(end: str) -> None:
    purse = Purse()
    reply = Reply("", "stop", 3, 2)
    claim = purse.hold(10, 10, PRICE)
    ends = {"settle": lambda: claim.settle(reply), "lost": claim.lost, "free": claim.free}
    booked = ends[end]()
    want = {"settle": cost_of(reply, PRICE), "lost": worst_of(10, 10, PRICE), "free": None}[end]
    assert booked == want
    for again in ends.values():
        with pytest.raises(ValueError, match="settled already"):
            again()
    assert purse.spent().cost == (want or Cost())
    assert purse.tokens.held == purse.usd.held == 0


def test_a_claim_that_nobody_settles_counts_as_its_worst_case() -> None:
    purse = Purse()
    with pytest.raises(KeyError), purse.hold(10, 5, PRICE):
        raise KeyError
    assert (purse.spent().tokens, purse.spent().usd, purse.spent().lost) == (15, 0.02, 1)


@pytest.mark.parametrize(("tokens_in", "tokens_out", "unit"), [(9000, 0, "tokens"), (0, 250, "USD")])
def test_a_server_that_counts_more_than_the_bound_is_booked_as_it_is_and_told(
    tokens_in: int, tokens_out: int, unit: str
) -> None:
    purse, reply = Purse(tokens=10_000, usd=1.0), Reply("", "stop", tokens_in, tokens_out)
    with pytest.raises(BrokenBoundError, match=f"{unit}, more than the"):
        ask(purse, reply)
    assert purse.spent().cost == cost_of(reply, PRICE)
    assert purse.tokens.held == purse.usd.held == 0


def test_a_server_that_counts_less_than_nothing_gives_nothing_back() -> None:
    assert cost_of(Reply("", "stop", -5, -7, 9), PRICE) == Cost()
    assert cost_of(Reply("", "stop", 5, 7, 90), PRICE) == Cost(
        5, 5, 7, cost_of(Reply("", "stop", 5, 7, 5), PRICE).nanos
    )


@given(
    st.builds(Price, *[st.floats(0, 999, allow_nan=False)] * 4),
    st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 10**5),
)  # fmt: skip
def test_no_reply_within_its_tokens_costs_more_than_the_worst_case(
    price: Price, tokens_in: int, cached: int, tokens_out: int, more: int
) -> None:
    worst = worst_of(tokens_in, tokens_out + more, price)
    cost = cost_of(Reply("", "stop", tokens_in, tokens_out, cached), price)
    assert cost.tokens <= worst.tokens
    assert cost.nanos <= worst.nanos
    assert round(cost.usd * NANO) == cost.nanos, "what a trace holds is what was booked"


def test_what_a_trace_recalls_is_what_was_spent_even_above_a_cap_that_is_lower_now() -> None:
    purse, again = Purse(), Purse(tokens=100, usd=0.01)
    for reply in (Reply("", "stop", 100, 5, 60), Reply("", "stop", 7, 3)):
        ask(purse, reply)
        cost = cost_of(reply, PRICE)
        again.recall(cost.tokens_in, cost.tokens_cached, cost.tokens_out, cost.usd)
    assert again.spent() == purse.spent()
    assert (again.left().tokens, again.left().usd) == (0, 0)
    with pytest.raises(OverBudgetError, match="has 0 left"):
        ask(again, Reply("", "stop", 1, 1))


def test_a_cap_on_money_needs_a_price() -> None:
    with pytest.raises(UnpricedError, match=r"budget.usd= limits money.*AGENTLAB_PRICES"):
        ask(Purse(usd=1.0), Reply("", "stop", 1, 1), price=None)
    purse = Purse(tokens=1000)
    ask(purse, Reply("", "stop", 1, 1), price=None)
    assert (purse.spent().tokens, purse.spent().usd) == (2, 0)


def test_the_schema_is_sent_and_its_text_is_in_the_worst_case() -> None:
    schema = {"type": "object", "title": "x" * 500}
    assert worst_call("E", 10, schema=schema).tokens > worst_call("E", 10).tokens + 500
    with pytest.raises(OverBudgetError):
        ask(Purse(tokens=500), Reply("", "stop", 1, 1), schema=schema)


def test_no_call_begins_after_the_time_is_over_though_it_may_have_waited_for_its_turn() -> None:
    seconds = [0.0]

    async def wait() -> Purse:
        purse = Purse(tokens=100, seconds=60.5, clock=lambda: seconds[0])
        first = await purse.reserve(50, 50)
        waiting = asyncio.create_task(purse.reserve(50, 50))
        await asyncio.sleep(0)
        assert purse.time_regime() == "HIGH"
        seconds[0] = 60.5
        first.free()
        with pytest.raises(OverBudgetError, match=r"^the budget of 60.5 seconds has 0 left.*raise budget.seconds="):
            await waiting
        with pytest.raises(OverBudgetError, match="seconds"):
            purse.hold(1, 1)
        return purse

    purse = asyncio.run(wait())
    assert purse.tokens.held == 0
    assert (purse.time_regime(), purse.left().seconds) == ("CRITICAL", 0)
    with pytest.raises(ValueError, match="needs a clock"):
        Purse(seconds=60)


def test_a_purse_has_the_caps_of_the_settings_and_no_others() -> None:
    purse = Purse.of(Budget(candidates=3, tokens=1000, usd=0.5))
    assert [(use.resource, use.cap) for use in purse.uses()] == [("tokens", 1000), ("usd", 0.5)]
    assert Purse.of(Budget()).block() == ""
    assert Purse.of(Budget()).warnings() == []
    assert Purse.of(Budget()).overall() == "HIGH"
    assert Purse.of(Budget(seconds=10), lambda: 8.0).time_regime() == "LOW"


def test_training_runs_are_held_against_their_own_cap() -> None:
    purse = Purse(flops=1e15)
    hold = purse.hold_flops(6e14)
    with pytest.raises(OverBudgetError, match="has 4e"):
        purse.hold_flops(6e14)
    hold.settle(5.5e14)
    assert (purse.spent().flops, purse.left().flops) == (5.5e14, 4.5e14)
    assert purse.regimes() == {"flops": "MEDIUM"}


@pytest.mark.parametrize(
    ("used", "word"),
    [
        (0, "HIGH"),
        (3, "HIGH"),
        (4, "MEDIUM"),
        (7, "MEDIUM"),
        (8, "LOW"),
        (9, "LOW"),
        (10, "CRITICAL"),
        (12, "CRITICAL"),
    ],
)
def test_the_regime_of_what_is_left(used: int, word: str) -> None:
    for scale in (1, 0.1, 0.07, 1e16):
        assert Use("any", used * scale, 10 * scale).regime == word
        assert regime(1 - used / 10) == word


def test_a_cap_of_nothing_is_critical() -> None:
    assert Use("usd", 0, 0).regime == "CRITICAL"
    assert "0.0 used, 0.0 left (CRITICAL)" in Purse(usd=0).block()


@given(st.floats(0, 1), st.floats(0, 1))
def test_less_left_is_never_a_wider_regime(one: float, other: float) -> None:
    words = [REGIMES.index(regime(share)) for share in sorted((one, other))]
    assert words == sorted(words)


def test_the_overall_regime_is_the_tightest() -> None:
    assert tightest(["HIGH", "LOW", "MEDIUM"]) == "LOW"
    assert tightest([]) == "HIGH"
    purse = Purse(tokens=100, usd=1)
    purse.recall(50, 0, 0, 0.1)
    assert purse.regimes("LOW") == {"tokens": "MEDIUM", "usd": "HIGH", "time": "LOW"}
    assert (purse.overall(), purse.overall("CRITICAL")) == ("MEDIUM", "CRITICAL")


def test_the_block_of_a_prompt_has_counts_and_regimes_and_time_in_a_word_alone() -> None:
    purse = Purse(tokens=100_000, usd=0.5, flops=1e18, seconds=100, clock=lambda: 73.25)
    purse.recall(30_000, 0, 5_000, 0.4612345)
    purse.hold_flops(2e17).settle(1.5e17)
    told = purse.block("MEDIUM")
    assert told.splitlines() == [
        "Budget:",
        "- tokens: 35,000 used, 65,000 left (MEDIUM)",
        "- usd: 0.461234 used, 0.038766 left (CRITICAL)",
        "- flops: 1.5e+17 used, 8.5e+17 left (HIGH)",
        "- time: MEDIUM",
        "- overall: CRITICAL",
    ]
    assert "73" not in purse.block()
    assert "time" not in purse.block()
    assert block([Use("candidates", 3, 40)]).splitlines()[1] == "- candidates: 3 used, 37 left (HIGH)"
    with pytest.raises(ValueError, match=r"'26\.75 s' is no regime; there is: CRITICAL"):
        purse.block("26.75 s")


def test_a_search_that_stalls_pivots_while_it_can_afford_it_and_digs_deeper_otherwise() -> None:
    assert {word: stance(word, gained=False) for word in REGIMES} == {
        "CRITICAL": "refine",
        "LOW": "refine",
        "MEDIUM": "explore",
        "HIGH": "explore",
    }
    assert {stance(word, gained=True) for word in REGIMES} == {"refine"}


def test_half_and_four_fifths_of_each_cap_are_told_once_with_the_key_that_raises_it() -> None:
    clock = [0.0]
    purse = Purse(tokens=1000, usd=1.0, seconds=100, clock=lambda: clock[0])
    lines: list[list[str]] = []
    for tokens, usd, seconds in ((499, 0.0, 0.0), (1, 0.0, 10.0), (1, 0.85, 49.9), (300, 0.0, 81.5), (500, 0.5, 100)):
        purse.recall(tokens, 0, 0, usd)
        clock[0] = seconds
        lines.append(purse.warnings())
        assert purse.warnings() == []
    assert lines == [
        [],
        ["budget.tokens: 500 of 1,000 used (50%); raise budget.tokens= to go on for longer"],
        ["budget.usd: 0.85 of 1.0 used (85%); raise budget.usd= to go on for longer"],
        [
            "budget.tokens: 801 of 1,000 used (80%); raise budget.tokens= to go on for longer",
            "budget.seconds: 81.5 of 100 used (81%); raise budget.seconds= to go on for longer",
        ],
        [],
    ]


def test_a_decision_says_which_cap_left_no_room_for_it() -> None:
    question: Question = pick_run("tell two laws apart", [Option("r1"), Option("r2")])
    model = Plain(Reply("answer = r1", "stop", 5, 5))

    def undecided(purse: Purse, prices: Sequence[Price | None] = ()) -> str:
        found = asyncio.run(decide(question, [model], 2, Rules(), purse, 0, None, prices))
        assert isinstance(found, Undecided)
        return found.reason

    assert undecided(Purse(tokens=10)) == OUT_OF["tokens"] == "the token budget is spent"
    assert undecided(Purse(usd=0.01), [PRICE]) == OUT_OF["USD"]
    assert undecided(Purse(seconds=1, clock=lambda: 2.0)) == OUT_OF["seconds"]
    with pytest.raises(UnpricedError):
        undecided(Purse(usd=0.01))
    assert not model.schemas


@pytest.mark.parametrize(
    ("error", "tokens"),
    [
        (BackendError("nobody there"), 0),
        (ModelError("key refused", "no"), 0),
        (ModelError("server error", "perhaps", lost=True), prompt_bound("E") + 10),
        (LostReplyError("time-out", "late"), prompt_bound("E") + 10),
    ],
    ids=["no server", "refused", "lost", "late"],
)
def test_a_call_that_fails_costs_nothing_unless_a_reply_was_lost(error: BackendError, tokens: int) -> None:
    purse = Purse(tokens=1000, usd=1.0)
    with pytest.raises(BackendError, match=str(error)):
        ask(purse, error)
    assert (purse.spent().tokens, purse.tokens.held, purse.usd.held) == (tokens, 0, 0)
    assert purse.spent().lost == bool(tokens)


def test_an_estimate_says_what_to_expect_and_what_is_the_most() -> None:
    prompt = [Message("system", "s" * 100), Message("user", "u" * 300)]
    found = estimate(
        "proposals", prompt, calls=10, most_calls=12, reply_tokens=50, max_tokens=200, price=Price(1.0, 10.0, 0.1)
    )
    assert (found.expect.calls, found.expect.tokens_in, found.expect.tokens_out) == (10, 1000, 500)
    assert (found.worst.calls, found.worst.tokens_in) == (12, 12 * prompt_bound(prompt))
    assert found.worst.tokens_out == 2400
    assert found.expect.usd == pytest.approx(0.006)
    assert found.worst.usd == pytest.approx(12 * (prompt_bound(prompt) * 1e-6 + 200e-5))
    usual, most = "10 calls, 1,500 tokens (1,000 in, 500 out)", "12 calls, 10,656 tokens (8,256 in, 2,400 out)"
    assert told([found]) == [f"proposals: about {usual}, 0.006 USD; at most {most}, 0.032256 USD"]


def test_estimates_add_up_and_name_the_caps_that_end_them() -> None:
    one = estimate("proposals", "p" * 400, calls=10, reply_tokens=900, max_tokens=100, price=PRICES[0])
    votes = estimate("decisions", "d" * 400, calls=5, reply_tokens=9, max_tokens=9)
    assert one.expect.tokens_out == 1000, "no reply is longer than the longest"
    assert total([one, votes]).worst.tokens == one.worst.tokens + votes.worst.tokens
    lines = told([one, votes], Budget(tokens=1500, usd=1.0))
    assert [line.split(":")[0] for line in lines[:3]] == ["proposals", "decisions", "in all"]
    assert "USD" not in lines[2]
    assert lines[3:] == [
        "no price of a model is known, so nothing is said about money; add it to the prices",
        "budget.tokens=1500 ends the calls before they are made",
    ]
    assert told([one], Budget(tokens=8000, usd=1e-9))[1:] == [
        "budget.tokens=8000 ends the calls should they come to their worst" for _ in range(one.worst.tokens > 8000)
    ] + ["budget.usd=0.0 ends the calls before they are made"]
