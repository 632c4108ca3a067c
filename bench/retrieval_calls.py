"""Whether a call could be made: fills a tool's required arguments from a question by pattern, format, list and quotes.

No model takes part, so it measures the tool that was chosen and not the one who fills in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_FORMATS = {"date": r"\d{4}-\d{2}-\d{2}", "email": r"[\w.]+@[\w.]+\w"}


def filled(schema: Mapping[str, Any], question: str) -> dict[str, str] | None:
    """The required arguments as the question gives them, in order; None where one is not there."""
    out: dict[str, str] = {}
    taken: dict[str, int] = {}
    for name in schema.get("required", ()):
        found = _candidates(schema["properties"][name], question)
        kind = repr(sorted(schema["properties"][name].items(), key=str))
        at = taken.get(kind, 0)
        if at >= len(found):
            return None
        out[name], taken[kind] = found[at], at + 1
    return out


def _candidates(about: Mapping[str, Any], question: str) -> list[str]:
    if "pattern" in about:
        return re.findall(rf"\b{about['pattern']}\b", question)
    if "format" in about:
        return re.findall(_FORMATS[about["format"]], question)
    if "enum" in about:
        return [word for word in re.findall(r"\w+", question) if word in about["enum"]]
    return re.findall(r'"([^"]+)"', question)
