"""What a report is made of: values that know where they stand on record, and the blocks of a page that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agentlab.replay_svg import Figure
from agentlab.trace import number

BLANK = "____"
"""What stands where nobody says it."""


@dataclass(frozen=True, slots=True)
class Sourced:
    """A value as it is shown, and where it stands on record: t12 is line 12 of trace.jsonl; see REFERENCES."""

    text: str
    ref: str


@dataclass(frozen=True, slots=True)
class Code:
    """A name, a formula, a command or a digest: its digits are no figures."""

    text: str


Part: TypeAlias = str | Sourced | Code
"""Plain words hold no digit: a figure is a Sourced, a name a Code."""

Parts: TypeAlias = Sequence[Part]


@dataclass(frozen=True)
class Heading:
    """The head of a section."""

    parts: Parts
    level: int = 2


@dataclass(frozen=True)
class Para:
    """A paragraph; `lead` is the answer that stands first."""

    parts: Parts
    lead: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[Parts]


@dataclass(frozen=True)
class Row:
    """One line of a table: its cells, and where its figures stand on record where they do not say so themselves."""

    cells: Sequence[Part | None]
    ref: str = ""


@dataclass(frozen=True)
class Grid:
    """A table."""

    head: Sequence[Part]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Math:
    """The law: as LaTeX and as it is written."""

    latex: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A figure, what it shows, and where the values drawn in it stand on record."""

    figure: Figure
    caption: Parts
    ref: str


@dataclass(frozen=True)
class Pre:
    """Commands, code or digests, to be copied."""

    text: str
    folded: str = ""


Block: TypeAlias = Heading | Para | Bullets | Grid | Math | Picture | Pre

REFERENCES: Mapping[str, str] = {
    "tN": "line N of trace.jsonl; tN-M counts or draws the lines N to M",
    "rK:N": "line N of rounds/K/trace.jsonl",
    "h": "the line of trace.jsonl whose kind is holdout, written once by the process that alone reads sealed rows",
    "a:FIELD": "a field of audit.json beside this report",
    "c:FIELD": "a field of config.json",
    "k:FIELD": "a field of task.json",
    "f:FILE": "counted in that file",
    "m": "the last line of timing.jsonl: clock time is measured, and differs when the run is repeated",
}


@dataclass(frozen=True)
class Source:
    """A record with the reference of its fields: of the trace, or of audit.json, where a field is a path."""

    record: Mapping[str, Any] = field(repr=False)
    ref: str
    fields: bool = False

    def of(self, path: str, form: str = ".5g", *, percent: bool = False) -> Sourced | None:
        """The figure at a path such as dev.are; None where there is none."""
        value: Any = self.record
        for name in path.split("."):
            value = value[int(name)] if isinstance(value, list | tuple) else value.get(name)
            if value is None:
                return None
        if isinstance(value, str) and value not in ("inf", "-inf", "nan"):
            return Sourced(value, self._ref(path))
        told = number(value)
        return Sourced(f"{told:.3%}" if percent else format(told, form), self._ref(path))

    def _ref(self, path: str) -> str:
        return f"{self.ref}{path}" if self.fields else self.ref
