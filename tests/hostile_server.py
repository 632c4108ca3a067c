# ruff: noqa: E501 - a response of one line is easier to read than one of four
"""A server of chat completions that writes its bytes itself: it can break off, hang and lie as no framework would."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

KNOWN = "A*n**a"
"""A law that every search has seen before the first reply: where a reply is read after all, this is rejected, too."""

GOOD = json.dumps({"proposals": [{"formula": KNOWN, "idea": "a power"}]})
"""A reply in good form."""


class Heard(NamedTuple):
    """A request: its number, its seed (None where the client left it out), its text, its bearer."""

    number: int
    seed: int | None
    text: str
    key: str


@dataclass(frozen=True, slots=True)
class Wire:
    """What goes back over the connection, and what becomes of it then."""

    data: bytes = b""
    then: Literal["keep", "close", "reset", "hang"] = "keep"


Said: TypeAlias = Callable[[Heard], Wire]


@dataclass
class Server:
    """A running server: where it is, and what it heard."""

    url: str
    heard: list[Heard] = field(default_factory=list)


@contextmanager
def serving(answer: Said) -> Iterator[Server]:
    """Serve `answer`, called once a request in the order they come in, until the block ends."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    server = Server("")
    stop, writers = asyncio.Event(), set[asyncio.StreamWriter]()

    async def work() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await _talk(reader, writer, server, answer)
            writers.discard(writer)
            writer.close()

        listening = await asyncio.start_server(talk, "127.0.0.1", 0, limit=1 << 24)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await stop.wait()
        listening.close()
        for one in writers:
            one.transport.abort()

    thread = threading.Thread(target=loop.run_until_complete, args=(work(),))
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server, answer: Said) -> None:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        size = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
        body = json.loads(await reader.readexactly(int(size[1]))) if size else {}
        bearer = re.search(r"(?i)\r\nauthorization: *bearer +(\S+)", head)
        text = "\n".join(m["content"] for m in body.get("messages", ()))
        heard = Heard(len(server.heard), body.get("seed"), text, bearer[1] if bearer else "")
        server.heard.append(heard)
        wire = answer(heard)
        writer.write(wire.data)
        if wire.then == "reset":
            writer.transport.abort()
            return
        await writer.drain()
        if wire.then == "hang":
            await reader.read()  # until the client has enough
        if wire.then != "keep":
            return


def http(status: int, body: bytes | str, kind: str = "application/json", **headers: str) -> bytes:
    """A whole response."""
    data = body.encode() if isinstance(body, str) else body
    named = {"content-type": kind, "content-length": str(len(data))} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + data


def completion(content: object, **other: object) -> dict[str, object]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [choice],
        "usage": usage,
    } | other


def chat(content: object, **other: object) -> Wire:
    """A chat completion over the wire."""
    return Wire(http(200, json.dumps(completion(content, **other))))


# ---- answers that are none ----

TEXT = json.dumps(completion(GOOD))


def refused() -> dict[str, Wire]:
    """Errors of the protocol; a busy server asks to be tried again at once."""
    codes = (400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 418, 422, 429, 500, 501, 502, 503, 504, 529)
    found = {
        f"status {code}": Wire(http(code, json.dumps({"error": {"message": f"no ({code})"}}), retry_after_ms="1"))
        for code in codes
    }
    bodies = {
        "HTML": "<html><h1>Bad Gateway</h1></html>",
        "nothing": "",
        "a list": "[[[]]]",
        "half an object": '{"error": {"mess',
        "a megabyte": "x" * 1_000_000,
        "painted": "\x1b[2J\x1b]0;owned\x07",
    }
    found |= {f"status 500 with {name}": Wire(http(500, body, retry_after_ms="1")) for name, body in bodies.items()}
    found |= {f"status 400 with {name}": Wire(http(400, body)) for name, body in bodies.items()}
    waits = {
        "a day": "86400",
        "a century": "3153600000",
        "less than nothing": "-1",
        "no number": "soon",
        "a date": "Fri, 31 Dec 2999 23:59:59 GMT",
        "nan": "nan",
    }
    # Refused for good in the end, or asked to wait for longer than a call may take: never slept through.
    found |= {
        f"a wait of {name}": Wire(
            http(
                429,
                "{}",
                retry_after=wait,
                x_should_retry="false" if name in ("less than nothing", "no number", "nan") else "true",
            )
        )
        for name, wait in waits.items()
    }
    return found | {
        f"a redirect to {to}": Wire(http(302, "", location=to))
        for to in ("http://127.0.0.1:9/v1", "file:///etc/passwd", "/v1/chat/completions")
    }


def no_completion() -> dict[str, Wire]:
    """Answers with status 200 that are no chat completion."""
    values: dict[str, object] = {
        "a list": [], "a number": 5, "null": None, "an empty object": {}, "an error": {"error": {"message": "out of memory"}}, "choices null": {"choices": None}, "choices empty": {"choices": []}, "choices a text": {"choices": GOOD},
        "choices of numbers": {"choices": [1]}, "a choice without a message": {"choices": [{"index": 0}]}, "a message that is null": {"choices": [{"message": None}]}, "a message that is a text": {"choices": [{"message": GOOD}]},
        "content that is a number": completion(5), "content that is an object": completion({"text": GOOD}), "a model list": {"object": "list", "data": []}, "an embedding": {"data": [{"embedding": [0.1]}]},
    }  # fmt: skip
    found = {name: Wire(http(200, json.dumps(value))) for name, value in values.items()}
    raw = {
        "no JSON": "OK",
        "HTML": "<!doctype html><title>Sign in</title>",
        "nothing": "",
        "half a completion": TEXT[:60],
        "two completions": TEXT + TEXT,
        "brackets": "[" * 50_000,
        "nine megabytes": '{"choices": [' + " " * 9_000_000 + "]}",
    }
    found |= {name: Wire(http(200, text)) for name, text in raw.items()}
    found["no UTF-8"] = Wire(http(200, b"\xff\xfe\x00{"))
    found["compressed, it says"] = Wire(http(200, TEXT, content_encoding="gzip"))
    found["a stream that nobody asked for, cut"] = Wire(
        http(200, 'data: {"choices": [{"delta": {"content": "{"}}]}\n\n', "text/event-stream")
    )
    found["a stream with an error in it"] = Wire(
        http(200, 'data: {"error": {"message": "broken"}}\n\ndata: [DONE]\n\n', "text/event-stream")
    )
    return found


def broken() -> dict[str, Wire]:
    """Connections that end before the reply does, and what is no HTTP."""
    whole = http(200, TEXT)
    head, _, body = whole.partition(b"\r\n\r\n")
    chunked = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    return {
        "closed before a word": Wire(b"", "close"), "reset before a word": Wire(b"", "reset"), "closed in the status": Wire(b"HTTP/1.1 2", "close"), "closed in the head": Wire(head, "close"),
        "closed behind the head": Wire(head + b"\r\n\r\n", "close"), "closed in the body": Wire(whole[: -len(body) // 2], "close"), "reset in the body": Wire(whole[: -len(body) // 2], "reset"),
        "no HTTP": Wire(b"220 mail.example ESMTP\r\n", "close"), "bytes": Wire(bytes(range(256)), "close"), "a status that is no number": Wire(b"HTTP/1.1 OK 200\r\n\r\n", "close"), "a length that is no number": Wire(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}", "close"),
        "a length below zero": Wire(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{}", "close"), "two lengths": Wire(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", "close"), "a head without end": Wire(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000, "close"),
        "chunks that break off": Wire(chunked + b'ff\r\n{"choices"', "close"), "chunks that lie": Wire(chunked + b"zz\r\n{}\r\n0\r\n\r\n", "close"), "a stream that breaks off": Wire(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:", "close"),
    }  # fmt: skip


HANGING: dict[str, Wire] = {
    "silence": Wire(b"", "hang"), "half a status": Wire(b"HTTP/1.1", "hang"), "a head and no body": Wire(http(200, TEXT)[:90], "hang"), "half a body": Wire(http(200, TEXT)[:-30], "hang"),
}  # fmt: skip
"""Servers that never end what they say: broken off at the deadline of the call."""

COUNTS: dict[str, object] = {
    "no count": None, "an empty count": {}, "a count that is a text": "many", "counts that are texts": {"prompt_tokens": "40", "completion_tokens": "20"}, "counts below zero": {"prompt_tokens": -40, "completion_tokens": -20}, "fractions": {"prompt_tokens": 40.5, "completion_tokens": 0.1},
    "truths": {"prompt_tokens": True, "completion_tokens": False}, "counts beyond all": {"prompt_tokens": 10**30, "completion_tokens": 10**30}, "a list": [1, 2], "nulls": {"prompt_tokens": None, "completion_tokens": None}, "nothing was read": {"prompt_tokens": 0, "completion_tokens": 0},
    "more cached than read": {"prompt_tokens": 4, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 10**6}},
}  # fmt: skip
"""Token counts that are wrong beside a reply that is known."""

OVER: dict[str, object] = {
    "more than was asked for": {"prompt_tokens": 10, "completion_tokens": 10**7},
    "more than was sent": {"prompt_tokens": 10**7, "completion_tokens": 1},
}
"""Counts above what the call can have taken at worst."""
