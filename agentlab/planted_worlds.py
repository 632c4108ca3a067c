"""Simulated worlds: planted laws as training runs that cost FLOPs, to judge designs by the decisions they lead to.

Synthetic throughout: no model is trained, the loss of a run is the planted law with the noise between seeds. A world
knows the decision that is asked of it, at a compute a hundred times beyond the largest run that anyone made in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from agentlab.allocation import Lever, Question
from agentlab.law import Law, parse
from agentlab.planted import constants_of, family
from agentlab.planted_records import Family, PlantedError
from agentlab.space import Space
from agentlab.types import ALL, FloatArray, IntArray, Rows

__all__ = ["KINDS", "Kind", "World", "world"]

LEVELS = 15
"""Levels of a knob that grows; others have NINE, or the choices of their feature."""
NINE = 9
BEYOND = 4.0
"""Times its range that a growing knob reaches up: nobody is kept from a dear run but by its cost."""
TARGET = 100.0
"""The decision is asked for at so many times the compute of the largest usual run."""
NOISE = (0.003, 0.02)
REACH = 1e3


@dataclass(frozen=True)
class Kind:
    """A family as a world: what a run costs, which feature the budget decides, and rival laws that people would fit."""

    name: str
    cost: str
    solved: str
    rivals: tuple[str, ...]
    larger: bool = False


_SUM = "E + A/N**a + B/D**b"
_ND = (_SUM, "E + (A/N**a + B/D**b)**k", "A/N**a + B/D**b", "E + A/(N**a*D**b)")

KINDS: tuple[Kind, ...] = (
    Kind("chinchilla", "6*N*D", "D", _ND),
    Kind("skaling", "6*N*D", "D", _ND),
    Kind("farseer", "6*N*D", "D", _ND),
    Kind("fine_moe", "6*N*D", "D", (_SUM, "E + A/(N**a*G**g) + B/D**b", "E + A/N**a + B/D**b + K/G**g")),
    Kind("precision", "6*N*D*P/16", "D", (_SUM, "E + A/(N*P**p)**a + B/D**b", "E + A/N**a + B/D**b + K*exp(-P/g)")),
    Kind(
        "critical_batch",
        "6*N*steps*batch",
        "steps",
        ("E + A/N**a + K/(steps*batch)**b", "E + A/N**a + K/steps**b + L/batch**c"),
    ),
    Kind(
        "lr_bowl",
        "6*N*D",
        "D",
        (_SUM, f"{_SUM} + K*(log(lr) - c)**2", f"{_SUM} + K*(log(lr) - c - g*log(N))**2"),
    ),
    Kind(
        "moe_leverage",
        "C",
        "C",
        (
            "A**(a + d*log10(C))",
            "A**(a + g*log2(G)**2 + b*log2(G))",
            "A**(a + d*log10(C) + g*log2(G)**2 + b*log2(G))",
        ),
        larger=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """One world: its runs, the decision, the planted law with its constants, and the laws that people would fit.

    `largest` is the compute of the largest usual run; `noise` the relative standard deviation between seeds.
    """

    name: str
    seed: int
    space: Space
    question: Question
    truth: Law
    params: FloatArray
    rivals: tuple[Law, ...]
    target: str
    noise: float
    largest: float

    def measure(self, place: int, repeat: int) -> float:
        """The result of the run at `place` of the space with seed `repeat`."""
        columns = {k: v[place : place + 1] for k, v in self.space.columns.items()}
        value = float(np.ravel(self.truth.evaluate(columns, self.params))[0])
        chance = np.random.default_rng([crc32(self.name.encode()), self.seed, place, repeat])
        return value * math.exp(self.noise * float(chance.standard_normal()))

    def rows(self, places: IntArray, repeats: IntArray) -> Rows:
        """Rows of the runs at `places` with seeds `repeats`."""
        y = np.array([self.measure(int(i), int(r)) for i, r in zip(places, repeats, strict=True)])
        columns = {k: v[places] for k, v in self.space.columns.items()}
        n = len(places)
        return Rows(columns, {self.target: y}, np.full(n, ALL), np.ones(n), self.space.cost[places], np.arange(n))

    @property
    def laws(self) -> tuple[Law, ...]:
        """The laws that are fitted in it: the planted form, whose constants are not told, and its rivals."""
        return (self.truth, *(law for law in self.rivals if law.key != self.truth.key))


def world(name: str, seed: int) -> World:
    """The world of the kind `name` and `seed`.

    Raises:
        PlantedError: there is no such kind.
    """
    kind = next((k for k in KINDS if k.name == name), None)
    if kind is None:
        raise PlantedError(f"no world {name!r}; write one of {', '.join(k.name for k in KINDS)}")
    drawn = family(name)
    rng = np.random.default_rng([crc32(name.encode()), seed, 1009])
    constants = constants_of(drawn, rng)
    truth = parse(drawn.formula, drawn.names)
    space, largest = _space(drawn, kind)
    levers = tuple(
        Lever(f.name, *_wide(f.low, f.high, grows=f.grows), f.log) for f in drawn.features if f.name != kind.solved
    )
    question = Question(levers, kind.cost, kind.solved, TARGET * largest, -1.0 if kind.larger else 1.0, least=1e-9)
    noise = math.exp(rng.uniform(*np.log(NOISE)))
    rivals = tuple(parse(text, drawn.names) for text in kind.rivals)
    theta = np.array([constants[p] for p in truth.params])
    return World(name, seed, space, question, truth, theta, rivals, drawn.target, noise, largest)


def _wide(low: float, high: float, *, grows: bool) -> tuple[float, float]:
    return (low / 10.0, high * REACH) if grows else (low, high)


def _space(drawn: Family, kind: Kind) -> tuple[Space, float]:
    axes: dict[str, FloatArray] = {}
    for f in drawn.features:
        if f.choices:
            axes[f.name] = np.array(sorted(c for c in f.choices if f.low <= c <= f.high))
        elif f.grows:
            axes[f.name] = np.geomspace(f.low, f.high * BEYOND, LEVELS)
        else:
            axes[f.name] = np.geomspace(f.low, f.high, NINE) if f.log else np.linspace(f.low, f.high, NINE)
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    columns = {n: m.ravel() for n, m in zip(axes, mesh, strict=True)}
    place = np.meshgrid(*(np.linspace(0, 1, len(a)) for a in axes.values()), indexing="ij")
    places = {n: p.ravel() for n, p in zip(axes, place, strict=True)}
    cost = parse(kind.cost, drawn.names)
    spent = np.asarray(cost.evaluate(columns, np.zeros(0)), dtype=np.float64) * np.ones(len(mesh[0].ravel()))
    top = {f.name: np.array([f.high]) for f in drawn.features}
    largest = float(np.ravel(cost.evaluate(top, np.zeros(0)))[0])
    keep = spent <= largest
    configs = [{n: float(v[i]) for n, v in columns.items()} for i in range(len(spent))]
    dear = {n: n in cost.used for n in axes}
    whole = Space(columns, spent, places, dear, configs)
    return whole.take(keep), largest
