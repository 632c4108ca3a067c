"""Every sandbox keeps the contract; the choice between them; and nothing outlives the process that made it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from agentlab.envs import STRICT, Limits, Sandbox, SandboxError
from agentlab.envs import docker as docker_module
from agentlab.envs._choose import choose
from agentlab.envs.bubblewrap import Sandbox as Bubblewrap
from agentlab.envs.docker import Engine, engine
from agentlab.envs.docker import Sandbox as Docker
from conftest import missing

from agentlab.catalog import find_sandbox, sandbox_names
from agentlab.testing import SANDBOX_CHECKS

NEEDS = {"docker": "law_image", "bubblewrap": "bwrap", "ray": "cluster"}
"""The fixture that brings what a sandbox needs; one that is not named here needs nothing, or skips."""
UNREACHABLE = "unix:///nonexistent/docker.sock"
Make = Callable[[], Sandbox]


@dataclass(frozen=True)
class Opened:
    """A sandbox that is open, and the loop that it lives in."""

    runner: asyncio.Runner
    box: Sandbox


@pytest.fixture(scope="session")
def cluster(bwrap: str) -> Iterator[str]:
    """The address of a Ray cluster of this machine with a second node, which has the resource "doomed"."""
    pytest.importorskip("ray", reason="needs agentlab-discovery[ray]")
    import ray  # noqa: PLC0415 - heavy, and only for those who have it
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 << 20}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(num_cpus=1, resources={"doomed": 1.0}, object_store_memory=80 << 20)
    _CLUSTERS[nodes.address] = nodes
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()  # type: ignore[no-untyped-call]


_CLUSTERS: dict[str, Any] = {}
"""The running cluster by its address, for the test that kills a node of it."""


@pytest.fixture(scope="module", params=sandbox_names())
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a sandbox of each kind that ships with agentlab."""
    name = str(request.param)
    given = request.getfixturevalue(NEEDS[name]) if name in NEEDS else ""
    kind: Any = find_sandbox(name)
    lacks = kind.missing("law")
    if lacks:
        missing(f"sandbox {name} ({lacks})")
    return (lambda: kind(inner="bubblewrap", address=given)) if name == "ray" else kind


@pytest.fixture(scope="module")
def opened(make: Make) -> Iterator[Opened]:
    """One sandbox of each kind for all checks: each leaves it usable, and an actor takes seconds to start."""
    with asyncio.Runner() as runner:
        box = make()
        runner.run(box.__aenter__())
        yield Opened(runner, box)
        runner.run(box.__aexit__(None, None, None))


@pytest.mark.parametrize("sentence", SANDBOX_CHECKS)
def test_every_sandbox_keeps_the_contract(opened: Opened, sentence: str) -> None:
    assert isinstance(opened.box, Sandbox)
    opened.runner.run(SANDBOX_CHECKS[sentence](opened.box))  # type: ignore[arg-type]


def test_a_sandbox_that_is_not_open_refuses(make: Make) -> None:
    with pytest.raises(SandboxError, match="not open"):
        asyncio.run(make().exec(["true"]))


def test_what_is_written_in_one_sandbox_is_not_seen_in_the_next(make: Make) -> None:
    async def two() -> str:
        async with make() as first:
            await first.put("secret.txt", b"mine")
            await first.exec([first.python, "-c", "open('also.txt', 'w').close()"])
        async with make() as second:
            listed = await second.exec([second.python, "-c", "import os; print(os.listdir('.'))"])
            return str(listed.stdout)

    assert asyncio.run(two()) == "[]\n"


def test_a_program_on_a_node_that_dies_has_ended_and_a_new_sandbox_opens_on_another(cluster: str) -> None:
    nodes, kind = _CLUSTERS[cluster], find_sandbox("ray")
    answers_once = "import sys, time; print(sys.stdin.readline(), end='', flush=True); time.sleep(600)"

    async def through() -> tuple[str, str, str]:
        async with kind(inner="bubblewrap", address=cluster, resources={"doomed": 0.5}) as box:
            talk = await box.open([box.python, "-c", answers_once])
            before = await talk.ask(b"there?", 60)
            waiting = asyncio.ensure_future(talk.ask(b"and now?", 120))
            await asyncio.to_thread(nodes.remove_node, *nodes.worker_nodes, allow_graceful=False)
            after = await waiting
            with pytest.raises(SandboxError, match="ray: "):
                await box.exec(["true"])
        async with kind(inner="bubblewrap", address=cluster) as box:
            again = await box.exec([box.python, "-c", "print('on')"])
        return before.line.decode(), after.failure, again.stdout

    assert asyncio.run(through()) == ("there?", "ended", "on\n")


def test_a_cluster_confines_too_and_tells_in_one_line_why_it_does_not_open(cluster: str) -> None:
    async def unconfined() -> None:
        async with find_sandbox("ray")(inner="local", address=cluster):
            raise AssertionError("an actor opened a sandbox that confines nothing")

    with pytest.raises(SandboxError, match=r"^sandbox=local confines nothing: [^\n]*$"):
        asyncio.run(unconfined())


def test_auto_takes_the_strongest_that_works(law_image: str, bwrap: str) -> None:
    assert choose("auto").name == "docker"
    assert choose("auto").why == "docker, the strongest that works here"


def test_auto_says_which_stronger_one_it_had_to_leave(bwrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", UNREACHABLE)
    chosen = choose("auto")
    assert chosen.name == "bubblewrap"
    assert "stronger, but not here: docker (no Docker engine answers; start it" in chosen.why


def test_without_any_that_confines_a_models_program_runs_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", UNREACHABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"docker \(no Docker engine.*bubblewrap \(bwrap is missing; install it"):
        choose("auto")
    assert choose("auto", written_by_model=False).name == "local"


def test_local_is_refused_for_programs_that_a_model_wrote() -> None:
    with pytest.raises(SandboxError, match="confines nothing: programs that a model wrote run in docker or bubblewrap"):
        choose("local")
    assert choose("local", written_by_model=False).name == "local"


def test_one_that_was_asked_for_by_name_and_does_not_work_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", UNREACHABLE)
    with pytest.raises(SandboxError, match=r"^sandbox=docker: no Docker engine answers; start it"):
        choose("docker")


def test_an_image_that_is_not_there_is_told_with_the_command_that_builds_it(engine: str) -> None:
    assert Docker.missing("nosuch") == "no image agentlab/nosuch; build it: agentlab envs build nosuch"

    async def enter() -> None:
        async with Docker("nosuch"):
            raise AssertionError("a container of no image started")

    with pytest.raises(SandboxError, match=r"^no image agentlab/nosuch; build it"):
        asyncio.run(enter())


def test_an_engine_that_does_not_answer_is_told_with_how_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", UNREACHABLE)
    assert Docker.missing() == "no Docker engine answers; start it (Debian: apt-get install docker.io && dockerd &)"


def test_a_missing_bubblewrap_is_told_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Bubblewrap.missing() == "bwrap is missing; install it (Debian: apt-get install bubblewrap)"


def test_an_image_without_programs_is_told_when_bubblewrap_opens(bwrap: str) -> None:
    async def enter() -> None:
        async with Bubblewrap("nosuch"):
            raise AssertionError("it opened without its programs")

    with pytest.raises(SandboxError, match=r"did not start .*nosuch"):
        asyncio.run(enter())


RUNTIMES = {(): None, ("runc",): None, ("io.containerd.runc.v2", "runc", "runsc"): "runsc"}


@pytest.mark.parametrize("known", RUNTIMES)
def test_a_kernel_of_its_own_is_used_where_the_engine_has_one(known: tuple[str, ...]) -> None:
    assert settings(runtimes=known).get("runtime") == RUNTIMES[known]


def test_no_gpu_is_passed_on_unless_it_was_asked_for() -> None:
    assert "device_requests" not in settings()
    (asked,) = settings(gpus="all")["device_requests"]
    assert (asked["Count"], asked["Capabilities"]) == (-1, [["gpu"]])


def test_the_settings_of_a_container_take_everything_away() -> None:
    given = settings()
    assert given["network_mode"] == "none"
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert given["read_only"] is True
    assert given["user"] == "65534:65534"
    assert (given["pids_limit"], given["mem_limit"]) == (STRICT.processes, STRICT.memory_bytes)
    assert given["memswap_limit"] == given["mem_limit"], "swap would be memory above the limit"
    for leak in ("volumes", "mounts", "devices", "privileged", "pid_mode", "ports", "network", "cap_add"):
        assert leak not in given


def settings(limits: Limits = STRICT, *, runtimes: tuple[str, ...] = ("runc",), gpus: str = "none") -> dict[str, Any]:
    here = Engine(None, "x86_64", runtimes)
    found: dict[str, Any] = docker_module._hard(here, limits, gpus=gpus)
    return found


OWNER = """
import asyncio, importlib, sys, time
kind, mark = sys.argv[1:]
Sandbox = importlib.import_module(f"agentlab.envs.{kind}").Sandbox
CODE = "import sys, time\\nfor line in sys.stdin: print(line, flush=True)\\n# MARK".replace("MARK", mark)

async def main():
    async with Sandbox() as box:
        talk = await box.open([box.python, "-c", CODE])
        print((await talk.ask(b"there?", 60)).line.decode(), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def owned(kind: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds a sandbox of that kind with a program in it, and the mark on the program's command line."""
    mark = uuid.uuid4().hex
    with subprocess.Popen([sys.executable, "-c", OWNER, kind, mark], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "there?\n"
            yield owner, mark
        finally:
            kill(owner)


def kill(owner: subprocess.Popen[str]) -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait()


def test_a_bubblewrap_is_gone_when_the_process_that_made_it_is_killed(bwrap: str) -> None:
    with owned("bubblewrap") as (owner, mark):
        inside = [pid for pid in everyone() if mark in command_of(pid) and pid != owner.pid]
        assert inside, "the program in the sandbox was not found"
        ends = [os.pidfd_open(pid) for pid in inside]
        kill(owner)
        for end in ends:
            assert select.select([end], [], [], 30)[0], "a process of the sandbox outlived its owner"
            os.close(end)


def test_a_container_is_gone_when_the_process_that_made_it_is_killed(law_image: str) -> None:
    gone = docker_module.docker_errors()
    client = engine().client
    try:
        with owned("docker") as (owner, mark):
            container = holder_of(client, mark)
            kill(owner)
            try:
                client.api.wait(container, timeout=30, condition="removed")
            except gone as error:
                assert "No such container" in str(error), error  # noqa: PT017 - it was gone before we asked
            with pytest.raises(gone, match="No such container"):
                client.api.inspect_container(container)
    finally:
        client.close()


def holder_of(client: Any, mark: str) -> str:
    """The id of the container with a process that carries the mark.

    The engine's `top` lists processes with the host's `ps`, which fails when one of them ends meanwhile: asked again.
    It cuts lines at the COLUMNS that the engine was started with, unless it is told not to.
    """
    told: list[str] = []
    for _ in range(100):
        for container in client.api.containers(filters={"label": docker_module.LABEL}):
            try:
                if mark in str(client.api.top(container["Id"], "-ww -eo pid,args")):
                    return str(container["Id"])
            except docker_module.docker_errors() as error:
                told.append(str(error))
        time.sleep(0.1)
    pytest.fail(f"no container holds the program; the engine said {told[-3:]}")


def everyone() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
