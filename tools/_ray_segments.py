"""A segment of a training run as a node of a cluster trains it: everything comes along, and everything is sent back."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from agentlab.envs._processes import environment
from agentlab.tools._job_files import Fields, last_error
from agentlab.tools._ray_node import folder, refuse_others

from agentlab.files import write_json

LOOK = 0.1
"""Seconds between two looks at what the trainer said."""
CORPUS = ("train.bin", "valid.bin")
LEFT = ("checkpoint.pt", "model.safetensors", "result.json")
"""What a segment may leave."""
_TIED = """import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the task has gone")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Becomes the trainer, which the system kills as soon as the task's process is gone (PR_SET_PDEATHSIG, SIGKILL)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What is trained: the trainer's config without its folders, from a checkpoint (None: from nothing).

    `same` are the versions that the node must have, as agentlab.tools._ray_node counts them.
    """

    config: Fields
    threads: int
    gpus: float
    checkpoint: bytes | None
    same: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Placed:
    """The node that a segment began on."""

    node: str
    host: str


@dataclass(frozen=True, slots=True)
class Left:
    """How the trainer ended, its last line of errors, and the files that it left."""

    code: int
    errors: str
    files: dict[str, bytes]


def train_segment(asked: Segment, corpus: Mapping[str, bytes]) -> Iterator[Placed | bytes | Left]:
    """Trains one segment; yields where it began, what the trainer writes as it comes, and what it left.

    Raises:
        BackendError: this node has other versions.
    """
    refuse_others(asked.same)
    import ray  # noqa: PLC0415 - heavy, and this runs on nodes alone

    yield Placed(ray.get_runtime_context().get_node_id(), platform.node())
    with folder("segment") as place:
        path = _laid_out(place, asked, corpus)
        with (path.parent / "log.jsonl").open("wb") as log, (path.parent / "errors.txt").open("wb") as errors:
            trainer = str(Path(str(files("agentlab.envs"))) / "images" / "train" / "main.py")
            process = subprocess.Popen(
                [sys.executable, "-c", _TIED, str(os.getpid()), trainer, str(path), "--segment"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=errors, cwd=path.parent, env=_environment(asked),
            )  # fmt: skip
        try:
            yield from _written(process, path.parent / "log.jsonl")
        finally:
            process.kill()
            process.wait()
        left = {name: (path.parent / name).read_bytes() for name in LEFT if (path.parent / name).is_file()}
        yield Left(process.returncode, last_error(path.parent / "errors.txt"), left)


def _laid_out(place: Path, asked: Segment, corpus: Mapping[str, bytes]) -> Path:
    """Everything as the trainer looks for it; the path of its config."""
    text, out = place / "corpus", place / "out"
    for made in (text, out):
        made.mkdir()
    for name, data in corpus.items():
        (text / name).write_bytes(data)
    if asked.checkpoint is not None:
        (out / LEFT[0]).write_bytes(asked.checkpoint)
    write_json(out / "run.json", {**asked.config, "corpus": str(text), "out": str(out)})
    return out / "run.json"


def _environment(asked: Segment) -> dict[str, str]:
    """As for a trainer of this machine; one that asked for no GPU sees none, whatever the node has."""
    return dict(environment({} if asked.gpus else {"CUDA_VISIBLE_DEVICES": ""}, asked.threads))


def _written(process: subprocess.Popen[Any], log: Path) -> Iterator[bytes]:
    """What a process appends to its log, until it has ended."""
    with log.open("rb") as file:
        while True:
            ended = process.poll() is not None  # before the log is read: it writes, then ends
            block = file.read()
            if block:
                yield block
            if ended:
                return
            time.sleep(LOOK)
