"""What is known of one tool, and what a search for tools or a synchronisation of them tells."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import mcp.types

_SENTENCE = re.compile(r"(?<=[.!?])\s|\n\s*\n")
BRIEF = 160
"""Characters of a description that a search shows: enough to choose by, little enough to show ten of them."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool as its server lists it; `schema` is the JSON Schema of its arguments."""

    server: str
    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """The name it is called by: "fit.laws"."""
        return f"{self.server}.{self.name}"

    @property
    def repeatable(self) -> bool:
        """Whether its server says that asking twice does no more than asking once."""
        return bool(self.annotations.get("readOnlyHint") or self.annotations.get("idempotentHint"))

    @property
    def brief(self) -> str:
        """The first sentence of the description, on one line of at most BRIEF characters."""
        line = " ".join(_SENTENCE.split(self.description.strip(), maxsplit=1)[0].split())
        return line if len(line) <= BRIEF else line[: BRIEF - 3].rstrip() + "..."

    def parameters(self) -> Iterator[tuple[str, str]]:
        """Name and description of each argument ("" where it has none)."""
        properties = self.schema.get("properties")
        for name, about in properties.items() if isinstance(properties, Mapping) else ():
            text = about.get("description") if isinstance(about, Mapping) else None
            yield str(name), text if isinstance(text, str) else ""

    def canonical(self) -> str:
        """The tool as JSON that does not depend on the order of keys; read_tool reads it back."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(said, sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """SHA-256 (hex) of everything that a caller sees of the tool; the server's own name is part of its name."""
        return digest_of(self.canonical())


def digest_of(canonical: str) -> str:
    """SHA-256 (hex) of a tool's canonical text."""
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_tool(canonical: str) -> Tool:
    """The tool that `canonical` wrote. Raises ValueError or TypeError where the text is something else."""
    return Tool(**json.loads(canonical))


def listed_tool(server: str, listed: mcp.types.Tool) -> Tool:
    """A tool as the protocol lists it."""
    hints = listed.annotations.model_dump(mode="json", by_alias=True, exclude_none=True) if listed.annotations else {}
    return Tool(server, listed.name, (listed.description or "").strip(), dict(listed.input_schema), hints)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a synchronisation did to an index: full names, sorted; `kept` tools were as they are."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    kept: int = 0

    @property
    def touched(self) -> tuple[str, ...]:
        """All that were created, updated or deleted, sorted."""
        return tuple(sorted((*self.created, *self.updated, *self.deleted)))


@dataclass(frozen=True, slots=True)
class Found:
    """One tool that a search found: what an agent needs to call it. `score` orders one search's answers only."""

    name: str
    brief: str
    schema: Mapping[str, Any]
    score: float

    def told(self) -> dict[str, Any]:
        """As JSON for an agent."""
        return {"name": self.name, "brief": self.brief, "schema": dict(self.schema)}
