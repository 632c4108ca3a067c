# ruff: noqa: PLC0415, PTH208, T201
"""Attacks on those who watch: signals to the first process, commands that do not die, children that hide."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from tried import Told, main, told


def first_process() -> Told:
    """Every signal there is, by number and by descriptor."""
    sent = 0
    handle = os.pidfd_open(1)
    for number in range(1, 65):
        for send in (os.kill, lambda _, n: signal.pidfd_send_signal(handle, n)):
            with suppress(OSError, ValueError):
                send(1, number)
                sent += 1
    return {"sent": sent > 0}


def everybody() -> Told:
    """All that can be reached, killed."""
    with suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    with suppress(OSError):
        os.kill(0, signal.SIGCONT)
    return {"alive": True}


def parent() -> Told:
    """Whoever started this, stopped."""
    for number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGKILL, signal.SIGSEGV):
        with suppress(OSError):
            os.kill(os.getppid(), number)
    return {"parent": os.getppid()}


def storm() -> Told:
    """The one signal that the first process listens to, without a pause."""
    while True:
        os.kill(1, signal.SIGCHLD)


def stopped() -> Told:
    """This process, stopped for good."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def deaf() -> Told:
    """Every signal ignored or blocked, in a group and session of its own."""
    with suppress(OSError):
        os.setsid()
    for number in range(1, 65):
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        time.sleep(1)


def daemon() -> Told:
    """Forked twice, in a session of its own, with nothing open."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 64)
            time.sleep(600)
        os._exit(0)
    os.wait()
    return {"left": True}


def renamed() -> Told:
    """Under another name, with a command line and an environment that say nothing."""
    subprocess.Popen(["kworker/0:1", "600"], executable="/bin/sleep", env={}, start_new_session=True)
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, b"kworker/0:2", 0, 0, 0)
        os.closerange(0, 64)
        time.sleep(600)
    return {"left": True}


def stopped_children() -> Told:
    """Children that were stopped before this ends."""
    for _ in range(8):
        child = os.fork()
        if child == 0:
            time.sleep(600)
        os.kill(child, signal.SIGSTOP)
    return {"left": True}


def runaway() -> Told:
    """A chain: each forks the next and ends, so that a number is old before it can be killed."""
    print('{"left": true}', flush=True)
    while True:
        with suppress(OSError):
            if os.fork():
                os._exit(0)


def orphans() -> Told:
    """Many that were left to the first process at once."""
    for _ in range(40):
        if os.fork() == 0:
            os.fork()
            os._exit(0)
    for _ in range(40):
        os.wait()
    return {"made": 40}


def left() -> Told:
    """Processes that an earlier command has left, but for the first and this one."""
    return {"others": [n for n in os.listdir("/proc") if n.isdigit() and int(n) not in (1, os.getpid())]}


def crash() -> Told:
    """A fault, with a dump wanted."""
    import resource

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ctypes.string_at(0)
    return {}


def at_exit() -> Told:
    """An end that never comes: what runs at exit waits, in a thread that is waited for."""
    import atexit
    import threading

    atexit.register(time.sleep, 600)
    threading.Thread(target=time.sleep, args=(600,)).start()
    return {"mark": told()["mark"], "stdin": sys.stdin.closed}


if __name__ == "__main__":
    main(globals())
