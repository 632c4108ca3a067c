"""Reads a task's folder: task.toml, and reference.toml where a published law is known.

    [task]                          name and title are words; the rest names columns of the data
    title = "Efficiency leverage of mixture-of-experts models"
    group = "family"                optional: one set of parameters a group
    weights = "weight"              optional
    run = "run_id"                  optional: rows with the same value are not independent
    scale = "C"                     optional: an expression over columns that orders the hold-outs
    [[feature]]
    name = "A"
    unit = "1"
    description = "active share of the routed experts"
    box = [0.001, 1.0]              optional: where laws must behave
    monotone = "-"                  optional: the target falls as the feature rises
    log = true                      optional: spans orders of magnitude
    [target]
    columns = ["EL"]
    range = [0.0, 100.0]            optional: the values that the targets can take at all
    [law]
    max_params = 6
    residual = "log"                "log" or "plain"
    bounds = { alpha = [0.0, 2.0] } optional
    [data]
    train = "data/leverage.csv"     in this folder, else under $AGENTLAB_DATA
    holdout = "data/holdout.csv"    optional
    hub = { dataset = "owner/name", config = "..", train = 36, digest = ".." }   optional, for `agentlab data get`
    sealed_flops = 9e12             optional: budgets that the tool server `train` refuses, as they make the hold-out
    [design]                        optional: the runs that can be made for the task (space.py says how)

reference.toml holds `formula`, `source` and a table [params] with the published constants.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentlab.types import AgentlabError, Head, Reference, Source, Task, Variable

T = TypeVar("T", bound=BaseModel)
FindData = Callable[[str], Path | None]


class TaskFileError(AgentlabError):
    """A task.toml or reference.toml that cannot be used; the line names file, key and fix."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class _Head(_Table):
    title: str = ""
    group: str | None = None
    weights: str | None = None
    run: str | None = None
    scale: str | None = None


class _Feature(_Table):
    name: str
    unit: str = ""
    description: str = ""
    box: tuple[float, float] | None = None
    monotone: Literal["", "+", "-"] = ""
    log: bool = True


class _Target(_Table):
    columns: list[str] = Field(min_length=1)
    range: tuple[float, float] | None = None
    unit: str = ""
    description: str = ""


class _Law(_Table):
    max_params: int = Field(default=6, ge=1)
    residual: Literal["log", "plain"] = "plain"
    bounds: dict[str, tuple[float, float]] = Field(default_factory=dict)


class _Hub(_Table):
    dataset: str
    config: str
    train: int = Field(default=0, ge=0)
    test: int = Field(default=0, ge=0)
    digest: str = ""


class _Data(_Table):
    train: str
    holdout: str | None = None
    sealed_flops: float | None = Field(default=None, gt=0)
    hub: _Hub | None = None


class _File(_Table):
    task: _Head = Field(default_factory=_Head)
    feature: list[_Feature] = Field(min_length=1)
    target: _Target
    law: _Law = Field(default_factory=_Law)
    data: _Data
    design: dict[str, Any] | None = None


class _Reference(_Table):
    formula: str
    source: str = ""
    params: dict[str, float] = Field(default_factory=dict)


def read_task_file(folder: Path, find_data: FindData) -> Task:
    """The task in `folder`; `find_data` finds files that are not in the folder itself.

    Raises:
        TaskFileError: a file is missing, is no TOML, or a key is missing, unknown or of the wrong kind.
    """
    path = folder / "task.toml"
    told = _read(path, _File)
    _check(path, told)
    reference = folder / "reference.toml"
    train = _data_file(folder, told.data.train, find_data)
    if train is None:
        fetch = f"get it with: agentlab data get {folder.name}, or" if told.data.hub else "put it there, or"
        raise TaskFileError(
            f"{path}: data.train = {told.data.train!r} is not in the task's folder nor in one of AGENTLAB_DATA; "
            f"{fetch} set AGENTLAB_DATA to the folder that holds it"
        )
    holdout = _data_file(folder, told.data.holdout, find_data) if told.data.holdout else None
    return Task(
        name=folder.name,
        title=told.task.title,
        features=tuple(Variable(**feature.model_dump()) for feature in told.feature),
        targets=tuple(told.target.columns),
        group=told.task.group,
        weights=told.task.weights,
        run=told.task.run,
        scale=told.task.scale,
        residual=told.law.residual,
        max_params=told.law.max_params,
        bounds=told.law.bounds,
        limits=dict.fromkeys(told.target.columns, told.target.range) if told.target.range else {},
        reference=_reference(reference) if reference.is_file() else None,
        train_file=str(train),
        holdout_file=None if holdout is None else str(holdout),
    )


def read_design_table(folder: Path) -> dict[str, Any] | None:
    """The table [design] of a task as it stands there, None where it has none. Raises TaskFileError."""
    return _read(folder / "task.toml", _File).design


def read_head(folder: Path, find_data: FindData) -> Head:
    """What task.toml says without the rows. Raises TaskFileError as read_task_file, but for missing rows."""
    path = folder / "task.toml"
    told = _read(path, _File)
    _check(path, told)
    group = (told.task.group,) if told.task.group else ()
    return Head(
        name=folder.name,
        title=told.task.title,
        columns=(*group, *(f.name for f in told.feature), *told.target.columns),
        file=told.data.train,
        here=_data_file(folder, told.data.train, find_data) is not None,
        source=Source(**told.data.hub.model_dump()) if told.data.hub else None,
    )


def _reference(path: Path) -> Reference:
    told = _read(path, _Reference)
    return Reference(told.formula, told.params, told.source)


def _data_file(folder: Path, name: str, find_data: FindData) -> Path | None:
    return folder / name if (folder / name).is_file() else find_data(name)


def _read(path: Path, model: type[T]) -> T:
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as exc:
        raise TaskFileError(f"{path}: not TOML: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise TaskFileError(f"{path}: not UTF-8 text; save it with UTF-8 encoding") from exc
    except ValidationError as exc:
        raise TaskFileError(f"{path}: {_first_fault(exc, model)}") from exc


def _first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault in the file's own terms: "law.max_params: Input should be a valid integer"."""
    fault = error.errors()[0]
    key = _dotted(fault["loc"])
    if fault["type"] == "missing":
        return f"{key} is missing; add it"
    if fault["type"] == "extra_forbidden":
        return f"{key} is not a known key; known there are: {', '.join(_known(model, fault['loc'][:-1]))}"
    return f"{key} = {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _dotted(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _known(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    tables: Mapping[str, type[BaseModel]] = {
        "task": _Head,
        "feature": _Feature,
        "target": _Target,
        "law": _Law,
        "data": _Data,
        "hub": _Hub,
    }
    return list((tables[str(loc[-1] if loc[-1] == "hub" else loc[0])] if loc else model).model_fields)


def _check(path: Path, told: _File) -> None:
    names = [f.name for f in told.feature]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise TaskFileError(f"{path}: feature[{i + 1}].name = {name!r} stands twice; keep one")
        if name in told.target.columns:
            raise TaskFileError(f"{path}: {name!r} is a feature and a target; keep it as one of them")
    for feature in told.feature:
        if feature.box and not feature.box[0] < feature.box[1]:
            raise TaskFileError(f"{path}: box of feature {feature.name!r} is {list(feature.box)}; write [low, high]")
    if told.target.range and not told.target.range[0] < told.target.range[1]:
        raise TaskFileError(f"{path}: target.range is {list(told.target.range)}; write [low, high]")
    for name, (low, high) in told.law.bounds.items():
        if not low < high:
            raise TaskFileError(f"{path}: law.bounds.{name} is [{low}, {high}]; write [low, high]")
