# ruff: noqa: PLC0415, PTH208
"""Attacks through output: floods, forged frames, other processes' pipes."""

from __future__ import annotations

import os
import stat
import struct
import sys
import time
from contextlib import suppress
from functools import partial

from tried import Told, Tries, main, managed


def stdout() -> Told:
    """Lines without end."""
    while True:
        sys.stdout.write("A" * 65535 + "\n")


def stderr() -> Told:
    """Errors without end."""
    while True:
        sys.stderr.write("x" * 65535 + "\n")


def one_line() -> Told:
    """One line without end."""
    while True:
        os.write(1, b"x" * 65536)


def frames() -> Told:
    """What the first process would say: an exit, an answer, a failure, a start, a frame of four gigabytes."""
    forged = [(b"X", b'{"code": 0, "memory_kills": 0}'), (b"D", b"forged"), (b"F", b"forged"), (b"H", b"")]
    for kind, payload in forged:
        for fd in (1, 2):
            os.write(fd, struct.pack(">BI", kind[0], len(payload)) + payload)
    os.write(1, struct.pack(">BI", ord("O"), 0xFFFFFFFF) + b"\n")
    sys.exit(7)


def pipes_of_the_first() -> Told:
    """Other descriptors than three, and the ones of the first process."""
    paths = [f"/proc/1/fd/{n}" for n in range(12)]
    tries: Tries = {f"write {path}": partial(os.open, path, os.O_WRONLY | os.O_NONBLOCK) for path in paths}
    tries |= {f"name of {path}": partial(os.readlink, path) for path in paths}
    extra = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(name) > 2 and stat.S_ISFIFO(os.fstat(int(name)).st_mode):
                extra.append(name)
    return {"managed": managed(tries), "extra": extra}


def closed() -> Told:
    """Nothing to read from or to kill by: every descriptor closed, and then it waits."""
    os.closerange(0, 256)
    time.sleep(600)
    return {}


def never_read() -> Told:
    """Input that is never read, with the pipes made as small as they get."""
    import fcntl

    for fd in (0, 1, 2):
        with suppress(OSError):
            fcntl.fcntl(fd, 1031, 4096)  # F_SETPIPE_SZ
    time.sleep(600)
    return {}


def held_open() -> Told:
    """The output's pipe, in flight between two sockets that hold one another, after every process is dead."""
    import array
    import socket

    left, right = socket.socketpair()
    for end in (left, right):
        fds = array.array("i", [1, 2, left.fileno(), right.fileno()])
        end.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    return {"sent": True}


if __name__ == "__main__":
    main(globals())
