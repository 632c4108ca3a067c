"""Runs the moe_leverage sweep through the train tool: python bench/moe_sweep.py design|run|tables [--workers N].

A job is a folder below $AGENTLAB_JOBS (default .sweep/jobs); finished ones are skipped, unfinished ones resumed from
their checkpoint. `design` writes design.csv from bench/moe_design.py, `tables` compiles what is there so far into the
task's data.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import time
from pathlib import Path

import moe_design
from agentlab.tools import train
from mcp import Client

ROOT = Path(__file__).resolve().parent.parent
TASK = ROOT / "tasks" / "moe_leverage"


async def one(client: Client, point: moe_design.Point, corpus: str) -> str:
    """Runs one point to its end and returns a line about it."""
    estimate = await call(client, "estimate", {"config": point.config(corpus, 1)})
    config = point.config(corpus, max(1, int(str(estimate["steps"])) // 40))
    named = {"task": TASK.name, "sealed_key": os.environ[train.SEALED_KEY]} if (TASK / "task.toml").is_file() else {}
    began = time.monotonic()
    job = await call(client, "start", {"config": config, "name": point.name, "nice": 19, **named})
    while job["state"] in ("starting", "running"):
        await asyncio.sleep(1.0)
        job = await call(client, "status", {"job": point.name})
    return f"{point.name} {job['state']} {job['valid_loss']} {time.monotonic() - began:.0f} s {job['message']}"


async def call(client: Client, tool: str, arguments: dict[str, object]) -> dict[str, object]:
    """The structured result of a tool; an error of the tool stops the sweep."""
    reply = await client.call_tool(tool, arguments)
    if reply.is_error or reply.structured_content is None:
        raise RuntimeError(f"{tool}: {reply.content}")
    return dict(reply.structured_content)


async def run(points: list[moe_design.Point], workers: int) -> None:
    """`workers` jobs at a time, in the order of the design."""
    queue = asyncio.Queue[moe_design.Point]()
    for point in points:
        queue.put_nowait(point)
    async with Client(train.server) as client:
        while (text := await call(client, "corpus", {"task": TASK.name}))["state"] != "done":
            continue  # the call itself waits
        corpus = str(text["folder"])

        async def work() -> None:
            while not queue.empty():
                told = await one(client, queue.get_nowait(), corpus)
                print(time.strftime("%H:%M:%S"), told, f"{queue.qsize()} left", flush=True)

        await asyncio.gather(*(work() for _ in range(workers)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["design", "run", "tables"])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ.setdefault(train.JOBS, str(ROOT / ".sweep" / "jobs"))
    os.environ.setdefault(train.MAX_JOBS, str(options.workers + 8))  # jobs of a driver before may still run
    os.environ.setdefault(train.SEALED_KEY, secrets.token_hex(16))
    if options.verb == "design":
        moe_design.write(TASK / "design.csv")
    elif options.verb == "run":
        asyncio.run(run(moe_design.read(TASK / "design.csv"), options.workers))
    else:
        import moe_tables  # noqa: PLC0415 - needs scipy, and runs of the sweep need not

        moe_tables.compile_all(moe_design.read(TASK / "design.csv"), train.jobs_folder(), TASK)


if __name__ == "__main__":
    main()
