"""What every task does on its node: it refuses one that computes otherwise, and has a folder while it runs."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from agentlab.envs._processes import environment, start_ticks

from agentlab import __version__
from agentlab.errors import BackendError

PREFIX = "agentlab-ray-"


def versions(*packages: str) -> dict[str, str]:
    """What must be the same on every node for the same bits: Python, agentlab and these packages."""
    return {"python": platform.python_version(), "agentlab": __version__} | {name: _version(name) for name in packages}


def refuse_others(asked: Mapping[str, str]) -> None:
    """Raises BackendError where this node has other versions than the one that asks."""
    here = versions(*(name for name in asked if name not in ("python", "agentlab")))
    for name, version in asked.items():
        if here[name] != version:
            raise BackendError(
                f"engine=ray: {platform.node()} has {name} {here[name]}, not {version}; install the same on every node"
            )


def one_thread() -> None:
    """Lets numpy compute on one thread, as tool servers do: sums depend on it. It reads this as it is loaded."""
    os.environ.update({name: value for name, value in environment().items() if name.endswith("_NUM_THREADS")})


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """A folder that lasts as long as the block; one process gets the same name each time, and never two at once.

    What a killed process left is taken away by the next on its node.
    """
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and start_ticks(int(pid)) is None:
            shutil.rmtree(left, ignore_errors=True)
    place = root / f"{PREFIX}{os.getpid()}-{name}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
