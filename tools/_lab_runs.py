"""Follows runs by their folders: how far one is, its best law, what is new since a cursor, and what it found.

Everything is read from the trace, the settings and the output of the run's own process. A cursor is a place in the
trace in bytes; what was read once is not read again.
"""

from __future__ import annotations

import json
import math
import statistics
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from agentlab.tools._lab_records import Best, RunState
from agentlab.tools._lab_short import LONGEST, cut, length, shortened
from mcp.server.mcpserver.exceptions import ToolError

from agentlab import detach
from agentlab.errors import AgentlabError
from agentlab.trace import Record, follow
from agentlab.types import DEFAULT_CANDIDATES

BLOCK = 1 << 20
"""Bytes of a trace that one page reads at most."""
EVENTS = 40
"""Events of one brief answer."""
PACED = 5
"""Runs that an estimate of time goes by."""
FOLLOWED = 64
"""Runs whose tallies are kept."""
QUIET = ("entry", "decision", "reply", "sent", "turn", "lost", "finalist", "approval")
"""Kinds of records that are no events of their own: a better law is."""


@dataclass
class Tally:
    """What a trace has told so far; `events` are (place after it, event)."""

    place: int = 0
    evaluated: int = 0
    rejected: int = 0
    best: Record | None = None
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    ending: dict[str, Record] = field(default_factory=dict)
    simulated: bool = False

    def take(self, record: Record, place: int) -> None:
        """Count one record that ends at `place`."""
        kind = record["kind"]
        if kind == "entry":
            self._entry(record, place)
        elif kind == "round":
            self.evaluated += record["counts"]["evaluated"]
        self.simulated = self.simulated or bool(record.get("simulated"))
        if kind in ("run", "stop", "law", "holdout", "baselines", "luck"):
            self.ending[kind] = record
        if kind not in QUIET:
            self.events.append((place, _event(record)))

    def _entry(self, record: Record, place: int) -> None:
        if record["status"] != "ok":
            self.rejected += 1
            return
        self.evaluated += 1
        if _objective(record) < (math.inf if self.best is None else _objective(self.best)):
            self.best = record
            event = {"event": "better law", "entry": record["id"], "formula": record["formula"]}
            self.events.append((place, shortened(event | {"objective": record.get("objective")})))


class Runs:
    """The runs that one server follows. Its methods may be called in threads; one of them reads at a time."""

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._tallies: OrderedDict[Path, Tally] = OrderedDict()

    def tally(self, folder: Path) -> Tally:
        """What the trace of a run tells now."""
        with self._one:
            return self._tally(folder)

    def _tally(self, folder: Path) -> Tally:
        trace = folder / "trace.jsonl"
        found = self._tallies.setdefault(folder, Tally())
        self._tallies.move_to_end(folder)
        while len(self._tallies) > FOLLOWED:
            self._tallies.popitem(last=False)
        if not trace.exists():
            return found
        if trace.stat().st_size < found.place:  # the ending was cut off, to be written anew
            found = self._tallies[folder] = Tally()
        for record, place in _records(trace, found.place):
            found.take(record, place)
            found.place = place
        return found

    def state(self, folder: Path, cursor: int, *, full: bool) -> RunState:
        """Where a run stands, with what is new since `cursor`. Raises ToolError for a cursor that is none."""
        found = self.tally(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        state, note = _state(folder, found)
        limit = None if config["experiments"] else config["budget"]["candidates"]
        if limit is None and not config["experiments"] and config["budget"]["seconds"] is None:
            limit = DEFAULT_CANDIDATES
        told = RunState(
            run=folder.name,
            state=state,
            note=note,
            evaluated=found.evaluated,
            rejected=found.rejected,
            limit=limit,
            best=None if found.best is None else _best(found.best),
            simulated=found.simulated,
            cost={"seconds": _seconds(folder)},
        )
        if state == "done":
            for groups in (12, 6, 3, 1) if full else (6, 3, 1):
                told = told.model_copy(update=_found(folder, found, groups, full=full))
                if len(told.model_dump_json(indent=2)) < LONGEST // 2:
                    break
        page, told.cursor = (_page if full else _news)(
            folder, found, cursor, LONGEST - len(told.model_dump_json(indent=2)) - 2_000
        )
        told.events, told.more = page, told.cursor < found.place and bool(page)
        return told

    def pace(self, home: Path) -> float | None:
        """Median seconds a candidate of the last finished runs, None where there is none to go by."""
        found = []
        for config in sorted(home.glob("*/config.json"), key=lambda p: p.stat().st_mtime, reverse=True)[:PACED]:
            told = self.tally(config.parent)
            tried, seconds = told.evaluated + told.rejected, _seconds(config.parent)
            if tried and seconds and "law" in told.ending:
                found.append(seconds / tried)
        return statistics.median(found) if found else None


def _records(trace: Path, place: int) -> Iterator[tuple[Record, int]]:
    """The whole records after a place and where each ends, a block at a time."""
    while True:
        with trace.open("rb") as file:
            file.seek(place)
            block = file.read(BLOCK)
            while b"\n" not in block and (more := file.read(BLOCK)):
                block += more
        whole = block[: block.rfind(b"\n") + 1]
        if not whole:
            return
        for line in whole.splitlines(keepends=True):
            place += len(line)
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and "kind" in record:
                    yield record, place


def _objective(record: Record) -> float:
    return float(record.get("objective", math.inf))


def _event(record: Record) -> dict[str, Any]:
    """What a record that is no candidate tells, briefly."""
    kept = {k: v for k, v in record.items() if k not in ("kind", "params", "intervals", "laws", "prices", "rows")}
    event: dict[str, Any] = shortened(cut({"event": record["kind"]} | kept, 400, 12))
    return event


def _best(record: Record) -> Best:
    dev = record.get("dev") or {}
    return Best(
        entry=record["id"],
        formula=cut(record["formula"]),
        objective=record.get("objective"),
        dev_are=dev.get("are"),
        dev_r2=dev.get("r2"),
        n_params=record.get("n_params", 0),
    )


def _state(folder: Path, found: Tally) -> tuple[str, str]:
    """The state of a run and a word on what to do about it."""
    law = found.ending.get("law")
    scored = law is not None and (law["entry"] is None or "holdout" in found.ending)
    try:
        life = detach.life(folder)
    except AgentlabError as error:
        return "open", str(error)
    if scored and (law or {}).get("entry") is None:
        return "failed", "no law fitted the rows within the budget; start a run with more candidates"
    if scored:
        writes = life in ("running", "stopping") and not _printed(folder / detach.OUTPUT)
        return (life, "its law is scored; it writes its verdict") if writes else ("done", "")
    if life == "running":
        return ("running", "") if found.place else ("starting", "")
    if life == "stopping":
        return "stopping", "it finishes its step and reports"
    if life == "none":
        return "open", f"unfinished, and not started here: a terminal may be at it, or agentlab runs resume {folder}"
    if (folder / detach.STOPPED).exists():
        return "stopped", f"stopped before a law was chosen; continue it with: agentlab runs resume {folder}"
    return "failed", _last_line(folder / detach.OUTPUT)


def _last_line(path: Path) -> str:
    with suppress(OSError):
        lines = path.read_bytes()[-4096:].decode(errors="replace").strip().splitlines()
        if lines:
            return lines[-1][:400].removeprefix("agentlab: ")
    return "its process ended and said nothing"


def _seconds(folder: Path) -> float:
    path = folder / "timing.jsonl"
    last = follow(path)[0][-1:] if path.exists() else []
    return round(float(last[0]["seconds"]), 3) if last else 0.0


def _found(folder: Path, found: Tally, groups: int, *, full: bool) -> dict[str, Any]:
    """What a finished run says of its law, for some of its groups; the hold-out's figures are copied from the trace."""
    law, scored = found.ending["law"], found.ending.get("holdout", {})
    beside = found.ending.get("baselines", {})
    kept = ("entry", "formula", "key", "n_params", "params", *(("intervals",) if full else ()))
    shown = {k: law[k] for k in kept if k in law}
    scores = {
        "dev": law.get("dev"),
        "holdout": scored.get("holdout"),
        "reference_holdout": scored.get("reference"),
        "beaten_by": beside.get("beaten_by", ""),
    }
    told = _printed(folder / detach.OUTPUT)
    return {
        "law": cut(shown, 2_000 * groups, max(groups, 6)) if "program" in law else _of_groups(shown, groups),
        "score": cut(scores),
        "verdict": str(told.get("verdict", "")),
        "cost": told.get("cost") or {"seconds": _seconds(folder)},
    }


def _of_groups(law: dict[str, Any], most: int) -> dict[str, Any]:
    """A law with the parameters of its first groups, and how many there are."""
    names = list(law.get("params", {}))
    if len(names) <= most:
        return law
    few = {k: {g: law[k][g] for g in names[:most]} for k in ("params", "intervals") if k in law}
    return law | few | {"groups": f"the first {most} of {len(names)}; agentlab runs show --json has all"}


def _printed(path: Path) -> dict[str, Any]:
    """The result that the run's own process printed, {} where another process finished it."""
    with suppress(OSError, ValueError, IndexError):
        value = json.loads(path.read_bytes()[-BLOCK:].decode(errors="replace").strip().splitlines()[-1])
        if isinstance(value, dict):
            return value
    return {}


def _news(folder: Path, found: Tally, cursor: int, room: int) -> tuple[list[dict[str, Any]], int]:
    """Events after a cursor, and the next one: where the last of them ends, or all that was read."""
    if cursor:
        with (folder / "trace.jsonl").open("rb") as file:
            _check_place(file, found, cursor)
    page: list[dict[str, Any]] = []
    at = cursor
    for place, event in found.events:
        if place <= cursor:
            continue
        room -= length(event)
        if page and (room < 0 or len(page) == EVENTS):
            return page, at
        page.append(event)
        at = place
    return page, max(cursor, found.place)


def _check_place(file: BinaryIO, found: Tally, cursor: int) -> None:
    """Raise ToolError where a cursor is no end of a record; else the file is read on from there."""
    file.seek(max(0, cursor - 1))
    if cursor > found.place or (cursor and file.read(1) != b"\n"):
        raise ToolError(f"cursor={cursor}: no place in this run; take it from the last answer, or start with 0")


def _page(folder: Path, found: Tally, cursor: int, room: int) -> tuple[list[dict[str, Any]], int]:
    """Whole records after a cursor, as many as there is room for, and the next cursor."""
    trace = folder / "trace.jsonl"
    if not found.place:
        return [], 0
    with trace.open("rb") as file:
        _check_place(file, found, cursor)
    page: list[dict[str, Any]] = []
    for record, place in _records(trace, cursor):
        shown = shortened(record)
        room -= length(shown)
        if page and room < 0:
            break
        page.append(shown)
        cursor = place
    return page, cursor
