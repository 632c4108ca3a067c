"""Reads an object of JSON that is not quite JSON: with single quotes, comments, loose ends, or cut off."""

from __future__ import annotations

import math
import re
from typing import Any, Literal, TypeAlias

from agentlab.models_records import whole

DEEPEST = 64
"""Objects and lists that may lie in one another."""

DIGITS = 300
"""Digits that a whole number may have: a float still holds it."""

LONGEST = 2**18
"""Characters that are read of an object before it is given up."""

Reason: TypeAlias = Literal["no JSON", "malformed", "cut off", "not a number", "too deep", "too long", "too tangled"]

Mended: TypeAlias = dict[str, None]
"""What was mended, in the order it was met."""

_TOKEN = re.compile(
    r"""\s*+(?:
      (?P<sign>[][{},:])
    | (?P<string>"(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+')
    | (?P<word>[-+.\w]++)
    | (?P<comment>//[^\n]*+ | \#[^\n]*+ | /\*.*?(?:\*/|\Z))
    | (?P<end>["'].*+ | \Z)                                  # a string that does not end
    | (?P<other>.)
    )""",
    re.DOTALL | re.VERBOSE,
)
_BEGUN = re.compile(r'\{\s*(?:"|\Z)')
_CONTROL = re.compile(r"[\x00-\x1f]")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_OTHER_ESCAPES = {"'": "'", "\n": ""}
_WORDS = {"true": True, "false": False, "null": None}
_PYTHON_WORDS = {"True": True, "False": False, "None": None}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_LOOSE_NUMBER = re.compile(r"[-+]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?(?:nan|inf|infinity)", re.IGNORECASE)


class BadJsonError(ValueError):
    """The text cannot be read as an object, for a named reason, from the character `at` on."""

    def __init__(self, reason: Reason, at: int = 0) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.at = at


def number(word: str) -> int | float:
    """The number that a word of JSON writes. Raises BadJsonError where it is none, or none that a float can hold."""
    if word.lstrip("-").isdecimal():
        if len(word) > DIGITS:
            raise BadJsonError("not a number")
        return int(word)
    found = float(word)
    if not math.isfinite(found):
        raise BadJsonError("not a number")
    return found


def read_object(text: str, start: int, mended: Mended) -> tuple[dict[str, Any], int]:
    """The object that begins at a brace, and where it ends; what was mended is noted. Raises BadJsonError."""
    reader = _Reader(text, start, mended)
    try:
        for token in _TOKEN.finditer(text, start):
            reader.take(token)
            if reader.done is not None:
                return reader.done, token.end()
            if token.lastgroup == "end":
                break
    except BadJsonError as error:
        raise BadJsonError(error.reason if reader.keyed else "no JSON", reader.at) from None
    found = reader.cut_off()
    if not found:
        raise BadJsonError("cut off" if reader.keyed or _BEGUN.match(text, start) else "no JSON", len(text))
    mended["cut off"] = None
    return found, len(text)


class _Reader:
    """What is open while a text is read, a token at a time; `keyed` once something was read that only an object has.

    `expect` takes the next token. A value goes into what it is part of once it is whole.
    """

    def __init__(self, text: str, start: int, mended: Mended) -> None:
        self.text, self.mended = text, mended
        self.at, self.stop = start, start + LONGEST
        self.keyed = False
        self.done: dict[str, Any] | None = None
        self.open: list[dict[str, Any] | list[Any]] = []
        self.keys: list[str] = [""]
        self.expect = self.value

    def take(self, token: re.Match[str]) -> None:
        kind = token.lastgroup
        self.at = token.start(kind or 0)
        if self.at > self.stop:
            raise BadJsonError("too long")
        if kind == "comment":
            self.mended["comments"] = None
        # A word at the very end may not be whole.
        elif kind != "end" and not (kind == "word" and token.end() == len(self.text)):
            self.expect(token)

    def value(self, token: re.Match[str]) -> None:
        kind, said = token.lastgroup, token[token.lastgroup or 0]
        if kind == "string":
            self.put(self.string(said))
        elif kind == "word":
            self.put(self.word(said))
        elif said not in ("{", "["):
            raise BadJsonError("malformed")
        elif len(self.open) == DEEPEST:
            raise BadJsonError("too deep")
        else:
            self.open.append({} if said == "{" else [])
            self.keys.append("")
            self.expect = self.key_or_end if said == "{" else self.value_or_end

    def value_or_end(self, token: re.Match[str]) -> None:
        if token["sign"] == "]":
            self.close()
        else:
            self.value(token)

    def key_or_end(self, token: re.Match[str]) -> None:
        if token["sign"] == "}":
            self.close()
        elif token.lastgroup == "string":
            self.keys[-1] = self.string(token["string"])
            self.expect = self.colon
        else:
            raise BadJsonError("malformed")

    def colon(self, token: re.Match[str]) -> None:
        if token["sign"] != ":":
            raise BadJsonError("malformed")
        self.keyed = True
        self.expect = self.value

    def comma_or_end(self, token: re.Match[str]) -> None:
        sign, in_object = token["sign"], isinstance(self.open[-1], dict)
        if sign == ",":
            self.expect = self.key_or_loose_end if in_object else self.value_or_loose_end
        elif sign == ("}" if in_object else "]"):
            self.close()
        else:
            raise BadJsonError("malformed")

    def key_or_loose_end(self, token: re.Match[str]) -> None:
        self.loose_end(token["sign"] == "}")
        self.key_or_end(token)

    def value_or_loose_end(self, token: re.Match[str]) -> None:
        self.loose_end(token["sign"] == "]")
        self.value_or_end(token)

    def loose_end(self, found: bool) -> None:
        if found:
            self.mended["trailing commas"] = None

    def close(self) -> None:
        value = self.open.pop()
        self.keys.pop()
        if self.open:
            self.put(value)
        elif isinstance(value, dict):
            self.done = value

    def put(self, value: Any) -> None:  # noqa: ANN401 - whatever JSON holds
        into = self.open[-1]
        if isinstance(into, list):
            into.append(value)
        elif self.keys[-1] in into:
            self.mended["duplicate keys"] = None
        else:
            into[self.keys[-1]] = value
        self.expect = self.comma_or_end

    def cut_off(self) -> dict[str, Any] | None:
        """What is whole so far: open objects and lists are closed, but for those that are elements of a list."""
        while len(self.open) > 1:
            inner = self.open.pop()
            self.keys.pop()
            into = self.open[-1]
            if inner and isinstance(into, dict):
                into.setdefault(self.keys[-1], inner)
        first = self.open[0] if self.open else None
        return first if isinstance(first, dict) else None

    def string(self, said: str) -> str:
        body = said[1:-1]
        if said[0] == "'":
            self.mended["single quotes"] = None
        if _CONTROL.search(body):
            self.mended["line breaks in strings"] = None
        if "\\" not in body:
            return body
        found = _ESCAPE.sub(self.escape, body)
        clean = whole(found)
        if "\ufffd" in clean and "\ufffd" not in found:
            self.mended["broken characters"] = None
        return clean

    def escape(self, found: re.Match[str]) -> str:
        code, sign = found[1] or found[2], found[3]
        if sign in _ESCAPES:
            return _ESCAPES[sign]
        if not found[1]:
            self.mended["backslashes"] = None
        return chr(int(code, 16)) if code else _OTHER_ESCAPES.get(sign, found[0])

    def word(self, word: str) -> Any:  # noqa: ANN401 - a number, a truth value, or null
        if word in _WORDS:
            return _WORDS[word]
        if word in _PYTHON_WORDS:
            self.mended["Python words"] = None
            return _PYTHON_WORDS[word]
        if _NO_NUMBER.fullmatch(word):
            raise BadJsonError("not a number")
        if not _NUMBER.fullmatch(word):
            if not _LOOSE_NUMBER.fullmatch(word):
                raise BadJsonError("malformed")
            self.mended["numbers"] = None
        return number(word.lstrip("+"))
