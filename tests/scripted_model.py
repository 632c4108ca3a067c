"""A scripted model behind a real OpenAI-compatible server on loopback: a function answers, every token is counted.

It is no language model: what it says is written in the test that starts it. It keeps a receipt of each answered call,
cuts answers off at the limit it is given, streams where it is asked to, can wait, and can fail in many ways.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

_TOKEN = re.compile(r"\s*(?:\w{1,4}|[^\w\s])\s*")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the server saw it; `number` counts requests from 0, `key` is what stood behind "Bearer".

    What the request leaves out is taken to be what servers make of it; `body` is what it really held.
    """

    number: int
    model: str
    text: str
    temperature: float
    seed: int
    max_tokens: int
    key: str
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: a text after `delay` seconds, or an error of the protocol where `status` is not 200.

    `usage` False leaves the count out, as some servers do; `raw` is sent in place of a chat completion. `cached` tokens
    of the prompt count as cached. A stream breaks off after `pieces` of them, rudely or, where it is `polite`, as if
    that were all. With `drip` seconds after every byte, and `flood` blanks before it, an answer may never end.
    """

    text: str = ""
    delay: float = 0.0
    status: int = 200
    usage: bool = True
    raw: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cached: int = 0
    pieces: int | None = None
    polite: bool = False
    drip: float = 0.0
    flood: int = 0


class Receipt(NamedTuple):
    """What the server counted for one answered call."""

    tokens_in: int
    tokens_out: int


@dataclass
class Scripted:
    """A running server: where it is, and what came in and went out."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    busiest: int = 0
    under_way: int = 0

    @property
    def tokens(self) -> int:
        """All tokens it counted."""
        return sum(r.tokens_in + r.tokens_out for r in self.receipts)


def tokens(text: str) -> list[str]:
    """A toy tokeniser: up to four letters, or one other sign, with the blanks around it."""
    return _TOKEN.findall(text)


@contextmanager
def serving(answer: Callable[[Asked], str | Said], models: Sequence[str] = ("scripted",)) -> Iterator[Scripted]:
    """Serve `answer`, called once a request in the order they come in, until the block ends."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(256)
        scripted = Scripted(f"http://127.0.0.1:{sock.getsockname()[1]}/v1")

        async def complete(request: Request) -> Response:
            return await _complete(request, scripted, answer, models)

        app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
        config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield scripted
        finally:
            server.should_exit = True
            thread.join()


async def _complete(
    request: Request, scripted: Scripted, answer: Callable[[Asked], str | Said], models: Sequence[str]
) -> Response:
    body = await request.json()
    text = "\n".join(m["content"] for m in body["messages"])
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    model, limit = body["model"], body.get("max_tokens", body.get("max_completion_tokens", 0))
    heat, seed = body.get("temperature", 1.0), body.get("seed", 0)
    asked = Asked(len(scripted.asked), model, text, heat, seed, limit, key, body)
    scripted.asked.append(asked)
    if model not in models:
        return _failed(404, f"the model {model!r} does not exist")
    said = answer(asked)
    said = Said(said) if isinstance(said, str) else said
    scripted.under_way += 1
    scripted.busiest = max(scripted.busiest, scripted.under_way)
    try:
        await asyncio.sleep(said.delay)
    finally:
        scripted.under_way -= 1
    if said.drip or said.flood:
        return StreamingResponse(_slowly(said), said.status, {**said.headers}, "application/json")
    if said.raw is not None:
        kind = "application/json" if said.raw[:1] in "{[" else "text/html"
        return Response(said.raw, said.status, {"content-type": kind, **said.headers})
    if said.status != 200:
        return _failed(said.status, said.text, said.headers)
    if asked.body.get("stream"):
        return StreamingResponse(_streamed(asked, said, scripted), media_type="text/event-stream")
    return _answered(asked, said, scripted)


async def _slowly(said: Said) -> AsyncIterator[bytes]:
    block = b" " * 2**16
    for _ in range(said.flood // len(block)):
        yield block
    for sign in said.text:
        yield sign.encode()
        await asyncio.sleep(said.drip)


def _answered(asked: Asked, said: Said, scripted: Scripted) -> Response:
    pieces = tokens(said.text)
    kept = pieces[: asked.max_tokens]
    usage = _counted(asked, said, len(kept), scripted)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": said.text if kept == pieces else "".join(kept)},
        "finish_reason": "stop" if kept == pieces else "length",
    }
    told = {"id": "x", "object": "chat.completion", "created": 0, "model": asked.model, "choices": [choice]}
    return JSONResponse(told | usage)


async def _streamed(asked: Asked, said: Said, scripted: Scripted) -> AsyncIterator[str]:
    pieces = tokens(said.text)
    kept = pieces[: asked.max_tokens]
    for number, piece in enumerate(kept):
        if number == said.pieces:
            if said.polite:
                return
            raise ConnectionResetError
        yield _event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}], "usage": None})
    finish = "stop" if kept == pieces else "length"
    yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": None})
    usage = _counted(asked, said, len(kept), scripted)
    if usage and asked.body.get("stream_options") == {"include_usage": True}:
        yield _event({"choices": []} | usage)
    yield "data: [DONE]\n\n"


def _event(chunk: Mapping[str, Any]) -> str:
    return f"data: {json.dumps({'object': 'chat.completion.chunk', **chunk})}\n\n"


def _counted(asked: Asked, said: Said, tokens_out: int, scripted: Scripted) -> dict[str, Any]:
    """The count of an answer, noted; what is told of it."""
    receipt = Receipt(len(tokens(asked.text)) + 8, tokens_out)
    scripted.receipts.append(receipt)
    usage: dict[str, Any] = {
        "prompt_tokens": receipt.tokens_in,
        "completion_tokens": receipt.tokens_out,
        "total_tokens": sum(receipt),
    }
    if said.cached:
        usage["prompt_tokens_details"] = {"cached_tokens": said.cached}
    return {"usage": usage} if said.usage else {}


def _failed(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(
        {"error": {"message": message}}, status_code=status, headers={"retry-after-ms": "1", **(headers or {})}
    )
