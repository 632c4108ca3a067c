"""Keeps answers short enough for clients that drop long ones."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

LONGEST = 48_000
"""Characters of one answer: below 25,000 tokens even where two characters make one."""
LARGEST = 8_000
"""Characters of one record of a trace in an answer."""
TEXT = 2_000
"""Characters of one text in a record of a trace; longer ones are cut."""
ITEMS = 24
"""Items of one list or table in a record of a trace; longer ones are cut."""

T = TypeVar("T", bound=BaseModel)


def cut(value: Any, text: int = TEXT, items: int = ITEMS) -> Any:  # noqa: ANN401 -- any JSON value
    """A JSON value with long texts, lists and objects cut, and a word on what is left out."""
    match value:
        case str() if len(value) > text:
            return f"{value[:text]} .. ({len(value):,} characters)"
        case list() if len(value) > items:
            return [*(cut(v, text, items) for v in value[:items]), f".. ({len(value)} in all)"]
        case list():
            return [cut(v, text, items) for v in value]
        case dict():
            shown = {k: cut(v, text, items) for k, v in list(value.items())[:items]}
            return shown | ({"..": f"{len(value)} in all"} if len(value) > items else {})
    return value


def shortened(value: dict[str, Any], names: tuple[str, ...] = ("kind", "event", "id", "entry")) -> dict[str, Any]:
    """An object cut until one answer has room for it and others; in the end its `names` alone."""
    for text, items in ((TEXT, ITEMS), (400, 8), (100, 4)):
        shown: dict[str, Any] = cut(value, text, items)
        if length(shown) <= LARGEST:
            return shown
    return {k: v for k, v in value.items() if k in names} | {"..": f"{length(value):,} characters"}


def length(value: object) -> int:
    """Characters of a JSON value as a client gets it, a level deep: the SDK writes two spaces a level."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return len(text) + 4 * (text.count("\n") + 1) + 2


def bounded(value: T) -> T:
    """An answer that is short enough. Raises ToolError where it is not: which tool call is shorter, its tool knows."""
    if len(value.model_dump_json(indent=2)) > LONGEST:
        raise ToolError("the answer would be too long for a client; ask with detail=brief, or for fewer rows or groups")
    return value
