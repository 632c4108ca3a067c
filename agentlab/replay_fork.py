"""A new run out of the beginning of another: what was found is kept, what follows is searched anew when resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentlab.discover_files import TRACE
from agentlab.discover_open import writes
from agentlab.errors import nearest
from agentlab.files import write_json
from agentlab.run_rows import TASK
from agentlab.runs_files import CONFIG, read_config
from agentlab.trace import Record, dump
from agentlab.types import RunConfig
from agentlab.words import UsageError

ORIGIN = "fork.json"

BESIDE = ("survivors.json", "looks.log")

ANYWHERE = ("budget.seconds", "engine", "address", "base_url", "workers", "model_seconds", "approve.flops")
"""Settings that may change in every run: they say where and how long, and no entry depends on them."""

PLAIN = ("budget.candidates", "patience")
"""Settings that may change where no model writes: a writer's prompts and turns depend on them."""


def origin(folder: Path) -> Mapping[str, Any] | None:
    """Where a run was forked from; None where it was not."""
    path = folder / ORIGIN
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def fork(folder: Path, records: Sequence[Record], kept: int, gen: int, out: Path, changes: Mapping[str, Any]) -> Path:
    """The folder of a new run that begins with the first `kept` lines of the trace in `folder`.

    `changes` are settings by name, those of a budget as budget__candidates. Without any the kept lines are the same
    bytes; with some the first line holds the settings as changed.

    Raises:
        UsageError: a setting is unknown or cannot change, or the folder cannot be written.
    """
    config = read_config(folder)
    changed = _changed(config, changes)
    with (folder / TRACE).open("rb") as file:
        lines = [file.readline() for _ in range(kept)]
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    lines[0] = _first_line(records[0], lines[0], config, changed)
    entries = sum(r["kind"] == "entry" for r in records[:kept])
    told = {"run": folder.name, "generation": gen, "entries": entries, "lines": kept, "sha256": digest}
    try:
        made = _claim(out, re.sub(r"-fork(-\d+)?$", "", folder.name))
        # Sealed rows go along unread, with the looks that were had at them: a fork of a run is no new hold-out.
        for path in [folder / TASK, *folder.glob("*.npz"), *(folder / n for n in BESIDE)]:
            if path.is_file():
                shutil.copy2(path, made / path.name)
        (made / TRACE).write_bytes(b"".join(lines))
        write_json(made / ORIGIN, told | {"changes": {_dotted(k): v for k, v in changes.items()}})
        # Last, so that a folder with settings is a whole run.
        write_json(made / CONFIG, dataclasses.asdict(dataclasses.replace(changed, out=str(out))))
    except OSError as error:
        raise UsageError(f"out={out}: {error.strerror}: {error.filename}; give a folder that can be written") from error
    return made


def _claim(out: Path, name: str) -> Path:
    """A new folder `name`-fork-NNN: claimed by making it, so that two forks may be made at once."""
    out.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        with suppress(FileExistsError):
            folder = out / f"{name}-fork-{number:03d}"
            folder.mkdir()
            return folder
        number += 1


def _changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The settings with the changes. Raises UsageError for one that would make what is kept another run's."""
    free = ANYWHERE if writes(config) or config.model else (*ANYWHERE, *PLAIN)
    nested: dict[str, dict[str, Any]] = {"budget": {}, "approve": {}}
    plain: dict[str, Any] = {}
    for key, value in changes.items():
        name = _dotted(key)
        if name not in free:
            raise UsageError(f"fork: {name}= {_why_not(name, config)}; what may change: {', '.join(free)}")
        head, _, tail = name.partition(".")
        if tail:
            nested[head][tail] = value
        else:
            plain[name] = value
    budget = dataclasses.replace(config.budget, **nested["budget"])
    approve = dataclasses.replace(config.approve, **nested["approve"])
    return dataclasses.replace(config, budget=budget, approve=approve, **plain)


def _why_not(name: str, config: RunConfig) -> str:
    head, _, tail = name.partition(".")
    known = {f.name for f in dataclasses.fields(RunConfig)}
    if head not in known or (tail and not hasattr(getattr(config, head), tail)):
        return f"is no setting of a run ({nearest(head, sorted(known))})"
    if name in PLAIN:
        return "cannot change: the models of this run were told of it, so what is kept depends on it"
    return "cannot change: what is kept was found with it"


def _dotted(key: str) -> str:
    """A setting as it is written on the command line: budget__candidates is budget.candidates."""
    return key.replace("__", ".")


def _first_line(first: Record, line: bytes, config: RunConfig, changed: RunConfig) -> bytes:
    """The first line of the trace with the settings that changed; the same bytes where none did."""
    was, now = dataclasses.asdict(config), dataclasses.asdict(changed)
    new = {k: now[k] for k in first if k in now and now[k] != was[k]}
    return dump(first | new) if new else line
