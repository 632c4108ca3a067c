"""One call to a writing model: what goes out, and the record of what came back, under the names of the conventions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentlab import semconv
from agentlab.budget import Claim
from agentlab.models import Message, Prompt, Reply
from agentlab.models_errors import ModelError
from agentlab.trace import Record
from agentlab.types import Entry

LONGEST = 32_768
"""Characters that are read of a reply, and kept in the trace."""


@dataclass
class Way:
    """A call that is planned or under way; `task` is None where it is only on record."""

    number: int
    block: int
    island: int
    model: int
    prompt: Prompt
    parents: tuple[Entry, ...]
    temperature: float
    seed: int
    claim: Claim
    task: asyncio.Task[tuple[Reply | ModelError, float]] | None = None
    began: float = 0.0


def sent_record(way: Way, name: str) -> Record:
    """That a call is about to go out, and what it may cost at worst."""
    worst = way.claim.worst
    return {"kind": "sent", "call": way.number, "model": name, "tokens": worst.tokens, "usd": worst.usd}


def asked_record(way: Way, name: str, max_tokens: int) -> Record:
    """What a reply answers."""
    return {
        "kind": "reply", "call": way.number, "asked": way.block, "island": way.island,
        semconv.OPERATION: semconv.CHAT, semconv.MODEL: name, semconv.TEMPERATURE: way.temperature,
        semconv.SEED: way.seed, semconv.MAX_TOKENS: max_tokens, semconv.INPUT_MESSAGES: messages(way.prompt),
    }  # fmt: skip


def messages(prompt: Prompt) -> list[dict[str, Any]]:
    """A prompt in the form of OpenTelemetry's GenAI conventions."""
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return [{"role": m.role, "parts": [{"type": "text", "content": m.text}]} for m in turns]


def answer_record(reply: Reply) -> Record:
    """What a model said, and what it counted."""
    said = {"role": "assistant", "parts": [{"type": "text", "content": reply.text[:LONGEST]}]}
    return {
        semconv.INPUT_TOKENS: reply.tokens_in, semconv.OUTPUT_TOKENS: reply.tokens_out,
        semconv.CACHED_TOKENS: reply.tokens_cached, semconv.FINISH: [reply.finish],
        semconv.OUTPUT_MESSAGES: [said | {"finish_reason": reply.finish}],
    }  # fmt: skip


def replied(record: Mapping[str, Any]) -> Reply | ModelError:
    """What the model gave, from the record of it."""
    if "failed" in record and record["failed"] != "over the bound":
        return ModelError(record["failed"], record["failed"], lost=record["lost"])
    said = record[semconv.OUTPUT_MESSAGES][0]
    return Reply(
        said["parts"][0]["content"], said["finish_reason"], record[semconv.INPUT_TOKENS],
        record[semconv.OUTPUT_TOKENS], record[semconv.CACHED_TOKENS],
    )  # fmt: skip
