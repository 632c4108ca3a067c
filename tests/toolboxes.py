"""What the tests of the MCP client share: toolboxes that stay open, and the processes of their servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentlab.toolbox import Toolbox

Use = Callable[[Callable[[Toolbox], Coroutine[Any, Any, Any]]], Any]
"""Runs a test's work with a toolbox whose servers the tests of this file share: a start takes a second."""


@contextmanager
def shared(toolbox: Toolbox) -> Iterator[Use]:
    """Open for as long as the block lasts."""
    with asyncio.Runner() as runner:
        runner.run(toolbox.__aenter__())
        yield lambda work: runner.run(work(toolbox))
        runner.run(toolbox.__aexit__(None, None, None))


def children(module: str) -> list[int]:
    """Process ids of this process's servers of a module."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (folder / "status").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue
        if f"PPid:\t{os.getpid()}\n" in status and module in command:
            found.append(int(folder.name))
    return found
