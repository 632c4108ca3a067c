"""Processes of ours on this machine: started to outlive us, found again, and killed with all they started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "AGENTLAB_PROCESS_TREE"
"""Variable by which the processes of one command are found again, even those that left its group and parent."""

DYING = 30.0
"""Seconds that killed processes are given to be gone: one with gigabytes on a busy machine takes several."""

_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Started:
    """A detached process; start_ticks (since boot) tells it from a later process of the same number."""

    pid: int
    start_ticks: int
    mark: str


def environment(extra: Mapping[str, str] | None = None, threads: int = 1) -> dict[str, str]:
    """What a program of ours needs of the environment, and nothing else; one thread pool size for all libraries.

    glibc is told to keep freed memory: giving tensors back to the system at every step costs 5-15% of the time.
    """
    kept = {name: os.environ[name] for name in _PASSED if name in os.environ}
    pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    memory = {
        "MALLOC_TRIM_THRESHOLD_": "2000000000",
        "MALLOC_MMAP_THRESHOLD_": "2000000000",
        "MALLOC_TOP_PAD_": "100000000",
    }
    return {**kept, **pools, **memory, "PYTHONUNBUFFERED": "1", **(extra or {})}


def start_ticks(pid: int) -> int | None:
    """Clock ticks since boot at which the process began; None when there is none, or only its zombie."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])


def alive(process: Started) -> bool:
    """Whether that very process still runs."""
    return start_ticks(process.pid) == process.start_ticks


def start(argv: Sequence[str], *, log: Path, errors: Path, cwd: Path, env: Mapping[str, str]) -> Started:
    """A detached process that outlives this one; its output is appended to `log`, its errors to `errors`."""
    mark = uuid.uuid4().hex
    with log.open("ab") as out, errors.open("ab") as err:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd,
            env={**env, MARK: mark}, start_new_session=True,
        )  # fmt: skip
    began = start_ticks(process.pid)
    process.returncode = 0  # not ours to wait for: `reap` collects it, and no warning is due when it is forgotten
    return Started(process.pid, began if began is not None else -1, mark)


def reap(pid: int) -> None:
    """Collects a dead child, if it is ours and dead; never waits."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def kill_tree(pid: int, mark: str) -> None:
    """Kills the group led by `pid` and every process that carries `mark`, until none is left, or for DYING seconds.

    A dying process loses its environment, and with it the mark, long before its sockets are closed, where it has much
    memory to give back: what was seen with the mark is waited for by its number.
    """
    end = time.monotonic() + DYING
    seen: dict[int, int | None] = {pid: start_ticks(pid)}
    while time.monotonic() < end:
        left = _marked(mark)
        seen |= {other: ticks for other in left if (ticks := start_ticks(other)) is not None}
        _signal_group(pid)
        for other in left:
            _signal(other)
        if not left and all(ticks is None or start_ticks(one) != ticks for one, ticks in seen.items()):
            return
        time.sleep(0.01)


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _signal_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _marked(mark: str) -> list[int]:
    """Processes whose environment carries the mark; those of other users cannot be read and are not ours."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in variables:
            found.append(int(entry.name))
    return found
