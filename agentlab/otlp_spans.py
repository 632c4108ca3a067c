"""A run as OpenTelemetry spans, read from its folder: nothing is sent here, and no extra is needed.

    invoke_agent agentlab            the run, with what it was asked and what it found
      chat MODEL                     a model call; without a model, calls whose replies were lost
      decide QUESTION                a vote, with its tally
      execute_tool fit.laws          a candidate

What the conventions have a name for goes by that name; other fields of a trace record are called agentlab.FIELD, and
those that are no plain values go as JSON. Candidates that are judged again at the end are left out.
The trace holds no times: they come from timing.jsonl beside it, counted from when the run was made. A span of which
nothing is known has no length and begins where the one before it ended. Ids follow from the run's name, its first
record and the number of the record, so that a run has the same ids every time.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from agentlab import semconv
from agentlab.discover import TIMING, TRACE
from agentlab.runs_files import CONFIG
from agentlab.trace import Record, TraceError, dump, follow, read

__all__ = ["AGENT", "Span", "Value", "read_spans", "trace_id"]

AGENT = "agentlab"

Value: TypeAlias = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]

_PLAIN = (str, bool, int, float)
_CONTENT = frozenset({semconv.INPUT_MESSAGES, semconv.OUTPUT_MESSAGES, "drafts"})
"""What was said to a model, or by one."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a run. Times are nanoseconds since 1970, ids 8 bytes; the run itself has no parent.

    `client` says that somebody else was asked, `failed` what went wrong, "" where nothing did.
    """

    name: str
    attributes: Mapping[str, Value]
    id: bytes
    parent: bytes
    start: int
    end: int
    client: bool = False
    failed: str = ""


def trace_id(folder: Path) -> bytes:
    """The 16 bytes that are common to all spans of a run.

    Raises:
        TraceError: there is no trace of a run.
    """
    path = folder / TRACE
    first = next(read(path), None) if path.is_file() else None
    if first is None or first.get("kind") != "run":
        raise TraceError(f"{path}: holds no run; begin it with: agentlab runs resume {folder}")
    return hashlib.sha256(folder.resolve().name.encode() + b"\n" + dump(first)).digest()[:16]


def read_spans(folder: Path, *, content: bool = True) -> Iterator[Span]:
    """The spans of a run in the order of its trace, the run itself last; prompts and replies only with `content`.

    Raises:
        TraceError: there is no trace of a run, or it is damaged.
    """
    whole, clock = trace_id(folder), _read_clock(folder)
    root = _span_id(whole, 0)
    run: dict[str, Value] = {semconv.OPERATION: semconv.INVOKE_AGENT, semconv.AGENT: AGENT}
    run["agentlab.run"] = folder.resolve().name
    for number, record in enumerate(read(folder / TRACE)):
        part = _span_id(whole, number)
        match record.get("kind"):
            case "entry":
                yield Span(*_entry(record), part, root, *clock.of_entry(record.get("id")))
            case "decision":
                yield Span(*_decision(record), part, root, *clock.now())
            case "reply":
                when, failed = clock.of_call(record.get("call")), str(record.get("failed") or "")
                yield Span(*_reply(record, content=content), part, root, *when, client=True, failed=failed)
            case "lost":
                told = {semconv.OPERATION: semconv.CHAT, semconv.ERROR: "lost"} | _attributes(record)
                yield Span(semconv.CHAT, told, part, root, *clock.now(), client=True, failed="lost")
            case "run":
                run |= _attributes(record)
            case "stop" | "law" | "holdout" as kind:
                run |= _attributes(record, f"agentlab.{kind}.")
    end = clock.at(max(clock.last, clock.noted))
    yield Span(f"{semconv.INVOKE_AGENT} {AGENT}", run, root, b"", clock.epoch, end)


def _span_id(whole: bytes, number: int) -> bytes:
    return hashlib.sha256(whole + number.to_bytes(8)).digest()[:8]


def _reply(record: Record, *, content: bool) -> tuple[str, dict[str, Value]]:
    told = _attributes({k: v for k, v in record.items() if k != "rejects" and (content or k not in _CONTENT)})
    if rejects := record.get("rejects"):
        # Each is a reason and what was said; the latter is part of the reply.
        told["agentlab.rejects"] = [str(r[0]) if isinstance(r, list) and r else str(r) for r in rejects]
    if failed := record.get("failed"):
        told[semconv.ERROR] = str(failed)
    told = {semconv.OPERATION: semconv.CHAT, semconv.PROVIDER: semconv.OPENAI} | told
    return f"{told[semconv.OPERATION]} {told.get(semconv.MODEL, '')}".rstrip(), told


def _decision(record: Record) -> tuple[str, dict[str, Value]]:
    tokens = record.get("tokens")
    told = _attributes({k: v for k, v in record.items() if k != "tokens"})
    if isinstance(tokens, dict):
        named = {semconv.INPUT_TOKENS: tokens.get("in"), semconv.OUTPUT_TOKENS: tokens.get("out")}
        told |= _attributes(named)
    return f"decide {record.get('question', '')}".rstrip(), told


def _entry(record: Record) -> tuple[str, dict[str, Value]]:
    tool = str(record.get("tool", ""))
    told = _attributes({k: v for k, v in record.items() if k != "tool"})
    named: dict[str, Value] = {semconv.OPERATION: semconv.EXECUTE_TOOL, semconv.TOOL: tool}
    return f"{semconv.EXECUTE_TOOL} {tool}", named | told


def _attributes(record: Record, prefix: str = "agentlab.") -> dict[str, Value]:
    """The fields of a record by the names they are sent under, those of a flat one within it each by its own name."""
    told: dict[str, Value] = {}
    for key, value in record.items():
        name = key if key.startswith(semconv.PREFIX) else prefix + key
        if isinstance(value, dict) and value and all(v is None or isinstance(v, _PLAIN) for v in value.values()):
            told |= _attributes(value, f"{name}.")
        elif key != "kind" and value is not None:
            told[name] = _value(value)
    return told


def _value(value: object) -> Value:
    match value:
        case str() | bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
        case int() | float():
            return str(value)
        case list() if _alike(value):
            return value
    return dump(value).decode().rstrip("\n")


def _alike(values: list[Any]) -> bool:
    """Whether a list holds plain values of one type that can be sent as they are."""
    return len({type(v) for v in values}) <= 1 and all(isinstance(v, _PLAIN) and _value(v) is v for v in values)


@dataclass
class _Clock:
    """When things happened, in nanoseconds, as far as it is known.

    `committed` are the numbers of candidates on record that were noted, rising, and `seconds` when they were. `calls`
    are the seconds at which model calls began, and those they took. `last` is the latest second that a span has
    reached, `noted` the latest that was noted.
    """

    epoch: int
    committed: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    calls: dict[int, tuple[float, float]] = field(default_factory=dict)
    last: float = 0.0
    noted: float = 0.0

    def at(self, seconds: float) -> int:
        return self.epoch + round(seconds * 1e9)

    def now(self) -> tuple[int, int]:
        return self._between(self.last, self.last)

    def of_entry(self, number: object) -> tuple[int, int]:
        """The time in which the block of a candidate was worked on."""
        if not isinstance(number, int) or (block := bisect_right(self.committed, number)) == len(self.committed):
            return self.now()
        return self._between(self.seconds[block - 1] if block else 0.0, self.seconds[block])

    def of_call(self, number: object) -> tuple[int, int]:
        if not isinstance(number, int) or number not in self.calls:
            return self.now()
        start, took = self.calls[number]
        return self._between(start, start + took)

    def _between(self, start: float, end: float) -> tuple[int, int]:
        self.last = max(self.last, end)
        return self.at(start), self.at(end)


def _read_clock(folder: Path) -> _Clock:
    config, timing = folder / CONFIG, folder / TIMING
    made = config if config.exists() else folder / TRACE
    clock = _Clock(made.stat().st_mtime_ns)
    for note in follow(timing)[0] if timing.exists() else []:
        seconds = _seconds(note.get("seconds"))
        committed, call = note.get("committed"), note.get("call")
        clock.noted = max(clock.noted, seconds)
        if isinstance(committed, int) and committed > (clock.committed[-1] if clock.committed else 0):
            clock.committed.append(committed)
            clock.seconds.append(max(seconds, clock.seconds[-1] if clock.seconds else 0.0))
        elif isinstance(call, int):
            clock.calls[call] = (_seconds(note.get("began")), _seconds(note.get("took")))
    return clock


def _seconds(value: object) -> float:
    """A duration from a note; 0 where it is none, for a note may be damaged."""
    return float(value) if isinstance(value, int | float) and 0 <= value < math.inf else 0.0
