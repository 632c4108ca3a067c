"""Framework time a candidate, with tool servers that answer at once: `python bench/overhead.py [CANDIDATES]`.

    --openevolve PYTHON   an interpreter that has OpenEvolve, which is then measured beside (--peer-most CANDIDATES)
    --part agent          the agent and its peer alone, into overhead_agent.json

Everything but the fitting is real: parsing and canonical keys, the LangGraph loop, MCP calls over stdio to two server
processes, the trace with its fsyncs, the archive. Measured with a proposer of trivial laws (the framework), with
`mutate` (the framework and the thinking up of laws), and with `evolve` and a model that answers at once, over HTTP.
Bars: the first at most 1 ms a candidate, as fast at the end as at the start, under 200 MB; the last at most 5 ms, as
fast in the last thousand of 10,000 as in the first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
from machine import about, save
from overhead_agent import agent, peer, per_candidate

from agentlab.archive import Archive
from agentlab.discover import Progress, Search, run
from agentlab.engine import Local
from agentlab.law import parse
from agentlab.proposers.mutate import Mutate
from agentlab.run_rows import Intake, write_rows
from agentlab.toolbox import ServerSpec, Toolbox
from agentlab.trace import Trace
from agentlab.types import ALL, Budget, Proposal, Rows, Task, Variable

REPEATS = 3


def planted() -> tuple[Task, Rows]:
    """Two log variables and a loss (synthetic); never fitted here."""
    rng = np.random.default_rng(0)
    size, tokens = 10 ** rng.uniform(7, 9, 60), 10 ** rng.uniform(9, 11, 60)
    loss = 1.69 + 406.4 / size**0.34 + 410.7 / tokens**0.28
    rows = Rows({"N": size, "D": tokens}, {"loss": loss}, np.full(60, ALL), np.ones(60), size * tokens, np.arange(60))
    return Task("overhead", (Variable("N"), Variable("D")), ("loss",), scale="N*D", residual="log"), rows


class Trivial:
    """A proposer of one trivial law after another (synthetic)."""

    name = "trivial"

    def __init__(self, task: Task, _seed: int) -> None:
        self._names = task.names

    def ask(self, index: int, archive: Archive, pending: Collection[str]) -> Proposal | None:
        """The law number `index`."""
        law = parse(f"a + N**{index + 2}", self._names)
        if archive.seen(law.key) or law.key in pending:
            return None
        return Proposal(index, "fit.laws", law.text, law.key, self.name, "list", island=index % 5)


async def once(candidates: int, window: int, make: type[Mutate | Trivial] = Mutate) -> list[tuple[int, float]]:
    """(candidates committed, seconds) after each block of one run."""
    task, rows = planted()
    marks: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, Intake(task, rows))
        async with Toolbox([ServerSpec("fit", "instant_fit", copies=2)]) as toolbox:
            with Trace(folder / "trace.jsonl") as trace:
                search = Search(
                    folder, 60, 0, window, Budget(candidates=candidates), make(task, 0), Local(toolbox), trace
                )
                trace.append([{"kind": "run", "schema": 1}])
                start = time.perf_counter()
                async for progress in run(search):
                    note(progress, start, marks)
    return marks


def note(progress: Progress, start: float, marks: list[tuple[int, float]]) -> None:
    """Remember when a block was committed."""
    if progress.phase == "search":
        marks.append((progress.committed, time.perf_counter() - start))


def measure(candidates: int, make: type[Mutate | Trivial]) -> dict[str, float]:
    """Medians of REPEATS runs."""
    rows, span = [], candidates // 10
    for _ in range(REPEATS):
        marks = asyncio.run(once(candidates, 64, make))
        first, last = (per_candidate(marks, 32, 32 + span), per_candidate(marks, candidates - span, candidates))
        rows.append((1e3 * marks[-1][1] / candidates, first, last))
    whole, first, last = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{make.name:8s} {whole:.3f} ms a candidate; first tenth {first:.3f}, last tenth {last:.3f}")
    figures = {
        "ms_per_candidate": whole,
        "ms_first_tenth": first,
        "ms_last_tenth": last,
        "last_over_first": last / first,
    }
    return {k: round(v, 3) for k, v in figures.items()}


def read_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Framework time a candidate.")
    parser.add_argument("candidates", nargs="?", type=float, default=10_000)
    parser.add_argument("--openevolve", metavar="PYTHON")
    parser.add_argument("--peer-most", type=float, default=3_000)
    parser.add_argument("--part", choices=("all", "agent"), default="all")
    return parser.parse_args()


def main() -> None:
    """Run, print a table and a JSON line, keep the result."""
    given = read_options()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # the servers find instant_fit there
    candidates = int(given.candidates)
    name = "overhead" if given.part == "all" else "overhead_agent"
    result: dict[str, object] = {"bench": name, "candidates": candidates, "repeats": REPEATS}
    if given.part == "all":
        result |= {make.name: measure(candidates, make) for make in (Trivial, Mutate)}
    result["evolve"] = agent(*planted(), candidates, REPEATS)
    result["openevolve"] = peer(given.openevolve, min(candidates, int(given.peer_most)), REPEATS)
    result["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    result["peak_mb_server"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1)
    print(json.dumps(result | about()))
    save(result)


if __name__ == "__main__":
    main()
