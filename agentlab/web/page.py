"""A run folder as the one JSON object that its page is drawn from; also of a run that is still going on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from agentlab import runs_result, selection
from agentlab.replay import Run
from agentlab.replay_entries import steps_of
from agentlab.replay_law import FoundLaw
from agentlab.types import AgentlabError
from agentlab.web import laws, search
from agentlab.web.words import finite, plain

STEPS = 60
"""Steps of the search, the last ones, whose formulas are set; so are those of finalists."""


def page_run(run: Run) -> dict[str, Any]:
    """Everything that the page shows of a run; hold-out figures are those on record."""
    inner = run.rounds[-1] if run.rounds else run
    told = _head(run) | {"entries": search.candidates(inner)}
    told |= {"votes": [search.vote_row(r, r["trace_line"]) for r in inner.votes()], "calls": search.calls(inner)}
    told |= {"experiments": plain(run.experiments()), "rounds": plain(run.of("round"))}
    told |= {"finalists": [_finalist(r) for r in run.of("finalist")], "stop": _stop(run)}
    judged = {r["entry"] for r in run.of("finalist")} | {e.id for e in steps_of(inner.entries)[-STEPS:]}
    shown = [e for e in inner.entries if e.id in judged and not e.program]
    told["formulas"] = {str(e.id): laws.formula_of(e.formula, run.task) for e in shown}
    return told | _laws(run, inner)


def _head(run: Run) -> dict[str, Any]:
    """What the run is of, and what it found where it is done."""
    task, rows = run.task, run.rows
    told: dict[str, Any] = {"id": run.id, "lines": len(run.records), "result": None, "failed": ""}
    told |= {"task": task.name, "title": task.title, "targets": list(task.targets), "group": task.group}
    told |= {"groups": list(rows.groups), "features": plain([asdict(v) for v in task.features])}
    told |= {"residual": task.residual, "scale": task.scale, "rows": len(rows), "rows_digest": _digest(run)}
    told |= {"seed": run.config.seed, "proposer": run.config.proposer, "window": run.window}
    told |= {"asked": run.config.budget.candidates, "in_rounds": len(run.rounds)}
    # One standard error of an objective: log s2 over n rows has sqrt(2/n), and weighs n/2 (FIT + 1).
    told["noise"] = (selection.FIT + 1.0) * math.sqrt(len(rows) * len(task.targets) / 2.0)
    told["state"] = "done" if run.done else "open"
    if run.done:
        try:
            told["result"] = plain({k: v for k, v in run.result.items() if k != "dir"})
        except runs_result.NoLawError as error:
            told |= {"state": "failed", "failed": str(error)}
    return told


def _digest(run: Run) -> str:
    """The same for runs on the same rows."""
    found = hashlib.sha256()
    for name, values in (*run.rows.columns.items(), *run.rows.targets.items()):
        found.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:16]


def _stop(run: Run) -> str:
    return next((str(r["reason"]) for r in run.records if r["kind"] == "stop"), "")


def _finalist(record: dict[str, Any]) -> dict[str, Any]:
    dev = record.get("dev") or {}
    told = {k: record.get(k) for k in ("entry", "formula", "status", "reason", "n_params", "complexity")}
    told |= {"violations": ", ".join(record.get("violations", ())), "line": record["trace_line"]}
    told |= {k: finite(record.get(k)) for k in ("objective", "mdl")}
    return told | {k: finite(dev.get(k)) for k in ("are", "r2")}


def _laws(run: Run, inner: Run) -> dict[str, Any]:
    """The law that is believed, then the finalists, and the figures of the first; while it goes, the best so far."""
    told: dict[str, Any] = {"laws": [], "hidden": [], "fans": [], "decision": None, "notes": {}}
    found: tuple[FoundLaw, ...] = ()
    if told_law := next((r for r in run.records if r["kind"] == "law"), None):
        found = run.laws if told_law["entry"] is not None else ()
    elif inner.best is not None:
        found = (inner.best.law,)
    told["laws"] = [laws.law_told(law) for law in found]
    first = found[0] if found else None
    told["points"] = laws.rows_told(run, first)
    if first is None or not run.done:
        return told
    if first.program:
        why = "the law is a program: it has no bootstrap and cannot be moved by hand"
        return told | {"notes": dict.fromkeys(("hidden", "fans", "decision"), why)}
    makers: dict[str, Callable[[], Any]] = {
        "hidden": lambda: laws.hidden_told(first),
        "fans": lambda: laws.fans(run, first),
        "decision": lambda: laws.decision(run, first),
    }
    for name, make in makers.items():
        told["notes"][name] = ""
        try:
            told[name] = make()
        except AgentlabError as error:
            told["notes"][name] = str(error)
    return told
