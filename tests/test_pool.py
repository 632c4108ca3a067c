"""The pool of warm sandboxes: a fresh one for everybody, nobody waits for a program that hangs, nothing is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar

import pytest
from agentlab.envs import Limits, Sandbox, SandboxError, Talk, _cgroup
from agentlab.envs._pool import Pool
from agentlab.envs.bubblewrap import Sandbox as Bubblewrap
from agentlab.envs.docker import LABEL
from agentlab.envs.docker import Sandbox as Docker
from agentlab.envs.local import Local

PROGRAM = """
import os, sys, time
seen = []
for line in sys.stdin:
    word = line.strip()
    if word == "hang":
        time.sleep(600)
    if word == "tell":
        print(seen, sorted(os.listdir(".")), flush=True)
        continue
    seen.append(word)
    open(word, "w").close()
    print("kept", flush=True)
"""
FRESH = b"['warm'] ['warm']"
Make = Callable[[], Sandbox]


@pytest.fixture(params=["bubblewrap", "docker"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes sandboxes of one kind."""
    request.getfixturevalue({"bubblewrap": "bwrap", "docker": "law_image"}[request.param])
    kinds: dict[str, Make] = {"bubblewrap": Bubblewrap, "docker": Docker}
    return kinds[request.param]


def argv(box: Sandbox) -> Sequence[str]:
    return [box.python, "-c", PROGRAM]


def pool(make: Make, size: int = 1, program: Callable[[Sandbox], Sequence[str]] = argv) -> Pool:
    return Pool(make, program, b"warm", size=size)


async def said(talk: Talk, line: bytes, seconds: float = 60) -> bytes:
    reply = await talk.ask(line, seconds)
    assert not reply.failure, reply
    return bytes(reply.line)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_everybody_gets_a_sandbox_that_nobody_used(make: Make) -> None:
    async def inner() -> None:
        async with pool(make) as warm:
            for _ in range(3):
                async with warm.take() as talk:
                    assert await said(talk, b"tell") == FRESH
                    await said(talk, b"mine")
                    assert await said(talk, b"tell") == b"['warm', 'mine'] ['mine', 'warm']"

    run(inner())


def test_the_pool_is_refilled_while_a_sandbox_is_in_use(make: Make) -> None:
    async def inner() -> None:
        async with pool(make, size=2) as warm:
            await warm.filled()
            assert warm.ready == 2
            async with warm.take():
                await warm.filled()
                assert warm.ready == 2

    run(inner())


def test_a_program_that_hangs_delays_nobody_else(make: Make) -> None:
    async def hang(warm: Pool) -> str:
        async with warm.take() as talk:
            return str((await talk.ask(b"hang", 120)).failure)

    async def inner() -> None:
        async with pool(make, size=2) as warm:
            hanging = asyncio.ensure_future(hang(warm))
            for _ in range(3):
                async with warm.take() as talk:
                    assert await said(talk, b"tell") == FRESH
            assert not hanging.done()
            hanging.cancel()
            await asyncio.wait([hanging])

    run(inner())


def test_one_that_hung_is_told_apart_and_the_next_one_is_fresh(make: Make) -> None:
    async def inner() -> None:
        async with pool(make) as warm:
            async with warm.take() as talk:
                assert (await talk.ask(b"hang", 0.5)).failure == "time-out"
                assert (await talk.ask(b"tell", 60)).failure == "time-out", "a dead program answers no more"
            async with warm.take() as talk:
                assert await said(talk, b"tell") == FRESH

    run(inner())


def test_a_failure_to_start_is_raised_to_whoever_takes_and_the_pool_goes_on(make: Make) -> None:
    kind: Any = make
    made = iter([kind("nosuch"), *(kind() for _ in range(4))])

    async def inner() -> None:
        async with pool(lambda: next(made)) as warm:
            with pytest.raises(SandboxError, match="nosuch"):
                async with warm.take():
                    raise AssertionError("a sandbox of no image was given")
            async with warm.take() as talk:
                assert await said(talk, b"tell") == FRESH

    run(inner())


def test_a_program_that_does_not_become_warm_is_told(bwrap: str) -> None:
    async def inner() -> None:
        async with pool(Bubblewrap, program=lambda box: [box.python, "-c", ""]) as warm:
            with pytest.raises(SandboxError, match=r"did not start \(ended\)"):
                async with warm.take():
                    raise AssertionError("a dead program was given")

    run(inner())


def test_a_bug_where_sandboxes_are_made_is_raised_and_not_waited_for() -> None:
    def broken() -> Sandbox:
        raise ZeroDivisionError

    async def inner() -> None:
        async with pool(broken) as warm:
            with pytest.raises(ZeroDivisionError):
                async with asyncio.timeout(60), warm.take():
                    raise AssertionError("a sandbox came from nowhere")

    run(inner())


def test_a_caller_that_is_cancelled_takes_nothing_away() -> None:
    async def take(warm: Pool, taken: asyncio.Event) -> None:
        async with warm.take() as talk:
            taken.set()
            await talk.ask(b"hang", 120)

    async def inner() -> None:
        async with pool(Local) as warm:
            taken = asyncio.Event()
            first = asyncio.ensure_future(take(warm, taken))
            await taken.wait()
            first.cancel()
            await asyncio.wait([first])
            async with warm.take() as talk:
                assert await said(talk, b"tell") == FRESH

    run(inner())


class Noted(Docker):
    """Notes the containers that it starts."""

    started: ClassVar[list[str]] = []

    def _begin(self) -> Any:
        begun = super()._begin()
        self.started.append(begun[0].id)
        return begun


async def open_and_close(make: Make, when: str) -> None:
    """A pool of two that is closed at once, when it is full, or while a program in it hangs."""
    async with pool(make, size=2) as warm:
        if when == "at once":
            await asyncio.sleep(0)  # so that the tasks that start sandboxes run up to their first wait
            return
        await warm.filled()
        if when == "hanging":
            async with warm.take() as talk:
                assert (await talk.ask(b"hang", 0.5)).failure == "time-out"


def children_named(name: str) -> set[str]:
    """The pids of this process's children of that name."""
    found = subprocess.run(["pgrep", "--parent", str(os.getpid()), name], capture_output=True, text=True, check=False)
    return set(found.stdout.split())


WHEN = ("at once", "full", "hanging")


@pytest.mark.parametrize("when", WHEN)
def test_closing_leaves_no_container(law_image: str, when: str) -> None:
    Noted.started.clear()
    run(open_and_close(Noted, when))
    assert Noted.started
    listed = ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}"]
    left = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    assert not set(left) & set(Noted.started)


@pytest.mark.parametrize("when", WHEN)
def test_closing_leaves_no_process_and_no_control_group(bwrap: str, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[_cgroup.Cgroup] = []
    real = _cgroup.make

    def noted(limits: Limits) -> _cgroup.Cgroup | None:
        group = real(limits)
        made.extend([] if group is None else [group])
        return group

    monkeypatch.setattr(_cgroup, "make", noted)
    before = children_named("bwrap")  # other tests of this process may hold sandboxes
    run(open_and_close(Bubblewrap, when))
    assert children_named("bwrap") <= before
    assert made or os.geteuid(), "root always has a control group"
    assert [folder for group in made for folder in group.folders if folder.exists()] == []
