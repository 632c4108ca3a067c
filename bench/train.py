"""Speed of our trainer against transformers' stock models of the same shape: `python bench/train.py [ROUNDS]`.

Each side is a process of its own with one thread; all sides of a shape take their steps in turn, so that they see the
same machine. A step is all of it: data, forward, loss with load balancing, backward, clipping, fused AdamW. Stock is
Llama, and Mixtral with its softmax over all experts; parameters are counted, and must be ours. On CPU figures are of
processor time, which other work on the machine disturbs least; the JSON has the clock's beside them. The ratio is the
median over rounds of stock time over our time; utilisation is training FLOPs a second over those of a large matrix
product, measured in the same rounds. With a GPU both sides use bfloat16, and the clock counts.

Stock's third way of computing experts, batched_mm, copies an expert's matrices for every token. It is left out: tried
by hand on CPU, a step took 3.9 s at E=8 and at E=64, over 20 times as long as the others.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "envs" / "images" / "train"))

from agentlab.envs._processes import environment
from machine import RESULTS, about, save
from train_plan import parse, plan
from train_shapes import KEPT, PACKS, RUNS, SHAPES, sides
from train_worker import CUDA, PRODUCT

WHAT = "clock" if CUDA else "processor"
STEPS = 2
"""Steps a side takes in a round."""
Row = dict[str, Any]
Times = dict[str, list[Row]]


class Side:
    """A worker that waits for its turn."""

    def __init__(self, name: str, shape: str, corpus: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("train_worker.py")), name, shape, corpus],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}),
        )  # fmt: skip

    def read(self) -> Row:
        """Its next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.name} ended"
        found: Row = json.loads(line)
        return found

    def turn(self, steps: int) -> Row:
        """Seconds a step."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self.read()


@contextmanager
def workers(names: list[str], shape: str, corpus: str) -> Iterator[list[Side]]:
    """The sides of a shape, started one after the other."""
    with ExitStack() as held:
        made = []
        for name in names:
            made.append(Side(name, shape, corpus))
            held.callback(made[-1].process.wait)
            held.callback(made[-1].process.terminate)
        yield made


def measure(names: list[str], shape: str, corpus: str, rounds: int) -> tuple[Times, dict[str, int]]:
    """Times of all sides by round, each round beginning with another side; and the parameters of each."""
    times: Times = {name: [] for name in names}
    with workers(names, shape, corpus) as made:
        params = {side.name: int(side.read()["params"]) for side in made}
        for i in range(rounds):
            first = i % len(made)
            for side in made[first:] + made[:first]:
                times[side.name].append(side.turn(STEPS))
    return times, params


def against(times: Times, ours: str, theirs: str) -> float:
    """How many times as long theirs takes: the median over rounds."""
    pairs = zip(times[theirs], times[ours], strict=True)
    return round(float(statistics.median(t[WHAT] / o[WHAT] for t, o in pairs)), 3)


def speed(shape: str, corpus: str, rounds: int) -> list[Row]:
    """A row for each side of a shape."""
    c = parse({**SHAPES[shape], "corpus": corpus, "out": "unused"})
    names = sides(SHAPES[shape])
    times, params = measure([*names, "product", "loading"], shape, corpus, rounds)
    assert {params[name] for name in names} == {plan(c).params}, params
    median = {name: statistics.median(t[WHAT] for t in found) for name, found in times.items()}
    tokens, size = c.batch_sequences * c.context, params["product"]
    peak = 2 * size**3 / median["product"]
    fastest = min((name for name in names if name.startswith("stock") and KEPT not in name), key=median.__getitem__)
    rows = []
    for name in names:
        used = plan(c).flops_per_token_train * tokens / median[name] / peak
        low, high = (round(tokens / f(t[WHAT] for t in times[name])) for f in (max, min))
        clock = statistics.median(t["clock"] for t in times[name])
        rows.append({
            "shape": shape, "side": name, "params": params[name], "tokens_per_second": round(tokens / median[name]),
            "lowest": low, "highest": high, "clock_ms": round(1e3 * clock, 1),
            "utilisation": round(used, 3), "fastest_stock": fastest,
            "times_fastest_stock": against(times, name, fastest),
            "loading_share": round(median["loading"] / median[name], 5),
            "product_gflops": round(peak / 1e9, 1),
        })  # fmt: skip
    return rows


def packing(shape: str, corpus: str, rounds: int) -> Row:
    """Several runs packed, against the same one after the other."""
    times, _ = measure(["packed", "one by one"], shape, corpus, rounds)
    return {
        "shape": shape, "runs": 16 if CUDA else RUNS, "times_one_by_one": against(times, "packed", "one by one"),
        "ms": {name: round(1e3 * statistics.median(t[WHAT] for t in found), 2) for name, found in times.items()},
    }  # fmt: skip


def corpus_in(folder: str) -> str:
    """Python text of the standard library."""
    modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    (Path(folder) / "train.bin").write_bytes(b"".join(m.read_bytes() for m in modules))
    (Path(folder) / "valid.bin").write_bytes(modules[0].read_bytes())
    return folder


def table(result: Row) -> str:
    """The Markdown that is kept."""
    head, text = str(__doc__).split("\n\n", 1)
    unit = "a second" if CUDA else "a processor second"
    load = f"load {result['load'][0]} to {result['load'][1]} on {os.cpu_count()} cores"
    lines = [
        "# Speed of the trainer", "", head, "", text.strip(), "",
        f"{result['rounds']} rounds of {STEPS} steps, {result['device']}, {load}.", "", str(about()), "",
        f"| shape | side | parameters | tokens {unit} | range | utilisation | stock time / this | loading |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in result["speed"]:
        mark = " (the fastest stock)" if row["side"] == row["fastest_stock"] else ""
        lines.append(
            f"| {row['shape']} | {row['side']}{mark} | {row['params']:,} | {row['tokens_per_second']:,} | "
            f"{row['lowest']:,} to {row['highest']:,} | {row['utilisation']:.2f} | {row['times_fastest_stock']:.2f} | "
            f"{row['loading_share']:.2%} |"
        )
    lines += [
        "",
        "## Packed runs",
        "",
        "| shape | runs | packed, ms | one by one, ms | times as fast |",
        "|---|---|---|---|---|",
    ]
    for row in result["packed"]:
        ms = row["ms"]
        lines.append(
            f"| {row['shape']} | {row['runs']} | {ms['packed']} | {ms['one by one']} | {row['times_one_by_one']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table and a JSON line, keep both."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_in(folder)
        rows = [row for shape in SHAPES for row in speed(shape, corpus, rounds)]
        packs = [packing(shape, corpus, rounds) for shape in PACKS]
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    result: Row = {
        "bench": "train", "device": "cuda" if CUDA else "cpu", "rounds": rounds, "steps": STEPS, "load": load,
        "what": WHAT, "product": PRODUCT, "speed": rows, "packed": packs,
    }  # fmt: skip
    shown = table(result)
    print(shown)
    print(json.dumps(result | about()))
    (RESULTS / "train.md").write_text(shown + "\n", encoding="utf-8")
    save(result)


if __name__ == "__main__":
    main()
