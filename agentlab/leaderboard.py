"""Scores laws on sealed hold-outs, in a process of its own: `python -m agentlab.leaderboard RUN_FOLDER`.

The only reader of hold-outs. A run is scored once; every further look gets the same figures and is counted. A board
asks for the sealed rows' features (`features FOLDER`), has them predicted elsewhere, and has the predictions scored
(`predictions FOLDER`): what predicts never sees a sealed target, and what scores runs no law that was sent.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.envs import SandboxError
from agentlab.files import write_json
from agentlab.fitting import fit_rows
from agentlab.law import parse
from agentlab.metrics import digits, pooled_at
from agentlab.program import predict_rows, programs
from agentlab.program_text import ProgramError
from agentlab.run_rows import read_rows, read_sealed
from agentlab.selection import fit_options
from agentlab.table import file_rows
from agentlab.types import AgentlabError, EvaluationError, FloatArray, Rows, Score, Task

LAW = "law.json"
SCORES = "holdout.json"
FEATURES, PREDICTIONS, REFERENCES = "features.npz", "predictions.npz", "references.json"
LOOKS = "looks.log"
STARTS = 48
SECONDS = 300.0
"""What one request to a law that is a program may take: ten times what it had when it was judged."""
FAILED = "the law's program fails on the sealed rows"


def score_run(folder: Path) -> dict[str, Any]:
    """The scores of a run on its hold-out, made at the first call and read back at every later one.

    Returns "holdout" (the run's law), "reference" (the published law with its constants), "reference_refitted" (its
    form fitted to the searched rows), each a Score as a mapping or None where there is nothing to score, and "looks".
    A program that fails on the sealed rows is infinitely wrong there, and "failed" says so.

    Raises:
        EvaluationError: the run has no law, or was scored with another one; or no sandbox here can run its program.
    """
    law = folder / LAW
    if not law.is_file():
        raise EvaluationError(
            f"{folder}: no {LAW}, so the run has no law to score; resume it with: agentlab runs resume {folder}"
        )
    text = law.read_bytes()
    scores = _scored_before(folder, text)
    if scores is None:
        scores = _score(folder, json.loads(text)) | {"law_sha256": hashlib.sha256(text).hexdigest()}
        write_json(folder / SCORES, scores)
    return {k: v for k, v in scores.items() if k != "law_sha256"} | {"looks": _count_look(folder / LOOKS)}


def _scored_before(folder: Path, law: bytes) -> dict[str, Any] | None:
    path = folder / SCORES
    if not path.is_file():
        return None
    scores: dict[str, Any] = json.loads(path.read_text())
    if scores["law_sha256"] != hashlib.sha256(law).hexdigest():
        raise EvaluationError(
            f"{folder}: the hold-out was opened for another law; a run is scored once: start a new run"
        )
    return scores


def _score(folder: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    task, rows = read_rows(folder, every=True)
    sealed = _sealed_rows(folder, task)
    scores: dict[str, Any] = {"holdout": None, "reference": None, "reference_refitted": None}
    if sealed is None:
        return scores
    try:
        predicted = _predicted(folder, told, task, sealed)
    except ProgramError:
        # Not its own words: what it says of the rows it was shown would be on record.
        scores["failed"] = FAILED
        predicted = {target: np.full(len(sealed), np.nan) for target in task.targets}
    scores["holdout"] = _figures(pooled_at(sealed, predicted))
    return scores | _references(task, rows, sealed)


def _references(task: Task, rows: Rows, sealed: Rows) -> dict[str, Any]:
    """The published law on the sealed rows: with its constants, and fitted to the searched rows."""
    scores: dict[str, Any] = {"reference": None, "reference_refitted": None}
    if task.reference is not None:
        published = parse(task.reference.formula, task.names)
        if set(published.params) <= set(task.reference.params):
            everywhere = {g: dict.fromkeys(task.targets, task.reference.params) for g in sealed.groups}
            scores["reference"] = _figures(
                pooled_at(sealed, published.predict(sealed.columns, sealed.group, everywhere))
            )
        fit = fit_rows(published, rows, fit_options(task, STARTS))
        scores["reference_refitted"] = _figures(pooled_at(sealed, fit.predict(published, sealed))) if fit.ok else None
    return scores


def _predicted(folder: Path, told: Mapping[str, Any], task: Task, rows: Rows) -> dict[str, FloatArray]:
    """What the law says at the rows; a program says it in a sandbox, which is sent their features and no target."""
    if "program" not in told:
        return parse(told["formula"], task.names).predict(rows.columns, rows.group, told["params"])

    async def inner() -> dict[str, FloatArray]:
        async with programs(size=1, starting=1) as (pool, _):
            return await predict_rows(told["program"], task, rows, told["params"], pool, SECONDS)

    try:
        return asyncio.run(inner())
    except SandboxError as error:
        raise EvaluationError(
            f"{folder}: the law is a program, and {error}; then score it with: agentlab runs resume {folder}"
        ) from error


def _sealed_rows(folder: Path, task: Task) -> Rows | None:
    """The rows sealed at intake, else those of the task's own hold-out file."""
    if task.holdout_file is not None:
        return file_rows(task, Path(task.holdout_file))
    return read_sealed(folder)


def _figures(score: Score) -> dict[str, float]:
    """Ten significant digits: what the trace keeps, the same on machines whose last bits differ."""
    return {k: v if k == "n" else digits(v) for k, v in dataclasses.asdict(score).items()}


def _count_look(path: Path) -> int:
    with path.open("a", encoding="utf-8") as file:
        file.write("look\n")
    return len(path.read_text(encoding="utf-8").splitlines())


def sealed_features(folder: Path) -> dict[str, Any]:
    """Write what is asked of a law at the sealed rows, features and groups, to features.npz; no target is among it.

    Returns how many rows there are, and the digest of the file that they are sealed in.
    """
    task, _ = read_rows(folder)
    sealed = _sealed_rows(folder, task)
    if sealed is None or task.holdout_file is None:
        raise EvaluationError(f"{folder}: {task.name} has no sealed rows, so nothing can be scored on it")
    np.savez(
        folder / FEATURES, allow_pickle=False, group=sealed.group, **{f"x/{k}": v for k, v in sealed.columns.items()}
    )
    return {"rows": len(sealed), "digest": hashlib.sha256(Path(task.holdout_file).read_bytes()).hexdigest()}


def score_predictions(folder: Path) -> dict[str, Any]:
    """The scores of predictions that stand in a folder, a law each: predictions.npz, and task.json with the hold-out.

    Returns "runs" (by name: a Score as a mapping, and "coverage", the share of sealed values within the predicted
    intervals, None without any), the reference's scores as score_run has them, and "digest" of the hold-out's file.
    """
    task, rows = read_rows(folder)
    sealed = _sealed_rows(folder, task)
    if sealed is None or task.holdout_file is None:
        raise EvaluationError(f"{folder}: {task.name} has no sealed rows, so nothing can be scored on it")
    with np.load(folder / PREDICTIONS, allow_pickle=False) as stored:
        parts = {name: np.asarray(stored[name], dtype=np.float64) for name in stored.files}
    names = sorted({name.split("/")[0] for name in parts})
    runs = {name: _predictions(name, parts, sealed, task) for name in names}
    known = folder / REFERENCES
    beside = json.loads(known.read_text()) if known.is_file() else _references(task, rows, sealed)
    return {"runs": runs, "digest": hashlib.sha256(Path(task.holdout_file).read_bytes()).hexdigest()} | beside


def _predictions(name: str, parts: Mapping[str, FloatArray], sealed: Rows, task: Task) -> dict[str, Any]:
    predicted = {target: parts[f"{name}/{target}"] for target in task.targets}
    inside: list[float] = []
    for target, y in sealed.targets.items():
        ends = [parts.get(f"{name}/{target}/{end}") for end in ("low", "high")]
        if ends[0] is not None and ends[1] is not None:
            inside.append(float(np.mean((ends[0] <= y) & (y <= ends[1]))))
    return _figures(pooled_at(sealed, predicted)) | {"coverage": digits(float(np.mean(inside))) if inside else None}


def main(words: list[str]) -> int:
    """Do what the command line asks for and print one JSON line; returns the exit code."""
    asked = {1: score_run, 2: _ASKED.get(words[0])}.get(len(words)) if words else None
    if asked is None:
        print("agentlab.leaderboard: name one run folder: python -m agentlab.leaderboard RUN_FOLDER", file=sys.stderr)
        return 2
    try:
        print(json.dumps(asked(Path(words[-1]))))
    except AgentlabError as error:
        print(f"agentlab.leaderboard: {error}", file=sys.stderr)
        return error.exit_code
    return 0


_ASKED = {"features": sealed_features, "predictions": score_predictions}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
