"""What a call costs: tokens, and money counted in whole nano-dollars, so that sums of it are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agentlab.models import Reply
from agentlab.models_prices import Price

NANO = 10**9
"""Nano-dollars in a dollar."""


def nanos(usd: float) -> float:
    """Dollars as nano-dollars, a whole number of them unless there is no end to them. Undone by `/ NANO`."""
    return usd if math.isinf(usd) else round(usd * NANO)


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens in (`tokens_cached` of them read from the server's cache) and out, and what they cost."""

    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    nanos: int = 0

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        return self.tokens_in + self.tokens_out

    @property
    def usd(self) -> float:
        """The cost in USD."""
        return self.nanos / NANO

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.tokens_in + other.tokens_in,
            self.tokens_cached + other.tokens_cached,
            self.tokens_out + other.tokens_out,
            self.nanos + other.nanos,
        )


def cost_of(reply: Reply, price: Price | None = None) -> Cost:
    """What a reply took. A server that counts less than nothing is taken to count nothing."""
    tokens_in, tokens_out = max(0, reply.tokens_in), max(0, reply.tokens_out)
    cached = min(max(0, reply.tokens_cached), tokens_in)
    usd = 0.0 if price is None else price.usd(tokens_in, cached, tokens_out)
    return Cost(tokens_in, cached, tokens_out, round(usd * NANO))


def worst_of(tokens_in: int, tokens_out: int, price: Price | None = None) -> Cost:
    """The most that a call of at most so many tokens can cost; rounded up, so that no reply within them is above it."""
    usd = 0.0 if price is None else price.worst(tokens_in, tokens_out)
    return Cost(tokens_in, 0, tokens_out, math.ceil(usd * NANO))
