"""Asks the scoring process about a task's hold-outs: features without targets, and scores of predictions."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.files import write_json
from agentlab.leaderboard_tasks import Known
from agentlab.run_rows import Intake, write_rows
from agentlab.types import EvaluationError

FEATURES, PREDICTIONS, REFERENCES = "features.npz", "predictions.npz", "references.json"
SECONDS = 1800.0
"""What the scoring process may take."""


@dataclass(frozen=True)
class Sealed:
    """A hold-out of a task, as far as the board's own process may know it: where it lies, its digest, its features."""

    known: Known
    file: str
    digest: str
    features: Path
    cache: Path


def open_sealed(home: Path, known: Known, file: str | None, digest: str | None = None) -> Sealed:
    """The hold-out in `file`; its features are read once and kept. `digest` is what it is pinned to, if it is.

    Raises:
        EvaluationError: there is none, or its file is not the one that it was.
    """
    if file is None:
        raise EvaluationError(f"the board has no sealed rows of {known.task.name}, so nothing can be scored on it")
    name = f"{known.version}-second" if digest else known.version
    cache = home / "sealed" / name
    with _alone(cache):
        if not (cache / "sealed.json").is_file():
            made = cache.with_name(f"{name}.new")
            shutil.rmtree(made, ignore_errors=True)
            _folder(made, known, file)
            write_json(made / "sealed.json", _asked("features", made))
            shutil.rmtree(cache, ignore_errors=True)
            made.rename(cache)
    found = str(json.loads((cache / "sealed.json").read_text())["digest"])
    if digest is not None and found != digest:
        raise EvaluationError(f"the second hold-out of {known.task.name} is not the one whose digest is pinned")
    return Sealed(known, file, found, cache / FEATURES, cache)


def scored(sealed: Sealed, folder: Path, parts: Mapping[int, Path]) -> dict[str, Any]:
    """The scores of the predictions in `parts`, a file a seed, as leaderboard.score_predictions has them.

    Raises:
        EvaluationError: the hold-out's file is another than when its features were read, or scoring failed.
    """
    _folder(folder, sealed.known, sealed.file)
    arrays: dict[str, Any] = {}
    for seed, path in parts.items():
        with np.load(path, allow_pickle=False) as stored:
            arrays |= {f"{seed}/{name}": stored[name] for name in stored.files}
    np.savez(folder / PREDICTIONS, allow_pickle=False, **arrays)
    kept = sealed.cache / REFERENCES
    if kept.is_file():
        shutil.copy(kept, folder / REFERENCES)
    found = _asked("predictions", folder)
    if found["digest"] != sealed.digest:
        raise EvaluationError(f"the hold-out of {sealed.known.task.name} was changed; give the task another name")
    with _alone(sealed.cache):
        write_json(kept, {name: found[name] for name in ("reference", "reference_refitted")})
    return found


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Verifications that go on side by side write to a hold-out's folder one at a time."""
    cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with cache.with_name(f"{cache.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folder(folder: Path, known: Known, file: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, Intake(replace(known.task, holdout_file=file), known.searched))


def _asked(what: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "agentlab.leaderboard", what, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise EvaluationError(f"scoring took more than {SECONDS:g} s") from None
    if done.returncode:
        raise EvaluationError(f"scoring failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
