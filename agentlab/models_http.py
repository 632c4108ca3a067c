"""One request to a server of chat completions by the `openai` client: nothing is repeated, no long body is read.

Importing it takes 0.5 to 1.7 s, and only runs that ask a model need it.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from agentlab.models_errors import Failures, ModelError
from agentlab.models_wait import pause_asked

LONGEST = 8 * 2**20
"""Bytes of an answer that are read; a reply that is streamed token by token needs some 250 bytes for each."""

IDLE = 2.0
"""Seconds that an unused connection is kept: less than the 5 s after which common servers close theirs, which would
break the connection under the next request."""

CONNECT = 10.0
"""Seconds that a connection may take."""

NAMED = {
    "seed": "seed",
    "temperature": "temperature",
    "stream_options": "stream_options|include_usage",
    "max_tokens": "max_completion_tokens",
}
"""Parts of a request that a server may not take, with the words of its refusal by which that is known."""

HOSTED = "https://api.openai.com/v1"

UNREACHED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)


class UnreadableError(Exception):
    """What came cannot be a chat completion; the text is told."""


class BrokenStreamError(Exception):
    """A stream that says it has failed, or ends before its end."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The server did no work: why, its own words in full, and whether and when it may be asked again."""

    error: ModelError
    status: int = 0
    words: str = ""
    again: bool = False
    pause: float | None = None


class _Capped(httpx2.AsyncByteStream):
    """A body that ends with an error where it is too long."""

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body, self._left = body, LONGEST

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._body:
            self._left -= len(part)
            if self._left < 0:
                raise UnreadableError(f"longer than {LONGEST:,} bytes")
            yield part

    async def aclose(self) -> None:
        await self._body.aclose()


async def _cap(response: httpx2.Response) -> None:
    # A few compressed bytes may stand for gigabytes; it was asked for none.
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnreadableError("compressed")
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - what an asynchronous client has
    response.stream = _Capped(response.stream)
    response.encoding = "utf-8"  # a server may name a codec that makes no text


def open_client(base_url: str | None, key: str, deadline: float) -> openai.AsyncOpenAI:
    """A client that asks once a call and follows nobody elsewhere."""
    timeout = openai.Timeout(deadline, connect=min(deadline, CONNECT))
    http = openai.DefaultAsyncHttpxClient(
        timeout=timeout,
        limits=httpx2.Limits(max_connections=None, keepalive_expiry=IDLE),
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_cap]},
    )
    return openai.AsyncOpenAI(
        base_url=base_url or HOSTED, api_key=key, max_retries=0, timeout=timeout, http_client=http
    )


async def post(
    client: openai.AsyncOpenAI, body: Mapping[str, Any], failures: Failures
) -> Mapping[str, Any] | Refused | ModelError:
    """The chat completion that answers a request, put together where it is streamed; or why there is none.

    Of a stream as well nothing is used before its end.
    """
    try:
        response = await client.post("/chat/completions", body=dict(body), cast_to=httpx2.Response)
        return _completion(response)
    except openai.APIStatusError as error:
        return _refused(error.response, failures)
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        if isinstance(cause, UNREACHED):
            return Refused(failures.unreachable(), again=True)
        return failures.late() if isinstance(cause, httpx2.TimeoutException) else failures.broken()
    except BrokenStreamError as error:
        return failures.broken(str(error))
    except UnreadableError as error:
        return failures.nonsense(str(error))
    except (ValueError, RecursionError):  # no JSON, or too deep
        return failures.nonsense()


def unwanted(sent: Mapping[str, Any], refused: Refused) -> str | None:
    """The part of a request to leave out, as the server refused it because of that, or may have; None where not.

    A schema need not be named: servers without that feature refuse it in many ways. The limit of a reply goes where
    its other name is asked for, as under that it still stands.
    """
    if refused.status in (400, 422):
        for part, names in NAMED.items():
            if part in sent and re.search(rf"\b({names})\b", refused.words):
                return part
    return "response_format" if "response_format" in sent and refused.status in (400, 404, 422, 501) else None


def _refused(response: httpx2.Response, failures: Failures) -> Refused:
    status, words, told = response.status_code, _words(response.text), response.headers.get("x-should-retry")
    again = status in (408, 409, 429) or (status >= 500 and status != 501)
    again = told == "true" if told in ("true", "false") else again
    return Refused(failures.refused(status, words), status, words, again, pause_asked(response.headers))


def _words(text: str) -> str:
    """What a server says of a refusal: the message in its JSON and what it is about, else all of it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for key in ("error", "message", "detail"):
        inner = found.get(key) if isinstance(found, dict) else None
        if isinstance(inner, str) and isinstance(found.get("param"), str) and found["param"] not in inner:
            inner = f"{inner} ({found['param']})"
        found = inner or found
    if isinstance(found, list):  # of FastAPI, which repeats the request beside its words
        told = [one for one in found if isinstance(one, dict) and {"loc", "msg"} <= set(one)]
        found = "; ".join(f"{one['loc']}: {one['msg']}" for one in told)
    return found if isinstance(found, str) and found else text


def _completion(response: httpx2.Response) -> Mapping[str, Any]:
    if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        return _joined(response.content)
    found = json.loads(response.content)
    if not isinstance(found, dict):
        raise UnreadableError("")
    if found.get("choices") is None and found.get("error"):
        raise UnreadableError(_words(response.text))
    return found


def _joined(body: bytes) -> Mapping[str, Any]:
    """A stream of events as the chat completion that it makes up; the count of tokens comes last."""
    pieces: list[str] = []
    usage: object = None
    finish: object = None
    done = False
    for line in body.splitlines():
        data = line[5:].strip() if line.startswith(b"data:") else b""
        if done or not data:
            continue
        done = data == b"[DONE]"
        chunk = {} if done else json.loads(data)
        if not isinstance(chunk, dict) or chunk.get("error"):
            raise BrokenStreamError(_words(data.decode(errors="replace")))
        usage = chunk.get("usage") or usage
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, dict):
            delta = choice.get("delta")
            piece = delta.get("content") if isinstance(delta, dict) else None
            pieces += [piece] if isinstance(piece, str) else []
            finish = choice.get("finish_reason") or finish
    if not done and not finish:
        raise BrokenStreamError("the stream ended before its end")
    message = {"content": "".join(pieces)}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}
