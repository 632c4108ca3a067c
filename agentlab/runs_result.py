"""What a run found, read from its trace alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentlab.discover_files import TRACE
from agentlab.discover_spent import spending
from agentlab.law import parse
from agentlab.run_rows import read_rows
from agentlab.runs_files import read_config, seconds_of
from agentlab.trace import Record, number, read
from agentlab.types import AgentlabError
from agentlab.words import UsageError


class NoLawError(AgentlabError):
    """A budget was reached before any law was found."""

    exit_code = 3


ALIKE = 1e-6
"""Share by which errors may differ and count as the same: a form that is found again is not better than itself."""


def result(folder: Path) -> dict[str, Any]:
    """What a run found, in the form of DESIGN section 4, read from its trace alone."""
    config = read_config(folder)
    records = list(read(folder / TRACE)) if (folder / TRACE).exists() else []
    law = next((r for r in records if r["kind"] == "law"), None)
    if law is None:
        raise UsageError(f"{folder.name} has no law yet; continue it with: agentlab runs resume {folder}")
    if law["entry"] is None:
        raise NoLawError(f"{folder.name}: no law fitted the rows within the budget; raise budget.candidates=")
    holdout = next((r for r in records if r["kind"] == "holdout"), {})
    task, _ = read_rows(folder)
    below = [r for path in sorted(folder.glob(f"rounds/*/{TRACE}")) for r in read(path)]
    beside, spent = _beside(records), spending([*records, *below])
    program = law.get("program", False)
    latex = "" if program else parse(law["formula"], task.names).latex()
    counts = counts_of(records)
    cost: dict[str, Any] = {"seconds": seconds_of(folder), "usd": 0.0, "flops": 0.0}
    verdict = _verdict(law, holdout, beside)
    if (made := _made(records)) is not None:
        counts |= _searched(records)
        counts["experiments"] = made
        cost["flops"] = math.fsum(number(r["flops"]) for r in records if r["kind"] == "measured")
        verdict += "; its runs were simulated, nothing was trained" if made["simulated"] else ""
    if spent is not None:
        counts["decisions"] = spent.decisions
        counts["rejected"] = dict(sorted((Counter(counts["rejected"]) + Counter(spent.rejects)).items()))
        counts |= {} if spent.replies is None else {"replies": spent.replies}
        cost |= {"tokens": spent.tokens, "usd": spent.usd}
        verdict += spent.ended + ("; names and description were hidden from the model" if config.blind else "")
    return {
        "run": folder.name,
        "dir": str(folder),
        "task": records[0]["task"],
        "seed": config.seed,
        "proposer": records[0]["proposer"],
        "blind": config.blind,
        "law": {
            "formula": law["formula"],
            "latex": latex,
            "program": program,
            "key": law["key"],
            "n_params": law["n_params"],
            "params": law["params"],
            "intervals": law["intervals"],
            "entry": law["entry"],
        }
        | ({"round": law["round"]} if "round" in law else {}),
        "score": {
            "dev": law["dev"],
            "holdout": holdout.get("holdout"),
            "reference_holdout": holdout.get("reference"),
            "refitted_reference_holdout": holdout.get("reference_refitted"),
        },
        "baselines": beside,
        "luck": next(({k: v for k, v in r.items() if k != "kind"} for r in records if r["kind"] == "luck"), None),
        "counts": counts,
        "cost": cost,
        "verdict": verdict,
    }


def _made(records: Sequence[Record]) -> dict[str, Any] | None:
    """The runs that a loop over experiments made; None where none were asked for."""
    rounds = [r for r in records if r["kind"] == "round"]
    if not rounds:
        return None
    measured = [r for r in records if r["kind"] == "measured"]
    rejected = Counter(r["reason"].split(":")[0] for r in measured if r["status"] == "rejected")
    return {
        "made": sum(r["status"] == "ok" for r in measured),
        "rejected": dict(sorted(rejected.items())),
        "rounds": len(rounds) - 1,
        "simulated": any(r.get("simulated") for r in measured),
        "regret": [r["regret"] for r in rounds if "regret" in r],
        "ended": next((r["reason"] for r in records if r["kind"] == "stop"), ""),
    }


def _searched(records: Sequence[Record]) -> dict[str, Any]:
    """Candidates of all rounds together."""
    told = [r["counts"] for r in records if r["kind"] == "round"]
    rejected: Counter[str] = sum((Counter(t["rejected"]) for t in told), Counter())
    return {"evaluated": sum(t["evaluated"] for t in told), "rejected": dict(sorted(rejected.items()))}


def counts_of(records: Sequence[Record]) -> dict[str, Any]:
    """How many candidates of a trace were kept, and how many rejected, by reason."""
    entries = [r for r in records if r["kind"] == "entry"]
    rejected = Counter(r["reason"].split(":")[0] for r in entries if r["status"] == "rejected")
    return {"evaluated": len(entries) - sum(rejected.values()), "rejected": dict(sorted(rejected.items()))}


def _beside(records: Sequence[Record]) -> dict[str, Any]:
    """The baselines on the law's hidden rows by name, and which of them beats the law ("" where none does)."""
    found = next((r for r in records if r["kind"] == "baselines"), None)
    if found is None:
        return {"beaten_by": "", "dev": {}}
    return {"beaten_by": found["beaten_by"], "dev": {r["name"]: r["dev"] for r in found["rows"] if r["name"] != "law"}}


def _verdict(law: Record, holdout: Record, beside: Mapping[str, Any]) -> str:
    """The run in a sentence; scores are numbers, or "inf" where a law broke down."""
    found, reference = holdout.get("holdout"), holdout.get("reference_refitted") or holdout.get("reference")
    text = f"predicts the hidden top quarter by scale with a mean error of {_percent(law['dev'])}"
    if number(law["dev"]["r2"]) < 0:
        text += " (worse than their mean would)"
    if found is not None:
        text += f" and the sealed hold-out with {_percent(found)} (R2 {number(found['r2']):.3f})"
        if reference is not None:
            ours, theirs = number(found["nmse"]), number(reference["nmse"])
            better = "better than" if ours < (1 - ALIKE) * theirs else "no better than"
            text += f", {better} the published form ({_percent(reference)}, R2 {number(reference['r2']):.3f})"
    if name := beside["beaten_by"]:
        text = f"no law beats the baseline ({name}: {_percent(beside['dev'][name])}); the best formula {text}"
    if law.get("violations"):
        text += f"; breaks in the extrapolation box: {', '.join(law['violations'])}"
    return text


def _percent(score: Mapping[str, Any]) -> str:
    return f"{100 * number(score['are']):.2g}%"


def status(folder: Path) -> dict[str, Any]:
    """Where a run stands: its state, how many candidates are on record, its law."""
    path = folder / TRACE
    records = list(read(path)) if path.exists() else []
    law = next((r for r in records if r["kind"] == "law"), None)
    return {
        "run": folder.name,
        "state": "open" if law is None else "done",
        "evaluated": sum(r["kind"] == "entry" for r in records)
        + sum(r["counts"]["evaluated"] for r in records if r["kind"] == "round"),
        "formula": (law or {}).get("formula", ""),
    }
