"""Confines programs in a Docker container: no network, read-only root, no capabilities, another user, hard limits.

Nothing of the host is mounted: commands, files and answers travel over the container's standard input and output. With
gVisor installed in the engine (`runsc`) the container gets a kernel of its own, which is the strongest tier here.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
import uuid
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

from agentlab.envs import STRICT, Limits, SandboxError
from agentlab.envs._confined import PROGRAMS, WORK, Confined, Wire, runner_argv

LABEL = "agentlab.sandbox"
CONTENT = "agentlab.content"
"""Label of an image with the digest of what it was made from."""
PACKAGES = "/opt/packages:/opt/more"
TIMEOUT = 60
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

STREAM = struct.Struct(">BxxxI")
Gpus = Literal["none", "all"]


@dataclass(frozen=True)
class Engine:
    """A running Docker engine: the client, the machine it runs on, and the runtimes that it knows."""

    client: Any
    machine: str
    runtimes: tuple[str, ...]

    @property
    def runtime(self) -> str | None:
        """gVisor where it is installed, else the engine's own."""
        return "runsc" if "runsc" in self.runtimes else None


_ABOUT: dict[str, tuple[str, tuple[str, ...]]] = {}
"""Machine and runtimes of the engines that were asked, by host: asking takes an engine 10 ms."""


def engine(timeout: int = TIMEOUT, *, known: bool = False) -> Engine:
    """The engine that DOCKER_HOST names, or the one of this machine; raises SandboxError with how to start it.

    `timeout` bounds each request, in seconds; with `known` an engine that was asked before is not asked again.
    """
    try:
        import docker  # noqa: PLC0415 - imported only where a container is wanted
    except ImportError as error:
        raise SandboxError("the package docker is missing; pip install docker") from error
    try:
        _knock()
        client = docker.from_env(timeout=timeout)
        host = str(client.api.base_url)
        if known and host in _ABOUT:
            return Engine(client, *_ABOUT[host])
        info = client.info()
    except (docker.errors.DockerException, OSError) as error:
        raise SandboxError(
            "no Docker engine answers; start it (Debian: apt-get install docker.io && dockerd &)"
        ) from error
    arch = str(info.get("Architecture", ""))
    _ABOUT[host] = MACHINES.get(arch, arch), tuple(info.get("Runtimes") or ())
    return Engine(client, *_ABOUT[host])


def _knock() -> None:
    """Raises OSError where nobody listens at the engine's socket: the SDK leaves its own open when that is so."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.connect(host.removeprefix("unix://"))


def tag(image: str) -> str:
    """The name of one of our images in the engine: "law" -> "agentlab/law"; a name with a slash or colon stays."""
    return image if "/" in image or ":" in image else f"agentlab/{image}"


class Sandbox(Confined):
    """A container for each sandbox; it and its processes are gone when the context is left, or this process dies."""

    confines: ClassVar[bool] = True
    strength: ClassVar[int] = 20

    def __init__(
        self,
        image: str = "law",
        limits: Limits = STRICT,
        *,
        gpus: Gpus = "none",
        engine: Engine | None = None,
    ) -> None:
        super().__init__(limits)
        self._image, self._gpus, self._engine = image, gpus, engine
        self.python = "python3"
        self.programs = PROGRAMS

    @classmethod
    def missing(cls, image: str = "law") -> str:
        """What keeps a container of this image from starting here, and the command that mends it."""
        try:
            here = engine()
        except SandboxError as error:
            return str(error)
        if here.machine not in MACHINES.values():
            return f"the engine runs on {here.machine}, for which there is no filter of system calls"
        try:
            found = here.client.images.get(tag(image))
        except docker_errors():
            return f"no image {tag(image)}; build it: agentlab envs build {image}"
        finally:
            here.client.close()
        made_of = image_content(image)
        if made_of and found.labels.get(CONTENT) != made_of:
            return f"{tag(image)} was built by another version of agentlab; build it anew: agentlab envs build {image}"
        return ""

    async def _launch(self) -> Wire:
        container, attached = await asyncio.to_thread(self._begin)
        reader, writer = await asyncio.open_connection(sock=attached)

        async def destroy() -> None:
            await asyncio.to_thread(container.end)

        async def said() -> str:
            return await asyncio.to_thread(container.why)

        return Wire(_Demultiplexed(reader), writer, destroy, lambda: 0, said)

    def _begin(self) -> tuple[_Container, socket.socket]:
        """A started container and the socket to its standard input and output; in a thread, for the SDK waits."""
        here, own = self._engine or engine(known=True), self._engine is None
        api = here.client.api
        settings = _hard(here, self.limits, gpus=self._gpus)
        argv = runner_argv(self.python, here.machine)
        try:
            found = here.client.containers.create(tag(self._image), argv, **settings)
        except docker_errors() as error:
            if own:
                here.client.close()
            raise SandboxError(_told(error, self._image)) from error
        container = _Container(here, found.id, own)
        try:
            hijacked = api.attach_socket(found.id, params={"stdin": 1, "stdout": 1, "stderr": 0, "stream": 1})
            attached = socket.socket(fileno=os.dup(hijacked.fileno()))
            hijacked._response.close()  # noqa: SLF001 - the connection under it, which nothing else closes
            api.start(found.id)
        except docker_errors() as error:
            container.end()
            raise SandboxError(_told(error, self._image)) from error
        attached.setblocking(False)
        return container, attached

    def _environment(self) -> dict[str, str]:
        return {"PYTHONPATH": PACKAGES}

    def _rlimits(self) -> dict[str, int]:
        return {} if self.limits.cpu_seconds is None else {"cpu": self.limits.cpu_seconds}


@dataclass(frozen=True)
class _Container:
    """One container of the engine; `own` says that the client is its own, and is closed with it."""

    here: Engine
    id: str
    own: bool

    def end(self) -> None:
        """Kills and removes it; it may be gone already."""
        try:
            self.here.client.api.remove_container(self.id, force=True, v=True)
        except docker_errors() as error:
            if getattr(error, "status_code", None) not in (404, 409):
                raise SandboxError(f"container {self.id[:12]} cannot be removed ({error}); docker rm -f it") from error
        finally:
            if self.own:
                self.here.client.close()

    def why(self) -> str:
        """What the engine says of its end."""
        try:
            state = self.here.client.api.inspect_container(self.id)["State"]
        except docker_errors():
            return "the container is gone"
        return f"exit code {state.get('ExitCode')} {state.get('Error', '')}".strip()


class _Demultiplexed:
    """The standard output of a container, taken out of the frames in which the engine sends it."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self._kept = reader, bytearray()

    async def readexactly(self, n: int) -> bytes:
        """Exactly n bytes of standard output."""
        while len(self._kept) < n:
            kind, size = STREAM.unpack(await self._reader.readexactly(STREAM.size))
            block = await self._reader.readexactly(size)
            if kind == 1:
                self._kept += block
        taken = bytes(self._kept[:n])
        del self._kept[:n]
        return taken


def _hard(here: Engine, limits: Limits, *, gpus: Gpus) -> dict[str, Any]:
    """The settings of a container from which nothing gets out."""
    from docker.types import DeviceRequest, LogConfig, Ulimit  # noqa: PLC0415

    disk, memory = limits.disk_bytes or 64 << 20, limits.memory_bytes
    ulimits = [Ulimit(name="core", soft=0, hard=0)]
    for name, value in (("nofile", limits.open_files), ("fsize", limits.file_bytes)):
        if value is not None:
            ulimits.append(Ulimit(name=name, soft=value, hard=value))
    settings = {
        "network_mode": "none", "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"],
        "pids_limit": limits.processes, "mem_limit": memory, "memswap_limit": memory,
        "nano_cpus": None if limits.cpus is None else int(limits.cpus * 1e9), "user": "65534:65534",
        "ipc_mode": "private", "shm_size": "16m", "hostname": "sandbox", "working_dir": WORK, "environment": {},
        "tmpfs": {WORK: f"rw,noexec,nosuid,nodev,size={disk},nr_inodes=4096,mode=1777"},
        "ulimits": ulimits, "log_config": LogConfig(type="none"), "stdin_open": True, "auto_remove": True,
        "labels": {LABEL: uuid.uuid4().hex}, "entrypoint": [],
    }  # fmt: skip
    if here.runtime is not None:
        settings["runtime"] = here.runtime
    if gpus == "all":
        settings["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return {name: value for name, value in settings.items() if value is not None}


def image_content(image: str) -> str:
    """The digest of what one of our images is made of, but for its base; "" for an image that is not ours."""
    root = Path(str(files("agentlab.envs"))) / "images"
    if not (root / image / "Dockerfile").is_file():
        return ""
    whole = hashlib.sha256()
    for path in image_sources(image):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]


def image_sources(image: str) -> list[Path]:
    """The files that go into one of our images, and into the one of ours that it is built on."""
    root = Path(str(files("agentlab.envs"))) / "images"
    folder = root / image
    found = [root / "runner.py", folder / "Dockerfile", folder / "requirements.txt", *sorted(folder.glob("*.py"))]
    base = default_base(image)
    return [*image_sources(base.removeprefix("agentlab/")), *found[1:]] if base.startswith("agentlab/") else found


def default_base(image: str) -> str:
    """The base that the Dockerfile of one of our images names."""
    text = (Path(str(files("agentlab.envs"))) / "images" / image / "Dockerfile").read_text(encoding="utf-8")
    return next(line.removeprefix("ARG BASE=") for line in text.splitlines() if line.startswith("ARG BASE="))


def docker_errors() -> tuple[type[Exception], ...]:
    """What the SDK raises where the engine refuses or is gone."""
    import docker.errors  # noqa: PLC0415
    import requests  # noqa: PLC0415 - what the SDK speaks through

    return (docker.errors.DockerException, requests.RequestException, OSError)


def _told(error: Exception, image: str) -> str:
    text = " ".join(str(getattr(error, "explanation", None) or error).split())
    if "No such image" in text:
        return f"no image {tag(image)}; build it: agentlab envs build {image}"
    return f"the container of {tag(image)} cannot be started ({text[:300]}); see `agentlab doctor`"
