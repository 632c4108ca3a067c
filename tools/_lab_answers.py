"""Turns what commands found into answers that are short enough: the verdict first, tables on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentlab.tools._lab_pages import plots_of
from agentlab.tools._lab_records import Audit, Board, Comparison, Detail, Estimate, FeatureAbout, Predictions, TaskAbout
from agentlab.tools._lab_short import LONGEST, bounded, cut, length
from mcp.server.mcpserver.exceptions import ToolError

from agentlab.types import Task

SHOWN = 12
"""Parameters, laws or rows of a brief answer."""
TABLES = ("residuals", "factors", "cuts", "rivals", "battery", "convergence", "correlations", "worst")
"""Parts of a card that detail=full shows, as many as there is room for."""
BRIEF_ROW = (
    *("id", "task", "task_version", "law", "method", "holdout_are", "holdout_se", "reference_are", "coverage"),
    *("regret", "n_params", "level", "date", "note"),
)
"""Columns of a row of the leaderboard in a brief answer."""


def about(told: TaskAbout, task: Task) -> TaskAbout:
    """What a task says of itself; where its files lie is nobody's business."""
    features = [
        FeatureAbout(name=v.name, unit=v.unit, description=v.description, monotone=v.monotone, box=v.box)
        for v in task.features
    ]
    reference = task.reference
    return told.model_copy(
        update={
            "features": features,
            "targets": list(task.targets),
            "group": task.group,
            "scale": task.scale,
            "residual": task.residual,
            "max_params": task.max_params,
            "reference": "" if reference is None else reference.formula,
            "source": "" if reference is None else reference.source,
        }
    )


def audited(found: Mapping[str, Any], folder: Path, detail: Detail) -> Audit:
    """A card as an answer; its tables stand in the resource, and as many as there is room for in detail=full."""
    uri = f"agentlab://law/{folder.name}"
    decision = found["decision"]
    answer = Audit(
        formula=found["formula"],
        verdict=list(found["verdict"]),
        parameters=[
            {k: p[k] for k in ("group", "target", "name", "value", "interval90", "unidentified")}
            for p in found["parameters"][: SHOWN if detail == "brief" else 4 * SHOWN]
        ],
        decision=decision and cut({k: v for k, v in decision.items() if v not in (None, [], False)}),
        question=found["question"],
        missing=[f["name"] for f in found["facts"] if not f["value"]],
        card=uri,
        plots=[f"{uri}/plots/{name}" for name in plots_of(folder)],
        note="; ".join(found["notes"])[:1_000],
    )
    if detail == "full":
        room = LONGEST - length(answer.model_dump(mode="json")) - 1_000
        for name in TABLES:
            shown = cut(found[name])
            room -= length(shown)
            if room < 0:
                break
            answer.full[name] = shown
    return answer


def predicted(found: Mapping[str, Any], task: Mapping[str, Any], detail: Detail) -> Predictions:
    """Predictions by target; with detail=full also the points. Raises ToolError where they are too many."""
    kept = [*([task["group"]] if task["group"] else []), *task["targets"]]
    columns = {k: v for k, v in found["columns"].items() if detail == "full" or k in kept}
    n = len(columns[task["targets"][0]])
    answer = Predictions(by=found["by"], formula=cut(found["formula"]), n=n, columns=columns)
    if (long := length(answer.model_dump(mode="json"))) > LONGEST:
        fits = max(1, int(0.9 * n * LONGEST / long))
        raise ToolError(f"{n} points make too long an answer; send at most {fits} at a time")
    return answer


def beside(found: Mapping[str, Any], detail: Detail) -> Comparison:
    """Laws side by side; their errors by cut with detail=full."""
    kept = ("formula", "ok", "reason", "mdl", "objective", "n_params", "violations", "dev")
    laws = [cut(law if detail == "full" else {k: law[k] for k in kept}) for law in found["laws"]]
    return bounded(Comparison(verdict=cut(found["verdict"]), laws=laws, differences=cut(found["differences"])))


def estimated(found: Mapping[str, Any], pace: float | None) -> Estimate:
    """What a dry run tells; `pace` are the seconds a candidate took in earlier runs."""
    models = [cut(dict(one)) for one in found.get("estimates", [])]
    choices = {k: found[k] for k in ("scale", "residual", "robust", "max_params") if k in found}
    seconds = None if pace is None or models else round(pace * found["candidates"], 1)
    note = "" if seconds is None else "seconds by the median pace of the runs here, whatever their rows were"
    return Estimate(
        task=found["task"],
        rows=found["rows"],
        groups=found["groups"],
        holdout=str(found["holdout"]),
        candidates=found["candidates"],
        choices=choices,
        models=models,
        seconds=seconds,
        note=note,
    )


def board(found: Sequence[Mapping[str, Any]], task: str | None, cursor: int, detail: Detail) -> Board:
    """A page of the leaderboard."""
    rows = [r for r in found if task in (None, r.get("task"))]
    page: list[dict[str, Any]] = []
    room = LONGEST - 2_000
    for row in rows[cursor:]:
        shown = cut({k: row[k] for k in BRIEF_ROW if k in row} if detail == "brief" else dict(row), 600)
        room -= length(shown)
        if room < 0 or len(page) == 4 * SHOWN:
            break
        page.append(shown)
    after = cursor + len(page)
    return Board(rows=page, total=len(rows), cursor=after if after < len(rows) else None)
