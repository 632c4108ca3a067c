"""What `agentlab audit` and `agentlab plan` are asked: of a run and the law it found, or of a file and a formula."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentlab.audit import Beside
from agentlab.audit_words import AuditWords, audit_words, beside, run_words, with_reference
from agentlab.law import Law, parse
from agentlab.program_text import refuse_program
from agentlab.run_rows import Intake, read_rows
from agentlab.runs_files import find, read_config
from agentlab.runs_result import result
from agentlab.table import intake
from agentlab.words import UsageError


@dataclass(frozen=True)
class Asked:
    """The words, the law, the rows it is about and what stands beside them; `folder` is the run's, if any."""

    words: AuditWords
    law: Law
    taken: Intake
    beside: Beside
    folder: Path | None


def asked(verb: str, words: Sequence[str], law: str) -> Asked:
    """What the words of `verb` and the formula `law` ("" for the run's or the task's own) mean.

    Raises:
        UsageError, TableError, CatalogError, LawError: one line that says what is wrong and what to write.
    """
    folder = find(words[0]) if words and "=" not in words[0] and not _is_table(words[0]) else None
    if folder is not None:
        given = run_words(words[1:], verb, read_config(folder))
        taken = Intake(*read_rows(folder, every=True))
        if not law:
            found = result(folder)["law"]
            refuse_program(found, f"agentlab {verb}", folder.name)
            law = found["formula"]
    else:
        given = audit_words(words, verb)
        taken = intake(given)
        reference = taken.task.reference
        law = law or (reference.formula if reference is not None else "")
    if not law:
        raise UsageError(f'agentlab {verb}: no formula; give one with --law "E + A/n**a", or name a run')
    task = with_reference(taken.task, given.reference)
    known = beside(given, task, len(taken.rows))
    return Asked(given, parse(law, task.names), Intake(task, taken.rows, None, taken.notes), known, folder)


def _is_table(word: str) -> bool:
    """Whether a first word means a file of rows rather than a run."""
    return Path(word).is_file() or word.endswith((".csv", ".tsv", ".txt"))


def plan_after(words: Sequence[str], law: str) -> str:
    """The `agentlab plan` that asks the same."""
    return " ".join(["agentlab plan", *_same(words, law), "--flops 1e23"])


def audit_after(words: Sequence[str], law: str, flops: float) -> str:
    """The `agentlab audit` that asks the same."""
    return " ".join(["agentlab audit", *_same(words, law), f"flops={flops:g}"])


def _same(words: Sequence[str], law: str) -> list[str]:
    kept = [shlex.quote(w) for w in words if not w.startswith(("out=", "flops="))]
    return [*kept, *([f"--law {shlex.quote(law)}"] if law else [])]
