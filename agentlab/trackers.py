"""Copies a finished run into an experiment tracker: MLflow or Weights & Biases, each an extra.

What is copied is read from the trace: settings, scores, the law, the best objective so far by candidate, and the losses
of the runs that were made. Nothing is computed anew, and no sealed row is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.errors import BackendError
from agentlab.runs_files import CONFIG, read_config
from agentlab.runs_result import result
from agentlab.trace import Record, number, read
from agentlab.words import UsageError

__all__ = ["Copied", "Point", "Tracked", "to_mlflow", "to_wandb", "tracked"]

FILES = (CONFIG, "trace.jsonl", "law.json", "law.py", "holdout.json")
"""Files that go along; rows do not, neither those that were searched nor those that are sealed."""

BATCH = 1000
"""Metrics of one request: the most that MLflow's server takes."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a curve: `step` counts candidates, or runs that were made."""

    name: str
    step: int
    value: float


@dataclass(frozen=True)
class Tracked:
    """A run as a tracker shows it: settings as text, final figures, curves, and files to go along."""

    run: str
    settings: Mapping[str, str]
    figures: Mapping[str, float]
    curves: Sequence[Point]
    tags: Mapping[str, str]
    files: Sequence[Path]


@dataclass(frozen=True, slots=True)
class Copied:
    """What went where: figures and points of curves, and the tracker's own id of the run."""

    run: str
    where: str
    id: str
    figures: int
    points: int


def tracked(folder: Path) -> Tracked:
    """What of a finished run a tracker is told. Raises UsageError where the run has no law yet."""
    found = result(folder)
    config = read_config(folder)
    records = list(read(folder / "trace.jsonl"))
    settings = dict(_flat(records[0]))
    figures = {k: v for k, v in _numbers(found) if math.isfinite(v)}
    law = found["law"]
    tags = {
        "agentlab.run": found["run"],
        "agentlab.task": str(found["task"]),
        "agentlab.formula": law["formula"],
        "agentlab.key": law["key"],
        "agentlab.entry": str(law["entry"]),
        "agentlab.verdict": found["verdict"],
        "agentlab.seed": str(config.seed),
    }
    files = [folder / name for name in FILES if (folder / name).is_file()]
    return Tracked(folder.name, settings, figures, list(_curves(records)), tags, files)


def _flat(told: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted name, those that say nothing left out."""
    for key, value in told.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif value is not None and key != "kind":
            yield f"{before}{key}", str(value)


def _numbers(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for part, score in found["score"].items():
        yield from ((f"{part}.{k}", number(v)) for k, v in (score or {}).items())
    yield from ((f"cost.{k}", number(v)) for k, v in found["cost"].items())
    yield "law.n_params", float(found["law"]["n_params"])
    yield "candidates.evaluated", float(found["counts"]["evaluated"])
    yield "candidates.rejected", float(sum(found["counts"]["rejected"].values()))
    for group, targets in found["law"]["params"].items():
        for target, params in targets.items():
            yield from ((f"params.{group}.{target}.{name}", number(v)) for name, v in params.items())


def _curves(records: Sequence[Record]) -> Iterator[Point]:
    best = math.inf
    for r in records:
        if r["kind"] == "entry" and r["status"] == "ok" and number(r["objective"]) < best:
            best = number(r["objective"])
            yield Point("best.objective", int(r["id"]), best)
        elif r["kind"] == "measured" and r["status"] == "ok":
            yield from (Point(f"made.{k}", int(r["id"]), number(v)) for k, v in r["targets"].items())
            yield Point("made.flops", int(r["id"]), number(r["flops"]))


def to_mlflow(folder: Path, uri: str, experiment: str = "agentlab") -> Copied:
    """Copy a finished run to the MLflow server at `uri`.

    Raises:
        UsageError: the run has no law yet.
        BackendError: the extra is missing, or the server does not take the run.
    """
    if not uri.startswith(("http://", "https://")):
        raise UsageError(f"--mlflow {uri}: give the address of a server, such as http://127.0.0.1:5000")
    try:
        from mlflow import MlflowClient  # noqa: PLC0415 -- an extra
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
    except ModuleNotFoundError:
        raise BackendError("copying to MLflow needs: pip install 'agentlab-discovery[mlflow]'") from None
    one = tracked(folder)
    params = [Param(k, v[:6000]) for k, v in one.settings.items()]
    tags = [RunTag(k, v[:5000]) for k, v in one.tags.items()]
    metrics = [Metric(k, v, 0, 0) for k, v in one.figures.items()]
    metrics += [Metric(p.name, p.value, 0, p.step) for p in one.curves]
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        place = known.experiment_id if known is not None else client.create_experiment(experiment)
        made = client.create_run(place, run_name=one.run).info.run_id
        client.log_batch(made, params=params[:100], tags=tags)
        for i in range(0, len(metrics), BATCH):
            client.log_batch(made, metrics=metrics[i : i + BATCH])
        for path in one.files:
            client.log_artifact(made, str(path))
        client.set_terminated(made)
    except MlflowException as error:
        first = (str(error).splitlines() or ["no message"])[0]
        raise BackendError(f"MLflow at {uri} does not take the run: {first}") from error
    return Copied(one.run, uri, made, len(one.figures), len(one.curves))


def to_wandb(folder: Path, project: str, *, offline: bool = False, into: Path | None = None) -> Copied:
    """Copy a finished run to Weights & Biases; `offline` writes its files below `into`, and nothing is sent.

    Raises:
        UsageError: the run has no law yet.
        BackendError: the extra is missing, or the service does not take the run.
    """
    try:
        import wandb  # noqa: PLC0415 -- an extra
    except ModuleNotFoundError:
        raise BackendError("copying to Weights & Biases needs: pip install 'agentlab-discovery[wandb]'") from None
    one = tracked(folder)
    place = str(into if into is not None else folder)
    try:
        with wandb.init(
            project=project,
            name=one.run,
            config=dict(one.settings),
            notes=one.tags["agentlab.verdict"],
            mode="offline" if offline else "online",
            dir=place,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        ) as made:
            for name, axis in (("best.objective", "candidate"), ("made.*", "run made")):
                made.define_metric(name, step_metric=axis)
            for p in one.curves:
                made.log({p.name: p.value, "candidate" if p.name.startswith("best") else "run made": p.step})
            made.summary.update(dict(one.figures) | dict(one.tags))
            kept = wandb.Artifact(re.sub(r"[^A-Za-z0-9_.-]", "-", one.run), type="agentlab-run")
            for path in one.files:
                kept.add_file(str(path.resolve()), name=path.name)
            made.log_artifact(kept)
            found = str(made.id)
    except wandb.Error as error:
        raise BackendError(f"Weights & Biases does not take the run: {str(error).splitlines()[0]}") from error
    return Copied(one.run, f"{place}/wandb" if offline else project, found, len(one.figures), len(one.curves))
