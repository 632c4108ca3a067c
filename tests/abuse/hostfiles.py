# ruff: noqa: PLC0415, PTH102, PTH103, PTH112, PTH120, PTH123, PTH208, S108
"""Attacks on what lies around: files, secrets, other processes, the kernel's own files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import suppress
from functools import partial

from tried import Told, Tries, main, managed, opened, told

PROGRAMS = ("/opt/runner.py", "/opt/agentlab/main.py", "/opt/packages/numpy/__init__.py", "/usr/lib/os-release")


def secrets() -> Told:
    """Files of the host, by their paths."""
    paths = [
        *told()["files"],
        "/etc/shadow",
        "/root",
        "/root/.ssh",
        "/root/.bashrc",
        "/home",
        "/work",
        "/var/lib/docker",
    ]
    return opened(paths)


def environment() -> Told:
    """The host's environment, through this process and every other one."""
    secret = told()["secret"].encode()
    found = [name for name, value in os.environ.items() if secret in value.encode()]
    for name in os.listdir("/proc"):
        with suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if secret in file.read():
                found.append(name)
    allowed = {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"}
    threads = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}
    return {"found": found, "names": sorted(set(os.environ) - allowed - threads - {"AGENTLAB_ABUSE"})}


def holdouts() -> Told:
    """Rows that nobody may see, and our own package, anywhere in the file system."""
    names = ["holdout.csv", "holdout_runs.csv", "reference.toml", "task.toml", "leaderboard.py", "test_abuse.py"]
    wanted = [word for name in names for word in ("-o", "-name", name)][1:]
    tops = [f"/{name}" for name in os.listdir("/") if name not in ("proc", "sys", "usr")]
    command = ["find", *tops, "/usr/local", "/usr/share", *sys.path[1:], "(", *wanted, ")", "-print"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {"found": said.split("\n")[:-1]}


def below() -> Told:
    """What is in folders that must look empty."""
    return {path: os.listdir(path) for path in told()["empty"]}


def processes() -> Told:
    """Processes that can be seen, but for the first and this one."""
    return {"others": [n for n in os.listdir("/proc") if n.isdigit() and int(n) not in (1, os.getpid())]}


def first_bytes(path: str) -> bytes:
    """What a file begins with."""
    with open(path, "rb", buffering=0) as file:
        return file.read(8)


def the_first() -> Told:
    """What the first process holds: its root, folder, files, memory, program, environment."""
    names = ("root", "cwd", "exe", "fd/0", "fd/1", "ns/net", "ns/user")
    tries: Tries = {f"name of {name}": partial(os.readlink, f"/proc/1/{name}") for name in names}
    tries |= {name: partial(os.listdir, f"/proc/1/{name}/") for name in ("root", "cwd", "map_files")}
    reads: Tries = {
        name: partial(first_bytes, f"/proc/1/{name}")
        for name in (
            "environ",
            "mem",
            "maps",
            "auxv",
            "stack",
            "syscall",
            "pagemap",
            "smaps",
            "io",
            "root/etc/passwd",
            "fd/0",
        )
    }
    writes: Tries = {
        f"write {name}": partial(os.open, f"/proc/1/{name}", os.O_WRONLY)
        for name in ("mem", "oom_score_adj", "comm", "clear_refs", "coredump_filter", "exe")
    }
    return managed({**tries, **reads, **writes})


def own_program() -> Told:
    """Overwriting the interpreter, the programs of the sandbox, and what they import."""
    import sysconfig

    paths = ["/proc/self/exe", os.path.realpath("/proc/self/exe"), *PROGRAMS, os.__file__]
    new = [f"{sysconfig.get_path('purelib')}/sitecustomize.py", "/opt/agentlab/numpy.py", "/opt/json.py", "/usr/x.pth"]
    made = opened(new, os.O_WRONLY | os.O_CREAT)
    return {**opened(paths, os.O_WRONLY), **made, **opened(paths, os.O_RDWR)}


def roots() -> Told:
    """Writing anywhere but in the work folder and shared memory."""
    places = [
        "/",
        "/dev",
        "/etc",
        "/usr",
        "/var",
        "/var/tmp",
        "/home",
        "/root",
        "/run",
        "/opt",
        "/proc",
        "/sys",
        "/mnt",
    ]
    places += [
        "/opt/agentlab",
        "/sys/fs/cgroup",
        "/boot",
        "/srv",
        "/lib",
        "/bin",
        "/dev/pts",
        "/work",
        os.path.dirname(os.__file__),
    ]
    return opened([f"{place}/{told()['mark']}" for place in places], os.O_WRONLY | os.O_CREAT)


def kernel_files() -> Told:
    """Every file of /proc and /sys that is not a process's own and can be opened for writing."""
    found = []
    for top in ("/proc", "/sys"):
        for folder, folders, files in os.walk(top):
            if folder == "/proc":
                folders[:] = [f for f in folders if not f.isdigit() and f not in ("self", "thread-self")]
            found += [path for name in files if (path := f"{folder}/{name}") in opened([path], os.O_WRONLY)]
    return {"found": found}


def sensitive() -> Told:
    """The ways out that are known by name: handlers that the kernel starts on the host, switches, raw memory."""
    names = [
        "kernel/core_pattern",
        "kernel/modprobe",
        "kernel/hotplug",
        "kernel/poweroff_cmd",
        "kernel/usermodehelper/bset",
    ]
    names += [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "fs/binfmt_misc/register",
        "kernel/hostname",
        "fs/suid_dumpable",
    ]
    paths = [f"/proc/sys/{name}" for name in names]
    paths += ["/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/power/state", "/proc/scsi/scsi", "/proc/mtrr"]
    readable = [
        "/proc/kcore",
        "/proc/kmsg",
        "/dev/kmsg",
        "/dev/mem",
        "/dev/port",
    ]
    empty = [path for path in ("/sys/kernel/debug", "/sys/kernel/tracing") if os.path.isdir(path) and os.listdir(path)]
    return {**opened(paths, os.O_WRONLY), **opened(readable), **dict.fromkeys(empty, "listed")}


def roots_files() -> Told:
    """Files of the kernel that only the host's root may read: how much of each was read."""
    found: Told = {}
    for name in (
        "slabinfo",
        "vmallocinfo",
        "kpageflags",
        "timer_list",
        "pagetypeinfo",
        "keys",
        "kcore",
        "kpagecount",
        "sched_debug",
    ):
        with suppress(OSError), open(f"/proc/{name}", "rb") as file:
            if got := len(file.read(64)):
                found[name] = got
    return found


def cgroups() -> Told:
    """Groups: a new one, an agent for the release of one, higher limits, moving out."""
    found: Told = {}
    for folder, folders, files in os.walk("/sys/fs/cgroup"):
        with suppress(OSError):
            os.mkdir(f"{folder}/{told()['mark']}")
            found[folder] = "mkdir"
        wanted = {
            "release_agent",
            "notify_on_release",
            "cgroup.procs",
            "memory.limit_in_bytes",
            "memory.max",
            "pids.max",
            "devices.allow",
        }
        found |= opened([f"{folder}/{name}" for name in wanted & set(files)], os.O_WRONLY)
        if folder.count("/") > 5:
            folders.clear()
    return found


def memory_score() -> Told:
    """Being the last to be killed."""

    def lower() -> int:
        with open("/proc/self/oom_score_adj", "w") as file:
            return file.write("-1000")

    return managed({"lower": lower})


def devices() -> Told:
    """Devices but for null, zero, full, random, terminals."""
    harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"}
    found = []
    for folder, _, files in os.walk("/dev"):
        for name in files:
            path = f"{folder}/{name}"
            kind = os.lstat(path).st_mode
            if (stat.S_ISBLK(kind) or stat.S_ISCHR(kind)) and name not in harmless and path in opened([path]):
                found.append(path)
    return {"found": found}


def next_one() -> Told:
    """What a command can leave for the next one, where it is found first."""
    left = ["usercustomize.py", "sitecustomize.py", "json.py", "numpy.py", ".bashrc", ".pdbrc"]
    for name in left:
        with open(name, "w") as file:
            file.write("raise SystemExit('taken over')\n")
    os.makedirs(".local/lib/python3.11/site-packages", exist_ok=True)
    with open(".local/lib/python3.11/site-packages/x.pth", "w") as file:
        file.write("import os; os._exit(9)\n")
    return {"left": len(left)}


if __name__ == "__main__":
    main(globals())
