"""The official conformance package against our tool servers, a fixture server on the same factory, and our client."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Need, missing
from server_process import Served, environment, served

from agentlab.catalog import server_names

HERE = Path(__file__).parent / "conformance"
OPEN = "conformance.open_server"
EXPECTED = HERE / "expected_failures.yml"

NOTHING_TO_CHECK = {
    "server-sse-polling": "see expected_failures.yml",
    "tasks-status-notifications": "the package itself skips it: its harness waits for a rewrite",
}
"""Scenarios that find nothing to judge; every other one must judge at least one thing to be right."""

FREE = {
    "2026-07-28": (
        "tools-list",
        "resources-list",
        "prompts-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "sep-2164-resource-not-found",
        "caching",
        "http-header-validation",
    ),
    "2025-11-25": ("server-initialize", "server-session-lifecycle", "ping", "tools-list"),
}
"""Scenarios that need no fixture, by protocol version: what every server of ours must pass as it is."""

CLIENT = {
    "2026-07-28": (
        "tools_call",
        "request-metadata",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
    "2025-11-25": ("tools_call", "sse-retry"),
}
"""Scenarios for clients, without those about OAuth and about forms for a user: our client declares neither."""


@dataclass(frozen=True)
class Package:
    """The two releases of the conformance package, and the Node.js that runs them."""

    folder: Path
    node: Path

    def run(self, release: str, out: Path, *args: str) -> tuple[int, str, dict[str, list[dict[str, str]]]]:
        """Exit code, output, and the checks of each scenario that ran."""
        program = self.folder / "node_modules" / f"conformance-{release}" / "dist" / "index.js"
        argv = [str(self.node), str(program), *args, "--expected-failures", str(EXPECTED), "-o", str(out)]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=180, check=False)
        found = {}
        for file in out.glob("*/checks.json"):
            # Folders are named [server-]SCENARIO-TIME.
            name = re.sub(r"-\d{4}-\d{2}-\d{2}T[\d-]+Z$", "", file.parent.name)
            name = name.removeprefix("server-") if args[0] == "server" else name
            found[name] = json.loads(file.read_text(encoding="utf-8"))
        return done.returncode, done.stdout + done.stderr, found


@pytest.fixture(scope="session")
def package(need: Need) -> Package:
    """The package as package-lock.json pins it, installed once into the user's cache."""
    npm = need("npm", "npm")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "agentlab" / "conformance"
    folder = cache / hashlib.sha256(lock).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            for name in ("package.json", "package-lock.json"):
                (folder / name).write_bytes((HERE / name).read_bytes())
            argv = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode:
                missing(f"the conformance package ({(done.stderr.strip().splitlines() or ['npm ci failed'])[0]})")
            (folder / "whole").touch()
    nodes = sorted(folder.glob("node_modules/node-linux-*/bin/node"))
    if not nodes:
        missing("a Node.js for this processor among the pinned packages")
    return Package(folder, nodes[0])


@pytest.fixture(scope="module")
def fixture_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The fixture server, open: the package can send no token."""
    env = {"AGENTLAB_JOBS": str(tmp_path_factory.mktemp("jobs")), "AGENTLAB_MAX_JOBS": "64"}
    with served(OPEN, ["conformance.fixture_server"], env) as found:
        yield found


def faults(checks: Sequence[dict[str, str]]) -> list[str]:
    """What a scenario found wrong, or that it judged nothing."""
    wrong = [f"{c['id']}: {c.get('errorMessage', '')}" for c in checks if c["status"] == "FAILURE"]
    return wrong or ([] if any(c["status"] == "SUCCESS" for c in checks) else ["it judged nothing"])


@pytest.mark.parametrize(
    ("release", "scope", "least"),
    [
        ("2026", ("--requirements", "2026-07-28"), 50),
        ("2026", ("--suite", "all", "--spec-version", "2025-11-25"), 33),
        ("2025", ("--suite", "all"), 32),
    ],
    ids=["2026-07-28", "2025-11-25", "2025-11-25 by its own release"],
)
def test_a_server_on_our_factory_passes_every_scenario(
    package: Package, fixture_server: Served, tmp_path: Path, release: str, scope: tuple[str, ...], least: int
) -> None:
    code, output, found = package.run(release, tmp_path, "server", "--url", fixture_server.url, *scope)
    assert code == 0, output[-2000:]
    assert len(found) >= least
    assert not {name: wrong for name, c in found.items() if (wrong := faults(c)) and name not in NOTHING_TO_CHECK}


def test_every_real_server_passes_the_scenarios_that_need_no_fixture(package: Package, tmp_path: Path) -> None:
    def free(name: str) -> list[str]:
        """What is wrong with a server; the package runs all scenarios in one go, and those with fixtures fail."""
        with served(OPEN, [f"agentlab.tools.{name}"], {"AGENTLAB_JOBS": str(tmp_path / name / "jobs")}) as server:
            wrong = []
            for version, scenarios in FREE.items():
                args = ("--url", server.url, "--suite", "all", "--spec-version", version)
                found = package.run("2026", tmp_path / name / version, "server", *args)[2]
                wrong += [f"{name}, {version}, {s}: {why}" for s in scenarios for why in faults(found.get(s, []))]
        return wrong

    names = server_names()
    assert len(names) >= 3
    with ThreadPoolExecutor(len(names)) as pool:
        assert not [fault for faults_of_one in pool.map(free, names) for fault in faults_of_one]


@pytest.mark.parametrize(("version", "scenario"), [(v, s) for v, names in CLIENT.items() for s in names])
def test_our_client_passes_the_scenarios_for_clients(
    package: Package, tmp_path: Path, version: str, scenario: str
) -> None:
    command = shlex.join([sys.executable, "-m", "conformance.client_program"])
    args = ("--command", command, "--scenario", scenario, "--spec-version", version)
    code, output, found = package.run("2026", tmp_path, "client", *args)
    assert code == 0, output[-2000:]
    assert not faults(found[scenario])


def test_a_scenario_that_a_server_does_not_fulfil_fails(package: Package, tmp_path: Path) -> None:
    with served(OPEN, ["small_server"]) as server:
        args = ("--url", server.url, "--scenario", "tools-call-image", "--spec-version", "2026-07-28")
        code, _, found = package.run("2026", tmp_path, "server", *args)
    assert code != 0
    assert any(check["status"] == "FAILURE" for check in found["tools-call-image"])


def test_the_pinned_package_names_no_registry() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))
    wanted = [about for name, about in lock["packages"].items() if name]
    assert all("resolved" not in about and about["integrity"].startswith("sha512-") for about in wanted)
