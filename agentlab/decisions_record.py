"""A voted decision as a line of the trace, and back: what was elected, by which votes, at what cost in tokens."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from agentlab.budget_cost import NANO
from agentlab.decisions_question import Question
from agentlab.trace import Record, TraceError
from agentlab.vote import Decision, Outcome, Tally, Undecided


class Receipt(NamedTuple):
    """What one call took, by the server's count, and what that cost in nano-dollars; the worst case of a lost reply."""

    tokens_in: int
    tokens_out: int
    nanos: int = 0


def decision_record(question: Question, outcome: Outcome, receipts: Sequence[Receipt] = ()) -> Record:
    """The decision as a trace record: no times, hosts, model names, prompts or replies.

    "key" stands there where it was decided, "undecided" with the reason where it was not; "asked" is the question's
    digest, so that a replay can tell whether it is the same one.
    """
    record: Record = {"kind": "decision", "question": question.kind, "asked": question.digest}
    if isinstance(outcome, Decision):
        record["key"] = outcome.key
    else:
        record["undecided"] = outcome.reason
    nanos = sum(r.nanos for r in receipts)
    if nanos:
        record["usd"] = nanos / NANO
    tokens = {"in": sum(r.tokens_in for r in receipts), "out": sum(r.tokens_out for r in receipts)}
    return record | {
        "tally": [_tally_record(t) for t in outcome.tallies],
        "flags": outcome.flags,
        "draws": outcome.draws,
        "waves": outcome.waves,
        "calls": len(receipts),
        "tokens": tokens,
        "escalated": outcome.escalated,
    }


def _tally_record(tally: Tally) -> Record:
    return {
        "rung": tally.rung,
        "votes": [[key, count] for key, count in tally.votes.items()],
        "flags": dict(tally.flags),
        "draws": tally.draws,
        "waves": tally.waves,
        "opening": [[key, count] for key, count in tally.opening.items()],
    }


def read_decision(record: Mapping[str, Any], question: Question | None = None) -> Outcome:
    """The outcome that `decision_record` wrote, equal to it: a replay takes it from here and makes no call.

    Raises:
        TraceError: it is no record of a decision, or one of another question than `question`.
    """
    if question is not None and record.get("asked") != question.digest:
        raise TraceError(f"trace: a decision about {record.get('question')!r} stands where another one was asked")
    try:
        tallies = tuple(_read_tally(t) for t in record["tally"])
        if "undecided" in record:
            return Undecided(tallies, reason=str(record["undecided"]))
        return Decision(tallies, key=_key(record["key"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise TraceError("trace: a record of a decision is damaged; restore the file from a copy") from None


def _read_tally(record: Mapping[str, Any]) -> Tally:
    return Tally(
        rung=record["rung"],
        votes={_key(key): int(count) for key, count in record["votes"]},
        flags=dict(record["flags"]),
        draws=record["draws"],
        waves=record["waves"],
        opening={_key(key): int(count) for key, count in record["opening"]},
    )


def _key(value: object) -> Hashable:
    """A key from JSON, where a tuple is a list."""
    return tuple(value) if isinstance(value, list) else value
