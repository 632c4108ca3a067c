"""The loop on the real trainer: hold-out error of moe_leverage from half of the MoE runs, and with runs of each design.

    python bench/live.py [flops=2e13] [experiments=24] [repeats=3] [designs=design,random] [workers=2] [candidates=1000]

A repeat draws half of the shipped MoE runs (all dense ones stay: they are the yardstick), and searches a law on their
rows alone (`start`), then with the runs that each design asks for, of equal FLOPs. The sealed hold-out is opened by the
scoring process once for each law; every look stands in the run's trace. What is done is not done again, and a run that
was stopped is resumed.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from agentlab.tools.data import leverage_of, read_runs, write_leverage
from machine import RESULTS, save

from agentlab.words import read_words

TASK = Path(__file__).parents[1] / "tasks" / "moe_leverage"
START = "start"


@dataclass(frozen=True)
class Words:
    """The words of the benchmark."""

    flops: float = 2e13
    experiments: int = 24
    repeats: int = 3
    designs: str = "design,random"
    candidates: int = 1000
    workers: int = 2
    out: str = "bench/work/live"


def half(place: Path, seed: int) -> Path:
    """The task with half of its MoE runs, in the folder `place`."""
    task = place / "moe_leverage"
    if (task / "data" / "leverage.csv").exists():
        return task
    (task / "data").mkdir(parents=True, exist_ok=True)
    for name in ("task.toml", "reference.toml", "instruction.md", "corpus.toml"):
        shutil.copy2(TASK / name, task / name)
    shutil.copy2(TASK / "data" / "holdout.csv", task / "data" / "holdout.csv")
    with (TASK / "data" / "runs.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        header, lines = list(reader.fieldnames or ()), list(reader)
    moe = [i for i, line in enumerate(lines) if line["experts"] not in ("", "0")]
    left_out = set(np.random.default_rng([7, seed]).permutation(moe)[: len(moe) // 2].tolist())
    with (task / "data" / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(line for i, line in enumerate(lines) if i not in left_out)
    runs = read_runs(task / "data" / "runs.csv")
    table = leverage_of([r for r in runs if not r.dense], [r for r in runs if r.dense])
    write_leverage(task / "data" / "leverage.csv", table)
    return task


def made(place: Path, words: Words, repeat: int, how: str) -> dict[str, Any]:
    """The result of one arm, from its run if that is done, else from running or resuming it."""
    kept = place / f"{how}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    out, began = place / how, time.monotonic()
    command = [str(Path(sys.executable).with_name("agentlab"))]
    run = next(iter(sorted(out.glob("*/config.json"))), None)
    if run is not None:
        command += ["runs", "resume", str(run.parent)]
    else:
        each = words.candidates if how != START else max(words.candidates // 5, 1)
        command += ["discover", f"task={place / 'moe_leverage'}", f"seed={repeat}", f"out={out}"]
        command += [f"budget.candidates={each}", f"workers={words.workers}"]
        if how != START:
            command += [f"experiments={words.experiments}", f"budget.flops={words.flops:g}", f"design={how}"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{how}, repeat {repeat}: {done.stderr.strip().splitlines()[-1]}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    told["wall_seconds"] = round(time.monotonic() - began, 1)
    kept.write_text(json.dumps(told))
    return dict(told)


def row_of(repeat: int, how: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared of one arm."""
    score = {f"{part}_{k}": told["score"][part][k] for part in ("dev", "holdout") for k in ("are", "r2")}
    runs = told["counts"].get("experiments", {"made": 0, "rejected": {}, "rounds": 0})
    row = {"repeat": repeat, "how": how, "law": told["law"]["formula"], "flops": told["cost"]["flops"]}
    return row | score | {"runs": runs["made"], "rejected": runs["rejected"], "wall_seconds": told["wall_seconds"]}


def main() -> None:
    """Runs what is missing, then prints the table."""
    words = read_words(sys.argv[1:], Words, "bench/live.py")
    arms = (START, *words.designs.split(","))
    rows = []
    for repeat in range(words.repeats):
        place = Path(words.out).resolve() / f"{words.flops:g}-{repeat}"
        half(place, repeat)
        for how in arms:
            row = row_of(repeat, how, made(place, words, repeat, how))
            rows.append(row)
            print(line_of(row), flush=True)
    report(rows, arms, words)


def line_of(row: Mapping[str, Any]) -> str:
    """One arm as a line."""
    errors = f"hold-out ARE {float(row['holdout_are']):.1%}, R2 {float(row['holdout_r2']):.2f}"
    return (
        f"repeat {row['repeat']} {row['how']:10s} {errors}; {row['runs']} runs, {row['flops']:.3g} FLOPs; {row['law']}"
    )


def report(rows: Sequence[Mapping[str, Any]], arms: Sequence[str], words: Words) -> None:
    """The medians, and the files with the table."""
    middle = {how: median(float(r["holdout_are"]) for r in rows if r["how"] == how) for how in arms}
    print("\nhold-out ARE, median: " + ", ".join(f"{how} {v:.1%}" for how, v in middle.items()))
    save({"bench": "live", "median_holdout_are": middle, "words": asdict(words), "rows": list(rows)})
    lines = ["# The loop on the real trainer", "", "Written by `python bench/live.py`; its head says how.", ""]
    lines += [f"- hold-out ARE, median of {words.repeats}: {', '.join(f'{h} {v:.1%}' for h, v in middle.items())}", ""]
    lines += [
        "| repeat | runs of | hold-out ARE | R2 | inner ARE | runs | FLOPs | law |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        figures = f"{float(r['holdout_are']):.1%} | {float(r['holdout_r2']):.2f} | {float(r['dev_are']):.1%}"
        lines.append(f"| {r['repeat']} | {r['how']} | {figures} | {r['runs']} | {r['flops']:.3g} | `{r['law']}` |")
    (RESULTS / "live.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
