"""What goes into a model and what comes out: prompts with a bound on their tokens, and replies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

FRAME, TURN = 256, 16
"""Tokens that a server's chat template may add around all messages and around each one."""

COUNTED = 2**53
"""A server's count from here on is taken for none."""

FINISH = 32
"""Characters that are kept of a server's word for why a reply ended."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


Prompt: TypeAlias = str | Sequence[Message]
"""What a model is asked: turns, or a text, which is one turn of the user's."""

Schema: TypeAlias = Mapping[str, Any]
"""A JSON schema, for servers that keep replies to one."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said: `finish` is "stop", "length" where it was cut off, or a word of the server's.

    `tokens_in` and `tokens_out` are the server's own count; the worst case of the call where it gives none.
    `tokens_cached` of the tokens in were read from the server's cache, as far as it says so.
    """

    text: str
    finish: str
    tokens_in: int
    tokens_out: int
    tokens_cached: int = 0


def messages(prompt: Prompt) -> Sequence[Message]:
    """The turns of a prompt."""
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt


def prompt_bound(prompt: Prompt, schema: Schema | None = None) -> int:
    """Tokens that a prompt cannot exceed: no tokeniser makes more tokens of a text than it has bytes.

    Some servers count the schema of a reply as a part of the prompt, spelled out.
    """
    extra = 0 if schema is None else len(json.dumps(schema, indent=4).encode())
    return FRAME + sum(TURN + len(whole(m.text).encode()) for m in messages(prompt)) + extra


def whole(text: str) -> str:
    """The text with halves of surrogate pairs, which no file and no request can hold, joined or marked as broken."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_reply(answer: object, bound: int, max_tokens: int) -> Reply | None:
    """The reply in a chat completion; None where there is none. A server may leave out what the protocol promises.

    Args:
        answer: the JSON that came.
        bound: tokens of the prompt that are booked where the server counts none.
        max_tokens: tokens of the reply that are booked where it counts none.
    """
    choices = _of(answer, "choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message, finish = _of(first, "message"), _of(first, "finish_reason")
    text = _text(_of(message, "content"))
    if not isinstance(message, dict) or text is None:
        return None
    usage = _of(answer, "usage")
    tokens_in = _count(_of(usage, "prompt_tokens"), bound)
    cached = _count(_of(_of(usage, "prompt_tokens_details"), "cached_tokens"), 0)
    return Reply(
        text=whole(text),
        finish=plain(finish[:FINISH]) if isinstance(finish, str) and finish else "stop",
        tokens_in=tokens_in,
        tokens_out=_count(_of(usage, "completion_tokens"), max_tokens),
        tokens_cached=cached if cached <= tokens_in else 0,
    )


def plain(text: str) -> str:
    """The text as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _of(value: object, key: str) -> Any:  # noqa: ANN401 - what a server sends
    return value.get(key) if isinstance(value, dict) else None


def _text(content: object) -> str | None:
    """The text of a message, which may come in parts; an answer may be empty."""
    if isinstance(content, list):
        content = "".join(t for part in content if isinstance(t := _of(part, "text"), str))
    return "" if content is None else content if isinstance(content, str) else None


def _count(found: object, otherwise: int) -> int:
    counted = isinstance(found, int) and not isinstance(found, bool) and 0 <= found < COUNTED
    return found if counted and isinstance(found, int) else otherwise
