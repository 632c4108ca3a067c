"""Training runs for the lab's callers: one job by the server `train`, under a cap of FLOPs that is checked before."""

from __future__ import annotations

import json
import re
from typing import Any

from agentlab.tools._jobs import NAME, Job, Store, jobs_folder
from agentlab.tools._lab_places import run_folder, task_name
from agentlab.tools._lab_records import RunState, Submitted
from agentlab.tools._lab_short import cut
from agentlab.tools._train_records import Config, Truth, run_of
from mcp.server.mcpserver.exceptions import ToolError

from agentlab.catalog import load_design

KIND = "train"
START, TRAINER = "train.start", "torch"


def task_of(run: str | None, task: str | None) -> str | None:
    """The task that a training run is for, whose sealed budgets are refused; None where none is told.

    Raises:
        ToolError: there is no such run or task, or the run is of another task.
    """
    asked: str | None = None if task is None else task_name(task)
    named = None if run is None else _config_of(run)["task"]
    if asked is not None and named is not None and asked != named:
        raise ToolError(f"run {run} is of task {named}, not of {asked}; leave task= away")
    return asked if named is None else str(named)


def _config_of(run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_folder(run) / "config.json").read_text(encoding="utf-8"))
    return found


def backend_of(run: str | None, truth: Truth | None) -> tuple[str, Truth | None]:
    """Who makes the runs of a run's design space, and the law of a simulator, which no caller is told."""
    if run is None or truth is not None:
        return TRAINER, truth
    design = _design_of(run)
    arguments = design.get("arguments", {}) if design.get("tool") == START else {}
    planted = arguments.get("truth")
    return arguments.get("backend", TRAINER), None if planted is None else Truth(**planted)


def _design_of(run: str) -> dict[str, Any]:
    """The table [design] of a run's task, as a loop keeps it; empty where there is none."""
    kept, task = run_folder(run) / "design.json", _config_of(run)["task"]
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    told = load_design(task) if task else None
    return {} if told is None else told[1]


async def submit(
    config: Config,
    max_flops: float,
    backend: str,
    task: str | None,
    truth: Truth | None,
    name: str | None,
) -> Submitted:
    """Start a job that costs at most `max_flops`; the same config again is the same job.

    A config for our trainer without a training text gets that of its task, which may have to be built first.

    Raises:
        ToolError: it costs more, its cost cannot be told, its budget is sealed, or the backend refuses it.
    """
    from agentlab.tools import train  # noqa: PLC0415 -- half a second that other tools need not wait for

    if backend == TRAINER and task is not None and "corpus" not in config:
        text = await train.corpus(task)
        if text.state != "done":
            note = "the training text of its task is being built; call again with the same arguments"
            return Submitted(job="", state="starting", flops=0.0, max_flops=max_flops, simulated=False, note=note)
        config = {"corpus": text.folder} | config
    cost = (await train.estimate(config, backend=backend, truth=truth)).flops
    if cost is None:
        lacks = "write flops, or N and D, into config" if backend == "simulator" else "give its template a line `flops`"
        raise ToolError(f"backend {backend} does not tell what this costs; {lacks}")
    if not cost > 0:
        raise ToolError(f"it costs {cost:g} FLOPs; write a config of a run")
    if cost > max_flops:
        raise ToolError(
            f"it costs {cost:.10g} FLOPs, above max_flops={max_flops:.10g}; raise that, or write a smaller config"
        )
    started = await train.start(config, name=name, task=task, backend=backend, truth=truth)
    note = "simulated: nothing is trained, the loss is of a planted law" if started.simulated else ""
    return Submitted(
        job=started.job, state=started.state, flops=cost, max_flops=max_flops, simulated=started.simulated, note=note
    )


def job_of(job: str) -> Job | None:
    """The training job of that id, None where there is none."""
    store = Store(jobs_folder())
    if not re.fullmatch(NAME, job):
        return None
    return store.find(job, KIND) if (store.root / job / "config.json").is_file() else None


def cancel(job: Job) -> None:
    """Stop a job; the same config resumes it."""
    Store(jobs_folder()).cancel(job.id)


def state_of(job: Job) -> RunState:
    """A training job as run_get tells it."""
    told = run_of(job)
    state: Any = {"done": "done", "diverged": "done", "cancelled": "stopped", "interrupted": "failed"}.get(
        told.state, told.state
    )
    note = "simulated: nothing was trained, the loss is of a planted law" if told.simulated else told.message
    return RunState(
        run=told.job, state=state, simulated=told.simulated, note=note,
        job=cut(told.model_dump(mode="json", exclude={"folder"})),
    )  # fmt: skip
