"""How fast and how well laws are fitted: `python bench/fitting.py [FILE.csv]`.

Rows: Epoch's digitised Chinchilla runs under $AGENTLAB_DATA (n_params, tokens, loss; five outliers dropped), else
planted ones of the same size. Bars (FACTS section 8): 24 starts in under .08 s, every fit within 1e-9 of the best
optimum known, 500 bootstraps in under 12.7 s; a typical candidate (2 groups of 60 rows, 2-3 nonlinear parameters, 12
starts) in 5 ms.
Peer: L-BFGS from as many points of the grid of Hoffmann et al. (2022), in the same run, with exact gradients.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import about, save
from scipy.optimize import minimize

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
    "log, Huber .001": FitOptions(residual="log", robust="huber", delta=1e-3),
}
CANDIDATES = {
    "E + A/N**a + B/D**b": 2,
    "E + A/(N**a*(1 + k*log(D)))": 2,
    "E + (A/(N*(k*log(D) + 1)))**a": 2,
    "E + A*(1 + N/s)**-a + B/D**b": 3,
    "A*(N + s)**(a + g*log(D)) + E": 3,
}
BIG = 2_000_000


def chinchilla(name: str) -> tuple[Rows, str]:
    """The rows to fit and where they come from."""
    path = find_data(name)
    if path is not None:
        table = read(path)
        return table, name
    rng = np.random.default_rng(0)
    size, tokens = np.exp(rng.uniform(17, 23, 240)), np.exp(rng.uniform(20, 26, 240))
    loss = planted(size, tokens) * np.exp(0.008 * rng.standard_t(4, 240))
    return make_rows(size, tokens, loss), "planted"


def read(path: Path) -> Rows:
    """Epoch's file without the rows it marks as outliers."""
    table = np.genfromtxt(path, delimiter=",", names=True)
    table = table[table["is_outlier_besiroglu"] == 0]
    return make_rows(table["n_params"], table["tokens"], table["loss"])


def planted(size: FloatArray, tokens: FloatArray) -> FloatArray:
    """Epoch's refit as the truth."""
    return np.asarray(EPOCH["E"] + EPOCH["A"] / size ** EPOCH["a"] + EPOCH["B"] / tokens ** EPOCH["b"])


def make_rows(size: FloatArray, tokens: FloatArray, loss: FloatArray, groups: int = 1) -> Rows:
    """Rows of one target; consecutive rows form the groups."""
    n = len(loss)
    label = np.array([f"g{i * groups // n}" for i in range(n)])
    return Rows({"N": size, "D": tokens}, {"loss": loss}, label, np.ones(n), None, np.arange(n))


def median_ms(call: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Median milliseconds of wall and of processor time."""
    wall, cpu = [], []
    for _ in range(repeat):
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return 1e3 * statistics.median(wall), 1e3 * statistics.median(cpu)


def chinchilla_fits(rows: Rows) -> dict[str, dict[str, float]]:
    """24 starts of the Chinchilla form: time, and the largest excess of ten seeds over the best cost known."""
    law, y = parse(CHINCHILLA, ("N", "D")), rows.targets["loss"]
    out = {}
    for name, options in SETTINGS.items():
        best = min(fit(law, rows.columns, y, options=replaced(options, 99 + i, 200)).cost for i in range(3))
        costs = [fit(law, rows.columns, y, options=replaced(options, seed, 24)).cost for seed in range(10)]
        wall, cpu = median_ms(lambda o=options: fit(law, rows.columns, y, options=o), 15)  # type: ignore[misc]
        out[name] = {"ms": wall, "cpu_ms": cpu, "excess": max(0.0, max(costs) / best - 1)}
    return out


def replaced(options: FitOptions, seed: int, starts: int) -> FitOptions:
    """The same objective with another seed and number of starts."""
    return FitOptions(starts, options.residual, options.robust, seed, delta=options.delta)


def candidates() -> dict[str, dict[str, float]]:
    """Typical candidates of a search: two groups of 60 rows, 12 starts."""
    rng = np.random.default_rng(1)
    size, tokens = np.exp(rng.uniform(14, 22, 120)), np.exp(rng.uniform(20, 26, 120))
    rows = make_rows(size, tokens, planted(size, tokens) * np.exp(0.005 * rng.normal(size=120)), groups=2)
    out = {}
    for text, nonlinear in CANDIDATES.items():
        law, options = parse(text, ("N", "D")), FitOptions(12, "log", tolerance=1e-6)
        wall, cpu = median_ms(lambda one=law, o=options: fit_rows(one, rows, o), 15)  # type: ignore[misc]
        out[text] = {"ms": wall, "cpu_ms": cpu, "nonlinear": nonlinear}
    return out


def bootstraps(rows: Rows) -> dict[str, float]:
    """Seconds for 500 draws."""
    law = parse(CHINCHILLA, ("N", "D"))
    out = {}
    for name, options in SETTINGS.items():
        found = fit_rows(law, rows, options)
        start = time.perf_counter()
        bootstrap(law, rows, found, draws=500, options=options)
        out[name] = time.perf_counter() - start
    return out


def big() -> float:
    """Seconds to fit two million rows."""
    rng = np.random.default_rng(2)
    size, tokens = np.exp(rng.uniform(16, 23, BIG)), np.exp(rng.uniform(20, 26, BIG))
    loss = planted(size, tokens) * np.exp(0.01 * rng.normal(size=BIG))
    start = time.perf_counter()
    fit(parse(CHINCHILLA, ("N", "D")), {"N": size, "D": tokens}, loss, options=FitOptions(residual="log"))
    return time.perf_counter() - start


def peer(rows: Rows, starts: int = 24) -> dict[str, float]:
    """L-BFGS on Huber of log residuals from random points of the published grid, in log A, B, E and alpha, beta."""
    law, y = parse(CHINCHILLA, ("N", "D")), rows.targets["loss"]
    program, log_y, delta = law.compile(rows.columns), np.log(y), 1e-3
    exponential = np.array([True, True, False, True, False])

    def objective(x: FloatArray) -> tuple[float, FloatArray]:
        theta = np.where(exponential, np.exp(np.minimum(np.where(exponential, x, 0.0), 300.0)), x)
        f, jacobian = program.with_jacobian(theta)
        residual = np.log(f) - log_y
        size = np.abs(residual)
        slope = np.clip(residual, -delta, delta) / f
        value = np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))
        with np.errstate(invalid="ignore"):
            return float(value.sum()), (jacobian @ slope) * np.where(exponential, theta, 1.0)

    rng = np.random.default_rng(0)
    logs, powers = np.arange(0, 30, 5), np.arange(0, 2.5, 0.5)
    grid = (np.arange(-1, 1.5, 0.5), logs, powers, logs, powers)
    tight = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-10}
    began = time.perf_counter()
    points = [[rng.choice(g) for g in grid] for _ in range(starts)]
    ends = [minimize(objective, p, jac=True, method="L-BFGS-B", options=tight) for p in points]
    seconds = time.perf_counter() - began
    ours = fit(law, rows.columns, y, options=SETTINGS["log, Huber .001"])
    best = 0.5 * ours.cost * len(y)
    excess = [end.fun / best - 1 for end in ends]
    return {"s": seconds, "excess": min(excess), "share_within_1e-6": float(np.mean(np.array(excess) < 1e-6))}


def report(result: dict[str, dict[str, dict[str, float]]]) -> None:
    """The table for people."""
    for part, lines in result.items():
        for name, figures in lines.items():
            cells = "  ".join(f"{key} {value:.3g}" for key, value in figures.items())
            print(f"{part:12s} {name:36s} {cells}")


def main() -> None:
    """Measure, print the table and one JSON line, keep the result."""
    rows, source = chinchilla(sys.argv[1] if len(sys.argv) > 1 else DATA)
    parts = {
        "24 starts": chinchilla_fits(rows),
        "candidate": candidates(),
        "bootstrap": {name: {"s": seconds} for name, seconds in bootstraps(rows).items()},
        "2M rows": {"log": {"s": big()}},
        "peer L-BFGS": {"24 starts, log, Huber .001": peer(rows)},
    }
    report(parts)
    result = {"bench": "fitting", "data": source, "rows": len(rows), **parts}
    save(result)
    print(json.dumps(result | {"machine": about()}))


if __name__ == "__main__":
    main()
