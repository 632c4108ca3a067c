"""What a sandbox costs, and what is left of many of which some hang: `python bench/sandbox.py [quick]`.

Each time stands beside the floor under it, measured in the same run: a plain process, a bare `bwrap`, a bare `docker
run`. A candidate is one fresh warm sandbox: a program is loaded and fitted (envs/images/law), then it is destroyed
while the pool refills in the background. Bars: docker warm <= 60 ms and >= 4 candidates/s sustained, a further request
<= 2 ms, bubblewrap cold <= 30 ms, no orphans of 1,000 candidates, a hung one dead within its time-out + .5 s.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from agentlab.envs import Sandbox, SandboxError, Talk
from agentlab.envs._pool import Pool
from agentlab.envs.bubblewrap import Sandbox as Bubblewrap
from agentlab.envs.docker import Sandbox as Docker
from agentlab.envs.docker import engine, tag
from agentlab.envs.local import Local
from machine import RESULTS, save
from sandbox_left import Left, left

from agentlab.program import HELLO
from agentlab.program_answers import sent

SECONDS = 1.0
"""Time-out of a candidate."""
PYTHON = ["-I", "-S", "-c", ""]
STARTED: list[str] = []
"""The containers of this run: others may run on the engine."""


class Noted(Docker):  # type: ignore[misc]  # mypy sees it under another name than it is imported by
    """Notes its containers."""

    def _begin(self) -> Any:  # noqa: ANN401 - a container and its socket, as they are
        begun = super()._begin()
        STARTED.append(begun[0].id)
        return begun


KINDS: dict[str, Callable[[], Sandbox]] = {"local": Local, "bubblewrap": Bubblewrap, "docker": Noted}
PROGRAM = """
import numpy as np
def law(X, params):
    return params[0] + 0 * X[:, 0]
def fit(X, y):
    HANG
    return [y.mean()]
"""


@dataclass(frozen=True)
class Sizes:
    """Repetitions of a single time, candidates in a row, and candidates of the endurance part."""

    repeats: int
    sustained: int
    candidates: int


FULL, QUICK = Sizes(25, 60, 1000), Sizes(5, 12, 40)


@dataclass(frozen=True)
class Candidate:
    """How one candidate went: milliseconds to take a sandbox, to its answer, and to its end where it hung."""

    hangs: bool
    took: float
    answered: float


def message(number: int, asked: dict[str, object]) -> bytes:
    """One request to the program of the sandbox."""
    return json.dumps({"id": number} | asked).encode()


def fitting() -> dict[str, object]:
    """Sixteen synthetic rows to fit on."""
    rng = np.random.default_rng(0)
    return {"X": sent(rng.normal(size=(16, 2))), "y": sent(rng.normal(size=16))}


async def times(repeats: int, once: Callable[[], Awaitable[object]]) -> float:
    """The median of so many repetitions, in milliseconds."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        await once()
        found.append(1e3 * (time.perf_counter() - began))
    return statistics.median(found)


async def process(argv: Sequence[str]) -> None:
    """One bare process, to its end."""
    done = await asyncio.create_subprocess_exec(*argv, stdin=-3, stdout=-3)
    assert await done.wait() == 0, argv


async def floors(repeats: int) -> dict[str, float]:
    """What the system takes below each sandbox."""
    bwrap = [str(shutil.which("bwrap")), "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc"]
    commands = {
        "process true": ["true"],
        "process python3": [sys.executable, *PYTHON],
        "bwrap true": [*bwrap, "true"],
        "docker run true": ["docker", "run", "--rm", "--network", "none", "--entrypoint", "", tag("law"), "true"],
    }
    return {name: await times(repeats, lambda argv=argv: process(argv)) for name, argv in commands.items()}  # type: ignore[misc]


async def cold(make: Callable[[], Sandbox], argv: Callable[[Sandbox], Sequence[str]]) -> None:
    """A sandbox made, one command run in it, the sandbox destroyed."""
    async with make() as box:
        done = await box.exec(argv(box), timeout=60)
        assert done.returncode == 0, done


def pool(make: Callable[[], Sandbox], size: int) -> Pool:
    """A pool of sandboxes with the program that runs laws."""
    return Pool(make, lambda box: [box.python, f"{box.programs}/main.py"], HELLO, size=size)


async def answer(talk: Talk, *, hangs: bool = False) -> bool:
    """Whether a candidate answered: its program loaded, and fitted once."""
    text = PROGRAM.replace("HANG", "while True: pass" if hangs else "pass")
    requests: tuple[dict[str, object], ...] = ({"do": "load", "program": text}, {"do": "fit"} | fitting())
    for number, asked in enumerate(requests, 1):
        reply = await talk.ask(message(number, asked), SECONDS if hangs and number == 2 else 60)
        if reply.failure:
            assert hangs, reply
            return False
        assert json.loads(reply.line)["id"] == number
    return True


async def warm(make: Callable[[], Sandbox], sizes: Sizes) -> dict[str, float]:
    """Milliseconds to take and answer once while the pool lasts, and for each further request of the same candidate."""
    took, again = [], []
    async with pool(make, 4) as ready:
        await ready.filled()
        for _ in range(sizes.repeats):
            began = time.perf_counter()
            async with ready.take() as talk:
                await answer(talk)
                took.append(1e3 * (time.perf_counter() - began))
                asked = message(9, {"do": "fit"} | fitting())
                again.append(await times(10, lambda talk=talk, asked=asked: talk.ask(asked, 60)))  # type: ignore[misc]
            await ready.filled()  # while the pool lasts: refilling is measured by `sustained`
    return {"warm take + answer": statistics.median(took), "further request": statistics.median(again)}


async def sustained(make: Callable[[], Sandbox], candidates: int, size: int, workers: int) -> float:
    """Candidates a second, by some workers at once, while the pool is refilled in the background."""
    async with pool(make, size) as ready:
        await ready.filled()
        waiting = iter(range(candidates + size))

        async def work() -> None:
            for _ in waiting:
                async with ready.take() as talk:
                    await answer(talk)

        async with asyncio.timeout(1200):
            for _ in range(size):  # the full pool at the start is no part of what is sustained
                next(waiting)
                async with ready.take() as talk:
                    await answer(talk)
            began = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(workers)))
    return candidates / (time.perf_counter() - began)


async def endure(make: Callable[[], Sandbox], candidates: int, workers: int = 4) -> list[Candidate]:
    """Candidates of which every tenth hangs."""
    found: list[Candidate] = []
    async with pool(make, 4) as ready:
        waiting = iter(range(candidates))

        async def work() -> None:
            for number in waiting:
                hangs, began = number % 10 == 0, time.perf_counter()
                async with ready.take() as talk:
                    taken = time.perf_counter()
                    assert await answer(talk, hangs=hangs) is not hangs
                    found.append(Candidate(hangs, 1e3 * (taken - began), 1e3 * (time.perf_counter() - taken)))

        await asyncio.gather(*(work() for _ in range(workers)))
    return found


def endured(found: Sequence[Candidate], before: Left, after: Left) -> dict[str, float]:
    """How late the hung ones were dead, whether they delayed others, and what is left of all."""
    late = [c.answered - 1e3 * SECONDS for c in found if c.hangs]
    good = [c.answered for c in found if not c.hangs]
    return {
        "candidates": len(found), "hung": len(late),
        "hung dead after time-out, median ms": statistics.median(late), "hung dead after time-out, max ms": max(late),
        "answer beside hung ones, median ms": statistics.median(good), "answer beside hung ones, max ms": max(good),
        "orphan containers": len(after.containers - before.containers),
        "orphan processes": len(after.processes - before.processes),
        "orphan control groups": len(after.groups - before.groups),
    }  # fmt: skip


async def measure(sizes: Sizes) -> dict[str, dict[str, float]]:
    """Every figure, by sandbox."""
    found: dict[str, dict[str, float]] = {"floors": await floors(sizes.repeats)}
    for name, make in KINDS.items():
        lacks = type(make()).missing("law")
        if lacks:
            raise SandboxError(f"{name}: {lacks}")
        row = {
            "cold true": await times(sizes.repeats, lambda make=make: cold(make, lambda _: ["true"])),  # type: ignore[misc]
            "cold python3": await times(
                sizes.repeats,
                lambda make=make: cold(make, lambda box: [box.python, *PYTHON]),  # type: ignore[misc]
            ),
        } | await warm(make, sizes)
        row["candidates a second, one at a time"] = await sustained(make, sizes.sustained, 4, 1)
        row["candidates a second, four at a time"] = await sustained(make, sizes.sustained, 4, 4)
        if name != "local":
            before = left(STARTED)
            row |= endured(await endure(make, sizes.candidates), before, left(STARTED))
        found[name] = row
        print(name, {k: round(v, 1) for k, v in row.items()}, flush=True)
    return found


FLOOR = {"local": "process", "bubblewrap": "bwrap", "docker": "docker run"}


def shown(value: float) -> str:
    """A count as one, a time to a tenth."""
    return str(int(value)) if isinstance(value, int) else f"{value:.1f}"


def table(found: dict[str, dict[str, float]], load: float) -> str:
    """The figures as Markdown."""
    rows = dict.fromkeys(key for name in KINDS for key in found[name])
    lines = ["# Sandboxes", "", f"Medians, ms unless told; load of the machine when it began {load:.1f}.", ""]
    lines += ["| | " + " | ".join(KINDS) + " |", "|---|" + "--:|" * len(KINDS)]
    for key in rows:
        cells = [shown(found[name][key]) if key in found[name] else "" for name in KINDS]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    ratios = [f"{found[n]['cold true'] / found['floors'][f'{FLOOR[n]} true']:.2f}" for n in KINDS]
    lines += [f"| cold true / bare floor | {' | '.join(ratios)} |", "", "| floor | ms |", "|---|--:|"]
    lines += [f"| {name} | {ms:.1f} |" for name, ms in found["floors"].items()]
    return "\n".join(lines) + "\n"


def bars(found: dict[str, dict[str, float]]) -> dict[str, bool]:
    """Which bars are met."""
    docker, bubblewrap = found["docker"], found["bubblewrap"]
    orphans = [v for row in (docker, bubblewrap) for k, v in row.items() if k.startswith("orphan")]
    late = [row["hung dead after time-out, max ms"] for row in (docker, bubblewrap)]
    return {
        "docker warm <= 60 ms": docker["warm take + answer"] <= 60,
        "docker >= 4 candidates/s": docker["candidates a second, four at a time"] >= 4,
        "further request <= 2 ms": max(docker["further request"], bubblewrap["further request"]) <= 2,
        "bubblewrap cold <= 30 ms": bubblewrap["cold true"] <= 30,
        "no orphans": not any(orphans),
        "hung dead within time-out + 500 ms": max(late) <= 500,
    }


def main() -> None:
    """Run, print a table and a JSON line, keep the result unless it was the quick one."""
    quick = "quick" in sys.argv[1:]
    load = os.getloadavg()[0]
    here = engine()
    runtime = here.runtime or "runc"
    here.client.close()
    found = asyncio.run(measure(QUICK if quick else FULL))
    met = bars(found)
    text = table(found, load) + "\n" + "\n".join(f"- {'met' if ok else 'NOT MET'}: {bar}" for bar, ok in met.items())
    print(text)
    rounded = {name: {k: round(v, 2) for k, v in row.items()} for name, row in found.items()}
    result = {"bench": "sandbox", "quick": quick, "load": round(load, 1), "runtime": runtime, "bars": met, **rounded}
    print(json.dumps(result))
    save(result)
    (RESULTS / "sandbox.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
