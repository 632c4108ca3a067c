"""Models that are none: one that a function answers for, and one that gives replies on record once more.

Neither is a language model. They serve tests, demonstrations and replays, and reach no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from agentlab.models_errors import ModelError
from agentlab.models_records import Prompt, Reply, Schema, messages

CHARACTERS = 4
"""Characters that a scripted model counts as one token."""


class Scripted:
    """A model that a function answers for, told the prompt's text and the seed: no language model.

    A token is CHARACTERS characters, so that counts are never above those that were set aside for a call; an answer is
    cut off at the limit.
    """

    def __init__(self, answer: Callable[[str, int], str | ModelError], model: str = "scripted") -> None:
        self.model = model
        self._answer = answer

    def __repr__(self) -> str:
        return f"Scripted({self.model!r}, no language model)"

    async def complete(
        self, prompt: Prompt, *, temperature: float, seed: int, max_tokens: int, schema: Schema | None = None
    ) -> Reply:
        """The answer of the function. Raises the ModelError that it returns."""
        del temperature, schema
        text = "\n".join(m.text for m in messages(prompt))
        said = self._answer(text, seed)
        if isinstance(said, ModelError):
            raise said
        kept = said[: CHARACTERS * max_tokens]
        return Reply(kept, "stop" if kept == said else "length", counted(text), counted(kept))


class Recorded:
    """The replies of a run that is over, and its failures, one after the other whatever is asked: no language model."""

    def __init__(self, replies: Iterable[Reply | ModelError], model: str = "recorded") -> None:
        self.model = model
        self._replies: Sequence[Reply | ModelError] = tuple(replies)
        self._given = 0

    def __repr__(self) -> str:
        return f"Recorded({self.model!r}, {len(self._replies)} replies, no language model)"

    async def complete(
        self, prompt: Prompt, *, temperature: float, seed: int, max_tokens: int, schema: Schema | None = None
    ) -> Reply:
        """The next reply on record. Raises ModelError where that one failed, or where all have been given."""
        del prompt, temperature, seed, max_tokens, schema
        if self._given == len(self._replies):
            have = len(self._replies)
            raise ModelError(
                "cannot be reached", f"model {self.model!r}: {have} replies are on record, and another one is asked for"
            )
        self._given += 1
        found = self._replies[self._given - 1]
        if isinstance(found, ModelError):
            raise found
        return found


def counted(text: str) -> int:
    """The tokens of a text as a scripted model counts them."""
    return -(-len(text) // CHARACTERS)
