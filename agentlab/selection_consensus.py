"""The finalist to believe: of those that the data cannot tell apart, the one nearest to what they say together.

Several laws describe the rows about equally well and part ways beyond them. The weighted median of what the finalists
predict in the extrapolation box is steadier than any of them; the law that is believed is the one nearest to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agentlab.law import Law
from agentlab.selection import Problem, choose
from agentlab.types import FloatArray, Outcome

SPAN = 8.0
"""Nats of objective over which a finalist's say falls by e."""

LEAST = 0.2
"""Say below which a finalist is not believed itself, though it is heard."""


def nearest_to_consensus(laws: Sequence[Law], outcomes: Sequence[Outcome], judge: Problem) -> int | None:
    """The position of the law to believe, or None where no outcome is ok.

    Only laws that break as few constraints as the best are heard. `laws` and `outcomes` are side by side.
    """
    best = choose(outcomes)
    if best is None:
        return None
    broken = len(outcomes[best].violations)
    heard = [i for i, o in enumerate(outcomes) if o.status == "ok" and len(o.violations) == broken]
    excess = np.array([outcomes[i].objective for i in heard]) - outcomes[best].objective
    say = np.exp(-excess / SPAN)
    said = np.stack([_in_the_box(laws[i], outcomes[i].params, judge) for i in heard])
    distance = np.sqrt(np.mean(np.minimum(np.abs(said - _median(said, say)), 1.0) ** 2, axis=1))
    near = [(float(distance[j]), float(excess[j]), i) for j, i in enumerate(heard) if say[j] >= LEAST]
    return min(near)[2]


def _in_the_box(law: Law, params: Mapping[str, Mapping[str, Mapping[str, float]]], judge: Problem) -> FloatArray:
    """What the law says in the box, one value a group, target and point, in units of the target's spread."""
    said = []
    for target, y in judge.rows.targets.items():
        log = judge.task.residual == "log"
        spread = max(float(np.std(np.log(y) if log else y)), 1e-300)
        for named in params.values():
            values = law.evaluate(judge.box, np.array([named[target][p] for p in law.params]))
            with np.errstate(all="ignore"):
                said.append((np.log(values) if log else values) / spread)
    everywhere: FloatArray = np.nan_to_num(np.concatenate(said), nan=1e300, posinf=1e300, neginf=-1e300)
    return everywhere


def _median(said: FloatArray, say: FloatArray) -> FloatArray:
    """The weighted median (m,) of the laws' values (laws, m)."""
    order = np.argsort(said, axis=0, kind="stable")
    heard = np.cumsum(say[order], axis=0)
    middle = np.argmax(heard >= 0.5 * heard[-1], axis=0)
    middlemost: FloatArray = np.take_along_axis(np.take_along_axis(said, order, axis=0), middle[None], axis=0)[0]
    return middlemost
