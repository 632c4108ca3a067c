"""The bytes of a journal file: its header, its chained records, and how a torn tail is told from damage.

A file is a header of 64 bytes and then records of 15 bytes, all little-endian:

    header  magic 8, version 4, bytes of a record 4, BLAKE2b digest of the job 32, zeros 12, CRC-32 of these 60 bytes 4
    record  step index 5, key digest 6, CRC-32 of these 11 bytes 4

The CRC of a record continues the CRC of the record before, and that of the first continues the header's: a record that
is altered, moved, missing or of another job breaks the chain. A record can also be checked against the CRC that
stands before it, so whole records behind a broken one are seen.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from agentlab.errors import AgentlabError

MAGIC = b"agentljr"
VERSION = 1
INDEX_BITS, DIGEST_BITS = 40, 48
PAYLOAD = (INDEX_BITS + DIGEST_BITS) // 8
"""Bytes of a record without its CRC."""
RECORD = struct.Struct(f"<{PAYLOAD}sI")
GROUP = 65_536
"""The most records of one fsync: a crash leaves no longer torn tail than this."""

_HEAD = struct.Struct("<8sII32s12x")
HEADER = _HEAD.size + 4
_CHUNK = 4096 * RECORD.size
_PAGE = 4096
_INDEX = (1 << INDEX_BITS) - 1


class JournalError(AgentlabError):
    """A journal that cannot be opened, read or written."""


class Record(NamedTuple):
    """One step: its index and the digest of the key that was decided (`key_digest`)."""

    index: int  # type: ignore[assignment]  # hides the method tuple.index, which no record needs
    digest: int


class Chunk(NamedTuple):
    """Whole, valid records as they stand in the file, and the chain value (CRC-32) behind the last of them."""

    data: bytes
    crc: int


def key_digest(key: bytes) -> int:
    """A key's BLAKE2b digest of 7 bytes (RFC 7693), as the number that a record holds."""
    return int.from_bytes(blake2b(key, digest_size=DIGEST_BITS // 8).digest(), "little")


def job_digest(job: bytes) -> bytes:
    """The 32 bytes by which a header and a snapshot name their job."""
    return blake2b(job, digest_size=32).digest()


def header(job: bytes) -> bytes:
    """The 64 bytes at the head of a job's journal."""
    head = _HEAD.pack(MAGIC, VERSION, RECORD.size, job_digest(job))
    return head + crc32(head).to_bytes(4, "little")


def header_is_whole(fd: int, path: Path, job: bytes) -> bool:
    """Whether a file begins with the header of this job; False where a killed writer did not finish it.

    Raises JournalError for a file that is no journal, a damaged header, another version and another job.
    """
    wanted, head = header(job), read_at(fd, HEADER + 1, 0)
    if len(head) <= HEADER and (wanted.startswith(head) or not any(head)):
        return head == wanted  # zeros: some file systems grow a file before its bytes arrive
    head = head[:HEADER]
    if head == wanted:
        return True
    if len(head) < HEADER or not head.startswith(MAGIC):
        raise JournalError(f"{path}: no journal of agentlab; write to another file")
    if crc32(head[:-4]).to_bytes(4, "little") != head[-4:]:
        raise JournalError(f"{path}: its header (bytes 0 to {HEADER - 1}) is damaged; restore the file from a copy")
    _, version, size, _ = _HEAD.unpack(head[:-4])
    if (version, size) != (VERSION, RECORD.size):
        raise JournalError(
            f"{path}: a journal of version {version}, this agentlab reads {VERSION}; use the one it is of"
        )
    raise JournalError(f"{path}: the journal of another job; write to another file, or give the job it was begun with")


def chain_start(job: bytes) -> int:
    """The chain value before the first record."""
    return int.from_bytes(header(job)[-4:], "little")


def chunks(fd: int, path: Path, crc: int, start: int = HEADER) -> Iterator[Chunk]:
    """The valid records from byte `start`, whose chain value before it is `crc`, up to the end or the torn tail.

    Raises JournalError, naming the byte, where a record is damaged and what stands behind it is no torn tail.
    """
    while data := read_at(fd, _CHUNK, start):
        good, crc = _valid(data, crc)
        yield Chunk(data[:good], crc)
        if good < len(data):
            _refuse_damage(fd, path, start + good, crc)
            return
        start += good


def decode(data: bytes) -> Iterator[Record]:
    """The records of a chunk's bytes."""
    for payload, _ in RECORD.iter_unpack(data):
        value = int.from_bytes(payload, "little")
        yield Record(value & _INDEX, value >> INDEX_BITS)


def _valid(data: bytes, crc: int) -> tuple[int, int]:
    """How many leading bytes are records that continue the chain, and the chain value behind them."""
    good = 0
    for payload, stored in RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]):
        if crc32(payload, crc) != stored:
            break
        crc, good = stored, good + RECORD.size
    return good, crc


def _refuse_damage(fd: int, path: Path, at: int, crc: int) -> None:
    """Raise unless the bytes from `at` are what a crash leaves of the last group.

    That is at most a group, with no whole record in it; or one that begins with zeros: a page that never reached the
    disk, though later pages of the same group may have.
    """
    most = GROUP * RECORD.size
    rest = read_at(fd, most + 1, at)
    if len(rest) <= most:
        page = -at % _PAGE  # a record may lie across two pages, of which the second is missing
        hole = not any(rest[page if page < RECORD.size else 0 :][: RECORD.size])
        written_since = _valid(rest, crc)[0] > 0  # a reader meets a live writer
        if hole or written_since or not _whole_record_behind(rest, crc):
            return
    raise JournalError(f"{path}: damaged at byte {at}, with more records behind it; restore the file from a copy")


def _whole_record_behind(rest: bytes, crc: int) -> bool:
    """Whether a valid record follows the broken one that `rest` begins with, at any byte: some may be missing."""
    size = RECORD.size
    # The broken record's CRC alone may be wrong: then the next record continues the one that was meant.
    if (
        crc32(rest[size : size + PAYLOAD], crc32(rest[:PAYLOAD], crc)).to_bytes(4, "little")
        == rest[2 * size - 4 : 2 * size]
    ):
        return True
    return any(
        crc32(rest[at : at + PAYLOAD], int.from_bytes(rest[at - 4 : at], "little")).to_bytes(4, "little")
        == rest[at + PAYLOAD : at + size]
        for at in range(4, len(rest) - size + 1)
    )


def read_at(fd: int, size: int, at: int) -> bytes:
    """The bytes from `at`, fewer than `size` at the end of the file alone."""
    parts = []
    while size and (part := os.pread(fd, size, at)):
        parts.append(part)
        size, at = size - len(part), at + len(part)
    return b"".join(parts)


def write_at(fd: int, data: bytes, at: int) -> None:
    """Write all bytes at `at`; a disk that takes only some raises the OSError that it gives for the rest."""
    left = memoryview(data)
    while left:
        done = os.pwrite(fd, left, at)
        if done == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left, at = left[done:], at + done
