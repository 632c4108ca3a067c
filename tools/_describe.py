"""What a table of runs holds: columns, groups, which features move together, and what could order the runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from agentlab.csv_columns import Columns, read_columns
from agentlab.csv_header import read_header
from agentlab.table import BIG, SCALE_NAMES, SCALE_SPAN, read_data
from agentlab.types import AgentlabError, FloatArray, RunConfig

MOST = 60
"""Columns that are described; of wider tables, the first."""

LABELS = 8
"""Labels shown of a column of text."""

GROUPS = 20
"""Labels above which a column of text names rows rather than groups."""

TOGETHER = 0.95
"""Correlation of logarithms above which two columns are said to move together."""

PAIRS = 12


class Column(BaseModel):
    """One column; numbers have a range, text its most frequent labels."""

    name: str
    kind: str = Field(description="number or text")
    missing: int
    distinct: int
    low: float | None = None
    high: float | None = None
    decades: float | None = Field(default=None, description="log10(high/low), where every number is positive")
    labels: dict[str, int] = Field(default_factory=dict)
    text_cells: int = Field(default=0, description="cells that hold text in a column of numbers")


class Pair(BaseModel):
    """Two columns that move together, and the correlation of their logarithms (of themselves where not positive)."""

    left: str
    right: str
    correlation: float


class Described(BaseModel):
    """A table at a glance."""

    file: str
    rows: int
    columns: list[Column]
    groups: list[str] = Field(description="columns of text with few labels")
    together: list[Pair]
    condition: float | None = Field(
        description="condition number of the standardised (log) features: above about 30 their effects cannot be told "
        "apart; null where a feature does not vary"
    )
    scales: list[str] = Field(description="columns or products that could order the runs, best first")
    chosen: list[str] = Field(description="what `agentlab discover` would choose for this target and these features")
    notes: list[str]


def described(path: Path, target: str | None, features: Sequence[str]) -> Described:
    """Describe a file. Raises TableError where it cannot be read or has no such column."""
    _, header = read_header(path)
    names = [*dict.fromkeys([*features, *([target] if target else []), *header])][:MOST]
    read = read_columns(path, dict.fromkeys(names, "either"))
    columns = [_column(read, name) for name in names]
    notes = [f"{len(header) - len(names)} more columns are not described"] if len(header) > len(names) else []
    numeric = {c.name: _numbers(read, c.name) for c in columns if c.kind == "number" and c.distinct > 1}
    inputs = {n: v for n, v in numeric.items() if n != target and (not features or n in features)}
    chosen: list[str] = []
    scales = _scales(columns, target, features)
    if target and features:
        try:
            intake = read_data(RunConfig(data=str(path), target=target, features=",".join(features)))
            chosen = list(intake.notes)
            scales = [*dict.fromkeys([*([intake.task.scale] if intake.task.scale else []), *scales])]
        except AgentlabError as error:
            notes.append(f"discover would refuse these rows: {error}")
    return Described(
        file=str(path),
        rows=len(read.lines),
        columns=columns,
        groups=[c.name for c in columns if c.kind == "text" and 1 < c.distinct <= min(GROUPS, len(read.lines) // 2)],
        together=_together(inputs),
        condition=_condition({n: v for n, v in inputs.items() if not features or n in features}),
        scales=scales,
        chosen=chosen,
        notes=notes,
    )


def _numbers(read: Columns, name: str) -> FloatArray:
    return np.asarray(read.values[name], dtype=np.float64)


def _column(read: Columns, name: str) -> Column:
    values = read.values[name]
    if values.dtype.kind != "f":
        labels, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:LABELS]
        missing = int(np.count_nonzero(values == ""))
        shown = {str(labels[i])[:60]: int(counts[i]) for i in order}
        return Column(name=name, kind="text", missing=missing, distinct=len(labels), labels=shown)
    known = np.asarray(values[np.isfinite(values)], dtype=np.float64)
    stray = len(read.text_cells.get(name, {}))
    missing = len(values) - len(known) - stray
    if not len(known):
        return Column(name=name, kind="number", missing=missing, distinct=0, text_cells=stray)
    low, high = float(known.min()), float(known.max())
    return Column(
        name=name,
        kind="number",
        missing=missing,
        distinct=len(np.unique(known)),
        low=low,
        high=high,
        decades=round(math.log10(high / low), 3) if low > 0 else None,
        text_cells=stray,
    )


def _coordinate(values: FloatArray) -> FloatArray:
    """Logarithms where every number is positive."""
    known = values[np.isfinite(values)]
    return np.log(values) if known.min() > 0 else values


def _together(inputs: dict[str, FloatArray]) -> list[Pair]:
    """The pairs of columns that are nearly one, the closest first."""
    found = []
    for left, right in combinations(inputs, 2):
        both = np.isfinite(inputs[left]) & np.isfinite(inputs[right])
        u, v = _coordinate(inputs[left])[both], _coordinate(inputs[right])[both]
        if len(u) < 3 or u.std() == 0 or v.std() == 0:
            continue
        r = float(np.corrcoef(u, v)[0, 1])
        if abs(r) >= TOGETHER:
            found.append(Pair(left=left, right=right, correlation=round(r, 4)))
    return sorted(found, key=lambda p: -abs(p.correlation))[:PAIRS]


def _condition(inputs: dict[str, FloatArray]) -> float | None:
    """Square root of the ratio of the extreme eigenvalues of the correlation matrix."""
    if len(inputs) < 2:
        return None
    table = np.stack([_coordinate(v) for v in inputs.values()])
    table = table[:, np.isfinite(table).all(axis=0)]
    if table.shape[1] < 3 or (table.std(axis=1) == 0).any():
        return None
    values = np.linalg.eigvalsh(np.corrcoef(table))
    return float(f"{math.sqrt(values[-1] / max(values[0], 1e-15)):.4g}")


def _scales(columns: Sequence[Column], target: str | None, features: Sequence[str]) -> list[str]:
    """Columns with a name of compute, then the product of what counts something: large, positive, and growing."""
    named = [n for n in SCALE_NAMES if any(c.name == n and c.kind == "number" for c in columns)]
    sizes = [
        c.name
        for c in columns
        if c.name not in (target, *named)
        and (not features or c.name in features)
        and c.low is not None
        and c.high is not None
        and c.low > 0
        and c.high > max(BIG, SCALE_SPAN * c.low)
    ]
    return [*named, *(["*".join(sizes)] if sizes and len(sizes) <= 3 else sizes)]
