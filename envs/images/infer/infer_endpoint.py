"""Asks and times any OpenAI-compatible server, streaming, so that the first token and the later ones are told apart."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import openai
from infer_lines import InferError, emit
from infer_plan import Ask, Endpoint, Stream
from infer_times import Timed, measure_all

ALPHABET = "abcdefghijklmnopqrstuvwxyz "


@dataclass(frozen=True)
class Answer:
    """One streamed answer; seconds since the request for the first and the last piece of text."""

    text: str
    first: float
    last: float
    pieces: int
    prompt_tokens: int | None
    new_tokens: int | None


def ask(request: Ask) -> dict[str, object]:
    """`count` answers to one prompt, one after another, with seeds counted from `seed` on."""
    emit("start", task="ask", steps=request.count)
    answers = asyncio.run(_ask_all(request))
    counted = [a.new_tokens for a in answers if a.new_tokens is not None]
    return {
        "texts": [a.text for a in answers], "prompt_tokens": answers[0].prompt_tokens,
        "new_tokens": sum(counted) if len(counted) == len(answers) else None,
    }  # fmt: skip


def stream(request: Stream) -> dict[str, object]:
    """Medians for each pair of batch (requests at once) and length (characters of a random prompt, never the same).

    `ttft_seconds` is the wait for the first text and `seconds_per_token` the mean time of each later token, both the
    mean over the requests of a batch; `tokens_per_second` is what the batch gained from first request to last text.
    """
    with asyncio.Runner() as runner:

        def measure(batch: int, length: int, call: int) -> Timed:
            return runner.run(_batch(request, batch, length, call))

        return measure_all(request, measure) | {"base_url": request.base_url, "model": request.model}


async def _ask_all(request: Ask) -> list[Answer]:
    answers = []
    async with _client(request) as client:
        for number in range(request.count):
            answers.append(await _one(client, request, request.prompt, request.seed + number, request.temperature))
            emit("progress", step=number + 1)
    return answers


async def _batch(request: Stream, batch: int, length: int, call: int) -> Timed:
    chance = random.Random(f"{request.seed} {call}")  # noqa: S311 - a text to time, no secret
    prompts = ["".join(chance.choices(ALPHABET, k=length)) for _ in range(batch)]
    async with _client(request) as client:
        begun = time.perf_counter()
        answers = await asyncio.gather(*(_one(client, request, p, request.seed, 1.0) for p in prompts))
        whole = time.perf_counter() - begun
    if not all(a.pieces for a in answers):
        raise InferError("an answer was empty", "base_url", "try a longer prompt or more new tokens")
    tokens = [a.pieces if a.new_tokens is None else a.new_tokens for a in answers]
    later = [(a.last - a.first) / (n - 1) for a, n in zip(answers, tokens, strict=True) if n > 1]
    if not later:
        raise InferError("every answer ended after one token", "new_tokens", "write more, or another length of prompt")
    counts = {"new_tokens_counted": sum(tokens), "counted_by_server": int(all(a.new_tokens for a in answers))}
    if answers[0].prompt_tokens is not None:
        counts["prompt_tokens"] = answers[0].prompt_tokens
    mean_first = sum(a.first for a in answers) / batch
    return Timed(mean_first, sum(later) / len(later), sum(tokens) / whole, counts)


@asynccontextmanager
async def _client(request: Endpoint) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client that neither repeats a request nor follows a redirect with the key; its errors become InferErrors."""
    key = os.environ.get(request.key_variable, "") if request.key_variable else ""
    if request.key_variable and not key:
        raise InferError(f"{request.key_variable} is not set", "key_variable", "set it where the server is started")
    limit = openai.Timeout(request.request_seconds, connect=min(5.0, request.request_seconds))
    http = openai.DefaultAsyncHttpx2Client(follow_redirects=False, timeout=limit)
    try:
        async with openai.AsyncOpenAI(
            base_url=request.base_url, api_key=key or "none", max_retries=0, timeout=limit, http_client=http
        ) as client:
            yield client
    except openai.APITimeoutError as error:
        what = f"no answer within {request.request_seconds:g} s"
        raise InferError(what, "base_url", "see that the server runs, or write a larger request_seconds") from error
    except openai.APIConnectionError as error:
        what = f"{request.base_url} cannot be reached"
        raise InferError(what, "base_url", "see that the server runs and listens there") from error
    except openai.APIStatusError as error:
        what = f"the server said {error.status_code}: {_hidden(_said(error), key)}"
        raise InferError(what, "base_url", "see its log, the model's name and the api") from error
    except openai.APIError as error:
        what = f"the server broke off: {_hidden(str(error), key)}"
        raise InferError(what, "base_url", "see its log") from error


def _said(error: openai.APIStatusError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("detail") or body.get("message") or error.response.reason_phrase)


def _hidden(text: str, key: str) -> str:
    """One line in which the key does not stand, whatever the server echoes."""
    line = " ".join(text.split())[:300]
    return line.replace(key, "***") if key else line


async def _one(client: openai.AsyncOpenAI, request: Ask | Stream, prompt: str, seed: int, temperature: float) -> Answer:
    common: dict[str, Any] = {
        "model": request.model, "max_tokens": request.new_tokens, "temperature": temperature, "seed": seed,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    begun, first, last, parts = time.perf_counter(), 0.0, 0.0, []
    if request.api == "chat":
        events: Any = await client.chat.completions.create(messages=[{"role": "user", "content": prompt}], **common)
    else:
        events = await client.completions.create(prompt=prompt, **common)
    usage = None
    async for event in events:
        usage = event.usage or usage
        text = _text(event)
        if text:
            last = time.perf_counter() - begun
            first = first or last
            parts.append(text)
    counted = (usage.prompt_tokens, usage.completion_tokens) if usage else (None, None)
    return Answer("".join(parts), first, last, len(parts), *counted)


def _text(event: Any) -> str:  # noqa: ANN401 - a chunk of either interface
    if not event.choices:
        return ""
    choice = event.choices[0]
    return (choice.delta.content if hasattr(choice, "delta") else choice.text) or ""
