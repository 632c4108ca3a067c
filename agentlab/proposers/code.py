"""Proposes laws that are programs, written by a model: `law(X, params)` and the `fit(X, y)` that finds its parameters.

A program is parsed here and never run: it runs in a sandbox, asked by the tool `program.judge`.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template

from agentlab.models import Prompt
from agentlab.models_json import Unread, objects_in
from agentlab.models_prompts import phrasings
from agentlab.program_rules import fault
from agentlab.program_text import ProgramError, parsed, program_key, without_fit, written
from agentlab.proposers._shown import common, shown_entries
from agentlab.proposers._veil import Veil
from agentlab.proposers._writing import IDEA, Draft, Failure, Schema, Sought
from agentlab.types import Entry, Task, Variable

TOOL = "program.judge"
PROMPTS = Path(__file__).with_name("prompts")

MOST = 8
"""Programs that are read of one reply; more are named as a failure."""
SHOWN = 4_000
"""Characters of a program that a prompt shows."""
TEXT = 400
"""Characters of a title or a description that a prompt shows."""
SAID = 160
"""Characters of a refused program that are kept."""
LISTED = 300
"""Characters of a law in one line."""

PAIR = ("law", "fit")
FENCE = "```"
MARK = "==="
"""What begins and ends the data of a prompt."""
LABEL = re.compile(r"[ \t]*[\w+#.-]*[ \t]*\n")
"""What may follow a fence on its line."""
THOUGHT = re.compile(r"\A.*</{0}>|<{0}>.*\Z".format("(?:think|thinking|thought|reasoning)"), re.DOTALL)
"""What a model says to itself, before a reply or in place of it."""

SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "proposals": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"idea": {"type": "string"}, "program": {"type": "string"}},
                "required": ["idea", "program"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["proposals"],
    "additionalProperties": False,
}


class Code:
    """The proposer "code": what it asks and reads depends on the task and on its arguments alone."""

    name = "code"
    tool = TOOL
    schema: Schema | None = SCHEMA
    max_tokens = 4096

    def __init__(self, of: Task | Veil) -> None:
        """A writer for one task, as the model shall see it; a veil says how formulas are shown, too."""
        self._veil = of if isinstance(of, Veil) else Veil(of)
        self._problem = _problem(self._veil.task)

    def prompt(self, sought: Sought) -> Prompt:
        """What the model is asked."""
        task = self._veil.task
        fields = {
            "columns": str(len(task.features)),
            **common(sought, task),
            "problem": self._problem,
            "parents": self._entries("Parents, to build on", sought.parents),
            "inspirations": self._entries("Others, to borrow from", sought.inspirations),
        }
        return Template(phrasings("code", PROMPTS)[0]).substitute(fields)

    def failure(self, text: str, reason: str) -> Failure:
        """A rejected program and the reason: programs name no column."""
        return Failure(text[:160], reason)

    def listed(self, entry: Entry) -> str:
        """An entry in one line, as a model may see it: a formula, or the law of a program without comments."""
        text = entry.proposal.formula
        if entry.proposal.tool != TOOL:
            return self._veil.shown(text)
        try:
            return _cut(written(without_fit(text)), LISTED)
        except ProgramError:
            return _cut(text, LISTED)

    def read(self, text: str, parents: Sequence[Entry]) -> list[Draft | Failure]:
        """What a reply holds, in its order: drafts, and named failures for all that is none."""
        said = programs_of(text)
        if isinstance(said, Failure):
            return [said]
        known = {e.id: _functions(e.proposal.formula) for e in parents if e.proposal.tool == TOOL}
        found = [_draft(program, idea, known) for program, idea in said[:MOST]]
        if len(said) > MOST:
            found.append(Failure(f"{len(said)} programs", f"too many proposals: {MOST} are read of a reply"))
        return found

    def _entries(self, title: str, entries: Sequence[Entry]) -> str:
        """Entries with their figures; those that are programs with their text."""
        lines = [f"{title}:"] if entries else []
        for entry in entries:
            shown, text = entry, ""
            if entry.proposal.tool == TOOL:
                shown = replace(entry, proposal=replace(entry.proposal, formula="a program"))
                text = f"\n{_fenced(entry.proposal.formula)}"
            lines.append(shown_entries("", [shown], self._veil).partition("\n")[2] + text)
        return "\n".join(lines)


def programs_of(text: str) -> list[tuple[object, str]] | Failure:
    """What a reply gives as programs, in its order, each with the idea behind it; a program is a text if all is well.

    Fences that define `law` go first, then the proposals of its JSON, then the reply itself; a named failure where
    there is none of them.
    """
    spoken = THOUGHT.sub("", text.replace("\r\n", "\n"))
    parts = spoken.split(FENCE)
    fenced: list[tuple[object, str]] = []
    for before, part in zip(parts[::2], parts[1::2], strict=False):
        label = LABEL.match(part)
        body = part[label.end() :] if label else ""  # no fence of its own line, such as one in a text of JSON
        if "def law" in body and body.lstrip()[:1] not in ("{", "["):
            fenced.append((body, (before.strip().splitlines() or [""])[-1].strip("#*-: ")))
    if fenced:
        return fenced
    found = objects_in(text)
    items = [] if isinstance(found, Unread) else [item for one in found for item in _items(one.value)]
    if items:
        return items
    if "def law" in spoken:
        return [(spoken, "")]
    told = f": {found.reason}" if isinstance(found, Unread) and found.reason != "no JSON" else ""
    return Failure(_cut(text), f"no program in the reply{told}")


def _items(value: Mapping[str, object]) -> list[tuple[object, str]]:
    """The proposals of a JSON object."""
    items = value.get("proposals", [value] if "program" in value else [])
    return [
        (item.get("program"), str(item.get("idea") or "")) if isinstance(item, Mapping) else (item, "")
        for item in (items if isinstance(items, list) else [items])
    ]


def _draft(said: object, idea: str, known: Mapping[int, Mapping[str, str]]) -> Draft | Failure:
    """A program ready to be tried, or why it is none."""
    if not isinstance(said, str) or not said.strip():
        return Failure(_cut(said), "a proposal without a program")
    text = _unwrapped(said)
    reason = fault(text)
    if reason:
        return Failure(_cut(text), reason)
    mine = _functions(text)
    source = next((i for i, theirs in known.items() if any(mine[n] == theirs.get(n) for n in mine if n in PAIR)), None)
    operator, used = ("rewrite", ()) if source is None else ("edit", (source,))
    return Draft(text, program_key(text), operator, used, _cut(idea, IDEA))


def _unwrapped(said: str) -> str:
    """A program without what models put around it: fences, the indent of a list, a second layer of escapes."""
    if "\n" not in said.strip() and "\\n" in said:
        said = said.replace("\\n", "\n").replace("\\t", "    ").replace('\\"', '"')
    if said.strip().startswith(FENCE):
        said = LABEL.sub("", said.strip().removeprefix(FENCE), count=1).rpartition(FENCE)[0] or said
    return textwrap.dedent(said.replace("\r\n", "\n")).strip("\n") + "\n"


def _functions(text: str) -> dict[str, str]:
    """The functions of a program by name, as they are written without comments; none where it cannot be read."""
    try:
        return {n.name: ast.unparse(n) for n in parsed(text).body if isinstance(n, ast.FunctionDef)}
    except (ProgramError, RecursionError):
        return {}


def _fenced(program: str) -> str:
    """A program as a prompt shows it."""
    cut = program if len(program) <= SHOWN else program[:SHOWN] + "\n# .. and so on"
    return json.dumps(cut) if FENCE in cut or MARK in cut else f"{FENCE}python\n{cut.strip()}\n{FENCE}"


def _problem(task: Task) -> str:
    """What is to be explained, as JSON, one column a line."""
    told: dict[str, object] = {"title": task.title[:TEXT]} if task.title else {}
    told |= {"targets": list(task.targets), "errors": "relative" if task.residual == "log" else "plain"}
    told |= {"limits of targets": {t: task.limits[t] for t in task.targets if t in task.limits}}
    told |= {"groups": "several" if task.group else "one"}
    columns = [json.dumps(_column(i, v)) for i, v in enumerate(task.features)]
    return "\n".join([f"problem: {json.dumps(told)}", "columns of X:", *columns])


def _column(number: int, v: Variable) -> dict[str, object]:
    told: dict[str, object] = {"column": number, "name": v.name, "unit": v.unit, "description": v.description[:TEXT]}
    told |= {"spans": "orders of magnitude" if v.log else ""}
    told |= {"must behave from, to": v.box}
    told |= {"the target": {"+": "rises with it", "-": "falls with it", "": ""}[v.monotone]}
    return {key: value for key, value in told.items() if value not in ("", None)}


def _cut(value: object, most: int = SAID) -> str:
    words = " ".join(str(value)[: 4 * most].split())
    return words if len(words) <= most else words[: most - 1] + "…"
