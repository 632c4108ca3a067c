"""What the scenarios of the handshake era ask for: logging, sampling and forms while a call runs, subscriptions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import (
    CallToolResult,
    EmptyResult,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field


class Person(BaseModel):
    """A form with two fields that must be filled in."""

    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    """A form whose fields are all filled in."""

    name: str = Field(default="John Doe")
    age: int = 30
    score: float = 95.5
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = True


def _titled(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": const, "title": title} for const, title in pairs]


class Choices(BaseModel):
    """A form of choices, in the five ways a schema can say so."""

    untitledSingle: Annotated[str, Field(json_schema_extra={"enum": ["option1", "option2", "option3"]})]  # noqa: N815
    titledSingle: Annotated[  # noqa: N815 -- the scenario's names
        str, Field(json_schema_extra={"oneOf": _titled(("value1", "First"), ("value2", "Second"))})
    ]
    legacyEnum: Annotated[  # noqa: N815
        str, Field(json_schema_extra={"enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]})
    ]
    untitledMulti: Annotated[  # noqa: N815
        list[str], Field(json_schema_extra={"items": {"type": "string", "enum": ["option1", "option2"]}})
    ]
    titledMulti: Annotated[  # noqa: N815
        list[str],
        Field(json_schema_extra={"items": {"anyOf": _titled(("value1", "First"), ("value2", "Second"))}}),
    ]


async def _ask(ctx: Context[Any], message: str, form: type[BaseModel]) -> CallToolResult:
    answer = await ctx.elicit(message, form)
    content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
    text = f"Elicitation completed: action={answer.action}, content={content}"
    return CallToolResult(content=[TextContent(type="text", text=text)])


async def test_elicitation(message: str, ctx: Context[Any]) -> CallToolResult:
    """Asks the user for a name and an address."""
    return await _ask(ctx, message, Person)


async def test_elicitation_sep1034_defaults(ctx: Context[Any]) -> CallToolResult:
    """Asks with a form that has defaults."""
    return await _ask(ctx, "Please look these over", Defaults)


async def test_elicitation_sep1330_enums(ctx: Context[Any]) -> CallToolResult:
    """Asks with a form that has every kind of choice."""
    return await _ask(ctx, "Please choose", Choices)


async def test_sampling(prompt: str, ctx: Context[Any]) -> str:
    """Has the client's model answer."""
    asked = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    # Asked on this call's own stream: the client may not have opened the one that belongs to none.
    answer = await ctx.session.create_message(messages=[asked], max_tokens=100, related_request_id=ctx.request_id)
    return f"LLM response: {getattr(answer.content, 'text', '')}"


async def test_tool_with_logging(ctx: Context[Any]) -> str:
    """Logs three lines."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(line)
        await anyio.sleep(0.05)
    return "done"


async def test_logging_tool(ctx: Context[Any]) -> str:
    """Logs one line."""
    await ctx.info("a line")
    return "done"


async def test_reconnection(ctx: Context[Any]) -> str:
    """Closes its stream, as a server does that wants its client to come back later."""
    await ctx.close_sse_stream()
    return "Reconnection test completed"


async def _nothing(_ctx: object, _params: object) -> EmptyResult:
    return EmptyResult()


TOOLS = (
    test_elicitation,
    test_elicitation_sep1034_defaults,
    test_elicitation_sep1330_enums,
    test_sampling,
    test_tool_with_logging,
    test_logging_tool,
    test_reconnection,
)
Handled = Literal["logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
HANDLED: dict[Handled, Any] = {
    "logging/setLevel": SetLevelRequestParams,
    "resources/subscribe": SubscribeRequestParams,
    "resources/unsubscribe": UnsubscribeRequestParams,
}


def add_to(server: MCPServer[Any]) -> None:
    """Give a server these tools, and the methods that only the handshake era has."""
    for tool in TOOLS:
        server.add_tool(tool)
    for method, params in HANDLED.items():
        server._lowlevel_server.add_request_handler(method, params, _nothing)
