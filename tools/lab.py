"""The tool server `lab`: what other agents use to discover a law, to judge it, to predict by it and to plan with it.

It computes in processes of their own, starts runs that outlive it, and reads run folders. No tool and no resource
reaches a hold-out: rows are taken from below the server's roots, sealed files are refused, scores are copied.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import anyio
from agentlab.tools import _lab_answers, _lab_laws, _lab_pages, _lab_train
from agentlab.tools._lab_asking import SLOW, ask, off, runs
from agentlab.tools._lab_calls import CLI
from agentlab.tools._lab_places import roots, run_folder, runs_folder, task_name
from agentlab.tools._lab_records import (
    Board,
    Detail,
    Estimate,
    NextRun,
    Proposal,
    RunId,
    RunState,
    Started,
    Stopped,
    Submitted,
    Table,
    TaskAbout,
    TaskHead,
    TaskList,
)
from agentlab.tools._lab_short import bounded
from agentlab.tools._lab_words import Search, new_key, search_words
from agentlab.tools._refusals import refusals
from agentlab.tools._server import hints, serve, tool_server
from agentlab.tools._train_records import Backend, Config, Truth
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from agentlab import detach
from agentlab.catalog import load_task, task_head, task_heads

server: MCPServer[Any] = tool_server("lab", _lab_pages.text_of("instructions"))

LOOK = 0.1
"""Seconds between two looks at a run."""
AnyId = Annotated[str, Field(description="Id of a run, or of a training job as train_submit gave it.")]


# ---- tasks ----


@server.tool(annotations=hints(reads=True))
def tasks_list() -> TaskList:
    """The tasks that ship with rows, the folders that your own tables may lie in, and the newest runs."""
    heads = [TaskHead(name=h.name, title=h.title, rows_here=h.here) for h in task_heads()]
    found = sorted(runs_folder().glob("*/config.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    return TaskList(tasks=heads, tables_below=[str(r) for r in roots()], runs=[p.parent.name for p in found[:20]])


@server.tool(annotations=hints(reads=True))
def task_get(task: Annotated[str, Field(description="Name of a task, as tasks_list gives it.")]) -> TaskAbout:
    """What a task asks: its features and targets with units, its scale, and the law that was published for it."""
    with refusals():
        head = task_head(task_name(task))
        told = TaskAbout(name=head.name, title=head.title, rows_here=head.here)
        if not head.here:
            return told.model_copy(update={"note": f"its rows are missing; get them with: agentlab data get {task}"})
        return bounded(_lab_answers.about(told, load_task(task)))


# ---- laws ----

server.tool(annotations=hints(reads=True))(_lab_laws.law_fit)
server.tool(annotations=hints(repeats=True))(_lab_laws.law_audit)
server.tool(annotations=hints(reads=True))(_lab_laws.law_predict)
server.tool(annotations=hints(reads=True))(_lab_laws.law_allocate)
server.tool(annotations=hints(reads=True))(_lab_laws.laws_compare)


# ---- runs ----


@server.tool(annotations=hints(reads=True))
async def discover_estimate(rows: Table, ctx: Context[Any], search: Search = Search()) -> Estimate:  # noqa: B008
    """What a run would do, and what it would cost at most, without starting it."""
    argv = [*CLI, "discover", *await off(search_words, rows, search), "--dry-run", "--json"]
    found = await ask(argv, ctx)
    if found is None:
        return Estimate(state="running", note=SLOW)
    return bounded(_lab_answers.estimated(found, await off(runs.pace, runs_folder())))


@server.tool(annotations=hints())
async def discover_start(
    rows: Table,
    ctx: Context[Any],
    search: Search = Search(),  # noqa: B008 -- frozen
    max_minutes: Annotated[float | None, Field(gt=0, le=10_080, description="The same as in `search`.")] = None,
    max_usd: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="The same as in `search`.")] = None,
    idempotency_key: Annotated[
        str | None, Field(min_length=1, max_length=200, description="The same key again names the same run.")
    ] = None,
) -> Started:
    """Start to search for a law; it goes on by itself, also when this server ends. Follow it with run_get.

    With a key a repeated start, from any client and at any time, gives the same run.
    """
    given = {k: v for k, v in (("max_minutes", max_minutes), ("max_usd", max_usd)) if v is not None}
    key = idempotency_key or new_key()
    words = await off(search_words, rows, search.model_copy(update=given))
    argv = ["-P", "-m", "agentlab.runs_detach", f"--key={key}", "--", *words]
    found = await ask(argv, ctx, keys=search.proposer != "mutate")
    if found is None:
        note = f"it is being started; call again with the same arguments and idempotency_key={key}"
        return Started(state="running", idempotency_key=key, note=note)
    note = f"follow it with run_get(run={found['run']}, wait_s=15)"
    return Started(run=found["run"], new=found["new"], idempotency_key=key, notes=found["notes"], note=note)


@server.tool(annotations=hints(reads=True))
async def run_get(
    run: AnyId,
    ctx: Context[Any],
    cursor: Annotated[int, Field(ge=0, description="From the last answer; 0 for everything.")] = 0,
    wait_s: Annotated[float, Field(ge=0, le=15, description="Seconds to wait for news at most.")] = 0,
    detail: Detail = "brief",
) -> RunState:
    """Where a run stands: its best law so far, what is new since the cursor, and its law and scores once it is done.

    brief tells better laws and what was decided; full tells every candidate, a page at a time: ask on while `more`.
    """
    end, told = time.monotonic() + wait_s, -1
    while True:
        found = await off(_state, run, cursor, detail)
        if found.evaluated + found.rejected > told:
            told = found.evaluated + found.rejected
            await ctx.report_progress(told, found.limit, found.best.formula[:200] if found.best else found.state)
        going = found.state in ("starting", "running", "stopping")
        if not going or found.more or (found.events and cursor) or time.monotonic() >= end:
            return bounded(found)
        await anyio.sleep(LOOK)


@server.tool(annotations=hints(destroys=True, repeats=True))
async def run_stop(
    run: AnyId,
    now: Annotated[bool, Field(description="True: kill it; it can be continued, but gives no law now.")] = False,
) -> Stopped:
    """Stop a run: it finishes its step, chooses among what it has and reports; or stop a training job."""
    job = _lab_train.job_of(run)
    if job is not None:
        await off(_lab_train.cancel, job)
        note = "stopped; the same config resumes it" if job.going else "it had ended"
        return Stopped(run=run, was=job.state, note=note)
    folder = run_folder(run)
    with refusals():
        was = await off(lambda: detach.stop(folder, now=now))
    note = "nothing was at it" if was == "ended" else f"continue it with: agentlab runs resume {folder}" if now else ""
    return Stopped(run=run, was=was, note=note or f"follow it with run_get(run={run}, wait_s=15)")


# ---- training runs ----


@server.tool(annotations=hints(reads=True))
async def train_propose(
    run: RunId,
    flops: _lab_laws.Flops,
    ctx: Context[Any],
    max_runs: Annotated[int, Field(ge=1, le=200, description="Next runs at most.")] = 8,
    spend: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="FLOPs that they may cost together.")
    ] = None,
) -> Proposal:
    """The training runs to make next: what each costs, and how much of what is open about the decision it settles."""
    argv = [*CLI, "plan", str(run_folder(run)), "--flops", f"{flops!r}", "--runs", str(max_runs), "--json"]
    found = await ask([*argv, *(["--spend", f"{spend!r}"] if spend else [])], ctx)
    if found is None:
        return Proposal(state="running", note=SLOW)
    planned = [NextRun(**one) for one in found.get("next_runs") or []]
    note = "" if planned else "no next runs: the run's task has no design space, or none would change the decision"
    total = sum(one.flops for one in planned)
    kept = {k: found[k] for k in ("question", "config", "regret")}
    submit = {"run": run} if planned and planned[0].tool == _lab_train.START else {}
    if planned and not submit:
        note = f"train_submit cannot make these: their tool is {planned[0].tool}"
    elif planned and all(one.closes == "nan" for one in planned):
        note = "no law says which runs are worth more: these were drawn at random"
    return bounded(Proposal(**kept, next_runs=planned, submit=submit, flops=total, note=note))


@server.tool(annotations=hints(repeats=True, outside=True))
async def train_submit(
    config: Config,
    max_flops: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Refused where the run would cost more training FLOPs.")
    ],
    backend: Backend | None = None,
    run: Annotated[str | None, Field(description="The run it is for: its backend, its task's sealed budgets.")] = None,
    task: Annotated[str | None, Field(description="The task it is for, in place of a run.")] = None,
    truth: Annotated[Truth | None, Field(description="For the simulator only, which trains nothing.")] = None,
    name: Annotated[str | None, Field(description="Job id to use.")] = None,
) -> Submitted:
    """Start one training run as a job, under a cap of FLOPs; the same config again is the same job.

    A config of train_propose goes with what that says under `submit`; the training text of its task is found for it.
    Follow it with run_get(run=job). What backend=simulator answers is labelled: it trains nothing.
    """
    if name is not None and (runs_folder() / name).exists():
        raise ToolError(f"name={name}: a run is called so; give another name, or none")
    task = await off(_lab_train.task_of, run, task)
    if backend is None:
        backend, truth = await off(_lab_train.backend_of, run, truth)
    return await _lab_train.submit(config, max_flops, backend, task, truth, name)


# ---- leaderboard ----


@server.tool(annotations=hints(reads=True))
async def board_query(
    ctx: Context[Any],
    task: Annotated[str | None, Field(description="Only this task.")] = None,
    cursor: Annotated[int, Field(ge=0)] = 0,
    detail: Detail = "brief",
) -> Board:
    """Rows of the leaderboard, the best first: laws, their errors on the hold-out, how they were verified."""
    found = await _board(ctx)
    return Board(state="running", note=SLOW) if found is None else _lab_answers.board(found, task, cursor, detail)


@server.resource("agentlab://board", title="Leaderboard", mime_type="application/json")
async def board() -> str:
    """The first rows of the leaderboard."""
    try:
        found = await _board(None)
    except ToolError as error:
        return json.dumps({"note": str(error)})
    page: str = _lab_answers.board(found or [], None, 0, "brief").model_dump_json(indent=2)
    return page


_lab_pages.add_to(server, runs)


def _state(run: str, cursor: int, detail: str) -> RunState:
    job = _lab_train.job_of(run)
    if job is not None:
        return _lab_train.state_of(job)
    return runs.state(run_folder(run), cursor, full=detail == "full")


async def _board(ctx: Context[Any] | None) -> list[dict[str, Any]] | None:
    found = await ask([*CLI, "leaderboard", "--json"], ctx)
    return None if found is None else list(found.get("rows", []))


if __name__ == "__main__":
    serve(server)
