"""A scripted search, labelled as such: it fits three known formulas in place of a search, to test the loop around it.

Run as a program it carries out the loop of a run folder with that search: scripted_search.py FOLDER [approve|deny].
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentlab import experiments_open
from agentlab.discover_state import Progress
from agentlab.fitting import FitOptions, fit_rows
from agentlab.law import parse
from agentlab.run_rows import read_rows
from agentlab.runs_files import read_config
from agentlab.trace import Record, Trace

FORMULAS = ("E + A/N**a + B/D**b", "A/N**a + B/D**b", "E + A/(N**a*D**b)")


async def searching(place: Path) -> None:
    """Writes the end of a search on the rows of `place`: the formulas as finalists, the first as the law."""
    task, rows = read_rows(place)
    told: list[Record] = [{"kind": "run", "schema": 1, "task": task.name, "rows": len(rows), "scripted": True}]
    for i, text in enumerate(FORMULAS):
        fit = fit_rows(parse(text, task.names), rows, FitOptions(residual="log", starts=8))
        outcome: Record = {"status": "ok", "objective": fit.rss, "mdl": 100 * fit.rss, "params": fit.params}
        told.append({"kind": "finalist", "entry": i, "formula": text, "n_params": fit.n_params} | outcome)
    law = told[1] | {"kind": "law", "key": FORMULAS[0], "dev": None, "intervals": {}}
    (place / "trace.jsonl").unlink(missing_ok=True)
    with Trace(place / "trace.jsonl") as trace:
        trace.append([*told, {"kind": "stop", "reason": "scripted", "asked": 3}, law])


def carry_out(
    folder: Path, watch: Callable[[Progress], None] = lambda _: None, answer: bool | None = None
) -> list[dict[str, Any]]:
    """Runs or resumes the loop of a folder with the scripted search; what the trace holds then."""
    import json  # noqa: PLC0415 - with the child process in mind

    config = read_config(folder)
    first: Record = {"kind": "run", "schema": 1, "task": "toy", "scripted": True}
    asyncio.run(experiments_open.carry_out(folder, config, first, searching, watch, lambda _: answer))
    return [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    answers = {"approve": True, "deny": False}
    carry_out(Path(sys.argv[1]), answer=answers[sys.argv[2]] if len(sys.argv) > 2 else None)
