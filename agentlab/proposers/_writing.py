"""What passes between a run and a proposer that writes with a model: what a prompt is made of, what a reply held.

A writer asks nobody and remembers nothing: `prompt` and `read` are plain functions of what they are given, so that a
run whose replies are on record can be replayed to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from agentlab.models import Prompt
from agentlab.types import Entry

Schema: TypeAlias = Mapping[str, Any]
"""A JSON schema, for servers that keep replies to one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A proposal that was rejected: what was proposed, cut short, and the reason."""

    said: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sought:
    """What a prompt is made of.

    `parents` are entries to build on, the first one foremost, `inspirations` others to borrow from. `failures` are the
    latest rejected proposals, `worked` lines of the scratchpad, `budget` the block of what is used and what is left.
    With the stance "explore" new forms are asked for, with "refine" better ones of those that are good already.
    `wanted` is how many proposals one reply shall hold.
    """

    parents: Sequence[Entry] = ()
    inspirations: Sequence[Entry] = ()
    failures: Sequence[Failure] = ()
    worked: Sequence[str] = ()
    budget: str = ""
    stance: Literal["explore", "refine"] = "explore"
    wanted: int = 3


@dataclass(frozen=True, slots=True)
class Draft:
    """One proposal out of a reply, ready to be tried: `text` is what the tool is sent, `key` its canonical key.

    `operator` says how it came about ("rewrite", "edit"), `parents` are the ids of the entries it came from, `idea` is
    the model's own word on it, at most IDEA characters of one line.
    """

    text: str
    key: str
    operator: str
    parents: tuple[int, ...] = ()
    idea: str = ""


IDEA = 120
"""Characters that are kept of a model's word on its proposal."""


class Writer(Protocol):
    """A proposer that writes with a model."""

    @property
    def name(self) -> str:
        """The name under which traces and the command line know it."""
        ...

    @property
    def tool(self) -> str:
        """The tool that tries what it writes, such as "fit.laws"."""
        ...

    @property
    def schema(self) -> Schema | None:
        """What a reply shall keep to, for servers that can see to it."""
        ...

    @property
    def max_tokens(self) -> int:
        """The longest reply asked for."""
        ...

    def prompt(self, sought: Sought) -> Prompt:
        """What the model is asked."""
        ...

    def listed(self, entry: Entry) -> str:
        """An entry in one line, as a model may see it."""
        ...

    def failure(self, text: str, reason: str) -> Failure:
        """A rejected proposal of its own and the reason, as a model may see them."""
        ...

    def read(self, text: str, parents: Sequence[Entry]) -> list[Draft | Failure]:
        """What a reply holds, in its order: drafts, and named failures for all that is none. Raises nothing.

        `parents` are the entries that its prompt showed. A draft's key may be one that was tried before: telling is
        the run's part.
        """
        ...
