"""The proposals of a reply: the list that its JSON holds, or a named failure."""

from __future__ import annotations

from agentlab.models_json import Unread, objects_in
from agentlab.proposers._writing import Failure

LIST = "proposals"
"""The key under which a reply lists what it proposes."""

SAID = 160
"""Characters of a reply that a failure repeats."""


def items_of(text: str, keys: tuple[str, ...]) -> list[object] | Failure:
    """The proposals in a reply: those that are listed in it, or else every object that has one of the keys."""
    found = objects_in(text)
    if isinstance(found, Unread):
        return Failure(text[:SAID], f"reply: {found.reason}")
    listed = [item for one in found if isinstance(one.value.get(LIST), list) for item in one.value[LIST]]
    if listed:
        return listed
    single: list[object] = [one.value for one in found if any(key in one.value for key in keys)]
    return single or Failure(text[:SAID], f"reply: no {LIST} in its JSON")
