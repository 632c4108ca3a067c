"""The leaderboard as text: the table of the command line, what a verification came to, and files to pass on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentlab.errors import nearest
from agentlab.leaderboard_board import Row
from agentlab.leaderboard_records import shown
from agentlab.trace import dump
from agentlab.words import UsageError

SHORT = 12
"""Characters of an id that are shown."""

Cells = Mapping[str, Callable[[Mapping[str, Any]], str]]


def _percent(value: object) -> str:
    return f"{100 * value:.3g}%" if isinstance(value, int | float) else "-"


def _error(row: Mapping[str, Any]) -> str:
    told = _percent(row["holdout_are"])
    return f"{told} +- {_percent(row['holdout_se'])}" if row["holdout_se"] is not None else told


def _named(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, "-") if isinstance(value, bool) else "-"


COLUMNS: Cells = {
    "id": lambda r: r["id"][:SHORT],
    "law": lambda r: shown(r["law"])[:48],
    "hold-out error": _error,
    "minus reference": lambda r: _percent(r["difference"]),
    "covered": lambda r: _percent(r["coverage"]),
    "regret": lambda r: f"{r['regret']:.3g}%" if isinstance(r["regret"], int | float) else "-",
    "params": lambda r: str(r["n_params"] if r["n_params"] is not None else "-"),
    "identified": lambda r: _named(r["identifiable"]),
    "usd": lambda r: f"{r['usd']:.2f}" if isinstance(r["usd"], int | float) else "-",
    "looks": lambda r: str(r["looks"] if r["looks"] is not None else "-"),
    "runs": lambda r: f"{r['runs_finished']}/{r['runs_declared']}",
    "level": lambda r: r["level"],
    "by": lambda r: f"{r['submitter']} ({r['method']})"[:40],
    "date": lambda r: r["date"][:10],
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page of `agentlab leaderboard`: a table a task, and what to do next."""
    if not rows:
        return "nothing was submitted yet\n\nnext: agentlab leaderboard submit RUN"
    lines: list[str] = []
    for task in dict.fromkeys((r["task"], r["task_version"]) for r in rows):
        mine = [r for r in rows if (r["task"], r["task_version"]) == task]
        lines += [f"{task[0]} {task[1]}", *_aligned(mine), ""]
    waiting = next((r for r in rows if r["level"] in ("received", "refitted")), None)
    after = f"verify {waiting['id'][:SHORT]}" if waiting else "export --out board.md"
    return "\n".join([*lines, f"next: agentlab leaderboard {after}"])


def _aligned(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [list(COLUMNS), *([show(row) for show in COLUMNS.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def verified(rows: Sequence[Row]) -> str:
    """The page of `agentlab leaderboard verify`."""
    lines = [f"{r.id[:SHORT]}  {r.level:9s} {r.task}{f'   ({r.reason})' if r.reason else ''}" for r in rows]
    after = "incidents" if any(r.level == "rejected" for r in rows) else ""
    return "\n".join([*(lines or ["nothing waits to be verified"]), "", f"next: agentlab leaderboard {after}".rstrip()])


def exported(rows: Sequence[Mapping[str, Any]], out: Path) -> str:
    """The board as the text of a file, by the ending of its name. Raises UsageError for another ending."""
    kind = out.suffix.lower()
    if kind == ".json":
        return json.dumps(json.loads(dump(rows)), indent=1) + "\n"
    if kind == ".csv":
        file = io.StringIO()
        names = list(rows[0]) if rows else ["id"]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_harmless(row[name]) for name in names] for row in rows)
        return file.getvalue()
    if kind == ".md":
        lines = ["| task | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for row in rows:
            cells = [row["task"], *(show(row) for show in COLUMNS.values())]
            lines.append("| " + " | ".join(_escaped(c) for c in cells) + " |")
        return "\n".join(lines) + "\n"
    raise UsageError(f"--out {out}: how to write it is told by the ending; {nearest(kind, ['.csv', '.json', '.md'])}")


def _harmless(value: object) -> object:
    """A cell that no spreadsheet takes for a formula of its own."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _escaped(text: str) -> str:
    """Text in a cell of Markdown: neither the table nor HTML can be broken by it."""
    for mark, written in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "\\|"),
        ("*", "\\*"),
        ("_", "\\_"),
        ("[", "\\["),
        ("`", "\\`"),
    ):
        text = text.replace(mark, written)
    return text
