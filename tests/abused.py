"""What the abuse suite needs: attacks with what must come of them, a sandbox to attack, and a host that is watched."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from agentlab.envs import STRICT, Executed, Sandbox, SandboxError

PROGRAMS = Path(__file__).parent / "abuse"
KINDS = ("bubblewrap", "docker")
LIMITS = replace(STRICT, memory_bytes=256 << 20)

Ends = Literal["well", "time-out", "memory", "killed", "any"]


@dataclass(frozen=True)
class Attack:
    """A function of a program in abuse/, how its command must end, and what it may have managed.

    `spares` says that the very sandbox must go on; where it may fall, the next one must.
    """

    name: str
    allowed: Callable[[dict[str, Any]], object] = lambda _: True
    ends: Ends = "well"
    seconds: float = 30
    spares: bool = True

    @property
    def argv(self) -> list[str]:
        """The program and its function."""
        group, _, function = self.name.partition(".")
        return [f"abuse/{group}.py", function]


@dataclass
class Cell:
    """One sandbox that stays open from attack to attack, and is opened anew where one broke it."""

    kind: str
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    box: Sandbox | None = None

    def make(self) -> Sandbox:
        """A new sandbox of the kind."""
        made: Sandbox = importlib.import_module(f"agentlab.envs.{self.kind}").Sandbox(limits=LIMITS)
        return made

    async def opened(self) -> Sandbox:
        """The open sandbox, with the attacks in it."""
        if self.box is None:
            self.box = await self.make().__aenter__()
            for path in PROGRAMS.glob("*.py"):
                await self.box.put(f"abuse/{path.name}", path.read_bytes())
        return self.box

    def attack(self, attack: Attack, told: dict[str, Any], mark: str) -> tuple[Executed | None, dict[str, Any]]:
        """How the command ended (None where the sandbox fell with it), and what it told."""

        async def run() -> Executed | None:
            box = await self.opened()
            argv = [box.python, *attack.argv, json.dumps(told)]
            try:
                return await box.exec(argv, timeout=attack.seconds, env={"AGENTLAB_ABUSE": mark})
            except SandboxError:
                return None

        done = self.runner.run(run())
        with contextlib.suppress(ValueError):
            if done is not None:
                return done, json.loads(done.stdout)
        return done, {}

    def works(self) -> bool:
        """Whether the sandbox still runs commands, alone; a fallen one is closed."""

        async def ask() -> bool:
            box = await self.opened()
            try:
                done = await box.exec([box.python, "abuse/signals.py", "left", "{}"], timeout=30)
                return bool(json.loads(done.stdout) == {"others": []})
            except (SandboxError, ValueError):
                await self.close()
                return False

        return self.runner.run(ask())

    async def close(self) -> None:
        """Closes the sandbox."""
        box, self.box = self.box, None
        if box is not None:
            await box.__aexit__(None, None, None)


@dataclass(frozen=True)
class Host:
    """What must stay as it was on this machine, and what no attack may reach."""

    mark: str
    told: dict[str, Any]
    folder: Path
    listeners: tuple[socket.socket, ...]

    def changes(self) -> list[str]:
        """What is not as it was: processes and files that carry the mark, packets that came, canaries that changed."""
        found = [f"process {pid}" for pid in self._processes()]
        places = ("/", "/tmp", "/dev/shm", "/var/tmp", "/etc", "/usr", "/opt", "/run", "/root", "/home", "/work")  # noqa: S108
        found += [f"file {path}" for place in places if (path := Path(place, self.mark)).exists()]
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                found.append(f"a packet: {listener.accept() if _listens(listener) else listener.recv(99)!r}")
        kept = {path.name: path.read_text() for path in self.folder.iterdir() if path.is_file()}
        if kept != {"canary.txt": self.told["secret"]}:
            found.append(f"the canary's folder: {sorted(kept)}")
        if _kernel() != self.told["kernel"]:
            found.append("settings of the kernel")
        return found

    def _processes(self) -> list[str]:
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
            with contextlib.suppress(OSError):
                about = Path("/proc", name, "environ").read_bytes() + Path("/proc", name, "cmdline").read_bytes()
                if self.mark.encode() in about:
                    found.append(name)
        return found


def _listens(one: socket.socket) -> bool:
    return one.type == socket.SOCK_STREAM


def _kernel() -> list[str]:
    names = ("kernel/core_pattern", "kernel/hostname", "vm/overcommit_memory", "fs/suid_dumpable")
    return [Path("/proc/sys", name).read_text() for name in names]


@contextmanager
def host(folder: Path) -> Iterator[Host]:
    """Canaries on this machine: a secret in the environment and in files, and sockets that must stay silent."""
    mark = uuid.uuid4().hex
    secret = f"secret-{uuid.uuid4().hex}"
    (folder / "canary.txt").write_text(secret)
    tcp, udp = socket.create_server(("0.0.0.0", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # noqa: S104
    udp.bind(("0.0.0.0", 0))  # noqa: S104
    (folder / "sockets").mkdir()
    named, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    named.bind(str(folder / "sockets" / "host.sock"))
    abstract.bind(f"\0{mark}")
    for one in (named, abstract):
        one.listen()
    listeners = (tcp, udp, named, abstract)
    for one in listeners:
        one.setblocking(False)
    told = {
        "mark": mark, "secret": secret, "files": [str(folder / "canary.txt"), f"/proc/{os.getpid()}/environ", __file__],
        "tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1], "addresses": _addresses(), "abstract": mark,
        "unix": str(folder / "sockets" / "host.sock"), "kernel": _kernel(),
    }  # fmt: skip
    before = os.environ.get("OPENAI_API_KEY")
    os.environ["OPENAI_API_KEY"] = secret
    try:
        yield Host(mark, told, folder, listeners)
    finally:
        if before is None:
            del os.environ["OPENAI_API_KEY"]
        else:
            os.environ["OPENAI_API_KEY"] = before
        for one in listeners:
            one.close()


def _addresses() -> list[str]:
    """The addresses of this machine that others may know; none where it has no route."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the way
        return [one.getsockname()[0]]
    return []
