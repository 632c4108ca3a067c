"""Who predicts the rows of a split best: scores, and whether a difference is more than the choice of runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.metrics import digits, score
from agentlab.types import FloatArray, GroupParams, IntArray

DRAWS = 4000
INTERVAL = (5.0, 95.0)
OURS = "agentlab"


@dataclass(frozen=True)
class Standing:
    """Ours against one comparator: the paired-bootstrap 90% interval of (our MSE - theirs)/var(y), by run."""

    difference: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """How ours stands: "ahead", "tied" (the interval holds 0) or "behind"."""
        if self.low <= 0.0 <= self.high:
            return "tied"
        return "ahead" if self.high < 0.0 else "behind"


def figures(y: FloatArray, prediction: FloatArray) -> dict[str, float | None]:
    """Test R2, MAE and ARE; None where a prediction is not finite, which counts as a failure."""
    found = asdict(score(y, prediction))
    return {k: digits(found[k]) if np.isfinite(found[k]) else None for k in ("r2", "mae", "are")}


def compared(y: FloatArray, ours: FloatArray, theirs: FloatArray, run: IntArray, seed: int = 0) -> Standing | None:
    """Ours against theirs on the same rows (n,), drawing whole runs; None where a prediction of either is not finite.

    A single run, or runs that agree to the last bit, give the interval of width 0 at the difference itself.
    """
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return None
    spread = float(np.var(y))
    gain = ((ours - y) ** 2 - (theirs - y) ** 2) / (spread if spread > 0 else 1.0)
    labels, place = np.unique(run, return_inverse=True)
    total, rows = np.bincount(place, gain), np.bincount(place)
    drawn = np.random.default_rng([seed, len(labels)]).integers(0, len(labels), (DRAWS, len(labels)))
    means = total[drawn].sum(axis=1) / rows[drawn].sum(axis=1)
    low, high = np.percentile(means, INTERVAL)
    return Standing(digits(float(gain.mean())), digits(float(low)), digits(float(high)))


def verdict(scores: Mapping[str, Mapping[str, float | None]], standings: Mapping[str, Standing | None]) -> str:
    """The set in a word: "first" (least squared error), "tied" (behind no comparator), "behind: NAMES" or "failed"."""
    ours = scores[OURS]["r2"]
    if ours is None:
        return "failed"
    if all(s["r2"] is None or s["r2"] <= ours for s in scores.values()):
        return "first"
    behind = [name for name, standing in standings.items() if standing is not None and standing.word == "behind"]
    return f"behind: {', '.join(behind)}" if behind else "tied"


# ---- each look at a split is on record ----


def fingerprint(formula: str, params: GroupParams) -> str:
    """The first 16 digits of the SHA-256 of a law and its parameters."""
    text = json.dumps({"formula": formula, "params": params}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def note_opening(ledger: Path, name: str, law: str, rows: int, words: Mapping[str, Any]) -> dict[str, int]:
    """Add one line to the ledger before a split is read; returns how often it was opened and for how many laws."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"set": name, "law": law, "train_rows": rows, **words}) + "\n")
    openings = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    mine = [line["law"] for line in openings if line["set"] == name]
    return {"openings": len(mine), "laws": len(set(mine))}
