"""How a tool server is made and run: one factory, the four hints, and `serve` over stdio or HTTP.

The sync tools of a server run in worker threads, 40 side by side, and cannot be stopped half-way: what may last is
`async` and waits, or is a job that outlives its call (agentlab.tools._jobs).
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentlab.tools._http import LOOPBACK, Listening, serve_http
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.extension import Extension
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import INVALID_PARAMS, CallToolResult, GetPromptResult, InputRequiredResult, ToolAnnotations
from pydantic import ValidationError

from agentlab import __version__
from agentlab.errors import AgentlabError, nearest


class _Server(MCPServer[Any]):
    """The SDK's server, but wrong arguments are refused in one line, and none is ignored for its name."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool. Raises ToolError for one that there is not, and for arguments that it does not take."""
        schemas = {tool.name: tool.input_schema for tool in await self.list_tools()}
        if name not in schemas:
            raise ToolError(f"no tool {name!r}; {nearest(name, schemas)}")
        schema = schemas[name]
        if stray := _stray(arguments, schema["properties"]):
            raise ToolError(f"{name}: {stray}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(f"{name}: {_faults(error.__cause__, schema)}") from error.__cause__
            raise

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[Any, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        """Fill in a prompt. Raises MCPError for one that there is not, and for arguments that it lacks."""
        prompts = {prompt.name: prompt for prompt in await self.list_prompts()}
        if name not in prompts:
            raise MCPError(INVALID_PARAMS, f"no prompt {name!r}; {nearest(name, prompts)}")
        taken = {argument.name: bool(argument.required) for argument in prompts[name].arguments or ()}
        given = arguments or {}
        if stray := _stray(given, taken):
            raise MCPError(INVALID_PARAMS, f"{name}: {stray}")
        if missing := [key for key, required in taken.items() if required and key not in given]:
            raise MCPError(INVALID_PARAMS, f"{name}: {', '.join(missing)} missing")
        return await super().get_prompt(name, arguments, context)


def _stray(given: Mapping[str, Any], taken: Mapping[str, Any]) -> str:
    """What is wrong with the first argument that is not taken, "" where all are."""
    return next((f"no argument {key!r}; {nearest(key, taken)}" for key in given if key not in taken), "")


def _faults(error: ValidationError, schema: Mapping[str, Any]) -> str:
    """What is wrong with which argument, in one line without the address of a manual."""
    told = []
    for fault in error.errors(include_url=False):
        *_, last = fault["loc"]
        key, text = ".".join(str(part) for part in fault["loc"]), fault["msg"]
        if fault["type"] == "missing":
            told.append(f"{key} is missing")
        elif fault["type"] == "extra_forbidden":
            told.append(f"no argument {key!r}; {nearest(str(last), _names(schema))}")
        else:
            told.append(f"{key} = {fault['input']!r:.80}: {text[0].lower()}{text[1:]}")
    return " ".join("; ".join(told).split())


def _names(schema: Mapping[str, Any]) -> Iterator[str]:
    """Names of the arguments and of everything inside them."""
    yield from schema.get("properties", ())
    for inner in schema.get("$defs", {}).values():
        yield from inner.get("properties", ())


def tool_server(name: str, instructions: str, *, extensions: Sequence[Extension] = ()) -> MCPServer[Any]:
    """A server that has no tools yet; declare it `server: MCPServer[Any]`, so that its decorators keep their types.

    A refusal (`ToolError`) is told to the caller, who prints it; the server itself logs warnings, to stderr.
    """
    return _Server(
        name,
        instructions=instructions,
        version=__version__,
        extensions=list(extensions),
        log_level="WARNING",
    )


def hints(
    *, reads: bool = False, destroys: bool = False, repeats: bool = False, outside: bool = False
) -> ToolAnnotations:
    """All four hints of a tool, none left to a client's guess.

    Args:
        reads: it changes nothing; such a tool may always be repeated.
        destroys: it may take away what was there.
        repeats: calling it again with the same arguments changes nothing more.
        outside: it speaks with what lies beyond this machine.
    """
    return ToolAnnotations(
        read_only_hint=reads,
        destructive_hint=destroys,
        idempotent_hint=repeats or reads,
        open_world_hint=outside,
    )


def serve(server: MCPServer[Any], argv: Sequence[str] | None = None) -> None:
    """Run a tool file: over stdio, or with `--http PORT` over streamable HTTP until SIGTERM or Ctrl-C.

    Over HTTP the first line of stdout is JSON: `url`, and `token_file`, a file only its owner reads (null where
    $AGENTLAB_TOKEN gave the token). A wrong argument ends the process with code 2 and one line.
    """
    parser = argparse.ArgumentParser(description=f"The tool server {server.name!r}; without arguments, over stdio.")
    parser.add_argument("--http", type=_port, metavar="PORT", help="streamable HTTP on this port; 0 takes a free one")
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (%(default)s: this machine only)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that clients call this server by, beside the address itself; may be given again",
    )
    given = parser.parse_args(argv)
    plain_log()
    if given.http is None:
        if given.host != LOOPBACK or given.allow_host:
            parser.error("--host and --allow-host go with --http PORT")
        server.run("stdio")
        return
    try:
        serve_http(server, Listening(given.host, given.http, tuple(given.allow_host)), os.environ)
    except AgentlabError as error:
        parser.exit(2, f"{error}\n")


def plain_log() -> None:
    """Log to stderr in plain lines. The SDK draws tracebacks with rich: a second each, in which no call is served."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65536:
        raise ValueError(text)
    return port
