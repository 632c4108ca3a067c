"""Chat models behind the `openai` client: a prompt goes in, a text and its token count come back.

Any server that speaks OpenAI's Chat Completions will do: hosted, vLLM, SGLang, llama.cpp, Ollama, `transformers serve`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from agentlab.errors import BackendError
from agentlab.models_errors import SAID, Failures, Kind, LostReplyError, ModelError, secrets_in
from agentlab.models_records import (
    FRAME,
    TURN,
    Message,
    Prompt,
    Reply,
    Schema,
    messages,
    prompt_bound,
    read_reply,
    whole,
)
from agentlab.models_wait import Pace, pause

__all__ = [
    "FRAME",
    "KEY",
    "SAID",
    "TURN",
    "Chat",
    "Kind",
    "LostReplyError",
    "Message",
    "Model",
    "ModelError",
    "Prompt",
    "Reply",
    "Schema",
    "prompt_bound",
]

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key, unless another one is named."""

NO_KEY = "EMPTY"
"""What is sent to a server of one's own that asks for no key."""


class Model(Protocol):
    """Anything that completes a prompt."""

    async def complete(
        self, prompt: Prompt, *, temperature: float, seed: int, max_tokens: int, schema: Schema | None = None
    ) -> Reply:
        """The reply, of `max_tokens` tokens at most; a server that can keeps it to the schema, others do not.

        Raises ModelError in one line where there is none, LostReplyError where it may have cost something.
        """


class Chat:
    """A model that a server offers; an async context manager, closed by `close`.

    The key is read from the environment and stands in no message, error or repr. A call that the server refused, and
    so did nothing for, is repeated: a busy server is given time, and what it does not take is left out from then on,
    be it the schema, the seed or the temperature. Nothing is repeated once a reply may have been under way, so a call
    costs one reply at most.

    Args:
        base_url: where it is served, with its /v1; None for the hosted API.
        model: the model's name there.
        key_variable: the environment variable that holds the key; a server of one's own may need none.
        retries: tries after the first one where the server is busy or cannot be reached, with growing pauses.
        deadline: seconds a call may take in all, retries and pauses included, from when its turn has come.
        at_once: calls that may be under way; the others wait for their turn.
        per_minute: requests that may start in any minute; None for no limit.
        stream: whether the reply is asked for in pieces, for the sake of a proxy that cuts off silent connections.
        env: the environment.

    Raises:
        BackendError: the hosted API without a key, or a key or an address that cannot be one, or holds a password.
        ValueError: a limit allows nothing.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        base_url: str | None,
        model: str,
        *,
        key_variable: str = KEY,
        retries: int = 3,
        deadline: float = 600.0,
        at_once: int = 16,
        per_minute: int | None = None,
        stream: bool = False,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        from agentlab.models_http import open_client  # noqa: PLC0415 - the client takes 0.5 to 1.7 s to import

        if retries < 0 or not 0 < deadline < float("inf") or at_once < 1 or (per_minute is not None and per_minute < 1):
            raise ValueError("retries= is 0 or more; deadline=, at_once= and per_minute= are above 0")
        self.model = model
        key = env.get(key_variable, "").strip()
        if base_url is None and not key:
            raise BackendError(f"model {model!r}: the hosted API asks for a key; set {key_variable}, or give base_url=")
        if not (key.isascii() and key.isprintable()):
            raise BackendError(f"model {model!r}: {key_variable} holds characters that no key has; set it anew")
        if base_url is not None:
            _check(base_url)
        self._retries, self._deadline, self._stream = retries, deadline, stream
        self._client = open_client(base_url, key or NO_KEY, deadline)
        self._failures = Failures(
            f"model {model!r} at {self._client.base_url}", key_variable, deadline, secrets_in(env, key)
        )
        self._slots, self._pace = asyncio.Semaphore(at_once), Pace(per_minute)
        # The hosted API gave the limit a new name that other servers need not know.
        self._forgone = {"max_tokens"} if base_url is None else set[str]()

    def __repr__(self) -> str:
        return f"Chat({self.model!r} at {self._client.base_url})"

    async def complete(
        self, prompt: Prompt, *, temperature: float, seed: int, max_tokens: int, schema: Schema | None = None
    ) -> Reply:
        """Ask once; the server may ignore the schema.

        Raises:
            LostReplyError: no reply within the deadline, the connection broke while it was awaited, or what came is
                none.
            ModelError: the server cannot be reached, has no such model, or refuses.
        """
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": whole(m.text)} for m in messages(prompt)],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        if schema is not None:
            form = {"name": "reply", "strict": True, "schema": schema}
            asked["response_format"] = {"type": "json_schema", "json_schema": form}
        if self._stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        async with self._slots:
            await asyncio.sleep(self._pace.start(_now()))
            answer = await self._in_time(asked)
        if isinstance(answer, ModelError):
            # Raised out here, without the client's error as its context: that one holds the request with the key.
            raise answer
        reply = read_reply(answer, prompt_bound(prompt, schema), max_tokens)
        if reply is None:
            raise self._failures.nonsense()
        return reply

    async def _in_time(self, asked: dict[str, Any]) -> Mapping[str, Any] | ModelError:
        try:
            async with asyncio.timeout(self._deadline):
                return await self._tries(asked, _now() + self._deadline)
        except TimeoutError:
            return self._failures.late()

    async def _tries(self, asked: dict[str, Any], end: float) -> Mapping[str, Any] | ModelError:
        """The answer to the first request that is not refused, or why the last one was; never waits past the end."""
        from agentlab.models_http import Refused, post, unwanted  # noqa: PLC0415 - as above

        forgone, tries = set(self._forgone), 0
        while True:
            sent = _without(asked, forgone)
            answer = await post(self._client, sent, self._failures)
            if not isinstance(answer, Refused):
                if not isinstance(answer, ModelError):
                    self._forgone |= forgone  # not before: it may have been refused for another reason
                return answer
            part, wait = unwanted(sent, answer), 0.0
            if part is not None:
                forgone.add(part)
            elif answer.again and tries < self._retries:
                tries += 1
                wait = pause(tries, asked["seed"]) if answer.pause is None else answer.pause
            else:
                return answer.error
            begin = _now() + wait
            if begin + self._pace.wait(begin) >= end:
                return answer.error
            await asyncio.sleep(wait + self._pace.start(begin))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _without(asked: Mapping[str, Any], forgone: set[str]) -> dict[str, Any]:
    """The request less what its server does not take; the limit is never left out, but has a second name."""
    sent = {key: value for key, value in asked.items() if key not in forgone}
    return sent if "max_tokens" in sent else sent | {"max_completion_tokens": asked["max_tokens"]}


def _check(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BackendError(f"base_url={base_url!r} is no address; write for example http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise BackendError(f"base_url= of {parts.hostname} holds a password or a query; keys belong in {KEY}")
