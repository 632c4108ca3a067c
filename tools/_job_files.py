"""A job as its folder tells it: JSON files that may be missing or damaged, and a log whose last line may be torn.

The state of a job follows from these files and the process table alone, so that any server can tell it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from agentlab.envs._processes import Started, alive, reap
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import JsonValue

Fields: TypeAlias = dict[str, JsonValue]
Lines: TypeAlias = list[Fields]

_HEAD, _TAIL = 1 << 14, 1 << 16
"""Bytes read from the two ends of a log: a status must cost the same for a long run as for a short one."""
_OF_THE_RUN = ("steps", "simulated", "backend")
"""Fields of a start line that hold for the whole run; its other fields are a plan, not what has been done."""


State = Literal["starting", "running", "done", "diverged", "failed", "cancelled", "interrupted"]
GOING: tuple[State, ...] = ("starting", "running")
OVER: tuple[State, ...] = ("done", "diverged")
"""States that leave a result; a job in any other state is started again by the same request."""


@dataclass(frozen=True)
class Job:
    """Where a job stood when it was read; `created` is in seconds since 1970, as its file says.

    `seen` has the newest value of each field in the log, `result` is None until there is one.
    """

    id: str
    kind: str
    folder: Path
    state: State
    message: str = ""
    created: float = 0.0
    config: Fields = field(default_factory=dict)
    seen: Fields = field(default_factory=dict)
    result: Fields | None = None

    @property
    def going(self) -> bool:
        """Whether it may still change by itself."""
        return self.state in GOING


@dataclass(frozen=True)
class Told:
    """What a log tells: the newest value of every field, and the last line of the present attempt ({} if none)."""

    seen: Fields
    last: Fields


def read_object(path: Path) -> Fields | None:
    """The JSON object in a file, None when there is no file.

    Raises:
        ToolError: the file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(value, dict):
        raise _damaged(path)
    return value


def told(log: Path, since: int = 0) -> Told:
    """Reads both ends of a log; `since` is its length in bytes when the present attempt began."""
    try:
        with log.open("rb") as file:
            head = file.read(_HEAD)
            start = max(0, log.stat().st_size - _TAIL)
            file.seek(start)
            tail = file.read()
    except FileNotFoundError:
        return Told({}, {})
    except OSError as error:
        raise _damaged(log) from error
    seen: Fields = {}
    last: Fields = {}
    first = next((line for _, line in objects(head) if line.get("event") == "start"), {})
    for offset, line in [(0, first), *objects(tail)]:
        seen |= {k: line[k] for k in _OF_THE_RUN if k in line} if line.get("event") == "start" else line
        if line and start + offset >= since:
            last = line
    return Told(seen, last)


def objects(block: bytes) -> Iterator[tuple[int, Fields]]:
    """The objects among the whole lines of a block and where each begins; a torn or damaged line is left out."""
    offset = 0
    for line in block.splitlines(keepends=True):
        if line.startswith(b"{") and line.endswith(b"\n"):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                yield offset, value
        offset += len(line)


def error_text(line: Fields) -> str:
    """The text of an error line: where, what, what to write instead."""
    return "; ".join(str(line[k]) for k in ("where", "what", "instead") if line.get(k))


def process_of(folder: Path) -> Started | None:
    """The process that was started last, None before the first. Raises ToolError when its file is damaged."""
    found = read_object(folder / "process.json")
    if found is None:
        return None
    pid, ticks, mark = (found.get(k) for k in ("pid", "start_ticks", "mark"))
    if not (isinstance(pid, int) and isinstance(ticks, int) and isinstance(mark, str) and mark and pid > 1):
        what = f"job {folder.name}: its process.json is damaged"
        raise ToolError(f"{what}; delete the folder {folder} and start it anew")
    return Started(pid, ticks, mark)


def read_job(folder: Path) -> Job:
    """A job as its files and the process table tell it. Raises ToolError when one of them is damaged."""
    about = read_object(folder / "job.json") or {}
    config = read_object(folder / "config.json") or {}
    process = process_of(folder)
    runs = process is not None and alive(process)  # before the result is read: it writes that and then ends
    if process is not None and not runs:
        reap(process.pid)
    launched = read_object(folder / "process.json") or {}
    log = told(folder / "log.jsonl", _whole_number(launched.get("log_bytes")))
    result = read_object(folder / "result.json")
    state, message = _state(folder, log.last, result, runs=runs)
    created = about.get("created")
    if not isinstance(created, int | float):
        created = (folder / "config.json").stat().st_mtime
    kind = str(about.get("kind", "train"))  # folders older than job.json are the trainer's
    return Job(folder.name, kind, folder, state, message, float(created), config, log.seen, result)


def _whole_number(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0


def _state(folder: Path, last: Fields, result: Fields | None, *, runs: bool) -> tuple[State, str]:
    if result is not None:
        return ("diverged" if result.get("status") == "diverged" else "done"), ""
    if runs:
        return ("running" if last else "starting"), ""
    if (folder / "cancelled").exists():
        why = (folder / "cancelled").read_text(encoding="utf-8").strip()
        return "cancelled", why or "start it again with the same config to resume"
    if last.get("event") == "error":
        return "failed", error_text(last)
    said = last_error(folder / "errors.txt")
    if said:
        return "failed", said
    return "interrupted", "killed from outside; start it again with the same config to resume"


def last_error(path: Path) -> str:
    """The last line that a program wrote to its standard error, at most 300 characters; "" when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""


def _damaged(path: Path) -> ToolError:
    what = f"job {path.parent.name}: its {path.name} is damaged or cannot be read"
    return ToolError(f"{what}; delete the folder {path.parent} and start it anew")
