"""What a run's law says at new points, or the baseline where no law beats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agentlab import baselines
from agentlab.csv_columns import read_columns
from agentlab.csv_header import TableError
from agentlab.errors import nearest
from agentlab.law import parse
from agentlab.program_text import refuse_program
from agentlab.run_rows import read_rows
from agentlab.runs_files import find
from agentlab.runs_result import result
from agentlab.types import ALL, FloatArray, Rows, StrArray
from agentlab.words import UsageError, read_words


@dataclass(frozen=True, slots=True)
class Points:
    """The words of `agentlab predict`: where the points are, and what is to predict them."""

    data: str = ""
    by: Literal["best", "law", "baseline"] = "best"


def predict(run_id: str, words: Sequence[str]) -> dict[str, Any]:
    """A run's law at the points of `data=FILE.csv`, which has its features (and its group column).

    Where no law beats a baseline on hidden rows, the baseline predicts, unless `by=law` asks for the law. Returns "by"
    ("law", or the baseline's name), "formula" and "columns": features, group where there is one, one column a target.
    """
    asked = read_words(words, Points, "agentlab predict")
    if not asked.data:
        raise UsageError("agentlab predict: write agentlab predict RUN data=POINTS.csv")
    folder, path = find(run_id), Path(asked.data)
    task, rows = read_rows(folder, every=True)
    whole = result(folder)
    found, by = whole["law"], whole["baselines"]["beaten_by"] if asked.by != "law" else ""
    if asked.by == "baseline" and not by:
        raise UsageError(f"agentlab predict: by=baseline, but the law of {folder.name} beats them; leave by= out")
    if not by:
        refuse_program(found, "agentlab predict", folder.name)
    kinds: dict[str, Any] = dict.fromkeys(task.names, "number") | ({task.group: "text"} if task.group else {})
    read = read_columns(path, kinds)
    columns: dict[str, FloatArray] = {}
    for name in task.names:
        values = np.asarray(read.values[name], dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise TableError(f"{path} line {read.lines[bad[0]]}: column {name!r} holds no number; write one")
        columns[name] = values
    group: StrArray = read.values[task.group].astype(np.str_) if task.group else np.full(len(read.lines), ALL)
    answer: dict[str, Any] = {name: values.tolist() for name, values in columns.items()}
    if task.group:
        answer[task.group] = group.tolist()
    for name in np.unique(group):
        if str(name) not in found["params"]:
            raise UsageError(
                f"{path}: group {str(name)!r} was not in the run; {nearest(str(name), list(found['params']))}"
            )
    if by:
        points = Rows(columns, {}, group, np.ones(len(group)), None, np.arange(len(group)))
        predicted = baselines.predict(by, task, rows, points)
    else:
        predicted = parse(found["formula"], task.names).predict(columns, group, found["params"])
    return {
        "by": by or "law",
        "formula": found["formula"],
        "columns": answer | {t: predicted[t].tolist() for t in task.targets},
    }
