"""States of a job kept beside its journal: written whole, with a checksum, the newest and the one before."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from agentlab.files import sync
from agentlab.journal_format import JournalError


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job's state (a JSON value) once `records` steps were on disk, which end at byte `offset` with CRC `crc`."""

    records: int
    offset: int
    crc: int
    state: object


class Slots(NamedTuple):
    """The two files that hold snapshots."""

    newest: Path
    before: Path


def slots(journal: Path) -> Slots:
    """Where a journal's snapshots lie."""
    return Slots(Path(f"{journal}.snapshot"), Path(f"{journal}.snapshot.before"))


def write(files: Slots, job: bytes, snapshot: Snapshot, *, keep: bool) -> None:
    """Make the snapshot the newest; with `keep` the newest so far becomes the one before, else it is dropped.

    A crash at any moment leaves at least one of the two. Raises JournalError for a state that is no JSON value, and
    for a disk that does not take it.
    """
    body = {"job": job.hex(), "records": snapshot.records, "offset": snapshot.offset, "crc": snapshot.crc}
    try:
        text = json.dumps(body | {"state": snapshot.state}, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise JournalError(f"{files.newest}: the state is no JSON value ({error}); write one") from error
    temporary = Path(f"{files.newest}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(_checksum(text) + b"\n" + text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if keep:
            files.newest.replace(files.before)
        temporary.replace(files.newest)
        sync(files.newest.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise JournalError(
            f"{files.newest}: cannot write the snapshot ({error.strerror}); free space, then resume"
        ) from error


def read(path: Path, job: bytes) -> Snapshot | None:
    """A job's snapshot, or None where the file is missing, damaged or of another job."""
    try:
        checksum, text, rest = path.read_bytes().split(b"\n", 2)
        body = json.loads(text) if not rest and checksum == _checksum(text) else None
    except (OSError, ValueError):
        return None
    if not isinstance(body, dict) or body["job"] != job.hex():
        return None
    return Snapshot(body["records"], body["offset"], body["crc"], body["state"])


def _checksum(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).hexdigest().encode()
