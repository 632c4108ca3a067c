"""The append-only journal of a long job: 15 bytes a step, on disk in groups, resumed from after any crash."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from zlib import crc32

from agentlab import journal_snapshot as snapshots
from agentlab.files import sync
from agentlab.journal_format import (
    DIGEST_BITS,
    GROUP,
    HEADER,
    INDEX_BITS,
    PAYLOAD,
    RECORD,
    JournalError,
    Record,
    chain_start,
    chunks,
    decode,
    header,
    header_is_whole,
    job_digest,
    key_digest,
    read_at,
    write_at,
)
from agentlab.journal_snapshot import Snapshot

__all__ = ["Journal", "JournalError", "Record", "Snapshot", "key_digest", "replay"]


class Journal:
    """A job's journal, opened or made; a context manager, for one thread of the one process that may write.

    Records wait in memory and reach the disk as a group (one write, one fdatasync) once `every` of them wait, or at
    the first append at which `seconds` have gone by on `clock` since the last group, or at which the clock has gone
    back. A crash loses what waits: never more than one group, never a record before it.

    Opening cuts off the torn tail that a killed writer left: `repaired` says how many bytes. It raises JournalError,
    and alters nothing, for a file that another process writes, that is no journal, that is of another job, or that is
    damaged before its tail.
    """

    def __init__(
        self,
        path: Path,
        job: bytes,
        *,
        every: int = 10_000,
        seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if every < 1:
            raise JournalError(f"{path}: every={every}; a group is 1 record or more")
        self.path = path
        self.repaired = 0
        self._job = job_digest(job)
        self._every, self._seconds, self._clock = every, seconds, clock
        self._waiting: list[bytes] = []
        self._durable, self._crc = 0, chain_start(job)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise JournalError(f"{path}: cannot open the journal ({error.strerror}); name a file to write") from error
        try:
            self._lock()
            self._load(job)
        except BaseException:
            os.close(self._fd)
            raise
        self._since = clock()

    @property
    def durable(self) -> int:
        """Records on disk."""
        return self._durable

    @property
    def length(self) -> int:
        """Records on disk and waiting."""
        return self._durable + len(self._waiting)

    @property
    def room(self) -> int:
        """Records that can be added before a group reaches the disk."""
        return self._every - len(self._waiting)

    @property
    def offset(self) -> int:
        """Bytes on disk: the header and the durable records."""
        return HEADER + RECORD.size * self._durable

    @property
    def crc(self) -> int:
        """The chain value behind the last durable record."""
        return self._crc

    def append(self, index: int, digest: int) -> None:
        """Add the record of one step; writes a group when one is due.

        Raises JournalError for an index beyond 40 or a digest beyond 48 bits, which adds nothing, and where the disk
        does not take a group: then the record waits with the others for the next `sync`, and is not to be added again.
        """
        if (index | digest >> (DIGEST_BITS - INDEX_BITS)) >> INDEX_BITS:
            raise _too_large(self.path)
        waiting = self._waiting
        waiting.append((index | digest << INDEX_BITS).to_bytes(PAYLOAD, "little"))
        if len(waiting) >= self._every or not 0.0 <= self._clock() - self._since < self._seconds:
            self.sync()

    def extend(self, index: int, digests: Sequence[int]) -> None:
        """Add the records of steps `index`, `index + 1`, ...: as `append` does, in one go, all of them or none."""
        if not digests:
            return
        if index < 0 or (index + len(digests) - 1) >> INDEX_BITS or min(digests) < 0 or max(digests) >> DIGEST_BITS:
            raise _too_large(self.path)
        self._waiting += [(n | d << INDEX_BITS).to_bytes(PAYLOAD, "little") for n, d in enumerate(digests, index)]
        if len(self._waiting) >= self._every or not 0.0 <= self._clock() - self._since < self._seconds:
            self.sync()

    def sync(self) -> None:
        """Bring what waits to the disk, in groups of at most `every` records.

        Raises JournalError where the disk does not take it (full, over quota, broken): the file is cut back to its
        last durable record and the others go on waiting, so that a later `sync` writes them.
        """
        if self._fd < 0:
            raise JournalError(f"{self.path}: the journal is closed; open it again")
        most, pack = min(self._every, GROUP), RECORD.pack
        while self._waiting:
            group, crc = self._waiting[:most], self._crc
            self._write(b"".join([pack(p, crc := crc32(p, crc)) for p in group]))
            # One statement, so that no signal falls between the three and a record is never written twice.
            self._durable, self._crc, self._waiting = self._durable + len(group), crc, self._waiting[most:]
        self._since = self._clock()

    def records(self, start: int = 0) -> Iterator[Record]:
        """The records that are on disk now, from record number `start` (0 is the first), checked as they are read."""
        if start < 0:
            raise JournalError(f"{self.path}: no record {start}; the first is 0")
        left = self._durable - start
        if left <= 0:
            return
        for chunk in chunks(self._fd, self.path, self._chain(start), HEADER + RECORD.size * start):
            yield from decode(chunk.data[: left * RECORD.size])
            left -= len(chunk.data) // RECORD.size
            if left <= 0:
                return
        raise JournalError(f"{self.path}: {left} records are gone; restore the file from a copy")

    def snapshot(self, state: object) -> None:
        """Keep the job's state, a JSON value, as it is behind the last record; syncs first.

        The snapshot before stays too. Raises JournalError for a state that is no JSON value and for a full disk, which
        loses neither records nor earlier snapshots.
        """
        self.sync()
        files = snapshots.slots(self.path)
        now = Snapshot(self._durable, self.offset, self._crc, state)
        snapshots.write(files, self._job, now, keep=self._usable(files.newest) is not None)

    def latest(self) -> Snapshot | None:
        """The newest snapshot of this job that is whole and whose records are in the journal; None where none is."""
        found = [s for file in snapshots.slots(self.path) if (s := self._usable(file)) is not None]
        return max(found, key=lambda s: s.records, default=None)

    def close(self) -> None:
        """Sync and let go of the file, which closes even where the sync raises JournalError."""
        if self._fd < 0:
            return
        try:
            self.sync()
        finally:
            fd, self._fd = self._fd, -1
            self._every = 1  # a later append finds the journal closed instead of waiting for nothing
            # A forked child that still holds the file must not keep the lock.
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.close()
        except JournalError as error:
            if value is None:
                raise
            value.add_note(str(error))

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise JournalError(f"{self.path}: is no regular file; name one to write")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(f"{self.path}: another process writes this journal; stop it first") from error
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be locked ({error.strerror}); use a local disk") from error

    def _load(self, job: bytes) -> None:
        """Find the end of the valid records and cut off what is behind; make the header of a new file."""
        if not header_is_whole(self._fd, self.path, job):
            self.repaired = os.fstat(self._fd).st_size
            self._make(header(job))
            return
        for chunk in chunks(self._fd, self.path, self._crc):
            self._durable, self._crc = self._durable + len(chunk.data) // RECORD.size, chunk.crc
        self.repaired = os.fstat(self._fd).st_size - self.offset
        if self.repaired:
            os.ftruncate(self._fd, self.offset)
            os.fsync(self._fd)

    def _make(self, head: bytes) -> None:
        try:
            sync(self.path.parent)  # first: a whole header tells that the name is on disk too
            write_at(self._fd, head, 0)
            os.fsync(self._fd)
        except OSError as error:
            raise self._unwritten(error, 0) from error

    def _write(self, data: bytes) -> None:
        try:
            write_at(self._fd, data, self.offset)
            # After a failure the kernel may take the pages for clean, so the group is written anew at the next sync.
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._unwritten(error, self.offset) from error

    def _unwritten(self, error: OSError, keep: int) -> JournalError:
        with suppress(OSError):
            os.ftruncate(self._fd, keep)
        return JournalError(f"{self.path}: cannot write the journal ({error.strerror}); free space, then resume")

    def _chain(self, records: int) -> int:
        """The chain value behind that many records, as the file holds it; behind none it is the header's."""
        return int.from_bytes(read_at(self._fd, 4, HEADER + RECORD.size * records - 4), "little")

    def _usable(self, file: Path) -> Snapshot | None:
        found = snapshots.read(file, self._job)
        if found is None or not 0 <= found.records <= self._durable:
            return None
        agrees = found.offset == HEADER + RECORD.size * found.records and found.crc == self._chain(found.records)
        return found if agrees else None


def replay(path: Path, job: bytes) -> Iterator[Record]:
    """The whole records of a job's journal, in order, without touching the file; a torn tail is left out.

    Raises JournalError for a file that is missing, no journal or of another job, and, naming the byte, for a damaged
    record that has others behind it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise JournalError(f"{path}: cannot read the journal ({error.strerror}); name one that is there") from error
    try:
        if header_is_whole(fd, path, job):
            for chunk in chunks(fd, path, chain_start(job)):
                yield from decode(chunk.data)
    finally:
        os.close(fd)


def _too_large(path: Path) -> JournalError:
    return JournalError(
        f"{path}: a record holds an index of {INDEX_BITS} and a digest of {DIGEST_BITS} bits; shorten it"
    )
