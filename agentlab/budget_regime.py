"""How much of a budget is left, in a word, and what to do about it: look further afield, or dig deeper.

The regimes are those of the budget tracker of arXiv 2511.17006: HIGH from 70% left, MEDIUM from 30%, LOW from 10%.
All of it follows from amounts alone. Time comes in as a word, since what a model is told must not depend on the clock
of the machine it is replayed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Regime: TypeAlias = Literal["CRITICAL", "LOW", "MEDIUM", "HIGH"]
REGIMES: tuple[Regime, ...] = get_args(Regime)
"""The tightest first."""

EDGES: tuple[tuple[float, Regime], ...] = ((0.7, "HIGH"), (0.3, "MEDIUM"), (0.1, "LOW"))
"""Share left from which a regime holds; below the last one it is critical."""

DIGITS = 12
"""Decimals to which a share is rounded: 1 - 0.9 is a tenth."""


@dataclass(frozen=True, slots=True)
class Use:
    """What is used of a resource that has a cap, in its own unit: "tokens", "usd", "flops", "seconds", .."""

    resource: str
    used: float
    cap: float

    @property
    def share(self) -> float:
        """The part of the cap that is used; 1 where the cap is 0, and above 1 where it was passed."""
        return round(self.used / self.cap, DIGITS) if self.cap else 1.0

    @property
    def regime(self) -> Regime:
        """The regime that the rest puts it in."""
        return regime(1.0 - self.share)


def regime(share_left: float) -> Regime:
    """The regime in which a share of the cap is left."""
    return next((word for edge, word in EDGES if round(share_left, DIGITS) >= edge), "CRITICAL")


def known(word: str) -> Regime:
    """A regime from its word, as a trace holds it. Raises ValueError where it is none."""
    if word not in REGIMES:
        raise ValueError(f"{word!r} is no regime; there is: {', '.join(REGIMES)}")
    return word


def tightest(regimes: Iterable[Regime]) -> Regime:
    """The regime of a run: that of the resource of which least is left; HIGH where nothing has a cap."""
    return min(regimes, key=REGIMES.index, default="HIGH")


def stance(overall: Regime, *, gained: bool) -> Literal["explore", "refine"]:
    """What to ask for next: new forms, or better ones of those that are good already.

    A search that has gained lately digs deeper where it gains, and one that is short of budget (LOW, CRITICAL) makes
    the best of what it has, since a new form would come too late to be worked out. One that has not gained pivots to
    new forms as long as it can afford them (HIGH, MEDIUM); so does one that has only begun.

    Args:
        overall: The regime of the run, as `tightest` gives it.
        gained: Whether the best law has become better lately; what is lately is the caller's to say.
    """
    return "explore" if not gained and overall in ("HIGH", "MEDIUM") else "refine"


def block(uses: Sequence[Use], time_regime: str | None = None) -> str:
    """The lines of a prompt that say what is used and what is left; "" where nothing has a cap.

    Args:
        uses: One of each resource that has a cap; never seconds.
        time_regime: The regime of the time that is left, None where it has no cap.

    Raises:
        ValueError: `time_regime` is no regime.
    """
    lines = [f"- {u.resource}: {amounts(u.resource, u.used, u.cap)} ({u.regime})" for u in uses]
    regimes = [u.regime for u in uses]
    if time_regime is not None:
        regimes.append(known(time_regime))
        lines.append(f"- time: {time_regime}")
    return "\n".join(["Budget:", *lines, f"- overall: {tightest(regimes)}"]) if lines else ""


def amounts(resource: str, used: float, cap: float) -> str:
    """What is used and what is left, for people and models to read."""
    return f"{number(resource, used)} used, {number(resource, max(0.0, cap - used))} left"


def number(resource: str, amount: float) -> str:
    """An amount as people read it: money to a millionth of a dollar, time to a tenth, FLOPs to three digits."""
    if resource == "usd":
        whole, _, part = f"{amount:,.6f}".partition(".")
        return f"{whole}.{part.rstrip('0') or '0'}"
    if resource == "seconds":
        return f"{amount:,.1f}".removesuffix(".0")
    return f"{amount:.3g}" if resource == "flops" else f"{amount:,.0f}"
