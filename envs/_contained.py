"""A long job of our own programs in a container: its folder is written, what it reads is not, and it has no network.

Unlike a sandbox for a model's program, the job's folder is mounted: only programs that we wrote run here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentlab.envs import SandboxError
from agentlab.envs._confined import PROGRAMS
from agentlab.envs.docker import PACKAGES, Sandbox, engine, tag


@dataclass(frozen=True)
class Contained:
    """The command that runs a job in a container, and the one that ends the container where the first was killed."""

    argv: tuple[str, ...]
    end: tuple[str, ...]


def contained(
    image: str, arguments: Sequence[str], *, name: str, writes: Path, reads: Sequence[Path] = (), threads: int = 1
) -> Contained:
    """The program of an image with these arguments, as a job.

    Args:
        image: One of our images.
        arguments: What its main.py gets.
        name: Of the container, unique on the engine.
        writes: The job's folder, at the same path inside.
        reads: Folders that it may read, at the same paths inside.
        threads: Size of the thread pools, and processors at most.

    Raises:
        SandboxError: no engine, no image, or no docker command.
    """
    program = shutil.which("docker")
    missing = "the command docker is missing (Debian: apt-get install docker.io)" if program is None else ""
    missing = missing or Sandbox.missing(image)
    if missing:
        raise SandboxError(f"sandbox=docker: {missing}")
    here = engine()
    pools = [f"{library}_NUM_THREADS={threads}" for library in ("OMP", "MKL", "OPENBLAS")]
    variables = [*pools, f"PYTHONPATH={PACKAGES}", "HOME=/tmp", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"]
    argv = [
        str(program), "run", "--rm", "--name", name, "--network", "none", "--read-only", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--user", f"{os.getuid()}:{os.getgid()}", "--pids-limit", "512",
        "--cpus", str(threads), "--ipc", "private", "--tmpfs", "/tmp:rw,noexec,nosuid,nodev,size=256m",  # noqa: S108
        "--log-driver", "none", "--workdir", str(writes), "--volume", f"{writes}:{writes}",
    ]  # fmt: skip
    for folder in reads:
        argv += ["--volume", f"{folder}:{folder}:ro"]
    for variable in variables:
        argv += ["--env", variable]
    if "nvidia" in here.runtimes:
        argv += ["--gpus", "all"]
    if here.runtime is not None:
        argv += ["--runtime", here.runtime]
    argv += ["--entrypoint", "", tag(image), "python3", f"{PROGRAMS}/main.py", *arguments]
    return Contained(tuple(argv), (str(program), "rm", "--force", name))
