"""The planted sets of bench/agent.py: laws that the sweep of known laws does not begin with.

Families of the same kind as agentlab.planted's, one or two edits away from a law of the library or late in its sweep;
and three of agentlab.planted's own, two of them kept outside of it. Rows carry .2% noise and no outliers: what is
measured is the search, not the choice between laws that noise hides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from agentlab.law import Law, parse
from agentlab.planted import family, plant
from agentlab.planted_designs import reach, test_columns, train_columns
from agentlab.planted_records import Coefficient as Co
from agentlab.planted_records import Family, Feature
from agentlab.types import ALL, FloatArray, Rows, Task, Variable

NOISE, ROWS, HIDDEN = 0.002, 60, 100

_N = Feature("N", 2e7, 2e9, grows=True, monotone="-")
_D = Feature("D", 4e8, 4e10, grows=True, monotone="-")
_R = Feature("r", 0.05, 0.5, log=False)
_E = Co("E", 1.5, 2.0)
_BY_SIZE = (Co("a", 0.28, 0.40), Co("A", 0.35, 1.1, log=True, value="u*1e8**a"))
_BY_TOKENS = (Co("b", 0.24, 0.38), Co("B", 0.35, 1.1, log=True, value="u*1e10**b"))


def _family(name: str, formula: str, features: tuple[Feature, ...], *constants: Co) -> Family:
    scale = "*".join(f.name for f in features if f.grows)
    return Family(name, formula, features, constants, scale, "made for bench/agent.py")


_SLOW = Co("a", 0.15, 0.3)

OWN: tuple[Family, ...] = (
    # One or two edits away from the additive law.
    _family("mixed_size", "E + A/N**a*exp(t*r) + B/D**b", (_N, _D, _R), _E, *_BY_SIZE, *_BY_TOKENS,
            Co("t", -2.0, -1.0)),
    _family("bent_size", "E + A/N**(a + g*r) + B/D**b", (_N, _D, _R), _E, *_BY_SIZE, *_BY_TOKENS, Co("g", 0.02, 0.05)),
    _family("shifted_tokens", "E + A/N**a + B/(D + K)**b", (_N, _D), _E, *_BY_SIZE, *_BY_TOKENS,
            Co("K", 1e9, 6e9, log=True)),
    _family("steep_tokens", "E + A/N**a + B/D", (_N, _D), _E, *_BY_SIZE, Co("B", 0.5, 1.0, value="u*2e9")),
    # Two factors: the sweep of all pairs comes to them late.
    _family("share_step", "E + A/D**a*sigmoid(b*r - c)", (_N, _D, _R), _E, _SLOW,
            Co("A", 1.0, 2.0, log=True, value="u*1e10**a"), Co("b", 8.0, 16.0), Co("c", 2.0, 3.5)),
    _family("share_worth", "E + A/D**a/(B + r**b)", (_N, _D, _R), _E, _SLOW,
            Co("A", 0.3, 0.6, log=True, value="u*1e10**a"), Co("b", 1.2, 2.0), Co("B", 0.1, 0.3)),
    _family("capacity", "E + A/D**a/min(N, K)**b", (_N, _D, _R), _E, Co("a", 0.15, 0.25), Co("b", 0.15, 0.25),
            Co("K", 1e8, 6e8, log=True), Co("A", 0.6, 1.2, log=True, value="u*1e10**a*1e8**b")),
    _family("both_shifted", "E + A/((N + K)**a*(D + M)**b)", (_N, _D, _R), _E, Co("a", 0.2, 0.35), Co("b", 0.2, 0.35),
            Co("K", 5e7, 2e8, log=True), Co("M", 1e9, 4e9, log=True),
            Co("A", 0.8, 1.5, log=True, value="u*1e8**a*1e10**b")),
)  # fmt: skip

SETS: tuple[tuple[str, int], ...] = (
    ("mixed_size", 0), ("mixed_size", 1), ("bent_size", 0), ("shifted_tokens", 0), ("shifted_tokens", 1),
    ("steep_tokens", 0), ("steep_tokens", 1), ("share_step", 0), ("share_step", 1), ("share_worth", 0),
    ("share_worth", 1), ("capacity", 0), ("capacity", 1), ("both_shifted", 0), ("joint_moe", 0), ("joint_moe", 1),
    ("precision", 0), ("critical_batch", 0),
)  # fmt: skip
"""Family and seed of each set; families that are not OWN are those of agentlab.planted."""


@dataclass(frozen=True)
class Case:
    """One set: the task, rows to search on, rows without noise at larger scale, the truth and where its fits start."""

    name: str
    seed: int
    task: Task
    rows: Rows
    hidden: Rows
    truth: Law
    keys: frozenset[str]
    start: Mapping[str, float]


def case_of(name: str, seed: int) -> Case:
    """The set of a family and a seed."""
    own = next((f for f in OWN if f.name == name), None)
    if own is None:
        kind, one = family(name), plant(name, seed, noise=NOISE, outliers=0.0, rows=ROWS, design="random")
        task, rows, hidden = one.task, one.rows, one.holdout
    else:
        kind, (task, rows, hidden) = own, grown(own, seed)
    writings = [parse(text, kind.names) for text in (kind.formula, *kind.equal)]
    return Case(name, seed, task, rows, hidden, writings[0], frozenset(law.key for law in writings), _middle(kind))


def grown(kind: Family, seed: int) -> tuple[Task, Rows, Rows]:
    """The task of a family, its noisy rows, and rows without noise at 2 to 100 times the scale."""
    rng = np.random.default_rng([crc32(kind.name.encode()), seed])
    below = train_columns(kind.features, ROWS, "random", rng)
    scale = parse(kind.scale, kind.names)
    top = float(scale.evaluate(below, np.zeros(0)).max())
    beyond = test_columns(kind.features, lambda c: scale.evaluate(c, np.zeros(0)), top, HIDDEN, rng)
    law = parse(kind.formula, kind.names)
    values = constants(kind, {one.name: _drawn(one, rng.random()) for one in kind.coefficients})
    theta = np.array([values[p] for p in law.params])
    noisy = law.evaluate(below, theta) * np.exp(NOISE * rng.standard_normal(ROWS))
    features = tuple(
        Variable(f.name, box=(f.low, reach(f, kind.features)), monotone=f.monotone, log=f.log) for f in kind.features
    )
    task = Task(
        f"planted_{kind.name}", features, (kind.target,), title=f"Synthetic: a planted law, {kind.name}",
        scale=kind.scale, residual=kind.residual, max_params=max(6, len(kind.coefficients)),
    )  # fmt: skip
    return task, _rows(kind, below, noisy, scale), _rows(kind, beyond, law.evaluate(beyond, theta), scale)


def constants(kind: Family, drawn: Mapping[str, float]) -> dict[str, float]:
    """The constants of a family from one draw for each: a value can depend on those before it."""
    known: dict[str, float] = {}
    for one in kind.coefficients:
        here = {"u": drawn[one.name], **known}
        columns = {name: np.array([value]) for name, value in here.items()}
        known[one.name] = float(parse(one.value, tuple(here)).evaluate(columns, np.zeros(0))[0])
    return known


def _middle(kind: Family) -> dict[str, float]:
    """Constants in the middle of their ranges: what who knows a law knows of its size."""
    return constants(kind, {one.name: _drawn(one, 0.5) for one in kind.coefficients})


def _drawn(one: Co, share: float) -> float:
    if one.log:
        return math.exp(math.log(one.low) + share * math.log(one.high / one.low))
    return one.low + share * (one.high - one.low)


def _rows(kind: Family, columns: dict[str, FloatArray], y: FloatArray, scale: Law) -> Rows:
    n, along = len(y), scale.evaluate(columns, np.zeros(0))
    return Rows(columns, {kind.target: y}, np.full(n, ALL), np.ones(n), along, np.arange(n))
