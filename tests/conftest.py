"""What every test may use: data, the checkout, and services: installed, else skipped or, under CI, demanded."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agentlab.envs._build import build

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED_DATA = CHECKOUT.parent / "shared" / "data"

if "AGENTLAB_DATA" not in os.environ and SHARED_DATA.is_dir():
    os.environ["AGENTLAB_DATA"] = str(SHARED_DATA)

Need = Callable[[str, str], str]


def missing(what: str) -> None:
    """Skip the test for want of `what`; under CI=true that is a failure, so that nothing goes untested unseen."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must provide {what}", pytrace=False)
    pytest.skip(f"no {what} here")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the repository."""
    return CHECKOUT


@pytest.fixture(scope="session")
def third_party_data() -> Path:
    """The folder with `sldbench/` and `laws/`; skips where this machine has none."""
    folders = [Path(p) for p in os.environ.get("AGENTLAB_DATA", "").split(os.pathsep) if p]
    found = next((f for f in folders if (f / "laws").is_dir()), None)
    if found is None:
        missing("third-party data (set AGENTLAB_DATA)")
        raise AssertionError
    return found


@pytest.fixture(scope="session")
def engine(need: Need) -> str:
    """A running Docker engine, started where there is none; its version."""
    with _one_at_a_time("engine"):
        done = subprocess.run(
            [str(CHECKOUT / "scripts" / "setup.sh"), "engine"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            missing(f"a Docker engine ({(done.stderr.strip().splitlines() or ['no message'])[-1]})")
        need("debootstrap", "debootstrap")
    return subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="session")
def law_image(engine: str) -> str:
    """The image for programs that are laws, built on the running engine."""
    return _image("law")


@pytest.fixture(scope="session")
def bwrap(need: Need) -> str:
    """The path of bubblewrap."""
    with _one_at_a_time("bwrap"):
        return need("bwrap", "bubblewrap")


def _image(name: str) -> str:
    with _one_at_a_time(f"image-{name}"):
        return str(build(name, lambda line: None).image)


@contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    """Workers of one test run wait for one another instead of installing or building the same thing twice."""
    with (Path(tempfile.gettempdir()) / f"agentlab-tests-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def need() -> Need:
    """`need(command, package)`: the path of a program, installed from Debian's `package` where that is allowed."""

    def find(command: str, package: str) -> str:
        if shutil.which(command) is None:
            script = [str(CHECKOUT / "scripts" / "setup.sh"), "service", command, package]
            done = subprocess.run(script, capture_output=True, text=True, check=False)
            if done.returncode or shutil.which(command) is None:
                missing(f"{command} ({(done.stderr.strip().splitlines() or ['not installed'])[-1]})")
        return str(shutil.which(command))

    return find
