"""The live view of a real run: what a page shows at its end is what the trace says, with fifty viewers looking on."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browsers import browsing, watching
from conftest import Need
from playwright.sync_api import expect
from starlette.testclient import TestClient
from web_runs import write_run

from agentlab.errors import BackendError
from agentlab.web.feed import Feed, event
from agentlab.web.live import HOST, Stream, app, serve

VIEWERS = 50
DEADLINE = 240.0
BOARD: dict[str, Any] = {"rows": [], "missing": ""}
VIEW = "import typer; from agentlab.cli_view import view; typer.run(view)"
DISCOVER = "from agentlab.cli import main; main()"


@contextmanager
def started(*argv: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process, which ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", *argv], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@dataclass(frozen=True)
class Event:
    """A server-sent event; `line` is None where it has no number."""

    kind: str
    data: Any
    line: int | None


async def events(address: str, path: str, after: int = 0) -> AsyncIterator[Event]:
    """The events of a feed beyond a line, as a browser would read them after its connection broke there."""
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nLast-Event-ID: {after}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        told: dict[str, str] = {}
        async for raw in reader:
            line = raw.decode().strip()
            if not line and "event" in told:
                number = int(told["id"]) if "id" in told else None
                yield Event(told["event"], json.loads(told["data"]), number)
                told = {}
            elif ": " in line:
                name, value = line.split(": ", 1)
                told[name] = value
    finally:
        writer.close()


async def read_to(address: str, last: str, after: int = 0, most: int | None = None) -> list[Event]:
    """Events up to the first of that kind of record, or so many."""
    found = []
    async for it in events(address, "/events/0", after):
        found.append(it)
        if (it.kind == "record" and it.data["kind"] == last) or len(found) == most:
            break
    return found


async def audience(address: str) -> list[list[Event]]:
    """What so many viewers read of a run, from its first line to its law; one of them breaks off and comes back."""

    async def faithless() -> list[Event]:
        first = await read_to(address, "law", most=3)
        return first + await read_to(address, "law", after=first[-1].line or 0)

    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(faithless(), *(read_to(address, "law") for _ in range(VIEWERS - 1)))


def wait_for(path: Path, process: subprocess.Popen[str]) -> Path:
    """The settings of the first run under `path`, as soon as they are there."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = next(path.glob("*/config.json"), None)
        if found is not None:
            return found
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
    raise AssertionError(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen rows of a power law with a floor (made up)."""
    path = tmp_path_factory.mktemp("live") / "rows.csv"
    rows = [(n := 10 ** (6 + i / 4), 1.7 + 400 / n**0.34 * (1 + 0.01 * (-1) ** i)) for i in range(16)]
    path.write_text("n,loss\n" + "".join(f"{n:.6g},{y:.6g}\n" for n, y in rows), encoding="utf-8")
    return path


def test_the_page_of_a_real_run_ends_with_the_law_of_its_trace_while_fifty_look_on(need: Need, table: Path) -> None:
    words = ["discover", "data=rows.csv", "target=loss", "features=n", "budget.candidates=24", "window=8"]
    chromium = need("chromium", "chromium")
    with started(DISCOVER, *words, "workers=1", "--json", cwd=table.parent) as run, browsing(chromium) as browser:
        folder = wait_for(table.parent / "runs", run).parent
        with (
            started(VIEW, str(folder), "--live", "--json", "--board", "sqlite:///b.sqlite", cwd=table.parent) as server,
            watching(browser) as it,
        ):
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["address"]
            assert address.startswith(f"http://{HOST}:")
            it.page.goto(address)
            assert it.text("#state") == "still going"
            it.page.evaluate("window.opened = true")
            with ThreadPoolExecutor(1) as apart:  # the browser has a loop of its own here
                seen = apart.submit(asyncio.run, audience(address)).result()
            out, errors = run.communicate(timeout=DEADLINE)
            assert run.returncode == 0, errors
            lines = (folder / "trace.jsonl").read_text().splitlines()
            law = next(r for r in map(json.loads, lines) if r["kind"] == "law")
            expect(it.page.locator("#state")).to_have_text("done", timeout=60_000)
            expect(it.page.locator("#law-text")).to_have_text(law["formula"], timeout=60_000)
            assert json.loads(out.splitlines()[-1])["law"]["formula"] == law["formula"]
            assert f"{sum(json.loads(x)['kind'] == 'entry' for x in lines)} candidates" in it.text("#progress")
            assert it.page.evaluate("window.opened"), "the page was loaded anew"
            assert all(a.startswith((address, "data:", "blob:")) for a in it.asked)
            place = next(i for i, x in enumerate(lines, start=1) if json.loads(x) == law)
            for told in seen:
                assert [e.line for e in told if e.line is not None] == list(range(1, place + 1))
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=30) in (0, 130, -signal.SIGINT)


# ---- the feed by itself ----


async def taken(feed: Feed, after: int, count: int) -> list[bytes]:
    """So many pieces of what a viewer is sent."""
    found = []
    async for piece in feed.events(after):
        found.append(piece)
        if len(found) == count:
            break
    return found


async def with_feed(folder: Path, body: Any) -> None:
    feed = Feed(folder, poll=0.01)
    following = asyncio.create_task(feed.follow())
    try:
        async with asyncio.timeout(30):
            await body(feed)
    finally:
        following.cancel()


def test_a_viewer_that_does_not_read_holds_nobody_up_and_misses_nothing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 500, done=False)

    async def body(feed: Feed) -> None:
        slow = feed.events(0)
        first = await anext(slow)
        quick = await taken(feed, 0, 4)
        assert first == quick[0]
        assert sum(piece.count(b"\nid: ") + piece.startswith(b"id: ") for piece in quick[1:]) == 509
        assert [await anext(slow) for _ in range(3)] == quick[1:]

    asyncio.run(with_feed(folder, body))


def test_a_viewer_of_a_run_in_rounds_hears_of_what_its_searches_write(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 10, done=False)
    below = write_run(folder / "rounds" / "00", 10, done=False) / "trace.jsonl"

    async def body(feed: Feed) -> None:
        viewer = feed.events(19)  # all lines that there are, asked for before the feed has read any
        await anext(viewer)
        pieces = [await anext(viewer)]
        with below.open("ab") as file:
            file.write(b'{"kind":"turn"}\n')
        pieces.append(await anext(viewer))
        assert pieces == [b'event: record\ndata: {"kind":"round under way"}\n\n'] * 2

    asyncio.run(with_feed(folder, body))


def test_a_viewer_is_told_to_begin_again_where_lines_are_gone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 30, done=False)
    path = folder / "trace.jsonl"

    async def body(feed: Feed) -> None:
        viewer = feed.events(0)
        await anext(viewer)
        await anext(viewer)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:20]))
        assert b"event: again" in await anext(viewer)
        assert b"event: again" in (await taken(feed, 39, 2))[1]

    asyncio.run(with_feed(folder, body))


def test_a_viewer_that_takes_nothing_is_cut_off() -> None:
    sent: list[str] = []

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b": x\n\n"

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if len(sent) == 3:
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def serve() -> None:
        async with asyncio.timeout(30):
            await Stream(pieces(), patience=0.05)({"type": "http"}, receive, send)

    asyncio.run(serve())
    assert len(sent) == 3


def test_only_this_machine_is_answered(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 12, done=False)
    with TestClient(app([folder], BOARD), base_url=f"http://{HOST}") as client:
        found = client.get("/")
        assert found.status_code == 200
        assert "connect-src 'self'" in found.text
        assert client.get("/run/0").json()["id"] == "run"
        assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400


def test_prompts_are_followed_as_they_are_told() -> None:
    assert event({"kind": "sent", "call": 1}, 7) == b"id: 7\nevent: passed\ndata: {}\n\n"
    assert b'"kind":"law"' in event({"kind": "law", "formula": "E"}, 8)


def test_a_port_that_is_taken_gets_one_line(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BackendError, match=rf"port {port} cannot be had .*--port"):
            serve([tmp_path], BOARD, port, lambda _: None, browser=False)
