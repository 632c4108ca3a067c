"""What a search did, as columns for the page: its candidates, its votes, and what its models were asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentlab import semconv
from agentlab.program_text import KEY
from agentlab.replay import Run
from agentlab.trace import Record
from agentlab.web.words import coded, finite, plain

MOST_TEXT = 4_000_000
"""Characters of prompts and replies on one page; later calls keep their figures alone."""

WORDS = ("formula", "reason", "proposer", "operator", "structure", "violations")
"""Columns of a candidate that hold words, most of them over and over."""


def entry_row(record: Record, line: int) -> dict[str, Any]:
    """A candidate as the page knows it; `line` of its trace holds it."""
    dev = record.get("dev") or {}
    return {
        "id": record["id"],
        "line": line,
        "ok": int(record["status"] == "ok"),
        "program": int(record["key"].startswith(KEY)),
        "formula": record["formula"],
        "reason": record.get("reason", ""),
        "proposer": record["proposer"],
        "operator": record["operator"],
        "structure": record.get("structure", ""),
        "violations": ", ".join(record.get("violations", ())),
        "parents": record["parents"],
        "island": record["island"],
        "call": record.get("call"),
        "objective": finite(record.get("objective")),
        "mdl": finite(record.get("mdl")),
        "n_params": record.get("n_params"),
        "complexity": record.get("complexity"),
        "are": finite(dev.get("are")),
        "r2": finite(dev.get("r2")),
    }


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows of one kind as columns; columns of words are coded."""
    names = list(rows[0]) if rows else []
    return {n: coded([r[n] for r in rows]) if n in WORDS else [r[n] for r in rows] for n in names}


def candidates(run: Run) -> dict[str, Any]:
    """The candidates of a run as columns, in the order in which they were asked for."""
    return columns([entry_row(r, r["trace_line"]) for r in run.of("entry")])


def vote_row(record: Record, line: int) -> dict[str, Any]:
    """A decision that models voted on: each rung's votes, and what was elected."""
    tally = [
        {
            "rung": t["rung"],
            "draws": t["draws"],
            "waves": t["waves"],
            "flags": t["flags"],
            "votes": [[_choice(key), count] for key, count in t["votes"]],
        }
        for t in record["tally"]
    ]
    told = {k: record.get(k) for k in ("block", "k", "question", "undecided", "draws", "calls", "escalated", "usd")}
    elected = _choice(record["key"]) if "key" in record else None
    return plain({"line": line, "elected": elected, "tally": tally, "tokens": record["tokens"]} | told)  # type: ignore[no-any-return]


def _choice(key: object) -> str:
    return ", ".join(map(str, key)) if isinstance(key, list) else str(key)


def call_row(record: Record, line: int, *, texts: bool = True) -> dict[str, Any]:
    """A call of a model: what it was asked and what it said, or why there is no reply."""
    told = {
        "line": line,
        "call": record.get("call", ", ".join(map(str, record.get("calls", ())))),
        "model": record.get(semconv.MODEL, ""),
        "temperature": finite(record.get(semconv.TEMPERATURE)),
        "tokens_in": record.get(semconv.INPUT_TOKENS),
        "tokens_out": record.get(semconv.OUTPUT_TOKENS),
        "usd": finite(record.get("usd")),
        "failed": record.get("failed", "no reply was seen" if record["kind"] == "lost" else ""),
        "drafts": [{"operator": d[2], "formula": d[0], "idea": d[4]} for d in record.get("drafts", ())],
        "rejects": record.get("rejects", []),
    }
    messages = [*record.get(semconv.INPUT_MESSAGES, ()), *record.get(semconv.OUTPUT_MESSAGES, ())] if texts else []
    return told | {"messages": [[m["role"], "\n".join(p.get("content", "") for p in m["parts"])] for m in messages]}


def calls(run: Run) -> list[dict[str, Any]]:
    """The calls of models, with their texts as far as MOST_TEXT goes."""
    found, length = [], 0
    for record in run.prompts():
        row = call_row(record, record["trace_line"])
        length += sum(len(text) for _, text in row["messages"])
        found.append(row if length <= MOST_TEXT else call_row(record, record["trace_line"], texts=False))
    return found
