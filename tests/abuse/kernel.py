# ruff: noqa: E501, PLC0415, PTH119, PTH123, S108
"""Attacks through system calls: other processes' memory, namespaces, mounts, modules, rights, other architectures."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from tried import LIBC, Told, in_child, main, managed, syscall

NEW = {
    "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000,
    "net": 0x40000000, "time": 0x80,
}  # fmt: skip
BUFFER = ctypes.create_string_buffer(4096)
HERE = ctypes.c_char_p(b"/tmp")


def calls(numbers: dict[str, tuple[int, ...]]) -> Told:
    """The calls that did not fail with EPERM, ENOSYS or EACCES, as numbers with arguments: their errors."""
    found: Told = {}
    for name, (number, *arguments) in numbers.items():
        ctypes.set_errno(0)
        if LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) >= 0:
            found[name] = "done"
        elif ctypes.get_errno() not in (1, 13, 38):
            found[name] = os.strerror(ctypes.get_errno())
    return found


def tracing() -> Told:
    """The first process and a child of our own."""
    child = os.fork()
    if child == 0:
        import time

        time.sleep(60)
        os._exit(0)
    at = ctypes.addressof(BUFFER)
    return calls(
        {
            "attach first": (101, 16, 1, 0, 0), "seize first": (101, 0x4206, 1, 0, 0), "attach child": (101, 16, child, 0, 0),
            "traceme": (101, 0, 0, 0, 0), "read first": (310, 1, at, 1, at, 1, 0), "write first": (311, 1, at, 1, at, 1, 0),
            "read child": (310, child, at, 1, at, 1, 0), "compare": (312, 1, 1, 0, 0, 0),
            "advise": (440, 0, at, 1, 4, 0), "pidfd_getfd": (438, 0, 0, 0),
        }
    )  # fmt: skip


def first_process() -> Told:
    """Limits, priorities and processors of the first process."""
    at = ctypes.addressof(BUFFER)
    return calls(
        {
            "limits": (302, 1, 7, at, 0), "nice": (141, 0, 1, 19), "nice of the user": (141, 2, 0, 19), "io": (251, 1, 1, 0x6000),
            "scheduler": (144, 1, 5, at), "parameters": (142, 1, at), "attributes": (314, 1, at, 0), "pages": (279, 1, 0, 0, 0, 0, 0),
        }
    )  # fmt: skip


def kernel_doors() -> Told:
    """Parts of the kernel that are known for their holes, and that a law has no use for."""
    at = ctypes.addressof(BUFFER)
    return calls(
        {
            "io_uring_setup": (425, 8, at), "io_uring_enter": (426, 0, 0, 0, 0, 0), "io_uring_register": (427, 0, 0, 0, 0),
            "bpf": (321, 0, at, 64), "perf": (298, at, 0, -1, -1, 0), "userfaultfd": (323, 0), "userfaultfd user": (323, 1),
            "add_key": (248, at, at, at, 1, -3), "request_key": (249, at, at, 0, 0), "keyctl": (250, 0, -3, 0, 0, 0),
            "persona": (135, 0x0040000), "ldt": (154, 0, at, 16), "iopl": (172, 3), "ioperm": (173, 0x80, 1, 1),
            "fanotify": (300, 0, 0), "by handle": (304, 3, at, 0), "to handle": (303, -100, at, at, at, 0),
            "secret memory": (447, 0), "queue": (240, at, 0x42, 0o600, 0), "shm": (29, 0, 4096, 0o1600),
        }
    )  # fmt: skip


def administration() -> Told:
    """What only an administrator may do."""
    at = ctypes.addressof(BUFFER)
    return calls(
        {
            "init_module": (175, at, 0, at), "finit_module": (313, 0, at, 0), "delete_module": (176, at, 0),
            "kexec": (246, 0, 0, 0, 0), "kexec file": (320, -1, -1, 0, at, 0), "reboot": (169, 0xFEE1DEAD, 672274793, 0x89ABCDEF, 0),
            "swapon": (167, at, 0), "swapoff": (168, at), "hostname": (170, at, 1), "domain": (171, at, 1),
            "clock": (227, 0, at), "time": (164, at, 0), "adjust": (159, 0), "accounting": (163, at), "log": (103, 4, at, 10),
            "quota": (179, 0, 0, 0, 0), "hang up": (153,),
        }
    )  # fmt: skip


def namespaces() -> Told:
    """New ones, by unshare, clone and clone3; and those of the first process."""
    fresh = {f"unshare {name}": (272, flag) for name, flag in NEW.items()}
    cloned: dict[str, str] = {}
    for name, flag in NEW.items():
        if name == "time":  # a flag of unshare alone
            continue
        child = LIBC.syscall(ctypes.c_long(56), ctypes.c_long(flag | 17), None, None, None, None)
        if child == 0:
            os._exit(0)
        if child > 0:
            os.waitpid(child, 0)
            cloned[f"clone {name}"] = "done"
    wanted = (ctypes.c_uint64 * 11)(NEW["user"], 0, 0, 0, 17)
    child = LIBC.syscall(ctypes.c_long(435), ctypes.byref(wanted), ctypes.c_long(88))
    if child == 0:
        os._exit(0)
    if child > 0:
        cloned["clone3"] = "done"
    entered = managed(
        {kind: partial(os.open, f"/proc/1/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "net", "user", "pid")}
    )
    return {**calls({**fresh, "setns": (308, os.pidfd_open(1), NEW["mount"])}), **cloned, **entered}


def mounts() -> Told:
    """Mounts, old and new ways, a new root."""
    at = ctypes.addressof(BUFFER)
    BUFFER.value = b"tmpfs"
    here = ctypes.cast(HERE, ctypes.c_void_p).value or 0
    return calls(
        {
            "mount": (165, at, here, at, 0, 0), "bind": (165, here, here, 0, 4096, 0), "remount": (165, 0, here, 0, 32, 0),
            "umount": (166, here, 2), "open_tree": (428, -100, here, 1), "move": (429, 0, 0, 0, 0, 0), "fsopen": (430, at, 0),
            "fspick": (433, -100, here, 0), "attributes": (442, -100, here, 0, at, 32), "pivot": (155, here, here), "chroot": (161, here),
        }
    )  # fmt: skip


def rights() -> Told:
    """Becoming somebody, or getting a right back."""
    return managed(
        {
            "setuid": lambda: os.setuid(0), "setgid": lambda: os.setgid(0), "setgroups": lambda: os.setgroups([0]),
            "setresuid": lambda: os.setresuid(0, 0, 0), "fsuid": lambda: 1 / 0 if syscall(122, 0) == 0 else os.close(-1),
            "mknod": lambda: os.mknod("disk", 0o60666, os.makedev(254, 0)), "chown": lambda: os.chown("/tmp", 0, 0),
            "memory": lambda: os.mknod("mem", 0o20666, os.makedev(1, 1)),
        }
    )  # fmt: skip


def set_user_id() -> Told:
    """Programs that give their user's rights, of the system and of our own making."""
    found = subprocess.run(
        ["find", "/", "-xdev", "-perm", "-4000", "-type", "f"], capture_output=True, text=True, check=False
    )
    became = []
    for program in found.stdout.split():
        if os.path.basename(program) not in ("su", "newgrp", "mount", "chsh", "passwd"):
            continue
        done = subprocess.run(
            [program, "-c", "id -u"], capture_output=True, text=True, check=False, input="", timeout=5
        )
        if done.stdout.strip() == "0":
            became.append(program)
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    kept = {n: status[n].strip() for n in ("NoNewPrivs", "Seccomp", "CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")}
    return {"became": became, **kept, "uid": os.getuid()}


def other_calls() -> Told:
    """Numbers that a filter for one architecture does not know: x32, and 32 bits by an interrupt."""
    if platform.machine() != "x86_64":
        return {"x32": "SIGSYS", "i386": "SIGSYS"}
    return {
        "x32": in_child(lambda: syscall(0x40000000 + 39)),
        "i386": in_child(machine_code(b"\xb8\x14\0\0\0\xcd\x80\xc3")),
    }


def machine_code(code: bytes) -> Callable[[], object]:
    """Instructions as a function."""

    def run() -> object:
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(code)
        return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()

    return run


def looser_filter() -> Told:
    """A second filter that allows everything, which must not undo the first."""
    allow = ctypes.create_string_buffer(bytes([6, 0, 0, 0, 0, 0, 0xFF, 0x7F]))

    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    LIBC.prctl(22, 2, ctypes.byref(Program(1, ctypes.addressof(allow))), 0, 0)
    return calls({"ptrace": (101, 0, 0, 0, 0), "unshare": (272, NEW["user"]), "keyctl": (250, 0, -3, 0, 0, 0)})


def from_memory() -> Told:
    """A program that is in no file system, which keeps the filter all the same."""
    fd = os.memfd_create("program")
    with open("/bin/true", "rb") as program:
        os.write(fd, program.read())
    code = f"import ctypes; l = ctypes.CDLL(None); print(l.unshare({NEW['user']}), l.ptrace(0, 0, 0, 0))"
    return {
        "said": subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.split()
    }


if __name__ == "__main__":
    main(globals())
