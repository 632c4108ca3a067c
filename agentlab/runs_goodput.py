"""The highest request rate that keeps latency targets, by the laws of a run: `agentlab plan RUN --goodput ..`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentlab.fitting import fit_rows
from agentlab.fitting_bootstrap import bootstrap_draws
from agentlab.goodput import Crossover, Goodput, GoodputError, Names, Service, Timing, crossover, goodput
from agentlab.law import parse
from agentlab.run_rows import read_rows
from agentlab.runs_result import result
from agentlab.selection import fit_options
from agentlab.words import UsageError

EXAMPLE = '"prompt=256,output=64,ttft=500,tpot=40,N=2e7,K=3072,layers=6"'
DRAWS = 200


def best_rate(folder: Path, text: str) -> tuple[Goodput, Crossover]:
    """The best batch and its rate, and the batch at which reading weights and computing take the same time.

    `text` holds NAME=VALUE pairs: prompt and output of a request in tokens, ttft and tpot as targets in milliseconds,
    and every feature of the laws but the batch B and the prompt length L.

    Raises:
        UsageError: the run is of another task, or a pair cannot be read.
        GoodputError: a feature is missing, or a number is none.
    """
    asked = _pairs(text)
    task, rows = read_rows(folder, every=True)
    if set(task.targets) != {"ttft", "tpot"} or task.group is not None:
        raise UsageError(f"--goodput: {task.name} has no targets ttft and tpot; name a run of task=serving_latency")
    law = parse(result(folder)["law"]["formula"], task.names)
    fitted = fit_rows(law, rows, fit_options(task, 24))
    if not fitted.ok:
        raise GoodputError(f"--goodput: the law of {folder.name} does not fit its rows: {fitted.reason}")
    draws = bootstrap_draws(law, rows, fitted, draws=DRAWS, options=fit_options(task, 24))
    timings = {t: Timing(law, fitted.fits[rows.groups[0], t].params, draws[rows.groups[0], t]) for t in task.targets}
    service = Service(**{k: asked.pop(k) for k in ("prompt", "output", "ttft", "tpot") if k in asked})
    found = goodput(timings["ttft"], timings["tpot"], asked, service)
    names = Names()
    if names.batch not in law.used:
        return found, Crossover(None, "the law does not change with the batch")
    return found, crossover(timings["tpot"], {**asked, names.length: service.prompt}, lever=names.batch)


def _pairs(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for pair in text.split(","):
        name, equals, value = pair.strip().partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise UsageError(f"--goodput: {pair.strip()!r} is not NAME=NUMBER; write for example {EXAMPLE}") from None
        if not equals or not name:
            raise UsageError(f"--goodput: {pair.strip()!r} is not NAME=NUMBER; write for example {EXAMPLE}")
    for name in ("prompt", "output"):
        if name not in found:
            raise UsageError(f"--goodput: {name}= is missing; write for example {EXAMPLE}")
    return found


def record(found: Goodput, free: Crossover) -> dict[str, Any]:
    """Both as JSON."""
    return {"goodput": asdict(found), "crossover": asdict(free)}


def page(found: Goodput, free: Crossover, folder: Path) -> str:
    """Both as text."""
    if found.reason:
        lines = [f"goodput   0 requests a second: {found.reason}"]
    else:
        lines = [f"goodput   {found.rate:.4g} requests a second{_range(found.rate_interval)}"]
        lines.append(f"batch     {found.batch}{_range(found.batch_interval)}" + (" at the edge" if found.edge else ""))
        lines.append(f"times     ttft {found.ttft:.4g} ms, tpot {found.tpot:.4g} ms")
    told = free.reason if free.value is None else f"batch {free.value:.3g}{_range(free.interval)}"
    lines.append(f"crossover {told}: below it a step is bound by memory, above it by computation")
    return "\n".join([*lines, "", f"next: agentlab audit {folder}"])


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"   [{interval[0]:.4g}, {interval[1]:.4g}]"
