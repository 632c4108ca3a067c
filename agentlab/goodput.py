"""The highest request rate that keeps latency targets, and where the batch stops being free, from laws of two times.

Assumed is a server in its steady state that never lacks requests. It takes `b` of them at once, reads their prompts
together (the time to first token, ttft), then writes token by token for all of them together (the time per output
token, tpot), and takes the next `b` when the last token is out. All requests have one length of prompt and of output.
A request is then in service for S(b) = ttft(b) + (output - 1) tpot(b), with tpot at the mean length of its context,
prompt + (output - 1) / 2: exact for laws that are linear in the length. By Little's law (Little 1961: L = lambda W)
b = rate S(b), so rate = b / S(b). Waiting before service is not counted: arrivals that are uneven need a margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agentlab.errors import AgentlabError, nearest
from agentlab.law import Law
from agentlab.types import BoolArray, FloatArray

POINTS = 4001
"""Points between the ends of a lever at which `crossover` looks; between two it interpolates."""


class GoodputError(AgentlabError):
    """A question about a service that its laws cannot answer."""


@dataclass(frozen=True)
class Timing:
    """A law of a time in milliseconds, its parameters (P,), and parameters (D, P) drawn by a bootstrap, if any."""

    law: Law
    params: FloatArray
    draws: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """What a request asks for, in tokens, and what it may take, in milliseconds; inf is no target."""

    prompt: float
    output: float
    ttft: float = math.inf
    tpot: float = math.inf


@dataclass(frozen=True, slots=True)
class Names:
    """The features that the laws call the batch and the length of the prompt."""

    batch: str = "B"
    length: str = "L"


@dataclass(frozen=True, slots=True)
class Goodput:
    """The best batch, its requests a second and its times in milliseconds; intervals hold 90% of the draws.

    `rate` is 0 and `batch` 0 where no batch keeps the targets; `reason` then says why. `edge` says that the best batch
    is the largest that was looked at: a larger one may do better.
    """

    rate: float
    batch: int
    ttft: float
    tpot: float
    edge: bool
    reason: str = ""
    rate_interval: tuple[float, float] | None = None
    batch_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Crossover:
    """Where a time begins to grow with a lever; None, with a reason, where that is not between the two ends.

    The interval holds 90% of the draws, a draw without a crossover counting as the end that it lies beyond.
    """

    value: float | None
    reason: str = ""
    interval: tuple[float, float] | None = None


def goodput(
    ttft: Timing, tpot: Timing, at: Mapping[str, float], service: Service, *, names: Names = Names(), most: int = 1024
) -> Goodput:
    """The rate of the best batch among 1..`most` that keeps the targets; `at` holds the other features of the laws.

    Raises:
        GoodputError: a feature is missing, or a number is not one.
    """
    _check(service, most)
    batch = np.arange(1.0, most + 1.0)
    later = service.output - 1.0
    first = _times(ttft, {**at, names.batch: batch, names.length: service.prompt}, "ttft")
    each = _times(tpot, {**at, names.batch: batch, names.length: service.prompt + later / 2.0}, "tpot")
    draws = min(len(first), len(each))
    first, each = first[:draws], each[:draws]
    fits = _positive(first) & (first <= service.ttft) & (_positive(each) & (each <= service.tpot) | (later == 0.0))
    with np.errstate(all="ignore"):
        rate = np.where(fits, 1e3 * batch / (first + (later * each if later else 0.0)), 0.0)
    best = np.argmax(rate, axis=1)
    top = rate[np.arange(draws), best]
    chosen = np.where(top > 0.0, batch[best], 0.0)
    intervals = (_interval(top[1:]), _interval(chosen[1:])) if draws > 1 else (None, None)
    if not top[0]:
        return Goodput(
            0.0, 0, float(first[0, 0]), float(each[0, 0]), False, _why(first[0], each[0], service), *intervals
        )
    i = int(best[0])
    return Goodput(float(top[0]), i + 1, float(first[0, i]), float(each[0, i]), i + 1 == most, "", *intervals)


def crossover(
    timing: Timing, at: Mapping[str, float], *, lever: str = "B", low: float = 1.0, high: float = 4096.0
) -> Crossover:
    """The value of `lever`, such as the batch, at which what it shares and what grows in proportion to it are equal.

    In a decoding step all sequences share the reading of the weights, which is bound by memory, while computation
    grows with the batch (the roofline, Williams et al. 2009). Found is the least value at which the elasticity
    d ln time / d ln lever reaches 1/2: for m + c B, for (m**p + (c B)**p)**(1/p) and for max(m, c B) that is m / c.
    Raises GoodputError as `goodput`.
    """
    if not 0.0 < low < high < math.inf:
        raise GoodputError(f"low={low:g}, high={high:g}: write 0 < low < high")
    if lever not in timing.law.used:
        raise GoodputError(f"lever={lever}: the law does not change with it; {nearest(lever, timing.law.used)}")
    x, theta = np.geomspace(low, high, POINTS), _stacked(timing)
    columns = _columns(timing.law, {**at, lever: x}, "crossover")
    with np.errstate(all="ignore"):
        times = timing.law.evaluate(columns, theta)
        elasticity = np.where(_positive(times), timing.law.gradient(columns, theta, lever) * x / times, np.nan)
    found = np.array([_reaches_half(x, one) for one in elasticity])
    interval = _interval(np.clip(found[1:], low, high)) if len(found) > 1 else None
    if low < found[0] < high:
        return Crossover(float(found[0]), "", interval)
    told = "more is shared than grows" if found[0] >= high else "more grows than is shared"
    return Crossover(None, f"no crossover: from {lever} = {low:g} to {high:g} {told}", interval)


def _reaches_half(x: FloatArray, elasticity: FloatArray) -> float:
    """The least x (n,) at which the elasticity (n,) is 1/2, between points by interpolation; inf where it never is."""
    above = np.flatnonzero(elasticity >= 0.5)
    if not len(above):
        return math.inf
    i = int(above[0])
    if i == 0:
        return 0.0
    share = (0.5 - elasticity[i - 1]) / (elasticity[i] - elasticity[i - 1])
    return float(x[i - 1] * (x[i] / x[i - 1]) ** (share if np.isfinite(share) else 1.0))


def _check(service: Service, most: int) -> None:
    for name, value, least in (("prompt", service.prompt, 1.0), ("output", service.output, 1.0), ("most", most, 1)):
        if not least <= value < math.inf:
            raise GoodputError(f"{name}={value:g}: write a number of at least {least:g}")
    for name, value in (("ttft", service.ttft), ("tpot", service.tpot)):
        if not value > 0.0:
            raise GoodputError(f"{name}={value:g}: write milliseconds above 0, or leave the target away")


def _times(timing: Timing, values: Mapping[str, float | FloatArray], what: str) -> FloatArray:
    """Milliseconds (1 + D, n) by the fitted parameters and by every draw."""
    program = timing.law.compile(_columns(timing.law, values, what))
    program.n = max(np.size(v) for v in values.values())  # a law need not use any of them
    return program(_stacked(timing))


def _columns(law: Law, values: Mapping[str, float | FloatArray], what: str) -> dict[str, FloatArray]:
    missing = [name for name in law.used if name not in values]
    if missing:
        raise GoodputError(f"{what}: the law needs a value of {missing[0]}; {nearest(missing[0], values)}")
    size = max(np.size(v) for v in values.values())
    return {
        name: np.broadcast_to(np.asarray(values[name], dtype=np.float64), (size,))
        for name in law.variables
        if name in values
    }


def _stacked(timing: Timing) -> FloatArray:
    draws = np.empty((0, timing.law.n_params)) if timing.draws is None else timing.draws
    return np.concatenate([np.reshape(timing.params, (1, -1)), draws])


def _positive(times: FloatArray) -> BoolArray:
    return np.isfinite(times) & (times > 0.0)


def _interval(values: FloatArray) -> tuple[float, float]:
    low, high = np.percentile(values, [5.0, 95.0])
    return float(low), float(high)


def _why(first: FloatArray, each: FloatArray, service: Service) -> str:
    """Why no batch keeps the targets, by the least times (n,) there are."""
    for name, times, target in (("ttft", first, service.ttft), ("tpot", each, service.tpot)):
        if not _positive(times).any():
            return f"the law of {name} gives no time at these features"
        if not (_positive(times) & (times <= target)).any():
            least = float(np.min(times[_positive(times)]))
            return f"no batch keeps {name} <= {target:g} ms: the least is {least:.4g} ms"
    return f"no batch keeps ttft <= {service.ttft:g} ms and tpot <= {service.tpot:g} ms at once"
