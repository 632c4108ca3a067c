"""Proposes laws with a model: formulas, and edits of formulas, out of its replies, as laws whose numbers are fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

from agentlab.law import Call, Law, LawError, Node, Num, Sym, from_tree, parse
from agentlab.library_naming import named
from agentlab.models import Prompt
from agentlab.models_prompts import phrasings
from agentlab.proposers._reply import items_of
from agentlab.proposers._shown import common, problem, shown_entries
from agentlab.proposers._tidy import tidy
from agentlab.proposers._veil import Veil
from agentlab.proposers._writing import IDEA, Draft, Failure, Schema, Sought
from agentlab.types import Entry

TOOL = "fit.laws"
PROMPTS = Path(__file__).with_name("prompts")

MAX_SIZE = 80
"""Nodes of a law."""

MOST = 8
"""Proposals that are read of one reply; more are named as failures."""

SMALL = 4
"""Whole numbers up to this size, either sign, are part of a form; every other number is made a parameter."""

SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "proposals": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "formula": {"type": ["string", "null"]},
                    "parent": {"type": ["integer", "null"]},
                    "find": {"type": ["string", "null"]},
                    "replace": {"type": ["string", "null"]},
                    "idea": {"type": "string"},
                },
                "required": ["formula", "parent", "find", "replace", "idea"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["proposals"],
    "additionalProperties": False,
}
"""In the strict form of the hosted API every property is required, and null where it does not apply."""


class Evolve:
    """The proposer "evolve": what it asks and reads depends on the task and on its arguments alone."""

    name = "evolve"
    tool = TOOL
    schema: Schema | None = SCHEMA
    max_tokens = 2048

    def __init__(self, veil: Veil) -> None:
        self._veil = veil
        self._names = veil.task.names
        self._problem = problem(veil.task)

    def prompt(self, sought: Sought) -> Prompt:
        """What the model is asked."""
        task = self._veil.task
        fields = {
            **common(sought, task),
            "problem": self._problem,
            "parents": shown_entries("Parents, to build on", sought.parents, self._veil),
            "inspirations": shown_entries("Others, to borrow from", sought.inspirations, self._veil),
        }
        return Template(phrasings("evolve", PROMPTS)[0]).substitute(fields)

    def listed(self, entry: Entry) -> str:
        """An entry in one line, as a model may see it."""
        return self._veil.shown(entry.proposal.formula)

    def failure(self, text: str, reason: str) -> Failure:
        """A rejected formula and the reason, as a model may see them."""
        return self._veil.failure(text, reason)

    def read(self, text: str, parents: Sequence[Entry]) -> list[Draft | Failure]:
        """What a reply holds, in its order: drafts, and named failures for all that is none."""
        items = items_of(text, ("formula", "find"))
        if isinstance(items, Failure):
            return [items]
        shown = {e.id: self._veil.shown(e.proposal.formula) for e in parents}
        found: list[Draft | Failure] = [self._item(item, shown) for item in items[:MOST]]
        if len(items) > MOST:
            found.append(Failure(f"{len(items)} proposals", f"too many proposals: {MOST} are read of a reply"))
        return found

    def _item(self, item: object, shown: Mapping[int, str]) -> Draft | Failure:
        if isinstance(item, str):
            item = {"formula": item}
        if not isinstance(item, Mapping):
            return Failure(_cut(item), "no proposal: write an object with a formula or an edit")
        edit = type(item.get("parent")) is int and isinstance(item.get("find"), str)
        said = item.get("formula")
        operator, used = "rewrite", tuple[int, ...]()
        if edit and not said:
            said = _edited(item, shown)
            operator, used = "edit", (int(item["parent"]),)
        if isinstance(said, Failure):
            return said
        if not isinstance(said, str) or not said.strip():
            return Failure(_cut(item), "no formula in a proposal")
        law = self._law(said)
        if isinstance(law, Failure):
            return law
        return Draft(law.text, law.key, operator, used, _cut(item.get("idea") or "", IDEA))

    def _law(self, text: str) -> Law | Failure:
        """The law of a text with its numbers made parameters, or why it is none that can be tried."""
        try:
            written = parse(_right_side(text), self._names)
            freed = _freed(written.tree)
            names = frozenset(self._veil.real_names)
            real = tidy(self._veil.real(replace(written, tree=freed)), names)
            law = from_tree(named(real, names, self._veil.bounds), self._veil.real_names)
        except LawError as error:
            return Failure(_cut(text), f"not a formula: {self._veil.words(str(error)) or 'see the rules'}")
        most = self._veil.task.max_params
        if not law.used:
            return Failure(_cut(text), "no column in the formula")
        if law.n_params > most:
            return Failure(_cut(text), f"more parameters than allowed: {law.n_params} of {most}, numbers included")
        if not law.n_params:
            return Failure(_cut(text), "no parameter in the formula")
        if law.complexity > MAX_SIZE:
            return Failure(_cut(text), f"too large: {law.complexity} nodes of at most {MAX_SIZE}")
        return law


def _edited(item: Mapping[str, Any], shown: Mapping[int, str]) -> str | Failure:
    parent, find, put = item["parent"], item["find"], item.get("replace")
    if parent not in shown:
        return Failure(_cut(item), "edit of no parent: name one that is shown")
    if not isinstance(put, str):
        return Failure(_cut(item), "edit without its new text")
    if not find or shown[parent].count(find) != 1:
        return Failure(_cut(item), "edit of a part that is not there exactly once")
    return shown[parent].replace(find, put)


def _right_side(text: str) -> str:
    """A formula without a left-hand side or a full stop, which models like to add."""
    left, equals, right = text.strip().strip("`$").rstrip(".;").partition("=")
    return right if equals and len(left.split()) == 1 else left + equals + right


def _freed(tree: Node) -> Node:
    """The tree with a parameter in place of every number that is no small whole one."""
    count = 0

    def visit(node: Node) -> Node:
        nonlocal count
        if isinstance(node, Num) and (node.value != int(node.value) or abs(node.value) > SMALL):
            count += 1
            return Sym(f"number{count}_")
        if isinstance(node, Call):
            return Call(node.op, tuple(visit(arg) for arg in node.args))
        return node

    return visit(tree)


def _cut(value: object, most: int = 160) -> str:
    words = " ".join(str(value).split())
    return words if len(words) <= most else words[: most - 1] + "…"
