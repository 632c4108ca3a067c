"""Planted laws: synthetic rows from laws with known truth, to see whether a search finds what is there.

    from agentlab.planted import families, plant
    one = plant("chinchilla", seed=3)          # one.rows to search on, one.holdout at 2 to 100 times the scale

Everything is drawn from (family, seed): constants around the published ones, the number of rows, the design, the noise
and the outliers. The same two give the same set; each of noise, outliers, rows and design can be set instead, and the
rest stays as drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from agentlab.errors import nearest
from agentlab.law import Law, parse
from agentlab.planted_designs import reach, test_columns, train_columns
from agentlab.planted_families import FAMILIES
from agentlab.planted_records import DESIGNS, Coefficient, Design, Family, Feature, Planted, PlantedError
from agentlab.types import ALL, FloatArray, Rows, StrArray, Task, Variable

__all__ = ["Coefficient", "Design", "Family", "Feature", "Planted", "PlantedError", "families", "family", "plant"]

HOLDOUT_ROWS = 100
NOISE = (0.002, 0.02)
OUTLIERS = (0.0, 0.0, 0.02, 0.05)
ASTRAY = (0.05, 0.3)
"""How far, relative to the target, an outlier lies from the truth."""
UPWARD = 0.8
"""The share of outliers that lie above: a run that goes wrong ends higher more often than lower."""
TRIES = 50


@dataclass(frozen=True)
class _Streams:
    """One random stream for each choice, so that setting one of them leaves the others as drawn."""

    settings: np.random.Generator
    constants: np.random.Generator
    places: np.random.Generator
    noise: np.random.Generator
    holdout: np.random.Generator


def families() -> tuple[Family, ...]:
    """The twenty families; five of them are `outside`: their structure is in no law that the search starts from."""
    return FAMILIES


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        PlantedError: there is no such family.
    """
    for one in FAMILIES:
        if one.name == name:
            return one
    raise PlantedError(f"no family {name!r} of planted laws; {nearest(name, [f.name for f in FAMILIES])}")


def plant(
    name: str,
    seed: int,
    *,
    noise: float | None = None,
    outliers: float | None = None,
    rows: int | None = None,
    design: Design | None = None,
) -> Planted:
    """The planted set of family `name` and `seed`.

    `noise` is the relative standard deviation of the target (drawn from .2% to 2%), `outliers` the share of rows that
    lie 5% to 30% off (0 to 5%), `rows` their number (40 to 200), `design` how they lie.

    Raises:
        PlantedError: an unknown family, or a value out of range.
    """
    kind = family(name)
    streams = _Streams(*(np.random.default_rng([crc32(name.encode()), seed, i]) for i in range(5)))
    drawn = _settings(kind, streams.settings)
    noise = drawn[0] if noise is None else noise
    outliers = drawn[1] if outliers is None else outliers
    rows = drawn[2] if rows is None else rows
    design = drawn[3] if design is None else design
    if noise < 0 or not 0 <= outliers <= 0.5 or rows < 3 * kind.groups:
        raise PlantedError(
            f"{name}: noise={noise}, outliers={outliers}, rows={rows}: give noise >= 0, a share, more rows"
        )
    labels = np.array([ALL] if kind.groups == 1 else [f"g{i}" for i in range(kind.groups)])
    below = train_columns(kind.features, rows, design, streams.places)
    scale = parse(kind.scale, kind.names)
    top = float(scale.evaluate(below, np.zeros(0)).max())
    beyond = test_columns(kind.features, lambda c: scale.evaluate(c, np.zeros(0)), top, HOLDOUT_ROWS, streams.holdout)
    searched, sealed = (_Places(c, np.resize(labels, len(c[kind.names[0]])), scale) for c in (below, beyond))
    params, train, test = _truth(kind, searched, sealed, streams.constants)
    y = _measured(kind, train, noise, outliers, streams.noise)
    task = _task(kind)
    return Planted(
        name, seed, kind.formula, params, task, searched.rows(kind, y), sealed.rows(kind, test), noise, design, outliers
    )


@dataclass(frozen=True)
class _Places:
    """Columns (n,) and group labels (n,) of rows whose target is not known yet."""

    columns: dict[str, FloatArray]
    group: StrArray
    scale: Law

    def rows(self, kind: Family, y: FloatArray) -> Rows:
        """The rows with their target."""
        n = len(y)
        scale = self.scale.evaluate(self.columns, np.zeros(0))
        return Rows(self.columns, {kind.target: y}, self.group, np.ones(n), scale, np.arange(n))


def _settings(kind: Family, rng: np.random.Generator) -> tuple[float, float, int, Design]:
    noise = math.exp(rng.uniform(math.log(NOISE[0]), math.log(NOISE[1])))
    outliers = OUTLIERS[int(rng.integers(len(OUTLIERS)))]
    rows = int(rng.integers(kind.rows[0], kind.rows[1] + 1))
    return noise, outliers, rows, DESIGNS[int(rng.integers(len(DESIGNS)))]


def _truth(
    kind: Family, train: _Places, test: _Places, rng: np.random.Generator
) -> tuple[dict[str, dict[str, dict[str, float]]], FloatArray, FloatArray]:
    """True constants by group, and the target without noise; drawn again where it is no number, or not positive."""
    law = parse(kind.formula, kind.names)
    for _ in range(TRIES):
        params = {str(g): {kind.target: constants_of(kind, rng)} for g in np.unique(train.group)}
        below = law.predict(train.columns, train.group, params)[kind.target]
        beyond = law.predict(test.columns, test.group, params)[kind.target]
        both = np.concatenate([below, beyond])
        if np.all(np.isfinite(both)) and (kind.residual == "plain" or np.all(both > 0)):
            return params, below, beyond
    raise PlantedError(f"{kind.name}: no constants with finite targets in {TRIES} draws; narrow a range")


def constants_of(kind: Family, rng: np.random.Generator) -> dict[str, float]:
    known: dict[str, float] = {}
    for one in kind.coefficients:
        u = math.exp(rng.uniform(math.log(one.low), math.log(one.high))) if one.log else rng.uniform(one.low, one.high)
        # A coefficient is a law over the draw and the coefficients before it, without parameters of its own.
        here = {"u": u, **known}
        columns = {name: np.array([value]) for name, value in here.items()}
        known[one.name] = float(parse(one.value, tuple(here)).evaluate(columns, np.zeros(0))[0])
    return known


def _measured(kind: Family, y: FloatArray, noise: float, outliers: float, rng: np.random.Generator) -> FloatArray:
    """The target as it is measured: with noise, and a few rows astray."""
    n = len(y)
    size = y if kind.residual == "log" else np.full(n, np.mean(np.abs(y)))
    error = noise * rng.standard_normal(n)
    order, far = rng.permutation(n), rng.uniform(*ASTRAY, size=n) * np.where(rng.random(n) < UPWARD, 1.0, -1.0)
    astray = order[: round(outliers * n)]
    error[astray] = far[astray]
    return y + size * error


def _task(kind: Family) -> Task:
    features = tuple(
        Variable(f.name, box=(f.low, reach(f, kind.features)), monotone=f.monotone, log=f.log) for f in kind.features
    )
    return Task(
        f"planted_{kind.name}",
        features,
        (kind.target,),
        title=f"Synthetic: a planted law, {kind.name}",
        group="group" if kind.groups > 1 else None,
        scale=kind.scale,
        residual=kind.residual,
        max_params=max(6, len(kind.coefficients)),
    )
