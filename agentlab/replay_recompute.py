"""Computes everything anew that a trace records and that can be, entry by entry, and sets both side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from agentlab import replay_program, selection
from agentlab.discover_files import CLEAR, LUCKY, TRACE
from agentlab.law import parse
from agentlab.replay import Run, RunEntry
from agentlab.replay_checks import Check, compared, leaves, read_only, without
from agentlab.runs_files import seconds_of
from agentlab.selection_consensus import nearest_to_consensus
from agentlab.selection_rivals import beaten_by, luck, rivals
from agentlab.trace import Record, outcome_record, read_outcome
from agentlab.types import AgentlabError, Outcome

ELSEWHERE = ("nothing new to propose", "the tool server died of it")
"""Reasons that no formula has by itself: they are read."""

READ = ("reply", "lost", "decision", "measured")
"""Kinds of records that hold what was measured or answered."""


def recompute(run: Run, entries: int | None = None) -> list[Check]:
    """Every number and text of the trace that follows from the rows, as recorded and as it comes out now.

    `entries` limits the candidates that are fitted anew, spread evenly over the run; the laws at its end are all
    fitted. Training losses, times and models' replies are read, hold-out figures copied, and both labelled so. Of a
    run that makes training runs every round's search is gone through, too, and every design is designed again.
    """
    if run.rounds:
        from agentlab.replay_loop import loop_checks  # noqa: PLC0415 - brings the loop and its tools along

        found = [c for one in run.rounds for c in _under(recompute(one, entries), f"rounds/{one.id}")]
        return [*found, *loop_checks(run), *_read(run)]
    return [*_entries(run, entries), *_ending(run), *_read(run)]


def _under(checks: Sequence[Check], place: str) -> list[Check]:
    return [replace(c, trace=f"{place}/{c.trace}") for c in checks]


# ---- candidates ----


def _entries(run: Run, most: int | None) -> Iterator[Check]:
    told = run.of("entry")
    step = 1 if most is None else max(math.ceil(len(told) / max(most, 1)), 1)
    asked = [(run.entries[i], told[i]) for i in range(0, len(told), step)]
    programs = [e for e, _ in asked if e.program and e.status == "ok"]
    judged = dict(zip([e.id for e in programs], _programs(run, programs, final=False), strict=True))
    for entry, record in asked:
        fixed = ("id", "tool", "formula", "key", "proposer", "operator", "parents", "island", "call")
        known = without(record, *fixed)
        if entry.reason in ELSEWHERE or (entry.program and entry.status != "ok"):
            yield Check("entry reason", "measured (read)", entry.reason, None, entry_line(record), TRACE, entry.id)
            continue
        again = judged[entry.id] if entry.program else _outcome(run, entry)
        if not entry.program:
            known |= {"key": entry.key}
        yield from compared("entry", known, _told(run, entry, again), entry_line(record), TRACE, entry.id)


def entry_line(record: Record) -> int:
    """The line of the trace that a record stands in."""
    return int(record["trace_line"])


def _told(run: Run, entry: RunEntry, outcome: Outcome) -> Record:
    if entry.program:
        return outcome_record(outcome)
    try:
        return outcome_record(outcome) | {"key": parse(entry.formula, run.task.names).key}
    except AgentlabError:
        return outcome_record(outcome) | {"key": entry.key}


def _outcome(run: Run, entry: RunEntry) -> Outcome:
    """What judging a formula finds now; one that was outclassed then is not refitted below the cuts now."""
    ground = run.ground
    try:
        law = parse(entry.formula, run.task.names)
    except AgentlabError as error:
        return Outcome("rejected", f"not a formula: {error}")
    gate = -math.inf if entry.reason == "outclassed" else math.inf
    return selection.evaluate(law, ground.judge, ground.options("search"), gate=gate)


def _programs(run: Run, entries: Sequence[RunEntry], *, final: bool) -> list[Outcome]:
    if not entries:
        return []
    config, texts = run.config, [e.formula for e in entries]
    return replay_program.judge(texts, run.ground.judge, config.sandbox, final=final, seconds=config.program_seconds)


# ---- the end ----


def _ending(run: Run) -> Iterator[Check]:
    finalists, law = run.of("finalist"), next(iter(run.of("law")), None)
    if law is None:
        return
    outcomes = _finalists(run, finalists)
    for record, outcome in zip(finalists, outcomes, strict=True):
        yield from compared(
            "finalist", without(record, "entry", "formula"), outcome_record(outcome), entry_line(record), TRACE,
            record["entry"],
        )  # fmt: skip
    believed = _believed(run, finalists)
    told = -1.0 if believed is None else float(finalists[believed]["entry"])
    asked = -1.0 if law["entry"] is None else float(law["entry"])
    yield Check("law entry", "recomputed", asked, told, entry_line(law), TRACE, law["entry"])
    if law["entry"] is None:
        return
    at = next(i for i, r in enumerate(finalists) if r["entry"] == law["entry"])
    again = run.law.refit()
    found = outcome_record(outcomes[at]) | {"params": again.params, "intervals": again.intervals}
    fixed = ("entry", "formula", "program", "key")
    yield from compared("law", without(law, *fixed), found, entry_line(law), TRACE, law["entry"])
    if not run.law.program:
        yield from compared("law", {"key": law["key"]}, {"key": run.law.law.key}, entry_line(law), TRACE, law["entry"])
        yield from _beside(run)


def _finalists(run: Run, finalists: Sequence[Record]) -> list[Outcome]:
    entries = [run.entries[r["entry"]] for r in finalists]
    programs = [e for e in entries if e.program]
    judged = dict(zip([e.id for e in programs], _programs(run, programs, final=True), strict=True))
    options = run.ground.options("finalist")
    return [
        judged[e.id]
        if e.program
        else selection.evaluate(parse(e.formula, run.task.names), run.ground.judge, options, final=True)
        for e in entries
    ]


def _believed(run: Run, finalists: Sequence[Record]) -> int | None:
    """The position of the finalist to believe, chosen again of the figures on record."""
    outcomes = [read_outcome(r) for r in finalists]
    program = [run.entries[r["entry"]].program for r in finalists]
    formulas = [i for i, is_program in enumerate(program) if not is_program]
    laws = [parse(finalists[i]["formula"], run.task.names) for i in formulas]
    chosen = nearest_to_consensus(laws, [outcomes[i] for i in formulas], run.ground.judge) if laws else None
    position = None if chosen is None else formulas[chosen]
    ranks = [(len(o.violations), o.objective, i) for i, o in enumerate(outcomes) if program[i] and o.status == "ok"]
    if not ranks:
        return position
    broken, objective, best = min(ranks)
    if position is None:
        return best
    rival = outcomes[position]
    return best if (broken, objective) < (len(rival.violations), rival.objective - CLEAR) else position


def _beside(run: Run) -> Iterator[Check]:
    """The baselines, and the luck of the best laws on shuffled targets."""
    law, ground = run.law.law, run.ground
    for record in run.of("baselines"):
        found = rivals(law, ground.judge, ground.options("law"))
        again = {"beaten_by": beaten_by(found), "rows": [_rival(r.name, r.beyond, asdict(r.dev)) for r in found]}
        yield from compared("baselines", without(record), again, entry_line(record), TRACE, run.law.entry)
    for record in run.of("luck"):
        best = sorted((e for e in run.entries if math.isfinite(e.objective)), key=lambda e: (e.objective, e.id))
        lucky = [parse(e.formula, run.task.names) for e in best[:LUCKY] if not e.program]
        told = luck(law, lucky, ground.judge, ground.options("search"), run.config.seed)
        yield from compared("luck", without(record), asdict(told), entry_line(record), TRACE, run.law.entry)


def _rival(name: str, beyond: float, dev: dict[str, Any]) -> Record:
    return {"name": name, "beyond": beyond, "dev": dev}


# ---- what is read ----


def _read(run: Run) -> Iterator[Check]:
    """What was measured, answered or scored on sealed rows: read or copied, never computed."""
    for record in run.of(*READ):
        yield from read_only(record["kind"], "measured (read)", _figures(record), entry_line(record), TRACE)
    for record in run.of("holdout"):
        for name, value in leaves(without(record)):
            if isinstance(value, float):
                yield Check(f"hold-out {name}", "hold-out (copied)", value, None, entry_line(record), TRACE)
    seconds = seconds_of(run.folder)
    if seconds:
        yield Check("run seconds", "measured (read)", seconds, None, 0, "timing.jsonl")


def _figures(record: Record) -> Record:
    """The figures of a record, without prompts, drafts and numbers that only name something."""
    kept = ("targets", "flops", "tokens", "usd", "draws", "flags", "waves", "calls", "stopped")
    counted = {k: v for k, v in record.items() if k in kept or k.startswith("gen_ai.usage")}
    return {k: v for k, v in counted.items() if isinstance(v, int | float | dict)}
