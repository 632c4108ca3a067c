"""What a design is asked for: the next runs of one round, within a budget, and what is open before they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agentlab.allocation import Question
from agentlab.belief import Belief
from agentlab.space import Space
from agentlab.types import FloatArray, Rows

__all__ = ["Pick", "Round", "best_per_cost"]


@dataclass(frozen=True)
class Pick:
    """A run to be made: its place in the space, and the share of what was open before the round that it closes.

    `between` is the part of its value that comes from laws that disagree, from 0 to 1; the rest is what the parameters
    of each law leave open. Designs that do not ask what a run settles give nan.
    """

    place: int
    closes: float = float("nan")
    between: float = float("nan")


@dataclass(frozen=True)
class Round:
    """One round: at most `most` runs of `space` that cost at most `flops` together.

    `beliefs` is what the rows seen so far leave open, one for each (group, target), empty before any law could be
    fitted. `question` is the decision that the runs are to settle; None where a law shall predict well all over `box`,
    points (b,) by feature. `misfit` is the standard deviation of what no law can explain far from all rows, in the
    space of the residuals. The same round, seed and number give the same runs.
    """

    space: Space
    rows: Rows
    beliefs: tuple[Belief, ...]
    question: Question | None
    flops: float
    most: int
    seed: int
    number: int
    box: Mapping[str, FloatArray] | None = None
    misfit: float = 0.0

    def chance(self) -> np.random.Generator:
        """The random stream of this round."""
        return np.random.default_rng([self.seed, self.number, 7])


def best_per_cost(gain: FloatArray, cost: FloatArray, left: float, slots: int, price: float = 1.0) -> int | None:
    """The place with the largest gain for what it costs: FLOPs, and `price` shares of what is left for its slot.

    With a price of 1 the budget is used up; with less, cheaper runs go first and some of it is kept. None where nothing
    can be paid for or gains anything.
    """
    score = np.where(cost <= left, gain / (cost + price * left / slots), -np.inf)
    pick = int(np.argmax(score))
    return pick if np.isfinite(score[pick]) and gain[pick] > 0 else None
