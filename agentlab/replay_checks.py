"""Recorded and recomputed values side by side: what a check is, and how two values are compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentlab.trace import Record, dump

TOLERANCE = 1e-9
"""Relative difference up to which a value is the recorded one: records hold ten digits."""

Kind = Literal["recomputed", "measured (read)", "hold-out (copied)"]
Value = float | str | None


@dataclass(frozen=True, slots=True)
class Check:
    """One recorded value: `line` of the file `trace` below the run's folder holds it, `entry` is its entry if any.

    What was measured, such as losses, times and replies, is read; hold-out figures are copied. Of both `recomputed` is
    None. `difference` is relative for numbers; texts differ by 0 or inf.
    """

    name: str
    kind: Kind
    recorded: Value
    recomputed: Value
    line: int
    trace: str = "trace.jsonl"
    entry: int | None = None

    @property
    def difference(self) -> float:
        """The relative difference, 0 where nothing was recomputed."""
        return 0.0 if self.kind != "recomputed" else difference(self.recorded, self.recomputed)

    @property
    def holds(self) -> bool:
        """Whether the recomputed value is the recorded one."""
        return self.difference <= TOLERANCE


def difference(one: Value, other: Value) -> float:
    """The relative difference of two numbers; of other values 0 where they are equal, else inf."""
    if one == other:
        return 0.0
    if not (isinstance(one, float) and isinstance(other, float)) or not math.isfinite(one - other):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))


def leaves(value: object, name: str = "") -> Iterator[tuple[str, Value]]:
    """The numbers and texts of a JSON value with their paths: dev.r2, cuts.0; every number as a float."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{name}.{i}")
    elif isinstance(value, bool) or value is None:
        yield name, None if value is None else str(value)
    elif isinstance(value, int | float):
        yield name, float(value)
    else:
        yield name, str(value)


def compared(
    what: str, recorded: Mapping[str, Any], again: Mapping[str, Any], line: int, trace: str, entry: int | None = None
) -> list[Check]:
    """A check for every value on either side; one that stands on one side only does not hold."""
    was, now = dict(leaves(_plain(recorded))), dict(leaves(_plain(again)))
    return [
        Check(f"{what} {name}", "recomputed", was.get(name), now.get(name), line, trace, entry)
        for name in dict.fromkeys([*was, *now])
    ]


def read_only(what: str, kind: Kind, recorded: Mapping[str, Any], line: int, trace: str) -> list[Check]:
    """The numbers of a record that is not recomputed."""
    return [
        Check(f"{what} {name}", kind, value, None, line, trace)
        for name, value in leaves(recorded)
        if isinstance(value, float)
    ]


def without(record: Record, *names: str) -> Record:
    """The record without its kind and some other fields."""
    return {k: v for k, v in record.items() if k not in ("kind", "trace_line", *names)}


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As the trace writes it: infinities are texts."""
    return dict(json.loads(dump(value)))
