"""Runs that must be approved before they are made: a value of its own, so that asking a person loads no loop."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DearRuns"]


@dataclass(frozen=True, slots=True)
class DearRuns:
    """Runs that may cost more than is approved: how many, and their FLOPs together."""

    runs: int
    flops: float
