# ruff: noqa: T201
"""What the attacks share: trying things and telling, as one line of JSON, what was managed.

These programs run inside a sandbox, alone: python3 GROUP.py NAME JSON. They import nothing of agentlab.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
Told = dict[str, Any]
Tries = dict[str, Callable[[], object]]


def told() -> Any:
    """What the test told the attack."""
    return json.loads(sys.argv[2])


def managed(tries: Tries) -> Told:
    """What came of each try that raised nothing."""
    found: Told = {}
    for name, attempt in tries.items():
        try:
            found[name] = repr(attempt())[:80]
        except (OSError, ValueError, RuntimeError):
            continue
    return found


def opened(paths: Iterable[str], flags: int = os.O_RDONLY) -> Told:
    """The paths that could be opened."""
    return managed({path: partial(touch, path, flags) for path in paths})


def touch(path: str, flags: int) -> None:
    """Opens a file and closes it."""
    os.close(os.open(path, flags | os.O_NONBLOCK))


def syscall(number: int, *arguments: object) -> int:
    """A system call by its number; raises OSError where the system refuses."""
    done = int(LIBC.syscall(ctypes.c_long(number), *arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def in_child(attempt: Callable[[], object]) -> str:
    """How a child that tried it ended: "done", "refused", or the name of the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except BaseException:  # noqa: BLE001 - whatever it was, it did not work
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return "refused" if os.WEXITSTATUS(status) else "done"


def main(attacks: Mapping[str, Any]) -> None:
    """Runs the attack that is asked for."""
    print(json.dumps(attacks[sys.argv[1]]()), flush=True)
