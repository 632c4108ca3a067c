"""The filter of system calls, run step by step as the kernel runs it."""

from __future__ import annotations

import struct

import pytest
from agentlab.envs import SandboxError
from agentlab.envs._seccomp import CLONE_NEW, DENIED, seccomp_filter
from hypothesis import given
from hypothesis import strategies as st

KILL, ALLOW, EPERM, ENOSYS = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
MACHINES = ("x86_64", "aarch64")
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
PLAIN = {  # read, write, mmap, execve, exit_group, futex, wait4, openat
    "x86_64": (0, 1, 9, 59, 231, 202, 61, 257),
    "aarch64": (63, 64, 222, 221, 94, 98, 260, 56),
}
THREAD = 0x003D0F00
"""The flags by which the C library makes a thread."""
NAMESPACES = {  # <linux/sched.h>
    "mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip


def verdict(machine: str, number: int, arguments: tuple[int, ...] = (), arch: int | None = None) -> int:
    """What the filter says of one call: classic BPF over struct seccomp_data (linux/filter.h, linux/seccomp.h)."""
    padded = (*arguments, *(0,) * 6)[:6]
    data = struct.pack("=IIQ6Q", number, ARCH[machine] if arch is None else arch, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", seccomp_filter(machine)))
    at, loaded = 0, 0
    for _ in range(len(code)):
        kind, yes, no, value = code[at]
        at += 1
        if kind == 0x20:  # load a word
            (loaded,) = struct.unpack_from("=I", data, value)
        elif kind == 0x06:  # return
            return int(value)
        else:
            met = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[kind]
            at += yes if met else no
    raise AssertionError("the filter does not end")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", DENIED)
def test_a_call_on_the_list_fails(machine: str, name: str) -> None:
    number = DENIED[name][MACHINES.index(machine)]
    if number >= 0:  # -1: the machine has no such call
        assert verdict(machine, number) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_what_any_program_needs_passes(machine: str) -> None:
    assert {verdict(machine, number) for number in PLAIN[machine]} == {ALLOW}


@given(
    machine=st.sampled_from(MACHINES), number=st.integers(0, 0x3FFFFFFF), arguments=st.tuples(st.integers(0, 2**64 - 1))
)
def test_no_call_off_the_list_is_touched(machine: str, number: int, arguments: tuple[int]) -> None:
    denied = {pair[MACHINES.index(machine)] for pair in DENIED.values()}
    if number not in denied | {CLONE[machine], CLONE3}:
        assert verdict(machine, number, arguments) == ALLOW


@given(machine=st.sampled_from(MACHINES), flags=st.integers(0, 2**64 - 1))
def test_a_clone_makes_processes_and_threads_but_no_namespace(machine: str, flags: int) -> None:
    wanted = EPERM if flags & sum(NAMESPACES.values()) else ALLOW
    assert verdict(machine, CLONE[machine], (flags,)) == wanted


@pytest.mark.parametrize("machine", MACHINES)
def test_every_kind_of_namespace_is_known(machine: str) -> None:
    assert sum(NAMESPACES.values()) == CLONE_NEW
    assert {verdict(machine, CLONE[machine], (flag | 17,)) for flag in NAMESPACES.values()} == {EPERM}
    assert verdict(machine, CLONE[machine], (THREAD,)) == ALLOW
    assert verdict(machine, CLONE[machine], (17,)) == ALLOW, "a plain fork"


@given(machine=st.sampled_from(MACHINES), number=st.integers(0, 2**32 - 1))
def test_a_call_by_the_rules_of_another_machine_kills(machine: str, number: int) -> None:
    for other in set(ARCH) - {machine}:
        assert verdict(machine, number, arch=ARCH[other]) == KILL


@given(number=st.integers(0x40000000, 2**32 - 1))
def test_a_call_of_x32_kills(number: int) -> None:
    assert verdict("x86_64", number) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_clone3_is_said_not_to_exist_so_that_libraries_fall_back(machine: str) -> None:
    assert verdict(machine, CLONE3) == ENOSYS


def test_a_machine_without_a_list_is_refused() -> None:
    with pytest.raises(SandboxError, match="riscv64: no seccomp filter for this machine; known are x86_64, aarch64"):
        seccomp_filter("riscv64")
