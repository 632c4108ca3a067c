"""Synthetic run folders for the tests of pages: a valid trace of any length, with models' calls, votes and sealed rows.

Nothing was searched: the candidates are made up, the law is the one that was planted, fitted to the planted rows.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from agentlab import semconv
from agentlab.files import write_json
from agentlab.fitting import FitOptions, fit_rows
from agentlab.law import parse
from agentlab.run_rows import Intake, write_rows
from agentlab.selection import rounded
from agentlab.trace import Record, Trace
from agentlab.types import ALL, Rows, RunConfig, Task, Variable

LAW = "E + A/N**a + B/D**b"
HOSTILE = '</script><img src="x" onerror="document.title=666">'
TASK = Task(
    "planted",
    (Variable("N", "parameters"), Variable("D", "tokens")),
    ("loss",),
    title=f"Planted {HOSTILE}",
    scale="6*N*D",
    residual="log",
)
PROGRAM = """\
def law(X, params):
    return params[0] + params[1] * X[:, 0] ** -params[2]

def fit(X, y):
    return [1.0, 2.0, 0.3]
"""
PROGRAMS = (PROGRAM, PROGRAM.replace("X[:, 0]", "X[:, 1]").replace("1.0", "1.5"))
DEV = {"r2": 0.98, "nmse": 0.02, "nmae": 0.1, "mae": 0.01, "are": 0.0123, "n": 12}


def planted(n: int, low: float, high: float, seed: int) -> Rows:
    """Rows of Chinchilla's form with half a percent of noise, between two scales."""
    rng = np.random.default_rng(seed)
    size, tokens = 10 ** rng.uniform(low, high, n), 10 ** rng.uniform(low + 2, high + 2, n)
    loss = (1.69 + 406.4 / size**0.34 + 410.7 / tokens**0.28) * np.exp(rng.normal(0, 0.005, n))
    return Rows({"N": size, "D": tokens}, {"loss": loss}, np.full(n, ALL), np.ones(n), 6 * size * tokens, np.arange(n))


def entry(number: int, candidates: int) -> Record:
    """A made-up candidate; most are made of an earlier one, some are rejected, two are programs."""
    told: Record = {"kind": "entry", "id": number, "tool": "fit.laws", "formula": f"E + A/N**a + B/D**{number + 2}"}
    told |= {"key": f"k{number}", "proposer": "mutate", "operator": "edit" if number > 7 else "seed"}
    told |= {"parents": [number - number % 5 - 1] if number > 7 else [], "island": number % 5}
    if number in (5, 6):
        told |= {"tool": "program.judge", "formula": PROGRAMS[number - 5], "key": f"program:{number}"}
        told |= {"operator": "rewrite", "parents": [5] if number == 6 else []}
    if number == candidates - 3:
        told |= {"formula": LAW}
    if number % 9 == 8:
        return told | {"status": "rejected", "reason": "outclassed" if number % 2 else "not finite beyond a cut"}
    luck = (number * 0.618034) % 1.0
    gain = 200.0 * (1 - np.exp(-3.0 * number / candidates)) * luck**0.5 + 50.0 * (number == candidates - 3)
    told |= {"status": "ok", "objective": round(-100.0 - gain, 6), "mdl": -80.0, "n_params": 3, "complexity": 9}
    return told | {"structure": "1 + D^ + N^", "dev": DEV | {"are": 0.05 - 0.0001 * gain}, "params": params()}


def params() -> dict[str, Any]:
    """Parameters of the law, near the planted ones."""
    return {ALL: {"loss": {"E": 1.7, "A": 400.0, "a": 0.34, "B": 410.0, "b": 0.28}}}


def calls() -> list[Record]:
    """A prompt with its reply, and a vote of two rungs."""
    text = {"role": "user", "parts": [{"type": "text", "content": f"Which law? {HOSTILE}"}]}
    said = {"role": "assistant", "parts": [{"type": "text", "content": "A power law."}], "finish_reason": "stop"}
    reply: Record = {"kind": "reply", "call": 0, semconv.MODEL: "scripted", semconv.INPUT_MESSAGES: [text], "usd": 0.25}
    reply |= {semconv.INPUT_TOKENS: 120, semconv.OUTPUT_TOKENS: 12, semconv.OUTPUT_MESSAGES: [said]}
    reply |= {"drafts": [["E + A/N**a", "?*N**?+?", "new", [], "a power"]], "rejects": [["not a formula", "N = 7"]]}
    two = {"rung": "base", "votes": [[[3, 4], 2], [[3, 7], 2]], "flags": {"too long": 1}, "draws": 5, "waves": 2}
    three = {"rung": "paraphrase", "votes": [[[3, 4], 3]], "flags": {}, "draws": 3, "waves": 1}
    rungs = [two | {"opening": []}, three | {"opening": []}]
    vote: Record = {"kind": "decision", "block": 8, "k": 2, "question": "parents", "asked": "00", "key": [3, 4]}
    return [
        reply,
        vote | {"tally": rungs, "flags": {}, "draws": 8, "calls": 8, "tokens": {"in": 80, "out": 8}, "escalated": 1},
    ]


def experiments() -> list[Record]:
    """Three training runs that were asked for: two were made, one failed."""
    told: list[Record] = []
    for number in range(3):
        asked: Record = {"kind": "experiment", "id": number, "round": 0, "tool": "train.start", "design": "design"}
        asked |= {"flops": 2e17, "config": {"N": 1e8, "seed": number}, "columns": {"N": 1e8, "D": 3e8}}
        curve = [[0.25 * k, 4.0 - 0.2 * k - 0.1 * number] for k in range(1, 5)]
        made: Record = {"kind": "measured", "id": number, "flops": 2e17, "simulated": False}
        good = {"status": "ok", "targets": {"loss": curve[-1][1]}, "digest": "ab", "curve": curve}
        told += [asked, made | (good if number < 2 else {"status": "rejected", "reason": "loss is not finite"})]
    return told


def ending(rows: Rows, candidates: int) -> list[Record]:
    """What a run writes at its end; the parameters are really fitted."""
    found = fit_rows(parse(LAW, TASK.names), rows, FitOptions(residual="log", starts=8))
    fitted = rounded(found)
    ends = {n: [v * 0.9, v * 1.1] for n, v in fitted[ALL]["loss"].items()}
    chosen: Record = {
        "entry": candidates - 3,
        "formula": LAW,
        "status": "ok",
        "objective": -410.0,
        "mdl": -90.0,
        "dev": DEV,
    }
    chosen |= {"n_params": 5, "complexity": 13, "cuts": [-8.0], "params": fitted}
    other = chosen | {"entry": 3, "formula": "E + A/N**a", "objective": -300.0, "n_params": 3}
    other |= {"params": {ALL: {"loss": {"E": 2.0, "A": 400.0, "a": 0.3}}}}
    beside = [{"name": n, "beyond": -3.0, "dev": DEV | {"are": 0.2}} for n in ("law", "group mean")]
    return [
        {"kind": "stop", "reason": "candidates", "asked": candidates},
        {"kind": "finalist"} | other,
        {"kind": "finalist"} | chosen,
        {"kind": "baselines", "beaten_by": "", "rows": beside},
        {"kind": "luck", "candidates": 8, "gain": 0.0, "law_gain": 5.5, "r2": -0.1},
        {"kind": "law", "key": "?+?*D**?+?*N**?", "intervals": {ALL: {"loss": ends}}} | chosen,
        {"kind": "holdout", "holdout": DEV | {"are": 0.00777, "n": 9}, "reference": None, "reference_refitted": None},
    ]


def write_run(folder: Path, candidates: int, *, done: bool, seed: int = 0) -> Path:
    """A run folder with so many candidates, with sealed rows of its own; `done` with a law."""
    folder.mkdir(parents=True)
    rows = planted(48, 7.0, 9.0, 0)
    write_rows(folder, Intake(TASK, rows, planted(9, 10.0, 11.0, 1)))
    config = RunConfig(task="planted", proposer="mutate", seed=seed, window=64)
    write_json(folder / "config.json", asdict(config))
    first: Record = {"kind": "run", "schema": 1, "task": TASK.name, "rows": 48, "proposer": "mutate", "seed": seed}
    entries = [entry(i, candidates) for i in range(candidates)]
    with Trace(folder / "trace.jsonl") as trace:
        trace.append(
            [first, *entries[:8], *calls(), *experiments(), *entries[8:], *(ending(rows, candidates) if done else ())]
        )
    return folder
