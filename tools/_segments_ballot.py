"""What a replica's run of a segment is worth in the vote: a key that others may share, or a red flag."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from agentlab.tools._job_files import error_text, last_error, read_object
from agentlab.tools._segments_agreed import CHECKPOINT, sha256_of
from agentlab.tools._segments_replicas import Attempt
from pydantic import BaseModel, ValidationError

from agentlab.vote import Answer, RedFlag

RESULT, MODEL = "result.json", "model.safetensors"


class AnswerLine(BaseModel):
    """The trainer's line at the end of a segment; `flops` and `spikes` are of this segment, losses in nats per byte."""

    segment: int
    step: int
    status: Literal["ok", "diverged"]
    began: str | None
    state: str
    loss: float | None
    valid_loss: float | None
    valid_se: float | None
    norm: float | None
    spikes: int
    flops: int
    files: dict[str, str]

    @property
    def figures(self) -> tuple[float | None, ...]:
        """What is compared where a tolerance is declared."""
        return self.loss, self.valid_loss, self.norm


class Key(NamedTuple):
    """What two replicas must share to agree: what they came to, in words or as a digest, and every figure with it."""

    name: str
    figures: str


class Flagged(NamedTuple):
    """A discarded run: its number, the reason, and what was seen."""

    number: int
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A run that says something: the key, why it is suspicious ("" when it is not), and its line (None: an error)."""

    attempt: Attempt
    key: Key
    suspicion: str
    why: str
    line: AnswerLine | None


class Ballot:
    """The runs of one segment, turned into votes.

    Without a tolerance the key is the digest of the whole state, with every figure, the model and the result. With one,
    two answers agree when their training loss, validation loss and norm of the parameters agree to that relative
    difference, and an answer takes the key of the first one it agrees with. Agreement is then no equivalence (a ~ b and
    b ~ c do not give a ~ c), what is kept are the bits of the first answer seen, and a fault smaller than the tolerance
    goes through: it is for machines that do not repeat their bits, and should be a little above what they differ by.

    A run that diverged, spiked or gave an error is suspicious: seen once it is discarded, for a fault of the machine
    does this. But a fault of the machine does not repeat itself bit for bit, so that a suspicious answer whose key two
    runs have given is the truth about the config, and counts. Where the second came in a later wave the first stays
    discarded; where both came in one, both count, and replicas that all spike cost no run more than others.
    """

    def __init__(self, began: str | None, tolerance: float) -> None:
        self.began, self.tolerance = began, tolerance
        self.readings: dict[Key, list[Reading]] = {}
        self._given: Counter[Key] = Counter()
        self._firsts: list[Reading] = []

    def votes(self, attempts: Sequence[Attempt]) -> tuple[list[Answer], list[Flagged]]:
        """A vote or a red flag for each run of a wave, in order, and those that are flagged."""
        read = [(a, self._read(a)) for a in attempts]
        self._given.update(r.key for _, r in read if isinstance(r, Reading))
        votes: list[Answer] = []
        flagged = []
        for attempt, found in read:
            if isinstance(found, Flagged):
                votes.append(RedFlag(found.reason))
                flagged.append(found)
            elif found.suspicion and self._given[found.key] < 2:
                votes.append(RedFlag(found.suspicion))
                flagged.append(Flagged(attempt.number, found.suspicion, found.why))
            else:
                votes.append(found.key)
                self.readings.setdefault(found.key, []).append(found)
        return votes, flagged

    def _read(self, attempt: Attempt) -> Reading | Flagged:
        number = attempt.number
        if attempt.ended == "stall":
            return Flagged(number, "stall", "no line came in time")
        error = attempt.line("error")
        if error is not None:
            why = error_text(error)
            if error.get("where") == CHECKPOINT:
                return Flagged(number, "checksum", why)
            return Reading(attempt, Key("error", json.dumps(error)), "error", why, None)
        last = attempt.line("answer")
        told = attempt.line("segment") or attempt.line("diverged")
        if attempt.ended == "died" or last is None or told is None:
            return Flagged(number, "died", last_error(attempt.folder / "errors.txt") or "it ended without an answer")
        try:
            line = AnswerLine.model_validate(last)
        except ValidationError as invalid:
            return Flagged(number, "format", f"its answer has {invalid.error_count()} bad fields")
        wrong = self._wrong_digest(attempt, line)
        if wrong:
            return Flagged(number, "checksum", wrong)
        return self._reading(attempt, line)

    def _wrong_digest(self, attempt: Attempt, line: AnswerLine) -> str:
        if line.began != self.began:
            return "it did not begin from the agreed state"
        if not {CHECKPOINT, RESULT} & set(line.files):
            return "it left neither a checkpoint nor a result"
        for name, digest in line.files.items():
            if sha256_of(attempt.folder / name) != digest:
                return f"{name} has not the digest it was written with"
        return ""

    def _reading(self, attempt: Attempt, line: AnswerLine) -> Reading:
        diverged = line.status == "diverged"
        name = f"diverged at step {line.step}" if diverged else line.state
        result = (read_object(attempt.folder / RESULT) or {}) | {"seconds": None} if RESULT in line.files else None
        told = [line.segment, line.step, line.state, line.loss, line.valid_loss, line.valid_se]
        figures = json.dumps([told, line.files.get(MODEL), result])
        suspicion = "nan" if diverged else "spike" if line.spikes else ""
        why = name if diverged else f"{line.spikes} spikes of the loss" if line.spikes else ""
        found = Reading(attempt, Key(name, figures), suspicion, why, line)
        if not self.tolerance:
            return found
        for first in self._firsts:
            if first.line is not None and self._agree(first.line, line):
                return Reading(attempt, first.key, suspicion, why, line)
        self._firsts.append(found)
        return found

    def _agree(self, a: AnswerLine, b: AnswerLine) -> bool:
        if (a.segment, a.step, a.status) != (b.segment, b.step, b.status):
            return False
        return a.status == "diverged" or all(map(self._close, a.figures, b.figures))

    def _close(self, a: float | None, b: float | None) -> bool:
        if a is None or b is None:
            return a is b
        return math.isclose(a, b, rel_tol=self.tolerance)
