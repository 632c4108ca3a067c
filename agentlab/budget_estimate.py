"""What calls will come to before any is made: what to expect of them, and what they cannot exceed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentlab.budget_regime import number
from agentlab.models import FRAME, TURN, Prompt, Schema, prompt_bound
from agentlab.models_prices import Price
from agentlab.types import Budget

BYTES = 4
"""Bytes of a prompt that make one token: usual for English and formulas. The bound has one a byte."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Calls, their tokens in and out, and what they cost; `usd` is None where a price is not known."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        return self.tokens_in + self.tokens_out

    def __add__(self, other: Bill) -> Bill:
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Bill(self.calls + other.calls, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out, usd)

    def __str__(self) -> str:
        money = "" if self.usd is None else f", {number('usd', self.usd)} USD"
        return f"{self.calls:,} calls, {self.tokens:,} tokens ({self.tokens_in:,} in, {self.tokens_out:,} out){money}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Calls for one purpose: what to `expect`, and the `worst` that is possible."""

    what: str
    expect: Bill
    worst: Bill


def estimate(
    what: str, prompt: Prompt, *, calls: int, reply_tokens: int, max_tokens: int, most_calls: int | None = None,
    price: Price | None = None, schema: Schema | None = None,
) -> Estimate:  # fmt: skip
    """What calls with a prompt like this one come to. No part of it is taken to be cached.

    Args:
        what: What the calls are for, such as "proposals".
        prompt: One of the usual length.
        calls: Calls to expect.
        reply_tokens: Tokens of a usual reply.
        max_tokens: Tokens of the longest one.
        most_calls: Calls that there can be at most, where it is more than to expect.
        price: What the model's tokens cost, None where it is not known.
        schema: What replies shall keep to, where one is sent.
    """
    bound, most = prompt_bound(prompt, schema), calls if most_calls is None else max(calls, most_calls)
    frame = FRAME + TURN * (1 if isinstance(prompt, str) else len(prompt))
    usual = -(-(bound - frame) // BYTES)
    reply = min(reply_tokens, max_tokens)
    expected, worst = (None, None) if price is None else (price.usd(usual, 0, reply), price.worst(bound, max_tokens))
    return Estimate(what, _bill(calls, usual, reply, expected), _bill(most, bound, max_tokens, worst))


def _bill(calls: int, tokens_in: int, tokens_out: int, usd: float | None) -> Bill:
    return Bill(calls, calls * tokens_in, calls * tokens_out, None if usd is None else calls * usd)


def total(estimates: Sequence[Estimate]) -> Estimate:
    """All of them together."""
    return Estimate("in all", sum((e.expect for e in estimates), Bill()), sum((e.worst for e in estimates), Bill()))


def told(estimates: Sequence[Estimate], budget: Budget | None = None) -> list[str]:
    """The estimates in lines for a person, their sum where there are several, and what caps will cut off."""
    every = total(estimates)
    rows = [*estimates, every] if len(estimates) > 1 else list(estimates)
    lines = [f"{e.what}: about {e.expect}; at most {e.worst}" for e in rows]
    if every.worst.usd is None:
        lines.append("no price of a model is known, so nothing is said about money; add it to the prices")
    return lines + _caps(every, budget or Budget())


def _caps(every: Estimate, budget: Budget) -> list[str]:
    lines = []
    for resource, cap in (("tokens", budget.tokens), ("usd", budget.usd)):
        expect, worst = getattr(every.expect, resource), getattr(every.worst, resource)
        if cap is None or worst is None or worst <= cap:
            continue
        when = "before they are made" if expect > cap else "should they come to their worst"
        lines.append(f"budget.{resource}={number(resource, cap).replace(',', '')} ends the calls {when}")
    return lines
