"""Other forms that people fit to the same features, for the battery: the published families and plain power laws."""

from __future__ import annotations

from collections.abc import Sequence

from agentlab.allocation import Question
from agentlab.errors import AgentlabError
from agentlab.law import FUNCTIONS, Law, parse
from agentlab.types import Task

PAIRED = {
    "Chinchilla (arXiv 2203.15556)": "{E} + {A}/{n}**{a} + {B}/{d}**{b}",
    "Kaplan (arXiv 2001.08361, eq. 1.5)": "({A}/{n}**{a} + {B}/{d})**{b}",
    "Skaling: a power of the sum": "{E} + ({A}/{n}**{a} + {B}/{d}**{b})**{k}",
    "no irreducible loss": "{A}/{n}**{a} + {B}/{d}**{b}",
    "one exponent for both": "{E} + {A}/{n}**{a} + {B}/{d}**{a}",
}


def forms(law: Law, task: Task, question: Question) -> list[tuple[str, Law]]:
    """Named laws over the task's features, none of them the same family of functions as `law` or each other."""
    texts = _paired(task, question) if question.paired else {}
    texts |= _powers(task)
    if task.reference is not None:
        texts["reference law"] = task.reference.formula
    found: dict[str, tuple[str, Law]] = {law.key: ("", law)}
    for name, text in texts.items():
        try:
            other = parse(text, task.names)
        except AgentlabError:  # a feature takes a name that the form needs: it cannot be written
            continue
        found.setdefault(other.key, (name, other))
    return list(found.values())[1:]


def _paired(task: Task, question: Question) -> dict[str, str]:
    names = fresh(task.names, ("E", "A", "a", "B", "b", "k"))
    return {k: t.format(n=question.params, d=question.tokens, **names) for k, t in PAIRED.items()}


def _powers(task: Task) -> dict[str, str]:
    """Power laws in every feature that spans orders of magnitude; the others enter as straight lines."""
    taken = fresh(
        task.names, ("E", *(f"A{i}" for i in range(len(task.names))), *(f"a{i}" for i in range(len(task.names))))
    )
    terms = [
        f"{taken[f'A{i}']}*{v.name}**{taken[f'a{i}']}" if v.log else f"{taken[f'A{i}']}*{v.name}"
        for i, v in enumerate(task.features)
    ]
    powers = "*".join(f"{v.name}**{taken[f'a{i}']}" for i, v in enumerate(task.features) if v.log)
    texts = {"sum of power laws and an offset": " + ".join([taken["E"], *terms])}
    if powers:
        texts["one product of powers"] = f"{taken['A0']}*{powers}"
        texts["one product of powers and an offset"] = f"{taken['E']} + {taken['A0']}*{powers}"
    return texts


def fresh(features: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """A parameter name for every wanted one that is neither a feature nor a function."""
    out: dict[str, str] = {}
    for name in wanted:
        free = name
        while free in features or free in FUNCTIONS or free in out.values():
            free += "_"
        out[name] = free
    return out
