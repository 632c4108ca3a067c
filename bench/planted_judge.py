"""One planted set judged: the real search on it, and beside it the true form fitted by the same fitter."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agentlab import runs
from agentlab.fitting import fit_rows
from agentlab.fitting_bootstrap import bootstrap_draws
from agentlab.law import Law, parse
from agentlab.metrics import digits, pooled_at
from agentlab.planted import Planted
from agentlab.run_rows import Intake
from agentlab.selection import fit_options
from agentlab.trace import number
from agentlab.types import AgentlabError, Budget, FloatArray, GroupParams, Rows, RunConfig, Task

STARTS = 48
DRAWS = 200
INSIDE_90 = (5.0, 95.0)


@dataclass(frozen=True)
class Case:
    """A set to judge: what is searched, what is sealed, and the truth, written in one or more ways."""

    task: Task
    rows: Rows
    holdout: Rows
    truths: tuple[str, ...]
    params: GroupParams
    seed: int


def case_of(one: Planted, equal: tuple[str, ...]) -> Case:
    """The case of a planted set."""
    return Case(one.task, one.rows, one.holdout, (one.formula, *equal), one.params, one.seed)


def judge(case: Case, candidates: int) -> dict[str, Any]:
    """Figures of one set: the law that the search believes and the true form, on the hold-out."""
    # Two sets are judged at a time on two cores: more threads would only get in each other's way.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    return searched(case, candidates) | true_form(case)


def searched(case: Case, candidates: int) -> dict[str, Any]:
    """What the search finds: formula, test R2, whether its key is a key of the truth, seconds."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        config = RunConfig(seed=case.seed, budget=Budget(candidates=candidates), workers=1, out=out)
        try:
            folder = runs.create(config, Intake(case.task, case.rows, case.holdout))
            runs.carry_out(folder, lambda _progress: None)
            result = runs.result(folder)
        except AgentlabError as error:
            return {"formula": None, "r2": None, "recovered": False, "failure": str(error)}
    law = result["law"]
    keys = {parse(text, case.task.names).key for text in case.truths}
    return {
        "formula": law["formula"],
        "r2": _finite(number(result["score"]["holdout"]["r2"])),
        "dev_r2": _finite(number(result["score"]["dev"]["r2"])),
        "recovered": law["key"] in keys,
        "seconds": round(time.perf_counter() - started, 2),
    }


def true_form(case: Case) -> dict[str, Any]:
    """The true form fitted: test R2, how often 90% intervals hold the true parameters and the true targets."""
    law = parse(case.truths[0], case.task.names)
    options = replace(fit_options(case.task, STARTS, case.seed), bounds=known_signs(case))
    fit = fit_rows(law, case.rows, options)
    if not fit.ok:
        return {"true_r2": None, "parameters": [0, 0], "points": [0, 0]}
    predicted = fit.predict(law, case.holdout)
    score = pooled_at(case.holdout, predicted)
    draws = bootstrap_draws(law, case.rows, fit, draws=DRAWS, seed=case.seed, options=options)
    points = points_held(case, law, draws)
    return {"true_r2": _finite(score.r2), "parameters": parameters_held(case, law, draws), "points": points}


def parameters_held(case: Case, law: Law, draws: Mapping[tuple[str, str], FloatArray]) -> list[int]:
    """(true parameters inside their 90% percentile intervals, parameters), over all groups."""
    held = total = 0
    for (group, target), theta in draws.items():
        named = case.params[group][target]
        truth = np.array([named[p] for p in law.params])
        total += len(truth)
        if len(theta):
            low, high = np.percentile(theta, INSIDE_90, axis=0)
            held += int(np.count_nonzero((low <= truth) & (truth <= high)))
    return [held, total]


def known_signs(case: Case) -> dict[str, tuple[float, float]]:
    """Bounds that fix the sign of every parameter to the true one.

    Several laws can be written upside down (a sigmoid that falls with a negative exponent): the values would differ
    while the function is the same, and say nothing about the intervals.
    """
    values: dict[str, list[float]] = {}
    for targets in case.params.values():
        for named in targets.values():
            for name, value in named.items():
                values.setdefault(name, []).append(value)
    up, down = (0.0, np.inf), (-np.inf, 0.0)
    return {n: up if min(v) >= 0 else down for n, v in values.items() if min(v) >= 0 or max(v) <= 0}


def points_held(case: Case, law: Law, draws: Mapping[tuple[str, str], FloatArray]) -> list[int]:
    """(hold-out rows whose noise-free target lies in the bootstrap's 90% band, rows)."""
    held = total = 0
    for (group, target), theta in draws.items():
        theirs = case.holdout.group == group
        truth = case.holdout.targets[target][theirs]
        total += len(truth)
        if not len(theta):
            continue
        band = law.evaluate({k: v[theirs] for k, v in case.holdout.columns.items()}, theta)
        low, high = np.nanpercentile(np.where(np.isfinite(band), band, np.nan), INSIDE_90, axis=0)
        held += int(np.count_nonzero((low <= truth) & (truth <= high)))
    return [held, total]


def _finite(value: float) -> float | None:
    return digits(value) if np.isfinite(value) else None
