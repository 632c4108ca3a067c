# ruff: noqa: E501, PTH101, PTH102, PTH123, PTH211, S108
"""Attacks through what a command leaves behind to be fetched, or to be written over."""

from __future__ import annotations

import os
import socket

from tried import Told, main, told


def links() -> Told:
    """Links to the host's files, to the first process's own, to devices, in the place of files and of folders."""
    for name, target in (
        ("secret.json", told()["files"][0]), ("passwd.json", "/etc/hostname"), ("zero.json", "/dev/zero"),
        ("environ.json", "/proc/1/environ"), ("out.json", "/proc/1/fd/1"), ("itself.json", "/proc/self/fd/1"),
        ("nowhere.json", "new.txt"), ("loop.json", "loop.json"), ("etc", "/etc"), ("proc", "/proc/1"), ("own", "/proc/self"),
        ("root", "/"), ("up", "../../.."), ("shm", "/dev/shm"),
    ):  # fmt: skip
        os.symlink(target, name)
    return {}


def odd_files() -> Told:
    """Not a plain file: a pipe, a socket, a folder, one that may not be read."""
    os.mkfifo("pipe.json")
    socket.socket(socket.AF_UNIX).bind("socket.json")
    os.mkdir("folder.json")
    with open("locked.json", "w") as file:
        file.write("x")
    os.chmod("locked.json", 0)
    os.mkdir("closed")
    os.chmod("closed", 0)
    return {}


def large() -> Told:
    """As large as a file may be, and a hole as large as the system lets it."""
    with open("large.bin", "wb") as file:
        file.writelines(b"\xff" * (1 << 20) for _ in range(31))
    with open("hole.bin", "wb") as file:
        file.truncate(32 << 20)
    return {}


def frames() -> Told:
    """A file that looks like what the first process says."""
    with open("frames.bin", "wb") as file:
        file.write(b"X\0\0\0\x02{}" + b"F\0\0\0\x05wrong" + b"H\0\0\0\0" + b"D\xff\xff\xff\xff")
    return {}


def hard_links() -> Told:
    """A second name of a file outside, where the system allows it."""
    made = []
    for path in (told()["files"][0], "/etc/hostname", "/opt/runner.py", "/proc/1/environ", "/dev/null"):
        try:
            os.link(path, "hard.json")
        except OSError:
            continue
        made.append(path)
    return {"made": made}


def full() -> Told:
    """Not a byte left for whoever writes next."""
    try:
        for number in range(10):
            with open(f"full{number}", "wb", buffering=0) as file:
                file.writelines(b"x" * (1 << 20) for _ in range(31))
    except OSError:
        pass
    return {}


if __name__ == "__main__":
    main(globals())
