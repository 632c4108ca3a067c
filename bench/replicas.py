"""What replicas of a training run catch and what they cost, fault by fault: `python bench/replicas.py [REPETITIONS]`.

A small model is trained in voted segments, and one replica of it breaks once: at a segment, run, step, weight and bit
drawn anew for each repetition. Caught means that the run was discarded or outvoted; a fault that is missed may still
leave the final loss as it was. The price is the training FLOPs of all replicas and redraws over those of one run that
goes straight through. Replicas are forked from a process that has torch loaded: the seconds leave out that load, about
2 s a replica and segment.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.tools import _segments
from agentlab.tools._segments_replicas import Replicated
from machine import RESULTS, about, save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from faulty_trainer import KINDS, Fault, Kind, warm, write_faults
from trained import write_corpus

REPLICAS = (1, 2, 3)
FLIPS = 3
"""A flipped bit is tried so many times as often as the others: what it does depends on where it is."""
SEGMENTS, STEPS = 4, 40
STALL = 2.0
CONFIG: dict[str, Any] = {
    "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64, "context": 64, "batch_sequences": 4, "lr": 0.01,
    "steps": STEPS, "segments": SEGMENTS, "report_every": 1, "valid_sequences": 64, "device": "cpu",
}  # fmt: skip
PARAMETERS = 2 * 256 * 32 + 2 * (4 * 32**2 + 3 * 32 * 64) + 5 * 32


@dataclass(frozen=True)
class Run:
    """What one run came to."""

    caught: bool
    loss: float | None
    model: bytes
    price: float
    seconds: float


def place(chance: random.Random, kind: Kind, replicas: int) -> Fault:
    """A fault of that kind, anywhere but in a run that is only drawn where others failed."""
    segment = chance.randrange(SEGMENTS)
    first, last = STEPS * segment // SEGMENTS, STEPS * (segment + 1) // SEGMENTS
    step, weight, bit = chance.randrange(first, last), chance.randrange(PARAMETERS), chance.randrange(32)
    return Fault(kind, segment, chance.randrange(replicas), step, weight, bit)


def train(folder: Path, command: tuple[str, ...], corpus: Path, replicas: int, faults: list[Fault]) -> Run:
    """One run in voted segments."""
    worker = (*command, str(write_faults(folder / "faults.json", faults)))
    stall = STALL if any(f.kind == "stalled" for f in faults) else None
    path = _segments.write_order(folder, Replicated({**CONFIG, "corpus": str(corpus)}, replicas, stall, 0.0, worker))
    lines: list[dict[str, Any]] = []
    began = time.monotonic()
    if _segments.supervise(path, lines.append):
        raise SystemExit(f"{faults} with {replicas} replicas: {lines[-1]}")
    seconds = time.monotonic() - began
    result = json.loads((folder / "result.json").read_text())
    caught = any(line["flags"] or len(line["votes"]) > 1 for line in lines if "votes" in line)
    price = lines[-1]["flops_spent"] / result["plan"]["flops"]
    model = folder / "model.safetensors"
    return Run(caught, result["valid_loss"], model.read_bytes() if model.exists() else b"", price, seconds)


def rows(folder: Path, repetitions: int) -> Iterator[dict[str, Any]]:
    """Every fault with every number of replicas; the first row of each number is without a fault."""
    corpus, chance = folder / "corpus", random.Random(0)  # noqa: S311 - places of faults, no secret
    corpus.mkdir()
    write_corpus(corpus)
    sound: Run | None = None
    kinds: tuple[Kind | None, ...] = (None, *KINDS)
    with warm(folder) as command:
        for kind in kinds:
            for replicas in REPLICAS:
                count = 1 if kind is None else repetitions * (FLIPS if kind == "flip" else 1)
                runs = []
                for _ in range(count):
                    with tempfile.TemporaryDirectory(dir=folder) as name:
                        faults = [] if kind is None else [place(chance, kind, replicas)]
                        runs.append(train(Path(name), command, corpus, replicas, faults))
                sound = sound or runs[0]
                yield {
                    "fault": kind or "none",
                    "replicas": replicas,
                    "runs": count,
                    "caught": sum(r.caught for r in runs),
                    "missed": 0 if kind is None else sum(not r.caught for r in runs),
                    "same_loss": sum(r.loss == sound.loss for r in runs),
                    "same_model": sum(r.model == sound.model for r in runs),
                    "price": statistics.fmean(r.price for r in runs),
                    "most_price": max(r.price for r in runs),
                    "seconds": statistics.fmean(r.seconds for r in runs),
                }


def main() -> None:
    """Run, print a table and a JSON line, keep the result."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    print(f"{'fault':10} replicas runs caught missed same-loss same-model price  most seconds")
    found = []
    with tempfile.TemporaryDirectory() as name:
        for row in rows(Path(name), repetitions):
            found.append(row)
            counts = f"{row['runs']:4} {row['caught']:6} {row['missed']:6} {row['same_loss']:9} {row['same_model']:10}"
            cost = f"{row['price']:5.2f} {row['most_price']:5.2f} {row['seconds']:7.2f}"
            print(f"{row['fault']:10} {row['replicas']:8} {counts} {cost}", flush=True)
    result = {"bench": "replicas", "config": CONFIG, "stall_seconds": STALL, "rows": found}
    print(json.dumps(result | about()))
    save(result)
    (RESULTS / "replicas.md").write_text("\n".join(markdown(found)) + "\n", encoding="utf-8")


def markdown(found: list[dict[str, Any]]) -> Iterator[str]:
    """The rows as a page."""
    yield "# Replicas of a training run\n"
    yield "`python bench/replicas.py`. One fault a run, in one replica; its place is drawn anew.\n"
    heads = ("fault", "replicas", "runs", "caught", "missed", "same final loss", "same model", "price", "most")
    yield f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}"
    for row in found:
        told = [row["fault"], *(row[k] for k in ("replicas", "runs", "caught", "missed", "same_loss", "same_model"))]
        yield "| " + " | ".join(map(str, [*told, f"{row['price']:.2f}", f"{row['most_price']:.2f}"])) + " |"
    yield "\nPrice: training FLOPs of all replicas and redraws, over those of one run that goes straight through."
    yield "flip: a bit of a weight in memory; with one replica nothing shows it unless the loss spikes or becomes NaN."


if __name__ == "__main__":
    main()
