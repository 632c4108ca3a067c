"""Where the runs of a planted set lie: designs of unequal quality below, and hold-out points at larger scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agentlab.planted_records import Design, Feature, PlantedError
from agentlab.types import FloatArray

REACH = 100.0
"""Times the largest scale seen in training up to which the hold-out reaches; it begins at NEAR times."""
NEAR = 2.0
APART = 30.0
"""Times its training range that a feature reaches where several grow."""
BANDS = 6

Columns = dict[str, FloatArray]
ScaleOf = Callable[[Mapping[str, FloatArray]], FloatArray]


def train_columns(features: Sequence[Feature], n: int, design: Design, rng: np.random.Generator) -> Columns:
    """Columns (n,) of the training rows, each within the range of its feature."""
    growing = [f for f in features if f.grows]
    place = _PLACES[design](growing, n, len(growing) == len(features), rng)
    columns = {}
    for feature in features:
        if feature.grows:
            columns[feature.name] = _between(feature.low, feature.high, place[:, growing.index(feature)])
        else:
            columns[feature.name] = _other(feature, n, rng)
    return columns


def test_columns(
    features: Sequence[Feature], scale_of: ScaleOf, top: float, n: int, rng: np.random.Generator
) -> Columns:
    """Columns (n,) of hold-out rows whose scale is NEAR to REACH times `top`, the largest of the training rows."""
    kept: list[Columns] = []
    found = 0
    for _ in range(1000):
        drawn = {f.name: _beyond(f, features, 4 * n, rng) for f in features}
        scale = scale_of(drawn)
        inside = (scale >= NEAR * top) & (scale <= REACH * top)
        kept.append({name: values[inside] for name, values in drawn.items()})
        found += int(np.count_nonzero(inside))
        if found >= n:
            return {f.name: np.concatenate([k[f.name] for k in kept])[:n] for f in features}
    raise PlantedError(f"only {found} of {n} hold-out rows lie at {NEAR:g} to {REACH:g} times the scale; widen a range")


def reach(feature: Feature, features: Sequence[Feature]) -> float:
    """The largest value that a feature takes in the hold-out."""
    if not feature.grows:
        return feature.high
    return feature.high * (APART if sum(f.grows for f in features) > 1 else REACH)


def _beyond(feature: Feature, features: Sequence[Feature], n: int, rng: np.random.Generator) -> FloatArray:
    if not feature.grows:
        return _other(feature, n, rng)
    alone = sum(f.grows for f in features) == 1
    low = feature.low if alone else math.sqrt(feature.low * feature.high)
    return _between(low, reach(feature, features), rng.random(n))


def _other(feature: Feature, n: int, rng: np.random.Generator) -> FloatArray:
    """Values of a feature that does not grow: all choices about equally often, or spread over its range."""
    if feature.choices:
        return rng.permutation(np.resize(rng.permutation(feature.choices), n))
    u = rng.random(n)
    return _between(feature.low, feature.high, u) if feature.log else feature.low + u * (feature.high - feature.low)


def _between(low: float, high: float, u: FloatArray) -> FloatArray:
    return np.exp(math.log(low) + u * math.log(high / low))


def _grid(growing: Sequence[Feature], n: int, alone: bool, rng: np.random.Generator) -> FloatArray:
    """Places (n, g) on a grid; the same cell comes again only where other features tell its rows apart."""
    g = len(growing)
    per_side = math.ceil(n ** (1 / g)) if alone else (6 if g > 1 else 10)
    side = np.linspace(0.0, 1.0, per_side)
    cells = np.stack(np.meshgrid(*[side] * g), axis=-1).reshape(-1, g)
    times = -(-n // len(cells))
    return np.concatenate([rng.permutation(cells) for _ in range(times)])[:n]


def _bands(growing: Sequence[Feature], n: int, _alone: bool, rng: np.random.Generator) -> FloatArray:
    """Places (n, g) on BANDS levels of the product of all that grows, the last feature making up the rest."""
    widths = np.array([math.log(f.high / f.low) for f in growing])
    level = np.resize(np.linspace(0.2, 0.8, BANDS) if len(growing) > 1 else np.linspace(0.0, 1.0, BANDS), n)
    if len(growing) == 1:
        return np.clip(level + 0.01 * rng.standard_normal(n), 0.0, 1.0)[:, None]
    budget = level * widths.sum()
    first, rest = widths[0], widths[1:].sum()
    low, high = np.clip((budget - rest) / first, 0, 1), np.clip(budget / first, 0, 1)
    u = low + rng.random(n) * (high - low)
    others = (budget - u * first) / rest
    return np.column_stack([u, *[others] * (len(growing) - 1)])


def _random(growing: Sequence[Feature], n: int, _alone: bool, rng: np.random.Generator) -> FloatArray:
    return rng.random((n, len(growing)))


def _sparse(growing: Sequence[Feature], n: int, _alone: bool, rng: np.random.Generator) -> FloatArray:
    """Places (n, g): nine rows of ten in the lower 60% of every range, the others in the top fifth."""
    large = np.arange(n) % 10 == 0
    u = rng.random((n, len(growing)))
    return np.where(large[:, None], 0.8 + 0.2 * u, 0.6 * u)


_PLACES: Mapping[Design, Callable[[Sequence[Feature], int, bool, np.random.Generator], FloatArray]] = {
    "grid": _grid,
    "bands": _bands,
    "random": _random,
    "sparse": _sparse,
}
