"""The eight SLDBench tasks with `proposer=mutate`: inner extrapolation, test R2 where the split is at hand, spread.

    python bench/sldbench.py [seeds=0,1,2,3,4] [tasks=moe,sft] [candidates=400] [processes=2] [out=bench/work]

Every run is `agentlab discover task=sldbench_NAME` with one worker, in a process of its own; a line is appended to
`sldbench.jsonl` in `out` when it ends, and a run that has its line is not made again. `dev` is DESIGN section 4's inner
extrapolation; the published form is fitted by the same fitter and judged at the same cuts. Streams of two seeds are
compared by the share of formulas that both asked for.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from machine import RESULTS, save

from agentlab import selection
from agentlab.law import parse
from agentlab.table import intake
from agentlab.trace import read
from agentlab.types import RunConfig
from agentlab.words import read_words

TASKS = ("parallel", "vocab", "sft", "domain_mixture", "moe", "data_constrained", "lr_bsz", "easy_question")
BARS = {"parallel": 0.9998, "vocab": 0.99, "sft": 0.993}
"""Test R2 to reach where the split is at hand."""

LIMIT = 300.0
"""Seconds a run may take on two cores."""


@dataclass(frozen=True)
class Words:
    """The words of the benchmark."""

    seeds: str = "0,1,2,3,4"
    tasks: str = ",".join(TASKS)
    candidates: int = 400
    processes: int = 2
    out: str = "bench/work"


def done(lines: Path, candidates: int) -> dict[tuple[str, int], dict[str, Any]]:
    """The runs on record with so many candidates, by task and seed."""
    if not lines.is_file():
        return {}
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return {(r["task"], r["seed"]): r for r in records if r["candidates"] == candidates}


def one_run(task: str, seed: int, words: Words) -> dict[str, Any]:
    """One run from the command line, as a user makes it."""
    runs = Path(words.out) / "sldbench_runs"
    argv = [
        str(Path(sys.executable).with_name("agentlab")),
        "discover",
        f"task=sldbench_{task}",
        f"seed={seed}",
        "workers=1",
    ]
    argv += [f"budget.candidates={words.candidates}", f"out={runs}", "--json", "--plain"]
    found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    told: dict[str, Any] = json.loads(found.splitlines()[-1])
    asked = [r["key"] for r in read(Path(told["dir"]) / "trace.jsonl") if r["kind"] == "entry"]
    digests = [blake2b(key.encode(), digest_size=4).hexdigest() for key in asked]
    score = {k: v["r2"] if v else None for k, v in told["score"].items()}
    return {
        "task": task,
        "seed": seed,
        "candidates": words.candidates,
        "formula": told["law"]["formula"],
        "score": score,
        "baselines": {k: v["r2"] for k, v in told["baselines"]["dev"].items()},
        "beaten_by": told["baselines"]["beaten_by"],
        "luck": told["luck"],
        "seconds": told["cost"]["seconds"],
        "keys": digests,
    }


def published(task: str) -> float | None:
    """The inner extrapolation (R2) of the published form, fitted and judged as a finalist is."""
    taken = intake(read_words([f"task=sldbench_{task}"], RunConfig))
    if taken.task.reference is None:
        return None
    judge = selection.problem(taken.task, taken.rows)
    options = replace(selection.fit_options(taken.task, 48), thorough=False)
    law = parse(taken.task.reference.formula, taken.task.names)
    dev = selection.evaluate(law, judge, options, final=True).dev
    return None if dev is None else dev.r2


def overlap(records: Sequence[Mapping[str, Any]]) -> float:
    """The largest share of formulas that two seeds both asked for (Jaccard)."""
    pairs = [(set(a["keys"]), set(b["keys"])) for a, b in combinations(records, 2)]
    return max((len(a & b) / len(a | b) for a, b in pairs), default=0.0)


def row(task: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The line of one task over its seeds."""
    dev = [float(r["score"]["dev"]) for r in records]
    test = [float(r["score"]["holdout"]) for r in records if r["score"]["holdout"] is not None]
    form = [r["score"]["refitted_reference_holdout"] for r in records if r["score"]["holdout"] is not None]
    baseline = max(float(v) for v in records[0]["baselines"].values())
    return {
        "task": task,
        "seeds": len(records),
        "dev": mean(dev),
        "dev_spread": stdev(dev) if len(dev) > 1 else 0.0,
        "dev_published_form": published(task),
        "dev_best_baseline": baseline,
        "test": mean(test) if test else None,
        "test_least": min(test) if test else None,
        "test_spread": stdev(test) if len(test) > 1 else None,
        "test_published_form": form[0] if form else None,
        "bar": BARS.get(task),
        "seconds": median(float(r["seconds"]) for r in records),
        "slowest": max(float(r["seconds"]) for r in records),
        "overlap": overlap(records),
        "laws": sorted({str(r["formula"]) for r in records}),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    names: tuple[str, ...] = (
        "dev",
        "dev_spread",
        "dev_published_form",
        "dev_best_baseline",
        "test",
        "test_least",
        "test_spread",
    )
    names += ("test_published_form", "bar", "seconds", "slowest", "overlap")
    head = "| task | seeds | " + " | ".join(n.replace("_", " ") for n in names) + " |"
    lines = [head, "|" + "---|" * (len(names) + 2)]
    for r in rows:
        cells = ["-" if r[n] is None else f"{float(r[n]):.4g}" for n in names]
        lines.append(f"| {r['task']} | {r['seeds']} | " + " | ".join(cells) + " |")
    lines += ["", "Laws found:", ""]
    lines += [f"- {r['task']}: " + "; ".join(f"`{law}`" for law in r["laws"]) for r in rows]
    return "\n".join(lines)


def main(given: Sequence[str]) -> None:
    """Make the runs that are missing, two side by side, then print and write the table."""
    words = read_words(given, Words, "bench/sldbench.py")
    tasks, seeds = words.tasks.split(","), [int(s) for s in words.seeds.split(",")]
    out = Path(words.out)
    out.mkdir(parents=True, exist_ok=True)
    lines = out / "sldbench.jsonl"
    todo = [(t, s) for s in seeds for t in tasks if (t, s) not in done(lines, words.candidates)]
    with ThreadPoolExecutor(words.processes) as pool:
        for future in as_completed([pool.submit(one_run, task, seed, words) for task, seed in todo]):
            record = future.result()
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{record['task']} seed {record['seed']}: {record['score']} {record['seconds']:.0f} s", flush=True)
    found = done(lines, words.candidates)
    rows = [row(t, some) for t in tasks if (some := [found[t, s] for s in seeds if (t, s) in found])]
    print(table(rows))
    save({"bench": "sldbench", "words": dataclasses.asdict(words), "limit_seconds": LIMIT, "rows": rows})
    (RESULTS / "sldbench.md").write_text(table(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
