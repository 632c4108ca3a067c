# ruff: noqa: PERF401, PTH102, PTH106, PTH108, PTH123, S108, T201
"""Attacks that use things up: processes, memory, disk, descriptors, processors."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import sys
import threading
import time
from contextlib import suppress

from tried import LIBC, Told, main, syscall

MB = 1 << 20


def fork_bomb() -> Told:
    """Children that stay, as many as can be had."""
    forked = 0
    try:
        while forked < 1000:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            forked += 1
    except OSError:
        pass
    return {"forked": forked}


def recursive_forks() -> Told:
    """Every child forks on, and none ever ends."""
    while True:
        with suppress(OSError):
            os.fork()


def thread_bomb() -> Told:
    """Threads that stay."""
    started = 0
    try:
        while started < 1000:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    print(f'{{"started": {started}}}', flush=True)
    os._exit(0)


def zombies() -> Told:
    """Dead children that nobody collects."""
    dead = 0
    try:
        while dead < 1000:
            if os.fork() == 0:
                os._exit(0)
            dead += 1
    except OSError:
        pass
    return {"dead": dead}


def touch(size: int) -> bytearray:
    """Memory that is really used."""
    block = bytearray(size)
    block[::4096] = b"x" * len(block[::4096])
    return block


def memory_bomb() -> Told:
    """One process, far above the limit."""
    kept = []
    for _ in range(64):
        kept.append(touch(32 * MB))
    return {"megabytes": 32 * len(kept)}


def memory_of_children() -> Told:
    """No child is above the limit, all of them are; the parent lives and says that all is well."""
    for _ in range(8):
        if os.fork() == 0:
            kept = touch(120 * MB)
            time.sleep(60)
            os._exit(len(kept) & 1)
    os.wait()
    return {"parent": "lives"}


def memory_of_the_small() -> Told:
    """Children smaller than the first process, so that it is the one to be killed."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("0")
    for _ in range(60):
        with suppress(OSError):
            if os.fork() == 0:
                kept = touch(9 * MB)
                time.sleep(60)
                os._exit(len(kept) & 1)
    os.wait()
    return {"parent": "lives"}


def shared_mapping() -> Told:
    """Shared anonymous memory, which no limit of a process counts."""
    kept = []
    for _ in range(64):
        block = mmap.mmap(-1, 32 * MB)
        for at in range(0, 32 * MB, 4096):
            block[at] = 1
        kept.append(block)
    return {"megabytes": 32 * len(kept)}


def memory_files() -> Told:
    """Files in memory that belong to no file system with a limit."""
    written = 0
    files = []
    for _ in range(64):
        files.append(os.memfd_create("bomb"))
        for _ in range(30):
            written += os.write(files[-1], b"x" * MB)
    return {"megabytes": written // MB}


def system_v_memory() -> Told:
    """Segments that outlive the process."""
    made = 0
    for _ in range(16):
        segment = LIBC.shmget(0, ctypes.c_size_t(16 * MB), 0o1600)
        made += segment >= 0
    return {"segments": made, "queue": LIBC.msgget(0, 0o1600) >= 0, "semaphore": LIBC.semget(0, 8, 0o1600) >= 0}


def filled(folder: str) -> int:
    """Megabytes that went into a folder, in files of 16."""
    written = 0
    try:
        for number in range(100):
            with open(f"{folder}/fill{number}", "wb", buffering=0) as file:
                for _ in range(16):
                    written += file.write(b"x" * MB)
    except OSError:
        pass
    for number in range(100):
        with suppress(OSError):
            os.unlink(f"{folder}/fill{number}")
    return written // MB


def disk() -> Told:
    """The work folder."""
    return {"megabytes": filled("/tmp")}


def shared_memory_disk() -> Told:
    """The folder of shared memory."""
    return {"megabytes": filled("/dev/shm")}


def inodes() -> Told:
    """Empty files, until refused or bored."""
    made = 0
    until = time.monotonic() + 1
    os.mkdir("many")
    try:
        while time.monotonic() < until:
            os.close(os.open(f"many/{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError:
        pass
    for number in range(made):
        os.unlink(f"many/{number}")
    os.rmdir("many")
    return {"made": made}


def sparse() -> Told:
    """A file of a terabyte that holds nothing."""
    size = 0
    with open("sparse", "wb") as file, suppress(OSError):
        file.truncate(1 << 40)
        size = 1 << 40
    os.unlink("sparse")
    return {"size": size}


def long_file() -> Told:
    """One file above the limit of a file."""
    written = 0
    with open("long", "wb", buffering=0) as file, suppress(OSError):
        for _ in range(48):
            written += file.write(b"x" * MB)
    os.unlink("long")
    return {"megabytes": written // MB}


def descriptors() -> Told:
    """As many open files as can be had."""
    held: list[int] = []
    with suppress(OSError):
        while len(held) < 5000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    return {"held": len(held)}


def watches() -> Told:
    """Things that the kernel counts a user, who may be the user that started the sandbox."""
    made = 0
    with suppress(OSError):
        while made < 5000:
            syscall(294, 0)  # inotify_init1
            made += 1
    return {"made": made}


def processors() -> Told:
    """Four loops at once: seconds of processor for each second of the clock."""
    began = time.monotonic()
    for _ in range(4):
        if os.fork() == 0:
            while time.monotonic() < began + 1:
                pass
            os._exit(0)
    for _ in range(4):
        os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"processors": (used.ru_utime + used.ru_stime) / (time.monotonic() - began)}


def no_end() -> Told:
    """A loop."""
    while True:
        pass


def deep() -> Told:
    """Recursion that ends in the C stack."""
    nested: list[object] = []
    for _ in range(200_000):
        nested = [nested]
    sys.setrecursionlimit(1 << 30)
    repr(nested)
    return {"survived": True}


if __name__ == "__main__":
    main(globals())
