"""Tool servers over stdio and HTTP: who is let in, and what works through both."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from agentlab.tools._http import MAX_BODY, Listening, bind
from agentlab.tools._server import hints
from mcp import Client, MCPError
from server_process import Served, environment, http_client, served, stdio

from agentlab import __version__
from agentlab.errors import BackendError

PING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/list",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    },
}
HEADERS = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/list",
}

ANYWHERE = "0.0.0.0"  # noqa: S104 -- the test says what must be refused


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The small server over HTTP."""
    with served("small_server", env={"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}) as found:
        yield found


def ask(server: Served, **headers: str | bytes) -> httpx2.Response:
    """A request made by hand, with the token unless another is given."""
    given: dict[str, str | bytes] = {**HEADERS, "Authorization": f"Bearer {server.token}", **headers}
    return httpx2.post(
        server.url,
        json=PING,
        headers={k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in given.items() if v},
        timeout=30,
    )


# ---- who is let in ----


def test_the_right_token_is_let_in(server: Served) -> None:
    answer = ask(server)
    assert answer.status_code == 200
    assert {tool["name"] for tool in answer.json()["result"]["tools"]} >= {"add", "steps"}


@pytest.mark.parametrize("wrong", [b"", b"Bearer", b"Bearer wrong", b"Bearer \xe9\xff", b"Basic dXNlcjpwYXNz"])
def test_a_request_without_the_right_token_gets_401(server: Served, wrong: bytes) -> None:
    answer = ask(server, Authorization=wrong)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "tools" not in answer.text


def test_no_part_of_the_token_is_enough(server: Served) -> None:
    for wrong in (server.token[:-1], server.token + "x", server.token.swapcase()):
        assert ask(server, Authorization=f"Bearer {wrong}").status_code == 401


def test_no_other_path_answers_without_the_token(server: Served) -> None:
    for path in ("/", "/mcp/", "/sse", "/.well-known/oauth-protected-resource", "/docs"):
        assert httpx2.get(server.origin + path, timeout=30).status_code in (401, 404)


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example.com:{port}"])
def test_a_host_that_is_not_ours_gets_421(server: Served, host: str) -> None:
    assert ask(server, Host=host.format(port=server.origin.rpartition(":")[2])).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example.com", "null", "http://127.0.0.1:1", "file://"])
def test_an_origin_that_is_not_ours_gets_403(server: Served, origin: str) -> None:
    assert ask(server, Origin=origin).status_code == 403


def test_our_own_names_are_let_in(server: Served) -> None:
    port = server.origin.rpartition(":")[2]
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert ask(server, Host=name, Origin=f"http://{name}").status_code == 200


def test_a_request_too_long_gets_413(server: Served) -> None:
    headers = HEADERS | {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    answer = httpx2.post(server.url, content=b" " * (MAX_BODY + 1), headers=headers, timeout=60)
    assert answer.status_code == 413


def test_the_server_listens_on_this_machine_only(server: Served) -> None:
    port = int(server.origin.rpartition(":")[2])
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    listening = [line[1] for line in lines if line[3] == "0A" and int(line[1].rpartition(":")[2], 16) == port]
    assert listening == [f"0100007F:{port:04X}"]


def test_the_token_lies_where_only_its_owner_reads_it_and_goes_with_the_server(tmp_path: Path) -> None:
    with served("small_server", env={"XDG_CACHE_HOME": str(tmp_path)}) as found:
        file = found.token_file
        assert file is not None
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert len(found.token) >= 32
        assert found.token.encode() not in Path("/proc", str(found.process.pid), "cmdline").read_bytes()
    assert found.process.returncode == 0
    assert not file.exists()


def test_a_token_may_be_given_and_is_written_nowhere(tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path), "AGENTLAB_TOKEN": "a-token-of-our-own"}
    with served("small_server", env=env) as found:
        assert found.token_file is None
        assert ask(found).status_code == 200
        assert not list(tmp_path.rglob("*"))


def refused(*args: str, **env: str) -> str:
    """The one line with which a server refuses to start."""
    argv = [sys.executable, "-m", "small_server", *args]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(env), timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr.strip().splitlines()[-1]


def test_what_cannot_be_served_is_told_in_one_line() -> None:
    assert "AGENTLAB_TOKEN has 5 characters; give at least 16" in refused("--http", "0", AGENTLAB_TOKEN="short")  # noqa: S106
    assert "--http PORT" in refused("--host", ANYWHERE)
    assert "invalid" in refused("--http", "70000")
    with bind(Listening()) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in refused("--http", port)
    with pytest.raises(BackendError, match=r"cannot listen on 203\.0\.113\.7"):
        bind(Listening("203.0.113.7"))


def test_a_wider_address_warns_and_lets_in_only_the_names_it_was_given(tmp_path: Path) -> None:
    args = ["--http", "0", "--host", ANYWHERE, "--allow-host", "lab.example.org"]
    with served("small_server", args, {"XDG_CACHE_HOME": str(tmp_path)}) as found:
        port = found.origin.rpartition(":")[2]
        here = Served(f"http://127.0.0.1:{port}/mcp", found.token, found.process)
        assert ask(here, Host="lab.example.org", Origin="https://lab.example.org").status_code == 200
        assert ask(here, Host=f"lab.example.org:{port}").status_code == 200
        assert ask(here, Host="other.example.org").status_code == 421
        assert ask(here, Authorization="", Host="lab.example.org").status_code == 401


# ---- what works through both ----

Open = Callable[[], AbstractAsyncContextManager[Client]]


@pytest.fixture(params=["stdio", "http"])
def opened(request: pytest.FixtureRequest, server: Served) -> Open:
    """A way to a client, over stdio and over HTTP."""
    if request.param == "http":
        return lambda: http_client(server)

    @asynccontextmanager
    async def over_stdio() -> AsyncIterator[Client]:
        async with Client(stdio("small_server")) as client:
            yield client

    return over_stdio


def use(opened: Open, work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with opened() as client:
            return await work(client)

    return anyio.run(main)


def test_a_tool_answers_and_the_server_says_what_it_is(opened: Open) -> None:
    async def work(client: Client) -> None:
        result = await client.call_tool("add", {"a": 2, "b": 3})
        assert result.structured_content == {"result": 5}
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("small", __version__)

    use(opened, work)


def test_a_refusal_is_told_and_a_bug_is_not(opened: Open) -> None:
    async def work(client: Client) -> None:
        refusal = await client.call_tool("refuse", {"why": "no such file: give another"})
        bug = await client.call_tool("crash", {})
        assert refusal.is_error
        assert "no such file: give another" in str(refusal.content)
        assert bug.is_error
        assert "secret" not in str(bug.content)

    use(opened, work)


def test_progress_arrives_in_order(opened: Open) -> None:
    async def work(client: Client) -> list[float]:
        seen: list[float] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        await client.call_tool("steps", {"count": 20}, progress_callback=note)
        return seen

    seen = use(opened, work)
    assert seen == sorted(seen)
    assert seen[-1] == 20


def test_leaving_a_call_cancels_its_handler(opened: Open) -> None:
    async def work(client: Client) -> list[str]:
        with anyio.CancelScope() as scope:

            async def begun(progress: float, total: float | None, message: str | None) -> None:
                scope.cancel()

            await client.call_tool("endless", {"name": "left"}, progress_callback=begun)
        assert scope.cancelled_caught
        names: list[str] = ((await client.call_tool("ended", {})).structured_content or {})["result"]
        return names

    assert "left" in use(opened, work)


def test_a_short_answer_is_sent_at_once() -> None:
    """Unless the socket names its protocol, asyncio leaves Nagle's algorithm on, and every answer waits 40 ms."""
    with bind(Listening()) as sock:
        assert sock.proto == socket.IPPROTO_TCP


def test_a_hundred_clients_at_once_lose_nothing(server: Served) -> None:
    answers: dict[tuple[int, int], int] = {}

    async def one(number: int) -> None:
        async with http_client(server) as client:
            for turn in range(3):
                result = await client.call_tool("add", {"a": number, "b": turn})
                answers[number, turn] = (result.structured_content or {})["result"]

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)

    anyio.run(main)
    assert answers == {(number, turn): number + turn for number in range(100) for turn in range(3)}


def test_a_client_of_the_older_protocol_is_served_too(server: Served) -> None:
    async def work() -> Any:
        async with http_client(server, mode="legacy") as client:
            return client.protocol_version, (await client.call_tool("add", {"a": 1, "b": 1})).structured_content

    version, answer = anyio.run(work)
    assert version == "2025-11-25"
    assert answer == {"result": 2}


def test_a_server_told_to_stop_ends_the_calls_in_progress(tmp_path: Path) -> None:
    with served("small_server", env={"XDG_CACHE_HOME": str(tmp_path)}) as found:

        async def main() -> None:
            async with http_client(found) as client:

                async def begun(progress: float, total: float | None, message: str | None) -> None:
                    found.process.terminate()

                with pytest.raises(MCPError):
                    await client.call_tool("endless", {"name": "stopped"}, progress_callback=begun)

        anyio.run(main)
        assert found.process.wait(60) == 0


def test_the_four_hints_are_always_set() -> None:
    for given in ({}, {"reads": True}, {"destroys": True}, {"repeats": True, "outside": True}):
        told = hints(**given).model_dump(exclude={"title"})
        assert all(isinstance(value, bool) for value in told.values())
        assert len(told) == 4
    assert hints(reads=True).idempotent_hint
