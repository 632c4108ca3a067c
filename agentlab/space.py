"""The runs that could be made: every choice of the knobs with what it costs, as the laws and the tools see it.

A task's design space is the table [design] of its task.toml:

    [design]
    tool = "train.start"                starts one run and answers with `job` and `state`
    poll = "train.status"               says where it stands: {job = ..}
    cancel = "train.cancel"             optional
    cost = "budget"                     FLOPs of a run, an expression over the knobs and `values`
    noise = 0.01                        optional: relative standard deviation of the target between seeds
    misfit = 0.2                        optional: relative error that every law may have far from all rows
    seed = "seed"                       optional: key of the config that takes the seed of a repeat
    progress = "train.segments"         optional: tells a run's losses by segment, with
    curve_noise = 0.01                  the noise of the loss between seeds: runs whose curve has answered are stopped
    derive = "data.leverage"            optional: the tool that makes rows for the law out of a table of runs
    runs = "data/runs.csv"              with derive: the runs that there are
    predict = true                      optional: the law shall predict well in its box; nothing is decided
    require = ["top_k <= experts"]      optional: choices that do not meet these are left out
    [design.arguments]                  optional: arguments of the tool that do not change
    [[design.knob]]                     at least one: `values`, or `low` and `high` with `levels`, or `rows`
    name = "per"
    values = [2, 4, 8]
    [design.values]                     optional: names for expressions, each over those before it
    [design.config]                     the argument `config` of the tool: numbers, words, or "= expression"
    [design.columns]                    optional: features of the law that are no knobs, as expressions
    [design.targets]                    the tool's answer by target: a dotted path such as "valid_loss"
    [design.run]                        with derive: further columns of a run's line, as expressions
    [design.prepare]                    optional: a tool that is called once before: `tool`, `arguments`, and
    take = {corpus = "folder"}          which of its answers go into the config
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentlab.errors import AgentlabError, nearest
from agentlab.law import column_expression, rows_where
from agentlab.law_tree import LawError
from agentlab.types import BoolArray, FloatArray, Task

__all__ = ["Design", "Knob", "Prepare", "Space", "SpaceError", "read_design", "space_of", "values_of"]

Json = bool | int | float | str

MOST = 20_000
"""Choices that a space may hold: every one is weighed in every round."""

LEVELS = 9


class SpaceError(AgentlabError):
    """A design space that cannot be used; the line names the key and the fix."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Knob(_Strict):
    """One thing that may be chosen: `values`, or `levels` from `low` to `high`, or `rows` that set several names."""

    name: str
    values: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    levels: int = Field(default=LEVELS, ge=2, le=200)
    log: bool = True
    integer: bool = False
    multiple_of: int = Field(default=1, ge=1)
    rows: tuple[dict[str, Json], ...] = ()

    def choices(self) -> list[dict[str, Json]]:
        """What it can be, each as the names that it sets.

        Raises:
            SpaceError: neither or several of values, low with high, and rows are given, or a range is none.
        """
        where = f"design.knob {self.name!r}"
        given = [bool(self.values), self.low is not None or self.high is not None, bool(self.rows)]
        if sum(given) != 1:
            raise SpaceError(f"{where}: give one of values, low with high, and rows")
        if self.rows:
            if any(set(row) != set(self.rows[0]) for row in self.rows):
                raise SpaceError(f"{where}: its rows set different names; let each set the same")
            return [dict(row) for row in self.rows]
        if self.values:
            return [{self.name: _plain(v)} for v in self.values]
        if self.low is None or self.high is None or not self.low < self.high or (self.log and self.low <= 0):
            raise SpaceError(f"{where}: low={self.low}, high={self.high}; write low < high, above 0 unless log = false")
        spaced = np.geomspace if self.log else np.linspace
        some = spaced(self.low, self.high, self.levels)
        if self.integer or self.multiple_of > 1:
            some = np.unique(np.round(some / self.multiple_of) * self.multiple_of)
            some = some[(some >= self.low) & (some <= self.high)]
        if not len(some):
            raise SpaceError(f"{where}: no multiple of {self.multiple_of} lies between {self.low:g} and {self.high:g}")
        return [{self.name: _plain(float(v))} for v in some]


class Prepare(_Strict):
    """A tool that is called before the first run, and what of its answer the config takes."""

    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    take: dict[str, str] = Field(default_factory=dict)


class Design(_Strict):
    """The table [design]; the module says what each key is."""

    tool: str
    poll: str
    cancel: str = ""
    cost: str
    noise: float | None = Field(default=None, gt=0, lt=1)
    misfit: float = Field(default=0.0, ge=0, lt=10)
    seed: str = ""
    progress: str = ""
    curve_noise: float | None = Field(default=None, gt=0, lt=1)
    derive: str = ""
    runs: str = ""
    require: tuple[str, ...] = ()
    arguments: dict[str, Any] = Field(default_factory=dict)
    knob: tuple[Knob, ...] = Field(min_length=1)
    values: dict[str, str] = Field(default_factory=dict)
    config: dict[str, Json] = Field(default_factory=dict)
    columns: dict[str, str] = Field(default_factory=dict)
    targets: dict[str, str] = Field(min_length=1)
    run: dict[str, str] = Field(default_factory=dict)
    prepare: Prepare | None = None
    predict: bool = False


@dataclass(frozen=True)
class Space:
    """X feasible configurations.

    `columns` (X,) are the features of the law, `cost` (X,) the FLOPs of a run, `places` (X,) by knob say where a
    configuration lies in the knob's range, from 0 to 1; `dear` tells the knobs along which runs grow dearer. `configs`
    holds what the tool is asked for, `lines` (X,) further columns of a run's line.
    """

    columns: Mapping[str, FloatArray]
    cost: FloatArray
    places: Mapping[str, FloatArray]
    dear: Mapping[str, bool]
    configs: Sequence[Mapping[str, Json]]
    lines: Mapping[str, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cost)

    @property
    def usual(self) -> float:
        """The middle cost of the runs, in FLOPs."""
        return float(np.sort(self.cost)[len(self) // 2])

    def take(self, keep: BoolArray) -> Space:
        """The configurations where `keep` is True."""
        index = np.flatnonzero(keep)
        return Space(
            {k: v[index] for k, v in self.columns.items()},
            self.cost[index],
            {k: v[index] for k, v in self.places.items()},
            self.dear,
            [self.configs[int(i)] for i in index],
            {k: v[index] for k, v in self.lines.items()},
        )


def read_design(told: Mapping[str, Any], task: Task) -> Design:
    """The design space of a task, checked.

    Raises:
        SpaceError: a key is missing, unknown or of the wrong kind, or a feature or target has no source.
    """
    try:
        design = Design.model_validate(dict(told))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(p) for p in ("design", *fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = list((Knob if len(fault["loc"]) > 1 and fault["loc"][0] == "knob" else Design).model_fields)
            raise SpaceError(f"{task.name}: {where} is no key; {nearest(str(fault['loc'][-1]), known)}") from error
        raise SpaceError(f"{task.name}: {where}: {fault['msg'].lower()}") from error
    if set(design.targets) != set(task.targets) and not design.derive:
        named = ", ".join(design.targets)
        raise SpaceError(f"{task.name}: design.targets names {named}; write {', '.join(task.targets)}")
    if design.progress and len(design.targets) > 1:
        raise SpaceError(f"{task.name}: design.progress tells one value, and there are several targets; leave it out")
    space_of(design, task)
    return design


def space_of(design: Design, task: Task) -> Space:
    """Every choice of the knobs that meets what is required.

    Raises:
        SpaceError: an expression names what there is not, no choice is left, or there are too many.
    """
    axes = [knob.choices() for knob in design.knob]
    count = math.prod(len(a) for a in axes)
    if count > MOST:
        raise SpaceError(f"{task.name}: the design space has {count} choices; give fewer levels, {MOST} at most")
    index = list(itertools.product(*(range(len(a)) for a in axes)))
    names = [{k: v for axis, i in zip(axes, row, strict=True) for k, v in axis[i].items()} for row in index]
    words = {k for n in names for k, v in n.items() if isinstance(v, str)}
    numbers = {k: np.array([float(n[k]) for n in names]) for k in names[0] if k not in words}
    if not numbers:
        raise SpaceError(f"{task.name}: no knob of the design space is a number; give one that is")
    for name, text in design.values.items():
        numbers[name] = values_of(text, numbers, f"{task.name}: design.values.{name}")
    cost = values_of(design.cost, numbers, f"{task.name}: design.cost")
    keep = np.isfinite(cost) & (cost > 0)
    for text in design.require:
        try:
            keep &= rows_where(text, numbers)
        except LawError as error:
            raise SpaceError(f"{task.name}: design.require {text!r}: {error}") from error
    columns = {}
    for name in task.names:
        if name not in design.columns and name not in numbers:
            raise SpaceError(f"{task.name}: nothing says what {name} of a run is; write it in design.columns")
        text = design.columns.get(name, name)
        columns[name] = values_of(text, numbers, f"{task.name}: design.columns.{name}")
        keep &= np.isfinite(columns[name])
    if not keep.any():
        raise SpaceError(f"{task.name}: no choice of the knobs meets design.require; widen a knob")
    sides = [np.array([row[j] for row in index]) for j in range(len(axes))]
    places = {k.name: s / max(len(a) - 1, 1) for k, s, a in zip(design.knob, sides, axes, strict=True)}
    dear = {k.name: _grows(places[k.name], cost, keep) for k in design.knob}
    configs = _configs(design, names, numbers, task)
    lines = {k: values_of(text, numbers, f"{task.name}: design.run.{k}") for k, text in design.run.items()}
    return Space(columns, cost, places, dear, configs, lines).take(keep)


def _grows(place: FloatArray, cost: FloatArray, keep: BoolArray) -> bool:
    """Whether runs grow dearer along a knob, whatever the others are."""
    if np.ptp(place[keep]) == 0:
        return False
    return bool(np.corrcoef(place[keep], np.log(cost[keep]))[0, 1] > 0.1) if np.ptp(cost[keep]) > 0 else False


def values_of(text: str, numbers: Mapping[str, FloatArray], where: str) -> FloatArray:
    """The values (n,) of an expression over columns. Raises SpaceError, which begins with `where`."""
    n = len(next(iter(numbers.values())))
    try:
        with np.errstate(all="ignore"):
            return np.array(np.broadcast_to(column_expression(text, numbers), (n,)), dtype=np.float64)
    except LawError as error:
        raise SpaceError(f"{where} = {text!r}: {error}") from error


def _configs(
    design: Design, names: Sequence[Mapping[str, Json]], numbers: Mapping[str, FloatArray], task: Task
) -> list[dict[str, Json]]:
    """What the tool is asked for: the config as it is told, with every "= expression" filled in."""
    filled: dict[str, FloatArray] = {}
    for key, told in design.config.items():
        if isinstance(told, str) and told.startswith("="):
            text = told[1:].strip()
            if text not in names[0]:
                filled[key] = values_of(text, numbers, f"{task.name}: design.config.{key}")
    found = []
    for i, name in enumerate(names):
        one: dict[str, Json] = {}
        for key, told in design.config.items():
            if key in filled:
                value = float(filled[key][i])
                one[key] = _plain(value if value.is_integer() else float(f"{value:.6g}"))
            elif isinstance(told, str) and told.startswith("="):
                one[key] = name[told[1:].strip()]
            else:
                one[key] = told
        found.append(one)
    return found


def _plain(value: float) -> Json:
    """A whole number as an int, so that a tool that wants one gets it."""
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)
