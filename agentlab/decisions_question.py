"""A question with a checkable answer: its phrasings, the answers it allows, and the strict reading of a reply."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from string import Template
from typing import Literal, TypeAlias

from agentlab.errors import AgentlabError
from agentlab.vote import RedFlag
from agentlab.vote_flags import FORMAT, RANGE, REPETITION, Flags

Kind: TypeAlias = Literal["parents", "failure", "run", "constraint", "log"]

Label: TypeAlias = int | float | str
"""What a reply names an option by: an entry's id, a run's id, a word, or a number that stands in a log."""

Key: TypeAlias = Label | tuple[Label, ...]
"""What is voted on: a label, or several in the order of the options."""

NONE = "none"
"""The answer that a log does not say."""

_ANSWER = re.compile(r"\banswer[ \t]*=", re.IGNORECASE)
_LAST = re.compile(r"^answer[ \t]*=[ \t]*([^\n]+)\Z", re.MULTILINE)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class DecisionError(AgentlabError):
    """A question that cannot be asked as it is."""


@dataclass(frozen=True, slots=True)
class Option:
    """One allowed answer: its label, which names it in any order, and what is told of it."""

    label: Label
    text: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, in several phrasings, and which answers there are.

    `phrasings` are templates, the base one first and at least a paraphrase; `fields` fills them in, and `$options` is
    the list of options. `several` is 0 where one label is the key, or how many labels make up the key. `reading` says
    what a label is read as: "label" as it is listed, "number" any way to write that number, "word" in any case.
    `max_tokens` and `longest` (characters) bound a reply.

    Raises:
        DecisionError: there is no paraphrase, a label comes twice, or is no identifier: a formula is never voted on.
    """

    kind: Kind
    phrasings: tuple[str, ...]
    options: tuple[Option, ...]
    fields: tuple[tuple[str, str], ...] = ()
    several: int = 0
    reading: Literal["label", "number", "word"] = "label"
    max_tokens: int = 512
    longest: int = 2000

    def __post_init__(self) -> None:
        labels = [o.label for o in self.options]
        if len(self.phrasings) < 2:
            raise DecisionError(f"{self.kind}: one phrasing; a question needs a paraphrase as well")
        if len(set(labels)) < len(labels):
            twice = next(x for x in labels if labels.count(x) > 1)
            raise DecisionError(f"{self.kind}: two options are labelled {twice!r}; give each its own")
        for label in labels:
            if self.reading == "label" and not _LABEL.fullmatch(str(label)):
                raise DecisionError(f"{self.kind}: {label!r} is no label; use ids of letters, digits, dots and dashes")

    @property
    def only(self) -> Key | None:
        """The key that needs no call because no other is possible; None where there is a choice, or nothing at all."""
        if self.several and 0 < len(self.options) <= self.several:
            return tuple(o.label for o in self.options)
        return self.options[0].label if len(self.options) == 1 else None

    @property
    def digest(self) -> str:
        """Sixteen letters that tell this question from any other: its kind, words, answers and bounds."""
        return f"{_digest(self):016x}"

    def order(self, seed: int, phrasing: int, draw: int) -> tuple[Option, ...]:
        """The options as a draw lists them: shuffled by chance, then turned by one place from draw to draw.

        Over as many draws as there are options each stands once at every place, so that a liking for a place is no
        liking for an option.
        """
        count = max(len(self.options), 1)
        shuffled = sorted(self.options, key=lambda o: _digest(seed, phrasing, draw // count, o.label))
        return tuple(shuffled[draw % count :] + shuffled[: draw % count])

    def prompt(self, phrasing: int, seed: int, draw: int) -> str:
        """What draw number `draw` of a phrasing asks."""
        listed = self.order(seed, phrasing, draw)
        lines = "\n".join(f"- {o.label}: {o.text}" if o.text else f"- {o.label}" for o in listed)
        return Template(self.phrasings[phrasing]).substitute(dict(self.fields), options=lines)

    def call_seed(self, rung: str, seed: int, draw: int) -> int:
        """The seed that a draw sends to the model: 31 bits, another one for every draw of every question."""
        return _digest(self, rung, seed, draw) >> 33

    def read(self, text: str) -> Key | RedFlag:
        """The key that a reply gives, or why it is discarded; nothing is repaired.

        Flags: "length"; "repetition", also of a label within an answer; "format" unless the last line is `answer = `
        and as many labels as were asked for, and no other place looks like it; "range" where a label is no option's.
        """
        flag = Flags(longest=self.longest, pattern=_ANSWER).flag(text)
        if flag is not None:
            return flag
        found = _LAST.search(text.rstrip())
        words = [w.strip() for w in found[1].split(",")] if found else []
        if len(words) != (self.several or 1) or not all(self._formed(w) for w in words):
            return RedFlag(FORMAT)
        by_name = {self._canonical(str(o.label)): o.label for o in self.options}
        named = [by_name.get(self._canonical(w)) for w in words]
        chosen = {label for label in named if label is not None}
        if None in named:
            return RedFlag(RANGE)
        if len(chosen) < len(words):
            return RedFlag(REPETITION)
        ordered = tuple(o.label for o in self.options if o.label in chosen)
        return ordered if self.several else ordered[0]

    def _formed(self, word: str) -> bool:
        if self.reading == "number":
            return word == NONE or bool(_NUMBER.fullmatch(word))
        return bool(_LABEL.fullmatch(word))

    def _canonical(self, word: str) -> Label:
        if self.reading == "number" and word != NONE:
            return float(word)
        return word.casefold() if self.reading == "word" else word


def _digest(*parts: object) -> int:
    """64 bits of what the parts are written as: the same on every machine and in every process."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big")
