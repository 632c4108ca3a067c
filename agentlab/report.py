"""The report of a run: report.md and one HTML file; every figure says where it stands on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentlab import report_audit, report_run
from agentlab.audit import audit
from agentlab.audit_files import JSON, record
from agentlab.audit_words import settings_of
from agentlab.replay import Run
from agentlab.report_html import html
from agentlab.report_markdown import markdown
from agentlab.report_parts import Block, Bullets, Code, Heading, Para, Sourced
from agentlab.report_reproduce import reproduce
from agentlab.runs_asked import asked
from agentlab.words import UsageError

MARKDOWN, HTML = "report.md", "report.html"

__all__ = ["blocks_of", "card_of", "write"]


def write(run: Run, out: Path) -> list[Path]:
    """Write the report of a finished run below `out`, with the audit that it quotes; the files.

    An audit.json of this very law that lies in `out` or in the run's folder is quoted; else one is made.

    Raises:
        UsageError: the run is not done, or `out` cannot be written.
        NoLawError: it ended without a law.
    """
    try:
        card = card_of(run, out)
        blocks = blocks_of(run, card)
        out.mkdir(parents=True, exist_ok=True)
        files = [out / MARKDOWN, out / HTML]
        files[0].write_text(markdown(blocks), encoding="utf-8")
        files[1].write_text(html(f"Report of {run.id}", blocks), encoding="utf-8")
        if card is not None:
            files.append(out / JSON)
            files[-1].write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out={out}: {error.strerror}; give a folder that can be written") from error
    return files


def card_of(run: Run, out: Path) -> dict[str, Any] | None:
    """The audit of the run's law as JSON values: one that is there, else made now; None for a program."""
    if run.law.program:
        return None
    for folder in (out, run.folder):
        path = folder / JSON
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if found.get("formula") == run.law.formula and found.get("task") == run.task.name:
                return found
    it = asked("audit", [str(run.folder)], "")
    card, _ = audit(it.law, it.taken.task, it.taken.rows, settings_of(it.words), it.beside)
    return record(card) | {"plots": {}}


def blocks_of(run: Run, card: dict[str, Any] | None) -> list[Block]:
    """The report in the order in which it is read: the answer first, the record last."""
    blocks: list[Block] = [
        Heading(["Report of ", Code(run.id)], 1),
        Para(["Task ", Code(run.task.name), ": ", Code(run.task.title or "no title"), "."]),
        Para(report_run.verdict(run), lead=True),
    ]
    if card is not None:
        blocks += [Para([Sourced(card["verdict"][0], "a:verdict.0")]), Para(report_audit.decision(card))]
    blocks += [*_rows(run), *report_run.law(run), *report_run.errors(run), *report_run.figures(run)]
    if card is not None:
        blocks += report_audit.findings(card)
        blocks += [*report_audit.fitted(card), *report_audit.extrapolation(card), *report_audit.battery(card)]
    else:
        blocks += [Heading(["Audit"]), Para(["The law is a program; an audit reads formulas, so that there is none."])]
    blocks += [*report_run.tried(run), *report_run.cost(run)]
    if card is not None:
        blocks += report_audit.checklist(card)
    return [*blocks, *reproduce(run)]


def _rows(run: Run) -> list[Block]:
    rows = run.rows
    groups = len(rows.groups)
    items: list[Any] = [
        [
            Sourced(str(len(rows)), "f:rows.npz"),
            " rows that are not sealed, ",
            Sourced(str(groups), "f:rows.npz"),
            " group(s).",
        ]
    ]
    if run.task.scale is not None:
        items.append(["Extrapolation is along the scale ", Code(run.task.scale), "."])
    if (origin := run.forked_from) is not None:
        items.append(["Forked from ", Code(origin["run"]), " after generation ", Code(str(origin["generation"])), "."])
    return [Bullets(items)]
