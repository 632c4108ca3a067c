"""A Ray cluster as one process uses it: reached in time or refused in one line, asked for room, given tasks.

Only programs of their own do this (agentlab.tools._ray_server, agentlab.tools._segments), with an environment that
holds no keys: Ray hands the environment of whoever starts a cluster to its nodes, writes to the standard streams, and
ends the process where the head of the cluster is gone.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.tools._ray_node import PREFIX

from agentlab.engine_address import LOCAL, reach
from agentlab.errors import AgentlabError, BackendError

JOIN, START, ROOM = 30.0, 120.0, 5.0
"""Seconds for joining a cluster, for starting one here, and for a node with room to appear."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    "RAY_worker_niceness": "0",
}
"""Ray's own settings: nothing is told to anybody, a head that is gone is given up after so many seconds, and on a
cluster that is started here tasks give way to nobody, as the tool servers of this machine do."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task takes of its node; Ray starts it where that much is free. `memory` is in bytes."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0

    def __str__(self) -> str:
        """In words."""
        memory = f", {self.memory / 2**30:.2g} GiB" if self.memory else ""
        return f"{self.cpus:g} CPU" + (f", {self.gpus:g} GPU" if self.gpus else "") + memory

    def fit(self, resources: Mapping[str, float]) -> bool:
        """Whether a node with these resources could ever take it."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return all(resources.get(name, 0.0) >= amount for name, amount in wanted.items())


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, and what each task takes of it; without an address $RAY_ADDRESS, else one of this machine."""

    address: str | None
    needs: Needs


@dataclass(frozen=True, slots=True)
class Gone:
    """Why a task ended without its last word; `refused` where the node said so, and would say so again."""

    why: str
    refused: bool = False


def join(address: str | None) -> None:
    """Makes this process a driver of the cluster; a second call does nothing.

    Raises:
        BackendError: there is none, another version of Ray or Python runs there, or it is something else that answers.
    """
    place = reach(address)
    os.environ.update(SETTINGS)
    given: dict[str, Any] = {"address": place, "log_to_driver": False, "logging_level": logging.ERROR}
    if place == LOCAL:
        given |= {"include_dashboard": False, "_temp_dir": _session()}
    import ray  # noqa: PLC0415 - heavy, and only for those who have it; it reads its variables now

    if ray.is_initialized():
        return
    _quiet()
    failures: list[BaseException] = []
    joined = threading.Event()

    def enter() -> None:
        try:
            ray.init(**given)
        except BaseException as error:  # noqa: BLE001 - it also ends by SystemExit
            failures.append(error)
        joined.set()
        threading.Event().wait()  # the system ends what was started here as soon as this thread ends

    # Ray waits minutes for what answers and is no cluster, and cannot be interrupted meanwhile.
    threading.Thread(target=enter, daemon=True).start()
    if not joined.wait(START if place == LOCAL else JOIN):
        what = f"what answers at {place} is no Ray cluster; write what `ray start` printed"
        raise BackendError(f"engine=ray: {f'Ray did not start within {START:g} s' if place == LOCAL else what}")
    if failures:
        advice = "where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        raise BackendError(f"engine=ray: {line_of(failures[0])}; {advice}")


def submit(
    function: Callable[..., Any], needs: Needs, *given: object, spread: bool = False, streams: bool = False
) -> Any:  # noqa: ANN401
    """Starts a function on a node with room, once: whoever asked decides what follows when node or process dies.

    Args:
        function: of a module that the nodes have too.
        needs: what is kept for it.
        given: its arguments; one that `put` gave travels once to each node.
        spread: on another node than its like, as far as there are others.
        streams: it yields, and what it yields comes one by one.
    """
    import ray  # noqa: PLC0415

    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "max_retries": 0}
    if needs.memory:
        options["memory"] = needs.memory
    options |= {"scheduling_strategy": "SPREAD"} if spread else {}
    options |= {"num_returns": "streaming"} if streams else {}
    return ray.remote(function).options(**options).remote(*given)


def put(value: object) -> Any:  # noqa: ANN401
    """Leaves a value with the cluster; give what is returned to `submit`."""
    import ray  # noqa: PLC0415

    return ray.put(value)


def nodes() -> list[dict[str, float]]:
    """The resources of each node that lives."""
    import ray  # noqa: PLC0415

    listed: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [dict(node["Resources"]) for node in listed if node["Alive"]]


def require(needs: Needs) -> None:
    """Raises BackendError where no node that lives could ever take a task with these needs."""
    living = nodes()
    if any(needs.fit(node) for node in living):
        return
    largest = max(living, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)), default={})
    there = Needs(largest.get("CPU", 0.0), largest.get("GPU", 0.0), int(largest.get("memory", 0)))
    raise BackendError(f"engine=ray: no node has room for {needs}; the largest of {len(living)} has {there}; add nodes")


def wait_for_room(needs: Needs) -> None:
    """The same, but nodes join one after another: they are given a few seconds."""
    end = time.monotonic() + ROOM
    while True:
        try:
            return require(needs)
        except BackendError:
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


def arrived(items: Any) -> Iterator[object]:  # noqa: ANN401
    """What a task that streams has yielded since the last look; at last, where it failed, why (Gone)."""
    import ray  # noqa: PLC0415

    while ray.wait([items], timeout=0)[0]:
        try:
            yield ray.get(next(items))
        except StopIteration:
            return
        except ray.exceptions.RayTaskError as error:
            yield Gone(line_of(error), refused=isinstance(error.cause, AgentlabError))
            return
        except ray.exceptions.RayError as error:
            yield Gone(line_of(error))
            return


def cancel(task: Any) -> None:  # noqa: ANN401
    """Ends the process of a task, or takes the task back where it waits."""
    import ray  # noqa: PLC0415

    ray.cancel(task, force=True)


def line_of(error: BaseException) -> str:
    """What Ray raised, in one line; an error of ours that was raised on a node in its own words."""
    cause: object = getattr(error, "cause", None) or error
    text = str(cause) or type(cause).__name__
    return " ".join(text.split())[:300]


@functools.cache
def _session() -> str:
    """Where a cluster of this machine keeps its files as long as this process lives, and the token that opens it."""
    place = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}-cluster"
    place.mkdir(mode=0o700)
    (place / "token").write_text(secrets.token_hex(32), encoding="utf-8")
    # Else Ray leaves one in the home folder, where it changes what the user's own `ray start` does.
    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place / "token")})
    os.environ.pop("RAY_AUTH_TOKEN", None)

    def leave() -> None:
        import ray  # noqa: PLC0415

        ray.shutdown()
        shutil.rmtree(place, ignore_errors=True)

    atexit.register(leave)
    return str(place)


@functools.cache
def _quiet() -> None:
    """Ray's threads write to the standard streams: what they write goes nowhere, and our errors where they went."""
    kept = os.dup(2)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = os.fdopen(kept, "w", buffering=1, encoding="utf-8")
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
