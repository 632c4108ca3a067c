"""Training jobs that lose their server or are cancelled: `python bench/jobs.py [REPEATS]`.

Everything is real: `python -m agentlab.tools.train` over stdio, our PyTorch trainer on one thread. Kill: the server
gets SIGKILL at a moment of the training drawn evenly; a new server finds the job, and its result is compared with that
of a run that was never disturbed. Cancel: from the client's call until the process is gone, by the system; bar 2 s.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentlab.envs._processes import environment
from agentlab.tools import train
from agentlab.tools._jobs import Store
from machine import RESULTS, about, save
from mcp import Client, StdioServerParameters

BAR = 2.0
"""Seconds that a cancel may take."""
SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64, "context": 64, "batch_sequences": 4}
LARGE = {"d_model": 512, "n_layers": 6, "n_heads": 8, "d_ff": 2048, "context": 128, "batch_sequences": 8}


def write_corpus(folder: Path) -> str:
    """A small text of words (synthetic)."""
    chance = random.Random(0)  # noqa: S311 - a text, not a secret
    words = [b"def ", b"return ", b"x + 1\n", b"import ", b"self.", b"(a, b)\n", b"for i in ", b"range(n):\n"]
    folder.mkdir()
    for name, count in (("train.bin", 20_000), ("valid.bin", 2_000)):
        (folder / name).write_bytes(b"".join(chance.choices(words, k=count)))
    return str(folder)


def server(jobs: Path, pid_file: Path) -> StdioServerParameters:
    """A server over stdio whose process number is in a file."""
    env = {**environment(), train.JOBS: str(jobs), train.MAX_JOBS: "2"}
    run = [sys.executable, "-m", "agentlab.tools.train"]
    return StdioServerParameters(command="sh", args=["-c", 'echo $$ > "$0"; exec "$@"', str(pid_file), *run], env=env)


async def call(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """The structured result of a tool."""
    reply = await client.call_tool(tool, arguments)
    if reply.is_error or reply.structured_content is None:
        raise RuntimeError(f"{tool}: {reply.content}")
    return dict(reply.structured_content)


async def until_step(client: Client, job: str, step: float) -> None:
    """Waits until the job has done that many steps."""
    while (await call(client, "wait", job=job, seconds=0.2))["step"] < step:
        pass


async def whole(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The job of a server that lives."""
    async with Client(server(folder / "undisturbed", folder / "pid")) as client:
        job = (await call(client, "start", config=config))["job"]
        while (found := await call(client, "wait", job=job))["state"] in ("starting", "running"):
            pass
        return found


async def killed(folder: Path, config: Mapping[str, Any], step: float) -> dict[str, Any]:
    """The job of a server killed after that step, as the next server tells it when it has ended."""
    jobs = folder / f"killed-{step}"
    async with Client(server(jobs, folder / "pid")) as client:
        job = (await call(client, "start", config=config))["job"]
        await until_step(client, job, step)
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        state = Store(jobs).find(job).state
    async with Client(server(jobs, folder / "pid")) as client:
        while (found := await call(client, "wait", job=job))["state"] in ("starting", "running"):
            pass
    attempts = Store(jobs).log(job)
    return {**found, "killed_in": state, "attempts": sum(line.get("event") == "start" for line in attempts)}


def memory(pid: int) -> float:
    """Resident memory of a process in MB, 0 when there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


async def cancelled(folder: Path, config: Mapping[str, Any]) -> dict[str, float]:
    """Cancels a job in the middle of its training."""
    async with Client(server(folder / "cancelled", folder / "pid")) as client:
        job = (await call(client, "start", config=config))["job"]
        await until_step(client, job, 2)
        pid = int(json.loads((folder / "cancelled" / job / "process.json").read_text())["pid"])
        before, handle = memory(pid), os.pidfd_open(pid)
        began = time.perf_counter()
        calling = asyncio.ensure_future(call(client, "cancel", job=job))
        await asyncio.to_thread(select.select, [handle], [], [])
        gone = time.perf_counter() - began
        answer = await calling
        answered = time.perf_counter() - began
        os.close(handle)
    assert answer["state"] == "cancelled", answer
    return {"gone_s": gone, "answered_s": answered, "mb_before": before, "mb_after": memory(pid)}


def status_cost(folder: Path) -> dict[str, float]:
    """Milliseconds of a status of a finished job, with a log as it is and one of a million lines."""
    store = Store(folder / "undisturbed")
    job = store.list()[0]
    cost = {"status_ms": timed(store, job.id)}
    line = json.dumps({"event": "progress", "step": 1, "loss": 1.0}) + "\n"
    with (job.folder / "log.jsonl").open("a") as log:
        log.write(line * 1_000_000)
    return {**cost, "status_ms_million_lines": timed(store, job.id)}


def timed(store: Store, job: str) -> float:
    """Median milliseconds of `find`."""
    times = []
    for _ in range(50):
        began = time.perf_counter()
        store.find(job)
        times.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(times), 2)


async def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """All figures."""
    corpus, chance = write_corpus(folder / "corpus"), random.Random(1)  # noqa: S311
    small = {**SMALL, "corpus": corpus, "steps": 300, "segments": 6, "report_every": 5}
    large = {**LARGE, "corpus": corpus, "steps": 10_000, "report_every": 1}
    wanted = await whole(folder, small)
    keys = ("state", "step", "flops", "valid_loss", "digest")
    kills = [await killed(folder, small, chance.uniform(1, 250)) for _ in range(repeats)]
    equal = sum([k[key] for key in keys] == [wanted[key] for key in keys] and k["attempts"] == 1 for k in kills)
    in_training = sum(k["killed_in"] == "running" for k in kills)
    cancels = [await cancelled(folder, {**large, "seed": seed}) for seed in range(repeats)]
    return {
        "kills": repeats,
        "kills_in_training": in_training,
        "complete_and_equal": equal,
        **{f"cancel_{k}_median": round(statistics.median(c[k] for c in cancels), 3) for k in cancels[0]},
        **{f"cancel_{k}_max": round(max(c[k] for c in cancels), 3) for k in cancels[0]},
        **status_cost(folder),
    }


def table(found: Mapping[str, Any]) -> str:
    """The figures for a reader."""
    mb = f"{found['cancel_mb_before_median']:.0f} MB, then {found['cancel_mb_after_max']:.0f}"
    took = [
        f"{found[f'cancel_{k}_median']:.3f} (most {found[f'cancel_{k}_max']:.3f})" for k in ("gone_s", "answered_s")
    ]
    rows = [
        ("server killed with -9 while the job trained", f"{found['kills_in_training']} of {found['kills']}"),
        ("of these jobs, in one attempt: results complete and equal", str(found["complete_and_equal"])),
        ("cancel: seconds until the process is gone", took[0]),
        ("cancel: seconds until the client has the answer", took[1]),
        ("cancel: memory of the job", mb),
        ("status, ms", str(found["status_ms"])),
        ("status with a log of a million lines, ms", str(found["status_ms_million_lines"])),
    ]
    load = f"Load of the machine {found['load']:.1f} on {os.cpu_count()} cores; bar of the cancel: {BAR:g} s."
    return "\n".join(["# Jobs", "", "| | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), "", load]) + "\n"


def main() -> None:
    """Run, print a table and a JSON line, keep the result."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(measure(Path(name), repeats))
    found |= {"load": round(os.getloadavg()[0], 1), "bar_s": BAR, "met": found["cancel_gone_s_max"] <= BAR}
    result = {"bench": "jobs", **found}
    text = table(found)
    print(text)
    print(json.dumps(result | about()))
    save(result)
    (RESULTS / "jobs.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
