"""Tables made from the shared files where a set needs more than its columns: routed runs, schedules, inner splits."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from laws_sets import MULTI_POWER_GRID

from agentlab.types import FloatArray

Line = dict[str, str]

WARM_UP = 2160
"""Steps of linear warm-up, which the schedule files do not log."""

MOMENTUM = 0.999
"""Share of a fall of the learning rate that is remembered a step later (arXiv 2408.11029 uses .99 to .999)."""

INNER_SHARE = 0.7
"""Training points of a learning curve that the inner split fits; the later ones are predicted."""


def made(kind: str, source: Path, folder: Path) -> Path:
    """The table to use for a set: its own file, or one derived from it, written into `folder`."""
    if not kind:
        return source
    with source.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    path = folder / f"{source.parent.name}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    rows = _TABLES[kind](lines)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)
    return path


def routed(lines: Sequence[Line]) -> list[Line]:
    """Dense runs (one expert) stand in the group of every router, as the routed law asks; they keep their run_id."""
    routers = sorted({line["router_type"] for line in lines} - {"Dense"})
    dense = [line | {"router_type": r} for r in routers for line in lines if line["router_type"] == "Dense"]
    return [*(line for line in lines if line["router_type"] != "Dense"), *dense]


def curves(lines: Sequence[Line]) -> list[Line]:
    """A column `inner`: 1 and 2 for the earlier and later training points of a curve, 0 for all other rows."""
    last = {}
    for name, own in _by(lines, ("curve_id",)).items():
        seen = sorted(float(line["seen_examples"]) for line in own if line["is_train"] == "1")
        last[name] = seen[int(INNER_SHARE * (len(seen) - 1))] if seen else 0.0
    return [line | {"inner": _part(line, last[(line["curve_id"],)])} for line in lines]


def _part(line: Line, last: float) -> str:
    if line["is_train"] != "1":
        return "0"
    return "1" if float(line["seen_examples"]) <= last else "2"


def schedules(lines: Sequence[Line]) -> list[Line]:
    """What a step's whole past says: see `past`. Every curve (model size, schedule) is one run."""
    out = []
    for (size, name), own in _by(lines, ("model_size_m", "schedule")).items():
        ordered = sorted(own, key=lambda line: float(line["step"]))
        step = np.array([float(line["step"]) for line in ordered])
        rate = np.array([float(line["lr"]) for line in ordered])
        columns = past(step, rate)
        for i, line in enumerate(ordered):
            out.append(line | {"run_id": f"{size}M {name}"} | {k: repr(float(v[i])) for k, v in columns.items()})
    return out


def past(step: FloatArray, rate: FloatArray) -> Mapping[str, FloatArray]:
    """Columns (n,) for logged steps and learning rates (n,), from the logged values alone.

    `lr_sum` is the sum of the learning rate since step 0, warm-up included; `lr_now` the learning rate; `lr_fall` sums
    over steps what momentum remembers of its falls (S2 of arXiv 2408.11029); `mpl_i` is the annealing term of the
    multi-power law, sum_k (fall at k) (1 - (1 + C rate_k^-gamma S_k)^-beta) with S_k the sum of the learning rate since
    k (arXiv 2503.12811), at point i of MULTI_POWER_GRID.
    """
    length = np.diff(step, prepend=step[:1])
    before = np.concatenate([rate[:1], rate[:-1]])
    warm = rate[0] * (WARM_UP / 2 + max(step[0] - WARM_UP, 0.0))
    total = warm + np.cumsum(length * (rate + before) / 2)
    fall = before - rate
    columns = {"lr_sum": total, "lr_now": rate, "lr_fall": _remembered(fall, length)}
    since = np.maximum(total[:, None] - total[None, :], 0.0)
    earlier = np.tri(len(step))
    for i, (gamma, speed, beta) in enumerate(MULTI_POWER_GRID):
        gain = 1.0 - (1.0 + speed * rate**-gamma * since) ** -beta
        columns[f"mpl_{i}"] = np.sum(earlier * fall * gain, axis=1)
    return columns


def _remembered(fall: FloatArray, length: FloatArray) -> FloatArray:
    """sum over steps of m, where m decays by MOMENTUM a step and grows by every fall."""
    kept = MOMENTUM**length
    m = area = 0.0
    out = np.empty(len(fall))
    for i in range(len(fall)):
        area += m * (1.0 - kept[i]) / (1.0 - MOMENTUM)
        m = m * kept[i] + fall[i]
        out[i] = area
    return out


def _by(lines: Iterable[Line], names: Sequence[str]) -> dict[tuple[str, ...], list[Line]]:
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(tuple(line[n] for n in names), []).append(line)
    return groups


_TABLES: Mapping[str, Callable[[Sequence[Line]], list[Line]]] = {
    "routed": routed,
    "curves": curves,
    "schedules": schedules,
}
