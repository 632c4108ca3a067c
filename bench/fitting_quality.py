"""How often a quick fit, as a search makes it, misses the optimum: `python bench/fitting_quality.py`.

30 forms on three data sets (their own planted rows, Epoch's Chinchilla runs, rows of another law), plain and log
residuals, four seeds; the optimum is the least cost of two long fits of 200 starts, or of a quick one if that is less.
"""

from __future__ import annotations

import itertools
import json
import math
import time

import numpy as np
from fitting import DATA, chinchilla
from fitting_forms import FORMS
from machine import about, save

from agentlab.fitting import FitOptions, fit
from agentlab.law import parse
from agentlab.types import FloatArray

Table = tuple[dict[str, FloatArray], FloatArray]

SEEDS, LONG_SEEDS = range(4), (77, 78)
LIMITS = (0.1, 1.0, 10.0)
"""Nats behind the optimum that count as a miss."""


def tables(text: str) -> dict[str, Table]:
    """The columns and target of each data set for one form."""
    rows, _ = chinchilla(DATA)
    rng = np.random.default_rng(5)
    columns = {"N": np.exp(rng.uniform(15, 22, 200)), "D": np.exp(rng.uniform(20, 26, 200))}
    truth = parse(text, ("N", "D")).evaluate(columns, np.array(FORMS[text]))
    own = truth + 0.01 * np.std(truth) * rng.normal(size=200)
    bowl = 0.02 * (np.log(columns["N"]) - 0.7 * np.log(columns["D"])) ** 2
    other = 1.2 + (3e5 / columns["N"] ** 0.7 + 1e5 / columns["D"] ** 0.6) ** 0.5 + bowl
    return {
        "its own": (columns, own),
        "Chinchilla": (dict(rows.columns), rows.targets["loss"]),
        "another law's": (columns, other * np.exp(0.01 * rng.normal(size=200))),
    }


def behind(text: str, table: Table, log: bool) -> tuple[list[float], float]:
    """Nats by which each quick fit is behind the optimum, and their processor seconds."""
    law, (columns, y) = parse(text, ("N", "D")), table
    residual = "log" if log else "plain"
    long = [fit(law, columns, y, options=FitOptions(200, residual, seed=s)).rss for s in LONG_SEEDS]  # type: ignore[arg-type]
    quick = [FitOptions(10, residual, seed=s, max_steps=12, tolerance=1e-4) for s in SEEDS]  # type: ignore[arg-type]
    start = time.process_time()
    found = [fit(law, columns, y, options=o).rss for o in quick]
    taken = time.process_time() - start
    best = min(long + found)
    return [0.5 * len(y) * math.log(one / best) for one in found], taken


def main() -> None:
    """Measure, print the table and one JSON line, keep both."""
    out: dict[str, dict[str, float]] = {}
    for log in (False, True):
        gaps: dict[str, list[float]] = {}
        seconds = 0.0
        for text in FORMS:
            for name, table in tables(text).items():
                if log and not (table[1] > 0).all():
                    continue
                found, taken = behind(text, table, log)
                gaps.setdefault(name, []).extend(found)
                seconds += taken
        every = list(itertools.chain.from_iterable(gaps.values()))
        for name, values in [*gaps.items(), ("all", every)]:
            line = {f"more than {limit:g} nats": float(np.mean(np.array(values) > limit)) for limit in LIMITS}
            out[f"{'log' if log else 'plain'}, {name}"] = {"fits": len(values), **line}
        out[f"{'log' if log else 'plain'}, all"]["ms a fit"] = 1e3 * seconds / len(every)
    result = {"bench": "fitting_quality", "forms": len(FORMS), "seeds": list(SEEDS), "missed": out}
    path = save(result)
    names = ["fits", *(f"more than {limit:g} nats" for limit in LIMITS), "ms a fit"]
    lines = ["# Quick fits that miss the optimum (share)", "", "| | " + " | ".join(names) + " |", "|---" * 6 + "|"]
    lines += [f"| {k} | " + " | ".join(f"{v[n]:.3g}" if n in v else "" for n in names) + " |" for k, v in out.items()]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(json.dumps(result | {"machine": about()}))


if __name__ == "__main__":
    main()
