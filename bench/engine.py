"""What a second node of a Ray cluster is worth, in segments and in candidates: `python bench/engine.py [REPEATS]`.

Everything is real: a cluster of this machine whose head runs no tasks, first with one node of one processor and then
with two; training jobs as `train.start(engine="ray")` makes them; laws judged through the engine of a search. The peer
is the same work without Ray, on one process and then on two: what the machine itself gives for its second processor.
The seconds of training count from the first segment that begins to the last job that ends, starts of PyTorch included.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentlab.tools import train
from agentlab.tools._jobs import Store
from jobs import write_corpus
from machine import RESULTS, about, save
from mcp import Client
from overhead import planted

from agentlab.engine import Engine, open_engine
from agentlab.run_rows import Intake, write_rows
from agentlab.tool_spec import ServerSpec

BAR = 1.7
JOBS = 2
CONFIG: dict[str, Any] = {
    "d_model": 128, "n_layers": 4, "n_heads": 4, "d_ff": 256, "context": 128, "batch_sequences": 8, "steps": 200,
    "segments": 2, "valid_sequences": 32, "threads": 1, "device": "cpu",
}  # fmt: skip
LAWS = [
    f"E + A/N**a + B/D**b + {extra}"
    for extra in ("C/N", "C/D", "C*log(N)", "C*log(D)", "C/(N*D)**c", "C/N**c", "C/D**c", "C*N/D")
] * 8
"""Candidates of the size that a search meets late; the same again, which nothing remembers."""


class Machines:
    """The cluster."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster  # noqa: PLC0415 - after the variables that it reads are set

        self._small: dict[str, Any] = {"include_log_monitor": False, "object_store_memory": 200 << 20}
        self._cluster: Any = Cluster()
        self._cluster.add_node(**self._small, num_cpus=0, include_dashboard=False)
        self.address = str(self._cluster.address)

    def add(self) -> None:
        """One more node of one processor."""
        self._cluster.add_node(**self._small, num_cpus=1)

    def end(self) -> None:
        """All nodes end."""
        self._cluster.shutdown()


async def trained(corpus: str, where: dict[str, Any], lanes: int) -> float:
    """Training tokens a second of JOBS jobs, so many at a time."""
    store, waiting, going, began = train.store(), list(range(JOBS)), set[str](), 0.0
    async with Client(train.server) as client:
        while waiting or going:
            while waiting and len(going) < lanes:
                config = {**CONFIG, "corpus": corpus, "seed": waiting.pop()}
                reply = await client.call_tool("start", {"config": config, **where})
                going.add(str((reply.structured_content or {})["job"]))
            began = began or (time.perf_counter() if any(store.log(job) for job in going) else 0.0)
            going = {job for job in going if not ended(store, job)}
            await asyncio.sleep(0.05)
    seconds = time.perf_counter() - began
    return float(JOBS * CONFIG["steps"] * CONFIG["batch_sequences"] * CONFIG["context"] / seconds)


def ended(store: Store, name: str) -> bool:
    """Whether a job has its result."""
    job = store.find(name)
    if job.state not in ("starting", "running", "done"):
        raise RuntimeError(f"{name}: {job.state}: {job.message}")
    return bool(job.state == "done")


async def judged(engine: Engine, folder: Path) -> float:
    """Candidates a second, judged as finalists are, once every process has started."""

    async def portions(laws: Sequence[str], effort: str) -> None:
        size = min(4, engine.portion("fit.laws"))
        parts = [list(laws[i : i + size]) for i in range(0, len(laws), size)]
        ask = {"data": str(folder), "effort": effort, "seed": 0}
        await asyncio.gather(*(engine.call("fit.laws", {**ask, "formulas": part}) for part in parts))

    await portions(["E + A/N**a"] * 16, "search")
    start = time.perf_counter()
    await portions(LAWS, "final")
    return len(LAWS) / (time.perf_counter() - start)


async def candidates(folder: Path, engine: str, address: str | None, copies: int) -> float:
    """The same, with an engine that is opened for it."""
    servers = [ServerSpec("fit", "agentlab.tools.fit", copies=copies)]
    async with open_engine(engine, servers, address) as opened:
        return await judged(opened, folder)


def once(corpus: str, folder: Path) -> dict[str, dict[str, float]]:
    """Rates with one node and with two, and those of the peer, by what is done."""
    found: dict[str, dict[str, float]] = {"segments": {}, "candidates": {}}
    machines = Machines()
    for nodes in (1, 2):
        with tempfile.TemporaryDirectory() as jobs:
            os.environ[train.JOBS] = jobs
            found["segments"][f"local {nodes}"] = asyncio.run(trained(corpus, {}, nodes))
        found["candidates"][f"local {nodes}"] = asyncio.run(candidates(folder, "local", None, nodes))
        machines.add()
        with tempfile.TemporaryDirectory() as jobs:
            os.environ[train.JOBS] = jobs
            cluster = {"engine": "ray", "address": machines.address}
            found["segments"][f"ray {nodes}"] = asyncio.run(trained(corpus, cluster, JOBS))
        found["candidates"][f"ray {nodes}"] = asyncio.run(candidates(folder, "ray", machines.address, nodes))
    machines.end()
    return found


def table(result: dict[str, Any]) -> str:
    """The medians, for a person."""
    rows = ["# Engine", "", "| | one | two | two over one, median (least, most) |", "|---|---|---|---|"]
    for what, unit in (("segments", "training tokens a second"), ("candidates", "candidates a second")):
        for engine in ("ray", "local"):
            f = result[what][engine]
            ratios = f"{f['ratio']:.2f} ({f['least']:.2f}, {f['most']:.2f})"
            rows.append(f"| {what}, engine={engine}: {unit} | {f['one']:.4g} | {f['two']:.4g} | {ratios} |")
    told = f"Repetitions {result['repeats']}, load of the machine {result['load']:.1f} on {result['cores']} cores"
    return "\n".join([*rows, "", f"{told}; bar of two over one with Ray: {BAR} on segments.", ""])


def main() -> None:
    """Measure, print, keep."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", train.MAX_JOBS: "8"}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        corpus, folder = write_corpus(Path(name) / "corpus"), Path(name) / "run"
        folder.mkdir()
        write_rows(folder, Intake(*planted()))
        runs = []
        for number in range(repeats):
            runs.append(once(corpus, folder))
            print(f"{number + 1} of {repeats}: {json.dumps(runs[-1])}", file=sys.stderr, flush=True)
    result: dict[str, Any] = {"bench": "engine", "repeats": repeats, "load": load, "cores": os.cpu_count()}
    for what in ("segments", "candidates"):
        result[what] = {engine: figures([run[what] for run in runs], engine) for engine in ("ray", "local")}
    print(table(result))
    save(result)
    (RESULTS / "engine.md").write_text(table(result), encoding="utf-8")
    print(json.dumps(result | {"machine": about()}))


def figures(runs: Sequence[dict[str, float]], engine: str) -> dict[str, float]:
    """Medians over repetitions; each ratio is of one repetition."""
    ratios = [run[f"{engine} 2"] / run[f"{engine} 1"] for run in runs]
    one, two = (statistics.median(run[f"{engine} {n}"] for run in runs) for n in (1, 2))
    return {"one": one, "two": two, "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


if __name__ == "__main__":
    main()
