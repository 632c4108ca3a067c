"""The append-only JSON lines that are the single truth of a run: write, read, follow, repair a torn tail."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agentlab.types import AgentlabError, Entry, Outcome, Proposal, Score

SCHEMA = 1
"""The version of the trace format; it stands in the first line of every trace."""

Record = dict[str, Any]
"""One line of a trace: a JSON object with a "kind".

"run", "entry", "decision"; with a proposer that writes also "turn" and those of OUTSIDE; at the end those of ENDING;
"call" and "outcome" in the traces of a topology.
"""

OUTSIDE = ("lost", "reply", "decision", "approval", "sent")
"""Kinds that stand before the turn that they belong to, in traces that have turns."""

ENDING = ("stop", "finalist", "baselines", "luck", "law", "holdout")
"""The kinds that end a trace."""


class TraceError(AgentlabError):
    """A trace that cannot be read as one."""


class Trace:
    """An open trace; a context manager. Lines reach the disk (fsync) before `append` returns.

    A line is never rewritten. Opening an existing file drops a torn last line, as a killed writer leaves it.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            repair(path)
        self._file = path.open("ab", buffering=0)

    @property
    def empty(self) -> bool:
        """Whether nothing stands in the trace yet."""
        return os.fstat(self._file.fileno()).st_size == 0

    def append(self, records: Iterable[Record]) -> None:
        """Write the records in order as one write followed by one fsync."""
        data = b"".join(dump(r) for r in records)
        if not data:
            return
        # A short write (a full disk) must not leave half a line that a later append would continue.
        start = self._file.tell()
        try:
            _write_whole(self._file, data)
        except OSError as error:
            os.ftruncate(self._file.fileno(), start)
            raise TraceError(
                f"{self._file.name}: cannot write the trace ({error.strerror}); free space, then resume"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()


def _write_whole(file: FileIO, data: bytes) -> None:
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file.fileno())


def dump(record: object) -> bytes:
    """Any JSON value as one line; non-finite numbers are written as the strings "inf", "-inf" and "nan"."""
    text = json.dumps(_plain(record), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="replace") + b"\n"  # half a character, as a server may send it, is none


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def read(path: Path) -> Iterator[Record]:
    """The whole records of a trace, in order; a torn last line is left out, a damaged one in the middle is an error."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            record = _parse(line)
            if record is None:
                if file.read(1):
                    raise TraceError(f"{path}: line {number} is damaged; restore the file from a copy")
                return
            yield record


def follow(path: Path, offset: int = 0) -> tuple[list[Record], int]:
    """The records written since byte `offset`, and the offset to ask from next time."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return [r for line in whole.splitlines() if (r := _parse(line + b"\n")) is not None], offset + len(whole)


def repair(path: Path) -> int:
    """Cut a torn last line off the file and return how many bytes that was."""
    size, good = path.stat().st_size, 0
    with path.open("rb") as file:
        for line in file:
            if _parse(line) is None:
                break
            good += len(line)
        rest = size - good
        file.seek(good)
        if file.readline() and file.read(1):
            raise TraceError(f"{path}: damaged at byte {good}, before the last line; restore the file from a copy")
    if rest:
        os.truncate(path, good)
    return rest


def rewind(path: Path) -> None:
    """Cut off what a killed writer left of a run's ending (stop, finalists) or of a turn: it is written anew."""
    good, place, turns = 0, 0, False
    with path.open("rb") as file:
        for line in file:
            record = _parse(line)
            if record is None or record["kind"] in ENDING:
                break
            place += len(line)
            turns = turns or record["kind"] == "turn"
            # Calls of a vote are put down one by one, as they go out.
            if record["kind"] not in OUTSIDE or "wave" in record:
                good = place
    os.truncate(path, good if turns else place)


def _parse(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def entry_record(entry: Entry) -> Record:
    """An entry as a trace record; empty fields are left out."""
    p, o = entry.proposal, entry.outcome
    record: Record = {"kind": "entry", "id": entry.id, "tool": p.tool, "formula": p.formula, "key": p.key}
    record |= {"proposer": p.proposer, "operator": p.operator, "parents": list(p.parents), "island": p.island}
    record |= {} if p.call is None else {"call": p.call}
    return record | outcome_record(o)


def outcome_record(outcome: Outcome) -> Record:
    """An outcome as a JSON object; empty fields are left out, so rejected candidates stay short."""
    record: Record = {"status": outcome.status}
    for field in dataclasses.fields(Outcome)[1:]:
        value = getattr(outcome, field.name)
        if isinstance(value, Score):
            record[field.name] = dataclasses.asdict(value)
        elif value not in (field.default, {}):
            record[field.name] = value
    return record


def read_entry(record: Record) -> Entry:
    """The entry that `entry_record` wrote, equal to it in every bit."""
    proposal = Proposal(
        index=record["id"],
        tool=record["tool"],
        formula=record["formula"],
        key=record["key"],
        proposer=record["proposer"],
        operator=record["operator"],
        parents=tuple(record["parents"]),
        island=record["island"],
        call=record.get("call"),
    )
    return Entry(record["id"], proposal, read_outcome(record))


def read_outcome(record: Mapping[str, Any]) -> Outcome:
    """The outcome that `outcome_record` wrote."""
    dev = record.get("dev")
    return Outcome(
        status=record["status"],
        reason=record.get("reason", ""),
        objective=number(record.get("objective", math.inf)),
        mdl=number(record.get("mdl", math.inf)),
        n_params=record.get("n_params", 0),
        complexity=record.get("complexity", 0),
        structure=record.get("structure", ""),
        dev=None if dev is None else read_score(dev),
        cuts=tuple(number(c) for c in record.get("cuts", ())),
        violations=tuple(record.get("violations", ())),
        params=record.get("params", {}),
        hints=tuple(record.get("hints", ())),
    )


def read_score(record: Mapping[str, Any]) -> Score:
    """The score that a record holds."""
    r2, nmse, nmae, mae, are = (number(record[k]) for k in ("r2", "nmse", "nmae", "mae", "are"))
    return Score(r2, nmse, nmae, mae, are, n=int(record["n"]))


def number(value: object) -> float:
    """A float from a JSON number or from "inf", "-inf", "nan"."""
    if isinstance(value, int | float | str):
        return float(value)
    raise TraceError(f"trace: {value!r} stands where a number should")
