"""Chat models behind the `openai` client: a prompt goes in, a text and its token count come back.

Any server that speaks OpenAI's Chat Completions will do: hosted, vLLM, SGLang, llama.cpp, Ollama, `transformers serve`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self, TypeAlias, cast
from urllib.parse import urlsplit

from agentlab.errors import BackendError
from agentlab.ledger import Ledger

if TYPE_CHECKING:
    from openai import APIError
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

__all__ = ["KEY", "Chat", "LostReplyError", "Message", "Model", "Prompt", "Reply", "charged", "prompt_bound"]

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key, unless another one is named."""

NO_KEY = "EMPTY"
"""What is sent to a server of one's own that asks for no key."""

FRAME, TURN = 256, 16
"""Tokens that a server's chat template may add around all messages and around each one."""

SAID = 200
"""Characters of a server's own words that an error repeats."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


Prompt: TypeAlias = str | Sequence[Message]
"""What a model is asked: turns, or a text, which is one turn of the user's."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said: `finish` is "stop", "length" where it was cut off, or a word of the server's.

    `tokens_in` and `tokens_out` are the server's own count; the worst case of the call where it gives none.
    """

    text: str
    finish: str
    tokens_in: int
    tokens_out: int


class LostReplyError(BackendError):
    """No reply came, but the model may have worked on one: what it cost is unknown."""


class Model(Protocol):
    """Anything that completes a prompt."""

    async def complete(self, prompt: Prompt, *, temperature: float, seed: int, max_tokens: int) -> Reply:
        """The reply, of `max_tokens` tokens at most. Raises BackendError in one line where there is none."""


async def charged(
    model: Model, prompt: Prompt, ledger: Ledger, *, temperature: float, seed: int, max_tokens: int
) -> Reply:
    """Ask once on a budget of tokens: the worst case is set aside before, and what the call took is booked after.

    A call that failed costs nothing, one whose reply was lost or not waited for the worst case.

    Raises:
        OverBudgetError: the worst case does not fit.
        BrokenBoundError: the server counts more than was asked of it.
        BackendError: as `complete` does.
    """
    hold = await ledger.reserve(prompt_bound(prompt) + max_tokens)
    cost = hold.worst
    try:
        reply = await model.complete(prompt, temperature=temperature, seed=seed, max_tokens=max_tokens)
        cost = reply.tokens_in + reply.tokens_out
    except BackendError as error:
        cost = hold.worst if isinstance(error, LostReplyError) else 0
        raise
    finally:
        hold.settle(cost)
    return reply


def prompt_bound(prompt: Prompt) -> int:
    """Tokens that a prompt cannot exceed: no tokeniser makes more tokens of a text than it has bytes."""
    return FRAME + sum(TURN + len(m.text.encode()) for m in _messages(prompt))


def _messages(prompt: Prompt) -> Sequence[Message]:
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt


class Chat:
    """A model that a server offers; an async context manager, closed by `close`.

    The key is read from the environment and stands in no message, error or repr. What a service may charge for a try
    that the client repeated after a broken connection is not seen.

    Args:
        base_url: where it is served, with its /v1; None for the hosted API.
        model: the model's name there.
        key_variable: the environment variable that holds the key; a server of one's own may need none.
        retries: tries after the first one where the server is busy or cannot be reached, with growing pauses.
        deadline: seconds a reply may take in all, retries and pauses included.
        env: the environment.

    Raises:
        BackendError: the hosted API without a key, or an address that is none or holds a password.
    """

    def __init__(
        self,
        base_url: str | None,
        model: str,
        *,
        key_variable: str = KEY,
        retries: int = 3,
        deadline: float = 600.0,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        import openai  # noqa: PLC0415 - 0.5 to 1.7 s, and only runs that ask a model need it

        self.model = model
        self._key_variable, self._deadline, self._hosted = key_variable, deadline, base_url is None
        self._key = env.get(key_variable, "")
        if self._hosted and not self._key:
            raise BackendError(f"model {model!r}: the hosted API asks for a key; set {key_variable}, or give base_url=")
        if base_url is not None:
            _check(base_url)
        # A trial cannot outlast the deadline, so no reply is waited for twice.
        self._client = openai.AsyncOpenAI(
            base_url=base_url or "https://api.openai.com/v1",
            api_key=self._key or NO_KEY,
            max_retries=retries,
            timeout=openai.Timeout(deadline, connect=min(deadline, 10.0)),
        )

    def __repr__(self) -> str:
        return f"Chat({self.model!r} at {self._client.base_url})"

    async def complete(self, prompt: Prompt, *, temperature: float, seed: int, max_tokens: int) -> Reply:
        """Ask once.

        Raises:
            LostReplyError: no reply within the deadline, or the connection broke while it was awaited.
            BackendError: the server cannot be reached, has no such model, refuses, or answers nonsense.
        """
        import openai  # noqa: PLC0415 - as above

        messages = [{"role": m.role, "content": m.text} for m in _messages(prompt)]
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._client.chat.completions.create(
                    model=self.model,
                    messages=cast("list[ChatCompletionMessageParam]", messages),
                    temperature=temperature,
                    seed=seed,
                    # The hosted API gave the limit a new name that other servers need not know.
                    extra_body={"max_completion_tokens" if self._hosted else "max_tokens": max_tokens},
                )
        except TimeoutError:
            failed: BackendError = self._late()
        except openai.APIError as error:
            failed = self._failed(error)
        except ValueError:
            failed = self._nonsense()
        else:
            return self._reply(answer, prompt_bound(prompt), max_tokens)
        # Raised out here, without the client's error as its context: that one holds the request with the key.
        raise failed

    def _reply(self, answer: ChatCompletion, bound: int, max_tokens: int) -> Reply:
        # The client checks nothing: a server may leave out what the type promises, or answer with a page of HTML.
        first = next(iter(getattr(answer, "choices", None) or ()), None)
        message = getattr(first, "message", None)
        if message is None:
            raise self._nonsense()
        usage = answer.usage
        tokens_in = getattr(usage, "prompt_tokens", None)
        tokens_out = getattr(usage, "completion_tokens", None)
        return Reply(
            text=message.content or "",
            finish=str(getattr(first, "finish_reason", None) or "stop"),
            tokens_in=bound if tokens_in is None else int(tokens_in),
            tokens_out=max_tokens if tokens_out is None else int(tokens_out),
        )

    def _failed(self, error: APIError) -> BackendError:
        import httpx2  # noqa: PLC0415 - as openai, which stands on it
        import openai  # noqa: PLC0415 - as above

        if isinstance(error, openai.APITimeoutError) and not isinstance(error.__cause__, httpx2.ConnectTimeout):
            return self._late()
        if isinstance(error, openai.APIConnectionError):
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                return BackendError(f"{self._where}: cannot be reached; start the server, or correct base_url=")
            return LostReplyError(f"{self._where}: the connection broke before the reply; look at the server's log")
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            # Servers repeat the key here, some of them half masked.
            return BackendError(
                f"{self._where}: refused ({error.status_code}); set {self._key_variable} to a valid key"
            )
        if isinstance(error, openai.NotFoundError):
            return BackendError(f"{self._where}: no such model there, or no /v1 in base_url= ({self._said(error)})")
        return BackendError(f"{self._where}: refused ({self._said(error)})")

    @property
    def _where(self) -> str:
        return f"model {self.model!r} at {self._client.base_url}"

    def _late(self) -> LostReplyError:
        return LostReplyError(f"{self._where}: no reply within {self._deadline:g} s; allow more, or ask a faster model")

    def _nonsense(self) -> LostReplyError:
        return LostReplyError(f"{self._where}: the answer is no chat completion; is base_url= right, with its /v1?")

    def _said(self, error: Exception) -> str:
        words = " ".join(str(error).split())
        if self._key:
            words = words.replace(self._key, "***")  # before it is cut, which would leave half a key
        return words[:SAID]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()


def _check(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BackendError(f"base_url={base_url!r} is no address; write for example http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise BackendError(f"base_url= of {parts.hostname} holds a password or a query; keys belong in {KEY}")
