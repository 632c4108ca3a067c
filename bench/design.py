"""Designs of the next runs in simulated worlds: the FLOPs at which each reaches the regret of the best baseline.

    python bench/design.py [worlds=50] [repeats=2] [most=12] [out=bench/work]

Synthetic: planted laws as training runs that cost FLOPs (agentlab.planted_worlds), labelled as such. All designs begin
with the same pilot of cheap runs and get the same budgets: round r may spend 2^r of the first, at most `most` runs, up
to the compute of the largest usual run in all; the decision is asked for at a hundred times that compute. `design` and
`d_optimal` fit the planted form (its constants are not told) and the rivals of its kind, knowing of the noise that it
is about 1%. A design is judged by its runs: 48 times their results are drawn anew with the true noise, every law is
fitted, the one with the best Bayesian information criterion decides, and the regret of the decision under the truth,
in % of its compute, is averaged (at most 1,000% each). FLOPs to a regret are read off by interpolation in logarithms,
over the geometric mean of the repeats: the point from which it is kept. The regret to reach is the one that the best
baseline has at the end. A line is appended to `design.jsonl` in `out` for every play; one there is not made again.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import RESULTS, save

from agentlab.allocation import best
from agentlab.allocation_regret import Yardstick
from agentlab.belief import DRAWS, Belief, believe
from agentlab.descent import Schedule, descend
from agentlab.fitting import FitOptions, Sample, fit_samples
from agentlab.law import Law
from agentlab.objective import Direct
from agentlab.planted_worlds import KINDS, World, world
from agentlab.proposers.design import DESIGNS, Round
from agentlab.search import limits_of
from agentlab.types import FloatArray, IntArray
from agentlab.varpro import Bound, Data
from agentlab.words import read_words

ROUNDS, LONGEST = 9, 14
"""Rounds whose budgets double, and how many there are at most: a design that saves may go on."""
REDRAWN, WORST = 48, 1000.0
NOISE = 0.01
"""What is known of the noise beforehand."""
HALF, NOT_MUCH_MORE = 0.5, 1.1
BASELINES = tuple(name for name in DESIGNS if name != "design")


@dataclass(frozen=True)
class Words:
    """The words of the benchmark."""

    worlds: int = 50
    repeats: int = 2
    most: int = 12
    out: str = "bench/work"


@dataclass(frozen=True)
class Judge:
    """What a set of runs is worth in a world; `known` keeps fits of rivals to noiseless rows, as good starts."""

    world: World
    yard: Yardstick
    known: dict[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def of(cls, one: World) -> Judge:
        """The judge of a world."""
        return cls(one, Yardstick.of(one.truth, one.params, one.question))

    def regret(self, places: IntArray, seed: int) -> float:
        """The mean regret, in %, of the decisions that redrawn results of the runs lead to."""
        w, n = self.world, len(places)
        columns = {k: v[places] for k, v in w.space.columns.items()}
        truth = np.broadcast_to(w.truth.evaluate(columns, w.params), (n,))
        chance = np.random.default_rng([77, seed, n]).standard_normal((REDRAWN, n))
        drawn = truth * np.exp(w.noise * chance)
        score, lost = np.full(REDRAWN, math.inf), np.full(REDRAWN, WORST)
        for law in w.laws:
            start = self._start(law, columns, np.array(truth))
            if start is None:
                continue
            used = {c: columns[c] for c in law.used}
            system = Direct.bind(Bound(law, Data(used, drawn, np.ones_like(drawn))), log=True)
            with np.errstate(all="ignore"):
                found = descend(system, system.at(np.tile(start, (REDRAWN, 1))), limits_of(law, {}), Schedule(40, 1e-8))
            mine = found.cost / w.noise**2 + law.n_params * math.log(n)
            better = mine < score
            if better.any():
                regret = self.yard.regret(best(law, found.theta[better], w.question).config)
                lost[better] = np.where(np.isfinite(regret), np.minimum(regret, WORST), WORST)
                score[better] = mine[better]
        return float(lost.mean())

    def _start(self, law: Law, columns: Mapping[str, FloatArray], truth: FloatArray) -> FloatArray | None:
        """Where fits of a law to redrawn results begin; None where it could not explain them at all."""
        if len(truth) < law.n_params + 1:
            return None
        if law is self.world.truth:
            return self.world.params
        warm = (self.known[law.text],) if law.text in self.known else ()
        sample = Sample({c: columns[c] for c in law.used}, truth, np.ones(len(truth)), warm)
        fit = fit_samples(law, [sample], FitOptions(residual="log", starts=2 if warm else 6))[0]
        if not fit.ok:
            return None
        self.known[law.text] = fit.params
        hopeless = fit.rss / self.world.noise**2 > 60.0 + 10.0 * self.world.truth.n_params
        return None if hopeless else fit.params


def play(one: World, how: str, repeat: int, most: int) -> list[tuple[float, float, int]]:
    """Rounds of one design in a world: FLOPs in shares of the largest run, regret in %, runs."""
    judge, options = Judge.of(one), FitOptions(residual="log", starts=8)
    order = np.argsort(one.space.cost, kind="stable")
    first = one.truth.n_params + 3
    pool = order[: max(len(order) // 8, 2 * first)]
    places = [int(i) for i in np.random.default_rng([one.seed, repeat]).choice(pool, size=first, replace=False)]
    out: list[tuple[float, float, int]] = []
    warm: dict[str, FloatArray] = {}
    for number in range(LONGEST + 1):
        spent = float(one.space.cost[places].sum())
        out.append((spent / one.largest, judge.regret(np.array(places), repeat), len(places)))
        if number == LONGEST or spent >= one.largest:
            break
        beliefs: tuple[Belief, ...] = ()
        rows = one.rows(np.array(places), repeats_of(places, repeat))
        if how in ("design", "d_optimal"):
            draws = DRAWS if how == "design" else 2
            beliefs = (believe(one.laws, rows, options, noise=NOISE, draws=draws, seed=number, warm=warm),)
            warm = {m.law.text: m.fit.params for m in beliefs[0].members}
        flops = one.largest * 2.0 ** (min(number, ROUNDS - 1) - ROUNDS + 1)
        ask = Round(one.space, rows, beliefs, one.question, flops, most, 100 * one.seed + repeat, number)
        places += [p.place for p in DESIGNS[how](ask)]
    return out


def repeats_of(places: Sequence[int], repeat: int) -> IntArray:
    """The seed of every run: how often its place came before, in a range of the repeat's own."""
    seen: dict[int, int] = {}
    seeds = []
    for place in places:
        seeds.append(1000 * repeat + seen.get(place, 0))
        seen[place] = seen.get(place, 0) + 1
    return np.array(seeds)


SHARES = np.geomspace(0.003, 3.0, 600)
"""Shares of the largest run at which curves are read."""


def curve(plays: Sequence[Sequence[tuple[float, float, int]]]) -> FloatArray:
    """The regret (600,) at SHARES: geometric mean over repeats, interpolated in logarithms."""
    lines = [
        np.interp(np.log(SHARES), np.log([p[0] for p in one]), np.log([max(p[1], 1e-6) for p in one])) for one in plays
    ]
    return np.asarray(np.exp(np.mean(lines, axis=0)))


def reached(line: FloatArray, target: float) -> float:
    """The share of the largest run from which the regret stays at or below the target; inf where it never does."""
    above = np.flatnonzero(line > target * (1 + 1e-9))
    if not len(above):
        return float(SHARES[0])
    return float(SHARES[above[-1] + 1]) if above[-1] + 1 < len(line) else math.inf


def compared(plays: Mapping[str, Sequence[Sequence[tuple[float, float, int]]]]) -> dict[str, Any]:
    """One world: the regret to reach, the FLOPs of the best baseline, and of each design relative to that."""
    end = int(np.searchsorted(SHARES, 1.0))
    lines = {how: curve(some) for how, some in plays.items()}
    target = min(float(lines[b][end]) for b in BASELINES)
    at = {how: reached(line[: end + 1] if how in BASELINES else line, target) for how, line in lines.items()}
    least = min(at[b] for b in BASELINES)
    told = {"target": target, "best": min(BASELINES, key=lambda b: at[b]), "flops": least}
    told |= {"ratio": {how: share / least for how, share in at.items()}}
    return told | {"regret": {how: float(line[end]) for how, line in lines.items()}}


def main() -> None:
    """Plays what is missing, then prints the table and the bars."""
    words = read_words(sys.argv[1:], Words, "bench/design.py")
    path = Path(words.out) / "design.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    there = {(r["kind"], r["seed"], r["how"], r["repeat"]): r["rounds"] for r in known if r["most"] == words.most}
    asked = [(KINDS[i % len(KINDS)].name, i // len(KINDS)) for i in range(words.worlds)]
    rows = []
    for kind, seed in asked:
        one = world(kind, seed)
        plays: dict[str, list[Any]] = {}
        for how in DESIGNS:
            for repeat in range(words.repeats):
                key = (kind, seed, how, repeat)
                if key not in there:
                    there[key] = play(one, how, repeat, words.most)
                    told = {"kind": kind, "seed": seed, "how": how, "repeat": repeat, "most": words.most}
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(told | {"rounds": there[key]}) + "\n")
                plays.setdefault(how, []).append(there[key])
        found = {"kind": kind, "seed": seed, "noise": one.noise} | compared(plays)
        rows.append(found)
        print(line_of(found), flush=True)
    report(rows, words)


def line_of(row: Mapping[str, Any]) -> str:
    """One world as a line."""
    ratios = "  ".join(f"{how} {value:.2f}" for how, value in row["ratio"].items())
    world_ = f"{row['kind']} {row['seed']}"
    return f"{world_:18s} regret {row['target']:8.3g}%  best {row['best']:9s}  FLOPs relative to it: {ratios}"


def report(rows: Sequence[Mapping[str, Any]], words: Words) -> None:
    """The bars, and the files with the table."""
    ratio = [row["ratio"]["design"] for row in rows]
    above = sum(r > NOT_MUCH_MORE for r in ratio) / len(ratio)
    names = dict.fromkeys(r["kind"] for r in rows)
    kinds = {k: median(r["ratio"]["design"] for r in rows if r["kind"] == k) for k in names}
    by_kind = ", ".join(f"{k} {v:.2f}" for k, v in kinds.items())
    said = f"median {median(ratio):.3f} of the best baseline's FLOPs (bar {HALF}); above {NOT_MUCH_MORE} in {above:.0%}"
    print(f"\ndesign: {said} of {len(rows)} worlds (bar 10%)\nby kind: {by_kind}")
    told = {"bench": "design", "worlds": len(rows), "median_ratio": median(ratio), "share_above": above}
    save(told | {"by_kind": kinds, "words": asdict(words), "rows": list(rows)})
    lines = [
        "# Designs in simulated worlds",
        "",
        "Written by `python bench/design.py`; synthetic, as its head says.",
        "",
    ]
    lines += [f"- {len(rows)} worlds, {words.repeats} repeats: {said} (bar 10%)", f"- by kind (median): {by_kind}", ""]
    lines.append("| world | noise | regret to reach | best baseline | " + " | ".join(DESIGNS) + " |")
    lines.append("|---|---|---|---|" + "---|" * len(DESIGNS))
    for row in rows:
        cells = " | ".join(f"{row['ratio'][how]:.2f} ({row['regret'][how]:.2g}%)" for how in DESIGNS)
        head = f"{row['kind']} {row['seed']} | {row['noise']:.2%} | {row['target']:.3g}%"
        lines.append(f"| {head} | {row['best']} | {cells} |")
    lines += ["", "In the cells: FLOPs to that regret relative to the best baseline, and the regret at the end."]
    (RESULTS / "design.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
