"""A user's mistake, told by a tool in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mcp.server.mcpserver.exceptions import ToolError

from agentlab.errors import AgentlabError


@contextmanager
def refusals() -> Iterator[None]:
    """Every AgentlabError inside becomes a ToolError: the one kind whose text a client is shown."""
    try:
        yield
    except AgentlabError as error:
        raise ToolError(str(error)) from error
