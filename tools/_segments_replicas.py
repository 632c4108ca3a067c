"""Replicas of the trainer: each with a folder of its own, side by side, watched, ended where it stalls.

Here each is a process of this machine; on the nodes of a cluster it is a task (agentlab.tools._ray_replicas).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from agentlab.envs._processes import Started, alive, start_ticks
from agentlab.tools._job_files import Fields, Lines, objects, process_of
from agentlab.tools._ray import Cluster
from agentlab.tools._segments_agreed import CHECKPOINT
from mcp.server.mcpserver.exceptions import ToolError

from agentlab.files import write_json

LOOK = 0.02
"""Seconds between two looks at the replicas."""
Watch = Callable[[Fields], None]


@dataclass(frozen=True, slots=True)
class Replicated:
    """A training run as it was asked for: the trainer's config, and how it is voted on.

    Attributes:
        config: The trainer's, without its folder `out`.
        replicas: Votes by which a segment's answer must be ahead, and processes that begin each segment.
        stall: Seconds without a line after which a replica is ended; None waits for ever.
        tolerance: Relative difference of figures up to which two answers agree; 0 asks for the same bits.
        worker: The trainer's command; it gets the path of a config and `--segment`. Nodes of a cluster take their own.
        cluster: Where the replicas run; None is this machine.
    """

    config: Fields
    replicas: int
    stall: float | None
    tolerance: float
    worker: tuple[str, ...]
    cluster: Cluster | None = None

    @property
    def threads(self) -> int:
        """Threads a replica computes on."""
        threads = self.config.get("threads", 1)
        return threads if isinstance(threads, int) and threads > 0 else 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """One replica's run of a segment: its number within the segment, what it said, and how it ended."""

    number: int
    folder: Path
    lines: Lines
    ended: Literal["ran", "died", "stall"]

    def line(self, event: str) -> Fields | None:
        """The last line of that kind."""
        return next((line for line in reversed(self.lines) if line.get("event") == event), None)


class Replica(Protocol):
    """One that runs; its log grows in its folder."""

    number: int

    def look(self, stall: float | None) -> Attempt | None:
        """What has come of it; None while it runs. Ends it where its log has not grown for `stall` seconds."""
        ...

    def end(self) -> None:
        """Ends it with all it started."""
        ...


class Lanes(Protocol):
    """Where replicas run."""

    def most(self) -> int:
        """How many may be under way at once."""
        ...

    def begin(self, number: int, folder: Path, checkpoint: Path | None, watch: Watch | None) -> Replica:
        """One begins in its folder, from a checkpoint that stays as it is (None: from nothing)."""
        ...


class Here:
    """The processors of this machine."""

    def __init__(self, asked: Replicated) -> None:
        self._asked = asked

    def most(self) -> int:
        """As many as have processors of their own."""
        return max(1, len(os.sched_getaffinity(0)) // self._asked.threads)

    def begin(self, number: int, folder: Path, checkpoint: Path | None, watch: Watch | None) -> Replica:
        """A process; its checkpoint is a copy, so that nothing it does can harm the agreed one."""
        write_json(folder / "run.json", {**self._asked.config, "out": str(folder)})
        if checkpoint is not None:
            shutil.copyfile(checkpoint, folder / CHECKPOINT)
        return _Process(number, folder, [*self._asked.worker, str(folder / "run.json"), "--segment"], watch)


class Crew:
    """The replicas of one segment, from a checkpoint (None: from nothing).

    Their numbers go on after a restart; `heard` is that of the one whose lines were last passed on as they came.
    """

    def __init__(self, folder: Path, asked: Replicated, checkpoint: Path | None, lanes: Lanes) -> None:
        self.folder, self.asked, self.checkpoint, self.lanes = folder, asked, checkpoint, lanes
        folder.mkdir(parents=True, exist_ok=True)
        self.next = 1 + max((int(p.name) for p in folder.iterdir()), default=-1)
        self.heard = -1

    def run(self, count: int, watch: Watch | None = None) -> list[Attempt]:
        """So many further replicas, to their end; `watch` hears the lines of the first as they come."""
        waiting = list(range(self.next, self.next + count))
        self.next += count
        if watch is not None:
            self.heard = waiting[0]
        running: list[Replica] = []
        ended: list[Attempt] = []
        try:
            while waiting or running:
                while waiting and len(running) < self.lanes.most():
                    number = waiting.pop(0)
                    folder = self.folder / f"{number:04d}"
                    folder.mkdir()
                    heard = watch if number == self.heard else None
                    running.append(self.lanes.begin(number, folder, self.checkpoint, heard))
                time.sleep(LOOK)
                for replica in tuple(running):
                    attempt = replica.look(self.asked.stall)
                    if attempt is not None:
                        running.remove(replica)
                        ended.append(attempt)
        finally:
            for replica in running:
                replica.end()
        return sorted(ended, key=lambda a: a.number)

    def flops(self, before: int) -> int:
        """Training FLOPs that went into the segment so far, those of ended and discarded replicas included.

        A replica that did not answer counts up to its last line. `before` is where the segment begins.
        """
        logs = (read_lines(place / "log.jsonl") for place in self.folder.iterdir())
        return sum(_flops(lines, before) for lines in logs)


class _Process:
    """A trainer that runs."""

    def __init__(self, number: int, folder: Path, command: list[str], watch: Watch | None) -> None:
        self.number, self.folder = number, folder
        self.log = folder / "log.jsonl"
        self.tail = Tail(self.log, watch)
        with self.log.open("ab") as out, (folder / "errors.txt").open("ab") as errors:
            # a session of its own, so that it can be ended with all it started and without its neighbours
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd=folder, start_new_session=True
            )
        ticks = start_ticks(self.process.pid)
        started = Started(self.process.pid, -1 if ticks is None else ticks, "replica")
        write_json(folder / "process.json", asdict(started))
        self.heard = time.monotonic()

    def look(self, stall: float | None) -> Attempt | None:
        """What has come of it; None while it runs. Ends it where its log has not grown for `stall` seconds."""
        code, now = self.process.poll(), time.monotonic()  # before the log is read: it writes, then ends
        if self.tail.grew():
            self.heard = now
        if code is not None:
            self.end()  # what it may have started
            return Attempt(self.number, self.folder, read_lines(self.log), "ran" if code in (0, 2) else "died")
        if stall is not None and now - self.heard > stall:
            self.end()
            return Attempt(self.number, self.folder, read_lines(self.log), "stall")
        return None

    def end(self) -> None:
        """Kills its session and waits for it."""
        end_session(self.process.pid)
        self.process.wait()


class Tail:
    """The end of a log that grows; `watch` gets each whole line once."""

    def __init__(self, log: Path, watch: Watch | None) -> None:
        self._log, self._watch, self._size, self._told = log, watch, 0, 0

    def grew(self) -> bool:
        """Whether it has grown since it was last asked."""
        size = self._log.stat().st_size
        if size == self._size:
            return False
        self._size = size
        if self._watch is not None:
            self._tell(self._watch)
        return True

    def _tell(self, watch: Watch) -> None:
        with self._log.open("rb") as file:
            file.seek(self._told)
            block = file.read()
        block = block[: block.rfind(b"\n") + 1]
        self._told += len(block)
        for _, line in objects(block):
            watch(line)


def read_lines(log: Path) -> Lines:
    """The whole lines of a log so far."""
    try:
        return [line for _, line in objects(log.read_bytes())]
    except FileNotFoundError:
        return []


def end_session(pid: int) -> None:
    """Kills every process of the session that `pid` leads."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def end_leftovers(places: Iterable[Path]) -> None:
    """Ends replicas that outlived their supervisor, and frees the disk of their checkpoints; their logs are counted."""
    for place in places:
        try:
            process = process_of(place)
        except ToolError:  # torn as it was written
            process = None
        while process is not None and alive(process):
            end_session(process.pid)
            time.sleep(LOOK)
        for name in (CHECKPOINT, CHECKPOINT + ".part"):
            (place / name).unlink(missing_ok=True)


def _flops(lines: Lines, before: int) -> int:
    for line in reversed(lines):
        value = line.get("flops")
        if isinstance(value, int) and line.get("event") != "start":  # which tells the plan
            return value if line.get("event") == "answer" else max(0, value - before)
    return 0
