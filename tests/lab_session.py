"""One session with the lab that its tests share: two clients, over stdio and over HTTP, and what they were told.

A law is discovered on a CSV through tools alone. The session is held once for all workers of a test run, and its
answers are kept as JSON beside the run that it made.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import numpy as np
import pytest
from mcp import Client
from server_process import Served, http_client, served, stdio

MODULE = "agentlab.tools.lab"
TRUE = "E + A/N**a"
ROWS = {"data": "sweep.csv", "target": "loss", "features": "N", "monotone": "N:-"}
SEARCH = {"candidates": 4000, "holdout": "N > 1e10", "workers": 1}
KEY = "the sweep of the lab's tests"
POINTS = {"N": [3.3e7, 2.2e9, 5.1e11]}


@dataclass(frozen=True)
class Session:
    """The folder that the servers could read, the run that was made there, and every answer by client and step."""

    root: Path
    answers: Mapping[str, Mapping[str, Any]]

    @property
    def run(self) -> str:
        return str(self.answers["http"]["start"]["run"])

    @property
    def folder(self) -> Path:
        return self.root / "runs" / self.run

    def both(self, step: str) -> list[Any]:
        """What each client was told at a step."""
        return [self.answers[name][step] for name in ("stdio", "http")]


def environment_of(root: Path) -> dict[str, str]:
    """What makes a server read below `root`, and keep everything else of its own there too."""
    named = {"AGENTLAB_MCP_ROOTS": root, "AGENTLAB_MCP_RUNS": root / "runs", "AGENTLAB_JOBS": root / "jobs"}
    return {k: str(v) for k, v in (named | {"XDG_CACHE_HOME": root / "cache", "AGENTLAB_DATA": root / "data"}).items()}


def write_sweep(path: Path, n: int = 16) -> None:
    """Runs over N that scatter by 1% around 1.7 + 400/N^.34."""
    rng = np.random.default_rng(3)
    sizes = np.geomspace(1e7, 3e10, n)
    losses = 1.7 + 400 * sizes**-0.34 * (1 + 0.01 * rng.standard_normal(n))
    path.write_text(
        "N,loss\n" + "".join(f"{float(a):.9g},{float(b):.9g}\n" for a, b in zip(sizes, losses, strict=True))
    )


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    """The structured answer of a tool, asked again while it says that it is under way; a refusal is its text."""
    with anyio.fail_after(240):
        while True:
            reply = await client.call_tool(tool, arguments)
            if reply.is_error:
                return getattr(reply.content[0], "text", "")
            found: Any = reply.structured_content
            if tool == "run_get" or found.get("state") != "running":
                return found


async def discover(client: Client, other: Client, *, stops: bool) -> dict[str, Any]:
    """A law from the file by tools alone: start, follow, judge, predict, plan; one of the clients stops the search."""
    told: dict[str, Any] = {"tasks": await ask(client, "tasks_list")}
    told["start"] = await ask(client, "discover_start", rows=ROWS, search=SEARCH, idempotency_key=KEY, max_minutes=20)
    run, cursor, stopped = told["start"]["run"], 0, False
    states: list[Any] = []
    with anyio.fail_after(240):
        while True:
            state = await ask(client, "run_get", run=run, cursor=cursor, wait_s=5)
            cursor, states = state["cursor"], [*states, state]
            if state["state"] not in ("starting", "running", "stopping"):
                break
            if stops and not stopped and state["best"] is not None:
                told["stop"] = await ask(other, "run_stop", run=run)
                stopped = True
    told |= {"states": states, "done": state}
    told["predict"] = await ask(client, "law_predict", run=run, points=POINTS, by="law")
    told["fit"] = await ask(client, "law_fit", law=TRUE, rows=ROWS)
    return told


async def hold(server: Served, root: Path) -> dict[str, Any]:
    """Both clients at once, each starting with the same key; and what HTTP says without the right token."""
    answers: dict[str, Any] = {}

    async def one(name: str, client: Client, other: Client) -> None:
        answers[name] = await discover(client, other, stops=name == "http")

    async with (
        Client(stdio(MODULE, environment_of(root))) as first,
        http_client(server) as second,
        anyio.create_task_group() as group,
    ):
        group.start_soon(one, "stdio", first, second)
        group.start_soon(one, "http", second, first)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient() as open_client:
        for name, headers in (("no token", {}), ("wrong token", {"Authorization": f"Bearer {server.token[:-1]}x"})):
            reply = await open_client.post(server.url, json=body, headers=accept | headers)
            answers[name] = {"status": reply.status_code, "text": reply.text}
    return answers


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Session:
    """The session, held by the first worker that needs it."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "lab-session"
    root.mkdir(exist_ok=True)
    with (root.parent / "lab-session.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = root / "answers.json"
        if not kept.exists():
            write_sweep(root / "sweep.csv")
            with served(MODULE, env=environment_of(root)) as server:
                answers = anyio.run(hold, server, root)
            kept.write_text(json.dumps(answers))
    return Session(root, json.loads(kept.read_text()))
