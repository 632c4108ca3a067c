"""Packs finished runs as a submission to the leaderboard, and sends it to a board here or over HTTP."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentlab import __version__
from agentlab.discover_files import TRACE
from agentlab.leaderboard_records import (
    MOST_BYTES,
    TOKEN,
    Fitting,
    Manifest,
    Run,
    Told,
    agreed,
    files_of,
    fingerprint,
    submission_of,
)
from agentlab.run_rows import read_rows
from agentlab.runs_files import find, read_config, seconds_of
from agentlab.trace import Record, read
from agentlab.types import BackendError
from agentlab.words import UsageError

SECONDS = 60.0
"""How long a board may take to answer."""


def pack(runs: Sequence[str], submitter: str, declared: Sequence[int] = (), note: str = "", out: str = "runs") -> bytes:
    """Finished runs of one task and one method as a submission, in JSON.

    `declared` are the seeds that were meant to be run, finished or not; without it those of the runs. What no run was
    finished for counts as the worst.

    Raises:
        UsageError: a run has no law, or the runs are not of one task and one method.
        RefusedError: a name, a note or a seed is none that a board takes.
    """
    if not runs:
        raise UsageError("agentlab leaderboard submit: name at least one run: agentlab leaderboard submit RUN")
    folders = [find(run, out) for run in runs]
    configs = [dataclasses.asdict(read_config(folder)) for folder in folders]
    _check_alike(folders, configs)
    laws = {config["seed"]: _law_of(folder) for folder, config in zip(folders, configs, strict=True)}
    if len(laws) < len(folders):
        raise UsageError("agentlab leaderboard submit: two runs have the same seed; give each seed once")
    seeds = list(declared) or list(laws)
    if lacking := [seed for seed in laws if seed not in seeds]:
        raise UsageError(f"--declared leaves out seed {lacking[0]}, which is submitted; declare every seed you ran")
    task, rows = read_rows(folders[0], every=True)
    law = agreed(laws, seeds)
    told = Told(formula=law.formula, program=law.program, key=law.key)
    parts = [_run(folder, config) for folder, config in zip(folders, configs, strict=True)]
    manifest = Manifest(agentlab=__version__, rows=fingerprint(rows), files=files_of(parts, told))
    whole = {
        "form": 1, "submitter": submitter, "note": note, "task": task.name, "law": told.model_dump(),
        "fit": Fitting(residual=task.residual, robust=task.robust).model_dump(), "declared": seeds,
        "runs": [part.model_dump() for part in parts], "manifest": manifest.model_dump(),
    }  # fmt: skip
    submission_of(whole)
    text = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode(errors="replace")
    if len(text) > MOST_BYTES:
        raise UsageError(f"the submission has {len(text)} bytes, more than {MOST_BYTES}; submit fewer runs at a time")
    return text


def _run(folder: Path, config: dict[str, Any]) -> Run:
    # Where a run was made is nobody's business, and an address may name a person's machine.
    kept = config | {"out": "runs", "base_url": None, "address": None}
    return Run(config=kept, trace=(folder / TRACE).read_text(encoding="utf-8"), seconds=seconds_of(folder))


def _law_of(folder: Path) -> Record:
    path = folder / TRACE
    found = next((r for r in read(path) if r["kind"] == "law"), None) if path.exists() else None
    if found is None or found["entry"] is None:
        raise UsageError(f"{folder.name} has no law yet; continue it with: agentlab runs resume {folder}")
    return found


def _check_alike(folders: Sequence[Path], configs: Sequence[dict[str, Any]]) -> None:
    """Runs of a submission differ in their seed, and in where they were made."""
    for folder, config in zip(folders, configs, strict=True):
        if not config["task"]:
            raise UsageError(
                f"{folder.name} is a run of a file, for which the board has no sealed rows; make the file a task "
                "(tasks/NAME/task.toml) and run task=NAME"
            )
        for key in sorted(set(config) - {"seed", "out", "workers", "base_url", "address", "engine", "model_seconds"}):
            if config[key] != configs[0][key]:
                raise UsageError(
                    f"{folder.name} has {key}={config[key]}, {folders[0].name} has {key}={configs[0][key]}; "
                    "a submission is of one method: submit them apart"
                )


def send(text: bytes, url: str) -> dict[str, Any]:
    """Send a submission to the board that is served at `url`; what the board answers.

    The token is read from $AGENTLAB_BOARD_TOKEN.

    Raises:
        BackendError: the board does not answer.
        UsageError: it does not take the submission; the line is its own.
    """
    import httpx2  # noqa: PLC0415 - only who sends needs it

    token = os.environ.get(TOKEN, "")
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    try:
        answer = httpx2.post(f"{url.rstrip('/')}/submissions", content=text, headers=headers, timeout=SECONDS)
    except httpx2.HTTPError as error:
        raise BackendError(f"{url}: the board does not answer ({type(error).__name__}); is it served there?") from None
    if answer.status_code == 401:
        raise UsageError(f"{url}: the board does not know the token; put one of its own into ${TOKEN}")
    told = _told(answer.content)
    if answer.status_code >= 400:
        raise UsageError(f"{url}: {told.get('error', f'the board answers {answer.status_code}')}")
    return told


def _told(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def seeds_of(text: str) -> list[int]:
    """The seeds of --declared: numbers with commas, or none. Raises UsageError."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"--declared {text!r}: write the seeds with commas, such as 0,1,2") from None
