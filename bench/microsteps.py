"""Voted micro-steps, measured: speed, memory, bytes, waves, budgets, silent errors and crashes.

    python bench/microsteps.py [REPETITIONS]

Prints tables and a JSON line, and keeps both under bench/results. The towers run as the command that a user types.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from machine import RESULTS, save

from agentlab.hanoi import Towers, TowersJob, legs
from agentlab.hanoi_oracle import WRONG, Answers, Faults, Oracle, Questions
from agentlab.ledger import Ledger
from agentlab.steps import Chain, Voting, Walk
from agentlab.steps_async import SideBySide
from agentlab.vote import LADDER, Answer, Rules, Rung, Wave, first_ahead_async
from agentlab.vote_theory import p_full, p_step, steps_reached, votes_per_step, waves_per_step

COMMAND = [str(Path(sys.executable).with_name("agentlab")), "bench", "hanoi"]
Table = list[dict[str, Any]]


def towers(*words: str) -> dict[str, Any]:
    """What `agentlab bench hanoi` says, in a process of its own."""
    done = subprocess.run([*COMMAND, *words, "--json"], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def speed(repetitions: int, folder: Path) -> Table:
    """Steps a second: in memory, durable, and of many chains that wait for their answers; each beside a limit."""
    rows: Table = []

    def row(name: str, bar: float, words: list[str], limit: Callable[[], float], what: str) -> None:
        rates, limits = [], []
        for _ in range(repetitions):
            for file in folder.glob("j*"):
                file.unlink()
            found = towers(*words)
            assert found["solved"], found
            rates.append(found["steps"] / found["seconds"])
            limits.append(limit())
        median, most = statistics.median(rates), statistics.median(limits)
        rows.append({
            "what": name, "steps_per_second": round(median), "lowest": round(min(rates)), "highest": round(max(rates)),
            "bar": bar, "limit": what, "limit_per_second": round(most), "share_of_limit": round(median / most, 2),
        })  # fmt: skip

    row("in memory", 200_000, ["disks=20", "k=4"], bare, "the same answers drawn four a step and carried out, no vote")
    journal = f"journal={folder / 'j'}"
    row("durable, fsync every 10,000", 100_000, ["disks=20", "k=4", journal], bare, "the same, in memory")
    waits = ["disks=17", "k=4", "chains=256", "latency=0.02"]
    row("256 chains, answers after 20 ms", 5_000, waits, lambda: 256 / 0.02 / waves_per_step(0.99, 4), "no work at all")
    return rows


def bare() -> float:
    """Steps a second of a loop that draws and carries out, and does nothing else."""
    geometry = Towers(17)
    draw, wave, state = (
        Answers(geometry, Oracle(Faults(0.0, steps=geometry.moves), 0)).draw,
        Wave(Rung(), 0, 4),
        geometry.begin(),
    )
    began = time.perf_counter()
    for index in range(geometry.moves):
        state = geometry.check(state, draw(state, index, wave)[0])
    return geometry.moves / (time.perf_counter() - began)


def space(folder: Path) -> Table:
    """Memory from a thousand steps to a million, bytes a step on disk, and the size of LangGraph's checkpoints."""
    rows: Table = []
    for name, words in (("in memory", []), ("durable", [f"journal={folder / 'k'}"])):
        few = towers("disks=10", "k=4", *words)
        for file in folder.glob("k*"):
            file.unlink()
        many = towers("disks=20", "k=4", *words)
        row = {"what": name, "peak_mb_1e3": few["peak_mb"], "peak_mb_1e6": many["peak_mb"]}
        row["growth_mb"] = round(many["peak_mb"] - few["peak_mb"], 1)
        if words:
            row["bytes_per_step"] = round((folder / "k").stat().st_size / many["steps"], 3)
            row["checkpoints_mb"] = round((folder / "k.sqlite").stat().st_size / 1e6, 3)
        rows.append(row)
    return rows


def waves(repetitions: int) -> Table:
    """Seconds of 100 steps against a 20 ms oracle: one by one, and in deficit waves; draws and waves beside theory."""
    oracle, steps = Oracle(Faults(0.01, steps=100), 1), 100

    async def run(at_once: bool) -> tuple[int, int]:
        draws = waits = 0
        for index in range(steps):

            async def draw(wave: Wave, index: int = index) -> list[Answer]:
                nonlocal waits
                codes: list[Answer] = list(oracle.draws(index, wave))
                for _ in range(1 if at_once else wave.count):
                    waits += 1
                    await asyncio.sleep(0.02)
                return codes

            draws += (await first_ahead_async(draw, 4)).draws
        return draws, waits

    rows: Table = []
    for name, at_once in (("one by one", False), ("deficit waves", True)):
        seconds = []
        for _ in range(repetitions):
            began = time.perf_counter()
            draws, waits = asyncio.run(run(at_once))
            seconds.append(time.perf_counter() - began)
        rows.append({"what": name, "draws": draws, "waits": waits, "seconds": round(statistics.median(seconds), 2)})
    rows[1]["speed_up"] = round(rows[0]["seconds"] / rows[1]["seconds"], 2)
    many = towers("disks=20", "k=4")
    share = many["waves"] / many["steps"] / waves_per_step(0.99, 4) - 1
    rows.append({"what": "20 disks: waves against theory", "waves": many["waves"], "off_by": f"{share:+.3%}"})
    calls = many["calls"] / many["steps"] / votes_per_step(0.99, 4) - 1
    rows.append({"what": "20 disks: calls against theory", "draws": many["calls"], "off_by": f"{calls:+.3%}"})
    return rows


def solved(seeds: int = 400) -> Table:
    """How often whole jobs are right, beside p_full."""
    rows: Table = []
    for p, k, s in ((0.9, 3, 200), (0.8, 4, 150), (0.95, 2, 150), (0.7, 3, 10), (0.99, 1, 60), (0.6, 5, 8)):
        right = 0
        for seed in range(seeds):
            chain = Chain(Questions(Oracle(Faults(1 - p, steps=s), seed)), 0, s, 0, Voting(k=k))
            chain.advance(s, [])
            right += chain.index == s and chain.state == 0
        expected = p_full(p, k, s)
        sigma = math.sqrt(expected * (1 - expected) / seeds)
        rows.append({
            "p": p, "k": k, "s": s, "solved": round(right / seeds, 3), "p_full": round(expected, 3),
            "sigmas_off": round((right / seeds - expected) / sigma, 2),
        })  # fmt: skip
    return rows


def silent(steps: int = 20_000) -> Table:
    """Steps with p = .4: what a larger k does, and what escalation does."""
    rows: Table = []
    faults = Faults(0.01, hard=steps, steps=steps)
    for k in (2, 4, 6, 8):
        chain = Chain(Questions(Oracle(faults, 0)), 0, steps, 0, Voting(k=k, rules=Rules(most_draws=100_000)))
        to_the_end([chain])
        rows.append(
            {"what": f"k={k} alone", "wrong": round(chain.state / steps, 4), "theory": round(1 - p_step(0.4, k), 4)}
        )
    rules, oracle = Rules(ladder=LADDER, escalate="dissent", most_draws=200), Oracle(faults, 0)
    chains = [Chain(Questions(oracle), i, i + 1, 0, Voting(k=4, rules=rules)) for i in range(steps)]
    to_the_end(chains)
    quiet = sum(c.state == 1 and not c.counts.escalated for c in chains)
    seen = [c for c in chains if c.counts.escalated]
    right = sum(c.index == c.end and c.state == 0 for c in seen)
    rows.append(
        {"what": "k=4, dissent escalates: wrong in silence", "wrong": round(quiet / steps, 4), "theory": 0.6**4}
    )
    rows.append(
        {
            "what": "of those seen: solved",
            "wrong": round(1 - right / len(seen), 4),
            "solved": round(right / len(seen), 4),
        }
    )
    undecided = sum(c.undecided is not None for c in chains)
    rows.append({"what": "of those seen: undecided", "wrong": round(undecided / len(seen), 4)})
    first = sum(oracle.draws(i, Wave(Rung(), 0, 4)) == [WRONG] * 4 for i in range(steps))
    assert first == quiet, "every error in silence is a first run of k wrong answers"
    return rows


def to_the_end(chains: list[Chain[int]]) -> None:
    """Decide all steps of the chains, or raise."""
    walk = Walk(chains)
    while not walk.over:
        walk.superstep()
    assert all(chain.index == chain.end or chain.undecided for chain in chains)


def correlated() -> Table:
    """Steps that k=4 and k=8 hold at 95% with p=.99."""
    return [
        {"rho": rho} | {f"k={k}": f"{steps_reached(0.99, k, 0.95, rho):.3g}" for k in (4, 8, 16)}
        for rho in (0.0, 0.001, 0.01, 0.05, 0.1)
    ]


def budget() -> Table:
    """256 chains on one budget of calls: what is spent, what the oracle counted, and whether the cap held."""
    geometry, receipts = Towers(14), [0]
    answers = Answers(geometry, Oracle(Faults(0.1, malformed=0.05, steps=geometry.moves), 0, blocks=256))

    async def draw(state: int, index: int, wave: Wave) -> list[Answer]:
        await asyncio.sleep(random.random() / 200)  # noqa: S311 - a delay
        receipts[0] += wave.count
        return answers.draw(state, index, wave)

    rows: Table = []
    for cap in (1_000, 5_000, 20_000):
        receipts[0], ledger = 0, Ledger(cap, "calls")
        chains = [
            Chain(TowersJob(geometry, draw), low, high, geometry.state_at(low), Voting(k=4, ledger=ledger))
            for low, high in legs(geometry, 256)
        ]
        with SideBySide() as go:
            walk = Walk(chains, go=go)
            while not walk.over:
                walk.superstep()
        rows.append(
            {"cap": cap, "spent": int(ledger.spent), "receipts": receipts[0], "over": max(0, int(ledger.spent) - cap)}
        )
    return rows


def crashes(folder: Path, kills: int = 20) -> Table:
    """The command killed with -9 at random moments and started again until it ends."""
    whole, chance = towers("disks=18", "k=4", "seed=1"), random.Random(0)  # noqa: S311 - moments
    words = [*COMMAND, "disks=18", "k=4", "seed=1", f"journal={folder / 'c'}", "fsync=1000", "--json"]
    done, last, ends = 0, 0, 0
    grown: list[int] = []
    while done < kills:
        running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(1.5, 5.0))
        running.send_signal(signal.SIGKILL)
        running.wait()
        done += 1
        size = (folder / "c").stat().st_size if (folder / "c").exists() else 0
        grown.append(size - last)
        last = size
        if size >= 15 * whole["steps"]:  # it came to its end: what is on record is compared, and the next begins anew
            assert towers(*words[len(COMMAND) : -1])["moves_sha256"] == whole["moves_sha256"]
            (folder / "c").unlink()
            last, ends = 0, ends + 1
    end = towers("disks=18", "k=4", "seed=1", f"journal={folder / 'c'}", "fsync=1000")
    return [{
        "kills": kills, "journal_grew_before": sum(g > 0 for g in grown), "ended_and_compared": ends + 1,
        "same_moves": end["moves_sha256"] == whole["moves_sha256"], "solved": end["solved"],
    }]  # fmt: skip


def markdown(tables: dict[str, Table]) -> Iterator[str]:
    """The tables as Markdown."""
    yield "# Voted micro-steps\n\n`python bench/microsteps.py`; the answers are simulated. Machine: microsteps.json.\n"
    for name, rows in tables.items():
        heads = list(dict.fromkeys(key for row in rows for key in row))
        yield f"\n## {name}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}"
        for row in rows:
            yield (
                "| "
                + " | ".join(f"{row[h]:,}" if isinstance(row.get(h), int) else str(row.get(h, "")) for h in heads)
                + " |"
            )


def main(repetitions: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as name:
        folder = Path(name)
        tables = {
            "Steps a second, one core": speed(repetitions, folder),
            "Memory and disk": space(folder),
            "Waves": waves(repetitions),
            "Whole jobs, 400 seeds": solved(),
            "Steps with p = .4": silent(),
            "Steps held at 95% when errors are correlated (theory, p = .99)": correlated(),
            "A budget of calls, 256 chains": budget(),
            "Killed with -9": crashes(folder),
        }
    text = "\n".join(markdown(tables)) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "microsteps.md").write_text(text, encoding="utf-8")
    result = {"bench": "microsteps", "repetitions": repetitions, "tables": tables}
    save(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
