"""An OpenAI-compatible server that answers at once, for bench/overhead.py: `python bench/instant_model.py`.

It is no language model. Asked for proposals it gives three laws that it never gave before; asked for a vote, the first
two that are listed; asked for anything else, a new Python program. It prints its address as a line of JSON and serves
until standard input ends. Standard library only: what it costs is its own process's, and as little as can be.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
from collections.abc import Iterator

A_REPLY = 3
ATOMS = (
    "log(N)", "log(D)", "N", "D", "1/N", "1/D", "N*D", "N/D", "D/N", "sqrt(N)", "sqrt(D)", "log(N)**2", "log(D)**2",
    "N**2", "D**2", "log(N)*log(D)", "tanh(N)", "tanh(D)", "exp(-N)", "exp(-D)", "1/log(N)", "1/log(D)", "sigmoid(N)",
    "sigmoid(D)", "log(N + D)", "1/(N + D)", "sqrt(N*D)", "min(N, D)", "max(N, D)", "log(N)**3", "log(D)**3", "N**3",
)  # fmt: skip
"""Blocks without parameters; sums of four of them are 35,960 laws."""

LISTED = re.compile(r"(?:^|\\n)- (\d+): ")


def laws() -> Iterator[str]:
    """Laws that differ in form, each once; by the mark log10 the instant tool server knows them."""
    for chosen in itertools.combinations(ATOMS, 4):
        yield "E + log10(N) + " + " + ".join(f"c{i}*{block}" for i, block in enumerate(chosen))


def programs() -> Iterator[str]:
    """Programs that differ in a number."""
    for number in itertools.count():
        yield f"```python\ndef law(n):\n    return {number} + n\n```"


class Replies:
    """What is said next, by the text of the request."""

    def __init__(self) -> None:
        self._laws, self._programs = laws(), programs()

    def text(self, body: str) -> str:
        """The reply to a request body."""
        if "proposals" in body:
            items = [{"formula": law, "idea": "next"} for law in itertools.islice(self._laws, A_REPLY)]
            return json.dumps({"proposals": items})
        if "answer = " in body:
            return "answer = " + ", ".join(LISTED.findall(body)[:2])
        return next(self._programs)


def completion(text: str) -> bytes:
    """A chat completion as the body of a response."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    told = {"id": "x", "object": "chat.completion", "created": 0, "model": "instant", "choices": [choice]}
    return json.dumps(told | {"usage": usage}).encode()


async def serve() -> None:
    """Answer until standard input ends."""
    replies = Replies()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                size = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
                body = (await reader.readexactly(int(size[1]))).decode() if size else ""
                data = completion(replies.text(body))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                    % (len(data), data)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
