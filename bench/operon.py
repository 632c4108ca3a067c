"""pyoperon as a peer: searches in the Python that has it, and hands back laws that our parser reads.

It needs three things that its defaults leave out: the noise level for description lengths, `pow` among the primitives,
and constants fitted by Levenberg-Marquardt.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.errors import BackendError, EvaluationError
from agentlab.law import Law, LawError, parse
from agentlab.types import FloatArray

CHILD = Path(__file__).with_name("operon_search.py")
EVALUATIONS = 1_000_000
SECONDS = 1200.0
_INPUT = re.compile(r"X(\d+)")


@dataclass(frozen=True)
class Table:
    """What one search sees: columns and y (n,), and the residual scale, of log y where that is fitted."""

    columns: Mapping[str, FloatArray]
    y: FloatArray
    noise: float


@dataclass(frozen=True)
class Model:
    """A law without free parameters, its description length (nats) and mean squared error in the space of the fit."""

    law: Law
    mdl: float
    mse: float


@dataclass(frozen=True)
class Found:
    """What a search gave: the models that our parser reads, the one with the least description length first."""

    models: tuple[Model, ...]
    version: str
    seconds: float


def installed(python: str = sys.executable) -> bool:
    """Whether that Python has pyoperon."""
    command = [python, "-c", "import pyoperon.sklearn"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def search(
    columns: Mapping[str, FloatArray],
    y: FloatArray,
    noise: float,
    *,
    python: str = sys.executable,
    seed: int = 0,
    evaluations: int = EVALUATIONS,
    log: bool = False,
) -> Found:
    """Search for y (n,) over the columns (n,): `search_tables` with one table."""
    return search_tables([Table(columns, y, noise)], python=python, seed=seed, evaluations=evaluations, log=log)[0]


def search_tables(
    tables: Sequence[Table],
    *,
    python: str = sys.executable,
    seed: int = 0,
    evaluations: int = EVALUATIONS,
    log: bool = False,
) -> list[Found]:
    """Search each table in turn, in one process of one thread, which takes seconds to start.

    Columns are handed over in units near their typical size, since pyoperon computes in single precision; the laws that
    come back take the columns as they were. With `log` the search fits log y.

    Raises:
        BackendError: that Python has no pyoperon.
        EvaluationError: the search died, took longer than SECONDS or found nothing finite.
    """
    if not installed(python):
        raise BackendError(f"{python} has no pyoperon; install it there, or name another with operon=PYTHON")
    units = [{name: _unit(values) for name, values in table.columns.items()} for table in tables]
    told: dict[str, Any] = {"seed": seed, "evaluations": evaluations}
    told["tables"] = [_told(table, unit, log=log) for table, unit in zip(tables, units, strict=True)]
    answers = _asked(python, json.dumps(told))["answers"]
    return [_found(answer, unit, log=log) for answer, unit in zip(answers, units, strict=True)]


def _told(table: Table, units: Mapping[str, float], *, log: bool) -> dict[str, Any]:
    return {
        "columns": {name: (np.asarray(values) / units[name]).tolist() for name, values in table.columns.items()},
        "y": (np.log(table.y) if log else table.y).tolist(),
        "noise": table.noise,
    }


def _found(answer: Mapping[str, Any], units: Mapping[str, float], *, log: bool) -> Found:
    order = sorted(answer["front"], key=lambda m: (m["mdl"], m["length"], m["formula"]))
    models = [(law_of(m["formula"], units, log=log), m) for m in order]
    found = tuple(Model(law, m["mdl"], m["mse"]) for law, m in models if law is not None)
    if not found:
        raise EvaluationError("pyoperon found no finite model that reads as a law")
    return Found(found, answer["version"], answer["seconds"])


def _asked(python: str, told: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [python, str(CHILD)], input=told, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise EvaluationError(f"pyoperon took longer than {SECONDS:g} s; ask for fewer evaluations") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EvaluationError(f"pyoperon failed: {last}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _unit(values: FloatArray) -> float:
    """A power of ten near the typical size, so that it prints exactly."""
    size = np.abs(values[values != 0])
    return float(10.0 ** round(float(np.mean(np.log10(size))))) if len(size) else 1.0


def law_of(formula: str, units: Mapping[str, float], *, log: bool = False) -> Law | None:
    """A formula of pyoperon as a law over the columns named by `units`, in their order; None where it cannot be read.

    It writes ^ for powers and X1, X2 .. for the inputs, which were divided by their units; `log` undoes a logarithm of
    the target.
    """
    names = list(units)

    def column(match: re.Match[str]) -> str:
        name = names[int(match[1]) - 1]
        return f"({name}/{units[name]!r})"

    text = _INPUT.sub(column, formula.replace("^", "**"))
    try:
        return parse(f"exp({text})" if log else text, names)
    except LawError:
        return None
