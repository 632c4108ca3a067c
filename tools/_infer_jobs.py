"""The jobs behind the tools of `infer`: what a request reads, the programs that answer it, and waiting for them."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from agentlab.tools._endpoint import checked_url, key_of
from agentlab.tools._infer_records import MODEL_KEYS, InferJob, Place, Source, view
from agentlab.tools._job_files import Fields
from agentlab.tools._jobs import NAME, Job, Store, jobs_folder
from agentlab.tools._programs import last_answer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from agentlab.errors import nearest
from agentlab.files import write_json

LONG = ("perplexity", "generate", "latency", "measure")
KINDS = (*LONG, "serve")
"""Kinds of jobs, by the tools that start them."""


@dataclass(frozen=True)
class Request:
    """One request to the inference programs.

    Attributes:
        task: What the program is to do.
        fields: The rest of what it is told.
        stamp: Names, sizes and dates of the files it reads: once they change it is another request.
        threads: Size of the thread pools of its libraries.
        secrets: Variables for its environment alone, written nowhere.
    """

    task: str
    fields: Fields
    stamp: str = ""
    threads: int = 1
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> Fields:
        """What is written down as the job's config."""
        return {**self.fields, "task": self.task, "stamp": self.stamp}


def store() -> Store:
    """The jobs of the folder that is set now."""
    return Store(jobs_folder())


def find(job_id: str) -> Job:
    """A job of this server. Raises ToolError for any other."""
    job = store().find(job_id)
    if job.kind not in KINDS:
        raise ToolError(f"job {job_id} is of kind {job.kind}: ask the {job.kind} server")
    return job


def on_checkpoint(task: str, checkpoint: str, place: Place, fields: Fields, *read: Path) -> Request:
    """A request that is computed on a checkpoint, and reads further files."""
    folder = checkpoint_folder(checkpoint)
    whole: Fields = {**fields, "checkpoint": str(folder), **place.model_dump()}
    return Request(task, whole, _stamp(folder, *read), place.threads)


async def on_shape(config: Fields, place: Place, new_tokens: int, repeats: int) -> Request:
    """A request that is timed on a model of random weights; raises ToolError, in one line, for one that cannot be."""
    for key in config:
        if key not in MODEL_KEYS:
            raise ToolError(f"config.{key}; unknown key; {nearest(key, MODEL_KEYS)}")
    shape: Fields = {**config, "new_tokens": new_tokens, "device": place.device, "dtype": place.dtype}
    asked = json.dumps({**shape, "task": "cost"})
    argv = [sys.executable, _program("infer", "main.py")]
    try:
        await last_answer(argv, "the program gave no answer", stdin=asked, seconds=10)
    except ToolError as error:
        raise ToolError(f"config.{error}") from error
    return Request("measure", {**shape, **place.model_dump(), "repeats": repeats}, threads=place.threads)


def to_source(source: Source, on_model: str, on_server: str, fields: Fields) -> Request:
    """A request by the task for a checkpoint, or by the one for a server."""
    if (source.checkpoint is None) == (source.base_url is None):
        raise ToolError("source; the model must be named once; write either checkpoint or base_url")
    if source.checkpoint is not None:
        return on_checkpoint(on_model, source.checkpoint, source.place, fields)
    if not source.model:
        raise ToolError("source.model; missing; write the name that the server gives its model")
    url = checked_url(source.base_url or "")
    where: Fields = {"base_url": url, "model": source.model, "api": source.api, "key_variable": source.key_variable}
    return Request(on_server, {**fields, **where}, secrets=key_of(source.key_variable))


async def start(kind: str, request: Request, name: str | None = None) -> Job:
    """Starts the request as a job, or finds it; off the event loop."""

    def argv_of(folder: Path) -> list[str]:
        write_json(folder / "run.json", {**request.fields, "task": request.task, "out": str(folder)})
        return [sys.executable, _program("infer", "main.py"), str(folder / "run.json")]

    env = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **request.secrets}
    return await anyio.to_thread.run_sync(
        lambda: store().start(kind, request.asked, argv_of, name=name, threads=request.threads, env=env)
    )


async def settled(ctx: Context[Any], job: Job, wait: float, until: str = "") -> Job:
    """The job when it has ended, when its log tells `until`, or when the time is over; tells its progress meanwhile."""
    end, told = anyio.current_time() + wait, 0
    while job.going and anyio.current_time() < end and not job.seen.get(until):
        step, steps = job.seen.get("step"), job.seen.get("steps")
        if isinstance(step, int) and isinstance(steps, int) and step > told:
            told = step
            await ctx.report_progress(step, steps, f"{job.kind} {job.id}")
        await anyio.sleep(0.1)
        job = await anyio.to_thread.run_sync(store().find, job.id)
    return job


async def answered(ctx: Context[Any], job: Job, wait: float, until: str = "") -> InferJob:
    """The same, as the tools show it. Raises ToolError where the job fails meanwhile."""
    job = await settled(ctx, job, wait, until)
    if job.state == "failed":
        raise ToolError(job.message)
    return view(job)


async def export(run: str, folder: str) -> Fields:
    """What the trainer's export tells of the new folder. Raises ToolError where it refuses."""
    argv = [sys.executable, _program("train", "train_export.py"), str(checkpoint_folder(run)), str(path_of(folder))]
    return dict(await last_answer(argv, "the export gave no answer", seconds=18))


def path_of(text: str) -> Path:
    """A path as the user means it."""
    return Path(text).expanduser().resolve()


def text_file(data: str) -> Path:
    """A file of text, given as such or as the corpus folder whose validation text is meant."""
    path = path_of(data)
    text = path / "valid.bin" if path.is_dir() else path
    if not text.is_file():
        raise ToolError(f"data; {text} is not there; write the path of a file, or of a folder with valid.bin")
    return text


def checkpoint_folder(text: str) -> Path:
    """The folder of a checkpoint, given as a job or as a path. Raises ToolError where there is none."""
    job = jobs_folder() / text
    folder = job if re.fullmatch(NAME, text) and job.is_dir() else path_of(text)
    if not any(folder.glob("*.safetensors")):
        what = f"checkpoint; {folder} holds no *.safetensors"
        raise ToolError(f"{what}; give a training job that is done, its folder, or one in Hugging Face layout")
    return folder


def _program(image: str, name: str) -> str:
    return str(Path(str(files("agentlab.envs"))) / "images" / image / name)


def _stamp(*paths: Path) -> str:
    every = [f for path in paths for f in ([path] if path.is_file() else sorted(path.glob("*.safetensors")))]
    dated = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in every]
    return hashlib.sha256(repr(dated).encode()).hexdigest()[:12]
