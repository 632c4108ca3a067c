"""Run folders: made, resumed, scored and read back; a run is `config.json`, its rows and `trace.jsonl`."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from agentlab import experiments_open
from agentlab.checkpoints import VARIABLE as CHECKPOINTS
from agentlab.checkpoints import open_saver
from agentlab.discover import TRACE, Approver, Progress, Search, run
from agentlab.discover_decide import open_voters
from agentlab.discover_open import check, names_of, open_agent, prices_of, proposer_name, proposer_of, voting, window_of
from agentlab.discover_script import Retraced
from agentlab.discover_state import note_call
from agentlab.discover_turns import replayed
from agentlab.engine import open_engine
from agentlab.files import write_json
from agentlab.models_offline import Recorded
from agentlab.run_rows import ROWS, SAMPLE, TASK, Intake, read_rows, write_rows
from agentlab.runs_files import CONFIG, find, list_runs, read_config, seconds_of
from agentlab.runs_result import NoLawError, result, status
from agentlab.tool_spec import ServerSpec
from agentlab.trace import SCHEMA, Record, Trace, TraceError, read, rewind
from agentlab.types import EvaluationError, RunConfig, Task
from agentlab.words import UsageError

LAW = "law.json"
PROGRAM = "law.py"
LOCK = "lock"

__all__ = ["LAW", "NoLawError", "carry_out", "create", "find", "list_runs", "read_config", "replay", "result", "status"]


def create(config: RunConfig, intake: Intake) -> Path:
    """Make the folder of a new run under `config.out` and put its rows and settings there.

    Folders are claimed by making them, so two runs may share `out`.
    """
    check(config)  # refuses an address with a password before it could be written down
    experiments_open.check(config, intake.task)
    config = dataclasses.replace(config, proposer=proposer_name(config), window=window_of(config))
    config = experiments_open.placed(config)
    out = Path(config.out)
    try:
        folder = _claim(out, re.sub(r"[^A-Za-z0-9_.-]+", "-", intake.task.name))
        write_rows(folder, intake, config.seed)
        experiments_open.write_design(folder, config, intake.task)
        # Last, so that a folder with settings is a whole run.
        write_json(folder / CONFIG, dataclasses.asdict(config))
    except OSError as error:
        raise UsageError(f"out={out}: {error.strerror}: {error.filename}; give a folder that can be written") from error
    return folder


_ELSEWHERE = frozenset({"out", "data", "holdout", "engine", "address", "base_url", "workers", "task", "model_seconds"})
"""Settings that say where, not what: they stay out of the trace (DESIGN rule 2)."""


def _claim(out: Path, name: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    number = sum(1 for _ in out.glob(f"{name}-*"))
    while True:
        number += 1
        with suppress(FileExistsError):
            folder = out / f"{name}-{number:03d}"
            folder.mkdir()
            return folder


def carry_out(folder: Path, watch: Callable[[Progress], None], approver: Approver | None = None) -> None:
    """Run or resume the search in a folder until its law is on record, then have the hold-out scored.

    `approver` says whether calls may be made that cost more than `approve.*`.

    Raises UsageError where another process is at it: two writers would spoil the trace.
    """
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder} is being run by another process; wait for it, or stop it first") from None
        _carry_out(folder, watch, approver)


def _carry_out(folder: Path, watch: Callable[[Progress], None], approver: Approver | None) -> None:
    records = list(read(folder / TRACE)) if (folder / TRACE).exists() else []
    if not any(r["kind"] == "law" for r in records):
        if (folder / TRACE).exists():
            rewind(folder / TRACE)
        config = read_config(folder)
        asyncio.run((_explore if config.experiments else _search)(folder.resolve(), watch, approver))
        records = list(read(folder / TRACE))
    law = next(r for r in records if r["kind"] == "law")
    if law["entry"] is not None and not any(r["kind"] == "holdout" for r in records):
        _write_law(folder, law)
        # How often the hold-out was looked at is counted beside the trace: a resumed run may look twice.
        scores = {k: v for k, v in _score_holdout(folder).items() if k != "looks"}
        with Trace(folder / TRACE) as trace:
            trace.append([{"kind": "holdout"} | scores])


def _write_law(folder: Path, law: Record) -> None:
    """The law as the scoring process reads it; a program also as a file of its own."""
    if law.get("program"):
        write_json(folder / LAW, {"program": law["formula"], "params": law["params"]})
        (folder / PROGRAM).write_text(law["formula"].rstrip() + "\n", encoding="utf-8")
    else:
        write_json(folder / LAW, {"formula": law["formula"], "params": law["params"]})


async def _explore(folder: Path, watch: Callable[[Progress], None], approver: Approver | None) -> None:
    """A loop over experiments: each of its rounds is a search in a folder of its own."""
    config = read_config(folder)
    task, rows = read_rows(folder)
    first = _first(config, task, len(rows), ())

    async def searching(place: Path) -> None:
        if (place / TRACE).exists():
            rewind(place / TRACE)
        await _search(place, watch, approver)

    await experiments_open.carry_out(folder, config, first, searching, watch, approver)


async def _search(
    folder: Path, watch: Callable[[Progress], None], approver: Approver | None, source: Sequence[Record] = ()
) -> None:
    """Search in a folder; `source` is the trace of a finished run that is gone through again, without any model."""
    config = read_config(folder)
    task, rows = read_rows(folder)
    workers = config.workers or os.cpu_count() or 1
    # A replay comes to the same bytes wherever it runs: it needs no cluster.
    engine = "local" if source else config.engine
    servers = [ServerSpec("fit", "agentlab.tools.fit", copies=workers)]
    if proposer_name(config) == "code":
        servers.append(ServerSpec("program", "agentlab.tools.program", copies=1))
    with Retraced(folder / TRACE, source) if source else Trace(folder / TRACE) as trace:
        first = next(read(folder / TRACE), None) or _first(config, task, len(rows), source)
        if trace.empty:
            trace.append([first])
        prices = first.get("prices", {})
        models = [Recorded([]) for _ in names_of(config)] if source else None
        async with (
            open_agent(config, task, rows, prices, trace, models) as agent,
            open_voters(*voting(config, task, rows, prices, writes=agent is not None)) as voters,
            open_engine(engine, servers, config.address, window_of(config)) as toolbox,
            open_saver(folder, os.environ.get(CHECKPOINTS)) as saver,
        ):
            script, ending = replayed(agent, source)
            if voters is not None:
                voters.recall(source, 0)
            search = Search(
                folder=folder,
                rows=len(rows) * len(task.targets),
                seed=config.seed,
                window=window_of(config),
                budget=config.budget,
                proposer=proposer_of(config, task, experiments_open.survivors(folder)),
                toolbox=toolbox,
                trace=trace,
                before=seconds_of(folder),
                patience=config.patience,
                voters=voters,
                agent=agent,
                approve=config.approve,
                sandbox=config.sandbox,
                program_seconds=config.program_seconds,
                script=script,
                ending=ending,
            )
            if agent is not None:
                agent.clock = lambda: search.seconds
                agent.timed = partial(note_call, search)
            _finish_on_interrupt(search)
            async for progress in run(search, saver, approver):
                watch(progress)


def _first(config: RunConfig, task: Task, rows: int, source: Sequence[Record]) -> Record:
    """The first line of a trace: what the run is of, and its settings, with the prices of its models."""
    if source:
        return source[0]
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in _ELSEWHERE and v is not None}
    known = prices_of(config)
    told = {"kind": "run", "schema": SCHEMA, "task": task.name, "rows": rows} | settings
    return told | ({"prices": known} if known else {})


def replay(folder: Path, out: Path, watch: Callable[[Progress], None]) -> Path:
    """Go through a finished run again in a new folder, every candidate fitted anew and no model asked; that folder.

    Raises:
        UsageError: the run has no law yet.
        TraceError: it comes out differently; the line says where.
    """
    records = list(read(folder / TRACE)) if (folder / TRACE).exists() else []
    if not any(r["kind"] == "law" for r in records):
        raise UsageError(f"{folder.name} has no law yet; continue it with: agentlab runs resume {folder}")
    if read_config(folder).experiments:
        raise UsageError(f"{folder.name} made runs; its searches are replayed: agentlab runs replay {folder}/rounds/00")
    try:
        made = _claim(out, f"{folder.name}-replay")
        for name in (CONFIG, TASK, ROWS, SAMPLE):
            if (folder / name).exists():
                shutil.copy2(folder / name, made / name)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}; give a folder that can be written with --out") from error
    try:
        _replay(folder, made, records, watch)
    except BaseException:
        (made / CONFIG).unlink(missing_ok=True)  # what came out differently is no run to go on with
        raise
    return made


def _replay(folder: Path, made: Path, records: Sequence[Record], watch: Callable[[Progress], None]) -> None:
    asyncio.run(_search(made.resolve(), watch, None, records))
    scored = [r for r in records if r["kind"] == "holdout"]
    if scored:
        # The hold-out was opened once, for this very law: its figures are copied, never made again.
        with Trace(made / TRACE) as trace:
            trace.append(scored)
    _compare(folder / TRACE, made / TRACE)


def _compare(source: Path, made: Path) -> None:
    with source.open("rb") as was, made.open("rb") as now:
        for number, (one, other) in enumerate(itertools.zip_longest(was, now), start=1):
            if one != other:
                raise TraceError(
                    f"{made}: line {number} is another than in {source}; it was changed, or made by another version"
                )


def _finish_on_interrupt(search: Search) -> None:
    """Ctrl-C once ends the search after the step under way and reports; twice ends the process."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        search.interrupted = True
        loop.remove_signal_handler(signal.SIGINT)

    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, stop)


def _score_holdout(folder: Path) -> dict[str, Any]:
    """Scores from the sealed rows, made by a process of its own, the only one that reads them."""
    command = [sys.executable, "-m", "agentlab.leaderboard", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EvaluationError(f"scoring the hold-out of {folder} failed: {last}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
