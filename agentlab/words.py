"""The words `key=value` of the command line, read into a frozen record; an unknown key names the nearest."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from agentlab.errors import AgentlabError, nearest
from agentlab.types import RunConfig

T = TypeVar("T")


class UsageError(AgentlabError):
    """A word on the command line that cannot be used."""


def read_words(words: Sequence[str], record: type[T], given: str = "agentlab discover") -> T:
    """A `record` (a frozen dataclass) from words such as "seed=3" or "budget.candidates=50".

    Raises UsageError in one line for an unknown key, a key given twice, a missing value or one of the wrong type.
    """
    nested: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{given}: {word!r} is not key=value; write for example {_example(record)}")
        if key in nested:
            raise UsageError(f"{given}: {key}= is given twice; keep one")
        if value == "":
            raise UsageError(f"{given}: {key}= has no value; write {key}=VALUE or leave it out")
        nested[key] = value
    return _fill(record, nested, "", given)


def data_first(words: Sequence[str]) -> list[str]:
    """The words with a bare first one read as data=: `agentlab fit FILE.csv ..` and `agentlab fit data=FILE.csv ..`."""
    return [f"data={words[0]}", *words[1:]] if words and "=" not in words[0] else list(words)


def _example(record: type[Any]) -> str:
    return f"{dataclasses.fields(record)[0].name}=..."


def _fill(record: type[T], words: dict[str, str], prefix: str, given: str) -> T:
    hints = typing.get_type_hints(record)
    values: dict[str, Any] = {}
    for key, text in words.items():
        head, dot, _ = key.partition(".")
        kind = hints.get(head)
        if kind is None or dataclasses.is_dataclass(kind) != bool(dot):
            raise UsageError(f"{given}: unknown key {prefix + key!r}; {_nearest(prefix + key, record)}")
        if dot:
            inner = {k.partition(".")[2]: v for k, v in words.items() if k.startswith(head + ".")}
            values[head] = _fill(typing.cast("type[Any]", kind), inner, f"{head}.", given)
        else:
            values[head] = _convert(kind, text, prefix + key, given)
    return record(**values)


def keys(record: type[Any], prefix: str = "") -> list[str]:
    """Every key of a record, nested ones with a dot."""
    found = []
    for name, kind in typing.get_type_hints(record).items():
        inner = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        found += keys(kind, f"{name}.") if inner else [prefix + name]
    return found


def _nearest(key: str, record: type[Any]) -> str:
    return nearest(key, ["budget." + k if key.startswith("budget.") else k for k in keys(record)])


def _convert(kind: object, text: str, key: str, given: str) -> object:
    optional = isinstance(kind, types.UnionType)
    kind = next(k for k in typing.get_args(kind) if k is not types.NoneType) if optional else kind
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        if text in choices:
            return text
        raise UsageError(f"{given}: {key}={text} is not one of {', '.join(choices)}")
    try:
        if kind is bool:
            return YES_NO[text.lower()]
        if kind is int:
            return _at_least(_whole(text), key, given)
        return _in_reach(float(text), key, given) if kind is float else text
    except (ValueError, KeyError, OverflowError):
        name = {bool: "true or false", int: "a whole number", float: "a number"}[typing.cast("type", kind)]
        raise UsageError(f"{given}: {key}={text} is not {name}") from None


YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _whole(text: str) -> int:
    """A whole number, also written as 1e3; raises ValueError or OverflowError for anything else."""
    number = float(text)
    if number != int(number):
        raise ValueError(text)
    return int(number)


LEAST = {"seed": 0, "hard": 0, "experiments": 0, "window": 2, "replicas": 1, "patience": 0}
"""The smallest value of each whole-number key; 1 where none is named."""


def _at_least(value: int, key: str, given: str) -> int:
    if value < (least := LEAST.get(key, 1)):
        raise UsageError(f"{given}: {key}={value} is too small; write at least {least}")
    return value


MAY_BE_0 = {"error", "malformed", "repeat", "correlation", "latency"}
"""Keys with a number that may be 0; all others are more than 0."""


def _in_reach(value: float, key: str, given: str) -> float:
    if not (value > 0 or (value == 0 and key in MAY_BE_0)):
        raise UsageError(f"{given}: {key}={value:g} is not more than 0")
    return value


MOST_REPLICAS = 3
"""Replicas of a training segment (tools/train.py)."""


def refuse_unused(config: RunConfig) -> None:
    """Keys that nothing would use beside the others are refused rather than ignored."""
    default = RunConfig()
    for key in ("design", "replicas"):
        if getattr(config, key) != getattr(default, key) and not config.experiments:
            what = f"{key}={getattr(config, key)}: only experiments use it"
            raise UsageError(f"{what}; add experiments=N, or leave it out")
    if config.replicas > MOST_REPLICAS:
        raise UsageError(f"replicas={config.replicas}: a segment is run {MOST_REPLICAS} times at most; write fewer")
    if config.address is not None and config.engine != "ray":
        raise UsageError(f"address={config.address}: only a cluster has one; add engine=ray, or leave it out")
    if config.workers is not None and config.engine == "ray":
        raise UsageError(f"workers={config.workers}: a cluster's processors are all used; leave it out with engine=ray")
    if config.budget.flops is not None and not config.experiments:
        raise UsageError("budget.flops= limits experiments; add experiments=N, or leave it out")
    if config.sandbox != default.sandbox and config.proposer != "code" and not config.experiments:
        what = f"sandbox={config.sandbox}: only programs and experiments need one"
        raise UsageError(f"{what}; add proposer=code or experiments=N, or leave it out")
    if config.sandbox == "local":
        raise UsageError("sandbox=local: it confines nothing, and a model's programs run; write docker or bubblewrap")


def tool_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Arguments of a tool call from key=value words; a value that is JSON is read as such, any other is text."""
    arguments: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"agentlab tools call: {word!r} is not key=value")
        try:
            arguments[key] = json.loads(value)
        except ValueError:
            arguments[key] = value
    return arguments
