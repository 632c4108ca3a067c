"""Round trips to a tool that does nothing, over stdio and HTTP: `python bench/serving.py [CALLS]`.

Bars: a median of 1.5 ms over stdio and of 3 ms over HTTP, and 100 clients at once without a lost call. A shared machine
moves these figures, so every repetition also calls a bare server of the SDK's, in turn with ours: the ratio of the two
is what our factory, its token and its checks cost.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from machine import RESULTS, about, save
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

PEER = str(Path(__file__).with_name("serving_peer.py"))
CALLS, WARM, REPEATS = 300, 30, 7
CLIENTS, EACH = 100, 20
BARS = {"stdio": 1.5, "http": 3.0}
"""Milliseconds, median."""
WAYS = [(which, how) for how in BARS for which in ("ours", "bare")]


@dataclass(frozen=True, slots=True)
class Address:
    """A server over HTTP: its URL, and its token ("" where it wants none)."""

    url: str
    token: str = ""


@contextmanager
def listening(which: str) -> Iterator[Address]:
    """A server process over HTTP until the block is left."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = 0 if which == "ours" else int(free.getsockname()[1])
    argv = [sys.executable, PEER, which, "--http", str(port)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        if which == "ours":
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Address(told["url"], Path(told["token_file"]).read_text().strip())
        else:
            wait_for(port)
            yield Address(f"http://127.0.0.1:{port}/mcp")
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port: int) -> None:
    """Wait until somebody listens on a port: the bare server does not say when it does."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nobody listens on port {port}")


@functools.cache
def tls() -> ssl.SSLContext:
    """One for all clients: making one takes 50 ms, which would be the most of what 100 clients do."""
    return ssl.create_default_context()


@asynccontextmanager
async def client_of(address: Address) -> AsyncIterator[Client]:
    """A client over HTTP with a connection of its own."""
    headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60, verify=tls()) as http,
        Client(streamable_http_client(address.url, http_client=http)) as client,
    ):
        yield client


async def trips(client: Client, tool: str, calls: int) -> list[float]:
    """Milliseconds of each of so many calls, one after the other; every answer is looked at."""
    times = []
    for number in range(-WARM, calls):
        start = time.perf_counter()
        result = await client.call_tool(tool, {"a": number, "b": 1})
        if number >= 0:
            times.append(1e3 * (time.perf_counter() - start))
        assert result.structured_content == {"result": number + 1}
    return times


async def at_once(address: Address) -> dict[str, float]:
    """CLIENTS clients at once, EACH calls by each: what was lost, and calls a second of the calling time."""
    right = 0
    ready, go = asyncio.Semaphore(0), asyncio.Event()

    async def one(number: int) -> None:
        nonlocal right
        async with client_of(address) as client:
            await client.call_tool("add", {"a": 0, "b": 0})
            ready.release()
            await go.wait()
            for turn in range(EACH):
                result = await client.call_tool("add", {"a": number, "b": turn})
                right += result.structured_content == {"result": number + turn}

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(CLIENTS)]
        for _ in tasks:
            await ready.acquire()
        start = time.perf_counter()
        go.set()
        await asyncio.gather(*tasks)
        seconds = time.perf_counter() - start
    return {"lost": CLIENTS * EACH - right, "calls_per_second": CLIENTS * EACH / seconds}


async def measure(calls: int, addresses: Mapping[str, Address]) -> dict[str, Any]:
    """Medians over the repetitions, in which the four ways take turns."""
    times: dict[str, list[list[float]]] = {}
    crowd: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    async with AsyncExitStack() as stack:
        clients: dict[tuple[str, str], Client] = {}
        for which, how in WAYS:
            argv = StdioServerParameters(command=sys.executable, args=[PEER, which])
            way = Client(argv) if how == "stdio" else client_of(addresses[which])
            clients[which, how] = await stack.enter_async_context(way)
        for _ in range(REPEATS):
            for (which, how), client in clients.items():
                for tool in ("add", "add_in_thread"):
                    times.setdefault(f"{which} {how} {tool}", []).append(await trips(client, tool, calls))
        for _ in range(3):
            for which, address in addresses.items():
                crowd[which].append(await at_once(address))
    return {"trips": {name: summary(runs) for name, runs in times.items()}, "ratios": ratios(times)} | {
        "clients": CLIENTS,
        "calls_each": EACH,
        "at_once": {
            which: {
                "lost": sum(int(run["lost"]) for run in runs),
                "calls_per_second": round(statistics.median(run["calls_per_second"] for run in runs), 1),
            }
            for which, runs in crowd.items()
        },
    }


def summary(runs: list[list[float]]) -> dict[str, float]:
    """Median over the repetitions of each repetition's median and 95th percentile; the quickest median, too."""
    medians = [statistics.median(run) for run in runs]
    tails = [sorted(run)[int(0.95 * len(run))] for run in runs]
    found = {"median": statistics.median(medians), "best": min(medians), "p95": statistics.median(tails)}
    return {name: round(value, 3) for name, value in found.items()}


def ratios(times: dict[str, list[list[float]]]) -> dict[str, float]:
    """Ours over bare: the median over the repetitions of the ratio of their medians."""
    found = {}
    for name, ours in times.items():
        which, _, rest = name.partition(" ")
        if which == "ours":
            pairs = zip(ours, times[f"bare {rest}"], strict=True)
            found[rest] = round(statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs), 3)
    return found


def markdown(result: dict[str, Any]) -> str:
    """The table for people."""
    machine = about()
    rows = []
    for how, bar in BARS.items():
        for tool, kind in (("add", "async"), ("add_in_thread", "in a thread")):
            ours, bare = (result["trips"][f"{which} {how} {tool}"] for which in ("ours", "bare"))
            rows.append(
                f"| {how} | {kind} | {ours['median']:.2f} | {ours['best']:.2f} | {ours['p95']:.2f} | {bar} | "
                f"{bare['median']:.2f} | {bare['best']:.2f} | {result['ratios'][f'{how} {tool}']:.2f} |"
            )
    crowd = [
        f"| {which} | {figures['lost']} | {figures['calls_per_second']:.0f} |"
        for which, figures in result["at_once"].items()
    ]
    about_all = (
        f"`python bench/serving.py`: {result['calls']} calls, {REPEATS} repetitions in turn, ms; medians of the "
        "repetitions' medians. best: the quickest repetition's median. bare: a server of the SDK's own without a "
        "token. ratio: ours over bare within a repetition. "
        f"{machine['processor']}, {machine['cores']} cores, load {result['load'][0]} before, {result['load'][1]} after."
    )
    head = "| way | tool | ours | best | p95 | bar | bare | best | ratio |\n|---|---|---|---|---|---|---|---|---|"
    at_once = f"{CLIENTS} clients at once over HTTP, {EACH} calls by each, three times:"
    crowd_head = "| server | lost | calls/s |\n|---|---|---|"
    parts = ["# Round trips to a tool that does nothing", about_all, "\n".join([head, *rows]), at_once]
    return "\n\n".join([*parts, "\n".join([crowd_head, *crowd])]) + "\n"


def main() -> None:
    """Run, print a table and a JSON line, keep both."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    before = round(os.getloadavg()[0], 2)
    with listening("ours") as ours, listening("bare") as bare:
        found = asyncio.run(measure(calls, {"ours": ours, "bare": bare}))
    result = {"bench": "mcp", "calls": calls, "repeats": REPEATS} | found
    result["load"] = [before, round(os.getloadavg()[0], 2)]
    text = markdown(result)
    print(text)
    print(json.dumps(result))
    save(result)
    (RESULTS / "mcp.md").write_text(text)


if __name__ == "__main__":
    main()
