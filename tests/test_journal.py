"""The journal of a job against crashes, damage, full disks, other writers and clocks that jump."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import math
import platform
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentlab.journal import Journal, JournalError, Record, key_digest, replay

JOB = b"hanoi disks=20 seed=0"
HEADER, SIZE = 64, 15
GROUP = 65_536
"""The most records of one fsync."""


def digest(index: int) -> int:
    return key_digest(b"move %d" % index)


def steps(count: int, start: int = 0) -> list[Record]:
    return [Record(n, digest(n)) for n in range(start, start + count)]


def written(path: Path, count: int, job: bytes = JOB) -> bytes:
    """A closed journal of `count` steps; its bytes."""
    with Journal(path, job) as journal:
        journal.extend(0, [digest(n) for n in range(count)])
    return path.read_bytes()


def read(path: Path, job: bytes = JOB) -> list[Record]:
    return list(replay(path, job))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@contextmanager
def scratch() -> Iterator[Path]:
    """A path for one example of a property."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "journal"


class Clock:
    """A clock that says what it is told."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# What is written is what is read


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 9)),
            st.tuples(st.just("extend"), st.integers(0, 9)),
            st.tuples(st.sampled_from(["sync", "reopen"]), st.just(0)),
        ),
        max_size=12,
    ),
    st.integers(1, 12),
)
def test_however_records_are_added_the_file_is_the_same(actions: list[tuple[str, int]], every: int) -> None:
    with scratch() as path:
        journal, count = Journal(path, JOB, every=every), 0
        for action, number in actions:
            if action == "append":
                for record in steps(number, count):
                    journal.append(*record)
            elif action == "extend":
                journal.extend(count, [r.digest for r in steps(number, count)])
            elif action == "sync":
                journal.sync()
            else:
                journal.close()
                journal = Journal(path, JOB, every=every)
            count += number
            assert journal.length == count
            assert journal.length - journal.durable < every
        journal.close()
        assert read(path) == steps(count)
        assert path.read_bytes() == written(path.with_name("at once"), count)


@given(st.integers(0, 2**40 - 1), st.integers(0, 2**48 - 1))
@settings(max_examples=30, deadline=None)
def test_every_index_of_40_and_digest_of_48_bits_comes_back(index: int, value: int) -> None:
    with scratch() as path:
        with Journal(path, JOB) as journal:
            journal.append(index, value)
            journal.extend(index, [value])
        assert read(path) == [Record(index, value)] * 2


@pytest.mark.parametrize(("index", "value"), [(2**40, 0), (-1, 0), (0, 2**48), (0, -1), (2**40 - 1, -(2**60))])
def test_a_record_that_does_not_fit_adds_nothing(path: Path, index: int, value: int) -> None:
    with Journal(path, JOB) as journal:
        with pytest.raises(JournalError, match="40 and a digest of 48 bits"):
            journal.append(index, value)
        with pytest.raises(JournalError, match="40 and a digest of 48 bits"):
            journal.extend(index, [value])
        with pytest.raises(JournalError, match="40 and a digest of 48 bits"):
            journal.extend(2**40 - 1, [0, 0])
        assert journal.length == 0
    assert read(path) == []


def test_a_step_costs_15_bytes(path: Path) -> None:
    assert len(written(path, 1000)) == HEADER + SIZE * 1000


def test_the_records_on_disk_are_read_from_any_number(path: Path) -> None:
    with Journal(path, JOB) as journal:
        journal.extend(0, [digest(n) for n in range(9000)])
        journal.sync()
        journal.append(9000, 1)
        for start in (0, 1, 4095, 4096, 8999, 9000, 9001):
            assert list(journal.records(start)) == steps(9000)[start:]
        with pytest.raises(JournalError, match="no record -1"):
            list(journal.records(-1))


def test_a_reader_sees_the_records_that_were_there_when_it_began(path: Path) -> None:
    with Journal(path, JOB, every=1) as journal:
        journal.extend(0, range(5000))  # more than is read at a time
        reader = journal.records()
        seen = [next(reader)]
        journal.extend(5000, range(10))
        assert len([*seen, *reader]) == 5000


def test_a_record_that_a_live_writer_finishes_meanwhile_is_no_damage(path: Path) -> None:
    whole = written(path, 12)
    path.write_bytes(whole[: HEADER + SIZE * 10 - 5])
    reader = replay(path, JOB)
    seen = [next(reader) for _ in range(9)]
    path.write_bytes(whole)
    assert [*seen, *reader] == steps(9)


def test_reading_leaves_a_journal_alone_that_is_being_written(path: Path) -> None:
    with Journal(path, JOB, every=10) as journal:
        for record in steps(25):
            journal.append(*record)
        assert read(path) == steps(20)
        assert journal.durable == 20
        before = path.read_bytes()
        path.with_name("copy").write_bytes(before + b"torn")
        assert read(path.with_name("copy")) == steps(20)
        assert path.with_name("copy").read_bytes() == before + b"torn"


def test_a_key_digest_is_48_bits_of_blake2b() -> None:
    assert key_digest(b"move").to_bytes(6, "little") == hashlib.blake2b(b"move", digest_size=6).digest()


def test_an_exception_of_the_job_does_not_lose_what_waits(path: Path) -> None:
    def job() -> None:
        with Journal(path, JOB) as journal:
            journal.append(*steps(1)[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    assert read(path) == steps(1)


def test_a_closed_journal_takes_nothing(path: Path) -> None:
    journal = Journal(path, JOB)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append(0, 0)
    with pytest.raises(JournalError, match="closed"):
        journal.extend(0, [0])


# Groups


def test_a_group_reaches_the_disk_when_it_is_full(path: Path) -> None:
    with Journal(path, JOB, every=10, clock=Clock()) as journal:
        journal.extend(0, range(9))
        assert (journal.durable, journal.length, path.stat().st_size) == (0, 9, HEADER)
        journal.append(9, 9)
        assert (journal.durable, journal.offset, path.stat().st_size) == (10, HEADER + 150, HEADER + 150)


def test_a_group_reaches_the_disk_when_its_time_has_come(path: Path) -> None:
    clock = Clock()
    with Journal(path, JOB, seconds=2.0, clock=clock) as journal:
        durable = []
        for index, clock.now in enumerate([0.0, 1.9, 2.0, 3.9, 4.0]):
            journal.append(index, 0)
            durable.append(journal.durable)
    assert durable == [0, 0, 3, 3, 5]


@pytest.mark.parametrize("jump", [-1e9, -1e-6, 1e9, math.inf, math.nan], ids=str)
def test_a_clock_that_jumps_costs_one_early_group_at_most(path: Path, jump: float) -> None:
    clock = Clock(100.0)
    with Journal(path, JOB, every=5, clock=clock) as journal:
        journal.append(0, digest(0))
        clock.now += jump
        journal.append(1, digest(1))
        assert journal.durable == 2
        clock.now = clock.now if math.isfinite(clock.now) else 100.0
        for record in steps(6, 2):
            journal.append(*record)
        assert journal.length - journal.durable < 5
        assert journal.durable > 2
    assert read(path) == steps(8)


def test_a_clock_that_runs_backwards_loses_nothing(path: Path) -> None:
    times = iter(range(10**6, 0, -1))
    with Journal(path, JOB, clock=lambda: float(next(times))) as journal:
        for record in steps(20):
            journal.append(*record)
    assert read(path) == steps(20)


def test_a_group_is_one_record_or_more(path: Path) -> None:
    with pytest.raises(JournalError, match="every=0"):
        Journal(path, JOB, every=0)


# Torn tails and damage


def test_a_tail_torn_at_any_byte_costs_its_own_record_and_no_other(path: Path) -> None:
    whole = written(path, 5)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = max(0, size - HEADER) // SIZE
        assert read(path) == steps(kept)
        assert path.stat().st_size == size
        with Journal(path, JOB) as journal:
            assert journal.repaired == (size if size < HEADER else size - HEADER - SIZE * kept)
            assert (journal.durable, journal.offset) == (kept, HEADER + SIZE * kept)
            journal.extend(kept, [r.digest for r in steps(5 - kept, kept)])
        assert path.read_bytes() == whole


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.binary(max_size=100))
def test_rubbish_behind_the_last_record_is_cut_off(count: int, rubbish: bytes) -> None:
    with scratch() as path:
        whole = written(path, count)
        path.write_bytes(whole + rubbish)
        assert read(path) == steps(count)
        with Journal(path, JOB) as journal:
            assert journal.repaired == len(rubbish)
        assert path.read_bytes() == whole


@settings(max_examples=100, deadline=None)
@example((3, 8 * (HEADER + SIZE + 13)))  # the CRC of the last but one: the record behind it does not fit that CRC
@given(st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 8 * (HEADER + SIZE * n) - 1))))
def test_a_flipped_bit_is_named_or_costs_the_last_record(where: tuple[int, int]) -> None:
    count, bit = where
    with scratch() as path:
        data = bytearray(written(path, count))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        record = (bit // 8 - HEADER) // SIZE
        if record == count - 1:
            assert read(path) == steps(count - 1)
            return
        told = f"damaged at byte {HEADER + SIZE * record}," if record >= 0 else "header|no journal"
        with pytest.raises(JournalError, match=told):
            read(path)
        with pytest.raises(JournalError, match=told):
            Journal(path, JOB)
        assert path.read_bytes() == data


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_moved_missing_doubled_and_foreign_records_are_never_read_as_steps(data: st.DataObject) -> None:
    count = data.draw(st.integers(8, 30))
    first, second = sorted(data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True)))
    with scratch() as path:
        whole = written(path, count)
        foreign = written(path.with_name("foreign"), count, b"another job")
        head, rows = whole[:HEADER], [whole[at : at + SIZE] for at in range(HEADER, len(whole), SIZE)]
        match data.draw(st.sampled_from(["swap", "drop", "double", "foreign"])):
            case "swap":
                rows[first], rows[second] = rows[second], rows[first]
            case "drop":
                del rows[first]
            case "double":
                rows.insert(second, rows[first])
            case _:
                at = HEADER + SIZE * first
                rows[first] = foreign[at : at + SIZE]
        path.write_bytes(head + b"".join(rows))
        seen: list[Record] = []
        told = ""
        try:
            seen += replay(path, JOB)
        except JournalError as error:
            told = str(error)
        assert not told or f"damaged at byte {HEADER + SIZE * len(seen)}," in told
        assert seen == steps(len(seen))
        assert len(seen) <= second


def test_a_byte_missing_from_the_middle_is_damage_and_no_torn_tail(path: Path) -> None:
    whole = written(path, 30)
    at = HEADER + SIZE * 10
    path.write_bytes(whole[: at + 3] + whole[at + 4 :])
    with pytest.raises(JournalError, match=f"damaged at byte {at},"):
        Journal(path, JOB)


def test_a_page_that_never_reached_the_disk_is_a_torn_tail(path: Path) -> None:
    data = bytearray(written(path, 1000))
    data[4096:8192] = bytes(4096)
    path.write_bytes(data)
    kept = (4096 - HEADER) // SIZE
    assert read(path) == steps(kept)
    with Journal(path, JOB) as journal:
        assert (journal.durable, journal.repaired) == (kept, len(data) - HEADER - SIZE * kept)


def test_more_than_a_group_behind_the_break_is_no_torn_tail(path: Path) -> None:
    whole = written(path, 3)
    path.write_bytes(whole + bytes(SIZE * GROUP))
    assert read(path) == steps(3)
    path.write_bytes(whole + bytes(SIZE * GROUP + 1))
    with pytest.raises(JournalError, match=f"damaged at byte {len(whole)},"):
        Journal(path, JOB)


def test_damage_under_an_open_journal_is_found_by_its_reader(path: Path) -> None:
    with Journal(path, JOB) as journal:
        journal.extend(0, range(20))
        journal.sync()
        with path.open("r+b") as file:
            file.truncate(HEADER + SIZE * 12)
        with pytest.raises(JournalError, match="8 records are gone"):
            list(journal.records())


# Files that are no journal of this job


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch()
    assert read(path) == []
    with Journal(path, JOB) as journal:
        assert (journal.length, journal.repaired) == (0, 0)
    assert path.stat().st_size == HEADER


def test_a_header_of_zeros_alone_is_made_anew(path: Path) -> None:
    path.write_bytes(bytes(HEADER))
    with Journal(path, JOB) as journal:
        journal.append(0, digest(0))
    assert read(path) == steps(1)


def other_version(whole: bytes) -> bytes:
    head = struct.pack("<8sI48s", whole[:8], 2, whole[12:60])
    return head + struct.pack("<I", zlib.crc32(head)) + whole[HEADER:]


@pytest.mark.parametrize(
    ("change", "job", "told"),
    [
        (lambda whole: whole, b"hanoi disks=20 seed=1", "the journal of another job"),
        (lambda whole: b"step,answer\n1,2\n", JOB, "no journal"),
        (lambda whole: b"x" * 500, JOB, "no journal"),
        (lambda whole: bytes(HEADER) + whole[HEADER:], JOB, "no journal"),
        (lambda whole: whole[:20] + b"?" + whole[21:], JOB, "header .* is damaged"),
        (other_version, JOB, "version 2"),
    ],
    ids=["another job", "a table", "noise", "zeros before records", "damaged header", "another version"],
)
def test_a_file_that_is_not_this_jobs_journal_is_refused_and_left_as_it_is(
    path: Path, change: Callable[[bytes], bytes], job: bytes, told: str
) -> None:
    before = change(written(path, 5))
    path.write_bytes(before)
    with pytest.raises(JournalError, match=told) as refused:
        Journal(path, job)
    assert "\n" not in str(refused.value)
    with pytest.raises(JournalError, match=told):
        read(path, job)
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    for bad in (tmp_path, tmp_path / "missing" / "journal"):
        with pytest.raises(JournalError, match="cannot open the journal"):
            Journal(bad, JOB)
    with pytest.raises(JournalError, match="cannot read the journal"):
        read(tmp_path / "none")


# Other writers, and writers that are killed

WRITER = """
import sys
from pathlib import Path
from agentlab.journal import Journal, key_digest
path, total, every = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with Journal(path, sys.argv[4].encode(), every=every) as journal:
    before = journal.latest()
    print(journal.length, before.records if before else -1, before.state if before else -1, flush=True)
    for index in range(journal.length, total):
        journal.append(index, key_digest(b"move %d" % index))
        if index % 1500 == 700:
            journal.snapshot(index)
        if index % 50 == 0:
            print(str(index + 1).rjust(2000), flush=True)  # a full pipe keeps it from running far ahead
    print("done", flush=True)
    sys.stdin.read()
"""


@contextmanager
def writer(path: Path, total: int, every: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, str(path), str(total), str(every), JOB.decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_second_writer_is_refused_until_the_first_is_gone(path: Path) -> None:
    with writer(path, 10, 100) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(JournalError, match="another process writes this journal"):
            Journal(path, JOB)
    with Journal(path, JOB):
        with pytest.raises(JournalError, match="another process writes this journal"):
            Journal(path, JOB)
        read(path)
        with pytest.raises(JournalError, match="another process writes this journal"):
            Journal(path, JOB)  # a reader that closes the file does not free it


def test_a_writer_killed_at_random_moments_loses_one_group_at_most_and_ends_the_same(path: Path) -> None:
    total, every = 20_000, 300
    for lines in (7, 1, 61, 40, 33):  # the writer runs on while the signal is on its way: the moment is chance's
        known = 0
        with writer(path, total, every) as process:
            assert process.stdout is not None
            resumed, snapshot, state = map(int, process.stdout.readline().split())
            assert snapshot == state + 1 if snapshot >= 0 else resumed < 1500
            assert resumed - 1500 - every < snapshot <= resumed
            for _ in range(lines):
                known = int(process.stdout.readline())
            process.kill()
        seen = read(path)
        assert known - every <= len(seen) < total
        assert seen == steps(len(seen))
    with writer(path, total, every) as process:
        assert process.communicate("")[0].endswith("done\n")
        assert process.returncode == 0
    assert path.read_bytes() == written(path.with_name("unharmed"), total)


# Disks that are full or broken

FULL = """
import json, sys
from pathlib import Path
from agentlab.journal import Journal, JournalError, key_digest, replay
folder = Path(sys.argv[1])
path, ballast = folder / "journal", folder / "ballast"
ballast.write_bytes(bytes(20_000))
told = []

def fill(journal):
    index = journal.length
    while True:
        try:
            journal.append(index, key_digest(b"move %d" % index))
        except JournalError as error:
            told.append(str(error))
            return index + 1
        index += 1

journal = Journal(path, b"job", every=100)
journal.extend(0, [key_digest(b"move %d" % n) for n in range(100)])
journal.snapshot({"cursor": 100})
count = fill(journal)
facts = {"count": count, "length": journal.length, "durable": journal.durable, "size": path.stat().st_size}
try:
    journal.snapshot("x" * 200)
except JournalError as error:
    told.append(str(error))
ballast.unlink()
journal.sync()
facts["after"] = journal.durable
count = fill(journal)
try:
    journal.close()
except JournalError as error:
    told.append(str(error))
facts["at_close"] = sum(1 for _ in replay(path, b"job"))
facts["lost"] = count - facts["at_close"]
with Journal(path, b"job") as journal:
    facts["repaired"] = journal.repaired
    facts["state"] = journal.latest().state
    facts["sound"] = all(r.digest == key_digest(b"move %d" % r.index) for r in journal.records())
    try:
        journal.snapshot("x" * 5000)
    except JournalError as error:
        told.append(str(error))
    facts["state_after"] = journal.latest().state
    facts["files"] = sorted(p.name for p in folder.iterdir())
print(json.dumps(facts | {"told": told}))
"""


def test_a_full_disk_stops_the_job_and_freed_space_resumes_it(bwrap: str, tmp_path: Path) -> None:
    mount = ["--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--size", "65536", "--tmpfs", str(tmp_path)]
    done = subprocess.run(
        [bwrap, *mount, sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["length"] == facts["count"] == facts["after"]
    assert facts["durable"] == facts["count"] - 100  # the group that did not fit waits whole
    assert facts["size"] == HEADER + SIZE * facts["durable"]
    assert facts["lost"] == 100
    assert facts["repaired"] == 0
    assert facts["sound"]
    assert facts["state"] == facts["state_after"] == {"cursor": 100}
    assert "journal.snapshot.tmp" not in facts["files"]
    assert len(facts["told"]) == 5
    assert all("No space left on device); free space, then resume" in text for text in facts["told"])


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond `size` bytes: a write across the limit ends early, the next fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_ends_early_is_cut_off_and_written_again(path: Path) -> None:
    with Journal(path, JOB, every=10) as journal:
        journal.extend(0, [r.digest for r in steps(10)])
        with files_of_at_most(HEADER + SIZE * 13 + 5), pytest.raises(JournalError, match="free space, then resume"):
            journal.extend(10, [r.digest for r in steps(10, 10)])
        assert (journal.durable, journal.length) == (10, 20)
        assert path.stat().st_size == HEADER + SIZE * 10
    assert read(path) == steps(20)


def test_a_journal_that_cannot_be_closed_whole_does_not_hide_why_the_job_ended(path: Path) -> None:
    def job() -> None:
        with Journal(path, JOB) as journal:
            journal.append(0, 0)
            raise ZeroDivisionError

    with files_of_at_most(HEADER + 5):
        with pytest.raises(ZeroDivisionError) as ended:
            job()
        assert "free space, then resume" in ended.value.__notes__[0]
    assert read(path) == []
    Journal(path, JOB).close()


def test_a_header_that_does_not_fit_leaves_an_empty_file(path: Path) -> None:
    with files_of_at_most(20), pytest.raises(JournalError, match="free space, then resume"):
        Journal(path, JOB)
    assert path.stat().st_size == 0
    assert written(path, 1)[HEADER:]


def failing_sync() -> bool:
    """Make fsync and fdatasync fail with EIO in the calling thread from now on; whether the kernel lets us."""
    calls = {"x86_64": (74, 75), "aarch64": (82, 83)}.get(platform.machine())
    if calls is None:
        return False
    load, equal, answer = 0x20, 0x15, 0x06  # classic BPF (linux/filter.h) over struct seccomp_data: the number is first
    code = [(load, 0, 0, 0), (equal, 1, 0, calls[0]), (equal, 0, 1, calls[1])]
    code += [(answer, 0, 0, 0x00050000 | errno.EIO), (answer, 0, 0, 0x7FFF0000)]
    program = b"".join(struct.pack("=HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program, len(program))
    filtered = struct.pack("@HP", len(code), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    for request in ((38, ctypes.c_ulong(1), zero), (22, ctypes.c_ulong(2), filtered)):  # no new privileges, seccomp
        if libc.prctl(*request, zero, zero):
            return False
    return True


def test_a_group_whose_fsync_failed_counts_as_unwritten_and_is_written_again(path: Path) -> None:
    told: list[str] = []

    def in_a_thread_of_its_own(journal: Journal) -> None:
        if not failing_sync():
            told.append("no filter")
            return
        try:
            journal.sync()
        except JournalError as error:
            told.append(str(error))
        told.append(f"{journal.durable} of {journal.length}, {path.stat().st_size} bytes")

    with Journal(path, JOB) as journal:
        journal.extend(0, [r.digest for r in steps(10)])
        journal.sync()
        journal.extend(10, [r.digest for r in steps(10, 10)])
        thread = threading.Thread(target=in_a_thread_of_its_own, args=(journal,))
        thread.start()
        thread.join()
        if told == ["no filter"]:
            pytest.skip("no seccomp here")
        assert told == [
            f"{path}: cannot write the journal (Input/output error); free space, then resume",
            f"10 of 20, {HEADER + SIZE * 10} bytes",
        ]
        journal.sync()
        assert journal.durable == 20
    assert read(path) == steps(20)


# Snapshots


def test_a_snapshot_is_of_records_that_are_on_disk(path: Path) -> None:
    with Journal(path, JOB) as journal:
        assert journal.latest() is None
        journal.snapshot({"cursor": 0})
        journal.extend(0, range(7))
        journal.snapshot({"cursor": 7, "pegs": [[3, 2], [1], []], "p": 0.1})
        assert journal.durable == 7
    with Journal(path, JOB) as journal:
        latest = journal.latest()
        assert latest is not None
        assert (latest.records, latest.offset, latest.crc) == (7, journal.offset, journal.crc)
        assert latest.state == {"cursor": 7, "pegs": [[3, 2], [1], []], "p": 0.1}


def state_of(path: Path, job: bytes = JOB) -> object:
    with Journal(path, job) as journal:
        latest = journal.latest()
        return None if latest is None else latest.state


@pytest.fixture
def snapshots(path: Path) -> tuple[Path, Path]:
    """A journal of 30 records with snapshots at 10 and 20; the files of the newest and of the one before."""
    with Journal(path, JOB) as journal:
        for end in (10, 20):
            journal.extend(end - 10, [r.digest for r in steps(10, end - 10)])
            journal.snapshot(end)
        journal.extend(20, [r.digest for r in steps(10, 20)])
    return Path(f"{path}.snapshot"), Path(f"{path}.snapshot.before")


def test_a_damaged_snapshot_gives_way_to_the_one_before(path: Path, snapshots: tuple[Path, Path]) -> None:
    newest, before = snapshots
    whole = newest.read_bytes()
    assert state_of(path) == 20
    for data in [whole[:size] for size in range(len(whole))] + [whole + b"x", b"", b"null", b"\xff\n\xfe\n"]:
        newest.write_bytes(data)
        assert state_of(path) == 10
    for at in range(len(whole)):
        newest.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert state_of(path) == 10
    newest.unlink()
    assert state_of(path) == 10
    before.unlink()
    assert state_of(path) is None


def test_a_snapshot_written_over_a_damaged_one_keeps_the_good_one_before(
    path: Path, snapshots: tuple[Path, Path]
) -> None:
    snapshots[0].write_bytes(b"damaged")
    with Journal(path, JOB) as journal:
        journal.snapshot(30)
    assert state_of(path) == 30
    snapshots[0].unlink()
    assert state_of(path) == 10


def test_a_snapshot_newer_than_the_journal_gives_way_to_the_one_before(
    path: Path, snapshots: tuple[Path, Path]
) -> None:
    with path.open("r+b") as file:
        file.truncate(HEADER + SIZE * 15)
    assert state_of(path) == 10


def test_a_snapshot_of_another_past_is_ignored(path: Path, snapshots: tuple[Path, Path]) -> None:
    path.unlink()
    with Journal(path, JOB) as journal:
        journal.extend(0, [*range(15), *range(15)])
    assert state_of(path) is None
    path.unlink()
    written(path, 30)
    assert state_of(path) == 20  # the same records again: the snapshot holds


def test_a_snapshot_of_another_job_is_ignored(path: Path, snapshots: tuple[Path, Path]) -> None:
    path.unlink()
    with Journal(path, b"another job") as journal:
        journal.extend(0, [r.digest for r in steps(30)])
    assert state_of(path, b"another job") is None


@pytest.mark.parametrize("state", [{1, 2}, math.nan, b"bytes"], ids=str)
def test_a_state_that_is_no_json_value_is_refused(path: Path, snapshots: tuple[Path, Path], state: object) -> None:
    with Journal(path, JOB) as journal, pytest.raises(JournalError, match="no JSON value"):
        journal.snapshot(state)
    assert state_of(path) == 20
