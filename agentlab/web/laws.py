"""A run's laws for the page: trees that it evaluates itself, rows beside them, where they lead, what they decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agentlab import allocation
from agentlab.law import LawError, parse
from agentlab.replay import Run
from agentlab.replay_law import FoundLaw
from agentlab.types import AgentlabError, FloatArray, Rows, Task
from agentlab.web.words import drawn, mathml, plain, tree

MOST_ROWS = 3_000
"""Rows that are drawn; of a larger table every so manyth."""

FURTHER = 100.0
"""How far beyond the rows a law is drawn, as a factor of the input."""

STEPS, COMPUTES, PAIRS = 41, 25, 12
"""Points of a curve, computes of a decision, and (group, target) pairs whose extrapolation is drawn."""

QUANTILES = (5.0, 25.0, 50.0, 75.0, 95.0)
"""Of the bootstrap's laws."""

DRAWN = 60
"""Laws of the bootstrap that say how sure a decision is."""


def law_told(law: FoundLaw) -> dict[str, Any]:
    """A law with its parameters on record, and its tree where it is a formula."""
    told: dict[str, Any] = {"formula": law.formula, "entry": law.entry, "made": law.made, "program": law.program}
    told |= {"params": plain(law.params), "intervals": plain(law.recorded)}
    if law.program:
        return told
    latex = law.latex()
    return told | {"tree": tree(law.law.tree), "names": list(law.law.params), "latex": latex, "mathml": mathml(latex)}


def formula_of(text: str, task: Task) -> Any:  # noqa: ANN401 - MathML as nested lists, None where there is none
    """A formula as MathML; None for a program and for what is no formula."""
    try:
        return mathml(parse(text, task.names).latex())
    except LawError:
        return None


def rows_told(run: Run, law: FoundLaw | None) -> dict[str, Any]:
    """The rows that are not sealed, as many as are drawn, and what the law says there."""
    rows, task = run.rows, run.task
    kept = rows.take(np.arange(0, len(rows), -(-len(rows) // MOST_ROWS)))
    told: dict[str, Any] = {
        "of": len(rows),
        "columns": {n: plain(c) for n, c in kept.columns.items()},
        "observed": {t: plain(y) for t, y in kept.targets.items()},
        "group": [str(g) for g in kept.group],
        "scale": None if kept.scale is None else plain(kept.scale),
        "predicted": None,
        "missing": "",
    }
    if law is not None:
        points = dict(kept.columns) | ({} if task.group is None else {task.group: kept.group})
        try:
            told["predicted"] = {t: plain(v) for t, v in law.predict(points).items()}
        except AgentlabError as error:
            told["missing"] = str(error)
    return told


def hidden_told(law: FoundLaw) -> list[dict[str, Any]]:
    """The law beyond each inner cut, refitted below it."""
    return [
        {
            "axis": h.axis,
            "share": h.share,
            "train": h.train,
            "test": h.test,
            "shown": h.shown,
            "are": plain(h.score.are),
            "r2": plain(h.score.r2),
            "observed": {t: drawn(y) for t, y in h.observed.items()} if h.shown else {},
            "predicted": {t: drawn(y) for t, y in h.predicted.items()} if h.shown else {},
        }
        for h in law.extrapolation()
    ]


def fans(run: Run, law: FoundLaw) -> list[dict[str, Any]]:
    """Where the bootstrap's laws lead along each input, beyond the rows; the other inputs as in the largest row."""
    found, rows = [], run.rows
    for (group, target), draws in list(law.draws.items())[:PAIRS]:
        mine = rows.take(rows.group == group)
        at = _largest(mine)
        for name in law.law.used:
            x = _sweep(run.task, mine, name)
            columns = {n: np.full(len(x), v) for n, v in at.items()} | {name: x}
            said = law.law.evaluate(columns, draws)
            ends = np.percentile(np.where(np.isfinite(said), said, np.inf), QUANTILES, axis=0, method="inverted_cdf")
            told = {"group": group, "target": target, "input": name, "at": plain(at), "x": drawn(x)}
            found.append(told | {"quantiles": [drawn(line) for line in ends]})
    return found


def _largest(rows: Rows) -> dict[str, float]:
    """The inputs of the row of largest scale, else of the last."""
    place = len(rows) - 1 if rows.scale is None else int(np.argmax(rows.scale))
    return {name: float(column[place]) for name, column in rows.columns.items()}


def _sweep(task: Task, rows: Rows, name: str) -> FloatArray:
    """Values of an input, from its least to FURTHER beyond its largest, or to the end of its box."""
    column = rows.columns[name]
    low, high = float(column.min()), float(column.max())
    one = next(v for v in task.features if v.name == name)
    if one.log and low > 0:
        top = high * FURTHER if one.box is None else max(min(high * FURTHER, one.box[1]), high)
        return np.geomspace(low, top, STEPS)
    return np.linspace(low, high + (high - low if one.box is None else max(one.box[1] - high, 0.0)), STEPS)


def decision(run: Run, law: FoundLaw) -> dict[str, Any]:
    """What the law decides: the best configuration by compute, and the two inputs to draw it over.

    Raises:
        AllocationError: the inputs leave nothing to choose.
    """
    task, rows = run.task, run.rows
    question = allocation.asked(task, rows)
    levers = allocation.active(law.law, question)
    axes = [question.params, question.tokens] if question.paired else [lever.name for lever in levers]
    axes = [*axes, question.solved][:2] if len(axes) < 2 else axes[:2]
    if not levers or None in axes:
        raise allocation.AllocationError("the inputs leave nothing to choose: the task has no two levers")
    (group, target), draws = next(iter(law.draws.items()))
    mine = rows.take(rows.group == group)
    theta = np.array([law.params[group][target][p] for p in law.law.params])
    spent = None if question.cost is None else allocation.cost_of(question.cost, mine.columns)
    computes = [question.compute] if spent is None else _computes(spent, question.compute)
    told: dict[str, Any] = {"group": group, "target": target, "question": allocation.summary(question)}
    told |= {"cost": question.cost, "sign": question.sign, "asked": plain(question.compute), "solved": question.solved}
    told |= {"cost_tree": None if question.cost is None else tree(parse(question.cost, task.names).tree)}
    told["axes"] = [_axis(task, mine, str(name), question) for name in axes]
    told["others"] = {n: v for n, v in _largest(mine).items() if n not in axes}
    told["path"] = list(_path(law, theta, draws, question, computes))
    return told


def _path(
    law: FoundLaw, theta: FloatArray, draws: FloatArray, question: allocation.Question, computes: Sequence[float]
) -> Iterator[Mapping[str, Any]]:
    """The best configuration at each compute, between which 90% of the bootstrap's laws have theirs."""
    n, some = len(computes), draws[:DRAWN]
    at = np.array(computes)
    choice = allocation.best(law.law, np.tile(theta, (n, 1)), question, at)
    spread = allocation.best(law.law, np.tile(some, (n, 1)), question, np.repeat(at, len(some)))
    ends = {name: _ends(v.reshape(n, -1)) for name, v in spread.config.items()}
    value90 = _ends(spread.value.reshape(n, -1))
    for i, compute in enumerate(computes):
        yield {
            "compute": plain(compute),
            "config": {name: drawn(v[i : i + 1])[0] for name, v in choice.config.items()},
            "config90": {name: drawn(v[:, i]) for name, v in ends.items()},
            "value": drawn(choice.value[i : i + 1])[0],
            "value90": drawn(value90[:, i]),
            "edge": [name for name, v in choice.edge.items() if v[i]],
        }


def _ends(values: FloatArray) -> FloatArray:
    """The ends (2, n) between which nine tenths of each row (n, B) lie; nan where a row has no finite value."""
    known = np.where(np.isfinite(values), values, np.nan)
    known[np.isnan(known).all(axis=1)] = np.inf
    return np.asarray(np.nanpercentile(known, (5.0, 95.0), axis=1))


def _computes(spent: FloatArray, asked: float) -> list[float]:
    """From the cheapest row to FURTHER beyond the dearest, with the compute that was asked about."""
    return sorted({asked, *np.geomspace(float(spent.min()), FURTHER * float(spent.max()), COMPUTES).tolist()})


def _axis(task: Task, rows: Rows, name: str, question: allocation.Question) -> dict[str, Any]:
    """An input to draw a decision over: its range in the rows and FURTHER beyond, as far as it may be chosen."""
    x = _sweep(task, rows, name)
    low, high = float(x[0]), float(x[-1])
    for lever in question.levers:
        if lever.name == name:
            low, high = max(lever.low, low / FURTHER if lever.log else lever.low), min(lever.high, high)
    one = next(v for v in task.features if v.name == name)
    return {"name": name, "low": low, "high": high, "log": bool(one.log and low > 0)}
