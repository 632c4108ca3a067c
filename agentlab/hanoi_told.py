"""The moves of a tower as they are made and checked, and what `agentlab bench hanoi` says of them."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from agentlab.hanoi import Towers, astray, simulate
from agentlab.hanoi_expected import expected_calls
from agentlab.hanoi_oracle import Faults
from agentlab.hanoi_setting import Setting
from agentlab.steps import Chain, Counts, Walk


class Moves:
    """All moves of a tower, a byte each (4 source + target), in order whichever chain made them."""

    def __init__(self, towers: Towers, bounds: Sequence[tuple[int, int]]) -> None:
        self.made = bytearray(towers.moves)
        self._disks, self._lows, self._checked = towers.disks, [low for low, _ in bounds], [low for low, _ in bounds]
        # The first step of a later chain follows a move that is another chain's: the known one.
        self._before = {low: towers.right(towers.state_at(low - 1), low - 1) & 15 for low, _ in bounds if low}

    def note(self, index: int, keys: Sequence[Any]) -> None:
        """Keep the moves of steps `index`, `index + 1`, ..."""
        self.made[index : index + len(keys)] = bytes([key & 15 for key in keys])

    def wrong(self, chains: Sequence[Chain[int]]) -> int | None:
        """The first step of all that was decided wrongly, as far as is known; None while all are right."""
        self._checked = [self.right(at, chain.index) for at, chain in zip(self._checked, chains, strict=True)]
        off = [at for at, chain in zip(self._checked, chains, strict=True) if at < chain.index]
        return min(off, default=None)

    def right_ones(self) -> bytes | memoryview:
        """The moves of every chain up to its first wrong one, as far as `wrong` has looked."""
        whole, ends = memoryview(self.made), [*self._lows[1:], len(self.made)]
        if self._checked == ends or len(ends) == 1:
            return whole[: self._checked[-1]]  # no copy: a long tower's moves are the largest thing there is
        return b"".join(whole[low:end] for low, end in zip(self._lows, self._checked, strict=True))

    def verdict(self, made: bytes | memoryview) -> str:
        """What is missing of the right moves, "" where they solve the tower, as an independent simulator finds."""
        if len(made) < len(self.made):
            return f"{len(made):,} of {len(self.made):,} moves are right"
        return simulate(self._disks, made)

    def right(self, low: int, index: int) -> int:
        """Up to which step the moves from `low` to before `index` are right."""
        wrong = astray(self._disks, low, self.made[low:index])
        return index if wrong is None else wrong

    def before(self, index: int) -> int | None:
        """The move before a step, None before the first."""
        return self._before.get(index, self.made[index - 1]) if index else None


def result(setting: Setting, walk: Walk[int], moves: Moves, faults: Faults | None) -> dict[str, Any]:
    """What a walk came to; `faults` None for real models, whose calls nobody can foretell."""
    died, made = moves.wrong(walk.chains), moves.right_ones()
    verdict = moves.verdict(made)
    total = Counts.total(chain.counts for chain in walk.chains)
    stops = [c.undecided.reason if c.undecided else c.broke for c in walk.chains if c.undecided or c.broke]
    voting = walk.chains[0].voting
    expected = None if faults is None else round(expected_calls(faults, total.ahead, len(setting.rules.ladder)), 1)
    return {
        "solved": not verdict, "steps": len(made), "calls": total.draws + total.lost, "expected_calls": expected,
        "undecided": sum(c.undecided is not None for c in walk.chains), "escalated": total.escalated, "seconds": 0.0,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "moves_sha256": hashlib.sha256(made).hexdigest(), "verdict": verdict or "solved", "died_at": died,
        "stopped": stops[0] if stops else "", "k": voting.ahead, "waves": total.waves, "dissent": total.dissent,
        "flags": total.flags, "replayed": walk.replayed,
        "p_low": None if voting.measured is None else round(voting.measured.p_low, 6),
        "warning": "" if voting.measured is None else voting.measured.warning,
        "simulated": setting.model is None, "setting": asdict(setting),
    }  # fmt: skip


def page(result: dict[str, Any]) -> str:
    """The result for a person."""
    rows = [("tower", f"{result['setting']['disks']} disks, {result['steps']:,} moves: {result['verdict']}")]
    if result["died_at"] is not None:
        rows.append(("died", f"at step {result['died_at']:,}, which was decided wrongly"))
    if result["stopped"]:
        rows.append(("stopped", result["stopped"]))
    expected = "" if result["expected_calls"] is None else f", {result['expected_calls']:,.0f} expected"
    rows.append(("calls", f"{result['calls']:,}{expected}, in {result['waves']:,} waves; k = {result['k']}"))
    flags = ", ".join(f"{count:,} {reason}" for reason, count in sorted(result["flags"].items())) or "none"
    rows.append(("discarded", flags))
    rows.append(("votes", f"{result['dissent']:,} not unanimous, {result['escalated']:,} escalated"))
    if result["replayed"]:
        rows.append(("journal", f"{result['replayed']:,} steps were on record and not asked again"))
    rows.append(("time", f"{result['seconds']:,.1f} s, {result['peak_mb']:,.0f} MB"))
    rows.append(("moves", f"sha256 {result['moves_sha256']}"))
    lines = [f"{name:10s}{text}" for name, text in rows]
    if result["warning"]:
        lines.append(f"warning   {result['warning']}")
    if result["simulated"]:
        lines.append("\nthe answers are simulated; model=NAME base_url=http://.. asks a real model")
    return "\n".join([*lines, f"\nnext: {_next(result)}"])


def _next(result: dict[str, Any]) -> str:
    if result["solved"]:
        return "agentlab bench topology"
    if result["died_at"] is not None and result["setting"]["error"] >= 0.5:
        return "agentlab bench hanoi error=0.1; where most answers are wrong no k helps"
    if result["died_at"] is not None:
        anew = ", with another journal: this one holds the wrong step" if result["setting"]["journal"] else ""
        return f"agentlab bench hanoi disks={result['setting']['disks']} k={result['k'] + 1}{anew}"
    if result["setting"]["journal"] and result["stopped"]:
        return "the same command goes on from the journal"
    return "agentlab bench hanoi journal=hanoi.journal, which can be stopped and goes on"
