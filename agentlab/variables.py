"""Reads what is said about variables on one line: "n,d", "n:-,d:+", "n:1e6..1e13,d:1e8..1e13"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from agentlab.csv_header import TableError
from agentlab.errors import nearest

Sign = Literal["+", "-"]


def split_names(text: str, key: str) -> tuple[str, ...]:
    """The names in "a,b,c"; raises TableError where one is empty or stands twice."""
    names = tuple(name.strip() for name in text.split(","))
    for i, name in enumerate(names):
        if not name:
            raise TableError(f"{key}={text!r}: there is nothing between two commas; write {key}=A,B")
        if name in names[:i]:
            raise TableError(f"{key}={text!r}: {name!r} stands twice; keep one")
    return names


def named_signs(text: str | None, features: Sequence[str]) -> dict[str, Sign]:
    """The declared directions in "n:-,d:+"; raises TableError for a bad sign or a name that is no feature."""
    signs: dict[str, Sign] = {}
    for name, value in _pairs(text, "monotone", "n:-,d:-", features):
        if value not in ("+", "-"):
            raise TableError(
                f'monotone={text!r}: {name}:{value} is not + (rises) or - (falls); write monotone="{name}:-"'
            )
        signs[name] = "+" if value == "+" else "-"
    return signs


def named_boxes(text: str | None, features: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The ranges in "n:1e6..1e13"; raises TableError for a bad range or a name that is no feature."""
    boxes: dict[str, tuple[float, float]] = {}
    for name, value in _pairs(text, "box", "n:1e6..1e13", features):
        low, dots, high = value.partition("..")
        try:
            bounds = (float(low), float(high))
        except ValueError:
            bounds = (1.0, 0.0)
        if not dots or not -float("inf") < bounds[0] < bounds[1] < float("inf"):
            raise TableError(f'box={text!r}: {name}:{value} is no range low..high; write box="{name}:1e6..1e13"')
        boxes[name] = bounds
    return boxes


def _pairs(text: str | None, key: str, example: str, features: Sequence[str]) -> list[tuple[str, str]]:
    if text is None:
        return []
    pairs: list[tuple[str, str]] = []
    for part in split_names(text, key):
        name, colon, value = (x.strip() for x in part.partition(":"))
        if not colon or not value:
            raise TableError(f'{key}={text!r}: {part!r} is not NAME:VALUE; write {key}="{example}"')
        if name not in features:
            raise TableError(f"{key}={text!r}: {name!r} is not among the features; {nearest(name, features)}")
        if name in dict(pairs):
            raise TableError(f"{key}={text!r}: {name!r} stands twice; keep one")
        pairs.append((name, value))
    return pairs
