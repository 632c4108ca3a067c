"""10,000 structures that the proposer really asks for, each fitted as the search fits them, in two processes."""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time

import numpy as np

from agentlab.archive import Archive
from agentlab.fitting import fit_rows
from agentlab.law import Law, parse
from agentlab.proposers.mutate import Mutate
from agentlab.selection import rounded, search_options
from agentlab.types import Entry, Outcome, Rows, Task, Variable

FITS, PROCESSES, STARTS, ROWS = 10_000, 2, 10, 200


def planted() -> tuple[Task, Rows]:
    """Three features that each lower the loss by a power law, .5% noise."""
    rng = np.random.default_rng(0)
    columns = {
        name: np.exp(rng.uniform(low, high, ROWS)) for name, low, high in (("N", 16, 23), ("D", 20, 26), ("V", 8, 12))
    }
    truth = 1.8 + 480 * columns["N"] ** -0.35 + 2000 * columns["D"] ** -0.36 + 3 * columns["V"] ** -0.25
    task = Task("planted", tuple(Variable(name) for name in columns), ("loss",), robust="none", max_params=8)
    noisy = truth * np.exp(0.005 * rng.normal(size=ROWS))
    return task, Rows(columns, {"loss": noisy}, np.full(ROWS, "all"), np.ones(ROWS), None, np.arange(ROWS))


def stream(seed: int, count: int) -> list[tuple[str, float, float]]:
    """The key of each candidate asked for, and the seconds of clock and of processor that its fit took."""
    task, rows = planted()
    proposer, archive = Mutate(task, seed), Archive()
    out: list[tuple[str, float, float]] = []
    for index in range(count * 2):
        if len(out) == count:
            break
        proposal = proposer.ask(index, archive, ())
        if proposal is None:
            continue
        start, busy = time.perf_counter(), time.process_time()
        law = parse(proposal.formula, task.names)
        found = fit_rows(law, rows, search_options(task, STARTS, seed))
        out.append((proposal.key, time.perf_counter() - start, time.process_time() - busy))
        length = _length(law, found.rss / ROWS) if found.ok else math.inf
        outcome = Outcome("rejected", found.reason or "non-finite")
        if math.isfinite(length):
            outcome = Outcome(
                "ok",
                objective=length,
                mdl=length,
                n_params=law.n_params,
                complexity=law.complexity,
                structure=law.structure,
                params=rounded(found),
            )
        archive.add(Entry(index, proposal, outcome))
    return out


def _length(law: Law, variance: float) -> float:
    """A description length in nats, for the archive."""
    return 0.5 * ROWS * math.log(variance + 1e-12) + 0.5 * law.n_params * math.log(ROWS) + 2.5 * law.complexity


def candidates() -> dict[str, dict[str, float]]:
    """Seconds of the slower process, for the fits alone and with the proposer's own work, and milliseconds a fit.

    Processor seconds tell what a quiet machine would need; the clock also counts who else is at work.
    """
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        parts = pool.starmap(stream, [(seed, FITS // PROCESSES) for seed in range(PROCESSES)])
    wall = time.perf_counter() - began
    every = sorted(busy for part in parts for _, _, busy in part)
    return {
        f"{STARTS} starts, {ROWS} rows, {PROCESSES} processes": {
            "fits": len(every),
            "structures": len({key for part in parts for key, _, _ in part}),
            "seconds, fits": max(sum(clock for _, clock, _ in part) for part in parts),
            "processor seconds, fits": max(sum(busy for _, _, busy in part) for part in parts),
            "seconds, proposer included": wall,
            "processor ms a fit, mean": 1e3 * statistics.fmean(every),
            "processor ms a fit, median": 1e3 * statistics.median(every),
            "processor ms a fit, 99%": 1e3 * every[int(0.99 * len(every))],
        }
    }
