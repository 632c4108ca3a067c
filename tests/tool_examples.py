"""Tools that the tests of finding tools share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from conftest import CHECKOUT

from agentlab.tool_index import ToolIndex
from agentlab.tool_records import Tool

FIT = Tool("fit", "fitLaw", "Fit one formula to the rows of a run.", {"properties": {"formula": {"type": "string"}}})
ERASE = Tool("disk", "erase_folder", "Remove a folder for good.", {"properties": {"folder": {}}})
MAIL = Tool("mail", "send", "Send a letter to somebody.", {"properties": {"to": {"description": "Address."}}})


def by_server(tools: Sequence[Tool]) -> dict[str, list[Tool]]:
    """As servers list them."""
    listed: dict[str, list[Tool]] = {}
    for tool in tools:
        listed.setdefault(tool.server, []).append(tool)
    return listed


def built(tools: Sequence[Tool], path: Path | None = None) -> ToolIndex:
    """An index that was synchronised once."""
    index = ToolIndex(path)
    index.sync(by_server(tools))
    return index


def thousand() -> list[Tool]:
    """The made-up tools of bench/retrieval.py."""
    sys.path.insert(0, str(CHECKOUT / "bench"))
    try:
        from retrieval_tools import made_tools  # noqa: PLC0415 -- benchmarks are scripts beside the package
    finally:
        sys.path.remove(str(CHECKOUT / "bench"))
    return [made.tool for made in made_tools()]
