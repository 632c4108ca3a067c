"""A control group for one sandbox, where this user may make one: what all its processes together may use."""

from __future__ import annotations

import functools
import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agentlab.envs import Limits

ROOT = Path("/sys/fs/cgroup")
PERIOD = 100_000  # microseconds
LEFT = 600.0
"""Seconds after which an empty group is nobody's."""


@dataclass(frozen=True)
class Cgroup:
    """The folders of one group: one in version 2 of the kernel's interface, one a controller in version 1."""

    folders: tuple[Path, ...]

    def enter(self, pid: int) -> None:
        """Moves a process into the group, with all that it starts from then on.

        The kernel waits tens of milliseconds at the first move after a while (a grace period of RCU); the controllers
        of version 1 are therefore entered side by side.
        """
        with ThreadPoolExecutor(len(self.folders)) as pool:
            list(pool.map(lambda folder: (folder / "cgroup.procs").write_text(str(pid)), self.folders))

    def memory_kills(self) -> int:
        """How many processes of the group the kernel has killed for their memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                file = folder / name
                if file.is_file():
                    words = dict(line.split()[:2] for line in file.read_text().splitlines() if " " in line)
                    return int(words.get("oom_kill", "0"))
        return 0

    def remove(self) -> None:
        """Kills what is left in the group and removes it; waits a second at the most.

        A bubblewrap that is killed while it starts leaves a child behind that is not yet bound to die with it.
        """
        for folder in self.folders:
            for _ in range(1000):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:  # a dying process still counts
                    _kill(folder)
                    time.sleep(0.001)
                else:
                    break


def make(limits: Limits) -> Cgroup | None:
    """A new group with these limits; None where there is no interface, or this user may not write to it."""
    name = f"agentlab/{uuid.uuid4().hex}"
    _sweep()
    try:
        if (ROOT / "cgroup.controllers").is_file():
            folder = ROOT / name
            folder.mkdir(parents=True)
            for parent in (ROOT, ROOT / "agentlab"):
                (parent / "cgroup.subtree_control").write_text("+memory +pids +cpu")
            _write(folder, {"memory.max": limits.memory_bytes, "memory.swap.max": 0, "pids.max": limits.processes})
            _write(folder, {"cpu.max": None if limits.cpus is None else f"{int(limits.cpus * PERIOD)} {PERIOD}"})
            return Cgroup((folder,))
        folders = tuple(ROOT / controller / name for controller in ("memory", "pids", "cpu"))
        if not all(f.parents[1].is_dir() for f in folders):
            return None
        for folder in folders:
            folder.mkdir(parents=True)
        memory, pids, cpu = folders
        _write(memory, {"memory.limit_in_bytes": limits.memory_bytes})
        _write(memory, {"memory.memsw.limit_in_bytes": limits.memory_bytes if _has(memory, "memsw") else None})
        _write(pids, {"pids.max": limits.processes})
        _write(cpu, {"cpu.cfs_quota_us": None if limits.cpus is None else int(limits.cpus * PERIOD)})
    except OSError:
        return None
    return Cgroup(folders)


@functools.cache
def _sweep() -> None:
    """Once a process: removes groups that were left empty by owners that were killed."""
    for folder in [*ROOT.glob("agentlab/*/"), *ROOT.glob("*/agentlab/*/")]:
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > LEFT and not (folder / "cgroup.procs").read_text():
                folder.rmdir()


def _kill(folder: Path) -> None:
    with suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def _has(folder: Path, part: str) -> bool:
    return (folder / f"memory.{part}.limit_in_bytes").is_file()


def _write(folder: Path, values: dict[str, int | str | None]) -> None:
    for name, value in values.items():
        if value is not None:
            (folder / name).write_text(str(value))
