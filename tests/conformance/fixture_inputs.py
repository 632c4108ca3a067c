"""Tools that end a call with questions, and go on when it comes again with the answers (SEP-2322)."""

from __future__ import annotations

from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
)

Answer = str | InputRequiredResult


def form(message: str, field: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(text: str, tokens: int) -> CreateMessageRequest:
    asked = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[asked], max_tokens=tokens))


def answered(ctx: Context[Any], key: str, field: str = "") -> Any:
    """The answer under a key; with `field`, that field of an accepted form; None where there is none."""
    answer = (ctx.input_responses or {}).get(key)
    if not field:
        return answer
    return (answer.content or {}).get(field) if isinstance(answer, ElicitResult) else None


NAME = form("What is your name?", "name")


async def test_input_required_result_elicitation(ctx: Context[Any]) -> Answer:
    """Asks for a name."""
    name = answered(ctx, "user_name", "name")
    return f"Hello, {name}!" if name else InputRequiredResult(input_requests={"user_name": NAME})


async def test_streaming_elicitation(ctx: Context[Any]) -> Answer:
    """The same, under the name of another scenario."""
    return await test_input_required_result_elicitation(ctx)


async def test_input_required_result_sampling(ctx: Context[Any]) -> Answer:
    """Asks the client's model."""
    answer = answered(ctx, "capital_question")
    if answer is None:
        return InputRequiredResult(input_requests={"capital_question": sample("What is the capital of France?", 100)})
    return str(getattr(answer.content, "text", answer.content))


async def test_input_required_result_list_roots(ctx: Context[Any]) -> Answer:
    """Asks for the client's roots."""
    answer = answered(ctx, "client_roots")
    if answer is None:
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
    return ", ".join(str(root.uri) for root in answer.roots)


async def test_input_required_result_request_state(ctx: Context[Any]) -> Answer:
    """Asks, and wants its state back."""
    if answered(ctx, "confirm", "ok") is None or ctx.request_state != "asked":
        confirm = form("Please confirm", "ok", "boolean")
        return InputRequiredResult(input_requests={"confirm": confirm}, request_state="asked")
    return "state-ok"


async def test_input_required_result_tampered_state(ctx: Context[Any]) -> Answer:
    """The same, under the name of another scenario; the SDK seals the state."""
    return await test_input_required_result_request_state(ctx)


async def test_input_required_result_multiple_inputs(ctx: Context[Any]) -> Answer:
    """Asks three things at once."""
    asks: dict[str, Any] = {
        "user_name": NAME,
        "greeting": sample("Generate a greeting", 50),
        "client_roots": ListRootsRequest(),
    }
    if any(answered(ctx, key) is None for key in asks):
        return InputRequiredResult(input_requests=asks, request_state="asked")
    return f"all three, {answered(ctx, 'user_name', 'name')}"


async def test_input_required_result_multi_round(ctx: Context[Any]) -> Answer:
    """Asks twice, one after the other."""
    if ctx.request_state == "second" and (color := answered(ctx, "step2", "color")):
        return f"your color is {color}"
    if ctx.request_state == "first" and answered(ctx, "step1", "name"):
        second = form("Step 2: What is your favorite color?", "color")
        return InputRequiredResult(input_requests={"step2": second}, request_state="second")
    first = form("Step 1: What is your name?", "name")
    return InputRequiredResult(input_requests={"step1": first}, request_state="first")


async def test_input_required_result_capabilities(ctx: Context[Any]) -> Answer:
    """Asks in every way that the client declared."""
    can = ctx.client_capabilities
    asks: dict[str, Any] = {}
    if can is not None and can.sampling is not None:
        asks["sample"] = sample("Say something", 50)
    if can is not None and can.elicitation is not None:
        asks["form"] = NAME
    return InputRequiredResult(input_requests=asks) if asks else "this client can be asked nothing"


async def test_input_required_result_prompt(ctx: Context[Any]) -> Answer:
    """A prompt that asks for its context."""
    context = answered(ctx, "user_context", "context")
    if context is None:
        ask = form("What context should the prompt use?", "context")
        return InputRequiredResult(input_requests={"user_context": ask})
    return f"Use this context: {context}"


TOOLS = (
    test_input_required_result_elicitation,
    test_streaming_elicitation,
    test_input_required_result_sampling,
    test_input_required_result_list_roots,
    test_input_required_result_request_state,
    test_input_required_result_tampered_state,
    test_input_required_result_multiple_inputs,
    test_input_required_result_multi_round,
    test_input_required_result_capabilities,
)


def add_to(server: MCPServer[Any]) -> None:
    """Give a server these tools and the prompt."""
    for tool in TOOLS:
        server.add_tool(tool)
    server.prompt()(test_input_required_result_prompt)
