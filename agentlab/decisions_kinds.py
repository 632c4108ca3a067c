"""The five decisions of the discovery loop that have a checkable answer, each as a question.

Laws are not among them: a proposed formula is canonicalised and evaluated, never voted on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from agentlab.decisions_question import NONE, DecisionError, Label, Option, Question
from agentlab.models_prompts import phrasings
from agentlab.types import Entry, Outcome

__all__ = ["FAILURES", "check_constraint", "choose_parents", "name_failure", "pick_run", "read_log"]

FAILURES: Mapping[str, str] = MappingProxyType(
    {
        "not-a-formula": "it could not be read as a formula, or its evaluation broke off",
        "too-many-parameters": "it has more parameters than are allowed",
        "does-not-fit": "its parameters could not be fitted to the rows, or to those below a cut",
        "does-not-extrapolate": "it fits, but its errors at the larger scales are much larger, or it blows up there",
        "breaks-a-constraint": "it leaves the declared limits or bends the wrong way",
        "outclassed": "nothing is wrong with it but that its description is far longer than that of the best law",
    }
)
"""What can be wrong with a rejected candidate, by name."""

EXCERPT = 4000
"""Characters of a log that are read at once."""

_FIGURE = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def choose_parents(entries: Sequence[Entry], count: int) -> Question:
    """Which `count` of the entries to change next; the key is the sorted tuple of their ids."""
    if count < 1:
        raise DecisionError(f"choose_parents: count={count}; choose at least 1")
    listed = sorted(entries, key=lambda e: e.id)
    options = tuple(Option(e.id, f"{e.proposal.formula}; {', '.join(_figures(e.outcome))}") for e in listed)
    form = ", ".join(["NUMBER"] * count)
    return Question("parents", phrasings("parents"), options, (("count", str(count)), ("form", form)), several=count)


def name_failure(entry: Entry, best: Entry | None = None, names: Mapping[str, str] = FAILURES) -> Question:
    """What was wrong with a rejected entry; the key is one of `names`. `best` is the best law so far."""
    if entry.outcome.status != "rejected":
        raise DecisionError(f"name_failure: entry {entry.id} was not rejected; give one that was")
    lines = [f"formula: {entry.proposal.formula}", f"said when it was rejected: {entry.outcome.reason}"]
    lines += _figures(entry.outcome)
    if best is not None:
        lines += [f"the best law so far: {best.proposal.formula}; {', '.join(_figures(best.outcome))}"]
    options = tuple(Option(name, text) for name, text in names.items())
    return Question("failure", phrasings("failure"), options, (("figures", _list(lines)),))


def pick_run(goal: str, runs: Sequence[Option]) -> Question:
    """Which run of a short list to make next, for a goal in words; the key is its label."""
    return Question("run", phrasings("run"), tuple(runs), (("goal", goal),))


def check_constraint(constraint: str, evidence: Sequence[str]) -> Question:
    """Whether a law keeps a constraint, by facts about it; the key is "yes", "no" or "cannot-tell"."""
    options = (
        Option("yes", "the facts show that it holds"),
        Option("no", "the facts show that it does not hold"),
        Option("cannot-tell", "the facts show neither"),
    )
    fields = (("constraint", constraint), ("evidence", _list(evidence)))
    return Question("constraint", phrasings("constraint"), options, fields)


def read_log(excerpt: str, what: str, reading: Literal["number", "word"] = "number") -> Question:
    """A number or a word that an excerpt of a log holds; the key is that number, that word, or "none".

    Only what stands in the excerpt is allowed, so an invented figure is discarded as out of range. Thousands may be
    grouped by commas in the log; a word counts as the same in any case and is given in small letters.
    """
    if len(excerpt) > EXCERPT:
        raise DecisionError(f"read_log: an excerpt of {len(excerpt)} characters; give {EXCERPT} at most")
    labels: list[Label]
    if reading == "number":
        grouped = (g.replace(",", "") for g in _GROUPED.findall(excerpt))
        numbers = {float(n) + 0.0 for n in (*_FIGURE.findall(excerpt), *grouped)}  # -0 is 0
        labels = [*sorted(n for n in numbers if math.isfinite(n))]
    else:
        labels = [*sorted({w.casefold().rstrip(".-") for w in _WORD.findall(excerpt)} - {NONE})]
    options = (*(Option(label) for label in labels), Option(NONE))
    fields = (("excerpt", excerpt), ("what", what), ("unit", reading), ("form", reading.upper()))
    return Question("log", phrasings("log"), options, fields, reading=reading)


def _figures(outcome: Outcome) -> list[str]:
    """What was measured of a law, in words and four digits."""
    figures = [f"objective {outcome.objective:.4g}", f"description length {outcome.mdl:.4g} nats"]
    figures += [f"{outcome.n_params} parameters", f"complexity {outcome.complexity}"]
    if outcome.dev is not None:
        figures.append(f"inner extrapolation error {outcome.dev.nmse:.4g} of the variance")
    if outcome.cuts:
        figures.append("errors beyond the cuts " + " ".join(f"{c:.4g}" for c in outcome.cuts))
    if outcome.violations:
        figures.append("constraints broken: " + "; ".join(outcome.violations))
    return figures


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "- nothing"
