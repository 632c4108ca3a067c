"""The 16 sets of planted_chinchilla (third-party data, read where it lies), and what pyoperon makes of them."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import operon
from planted_judge import Case

from agentlab.metrics import digits, score
from agentlab.selection import estimate_noise
from agentlab.types import ALL, AgentlabError, Rows, Task, Variable

SETS = 16
DATA = "planted_chinchilla"
TRUTH = "E + A/n_params**a + B/tokens**b"
TRUE = {"E": 1.69, "A": 406.4, "a": 0.34, "B": 410.7, "b": 0.28}
TASK = Task(
    DATA,
    (
        Variable("n_params", box=(1e7, 1e11), monotone="-"),
        Variable("tokens", box=(3e8, 2e12), monotone="-"),
    ),
    ("loss",),
    title="Synthetic: the Chinchilla law, .5% noise",
    scale="n_params*tokens",
    residual="log",
)


def chinchilla_case(number: int) -> Case:
    """Set `number` (1 to SETS): 60 rows with .5% noise, hold-out at 2 to 100 times the scale."""
    rows, holdout = (_rows(f"{number:02d}_{split}.csv") for split in ("train", "test"))
    return Case(TASK, rows, holdout, (TRUTH,), {ALL: {"loss": TRUE}}, number)


def by_operon(case: Case, python: str) -> dict[str, Any]:
    """Test R2 of the law that pyoperon's description length picks, searched for in that Python."""
    loss = case.rows.targets["loss"]
    # The estimate is relative, as the residuals are logarithms; pyoperon fits the loss itself.
    noise = estimate_noise(TASK, case.rows, "loss") * float(np.mean(loss))
    try:
        found = operon.search(case.rows.columns, loss, noise, python=python, seed=case.seed)
    except AgentlabError as error:
        return {"operon_r2": None, "operon_failure": str(error)}
    law = found.models[0].law
    r2 = score(case.holdout.targets["loss"], law.evaluate(case.holdout.columns, np.zeros(0))).r2
    figures = {"operon_r2": digits(r2) if math.isfinite(r2) else None, "operon_formula": law.text}
    return figures | {"operon_seconds": round(found.seconds, 2), "operon_version": found.version}


def _rows(name: str) -> Rows:
    places = [Path(p) / DATA / name for p in os.environ.get("AGENTLAB_DATA", "").split(os.pathsep) if p]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise SystemExit(f"{DATA}/{name} is not under $AGENTLAB_DATA; set it to the folder that holds {DATA}")
    with path.open(newline="") as file:
        table = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    columns = {n: np.array([row[n] for row in table]) for n in TASK.names}
    loss = np.array([row["loss"] for row in table])
    scale = columns["n_params"] * columns["tokens"]
    n = len(table)
    return Rows(columns, {"loss": loss}, np.full(n, ALL), np.ones(n), scale, np.arange(n))
