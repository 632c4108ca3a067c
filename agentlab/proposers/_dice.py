"""Cheap seeded choices: numbers are drawn from a NumPy generator in blocks, because single draws cost microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

BLOCK = 64


class Dice:
    """Choices from one generator; the same generator gives the same choices."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block: list[float] = []

    def unit(self) -> float:
        """A number in [0, 1)."""
        if not self._block:
            self._block = self._rng.random(BLOCK).tolist()
        return self._block.pop()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices, all equally likely."""
        return choices[int(self.unit() * len(choices))]

    def weighted(self, choices: Sequence[tuple[float, T]]) -> T:
        """One of (weight, choice), by weight."""
        left = self.unit() * sum(weight for weight, _ in choices)
        for weight, choice in choices:
            left -= weight
            if left < 0:
                return choice
        return choices[-1][1]
