"""What a run's law says at new points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.csv_columns import read_columns
from agentlab.csv_header import TableError
from agentlab.errors import nearest
from agentlab.law import parse
from agentlab.run_rows import read_rows
from agentlab.runs import find, result
from agentlab.types import ALL, FloatArray, StrArray
from agentlab.words import UsageError


def predict(run_id: str, words: Sequence[str]) -> dict[str, Any]:
    """A run's law at the points of `data=FILE.csv`, which has its features (and its group column).

    Returns "formula" and "columns": features, group where there is one, and one column a target.
    """
    if len(words) != 1 or not words[0].startswith("data="):
        raise UsageError("agentlab predict: write agentlab predict RUN data=POINTS.csv")
    folder, path = find(run_id), Path(words[0].removeprefix("data="))
    task, _ = read_rows(folder)
    found = result(folder)["law"]
    law = parse(found["formula"], task.names)
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
    predicted = law.predict(columns, group, found["params"])
    return {"formula": found["formula"], "columns": answer | {t: predicted[t].tolist() for t in task.targets}}
