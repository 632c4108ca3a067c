"""How fast and how well laws are fitted: `python bench/fitting.py`.

Rows: Epoch's digitised Chinchilla runs under $AGENTLAB_DATA (n_params, tokens, loss; five outliers dropped), else
planted ones of the same size. Bars: the optimum of L-BFGS from the published grid (4,500 points) to 1e-6, a thousand
times faster, and so against a loop over rows; 500 bootstraps under a second; 10,000 candidates of the proposer (10
starts, 200 rows) under 60 s in two processes; cost linear in rows up to a million.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fitting_candidates import candidates
from fitting_peers import DELTA, PEERS, Peer
from machine import about, save

from agentlab.catalog import find_data
from agentlab.fitting import FitOptions, bootstrap, fit, fit_rows
from agentlab.law import parse
from agentlab.types import FloatArray, Rows

DATA = "laws/chinchilla_epoch/data.csv"
CHINCHILLA = "E + A/N**a + B/D**b"
EPOCH = {"E": 1.8172, "A": 482.01, "a": 0.3478, "B": 2085.43, "b": 0.3658}
SETTINGS = {
    "plain": FitOptions(),
    "log": FitOptions(residual="log"),
    "log, Huber .001": FitOptions(residual="log", robust="huber", delta=DELTA),
}
ROBUST = SETTINGS["log, Huber .001"]
SIZES = (1_000, 10_000, 100_000, 1_000_000)
SEED = 0

Lines = dict[str, dict[str, float]]


def chinchilla(name: str) -> tuple[Rows, str]:
    """The rows to fit and where they come from."""
    path = find_data(name)
    if path is not None:
        return read(path), name
    size, tokens, loss = planted(240, 0.008)
    return make_rows(size, tokens, loss), "planted"


def read(path: Path) -> Rows:
    """Epoch's file without the rows it marks as outliers."""
    table = np.genfromtxt(path, delimiter=",", names=True)
    table = table[table["is_outlier_besiroglu"] == 0]
    return make_rows(table["n_params"], table["tokens"], table["loss"])


def planted(n: int, noise: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Model sizes, tokens and losses of n runs with Epoch's refit as the truth."""
    rng = np.random.default_rng(SEED)
    size, tokens = np.exp(rng.uniform(17, 23, n)), np.exp(rng.uniform(20, 26, n))
    truth = EPOCH["E"] + EPOCH["A"] / size ** EPOCH["a"] + EPOCH["B"] / tokens ** EPOCH["b"]
    return size, tokens, truth * np.exp(noise * rng.normal(size=n))


def make_rows(size: FloatArray, tokens: FloatArray, loss: FloatArray) -> Rows:
    """Rows of one target and one group, a run each."""
    n = len(loss)
    return Rows({"N": size, "D": tokens}, {"loss": loss}, np.full(n, "all"), np.ones(n), None, np.arange(n))


def seconds(call: Callable[[], object], repeat: int) -> float:
    """Median seconds of a call."""
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def fits(rows: Rows) -> Lines:
    """24 starts of Chinchilla's form: seconds, and the largest relative excess of ten seeds over the best cost."""
    law, y, out = parse(CHINCHILLA, ("N", "D")), rows.targets["loss"], {}
    for name, options in SETTINGS.items():
        again = [
            FitOptions(starts, options.residual, options.robust, seed, delta=options.delta)
            for seed, starts in [*((s, 24) for s in range(10)), (99, 200), (100, 200)]
        ]
        costs = [fit(law, rows.columns, y, options=o).cost for o in again]
        taken = seconds(lambda o=options: fit(law, rows.columns, y, options=o), 15)  # type: ignore[misc]
        out[name] = {"seconds": taken, "excess": max(0.0, max(costs[:10]) / min(costs) - 1)}
    return out


def against(rows: Rows, peer: Peer) -> dict[str, float]:
    """One peer on a random part of the grid, its time scaled to the whole, and ours with the same objective."""
    law, y = parse(CHINCHILLA, ("N", "D")), rows.targets["loss"]
    ours = seconds(lambda: fit(law, rows.columns, y, options=ROBUST), 15)
    best = 0.5 * fit(law, rows.columns, y, options=ROBUST).cost * len(y)
    found = peer.run(rows.columns["N"], rows.columns["D"], y, SEED)
    whole = found.seconds * peer.grid / found.starts
    return {
        "starts timed": found.starts,
        "seconds timed": found.seconds,
        "seconds, 4,500 starts (scaled)": whole,
        "seconds, ours": ours,
        "times faster": whole / ours,
        "peer's best / ours - 1": found.best / best - 1,
        "share of its starts within 1e-6": found.share(best),
    }


def bootstraps(rows: Rows) -> Lines:
    """Seconds for 500 draws, median of three."""
    law, out = parse(CHINCHILLA, ("N", "D")), {}
    for name, options in SETTINGS.items():
        found = fit_rows(law, rows, options)
        call = lambda f=found, o=options: bootstrap(law, rows, f, draws=500, options=o)  # noqa: E731
        out[name] = {"seconds": seconds(call, 3)}
    return out


def growth() -> Lines:
    """Seconds by the number of rows, and the slope of log seconds over log rows."""
    law, times = parse(CHINCHILLA, ("N", "D")), []
    for n in SIZES:
        rows = make_rows(*planted(n, 0.01))
        times.append(seconds(lambda r=rows: fit_rows(law, r, SETTINGS["log"]), 3))  # type: ignore[misc]
    out: Lines = {f"{n:,} rows": {"seconds": t} for n, t in zip(SIZES, times, strict=True)}
    out["slope"] = {
        "all": float(np.polyfit(np.log(SIZES), np.log(times), 1)[0]),
        "last step": math.log(times[-1] / times[-2]) / math.log(SIZES[-1] / SIZES[-2]),
    }
    return out


def markdown(parts: Mapping[str, Lines], head: str) -> str:
    """The tables for people."""
    out = ["# Fitting", "", head, ""]
    for part, lines in parts.items():
        names = list(dict.fromkeys(k for line in lines.values() for k in line))
        out += [f"## {part}", "", "| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for name, line in lines.items():
            out.append(f"| {name} | " + " | ".join(f"{line[k]:.4g}" if k in line else "" for k in names) + " |")
        out.append("")
    return "\n".join(out)


def main() -> None:
    """Measure, print the tables and one JSON line, keep both."""
    rows, source = chinchilla(DATA)
    parts: dict[str, Lines] = {
        "24 starts of Chinchilla's form": fits(rows),
        "The same optimum, against": {name: against(rows, peer) for name, peer in PEERS.items()},
        "500 bootstraps": bootstraps(rows),
        "Candidates of the proposer": candidates(),
        "Growth with rows (log residuals)": growth(),
    }
    result: dict[str, Any] = {"bench": "fitting", "data": source, "rows": len(rows), "seed": SEED, **parts}
    path = save(result)
    machine = about()
    where = f"{machine['processor']}, {machine['cores']} cores, numpy {machine['versions']['numpy']}"
    head = f"{source}, {len(rows)} rows, seed {SEED}. {where}. Medians of repeats."
    text = markdown(parts, head)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    print(json.dumps(result | {"machine": machine}))


if __name__ == "__main__":
    main()
