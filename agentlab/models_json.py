"""The JSON objects that a model's reply holds, in good form or nearly so; no text is ever run.

found = objects_in(reply.text)
if isinstance(found, Unread): ...      # found.reason is a name
for one in found: one.value, one.mended
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from agentlab.models_json_loose import DEEPEST, BadJsonError, Mended, Reason, number, read_object
from agentlab.models_records import whole

__all__ = ["DEEPEST", "LONGEST", "Found", "Reason", "Unread", "objects_in"]

LONGEST = 2**20
"""Characters of a reply that is looked at."""

MOST = 1000
"""Objects that are taken from it."""

FUTILE, EACH, A_CHARACTER = 100_000, 10.0, 0.5
"""Work on braces that begin no object after which it is given up; what such a brace counts for, and each character that
was read after it: about a millionth of a second each."""

STRICT, A_PART = 32, 2**14
"""Braces for which the fast reader may fail before the other one is left alone; so many characters count like one."""

_THOUGHT = "think|thinking|thought|reasoning"
_MARK = re.compile(rf"""\{{(?=\s*["'}}/#])|<({_THOUGHT})>|</(?:{_THOUGHT})>|\{{\s*\Z""")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Found:
    """An object, and what had to be mended before it could be read, such as "trailing commas" or "cut off"."""

    value: dict[str, Any]
    mended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unread:
    """No object could be read: why, and up to which character."""

    reason: Reason
    at: int


def objects_in(text: str) -> tuple[Found, ...] | Unread:
    """The objects in a reply, in their order: bare, in a fence, after prose, or within a list.

    What stands in a block of thought, such as <think>..</think>, is not looked at. Mended are: trailing commas, single
    quotes, comments, line breaks in strings, stray backslashes, the words True, False and None, numbers such as .5, a
    key that is there twice (the first one counts), halves of characters, and a reply that was cut off: what is open is
    closed, and of a list the whole elements stay. Of an object that cannot be mended, the whole objects inside are
    taken, and they and all that follow are marked. NaN, infinity and numbers too large for a float are refused, nesting
    deeper than `DEEPEST` too. Raises nothing.
    """
    if len(text) > LONGEST:
        return Unread("too long", LONGEST)
    search = _Search(whole(text))
    search.run()
    return tuple([one for one in search.found if one.value] or search.found[:1]) or search.failed


class _Search:
    """A text, what was found in it, and why nothing was; `reach` is the length of the longest object that failed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Found] = []
        self.failed = Unread("no JSON", len(text))
        self.reach = 0
        self.left = float(FUTILE)
        self.strict = STRICT
        self.mended: Mended = {}
        self.decoder = json.JSONDecoder(
            object_pairs_hook=partial(_pairs, self.mended), parse_int=number, parse_float=number, parse_constant=number
        )

    def run(self) -> None:
        at = 0
        while self.left > 0 and len(self.found) < MOST and (mark := _MARK.search(self.text, at)) is not None:
            if mark[1]:
                at = self.text.find(f"</{mark[1]}>", mark.end()) + len(mark[0]) + 1
                if at <= len(mark[0]):
                    self.failed = Unread("cut off", len(self.text))
                    return
            elif mark[0][0] == "<":  # where it began may be in the prompt
                self.found, at = [], mark.end()
            else:
                at = max(mark.end(), self.brace(mark.start()))
        if self.left <= 0 and not self.reach:
            self.failed = Unread("too tangled", at)

    def brace(self, start: int) -> int:
        """Read the object that begins there, if one does; where to go on, 0 for right behind the brace."""
        self.mended.clear()
        try:
            value, end = self.read(start)
        except BadJsonError as error:
            self.left -= EACH + A_CHARACTER * (error.at - start)
            if error.reason != "no JSON" and error.at - start > self.reach:
                self.failed, self.reach = Unread(error.reason, error.at), error.at - start
            return error.at if error.reason == "too deep" else 0
        beside = ("beside a broken object",) if self.reach else ()
        self.found.append(Found(value, (*self.mended, *beside)))
        return end

    def read(self, start: int) -> tuple[dict[str, Any], int]:
        """The object as it should be written, which is fast, and else as it can be mended."""
        if self.strict > 0:
            try:
                value, end = self.decoder.raw_decode(self.text, start)
            except (ValueError, RecursionError) as error:
                self.strict -= 1 + (getattr(error, "pos", start + STRICT * A_PART // 4) - start) // A_PART
                self.mended.clear()
            else:
                if not _shallow(value, self.text, start, end):
                    raise BadJsonError("too deep", end)
                if _HALF.search(self.text, start, end):
                    value = _cleaned(value, self.mended)
                return value, end
        return read_object(self.text, start, self.mended)


def _pairs(mended: Mended, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        mended["duplicate keys"] = None
        found = {}
        for key, value in pairs:
            found.setdefault(key, value)
    return found


def _shallow(value: object, text: str, start: int, end: int) -> bool:
    """Whether nothing lies deeper than it may."""
    if text.count("{", start, end) + text.count("[", start, end) <= DEEPEST:
        return True
    level = [value]
    for _ in range(DEEPEST):
        inner = [v for v in level if isinstance(v, dict | list)]
        level = [child for v in inner for child in (v.values() if isinstance(v, dict) else v)]
    return not any(isinstance(v, dict | list) for v in level)


def _cleaned(value: Any, mended: Mended) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The value with halves of characters marked as broken."""
    if isinstance(value, str):
        clean = whole(value)
        if clean != value:
            mended["broken characters"] = None
        return clean
    if isinstance(value, list):
        return [_cleaned(v, mended) for v in value]
    if isinstance(value, dict):
        return _pairs(mended, [(_cleaned(k, mended), _cleaned(v, mended)) for k, v in value.items()])
    return value
