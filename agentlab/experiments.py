"""The loop over experiments: a law is searched, the next runs are designed, approved, made and added, and so on.

    search -> design -> approve -> make -> search ... -> end

A round searches on the rows that there are, in a folder of its own below `rounds/`, which is a run like any other. The
laws that survive say which runs would settle the decision; these go out as tool calls, are recorded in the order in
which they were asked for, and make the rows of the next round. The graph's state is a cursor; everything else is in the
traces. A loop that was killed goes on where its trace stands: jobs that are done are not done again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from agentlab.belief import Belief
from agentlab.discover_files import TRACE
from agentlab.discover_state import Progress, note_time
from agentlab.experiments_call import Runner
from agentlab.experiments_dear import DearRuns
from agentlab.experiments_laws import Survivor, beliefs_of, question_of, survivors_of, wasted
from agentlab.experiments_rows import rows_after
from agentlab.experiments_stop import Curves
from agentlab.metrics import digits
from agentlab.proposers.design import DESIGNS, Round, outlook
from agentlab.run_rows import ROWS, SAMPLE, Intake, read_rows, write_rows
from agentlab.runs_result import counts_of
from agentlab.selection_box import box_points
from agentlab.space import Design, Space
from agentlab.toolbox import Toolbox
from agentlab.trace import ENDING, Record, Trace, dump, read
from agentlab.types import AgentlabError, BoolArray, Rows, RunConfig, Task

ROUNDS = 4
"""Batches that the experiments are made in: more would learn sooner, fewer need less waiting."""

GROWTH = 2.0
"""Every batch may cost so many times the one before: dear runs come when it is known which are worth it."""

SURVIVORS_FILE = "survivors.json"

SETTLED = 1.0
"""A decision counts as settled when it is expected to waste less than so much % of its compute."""

SEEDS = 1000
"""Seeds of experiments begin here, so that none repeats a run that was there before."""


class State(TypedDict):
    """The graph's state: which round it is, and why the loop ends, "" while it goes on."""

    round: int
    stop: str


@dataclass
class Loop:
    """Everything a loop over experiments holds; handed to the graph's nodes as their context.

    `search` carries a round's search out in its folder; `records` is the trace so far.
    """

    folder: Path
    config: RunConfig
    task: Task
    design: Design
    space: Space
    base: Rows
    runs: Path
    trace: Trace
    toolbox: Toolbox
    runner: Runner
    search: Callable[[Path], Awaitable[None]]
    watch: Callable[[Progress], None]
    workers: int
    records: list[Record] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    before: float = 0.0
    interrupted: bool = False
    known: dict[int, tuple[Belief, ...]] = field(default_factory=dict)

    def of(self, kind: str, number: int | None = None) -> list[Record]:
        """The records of a kind, all or those of a round."""
        return [r for r in self.records if r["kind"] == kind and (number is None or r["round"] == number)]

    def append(self, *records: Record) -> None:
        """Puts records into the trace."""
        self.trace.append(records)
        self.records += records

    @property
    def measured(self) -> list[Record]:
        """The runs that were made, each with what was asked of it, in the order of their numbers."""
        asked = {r["id"]: r for r in self.of("experiment")}
        return [{**asked[r["id"]], **r, "line": _csv_line(asked[r["id"]], r)} for r in self.of("measured")]

    @property
    def spent(self) -> float:
        """FLOPs of the runs that were made; a run that is not over counts as planned."""
        known = {r["id"]: float(r["flops"]) for r in self.of("measured")}
        return math.fsum(known.get(r["id"], float(r["flops"])) for r in self.of("experiment"))

    @property
    def flops(self) -> float:
        """FLOPs that the loop may spend: the budget, else so many runs of the usual cost."""
        return self.config.budget.flops or self.config.experiments * self.space.usual

    @property
    def seconds(self) -> float:
        """Seconds spent so far, before a resume included."""
        return self.before + time.monotonic() - self.started

    def tell(self, text: str, *notes: str) -> None:
        """Tell the watcher where the loop stands."""
        done = len(self.of("measured"))
        self.watch(Progress(done, done, None, None, 0, self.seconds, phase=text, notes=notes))


def _csv_line(asked: Record, told: Record) -> dict[str, Any]:
    """A run as a line of the table that rows are derived from."""
    own = {"name": f"x{asked['id']:04d}", "seed": asked["seed"], "flops": told["flops"]}
    return {**own, **asked.get("line", {}), **told.get("targets", {})}


async def search(state: State, *, runtime: Runtime[Loop]) -> dict[str, Any]:
    """Search on the rows that there are; the survivors, and the decision as they see it, go on record."""
    loop, number = runtime.context, state["round"]
    if loop.of("round", number):
        return {"stop": loop.of("round", number)[0].get("stop", "")}
    folder = round_folder(loop.folder, number)
    rows = await _rows(loop, number)
    if not (folder / TRACE).exists():
        write_rows(folder, Intake(loop.task, rows), loop.config.seed)
        survivors = [law["formula"] for r in loop.of("round", number - 1) for law in r["laws"]]
        (folder / SURVIVORS_FILE).write_bytes(dump(survivors))
    loop.tell(f"round {number + 1}: searching on {len(rows)} rows")
    await loop.search(folder)
    found = list(read(folder / TRACE))
    law = next(r for r in found if r["kind"] == "law")
    stopped = next((r["reason"] for r in found if r["kind"] == "stop"), "")
    if law["entry"] is None:
        loop.append(_round_record(loop, number, rows, found, [], ()) | {"stop": "no law"})
        return {"stop": "no law"}
    laws = survivors_of(found, loop.task)
    beliefs = _beliefs(loop, number, laws, rows)
    question = question_of(loop.task, rows, loop.design)
    seen = outlook(beliefs[0], question) if beliefs and question is not None else None
    told = _round_record(loop, number, rows, found, laws, beliefs)
    told |= {"stop": stopped} if stopped == "interrupted" else {}
    if seen is not None and question is not None:
        told |= {"decision": {k: digits(v) for k, v in seen.decision.items()}}
        told |= {"regret": digits(wasted(beliefs[0], question, seen))}
    loop.append(told)
    note_time(loop, round=number)
    return {"stop": "interrupted" if stopped == "interrupted" else ""}


def round_folder(folder: Path, number: int) -> Path:
    """The folder of a round, made where it is not there."""
    found = folder / "rounds" / f"{number:02d}"
    found.mkdir(parents=True, exist_ok=True)
    return found


async def _rows(loop: Loop, number: int) -> Rows:
    if not number:
        return loop.base
    folder = round_folder(loop.folder, number)
    return await rows_after(loop.design, loop.task, loop.base, loop.runs, loop.measured, folder, loop.toolbox)


def _beliefs(loop: Loop, number: int, laws: Sequence[Survivor], rows: Rows) -> tuple[Belief, ...]:
    """What a round's laws leave open, made once."""
    if number not in loop.known:
        loop.known = {number: beliefs_of(laws, loop.task, rows, loop.design.noise, loop.config.seed)}
    return loop.known[number]


def _round_record(
    loop: Loop, number: int, rows: Rows, found: Sequence[Record], laws: Sequence[Survivor], beliefs: Sequence[Belief]
) -> Record:
    law = next(r for r in found if r["kind"] == "law")
    told: Record = {"kind": "round", "round": number, "rows": len(rows), "runs": len(loop.of("measured"))}
    told |= {"flops": loop.spent, "law": law.get("formula", ""), "laws": [asdict(x) for x in laws]}
    told |= {"counts": counts_of(found)}
    if beliefs:
        told |= {"noise": digits(beliefs[0].noise), "shares": [digits(m.share) for m in beliefs[0].members]}
    return told


async def design(state: State, *, runtime: Runtime[Loop]) -> dict[str, Any]:
    """Propose the next runs, or say why there are no more."""
    loop, number = runtime.context, state["round"]
    if state["stop"] or loop.of("experiment", number):
        return {}
    why = why_stop(loop, number)
    if why:
        return {"stop": why}
    rows = read_rows(round_folder(loop.folder, number), every=True)[1]
    laws = [Survivor(**law) for law in loop.of("round", number)[0]["laws"]]
    beliefs = _beliefs(loop, number, laws, rows)
    left = loop.config.experiments - len(loop.of("experiment"))
    space = loop.space.take(_open_places(loop))
    ask = Round(
        space=space,
        rows=rows,
        beliefs=beliefs,
        question=question_of(loop.task, rows, loop.design),
        flops=allowance(loop, number),
        most=min(left, batch(loop)),
        seed=loop.config.seed,
        number=number,
        box=box_points(loop.task, rows),
        misfit=loop.design.misfit,
    )
    picks = DESIGNS[loop.config.design](ask)
    if not picks:  # a factorial or a ladder that this round cannot pay for: with all that is left, else at random
        rest = replace(ask, flops=loop.flops - loop.spent)
        picks = DESIGNS[loop.config.design](rest) or DESIGNS["random"](rest)
    if not picks:
        return {"stop": "flops" if len(space) else "every run was refused"}
    made = [r["config"] for r in loop.of("experiment")]
    seeds = seeds_of(loop.design, [space.configs[pick.place] for pick in picks], made, loop.config.seed)
    asked = []
    for i, (pick, seed) in enumerate(zip(picks, seeds, strict=True)):
        config = dict(space.configs[pick.place])
        asked.append(
            _asked(loop, space, pick.place, config, seed, number, len(made) + i) | _worth(pick.closes, pick.between)
        )
    loop.append(*asked)
    return {}


def seeds_of(
    design: Design, configs: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]], seed: int
) -> list[int]:
    """A seed for each config: one that was `made` already, or comes twice, is another run. `seed` is the loop's."""
    counts = Counter(dump(_unseeded(design, config)) for config in made)
    found = []
    for config in configs:
        same = dump(_unseeded(design, config))
        found.append(SEEDS + 100 * seed + counts[same])
        counts[same] += 1
    return found


def _unseeded(design: Design, config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k != design.seed}


def _worth(closes: float, between: float) -> Record:
    return {} if math.isnan(closes) else {"closes": digits(closes), "between_laws": digits(between)}


def _open_places(loop: Loop) -> BoolArray:
    """The places (X,) of the space that no run was refused or failed at."""
    bad = {
        dump(_unseeded(loop.design, r["config"]))
        for r in loop.measured
        if r["status"] != "ok" and r["reason"] != "stopped"
    }
    return np.array([dump(_unseeded(loop.design, config)) not in bad for config in loop.space.configs])


def _asked(loop: Loop, space: Space, place: int, config: dict[str, Any], seed: int, number: int, index: int) -> Record:
    told: Record = {"kind": "experiment", "id": index, "round": number, "tool": loop.design.tool}
    told |= {"design": loop.config.design, "seed": seed, "flops": float(space.cost[place])}
    if loop.design.seed:
        config = config | {loop.design.seed: seed}
    told |= {"config": config, "columns": {k: float(v[place]) for k, v in space.columns.items()}}
    if space.lines:
        told["line"] = {k: float(v[place]) for k, v in space.lines.items()}
    return told


def why_stop(loop: Loop, number: int) -> str:
    """Why no more runs are asked for, "" while there are."""
    if loop.interrupted:
        return "interrupted"
    if len(loop.of("experiment")) >= loop.config.experiments:
        return "experiments"
    if loop.spent + float(loop.space.cost.min()) > loop.flops:
        return "flops"
    if loop.config.budget.seconds is not None and loop.seconds >= loop.config.budget.seconds:
        return "seconds"
    known = loop.of("round", number)[0]
    settled = "regret" in known and float(known["regret"]) < SETTLED
    return "settled" if settled and loop.config.design == "design" else ""


def batch(loop: Loop) -> int:
    """Runs of one round."""
    return -(-loop.config.experiments // ROUNDS)


def allowance(loop: Loop, number: int) -> float:
    """FLOPs that a round may spend: what was saved before is kept, and a round can always pay for the cheapest run."""
    shares = [GROWTH**r for r in range(ROUNDS)]
    due = loop.flops * (sum(shares[: number + 1]) / sum(shares) if number < ROUNDS else 1.0)
    left = loop.flops - loop.spent
    return min(left, max(due - loop.spent, float(loop.space.cost.min())))


async def approve(state: State, *, runtime: Runtime[Loop]) -> dict[str, Any]:
    """Wait until somebody has approved runs that cost more than the limit; the loop ends where they are denied."""
    loop, number = runtime.context, state["round"]
    most = loop.config.approve.flops
    asked = loop.of("experiment", number)
    flops = math.fsum(float(r["flops"]) for r in asked)
    if state["stop"] or most is None or flops <= most or not asked:
        return {}
    if not loop.of("approval", number):
        yes = loop.config.approve.otherwise == "ask" and bool(interrupt({"runs": len(asked), "flops": flops}))
        loop.append({"kind": "approval", "round": number, "approved": yes, "flops": flops})
    return {"stop": "" if loop.of("approval", number)[0]["approved"] else "denied"}


async def make(state: State, *, runtime: Runtime[Loop]) -> dict[str, Any]:
    """Make the runs of the round, side by side; outcomes go on record in the order in which they were asked for."""
    loop, number = runtime.context, state["round"]
    if state["stop"]:
        return {}
    known = {r["id"] for r in loop.of("measured")}
    todo = [r for r in loop.of("experiment", number) if r["id"] not in known]
    free = asyncio.Semaphore(loop.workers)
    # Only runs of earlier rounds teach: which of this round's end first is chance.
    before = [r for r in loop.measured if r["round"] < number]
    curves = Curves.of(before, loop.design.curve_noise) if loop.design.curve_noise else None

    async def one(asked: Record) -> Record:
        async with free:
            if loop.interrupted:
                return {"kind": "measured", "id": asked["id"], "status": "rejected", "reason": "stopped", "flops": 0.0}
            began = time.monotonic()
            told = await loop.runner.run(asked, curves)
            note_time(loop, experiment=asked["id"], took=round(time.monotonic() - began, 4))
            return told

    tasks = [asyncio.create_task(one(r)) for r in todo]
    try:
        for asked, task in zip(todo, tasks, strict=True):
            told = await task
            loop.append(told)
            loop.tell(f"round {number + 1}: experiment {asked['id'] + 1}", _told(asked, told))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {"round": number + 1, "stop": "interrupted" if loop.interrupted else ""}


def _told(asked: Record, told: Record) -> str:
    where = ", ".join(f"{k} {v:.4g}" for k, v in asked["columns"].items())
    if told["status"] != "ok":
        return f"experiment {asked['id']}: {where}: {told['reason']}"
    found = ", ".join(f"{k} {v:.5g}" for k, v in told["targets"].items())
    if "stopped" in told:
        found += f", predicted at {told['stopped']:.0%} of the way"
    return f"experiment {asked['id']}: {where}: {found} ({told['flops']:.3g} FLOPs)"


async def end(state: State, *, runtime: Runtime[Loop]) -> dict[str, Any]:
    """Copy the end of the last round's search: its law is that of the loop."""
    loop = runtime.context
    last = loop.of("round")[-1]["round"]
    folder = round_folder(loop.folder, last)
    found = [r for r in read(folder / TRACE) if r["kind"] in ENDING and r["kind"] not in ("stop", "holdout")]
    for name in (ROWS, SAMPLE):
        if (folder / name).exists():
            part = loop.folder / f"{name}.part"
            part.write_bytes((folder / name).read_bytes())
            part.replace(loop.folder / name)
    law = [r | {"round": last} if r["kind"] == "law" else r for r in found]
    loop.append({"kind": "stop", "reason": state["stop"], "asked": len(loop.of("experiment"))}, *law)
    return {}


def _after_design(state: State) -> str:
    return "end" if state["stop"] else "approve"


def _after_making(state: State) -> str:
    return "end" if state["stop"] == "denied" else "search"


def _after_search(state: State) -> str:
    return "end" if state["stop"] else "design"


def build(saver: BaseCheckpointSaver[Any] | None = None) -> CompiledStateGraph[State, Loop, State, State]:
    """The compiled graph; `saver` keeps the cursor, and what waits for approval."""
    graph = StateGraph(State, context_schema=Loop)
    for name, node in (("search", search), ("design", design), ("approve", approve), ("make", make), ("end", end)):
        graph.add_node(name, node)
    graph.add_edge(START, "search")
    graph.add_edge("approve", "make")
    graph.add_edge("end", END)
    graph.add_conditional_edges("search", _after_search, ["design", "end"])
    graph.add_conditional_edges("design", _after_design, ["approve", "end"])
    graph.add_conditional_edges("make", _after_making, ["search", "end"])
    return graph.compile(checkpointer=saver)


async def run(
    loop: Loop, saver: BaseCheckpointSaver[Any] | None, approver: Callable[[DearRuns], bool | None] | None
) -> None:
    """Run a loop to its end, from wherever its trace stands.

    Raises:
        NotApprovedError: runs are dearer than the limit and `approver` has no answer; a resume asks again.
    """
    graph = build(saver)
    thread = f"{loop.folder.resolve()}-experiments"
    config: Any = {"recursion_limit": 10 * (loop.config.experiments + 10), "configurable": {"thread_id": thread}}
    given: State | Command[Any] | None = State(round=_round_of(loop), stop="")
    while given is not None:
        stream = graph.astream(given, config, context=loop, stream_mode="updates", durability="exit")
        given = None
        async for part in stream:
            if "__interrupt__" in part:
                given = Command(resume=_answer(approver, part["__interrupt__"][0].value))


def _round_of(loop: Loop) -> int:
    """The round that the trace stands in: the last one whose runs are not all made, else the one after."""
    asked = loop.of("experiment")
    if not asked:
        return 0
    last: int = asked[-1]["round"]
    known = {r["id"] for r in loop.of("measured")}
    return last if any(r["id"] not in known for r in asked) else last + 1


def _answer(approver: Callable[[DearRuns], bool | None] | None, value: Mapping[str, Any]) -> bool:
    dear = DearRuns(int(value["runs"]), float(value["flops"]))
    answer = None if approver is None else approver(dear)
    if answer is None:
        raise NotApprovedError(
            f"{dear.runs} runs of together {dear.flops:.4g} FLOPs are more than approve.flops allows, and nobody is "
            "here to ask; resume the run at a terminal, or with --approve or --deny"
        )
    return answer


class NotApprovedError(AgentlabError):
    """Runs that somebody must approve, and nobody is there."""
