"""Run folders: made, resumed, scored and read back; a run is `config.json`, its rows and `trace.jsonl`."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentlab.catalog import find_proposer
from agentlab.discover import TIMING, TRACE, Progress, Search, run
from agentlab.discover_decide import chats, open_voters, spending
from agentlab.files import write_json
from agentlab.law import parse
from agentlab.run_rows import Intake, read_rows, write_rows
from agentlab.toolbox import ServerSpec, Toolbox
from agentlab.trace import SCHEMA, Record, Trace, follow, number, read, rewind
from agentlab.types import AgentlabError, Budget, EvaluationError, RunConfig
from agentlab.words import UsageError

CONFIG = "config.json"
LAW = "law.json"
LOCK = "lock"


class NoLawError(AgentlabError):
    """A budget was reached before any law was found."""

    exit_code = 3


def create(config: RunConfig, intake: Intake) -> Path:
    """Make the folder of a new run under `config.out` and put its rows and settings there.

    Folders are claimed by making them, so two runs may share `out`.
    """
    find_proposer(config.proposer)
    chats(config)  # refuses an address with a password before it could be written down
    out = Path(config.out)
    try:
        folder = _claim(out, re.sub(r"[^A-Za-z0-9_.-]+", "-", intake.task.name))
        write_rows(folder, intake, config.seed)
        # Last, so that a folder with settings is a whole run.
        write_json(folder / CONFIG, dataclasses.asdict(config))
    except OSError as error:
        raise UsageError(f"out={out}: {error.strerror}: {error.filename}; give a folder that can be written") from error
    return folder


_ELSEWHERE = frozenset({"out", "data", "holdout", "address", "base_url", "workers", "task"})
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


def find(run_id: str, out: str = "runs") -> Path:
    """The folder of a run given by id or by folder."""
    for folder in (Path(run_id), Path(out) / run_id):
        if (folder / CONFIG).is_file():
            return folder
    near = ", ".join(p.name for p in list_runs(out)[-5:]) or "none yet"
    raise UsageError(f"no run {run_id!r} here or under {out}/; the latest there: {near}")


def list_runs(out: str = "runs") -> list[Path]:
    """The run folders under `out`, by name."""
    return sorted(p.parent for p in Path(out).glob(f"*/{CONFIG}"))


def read_config(folder: Path) -> RunConfig:
    """The settings a run was made with."""
    stored = json.loads((folder / CONFIG).read_text())
    return RunConfig(**{**stored, "budget": Budget(**stored["budget"])})


def carry_out(folder: Path, watch: Callable[[Progress], None]) -> None:
    """Run or resume the search in a folder until its law is on record, then have the hold-out scored.

    Raises UsageError where another process is at it: two writers would spoil the trace.
    """
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder} is being run by another process; wait for it, or stop it first") from None
        _carry_out(folder, watch)


def _carry_out(folder: Path, watch: Callable[[Progress], None]) -> None:
    records = list(read(folder / TRACE)) if (folder / TRACE).exists() else []
    if not any(r["kind"] == "law" for r in records):
        if (folder / TRACE).exists():
            rewind(folder / TRACE)
        asyncio.run(_search(folder.resolve(), watch))
        records = list(read(folder / TRACE))
    law = next(r for r in records if r["kind"] == "law")
    if law["entry"] is not None and not any(r["kind"] == "holdout" for r in records):
        write_json(folder / LAW, {"formula": law["formula"], "params": law["params"]})
        # How often the hold-out was looked at is counted beside the trace: a resumed run may look twice.
        scores = {k: v for k, v in _score_holdout(folder).items() if k != "looks"}
        with Trace(folder / TRACE) as trace:
            trace.append([{"kind": "holdout"} | scores])


async def _search(folder: Path, watch: Callable[[Progress], None]) -> None:
    config = read_config(folder)
    task, rows = read_rows(folder)
    workers = config.workers or os.cpu_count() or 1
    servers = [ServerSpec("fit", "agentlab.tools.fit", copies=workers)]
    async with open_voters(config) as voters, Toolbox(servers) as toolbox:
        with Trace(folder / TRACE) as trace:
            if trace.empty:
                settings = {
                    k: v for k, v in dataclasses.asdict(config).items() if k not in _ELSEWHERE and v is not None
                }
                trace.append([{"kind": "run", "schema": SCHEMA, "task": task.name, "rows": len(rows)} | settings])
            search = Search(
                folder=folder,
                rows=len(rows) * len(task.targets),
                seed=config.seed,
                window=config.window,
                budget=config.budget,
                proposer=find_proposer(config.proposer)(task, config.seed),
                toolbox=toolbox,
                trace=trace,
                before=_seconds(folder),
                patience=config.patience,
                voters=voters,
            )
            _finish_on_interrupt(search)
            async for progress in run(search):
                watch(progress)


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


def result(folder: Path) -> dict[str, Any]:
    """What a run found, in the form of DESIGN section 4, read from its trace alone."""
    config = read_config(folder)
    records = list(read(folder / TRACE))
    law = next((r for r in records if r["kind"] == "law"), None)
    if law is None:
        raise UsageError(f"{folder.name} has no law yet; continue it with: agentlab runs resume {folder}")
    if law["entry"] is None:
        raise NoLawError(f"{folder.name}: no law fitted the rows within the budget; raise budget.candidates=")
    holdout = next((r for r in records if r["kind"] == "holdout"), {})
    entries = [r for r in records if r["kind"] == "entry"]
    rejected = Counter(r["reason"].split(":")[0] for r in entries if r["status"] == "rejected")
    task, _ = read_rows(folder)
    formula, beside, voted = parse(law["formula"], task.names), _beside(records), spending(records)
    counts: dict[str, Any] = {"evaluated": len(entries) - sum(rejected.values())}
    counts["rejected"] = dict(sorted(rejected.items()))
    cost = {"seconds": _seconds(folder), "usd": 0.0, "flops": 0.0}
    verdict = _verdict(law, holdout, beside)
    if voted is not None:
        counts["decisions"] = voted.decisions
        cost["tokens"] = voted.tokens
        verdict += voted.ended
    return {
        "run": folder.name,
        "dir": str(folder),
        "task": records[0]["task"],
        "seed": config.seed,
        "proposer": config.proposer,
        "law": {
            "formula": law["formula"],
            "latex": formula.latex(),
            "key": law["key"],
            "n_params": law["n_params"],
            "params": law["params"],
            "intervals": law["intervals"],
            "entry": law["entry"],
        },
        "score": {
            "dev": law["dev"],
            "holdout": holdout.get("holdout"),
            "reference_holdout": holdout.get("reference"),
            "refitted_reference_holdout": holdout.get("reference_refitted"),
        },
        "baselines": beside,
        "luck": next(({k: v for k, v in r.items() if k != "kind"} for r in records if r["kind"] == "luck"), None),
        "counts": counts,
        "cost": cost,
        "verdict": verdict,
    }


def _seconds(folder: Path) -> float:
    """Seconds spent on a run up to its last note; notes add up over resumes."""
    path = folder / TIMING
    last = follow(path)[0][-1:] if path.exists() else []
    return round(float(last[0]["seconds"]), 3) if last else 0.0


def _beside(records: Sequence[Record]) -> dict[str, Any]:
    """The baselines on the law's hidden rows by name, and which of them beats the law ("" where none does)."""
    found = next((r for r in records if r["kind"] == "baselines"), None)
    if found is None:
        return {"beaten_by": "", "dev": {}}
    return {"beaten_by": found["beaten_by"], "dev": {r["name"]: r["dev"] for r in found["rows"] if r["name"] != "law"}}


def _verdict(law: Record, holdout: Record, beside: Mapping[str, Any]) -> str:
    """The run in a sentence; scores are numbers, or "inf" where a law broke down."""
    found, reference = holdout.get("holdout"), holdout.get("reference_refitted") or holdout.get("reference")
    text = f"predicts the hidden top quarter by scale with a mean error of {_percent(law['dev'])}"
    if number(law["dev"]["r2"]) < 0:
        text += " (worse than their mean would)"
    if found is not None:
        text += f" and the sealed hold-out with {_percent(found)} (R2 {number(found['r2']):.3f})"
        if reference is not None:
            better = "better than" if number(found["nmse"]) < number(reference["nmse"]) else "no better than"
            text += f", {better} the published form ({_percent(reference)}, R2 {number(reference['r2']):.3f})"
    if name := beside["beaten_by"]:
        text = f"no law beats the baseline ({name}: {_percent(beside['dev'][name])}); the best formula {text}"
    if law.get("violations"):
        text += f"; breaks in the extrapolation box: {', '.join(law['violations'])}"
    return text


def _percent(score: Mapping[str, Any]) -> str:
    return f"{100 * number(score['are']):.2g}%"


def status(folder: Path) -> dict[str, Any]:
    """Where a run stands: its state, how many candidates are on record, its law."""
    path = folder / TRACE
    records = list(read(path)) if path.exists() else []
    law = next((r for r in records if r["kind"] == "law"), None)
    return {
        "run": folder.name,
        "state": "open" if law is None else "done",
        "evaluated": sum(r["kind"] == "entry" for r in records),
        "formula": (law or {}).get("formula", ""),
    }
