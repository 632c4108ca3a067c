"""Our trainer as `train` uses it: where its programs lie, and what a config of it costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from agentlab.envs import Limits
from agentlab.envs.local import Local
from agentlab.tools._job_files import Fields, error_text, objects
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import JsonValue

from agentlab.files import write_json


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
    async with Local(limits=Limits(output_bytes=1 << 20)) as here:
        done = await here.exec([sys.executable, program("main.py"), "--plan"], stdin=asked, timeout=15)
    lines = [line for _, line in objects(done.stdout.encode())]
    if done.timed_out or not lines:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise ToolError(f"the trainer gave no plan in {done.seconds:.0f} s: {said[-1][:300]}")
    if lines[-1].get("event") == "error":
        raise ToolError(error_text(lines[-1]))
    return {k: v for k, v in lines[-1].items() if k != "event"}


async def order(config: Fields) -> Order:
    """A run of our trainer. Raises ToolError for a config that it refuses."""
    planned = await plan(config)

    def argv_of(folder: Path) -> list[str]:
        write_json(folder / "run.json", {**config, "out": str(folder)})
        return [sys.executable, program("main.py"), str(folder / "run.json")]

    flops = max(number(planned["flops"]), number(config.get("flops")))
    return Order(config, argv_of, flops, planned, threads=int(number(config.get("threads"))) or 1)
