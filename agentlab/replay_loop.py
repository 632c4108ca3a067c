"""Goes through a loop over experiments again: every round's beliefs and every design are made anew, nothing is run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

from langgraph.runtime import Runtime

from agentlab import experiments
from agentlab.discover_files import TRACE
from agentlab.experiments import Loop, State
from agentlab.experiments_open import read_kept
from agentlab.experiments_rows import RUNS
from agentlab.replay import Run
from agentlab.replay_checks import Check, compared, without
from agentlab.replay_program import apart
from agentlab.run_rows import read_rows
from agentlab.space import space_of
from agentlab.tool_spec import ServerSpec
from agentlab.toolbox import Toolbox
from agentlab.trace import ENDING, Record, Trace

ASKED = ("round", "experiment")


def loop_checks(run: Run) -> Iterator[Check]:
    """The records of the rounds and of the runs that were asked for, and the ending, which is the last round's."""
    again = apart(lambda: _again(run))
    made = iter(again)
    for record in run.of(*ASKED):
        told = next(made, {"kind": "nothing"})
        line = int(record["trace_line"])
        yield from compared(record["kind"], without(record), without(told), line, TRACE)
    last = {r["kind"]: [o for o in run.rounds[-1].records if o["kind"] == r["kind"]] for r in run.records}
    for kind in [k for k in ENDING if k not in ("stop", "holdout")]:
        for record, same in zip(run.of(kind), last.get(kind, []), strict=True):
            line, entry = int(record["trace_line"]), record.get("entry", run.law.entry)
            yield from compared(kind, without(record, "round"), without(same), line, TRACE, entry)


async def _again(run: Run) -> list[Record]:
    """The records of rounds and designs as the loop's own steps make them, from what stood in the trace before each."""
    made: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="agentlab-replay-") as name:
        folder = Path(name)
        # A copy: a step notes times and writes tables in its folder.
        shutil.copytree(run.folder / "rounds", folder / "rounds", ignore=shutil.ignore_patterns("jobs", "*.sqlite*"))
        async with AsyncExitStack() as stack:
            loop = await _open(run, folder, stack)
            for number in range(len(run.rounds)):
                for kind, step in (("round", experiments.search), ("experiment", experiments.design)):
                    before = _before(run.records, kind, number)
                    if before is None:
                        continue
                    loop.records = list(run.records[:before])
                    await step(State(round=number, stop=""), runtime=Runtime(context=loop))
                    made += loop.records[before:]
    return made


def _before(records: Sequence[Record], kind: str, number: int) -> int | None:
    """How many records stood in the trace before the first of this kind and round; None where there is none."""
    return next((i for i, r in enumerate(records) if r["kind"] == kind and r["round"] == number), None)


async def _open(run: Run, folder: Path, stack: AsyncExitStack) -> Loop:
    """The loop over a copy of its rounds; only the tool that derives rows can be asked."""
    design = read_kept(run.folder, run.task)
    servers = [ServerSpec(n, f"agentlab.tools.{n}") for n in {design.derive.partition(".")[0]} if n]

    async def no_search(place: Path) -> None:
        """The search of a round is on record."""

    return Loop(
        folder=folder,
        config=run.config,
        task=run.task,
        design=design,
        space=space_of(design, run.task),
        base=read_rows(folder / "rounds" / "00", every=True)[1],
        runs=run.folder / RUNS,
        trace=stack.enter_context(Trace(folder / TRACE)),
        toolbox=await stack.enter_async_context(Toolbox(servers)),
        runner=cast("Any", None),  # nothing is run
        search=no_search,
        watch=lambda _: None,
        workers=os.cpu_count() or 1,
    )
