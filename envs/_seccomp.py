"""The system calls that no sandboxed program may use, as a seccomp filter: denied ones fail with EPERM."""

from __future__ import annotations

import struct

from agentlab.envs import SandboxError

DENIED = {  # name: number on x86_64, number on aarch64
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "memfd_secret": (447, 447),
    "personality": (135, 92),
    "setpriority": (141, 140),  # also of the first process, which then starves
    "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "inotify_init": (253, -1),  # instances are counted a user, and that user may be the host's
    "inotify_init1": (294, 26),
    "shmget": (29, 194),  # outlives its processes, and no limit of a process counts it
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "quotactl_fd": (443, 443),
    "process_madvise": (440, 440),
    "set_mempolicy_home_node": (450, 450),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "open_tree_attr": (467, 467),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "modify_ldt": (154, -1),
    "uselib": (134, -1),
}

CLONE_NEW = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET: a clone with one of them makes a namespace."""

_AUDIT = {"x86_64": (0xC000003E, 0, 56), "aarch64": (0xC00000B7, 1, 220)}
_CLONE3 = 435  # on both
FIRST_ARGUMENTS = {  # name: number on x86_64, number on aarch64, the first arguments that are allowed
    "socket": (41, 198, (1, 2, 10)),  # unix and internet; others, such as vsock, reach past a network namespace
    "prlimit64": (302, 261, (0,)),  # of the calling process alone: limits of the first process would outlive a command
}
_LOAD, _EQUAL, _ATLEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ANY_SET = 0x45
_KILL, _ALLOW, _EPERM, _ENOSYS = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
_X32 = 0x40000000


def seccomp_filter(machine: str) -> bytes:
    """The filter as the kernel takes it: 8 bytes an instruction; `machine` as `uname -m` says it.

    clone3 hides its flags behind a pointer, so it fails with ENOSYS and libraries fall back to clone, whose flags are
    seen. Calls of another architecture, and of x32, kill the process. Raises SandboxError for an unknown machine.
    """
    if machine not in _AUDIT:
        raise SandboxError(f"{machine}: no seccomp filter for this machine; known are {', '.join(_AUDIT)}")
    arch, column, clone = _AUDIT[machine]
    numbers = [n for pair in DENIED.values() if (n := pair[column]) >= 0]
    code = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if column == 0:
        code += [(_ATLEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    code += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ENOSYS)]
    for number in numbers:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    for on_x86, on_arm, allowed in FIRST_ARGUMENTS.values():
        code += _first_argument((on_x86, on_arm)[column], allowed)
    code += [
        (_EQUAL, 0, 3, clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_SET, 0, 1, CLONE_NEW), (_RETURN, 0, 0, _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]  # fmt: skip
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def _first_argument(number: int, allowed: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Instructions that end a call of that number: allowed with one of these first arguments, else EPERM."""
    tests = [(_EQUAL, len(allowed) - i, 0, value) for i, value in enumerate(allowed)]
    body = [(_LOAD, 0, 0, _FIRST_ARGUMENT), *tests, (_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]
