"""Builds the images of envs/images, with packages fetched on the host, on a base from a registry or one made here.

The Dockerfile takes its base as an argument. Where none is given and the Dockerfile's own cannot be had, a base is made
of Debian packages with debootstrap. No step of a build needs a network inside the engine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from agentlab.envs import SandboxError
from agentlab.envs.docker import CONTENT, Engine, default_base, docker_errors, engine, image_content, image_sources, tag

from agentlab.errors import nearest

BASE = "agentlab/base"
PACKAGES = ("python3", "python3-pip", "ca-certificates")
LEFT_OUT = ("./var/cache/apt", "./var/lib/apt/lists", "./usr/share/doc", "./usr/share/man", "./usr/share/locale")
PULL_SECONDS = 60
ORDER = ("law", "train", "infer")
"""infer is built on train, which brings torch."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """An image in the engine: its name, its id, what it was built on, its size in bytes, and whether it was there."""

    image: str
    id: str
    base: str
    bytes: int
    kept: bool


def image_names() -> list[str]:
    """The images that can be built."""
    return sorted((p.parent.name for p in _root().glob("*/Dockerfile")), key=lambda n: (*ORDER, n).index(n))


def build(name: str, tell: Tell, *, base: str = "", force: bool = False) -> Built:
    """The image of that name, built unless it is there already with the same content on the same base.

    Raises SandboxError: there is no such image, no engine, or no base.
    """
    if name not in image_names():
        raise SandboxError(f"image {name!r}: no such image; {nearest(name, image_names())}")
    here = engine()
    wanted = base or default_base(name)
    if wanted.startswith("agentlab/") and not base:
        build(wanted.removeprefix("agentlab/"), tell)
    there = _there(here, name)
    if there is not None and not force and not base:
        return there
    usable = _base(here, wanted, tell, given=bool(base))
    with tempfile.TemporaryDirectory(prefix="agentlab-build-") as folder:
        context = Path(folder)
        for path in image_sources(name):
            target = context / path.relative_to(_root())
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
        tell(f"{name}: fetching packages")
        _wheels(context / "wheels", _root() / name / "requirements.txt", _python_of(here, usable))
        tell(f"{name}: building on {usable}")
        labels = {CONTENT: image_content(name), f"{CONTENT}.base": usable}
        try:
            image, _ = here.client.images.build(
                path=str(context), dockerfile=f"{name}/Dockerfile", tag=tag(name), rm=True, forcerm=True, labels=labels,
                buildargs={"BASE": usable, "PIP": "--no-index --find-links /wheels"}, network_mode="none",
            )  # fmt: skip
        except docker_errors() as error:
            raise SandboxError(f"{tag(name)} cannot be built: {_last_line(error)}") from error
    return Built(tag(name), image.short_id, usable, image.attrs["Size"], kept=False)


def _root() -> Path:
    return Path(str(files("agentlab.envs"))) / "images"


def _there(here: Engine, name: str) -> Built | None:
    try:
        image = here.client.images.get(tag(name))
    except docker_errors():
        return None
    if image.labels.get(CONTENT) != image_content(name):
        return None
    return Built(tag(name), image.short_id, image.labels.get(f"{CONTENT}.base", ""), image.attrs["Size"], kept=True)


def _base(here: Engine, wanted: str, tell: Tell, *, given: bool) -> str:
    """The wanted base, pulled where it must be; else one made here."""
    if here.client.images.list(name=wanted):
        return wanted
    tell(f"pulling {wanted}")
    puller = engine(timeout=PULL_SECONDS).client
    try:
        puller.images.pull(wanted)
    except docker_errors() as error:
        if given:
            raise SandboxError(
                f"base={wanted} is not in the engine and cannot be pulled: {_last_line(error)}"
            ) from error
    else:
        return wanted
    finally:
        puller.close()
    local = f"{BASE}:{_release().get('VERSION_CODENAME', 'stable')}"
    if not here.client.images.list(name=local):
        tell(f"{wanted} cannot be pulled; making {local} from Debian packages")
        _debian(here, local)
    return local


def _release() -> dict[str, str]:
    file = Path("/etc/os-release")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {k: v.strip('"') for k, _, v in (line.partition("=") for line in lines)}


def _debian(here: Engine, name: str) -> None:
    """A base image of Debian packages, without a registry."""
    program = shutil.which("debootstrap") or shutil.which("debootstrap", path="/usr/sbin:/sbin")
    if program is None or os.geteuid() != 0:
        raise SandboxError(
            "no base image can be pulled, and none can be made here; as root on Debian: apt-get install debootstrap, "
            "or name a base that is in the engine: agentlab envs build base=IMAGE"
        )
    release = _release()
    suite = release.get("VERSION_CODENAME", "stable") if release.get("ID") == "debian" else "stable"
    with tempfile.TemporaryDirectory(prefix="agentlab-base-") as folder:
        root, archive = Path(folder) / "root", Path(folder) / "base.tar"
        command = [program, "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root), *_mirror()]
        _run(command, "debootstrap")
        _run(["tar", "-C", str(root), *(f"--exclude={p}" for p in LEFT_OUT), "-cf", str(archive), "."], "tar")
        repository, _, version = name.partition(":")
        here.client.api.import_image_from_file(str(archive), repository=repository, tag=version)


def _mirror() -> list[str]:
    """The mirror that this system's apt uses; nothing where that is not plain, and debootstrap takes its own."""
    for path in [*Path("/etc/apt/sources.list.d").glob("*.sources"), Path("/etc/apt/sources.list")]:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
        if found:
            return [found.group(1)]
    return []


def _python_of(here: Engine, base: str) -> str:
    """The version of Python in a base, such as "3.11"."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    container = None
    try:
        container = here.client.containers.create(base, ["python3", "-c", code], network_mode="none", entrypoint="")
        container.start()
        ended = container.wait()["StatusCode"]
        said = container.logs(stderr=False)
    except docker_errors() as error:
        raise SandboxError(f"base {base} has no python3 ({_last_line(error)}); name one that has") from error
    finally:
        if container is not None:
            container.remove(force=True)
    if ended:
        raise SandboxError(f"base {base} has no python3 (exit code {ended}); name one that has")
    return str(said.decode().strip())


def _wheels(folder: Path, requirements: Path, python: str) -> None:
    """The packages, for that version of Python, as pip of this host finds them."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    if python != "{}.{}".format(*sys.version_info[:2]):
        command += ["--python-version", python]
    _run([*command, "--dest", str(folder), "-r", str(requirements)], "pip download")


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
        raise SandboxError(f"{name} failed: {said[-1][:300]}")


def _last_line(error: Exception) -> str:
    log = getattr(error, "build_log", None)
    lines = [str(part.get("stream") or part.get("error") or "").strip() for part in log or ()]
    told = [line for line in lines if line]
    return " | ".join(told[-3:])[-500:] if told else " ".join(str(error).split())[:300]
