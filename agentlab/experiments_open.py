"""Opens a loop over experiments in its run folder: its design space, its rows, its tools, and what it did before."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from agentlab import experiments
from agentlab.catalog import load_design
from agentlab.checkpoints import VARIABLE as CHECKPOINTS
from agentlab.checkpoints import open_saver
from agentlab.discover_files import TRACE
from agentlab.discover_open import proposer_name
from agentlab.discover_spent import spending
from agentlab.discover_state import Progress
from agentlab.experiments import SURVIVORS_FILE, Loop
from agentlab.experiments_call import Runner, prepared
from agentlab.experiments_dear import DearRuns
from agentlab.experiments_rows import RUNS
from agentlab.files import write_json
from agentlab.run_rows import ROWS, read_rows
from agentlab.runs_files import CONFIG, seconds_of
from agentlab.space import Design, read_design, space_of
from agentlab.tool_spec import ServerSpec
from agentlab.toolbox import Toolbox
from agentlab.trace import Record, Trace, read
from agentlab.types import DEFAULT_CANDIDATES, Budget, RunConfig, Task
from agentlab.words import UsageError

DESIGN = "design.json"
JOBS = "jobs"

Searching = Callable[[Path], Awaitable[None]]


def check(config: RunConfig, task: Task) -> None:
    """Refuse experiments that cannot be made: a task without a design space, or a budget below the cheapest run.

    Raises:
        UsageError, SpaceError: one line that says what to write.
    """
    if not config.experiments:
        return
    design = _design_of(config, task)
    cheapest = float(space_of(design, task).cost.min())
    budget = config.budget.flops
    if budget is not None and budget < cheapest:
        raise UsageError(f"budget.flops={budget:g}: the cheapest run of {task.name} costs {cheapest:.4g}; give more")
    if proposer_name(config) == "code":
        raise UsageError("experiments= designs runs from formulas; leave proposer=code out")
    if task.group is not None:
        raise UsageError(
            f"experiments={config.experiments}: {task.name} has groups, and runs of a group are not designed"
        )


def placed(config: RunConfig) -> RunConfig:
    """The settings with the whole path of a task that is a folder here: a resume, and the tools, may be elsewhere."""
    told = load_design(config.task) if config.experiments and config.task else None
    here = told is not None and config.task is not None and told[0] == Path(config.task).resolve()
    return dataclasses.replace(config, task=str(told[0])) if told is not None and here else config


def _design_of(config: RunConfig, task: Task) -> Design:
    told = load_design(config.task) if config.task else None
    if told is None:
        raise UsageError(
            f"experiments={config.experiments}: {config.task or config.data} has no design space; write a table "
            "[design] in the task.toml of a task, as tasks/moe_leverage shows, or leave experiments= out"
        )
    return read_design(told[1], task)


def write_design(folder: Path, config: RunConfig, task: Task) -> None:
    """Keep the design space in a new run's folder, and the table of runs that its rows are derived from."""
    if not config.experiments:
        return
    design = _design_of(config, task)
    if design.runs:
        place = load_design(str(config.task))
        assert place is not None  # noqa: S101 - it was read a line above
        shutil.copyfile(place[0] / design.runs, folder / RUNS)
    write_json(folder / DESIGN, design.model_dump(exclude_defaults=True))


def read_kept(folder: Path, task: Task) -> Design:
    """The design space that a run's folder keeps."""
    return read_design(json.loads((folder / DESIGN).read_text(encoding="utf-8")), task)


async def carry_out(
    folder: Path,
    config: RunConfig,
    first: Record,
    searching: Searching,
    watch: Callable[[Progress], None],
    approver: Callable[[Any], bool | None] | None,
) -> None:
    """Run or resume the loop of a folder until its law is on record; `first` begins a new trace.

    `searching` carries out the search of a folder that holds rows and settings.
    """
    begun = folder / "rounds" / "00"  # the folder's own rows are those of the end, once it is there
    task, rows = read_rows(begun if (begun / ROWS).exists() else folder, every=True)
    design = read_kept(folder, task)
    workers = config.workers or os.cpu_count() or 1
    servers = [_server(name, folder, workers) for name in _servers(design)]
    with Trace(folder / TRACE) as trace:
        if trace.empty:
            trace.append([first | {"code": code_version()}])
        async with Toolbox(servers) as toolbox, open_saver(folder, os.environ.get(CHECKPOINTS)) as saver:
            runner = Runner(design, toolbox, _arguments(config, design), await prepared(design, toolbox), lambda: False)
            loop = Loop(
                folder=folder,
                config=config,
                task=task,
                design=design,
                space=space_of(design, task),
                base=rows,
                runs=folder / RUNS,
                trace=trace,
                toolbox=toolbox,
                runner=runner,
                search=lambda place: _search(place, config, loop, searching),
                watch=watch,
                workers=workers,
                records=list(read(folder / TRACE)),
                before=seconds_of(folder),
            )
            loop.runner = dataclasses.replace(runner, stopped=lambda: loop.interrupted)
            _listen(loop)
            await experiments.run(loop, saver, approver)


def _listen(loop: Loop) -> None:
    """From now on Ctrl-C ends the loop after the runs under way are cancelled; twice ends the process."""
    running = asyncio.get_running_loop()

    def stop() -> None:
        loop.interrupted = True
        running.remove_signal_handler(signal.SIGINT)

    with suppress(NotImplementedError, RuntimeError, ValueError):
        running.add_signal_handler(signal.SIGINT, stop)


async def _search(place: Path, config: RunConfig, loop: Loop, searching: Searching) -> None:
    """The search of one round, with its share of what is left of the budgets."""
    if not (place / CONFIG).exists():
        share = _share(config, loop)
        write_json(place / CONFIG, dataclasses.asdict(dataclasses.replace(config, experiments=0, budget=share)))
    try:
        await searching(place)  # which listens for Ctrl-C itself
    finally:
        _listen(loop)


def _share(config: RunConfig, loop: Loop) -> Budget:
    """What a round's search may spend: candidates evenly over the rounds, the rest as it is left."""
    rounds = min(experiments.ROUNDS, config.experiments) + 1
    left = max(rounds - len(loop.of("round")), 1)
    spent = [s for r in loop.of("round") if (s := spending(_trace_of(loop, r))) is not None]
    budget = config.budget
    seconds = None if budget.seconds is None else max(budget.seconds - loop.seconds, 1.0) / left
    used = sum(r["counts"]["evaluated"] + sum(r["counts"]["rejected"].values()) for r in loop.of("round"))
    usd = None if budget.usd is None else max(budget.usd - sum(s.usd for s in spent), 0.0) / left
    tokens = None if budget.tokens is None else max(budget.tokens - sum(s.tokens for s in spent), 1) // left
    candidates = max(((budget.candidates or DEFAULT_CANDIDATES) - used) // left, LEAST)
    return Budget(candidates=candidates, seconds=seconds, usd=usd, tokens=tokens)


LEAST = 4
"""Candidates of a round where no more are left: the survivors of the round before are judged anew."""


def _trace_of(loop: Loop, told: Record) -> list[Record]:
    return list(read(experiments.round_folder(loop.folder, told["round"]) / TRACE))


def survivors(folder: Path) -> list[str]:
    """Formulas that a search begins with: those that survived the round before."""
    path = folder / SURVIVORS_FILE
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def _arguments(config: RunConfig, design: Design) -> dict[str, Any]:
    """What goes to the tool beside the config: the task, whose sealed budgets it refuses, votes and the sandbox."""
    more: dict[str, Any] = {}
    if design.tool == "train.start":
        more = {"task": config.task} | ({"replicas": config.replicas} if config.replicas > 1 else {})
        more |= {"sandbox": "docker"} if config.sandbox == "docker" else {}
        if config.engine == "ray" and design.arguments.get("backend", "torch") == "torch":
            more |= {"engine": "ray"} | ({"address": config.address} if config.address else {})
    return {**more, **design.arguments}


def _servers(design: Design) -> list[str]:
    tools = [design.tool, design.poll, design.cancel, design.progress, design.derive]
    tools += [design.prepare.tool] if design.prepare else []
    return sorted({t.partition(".")[0] for t in tools if t})


def _server(name: str, folder: Path, workers: int) -> ServerSpec:
    """A server whose jobs lie in the run's folder; the loop itself bounds how many there are."""
    own = (("AGENTLAB_JOBS", str(folder / JOBS)), ("AGENTLAB_MAX_JOBS", str(workers + 4)))
    return ServerSpec(name, f"agentlab.tools.{name}", env=own)


def code_version() -> str:
    """The version of the package, and a digest of what trains and measures."""
    from agentlab import __version__  # noqa: PLC0415

    whole = hashlib.sha256()
    root = Path(str(files("agentlab.envs"))) / "images"
    for path in sorted(root.rglob("*.py")):
        whole.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return f"{__version__}+{whole.hexdigest()[:12]}"


__all__ = ["DearRuns", "carry_out", "check", "code_version", "read_kept", "survivors", "write_design"]
