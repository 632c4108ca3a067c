"""A tool call as a node of a cluster carries it out: the server's own code, in memory, on rows that came along."""

from __future__ import annotations

import asyncio
import faulthandler
import hashlib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from agentlab.tools._ray_node import folder, one_thread, refuse_others
from mcp import Client

SERVERS = ("fit", "program")
"""Servers whose tools only read the rows of a run, and so may run on any node."""
FILES = ("task.json", "rows.npz", "sample.npz")
"""What they read of a run folder; the sealed rows stay where they are."""
LONGEST = 600
"""Seconds that a call may take, as for a server of this machine; then its process ends."""


class Told(TypedDict):
    """What a tool answers, or the line by which it refuses."""

    answer: dict[str, Any] | None
    refused: str


def read_files(run: Path) -> dict[str, bytes]:
    """What travels of a run folder."""
    return {name: (run / name).read_bytes() for name in FILES if (run / name).is_file()}


def call_tool(files: Mapping[str, bytes], tool: str, arguments: Mapping[str, Any], same: Mapping[str, str]) -> Told:
    """Calls "fit.laws" and the like with those files as the run folder.

    Raises:
        BackendError: this node has other versions than `same`.
    """
    one_thread()
    refuse_others(same)
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    try:
        digest = hashlib.sha256(b"".join(name.encode() + data for name, data in sorted(files.items()))).hexdigest()
        with folder(digest[:16]) as run:
            for name, data in files.items():
                (run / name).write_bytes(data)
                # Same name, same date: what a server prepared of these rows serves its later calls in this process.
                os.utime(run / name, ns=(0, int(digest[:12], 16)))
            return asyncio.run(_ask(tool, {**arguments, "data": str(run)}))
    finally:
        faulthandler.cancel_dump_traceback_later()


async def _ask(tool: str, arguments: dict[str, Any]) -> Told:
    server, _, method = tool.partition(".")
    module = importlib.import_module(f"agentlab.tools.{server}")
    async with Client(module.server) as client:
        found = await client.call_tool(method, arguments)
    if found.is_error:
        text = " ".join(getattr(part, "text", "") for part in found.content)
        return Told(answer=None, refused=" ".join(text.removeprefix(f"Error executing tool {method}: ").split()))
    return Told(answer=dict(found.structured_content or {}), refused="")
