"""What every test may use: data, the checkout, and services: installed, else skipped or, under CI, demanded."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

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


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server on a socket in `folder`; its user and its password are called so."""

    programs: Path
    folder: Path
    user: str = "agentlab"
    password: str = "pass-wörd-of-tests"  # noqa: S105 -- made up

    def url(self, database: str) -> str:
        """The address of a database, as a user writes it."""
        return f"postgresql://{self.user}:{quote(self.password)}@/{database}?host={self.folder}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A running PostgreSQL server with an empty cluster, which ends with the tests."""
    with _one_at_a_time("postgres"):
        found = subprocess.run(
            [str(CHECKOUT / "scripts" / "setup.sh"), "postgres"], capture_output=True, text=True, check=False
        )
    if found.returncode:
        missing(f"PostgreSQL ({(found.stderr.strip().splitlines() or ['no message'])[-1]})")
    # PostgreSQL does not run as root, and another user may not enter the folders that pytest makes.
    ids = pwd.getpwnam("nobody")
    other: dict[str, Any] = {"user": ids.pw_uid, "group": ids.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="agentlab-pg-") as name, ExitStack() as stack:
        server = Postgres(Path(found.stdout.strip()), Path(name))
        secret, data = server.folder / "secret", server.folder / "data"
        secret.write_text(server.password)
        for path in (server.folder, secret) if other else ():
            shutil.chown(path, ids.pw_uid, ids.pw_gid)

        def tell(program: str, *words: str) -> None:
            done = subprocess.run(
                [str(server.programs / program), "-D", str(data), *words],
                **other,
                cwd=server.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr

        tell("initdb", "--no-sync", "--auth=scram-sha-256", f"--username={server.user}", f"--pwfile={secret}")
        options = f"-k {server.folder} -c listen_addresses= -c fsync=off -c max_connections=20 -c shared_buffers=16MB"
        tell("pg_ctl", "-w", "-l", str(server.folder / "log"), "-o", options, "start")
        stack.callback(tell, "pg_ctl", "-m", "immediate", "stop")
        yield server


@pytest.fixture
def postgres(postgres_server: Postgres) -> str:
    """The address of an empty database."""
    import psycopg  # noqa: PLC0415 -- an extra

    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS runs WITH (FORCE)")
        connection.execute("CREATE DATABASE runs")
    return postgres_server.url("runs")


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
