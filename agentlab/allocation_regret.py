"""What a decision costs when a law is true: the share of the compute that the best choice would have saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agentlab.allocation import Question, best, cost_of, predicted
from agentlab.law import Law
from agentlab.types import FloatArray

__all__ = ["Yardstick", "regrets"]

WORTH = np.concatenate([-np.geomspace(math.log(100.0), 1e-5, 40), [0.0], np.geomspace(1e-5, math.log(1e6), 160)])
"""Logarithms of the compute ratios C / C' at which the best value is tabulated for regret."""


LEAST_WORTH, BISECTIONS = 1e-6, 22
"""The smallest log(C / C') that is told from 0 for many laws at once, and how often its range is halved."""

ROUNDING = 1e-9
"""Logarithms of compute ratios below this are rounding noise of the two optima that are compared."""


@dataclass(frozen=True)
class Yardstick:
    """What every amount of compute is worth under one law at `theta` (P,).

    `top` is the best value for the question's compute C and `config` where it is reached, (1,) by feature; `reached`
    (w,) is the best signed value for C exp(-WORTH[w]), None where compute buys nothing.
    """

    law: Law
    theta: FloatArray
    question: Question
    top: float
    config: Mapping[str, FloatArray]
    reached: FloatArray | None

    @classmethod
    def of(cls, law: Law, theta: FloatArray, question: Question) -> Yardstick:
        """The table of a law, its parameters and a question."""
        choice = best(law, theta, question)
        known = (law, theta, question, float(choice.value[0]), choice.config)
        if question.cost is None:
            return cls(*known, None)
        curve = best(law, np.tile(theta, (len(WORTH), 1)), question, question.compute * np.exp(-WORTH))
        reached = np.maximum.accumulate(question.sign * curve.value)
        ordered = bool(np.all(np.isfinite(reached)) and reached[-1] > reached[0])
        return cls(*known, reached if ordered else None)

    def regret(self, config: Mapping[str, FloatArray]) -> FloatArray:
        """What the configurations (B,) cost: % of the compute that the best choice would save.

        One that costs C and reaches a value which the best reaches with C' has a regret of 100 (C / C' - 1). inf where
        even a millionth of the compute, chosen well, is as good; nan where nothing orders values by compute. An input
        that a configuration does not name is chosen as the best one does.
        """
        value = self.question.sign * self._value(config)
        if self.reached is None or self.question.cost is None:
            return np.full(len(value), np.nan)
        lost = np.interp(value, self.reached, WORTH, right=np.inf)
        whole = {k: np.broadcast_to(v, (len(value),)) for k, v in {**self.config, **config}.items()}
        return _in_percent(np.where(np.isfinite(value), lost, np.nan), self.question, whole)

    def shortfall(self, config: Mapping[str, FloatArray]) -> FloatArray:
        """How much worse the law is at the configurations (B,) than at the best one, in % of the best value."""
        with np.errstate(all="ignore"):
            lost = 100.0 * self.question.sign * (self._value(config) - self.top) / abs(self.top)
        return np.asarray(np.where(np.abs(lost) < 1e-7, 0.0, lost), dtype=np.float64)

    def _value(self, config: Mapping[str, FloatArray]) -> FloatArray:
        size = max((len(v) for v in config.values()), default=1)
        whole = {k: np.broadcast_to(v, (size,))[None, :] for k, v in {**self.config, **config}.items()}
        value: FloatArray = predicted(self.law, self.theta[None, :], whole, size)[0]
        return value


def _in_percent(lost: FloatArray, question: Question, config: Mapping[str, FloatArray]) -> FloatArray:
    """log(C / C') in % of compute, with what the configurations really cost in place of C."""
    assert question.cost is not None  # noqa: S101 - callers asked
    with np.errstate(all="ignore"):
        lost = lost + np.log(cost_of(question.cost, config) / question.compute)
        percent = 100.0 * np.expm1(np.where(lost < ROUNDING, 0.0, lost))
    return np.asarray(percent, dtype=np.float64)


def regrets(law: Law, theta: FloatArray, question: Question, config: Mapping[str, FloatArray]) -> FloatArray:
    """What one configuration ((1,) by feature) costs under each of the laws (B, P), in %; as Yardstick.regret."""
    wide = {k: np.broadcast_to(v, (len(theta), 1)) for k, v in config.items()}
    value = question.sign * predicted(law, theta, wide)[:, 0]
    if question.cost is None:
        return np.full(len(theta), np.nan)
    low, high = np.full(len(theta), math.log(LEAST_WORTH)), np.full(len(theta), math.log(WORTH[-1]))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        there = question.sign * best(law, theta, question, question.compute * np.exp(-np.exp(middle))).value
        worse = there > value
        low, high = np.where(worse, low, middle), np.where(worse, middle, high)
    at_all = question.sign * best(law, theta, question, question.compute * math.exp(-WORTH[-1])).value
    lost = np.where(high < math.log(2 * LEAST_WORTH), 0.0, np.where(at_all <= value, np.inf, np.exp(high)))
    return _in_percent(np.where(np.isfinite(value), lost, np.nan), question, {k: v[:, 0] for k, v in wide.items()})
