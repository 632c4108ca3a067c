"""The parts of a prompt that writers share: the problem, the entries with their errors, failures, what worked.

Whatever a user or a model wrote goes in as JSON strings: data, never instructions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median

from agentlab.proposers._veil import Veil
from agentlab.proposers._writing import Failure, Sought
from agentlab.types import Entry, Outcome, Task

STANCES = {
    "explore": "Look for other forms now: forms of another kind than the parents, or with another interplay of the "
    "columns. Small changes of what is shown are not wanted.",
    "refine": "Dig deeper now: improve the best parents, by the term that their residuals ask for, or by leaving out "
    "what does not earn its place.",
}


def common(sought: Sought, task: Task) -> dict[str, str]:
    """What the prompts of all writers are filled in with."""
    return {
        "max_params": str(task.max_params),
        "wanted": str(sought.wanted),
        "failures": shown_failures(sought.failures),
        "worked": shown_lines("Ideas that worked, and by how many nats", sought.worked),
        "budget": sought.budget,
        "stance": STANCES[sought.stance],
    }


def problem(task: Task) -> str:
    """What is to be explained, as JSON strings one a line."""
    lines = []
    if task.title:
        lines.append(f"problem: {json.dumps(task.title)}")
    errors = "relative" if task.residual == "log" else "plain"
    lines.append(f"targets: {json.dumps(list(task.targets))}, errors {errors}")
    lines.append("columns:")
    for v in task.features:
        told = [json.dumps(v.name)]
        told += [f"unit {json.dumps(v.unit)}"] if v.unit else []
        told += [json.dumps(v.description)] if v.description else []
        told += [f"must behave from {v.box[0]:g} to {v.box[1]:g}"] if v.box else []
        told += [f"the target {'rises' if v.monotone == '+' else 'falls'} with it"] if v.monotone else []
        lines.append("- " + ", ".join(told))
    return "\n".join(lines)


def shown_entries(title: str, entries: Sequence[Entry], veil: Veil) -> str:
    """Entries with their figures, one after the other; "" for none."""
    return "\n".join([f"{title}:", *(_entry(e, veil) for e in entries)]) if entries else ""


def _entry(entry: Entry, veil: Veil) -> str:
    outcome = entry.outcome
    lines = [
        f"- {entry.id}: {veil.shown(entry.proposal.formula)}",
        f"  {'; '.join(_figures(outcome, fitted=not veil.blind))}",
    ]
    asked = veil.words(", ".join(outcome.hints))
    if asked:
        lines.append(f"  its residuals ask for: {asked}")
    broken = veil.words("; ".join(outcome.violations))
    if broken:
        lines.append(f"  at larger scale: {broken}")
    return "\n".join(lines)


def _figures(outcome: Outcome, *, fitted: bool) -> list[str]:
    """What was measured; fitted values go by names that may tell of a column, such as n0."""
    found = [f"objective {outcome.objective:.5g}", f"{outcome.n_params} parameters", f"complexity {outcome.complexity}"]
    if outcome.dev is not None:
        found.append(f"error on hidden larger runs {100 * outcome.dev.are:.3g}%")
    if outcome.cuts:
        found.append("errors beyond the cuts " + " ".join(f"{c:.3g}" for c in outcome.cuts))
    known: dict[str, list[float]] = {}
    for targets in outcome.params.values() if fitted else ():
        for values in targets.values():
            for name, value in values.items():
                known.setdefault(name, []).append(value)
    if known:
        found.append("fitted " + ", ".join(f"{name} {median(values):.3g}" for name, values in known.items()))
    return found


def shown_failures(failures: Sequence[Failure]) -> str:
    """What was rejected, and why; "" for none."""
    lines = [f"- {json.dumps(f.said)}: {json.dumps(f.reason)}" for f in failures]
    return "\n".join(["Rejected, with the reason; do not propose them again:", *lines]) if lines else ""


def shown_lines(title: str, lines: Sequence[str]) -> str:
    """A titled list; "" for none."""
    return "\n".join([f"{title}:", *(f"- {line}" for line in lines)]) if lines else ""
