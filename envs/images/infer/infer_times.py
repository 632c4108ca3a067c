"""What is told of repeated times: medians and quartiles for each pair of batch and length, and the machine's load."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import quantiles

from infer_lines import emit
from infer_plan import Measure, Speed, Stream, cells


@dataclass(frozen=True)
class Timed:
    """One measurement: seconds to the first token, seconds for each later one, tokens made a second by all together.

    `busy` are the first two in time of the processor, which waiting for it does not lengthen; None where it is unknown.
    """

    first: float
    each: float
    rate: float
    counts: dict[str, int] = field(default_factory=dict)
    busy: tuple[float, float] | None = None


TimeOne = Callable[[int, int, int], Timed]
"""(batch, length, number of the call) -> what was timed."""


def measure_all(request: Speed | Measure | Stream, measure: TimeOne) -> dict[str, object]:
    """Every pair once in every repetition, in an order drawn anew, so that a change of load falls on all alike."""
    pairs, chance, call = cells(request), random.Random(request.seed), 0  # noqa: S311 - an order, no secret
    kept: dict[tuple[int, int], list[Timed]] = {pair: [] for pair in pairs}
    rounds = request.warmup + request.repeats
    emit("start", steps=rounds * len(pairs))
    before = os.getloadavg()[0]
    for number in range(rounds):
        for batch, length in chance.sample(pairs, len(pairs)):
            timed = measure(batch, length, call)
            call += 1
            if number >= request.warmup:
                kept[batch, length].append(timed)
            emit("progress", step=call, batch=batch, length=length, ttft=timed.first)
    return {
        "cells": [_told(batch, length, times) for (batch, length), times in kept.items()],
        "new_tokens": request.new_tokens, "repeats": request.repeats, "warmup": request.warmup,
        "machine": {"cores": os.cpu_count(), "load_before": before, "load_after": os.getloadavg()[0]},
    }  # fmt: skip


def _told(batch: int, length: int, times: list[Timed]) -> dict[str, object]:
    """Medians; the quartiles say how far to trust them."""
    told: dict[str, object] = {"batch": batch, "length": length, **times[-1].counts}
    busy = [t.busy for t in times if t.busy is not None]
    for name, values in (
        ("ttft_seconds", [t.first for t in times]),
        ("seconds_per_token", [t.each for t in times]),
        ("tokens_per_second", [t.rate for t in times]),
        ("ttft_busy_seconds", [first for first, _ in busy]),
        ("busy_seconds_per_token", [each for _, each in busy]),
    ):
        if not values:
            continue
        low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        told |= {name: middle, f"{name}_quartiles": [low, high]}
    return told
