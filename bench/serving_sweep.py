"""Measures the rows of the task serving_latency: python bench/serving_sweep.py run|tables [--rounds N].

`run` adds one line for every measurement to .sweep/serving.jsonl and skips those that are there, so that it resumes
where it stopped; `tables` writes medians and quartiles into the task's data, and FIGURES.md. On a machine that does
other work, as root, and in a session of its own, for nice alone counts only among the processes of one session:

    setsid sh -c 'echo -20 >/proc/self/autogroup; exec nice -n -15 taskset -c 1 python bench/serving_sweep.py run'
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from machine import about

from agentlab.catalog import load_task
from agentlab.fitting import FitOptions, fit_rows
from agentlab.fitting_bootstrap import bootstrap_draws
from agentlab.goodput import Service, Timing, crossover, goodput
from agentlab.law import parse
from agentlab.table import file_rows
from agentlab.types import ALL, FloatArray

ROOT = Path(__file__).resolve().parent.parent
TASK = ROOT / "tasks" / "serving_latency"
LINES = ROOT / ".sweep" / "serving.jsonl"
sys.path.append(str(ROOT / "envs" / "images" / "infer"))

import infer_cost  # noqa: E402 - lies in the image's folder
import infer_plan  # noqa: E402

NEW_TOKENS = 16
ROUNDS = 7
DRAWS = 500
SERVICE = Service(prompt=64, output=64, tpot=20.0)
"""What FIGURES.md tells the goodput of."""
SHORT = 0.3
"""Seconds up to which a measurement is made three times in a round."""

Shape = tuple[int, int, int, int]
SHAPES: tuple[Shape, ...] = (
    (32, 2, 1, 128), (32, 8, 1, 128), (64, 4, 2, 256), (64, 12, 2, 64), (128, 2, 4, 512), (128, 6, 4, 256),
    (128, 4, 4, 1536), (192, 4, 6, 768), (256, 3, 8, 1024), (256, 6, 8, 512), (320, 5, 10, 1280), (384, 6, 12, 1536),
)  # fmt: skip
"""Width, layers, heads and width of the feed-forward layer of the models that laws are fitted to."""
POWERS = range(6)
MOST_FLOPS = 2.5e10
"""What the prefill of a training row may cost."""
LARGE: tuple[Shape, ...] = ((448, 7, 14, 1792), (512, 8, 16, 2048))
"""Models of the hold-out alone."""
HELD: tuple[tuple[Shape, tuple[tuple[int, int], ...]], ...] = (
    *((shape, ((1, 16), (1, 128), (1, 512), (4, 32), (8, 64), (16, 16), (32, 32), (2, 256))) for shape in LARGE),
    *((SHAPES[i], ((64, 32), (64, 128), (2, 1024))) for i in (1, 3, 5, 8)),
    *((SHAPES[i], ((64, 16), (1, 1024))) for i in (10, 11)),
)
"""Hold-out rows: a larger model, batch or prompt than any training row has."""

COLUMNS = (
    "name", "N", "K", "layers", "B", "L", "ttft", "tpot", "ttft_low", "ttft_high", "tpot_low", "tpot_high", "d_model",
    "n_heads", "d_ff", "params", "prefill_flops", "decode_flops", "prefill_bytes", "decode_bytes", "runs", "load",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One row of the tables: a shape with a batch and a length of prompt."""

    shape: Shape
    batch: int
    length: int
    held: bool

    @property
    def name(self) -> str:
        """Unique among the cells."""
        d, layers, _, wide = self.shape
        return f"d{d}-l{layers}-f{wide}-b{self.batch}-t{self.length}"

    def request(self) -> infer_plan.Measure:
        """What the program of the tool `infer.measure` is told."""
        d, layers, heads, wide = self.shape
        return infer_plan.Measure(d, layers, heads, wide, self.batch, self.length, NEW_TOKENS, "cpu")


def cells() -> list[Cell]:
    """All rows: of batch 1..32 and length 16..512 a third of the pairs, another third each shape; then the hold-out."""
    found: dict[str, Cell] = {}
    for number, shape in enumerate(SHAPES):
        pairs = [(i, j) for i in POWERS for j in POWERS if (i + 2 * j + number) % 3 == 0]
        for i, j in [(0, 0), (5, 0), *pairs]:
            cell = Cell(shape, 2**i, 16 * 2**j, held=False)
            if prefill(cell) <= MOST_FLOPS:
                found[cell.name] = cell
    return [*found.values(), *(Cell(shape, b, t, held=True) for shape, pairs in HELD for b, t in pairs)]


def prefill(cell: Cell) -> float:
    """FLOPs of the prompt."""
    flops: Any = infer_cost.told(cell.request())["flops"]
    return float(flops["prefill"])


def run(rounds: int) -> None:
    """Every cell once in every round, in an order drawn anew, so that a change of load falls on all alike."""
    LINES.parent.mkdir(exist_ok=True)
    done = {(line["round"], line["cell"]) for line in lines()}
    for number in range(rounds):
        chance = random.Random(number)  # noqa: S311 - an order, no secret
        by_shape: dict[Shape, list[Cell]] = {}
        for cell in cells():
            if (number, cell.name) not in done:
                by_shape.setdefault(cell.shape, []).append(cell)
        for shape in chance.sample(list(by_shape), len(by_shape)):
            with LINES.open("a", encoding="utf-8") as file:
                for line in visit(chance.sample(by_shape[shape], len(by_shape[shape])), number):
                    file.write(json.dumps(line) + "\n")
                    file.flush()
        print(time.strftime("%H:%M:%S"), "round", number + 1, "of", rounds, "load", os.getloadavg()[0], flush=True)


def visit(chosen: Sequence[Cell], number: int) -> Iterator[dict[str, object]]:
    """Measurements of cells of one shape, each after one that does not count."""
    import torch  # noqa: PLC0415 - takes seconds, and `tables` needs none of it
    from infer_model import drawn  # noqa: PLC0415
    from infer_speed import time_once  # noqa: PLC0415

    longest = max(chosen, key=lambda cell: cell.length)
    with torch.inference_mode():
        model = drawn(longest.request())
        for cell in chosen:
            prompt = torch.randint(infer_cost.VOCAB, (cell.batch, cell.length))
            load, begun = os.getloadavg()[0], time.perf_counter()
            time_once(model, prompt, NEW_TOKENS)
            often = 3 if time.perf_counter() - begun < SHORT else 1
            times = [time_once(model, prompt, NEW_TOKENS)[0] for _ in range(often)]
            yield {"round": number, "cell": cell.name, "at": round(time.time()), "load": load} | {
                "ttft": [t.first for t in times], "tpot": [t.each for t in times],
            }  # fmt: skip


def lines(path: Path = LINES) -> list[dict[str, Any]]:
    """What was measured so far; a line that a kill tore is cut off."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def row(cell: Cell, found: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """One row of a table: medians and quartiles in milliseconds."""
    cost: dict[str, Any] = infer_cost.told(cell.request())
    d, layers, heads, wide = cell.shape
    told: dict[str, object] = {
        "name": cell.name, "N": cost["matrix_params"], "K": 2 * layers * d, "layers": layers, "B": cell.batch,
        "L": cell.length, "d_model": d, "n_heads": heads, "d_ff": wide, "params": cost["params"],
        "runs": sum(len(line["ttft"]) for line in found), "load": round(median(line["load"] for line in found), 2),
    }  # fmt: skip
    for phase in ("prefill", "decode"):
        told |= {f"{phase}_{what}": f"{cost[what][phase]:.6g}" for what in ("flops", "bytes")}
    for name in ("ttft", "tpot"):
        times = [1e3 * median(line[name]) for line in found]
        low, middle, high = quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
        told |= {name: f"{middle:.5g}", f"{name}_low": f"{low:.5g}", f"{name}_high": f"{high:.5g}"}
    return told


def tables() -> None:
    """Writes latency.csv, holdout.csv and FIGURES.md from the cells that every round so far has."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines():
        found.setdefault(line["cell"], []).append(line)
    data = TASK / "data"
    data.mkdir(parents=True, exist_ok=True)
    for file, held in (("latency.csv", False), ("holdout.csv", True)):
        rows = [row(cell, found[cell.name]) for cell in cells() if cell.held == held and cell.name in found]
        with (data / file).open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    (TASK / "FIGURES.md").write_text(figures(found), encoding="utf-8")
    print((TASK / "FIGURES.md").read_text(encoding="utf-8"))


def figures(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """How many rows there are, on what and under what load they were measured, and how far repeats differ."""
    known = [cell for cell in cells() if cell.name in found]
    every = [line for measured in found.values() for line in measured]
    machine = about()
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("torch", "transformers"))
    loads = quantiles([line["load"] for line in every], n=4)
    spread = {
        name: [(q[2] - q[0]) / q[1] for m in found.values() if len(m) > 1 for q in [_quartiles(m, name)]]
        for name in ("ttft", "tpot")
    }
    counted = f"{sum(not c.held for c in known)} training rows, {sum(c.held for c in known)} of the hold-out"
    return "\n".join(
        [
            "# Figures of serving_latency",
            "",
            "Written by `python bench/serving_sweep.py tables`.",
            "",
            f"- {counted}; {len({line['round'] for line in every})} rounds, {len(every)} visits of a row, one thread",
            f"- {machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}",
            "- mean number of waiting processes: quartiles " + ", ".join(f"{x:.2f}" for x in loads),
            *(
                f"- {name}: quartiles over the rounds are {100 * median(s):.1f}% of the median apart (median row), "
                f"{100 * max(s):.0f}% (worst row)"
                for name, s in spread.items()
            ),
            "",
            *laws(),
        ]
    )


def laws() -> list[str]:
    """The roofline of reference.toml fitted to the training rows, and what follows from it, with 90% intervals."""
    task = load_task(TASK.name)
    assert task.reference is not None
    rows, law = file_rows(task, Path(task.train_file)), parse(task.reference.formula, task.names)
    options = FitOptions(residual="log", robust="huber")
    found = fit_rows(law, rows, options)
    draws = bootstrap_draws(law, rows, found, draws=DRAWS, options=options)
    ttft, tpot = (Timing(law, found.fits[ALL, t].params, draws[ALL, t]) for t in task.targets)
    told = ["## The roofline fitted to the training rows", "", f"`{law}`; 90% intervals of {DRAWS} bootstrap draws", ""]
    told += ["| parameter | ttft | tpot |", "|---|---|---|"]
    for i, name in enumerate(law.params):
        cells_ = [f"{t.params[i]:.3g} ({between(t.draws, i)})" for t in (ttft, tpot)]
        told.append(f"| {name} | " + " | ".join(cells_) + " |")
    told += ["", f"Prompt {SERVICE.prompt:g} tokens, output {SERVICE.output:g}, tpot at most {SERVICE.tpot:g} ms:", ""]
    told += ["| model | crossover of tpot, batch | best batch | requests/s |", "|---|---|---|---|"]
    for d, layers, heads, wide in SHAPES[-4:]:
        cost: Any = infer_cost.told(infer_plan.Measure(d, layers, heads, wide, 1, 16))
        at = {"N": float(cost["matrix_params"]), "K": 2.0 * layers * d, "layers": float(layers)}
        cross, best = crossover(tpot, {**at, "L": SERVICE.prompt}), goodput(ttft, tpot, at, SERVICE)
        assert cross.interval is not None
        assert best.rate_interval is not None
        assert best.batch_interval is not None
        told.append(
            f"| d{d}-l{layers}-f{wide} | {cross.value or math.nan:.3g} ({span(cross.interval)}) | "
            f"{best.batch} ({span(best.batch_interval)}) | {best.rate:.3g} ({span(best.rate_interval)}) |"
        )
    return [*told, ""]


def between(draws: FloatArray | None, column: int) -> str:
    """The 5th and the 95th percentile of one parameter of the draws (D, P)."""
    assert draws is not None
    low, high = np.percentile(draws[:, column], [5.0, 95.0])
    return span((low, high))


def span(interval: tuple[float, float]) -> str:
    """An interval in three digits."""
    return f"{interval[0]:.3g} to {interval[1]:.3g}"


def _quartiles(found: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return quantiles([median(line[name]) for line in found], n=4, method="inclusive")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["run", "tables", "cells"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if options.verb == "run":
        run(options.rounds)
    elif options.verb == "tables":
        tables()
    else:
        for cell in cells():
            print(json.dumps(asdict(cell) | {"name": cell.name}))


if __name__ == "__main__":
    main()
