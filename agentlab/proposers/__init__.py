"""What every proposer must do: ask for the next tool call, given the archive alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from agentlab.archive import Archive
from agentlab.types import Proposal


class Proposer(Protocol):
    """Something that proposes; it has no `tell`, because all that it may use is the archive (DESIGN rule 2)."""

    @property
    def name(self) -> str:
        """The name under which traces and the command line know it."""
        ...

    def ask(self, index: int, archive: Archive, pending: Collection[str]) -> Proposal | None:
        """The proposal of ask number `index`, or None when nothing new was found after a bounded number of tries.

        `archive` holds the entries committed up to ask `index` minus the window, `pending` the canonical keys that
        are proposed but not yet committed. The same arguments give the same proposal.
        """
        ...
