"""Red flags of an answer that is text: too long, not in the format asked for, or going round in circles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentlab.vote import RedFlag

LENGTH, FORMAT, RANGE, REPETITION = "length", "format", "range", "repetition"

_ROUNDS = 3
_WORDS = 9
"""A run of words is a repetition when it comes three times in a row and the whole is nine words or longer."""
_LETTERS = 200
"""Letters of a run that is looked for inside a long word."""
_LONG_WORD = 60
"""Letters of a word above which the word itself is looked at, letter by letter."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What an answer may look like before anybody reads it.

    `longest` counts characters: answers that ramble are wrong more often than those of the usual length (MAKER,
    section 3.3). `pattern` must be found in the text exactly once, None asks for nothing.
    """

    longest: int = 4000
    pattern: re.Pattern[str] | None = None

    def flag(self, text: str) -> RedFlag | None:
        """The first reason to discard the text, None where there is none: length, then repetition, then format."""
        if len(text) > self.longest:
            return RedFlag(LENGTH)
        if repeats(text):
            return RedFlag(REPETITION)
        if not text.strip() or (self.pattern is not None and len(self.pattern.findall(text)) != 1):
            return RedFlag(FORMAT)
        return None


def repeats(text: str) -> bool:
    """Whether some run of words comes three times in a row, or a long word is made of such a run of letters."""
    words = text.split()
    return _circles(words) or any(len(word) > _LONG_WORD and _circles(word, _LETTERS) for word in words)


def _circles(items: Sequence[str], most: int | None = None) -> bool:
    """Whether a run of up to `most` items (a third of all) comes three times in a row, over nine items or more."""
    longest = len(items) // _ROUNDS
    for period in range(1, (longest if most is None else min(longest, most)) + 1):
        need = max((_ROUNDS - 1) * period, _WORDS - period)
        streak = 0
        for i in range(period, len(items)):
            streak = streak + 1 if items[i] == items[i - period] else 0
            if streak >= need:
                return True
    return False
