"""Our trainer as `train` uses it: where its programs lie, and what a config of it costs."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal

from agentlab.envs._contained import contained
from agentlab.tools._job_files import Fields
from agentlab.tools._jobs import CANCEL
from agentlab.tools._programs import last_answer
from agentlab.tools._ray import Cluster, Needs
from agentlab.tools._refusals import refusals
from agentlab.tools._segments import write_order
from agentlab.tools._segments_replicas import Replicated
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import JsonValue

from agentlab.engine_address import reach, token
from agentlab.files import write_json

SandboxName = Literal["local", "docker"]
"""Where our trainer runs."""


@dataclass(frozen=True)
class Voting:
    """How the segments of a run are voted on; as it stands, they are not, and the trainer goes through by itself.

    Attributes:
        replicas: Processes that train each segment, and votes by which its answer must be ahead.
        stall: Seconds without a line of progress after which one is ended and done again; None waits for ever.
        tolerance: Relative difference up to which two answers agree; 0 asks for the same bits.
    """

    replicas: int = 1
    stall: float | None = None
    tolerance: float = 0.0

    @property
    def asked(self) -> Fields:
        """What is written down beside the config; nothing where nothing is asked."""
        fields: Fields = {"replicas": self.replicas, "stall": self.stall, "tolerance": self.tolerance}
        return fields if self != Voting() else {}


ALONE = Voting()


@dataclass(frozen=True)
class Place:
    """Where the segments of a run are trained: here, or as tasks of a Ray cluster.

    `address` is HOST:PORT of the cluster; None takes $RAY_ADDRESS, or starts one of this machine.
    """

    engine: Literal["local", "ray"] = "local"
    address: str | None = None


HERE = Place()
TORCH = 400 << 20
"""Bytes that PyTorch itself takes of a node, beside what the plan counts."""


@dataclass(frozen=True)
class Order:
    """A run that a backend would do.

    Attributes:
        asked: What is written down as the job's config.
        argv_of: The command, given the job's folder, into which it may write files.
        flops: Training FLOPs; None where the backend cannot tell.
        plan: What else is known beforehand, by the names of an estimate.
        env: Variables that the command gets.
        threads: Size of its thread pools.
    """

    asked: Fields
    argv_of: Callable[[Path], Sequence[str]]
    flops: float | None
    plan: Fields
    env: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1


def program(name: str) -> str:
    """The path of one of the trainer's programs."""
    return str(Path(str(files("agentlab.envs"))) / "images" / "train" / name)


def number(value: JsonValue) -> float:
    """A number, 0 for anything else."""
    return float(value) if isinstance(value, int | float) else 0.0


async def plan(config: Mapping[str, JsonValue]) -> Fields:
    """Parameters, FLOPs, steps and memory of a config, by the trainer's own count; raises ToolError on a bad one."""
    if "out" in config:
        raise ToolError("out; the job's folder is chosen by the server; leave the key away")
    asked = json.dumps({**config, "out": "job"})
    argv = [sys.executable, program("main.py"), "--plan"]
    return dict(await last_answer(argv, "the trainer gave no plan", stdin=asked, seconds=15))


async def order(config: Fields, sandbox: SandboxName = "local", voting: Voting = ALONE, place: Place = HERE) -> Order:
    """A run of our trainer, as a process of this machine, in a container, or on a cluster.

    Raises ToolError for a bad config, or where the cluster cannot be reached.
    """
    _refuse_voting(voting, sandbox)
    _refuse_place(place, sandbox)
    threads = int(number(config.get("threads"))) or 1
    planned = await plan(config)
    cluster = _cluster(place, config, planned, threads)

    def argv_of(folder: Path) -> Sequence[str]:
        corpus = Path(str(config["corpus"])).resolve()
        if voting.asked or cluster is not None:
            worker = (sys.executable, program("main.py"))
            inside = {**config, "corpus": str(corpus)}
            path = write_order(folder, Replicated(inside, worker=worker, cluster=cluster, **asdict(voting)))
            return [sys.executable, "-m", "agentlab.tools._segments", str(path)]
        write_json(folder / "run.json", {**config, "corpus": str(corpus), "out": str(folder)})
        if sandbox == "local":
            (folder / CANCEL).unlink(missing_ok=True)
            return [sys.executable, program("main.py"), str(folder / "run.json")]
        name = f"agentlab-job-{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
        with refusals():
            job = contained(
                "train", [str(folder / "run.json")], name=name, writes=folder, reads=[corpus], threads=threads
            )
        write_json(folder / CANCEL, {"argv": list(job.end), "variables": ["DOCKER_HOST"]})
        return tuple(job.argv)

    flops = max(number(planned["flops"]), number(config.get("flops")))
    env = {} if cluster is None else token()
    return Order({**config, **voting.asked}, argv_of, flops, planned, env, threads)


def _cluster(place: Place, config: Fields, planned: Fields, threads: int) -> Cluster | None:
    """The cluster and what a segment takes of it; a GPU is taken where the config names it. None: no cluster."""
    if place.engine == "local":
        return None
    gpus = 1.0 if config.get("device") == "cuda" else 0.0
    memory = TORCH + (0 if gpus else int(number(planned.get("memory_bytes"))))
    return Cluster(place.address, Needs(float(threads), gpus, memory))


def _refuse_place(place: Place, sandbox: SandboxName) -> None:
    if place.engine == "local":
        if place.address is not None:
            raise ToolError(f"address={place.address}: only a cluster has one; write engine=ray, or leave it away")
        return
    if sandbox != "local":
        raise ToolError(f"sandbox={sandbox}: on a cluster the trainer is a process of its node; write sandbox=local")
    with refusals():
        reach(place.address)


def _refuse_voting(voting: Voting, sandbox: SandboxName) -> None:
    if voting.asked and sandbox != "local":
        raise ToolError(f"sandbox={sandbox}: segments are voted on by processes of this machine; write sandbox=local")
    if voting.tolerance and voting.replicas == 1:
        raise ToolError("tolerance: one replica has nothing to agree with; write replicas=2 or 3, or leave it away")
