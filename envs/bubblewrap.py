"""Confines programs with bubblewrap: namespaces, a read-only system, a work folder in memory, a filter, limits.

Needs no service and no root. What it does not give: the kernel is the host's, and without a control group (root, or a
delegated one) memory is limited a process, not a sandbox. Docker with gVisor is the stronger tier.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import py_compile
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from agentlab.envs import STRICT, Limits, SandboxError, _cgroup
from agentlab.envs._confined import GRACE, PROGRAMS, RUNNER, WORK, Confined, Wire, runner_argv

from agentlab.files import cache_folder

SHM, SHARED = "/dev/shm", 16 << 20  # noqa: S108 - in the sandbox
"""Where shared memory is, and its bytes."""


class Sandbox(Confined):
    """A bubblewrap of its own for each sandbox; commands are started by the runner inside."""

    confines: ClassVar[bool] = True
    strength: ClassVar[int] = 10

    def __init__(self, image: str = "law", limits: Limits = STRICT) -> None:
        super().__init__(limits)
        self._image = image
        self.python = sys.executable
        self.programs = PROGRAMS

    @classmethod
    def missing(cls, image: str = "law") -> str:
        """What keeps bubblewrap from working here, and the command that mends it."""
        del image  # it brings no image: the host's Python runs in it
        if sys.platform != "linux":
            return "needs Linux"
        return _tried(shutil.which("bwrap"))

    async def _launch(self) -> Wire:
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxError(f"bubblewrap: {self.missing()}")
        group = _cgroup.make(self.limits)
        told, tell = os.pipe()
        arguments = ["--info-fd", str(tell), *_arguments(self._image, self.limits), *runner_argv(_bare_python())]
        try:
            process = await asyncio.create_subprocess_exec(
                program, *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env={}, close_fds=True, pass_fds=(tell,),
            )  # fmt: skip
        except BaseException:
            os.close(told)
            if group is not None:
                group.remove()
            raise
        finally:
            os.close(tell)
        # Meanwhile the runner starts; it runs nothing before it is asked, which is not before this has returned.
        try:
            first = await asyncio.to_thread(_enter, told, group)
        except SandboxError:
            process.kill()
            if group is not None:
                group.remove()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE)
            raise
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        errors = process.stderr

        async def destroy() -> None:
            if process.returncode is None:
                process.kill()
                with suppress(ProcessLookupError):
                    os.kill(
                        first or process.pid, signal.SIGKILL
                    )  # it is bound to die with its parent only once it has started
            if group is not None:
                await asyncio.to_thread(group.remove)
            with suppress(TimeoutError):  # asyncio waits for the end of its output too, which nobody may be reading
                await asyncio.wait_for(process.wait(), GRACE)
            if process.returncode is None:
                raise SandboxError(f"bubblewrap: process {process.pid} does not die; end it by hand")

        def memory_kills() -> int:
            return 0 if group is None else group.memory_kills()

        async def said() -> str:
            lines = (await errors.read(1 << 16)).decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""

        return Wire(process.stdout, process.stdin, destroy, memory_kills, said)

    def _rlimits(self) -> dict[str, int]:
        limits = self.limits
        wanted = {
            "memory": limits.memory_bytes if os.geteuid() else None,  # root has a control group, which counts better
            "cpu": limits.cpu_seconds, "file": limits.file_bytes, "open": limits.open_files,
            "processes": limits.processes,
        }  # fmt: skip
        return {name: value for name, value in wanted.items() if value is not None}


def _enter(told: int, group: _cgroup.Cgroup | None) -> int:
    """The pid of the first process inside, once it is in the group, or 0 where bubblewrap ended without one.

    Raises SandboxError where the group cannot be entered; the process is killed then.
    """
    with os.fdopen(told, "rb") as answer:
        found = re.search(rb'"child-pid": *(\d+)', answer.read())
    if found is None:
        return 0
    pid = int(found.group(1))
    if group is not None:
        try:
            group.enter(pid)
        except ProcessLookupError:  # it ended: what it said is told by who waits for its first word
            return 0
        except OSError as error:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise SandboxError(f"bubblewrap: its process cannot be put into a control group ({error})") from error
    return pid


@functools.cache
def _tried(program: str | None) -> str:
    """Whether a sandbox can be made at all: some systems forbid user namespaces."""
    if program is None:
        return "bwrap is missing; install it (Debian: apt-get install bubblewrap)"
    if os.geteuid() == 0:
        group = _cgroup.make(replace(STRICT, cpus=None))
        if group is None:
            return "as root it needs a writable /sys/fs/cgroup to limit processes; run as another user, or mount it"
        group.remove()
    command = [program, *_arguments("law", STRICT), _bare_python(), "-I", "-S", "-c", ""]
    try:
        done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap cannot be run ({error})"
    if done.returncode == 0:
        return ""
    said = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return (
        f"{said}; allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, or an AppArmor profile for bwrap)"
    )


@functools.cache
def _compiled() -> Path:
    """The first process as bytecode of this interpreter, in the user's cache."""
    source = Path(str(files("agentlab.envs"))) / "images" / "runner.py"
    cache = cache_folder() / "runner"
    name = f"{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.{sys.implementation.cache_tag}.pyc"
    if not (cache / name).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        py_compile.compile(str(source), str(cache / name), doraise=True)  # written aside and moved into place
    return cache / name


def _bare_python() -> str:
    """The interpreter behind a virtual environment."""
    return str(Path(sys.executable).resolve())


@functools.cache
def _system() -> tuple[str, ...]:
    """What of the host is seen, read-only: /usr, the interpreter and the installed packages; nothing of any home."""
    seen = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64"):
        path = Path("/") / name
        if path.is_symlink():
            seen += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            seen += ["--ro-bind", str(path), str(path)]
    if Path("/etc/ld.so.cache").is_file():
        seen += ["--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if Path("/etc/alternatives").is_dir():  # Debian's numerical libraries are links through it
        seen += ["--ro-bind", "/etc/alternatives", "/etc/alternatives"]
    for folder in _python_folders():
        seen += ["--ro-bind", folder, folder]
    return tuple(seen)


def _python_folders() -> Iterable[str]:
    """Folders and files of the interpreter and its packages that do not lie below /usr."""
    base, own = Path(sys.base_prefix), Path(sys.prefix)
    wanted = [base / "bin", base / "lib", own / "bin", own / "pyvenv.cfg"]
    wanted += [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")]
    found: list[Path] = []
    for path in dict.fromkeys(p for p in wanted if p.exists()):
        if not path.is_relative_to("/usr") and not any(path.is_relative_to(f) for f in found):
            found.append(path)
    return [str(path) for path in found]


def _hidden() -> list[str]:
    """What lies below the folders that are seen and must not be: our package, whose tasks hold hold-outs, and data."""
    seen = [Path("/usr"), *map(Path, _python_folders())]
    ours = [Path(str(files(name))) for name in ("agentlab", "agentlab.tasks")]
    data = [Path(p) for p in os.environ.get("AGENTLAB_DATA", "").split(os.pathsep) if p]
    found: list[Path] = []
    for path in [p.resolve() for p in (*ours, *data) if p.is_dir()]:
        covered = any(path.is_relative_to(f) for f in found)
        if not covered and any(path.is_relative_to(s.resolve()) for s in seen):
            found.append(path)
    return [word for path in found for word in ("--tmpfs", str(path), "--remount-ro", str(path))]


@functools.cache
def _unseen() -> tuple[str, ...]:
    """Files of the kernel that the host's root may read, which a sandbox that root started would be taken for."""
    named = sorted(p for p in Path("/proc").iterdir() if not p.name.isdigit() and p.is_file())
    secret = [str(p) for p in named if p.name == "keys" or not p.stat().st_mode & stat.S_IROTH]
    return tuple(word for path in secret for word in ("--ro-bind", "/dev/null", path))


def _arguments(image: str, limits: Limits) -> list[str]:
    images = Path(str(files("agentlab.envs"))) / "images"
    disk = limits.disk_bytes or 64 << 20
    return [
        "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session", "--as-pid-1",
        "--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--cap-drop", "ALL",
        # The work folder first: an interpreter that lies below it must be seen in it.
        "--size", str(disk), "--perms", "1777", "--tmpfs", WORK,
        *_system(), *_hidden(), "--proc", "/proc", *_unseen(), "--dev", "/dev",
        "--ro-bind", str(images / image), PROGRAMS, "--ro-bind", str(_compiled()), RUNNER,
        "--size", str(SHARED), "--perms", "1777", "--tmpfs", SHM,
        "--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/", "--chdir", WORK,
    ]  # fmt: skip
