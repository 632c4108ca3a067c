"""What the agent costs a candidate where model and tools answer at once, and OpenEvolve beside it: for overhead.py.

Two settings: as it comes, where `mutate` searches beside a model that has to earn its share; and a model whose every
law is a hit, in blocks so small that its replies fill them, so that nearly all candidates are its own. The server is
the same for both and for the peer: instant_model.py, in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from agentlab.checkpoints import open_saver
from agentlab.discover import TRACE, Progress, Search, run
from agentlab.discover_open import open_agent, proposer_of
from agentlab.engine import Local
from agentlab.run_rows import Intake, write_rows
from agentlab.toolbox import ServerSpec, Toolbox
from agentlab.trace import Trace, read
from agentlab.types import Budget, Rows, RunConfig, Task

HERE = Path(__file__).parent
SIZES = (300, 1_000, 3_000, 10_000)
SPAN = 1_000
"""Candidates at the start and at the end of the longest run that are compared."""
WINDOWS = {"beside mutate": 64, "all its own": 12}
"""The settings, by the window of the run."""
WORKERS = 2

Marks = Sequence[tuple[int, float]]
"""(candidates, seconds) as a run goes on."""


class Measured(NamedTuple):
    """One run: its marks, how many candidates a model wrote, how many calls were answered."""

    marks: Marks
    written: int
    calls: int


@contextmanager
def instant_model() -> Iterator[str]:
    """The address of a server of its own, until the block ends."""
    command = [sys.executable, str(HERE / "instant_model.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield json.loads(server.stdout.readline())["url"]
        server.stdin.close()


async def once(task: Task, rows: Rows, candidates: int, window: int) -> Measured:
    """One run of the agent, as the command line makes it but for the tools."""
    with tempfile.TemporaryDirectory() as name, instant_model() as url:
        folder = Path(name)
        write_rows(folder, Intake(task, rows))
        config = RunConfig(
            proposer="evolve", model="instant", base_url=url, window=window, budget=Budget(candidates=candidates)
        )
        with Trace(folder / TRACE) as trace:
            trace.append([{"kind": "run", "schema": 1}])
            async with (
                open_agent(config, task, rows, {}, trace) as agent,
                Toolbox([ServerSpec("fit", "instant_fit", copies=WORKERS)]) as toolbox,
                open_saver(folder, None) as saver,
            ):
                search = Search(
                    folder,
                    len(rows),
                    0,
                    window,
                    config.budget,
                    proposer_of(config, task),
                    Local(toolbox),
                    trace,
                    agent=agent,
                )
                start = time.perf_counter()
                marks = [(p.committed, time.perf_counter() - start) async for p in run(search, saver) if _searches(p)]
        entries = [r for r in read(folder / TRACE) if r["kind"] in ("entry", "reply")]
    calls = sum(r["kind"] == "reply" for r in entries)
    return Measured(marks, sum(r.get("call") is not None for r in entries if r["kind"] == "entry"), calls)


def _searches(progress: Progress) -> bool:
    return progress.phase == "search"


def per_candidate(marks: Marks, low: int, high: int) -> float:
    """Milliseconds a candidate between two counts."""
    inside = [(n, t) for n, t in marks if low <= n <= high]
    return 1e3 * (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def agent(task: Task, rows: Rows, most: int, repeats: int) -> dict[str, Any]:
    """Medians over `repeats` runs of each size up to `most`, in both settings."""
    found: dict[str, Any] = {}
    for name, window in WINDOWS.items():
        for size in (s for s in SIZES if s <= most):
            done = [asyncio.run(once(task, rows, size, window)) for _ in range(repeats)]
            row = _row([one.marks for one in done], size)
            row |= {"written": done[-1].written, "calls": done[-1].calls}
            found.setdefault(name, {})[str(size)] = row
            told(f"agentlab evolve, {name}", size, row)
    return found


def peer(python: str | None, most: int, repeats: int) -> dict[str, Any] | str:
    """The same of OpenEvolve under another interpreter; "not installed" without one."""
    if python is None:
        print("OpenEvolve: not installed (name its interpreter with --openevolve)")
        return "not installed"
    found: dict[str, Any] = {}
    for size in (s for s in SIZES if s <= most):
        runs = []
        for _ in range(repeats):
            with instant_model() as url:
                command = [python, str(HERE / "overhead_peer.py"), url, str(size), str(WORKERS)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        found["version"] = runs[0]["version"]
        row = _row([[(i, t - one["marks"][0]) for i, t in enumerate(one["marks"])] for one in runs], size)
        found[str(size)] = row | {"evaluated": len(runs[-1]["marks"])}
        told(f"OpenEvolve {found['version']}", size, found[str(size)])
    return found


def _row(runs: Sequence[Marks], size: int) -> dict[str, Any]:
    """Milliseconds a candidate over whole runs, and at their start and end."""
    span = min(SPAN, size // 3)
    # Without the first block: servers start and modules are imported meanwhile.
    whole = statistics.median(per_candidate(m, m[0][0], m[-1][0]) for m in runs)
    first = statistics.median(per_candidate(m, m[0][0], m[0][0] + span) for m in runs)
    last = statistics.median(per_candidate(m, m[-1][0] - span, m[-1][0]) for m in runs)
    figures = {"ms_per_candidate": whole, "ms_first": first, "ms_last": last, "last_over_first": last / first}
    return {name: round(value, 3) for name, value in figures.items()} | {"span": span, "repeats": len(runs)}


def told(what: str, size: int, row: dict[str, Any]) -> None:
    """A line for a person."""
    more = f"; {row['written']} written in {row['calls']} calls" if "written" in row else ""
    print(
        f"{what:32} {size:6} candidates: {row['ms_per_candidate']:8.3f} ms a candidate; first {row['span']} "
        f"{row['ms_first']:.3f}, last {row['ms_last']:.3f}{more}",
        flush=True,
    )
