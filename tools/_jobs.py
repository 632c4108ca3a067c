"""The job store: a job is a folder of files and a detached process, which outlive the server that started them.

Folder of a job: job.json (its kind, when it was first started), config.json (what was asked), process.json, log.jsonl
(progress as JSON lines), errors.txt, cancelled (why), result.json (appears whole at the end). Whatever server has the
same root finds the job again. The state of a job follows from these files and the process table alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from agentlab.envs._processes import Started, alive, environment, kill_tree, reap, start_ticks
from agentlab.envs._processes import start as start_process
from agentlab.tools._job_files import GOING, OVER, Fields, Job, Lines, State, objects, process_of, read_job, read_object
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field, JsonValue

from agentlab.files import cache_folder, write_json, write_whole

__all__ = [
    "CANCEL",
    "GOING",
    "JOBS",
    "MAX_JOBS",
    "NAME",
    "Fields",
    "Job",
    "JobId",
    "Lines",
    "State",
    "Store",
    "jobs_folder",
]

JOBS = "AGENTLAB_JOBS"
"""Variable that names the folder of the jobs; default is the user cache."""
MAX_JOBS = "AGENTLAB_MAX_JOBS"
"""Variable that bounds how many jobs run at once; default is the number of processors."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""Pattern of a job id, which is also the name of its folder."""
CANCEL = "cancel.json"
"""File that `argv_of` may leave in the folder: what to run after the kill, e.g. to free a queue, and the names of the
variables that it needs: {"argv": [..], "variables": [..]}."""

JobId = Annotated[str, Field(description="As `start` or `list` gave it.", pattern=NAME)]


def jobs_folder() -> Path:
    """Where jobs lie."""
    return Path(os.environ.get(JOBS) or cache_folder() / "jobs").resolve()


class Store:
    """The jobs below one folder. Every method blocks for milliseconds, `cancel` for up to two seconds."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(
        self, kind: str, config: Mapping[str, JsonValue], argv_of: Callable[[Path], Sequence[str]], *,
        name: str | None = None, threads: int = 1, nice: int = 0, env: Mapping[str, str] | None = None,
    ) -> Job:  # fmt: skip
        """Starts a job, resumes one that stopped early, or returns the one that runs or has its result.

        Args:
            kind: "train", "infer", ..: jobs of one kind are read by one server.
            config: What is asked; the same config is the same job.
            argv_of: The command, given the job's folder; it may write further files there. The command appends JSON
                lines to its standard output, writes result.json whole, and resumes from what it left in the folder.
            name: Job id; without it the id follows from kind and config.
            threads: Size of the thread pools of the command's libraries.
            nice: How far the command gives way to others, 0 to 19.
            env: Variables beyond those that every program gets; they are not written anywhere.

        Raises:
            ToolError: the id is no name, or belongs to another config; too many jobs run; a file is damaged.
        """
        asked = _plain(config)
        job_id = name or hashlib.sha256(json.dumps([kind, asked], sort_keys=True).encode()).hexdigest()[:12]
        folder = self._folder(job_id)
        with self._lock():
            if (folder / "config.json").exists():
                known = read_job(folder)
                if (known.kind, known.config) != (kind, asked):
                    what = f"job {job_id} exists with another config"
                    raise ToolError(f"{what}: give another name, or the same config to resume it")
                if known.state in GOING + OVER:
                    return known
            self._refuse_crowd()
            argv = _argv(folder, argv_of)
            if not (folder / "config.json").exists():
                write_json(folder / "job.json", {"kind": kind, "created": time.time()})
                write_json(folder / "config.json", asked)  # from here on it is a job
            _sweep(process_of(folder))
            _launch(folder, argv, nice, environment(env, threads))
        return read_job(folder)

    def find(self, job_id: str, kind: str | None = None) -> Job:
        """One job. Raises ToolError when there is none, when it is of another kind, or when a file is damaged."""
        folder = self._folder(job_id)
        if not (folder / "config.json").is_file():
            raise ToolError(f"no job {job_id} in {self.root}: `list` shows those there are")
        job = read_job(folder)
        if kind not in (None, job.kind):
            raise ToolError(f"job {job_id} is of kind {job.kind}: ask the {job.kind} server")
        return job

    def list(self, kind: str | None = None, state: State | None = None, limit: int = 50) -> list[Job]:
        """The newest jobs first; one with a damaged file is listed as failed, and says so."""
        found: list[Job] = []
        for folder in self._folders():
            try:
                job = read_job(folder)
            except ToolError as error:
                job = Job(folder.name, kind or "", folder, "failed", str(error))
            if kind in (None, job.kind) and state in (None, job.state):
                found.append(job)
            if len(found) == limit:
                break
        return found

    def cancel(self, job_id: str) -> Job:
        """Kills every process of a job and waits until they are gone; what it wrote stays, and `start` resumes it."""
        folder = self.find(job_id).folder
        with self._lock():  # so that a start in progress has written its process down
            process = process_of(folder)
            runs = process is not None and alive(process)
            if runs:
                write_whole(folder / "cancelled", "")  # before the kill: a poll in between must not say "interrupted"
            _sweep(process)
        if runs and (folder / CANCEL).exists():
            write_whole(folder / "cancelled", _told_to_stop(folder))
        return read_job(folder)

    def forget(self, job_id: str) -> None:
        """Deletes the folder of a job that has ended. Raises ToolError while it runs."""
        with self._lock():
            job = self.find(job_id)
            if job.going:
                raise ToolError(f"job {job_id} runs: cancel it first")
            shutil.rmtree(job.folder)

    def result(self, job_id: str) -> Fields | None:
        """The result, None while there is none. Raises ToolError as `find` does."""
        return self.find(job_id).result

    def log(self, job_id: str, after: int = 0, limit: int | None = None) -> Lines:
        """The lines of the log after the first `after`, whole ones only: ask on with after + the number returned."""
        path = self.find(job_id).folder / "log.jsonl"
        if not path.is_file():
            return []
        lines = [line for _, line in objects(path.read_bytes())]
        return lines[after:] if limit is None else lines[after : after + limit]

    def _folder(self, job_id: str) -> Path:
        if not re.fullmatch(NAME, job_id):
            raise ToolError(f"{job_id[:40]!r} is no job id: write letters, digits, '.', '_', '-', at most 100")
        return self.root / job_id

    def _folders(self) -> Iterator[Path]:
        """The folders of jobs, newest first."""
        dated = []
        for path in self.root.glob("*/config.json"):
            try:
                dated.append((path.stat().st_mtime_ns, path.parent))
            except OSError:  # deleted meanwhile
                continue
        return (folder for _, folder in sorted(dated, reverse=True))

    def _refuse_crowd(self) -> None:
        most = int(os.environ.get(MAX_JOBS) or os.cpu_count() or 1)
        running = [folder.name for folder in self._folders() if _runs(folder)]
        if len(running) >= most:
            raise ToolError(f"{len(running)} jobs run already ({', '.join(running[:5])}): wait for one, or cancel one")

    @contextmanager
    def _lock(self, seconds: float = 5) -> Iterator[None]:
        """One server at a time starts or cancels; the system frees the lock however its holder ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + seconds
        with (self.root / ".lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > end:
                        raise ToolError(f"{self.root} is busy with another start or cancel: try again") from error
                    time.sleep(0.01)
                except OSError as error:
                    raise ToolError(f"{self.root} cannot be locked ({error}): set {JOBS} to a local folder") from error
            yield


def _plain(config: Mapping[str, JsonValue]) -> Fields:
    """The config as it comes back from its file."""
    try:
        plain: Fields = json.loads(json.dumps(dict(config), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ToolError(f"config: {error}; write numbers, texts, lists and objects of JSON") from error
    return plain


def _argv(folder: Path, argv_of: Callable[[Path], Sequence[str]]) -> Sequence[str]:
    """The command; a folder made for one that cannot be is taken away again."""
    undo = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        argv = argv_of(folder)
        undo = False
    finally:
        if undo:
            shutil.rmtree(folder)
    return argv


def _launch(folder: Path, argv: Sequence[str], nice: int, env: Mapping[str, str]) -> None:
    for name in ("cancelled", "errors.txt"):  # what an earlier attempt said is not this one's failure
        (folder / name).unlink(missing_ok=True)
    log = folder / "log.jsonl"
    _end_torn_line(log)
    since = log.stat().st_size
    command = ["nice", "-n", str(nice), *argv]
    started = start_process(command, log=log, errors=folder / "errors.txt", cwd=folder, env=env)
    write_json(folder / "process.json", {**asdict(started), "at": time.time(), "log_bytes": since})


def _end_torn_line(log: Path) -> None:
    """Lets the next line begin a line of its own, after an attempt that was killed as it wrote."""
    with log.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _sweep(process: Started | None) -> None:
    """Kills what is left of an attempt: it may have lost its first process and still have others."""
    if process is not None and start_ticks(process.pid) in (None, process.start_ticks):  # else the number is another's
        kill_tree(process.pid, process.mark)
        reap(process.pid)


def _runs(folder: Path) -> bool:
    try:
        process = process_of(folder)
    except ToolError:  # `find` says so; it must not keep others from starting
        return False
    return process is not None and alive(process)


def _told_to_stop(folder: Path) -> str:
    """Runs the command in cancel.json; returns what went wrong, "" when nothing did."""
    left = "see that nothing of the job is left in the queue"
    order = read_object(folder / CANCEL) or {}
    argv, names = order.get("argv"), order.get("variables", [])
    if not (isinstance(argv, list) and argv and isinstance(names, list)):
        return f"{CANCEL} is damaged: {left}"
    command = [str(item) for item in argv]
    env = environment({str(name): os.environ[str(name)] for name in names if str(name) in os.environ})
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} failed ({type(error).__name__}): {left}"
    return f"{command[0]} gave exit code {done.returncode}: {left}" if done.returncode else ""
