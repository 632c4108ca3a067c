"""What the models of a run came to, counted from its trace: decisions, replies, tokens and money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentlab import semconv
from agentlab.decisions import OUT_OF
from agentlab.trace import Record


@dataclass(frozen=True, slots=True)
class Spending:
    """What the models of a run came to.

    `replies` are None for a run without a writer; `rejects` counts what was refused before it was tried, by reason.
    `tokens` and `usd` hold calls that were lost as their worst case. `ended` says, after a semicolon, where the budget
    was spent, if it was.
    """

    decisions: Mapping[str, int]
    replies: Mapping[str, int] | None
    rejects: Mapping[str, int]
    tokens: int
    usd: float
    ended: str


def spending(records: Sequence[Record]) -> Spending | None:
    """What the models in a trace came to; None where the run had no model."""
    if "model" not in records[0]:
        return None
    votes = [r for r in records if r["kind"] == "decision"]
    replies = [r for r in records if r["kind"] == "reply"]
    lost = [r for r in records if r["kind"] == "lost"]
    decided = sum("key" in r for r in votes)
    counts = {"decided": decided, "undecided": len(votes) - decided, "calls": sum(r["calls"] for r in votes)}
    counts["tokens"] = sum(sum(r["tokens"].values()) for r in votes)
    spent = next((r for r in votes if r.get("undecided") in OUT_OF.values()), None)
    ended = "" if spent is None else f"; {spent['undecided']}: from candidate {spent['block']} on no model was asked"
    tokens = counts["tokens"] + sum(map(_tokens, replies)) + sum(r["tokens"] for r in lost)
    usd = sum(r.get("usd", 0.0) for r in (*votes, *replies, *lost))
    writes = any(r["kind"] == "turn" for r in records)
    return Spending(counts, _written(records) if writes else None, _rejects(replies), tokens, usd, ended)


def _tokens(reply: Record) -> int:
    """What a call took; the worst case where the reply was lost, nothing where it was refused."""
    if "tokens" in reply:
        return int(reply["tokens"])
    return int(reply.get(semconv.INPUT_TOKENS, 0)) + int(reply.get(semconv.OUTPUT_TOKENS, 0))


def _rejects(replies: Sequence[Record]) -> Mapping[str, int]:
    reasons = [reason.split(":")[0] for r in replies for reason, _ in r.get("rejects", ())]
    failed = [f"call failed, {r['failed']}" for r in replies if "failed" in r]
    return Counter(reasons) + Counter(failed)


def _written(records: Sequence[Record]) -> Mapping[str, int]:
    replies = [r for r in records if r["kind"] == "reply"]
    lost = sum(len(r["calls"]) for r in records if r["kind"] == "lost")
    return {
        "calls": len(replies) + lost,
        "failed": sum("failed" in r for r in replies) + lost,
        "proposals": sum(len(r.get("drafts", ())) for r in replies),
        "rejected": sum(len(r.get("rejects", ())) for r in replies),
        "tried": sum(r["kind"] == "entry" and "call" in r for r in records),
    }
