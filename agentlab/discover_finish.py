"""The end of a run: the best candidates are judged again in earnest, and one is believed, with its intervals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from langgraph.runtime import Runtime

from agentlab.discover_files import CLEAR, FINALISTS, LUCKY
from agentlab.discover_judge import PROGRAM, judge
from agentlab.discover_state import Cursor, Search, note_time, tell
from agentlab.trace import Record, dump, outcome_record
from agentlab.types import Entry, Outcome


async def finish(state: Cursor, *, runtime: Runtime[Search]) -> dict[str, Any]:
    """Judge the best candidates again in earnest, believe one, and record it with its intervals."""
    search = runtime.context
    if search.agent is not None:
        await search.agent.stop()
        search.trace.append([*search.told, *search.agent.close(search.archive)])
        search.told = []
    tell(search, state["asked"], "finalists")
    best = search.archive.top(FINALISTS)
    outcomes = await judge(search, [(e.proposal.tool, e.proposal.formula) for e in best], "final", None)
    position = await _believed(search, best, outcomes)
    records: list[Record] = [{"kind": "stop", "reason": state["stop"], "asked": state["asked"]}]
    for entry, outcome in zip(best, outcomes, strict=True):
        records.append(
            {"kind": "finalist", "entry": entry.id, "formula": entry.proposal.formula} | outcome_record(outcome)
        )
    if position is None:
        records.append({"kind": "law", "entry": None})
    else:
        records += await _law_records(search, best[position], outcomes[position])
    search.trace.append(records)
    note_time(search, committed=state["asked"])
    return {}


async def _law_records(search: Search, entry: Entry, outcome: Outcome) -> list[Record]:
    """What is on record of the law that is believed, and of what stands beside it."""
    formula = entry.proposal.formula
    law: Record = {"kind": "law", "entry": entry.id, "formula": formula, "key": entry.proposal.key}
    if entry.proposal.tool == PROGRAM:
        # Its parameters are of all rows already; intervals, baselines and luck are told of formulas.
        return [law | {"program": True} | outcome_record(outcome) | {"params": outcome.params, "intervals": {}}]
    arguments = {"data": str(search.folder), "formula": formula, "seed": search.seed}
    lucky = [e.proposal.formula for e in search.archive.top(LUCKY) if e.proposal.tool != PROGRAM]
    found, beside, luck = await asyncio.gather(
        search.toolbox.call("fit.refit", arguments),
        search.toolbox.call("fit.baselines", arguments),
        search.toolbox.call("fit.luck", arguments | {"formulas": lucky}),
    )
    told = law | outcome_record(outcome) | {"params": found["params"], "intervals": found["intervals"]}
    return [{"kind": "baselines"} | beside, {"kind": "luck"} | luck, told]


async def _believed(search: Search, best: Sequence[Entry], outcomes: Sequence[Outcome]) -> int | None:
    """The position of the finalist to believe: what `fit.choose` says, unless a program is clearly better."""
    formulas = [i for i, e in enumerate(best) if e.proposal.tool != PROGRAM]
    told = [json.loads(dump(outcome_record(outcomes[i]))) for i in formulas]
    texts = [best[i].proposal.formula for i in formulas]
    answer = await search.toolbox.call("fit.choose", {"data": str(search.folder), "formulas": texts, "outcomes": told})
    position: int | None = None if answer["position"] is None else formulas[answer["position"]]
    programs = [i for i, e in enumerate(best) if e.proposal.tool == PROGRAM and outcomes[i].status == "ok"]
    program = min(programs, key=lambda i: _rank(outcomes[i]), default=None)
    if program is None:
        return position
    if position is None or _rank(outcomes[program]) < _rank(outcomes[position], CLEAR):
        return program
    return position


def _rank(outcome: Outcome, ahead: float = 0.0) -> tuple[int, float]:
    """Constraints broken, then the objective less the nats that it is ahead."""
    return len(outcome.violations), outcome.objective - ahead
