"""Text to words: names split on case and underscore, small words dropped, endings cut."""

from __future__ import annotations

import re

_RUNS = re.compile(r"[^\W\d_]+|\d+")
_HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_SMALL = """
a an and any are as at be been by can could do does for from had has have her his how i if in into is it its let me my
need of on or our out please she so some that the their them then there these they this those to up us want was we were
what when where which who will with would you your
"""

SMALL = frozenset(_SMALL.split())
"""Words that say nothing about what a tool does; question words and politeness among them."""


def words(text: str) -> list[str]:
    """The telling words of a text in order, in small letters, without endings: "fitLaws_2" -> fit, law, 2."""
    pieces = (hump.lower() for run in _RUNS.findall(text) for hump in _HUMPS.split(run))
    return [stem(piece) for piece in pieces if piece not in SMALL]


def stem(word: str) -> str:
    """A word of small letters without the endings of plurals, participles and adverbs.

    A few rules for English: they make "queries" and "query" meet, not every pair that a linguist would.
    """
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed", "ly"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 3 and any(letter in "aeiouy" for letter in rest):
            double = len(rest) > 3 and rest[-1] == rest[-2] and rest[-1] not in "lsz"
            word = rest[:-1] if double else rest
            break
    return word[:-1] if len(word) > 4 and word.endswith("e") else word
