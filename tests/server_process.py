"""Tool servers over HTTP as processes of their own, and clients of them, for the tests."""

from __future__ import annotations

import functools
import json
import os
import select
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client import ClientExtension
from mcp.client.streamable_http import streamable_http_client

TESTS = Path(__file__).parent
PATIENCE = 60
"""Seconds a server may take to start or to stop on a busy machine; a test never waits for them to pass."""


@dataclass(frozen=True)
class Served:
    """A server that listens: its address, its token ("" where it asks for none), and its process."""

    url: str
    token: str
    process: subprocess.Popen[str]
    token_file: Path | None = None

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/mcp")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with the tests' folder where modules are looked for, and without a token of the user's."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    kept = {k: v for k, v in os.environ.items() if k != "AGENTLAB_TOKEN"}
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | dict(extra or {})


@contextmanager
def served(
    module: str, args: Sequence[str] = ("--http", "0"), env: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """`python -m module args` until the block is left; then it is told to stop, and must."""
    argv = [sys.executable, "-m", module, *args]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment(env))
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        assert ready, f"{module} says nothing"
        line = process.stdout.readline()
        assert line, f"{module} ended with {process.wait(PATIENCE)}"
        told = json.loads(line)
        file = Path(told["token_file"]) if told.get("token_file") else None
        token = file.read_text().strip() if file else (env or {}).get("AGENTLAB_TOKEN", "")
        yield Served(told["url"], token, process, file)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def stdio(module: str, env: Mapping[str, str] | None = None) -> StdioServerParameters:
    """The same server over stdio."""
    return StdioServerParameters(command=sys.executable, args=["-m", module], env=environment(env))


@functools.cache
def tls() -> ssl.SSLContext:
    """One for all clients, for it takes long to make."""
    return ssl.create_default_context()


@asynccontextmanager
async def http_client(
    server: Served, extensions: Sequence[ClientExtension] = (), **options: Any
) -> AsyncIterator[Client]:
    """A client with the server's token."""
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    timeout = httpx2.Timeout(30, read=300)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, verify=tls()) as http,
        Client(
            streamable_http_client(server.url, http_client=http), extensions=list(extensions) or None, **options
        ) as client,
    ):
        yield client
