"""Whether a submitted trace is one that a run could have written: its form, its order, its ids and its law."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict

from agentlab.law import LawError, parse
from agentlab.leaderboard_records import RefusedError, Run, config_of
from agentlab.program_text import ProgramError, program_key
from agentlab.trace import SCHEMA, Record, TraceError, dump, number
from agentlab.types import RunConfig, Task

SAID = frozenset({
    "seed", "budget", "approve", "proposer", "model", "reply_tokens", "program_seconds", "blind", "experiments",
    "design", "replicas", "sandbox", "window", "patience", "residual", "robust", "max_params", "monotone", "box",
})  # fmt: skip
"""Settings that decide what a run finds: each stands in the first line of its trace, unless it is not given."""

OF_A_FILE = ("data", "target", "features", "group", "weights", "run", "scale", "where", "train", "holdout")


def checked_run(run: Run, task: Task, rows: int) -> tuple[RunConfig, list[Record]]:
    """The settings and the records of a submitted run, found to be in order; `rows` is how many the task has.

    Raises:
        RefusedError: the settings are not allowed, or the trace is not what a run with them could have written.
    """
    config = config_of(run)
    _check_settings(config, task)
    records = _records(run.trace)
    _check_first(records[0], config, task, rows)
    law, finalists = _check_order(records)
    _check_law(law, finalists, records, task)
    return config, records


def _check_settings(config: RunConfig, task: Task) -> None:
    if config.task != task.name or any(getattr(config, key) is not None for key in OF_A_FILE):
        raise RefusedError("settings", f"the run is not of the task {task.name} as the board has it")
    if ":" in (config.proposer or "") or "." in (config.proposer or ""):
        raise RefusedError("settings", "the proposer is not one that ships with agentlab, so the board cannot run it")
    if config.sandbox == "local":
        raise RefusedError("settings", "sandbox=local confines nothing; run with sandbox=auto")
    if config.max_params is not None and config.max_params > task.max_params:
        raise RefusedError("too many parameters", f"max_params={config.max_params}, the task allows {task.max_params}")


def _records(text: str) -> list[Record]:
    """The lines of a trace, each as the trace's own writer writes it."""
    found: list[Record] = []
    for at, line in enumerate(re.findall(r"[^\n]*\n|[^\n]+", text), start=1):
        try:
            record = json.loads(line)
            same = isinstance(record, dict) and dump(record).decode() == line
        except (ValueError, RecursionError, TraceError):
            same = False
        if not same or not isinstance(record.get("kind"), str):
            raise RefusedError("trace edited", f"line {at} is not as a run writes it")
        found.append(record)
    if not found:
        raise RefusedError("trace edited", "it is empty")
    return found


def _check_first(first: Record, config: RunConfig, task: Task, rows: int) -> None:
    if (first.get("kind"), first.get("schema")) != ("run", SCHEMA):
        raise RefusedError("trace edited", f"it does not begin with a run of schema {SCHEMA}")
    told = json.loads(json.dumps({k: v for k, v in asdict(config).items() if k in SAID and v is not None}))
    said = {k: v for k, v in first.items() if k not in ("kind", "schema", "task", "rows", "prices")}
    if said != told:
        key = next(iter(sorted(k for k in {*said, *told} if said.get(k) != told.get(k))), "")
        raise RefusedError("settings", f"{key} is {told.get(key)!r} in the settings and {said.get(key)!r} in the trace")
    if (first.get("task"), first.get("rows")) != (task.name, rows):
        raise RefusedError("other rows", f"the trace is of {first.get('rows')} rows, the task has {rows}")


def _check_order(records: Sequence[Record]) -> tuple[Record, list[Record]]:
    """The law's record and the finalists, where every record stands where a run would put it."""
    kinds = [r["kind"] for r in records]
    if kinds.count("law") != 1 or kinds.count("stop") != 1 or kinds.count("run") != 1 or kinds.count("holdout") > 1:
        raise RefusedError("trace edited", "a run has one first line, one stop, one law and at most one hold-out")
    stop, law = kinds.index("stop"), kinds.index("law")
    entries = [r for r in records if r["kind"] == "entry"]
    if [r.get("id") for r in entries] != list(range(len(entries))):
        raise RefusedError("trace edited", "the ids of the entries do not count up from 0")
    if any(k in ("entry", "turn", "reply", "round") for k in kinds[stop:]) or "finalist" in kinds[:stop]:
        raise RefusedError("trace edited", "candidates stand behind the stop, or finalists before it")
    if any(k != "holdout" for k in kinds[law + 1 :]) or "holdout" in kinds[:law]:
        raise RefusedError("trace edited", "something other than the hold-out's figures follows the law")
    if records[law].get("entry") is None:
        raise RefusedError("no law", "the run ended without one")
    return records[law], [r for r in records if r["kind"] == "finalist"]


def _check_law(law: Record, finalists: Sequence[Record], records: Sequence[Record], task: Task) -> None:
    """The law is an entry and a finalist of the trace, with the key that its formula has, and whole parameters."""
    formula, at = law.get("formula"), law.get("entry")
    entries = [r for r in records if r["kind"] == "entry" and r.get("id") == at]
    searched = not any(r["kind"] == "round" for r in records)
    if searched and not any(r.get("formula") == formula and r.get("key") == law.get("key") for r in entries):
        raise RefusedError("trace edited", f"entry {at} is another formula than the law")
    if not any(r.get("formula") == formula and r.get("entry") == at and r.get("status") == "ok" for r in finalists):
        raise RefusedError("trace edited", "the law is not among the finalists")
    try:
        if law.get("program"):
            key = program_key(str(formula))
            if not isinstance(law.get("params"), dict):
                raise RefusedError("wrong numbers", "the law has no parameters on record")
        else:
            one = parse(str(formula), task.names)
            key = one.key
            if (law.get("n_params"), law.get("complexity")) != (one.n_params, one.complexity):
                raise RefusedError("wrong numbers", "the law's parameters or nodes are counted otherwise")
            if one.n_params > task.max_params:
                raise RefusedError("too many parameters", f"{one.n_params}, the task allows {task.max_params}")
            _check_params(law.get("params"), set(one.params), task)
    except (LawError, ProgramError) as error:
        raise RefusedError("no law", str(error)) from None
    if key != law.get("key"):
        raise RefusedError("wrong numbers", "the law's key is not that of its formula")


def _check_params(params: object, names: set[str], task: Task) -> None:
    if not isinstance(params, dict) or not params:
        raise RefusedError("wrong numbers", "the law has no parameters on record")
    for group, targets in params.items():
        if not isinstance(targets, dict) or set(targets) != set(task.targets):
            raise RefusedError("wrong numbers", f"the parameters of {str(group)[:40]!r} are not those of the targets")
        for named in targets.values():
            if not isinstance(named, dict) or set(named) != names:
                raise RefusedError("wrong numbers", "the law's parameters are not those of its formula")
            for value in named.values():
                if not is_finite(value):
                    raise RefusedError("not finite", f"a parameter of the law is {str(value)[:40]!r}")


def is_finite(value: object) -> bool:
    """Whether it is a number that a float can hold, and no nan."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def claimed(records: Sequence[Record]) -> float | None:
    """The error on the hold-out that a trace claims, or None where it claims none."""
    found = next((r for r in records if r["kind"] == "holdout"), {}).get("holdout")
    try:
        return None if found is None else number(found["are"])
    except (KeyError, TypeError, ValueError, OverflowError, TraceError):
        return math.nan
