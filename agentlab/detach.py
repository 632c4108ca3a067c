"""Runs that outlive the command that started them: which process is at a run, whether it still is, and its end."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from agentlab.envs._processes import Started, alive, kill_tree, reap, start
from agentlab.errors import AgentlabError, EvaluationError
from agentlab.files import write_json

PROCESS = "detach.json"
"""File in a run's folder that names the process which was started to carry it out."""
OUTPUT = "output.txt"
"""What that process printed: progress, and at the end the run's result as one line of JSON."""
STOPPED = "stop.asked"
"""File that says that somebody asked the run to stop."""

_RESUME = ("-P", "-c", "from agentlab.cli import main; main()", "runs", "resume")

Life = Literal["none", "running", "stopping", "ended"]
"""Whether a process of its own was started for a run, and whether it still runs."""


def launch(folder: Path) -> Started:
    """Start `agentlab runs resume FOLDER` in a session of its own; it outlives this process and its terminal."""
    whole = folder.resolve()
    (whole / STOPPED).unlink(missing_ok=True)
    argv = [sys.executable, *_RESUME, str(whole), "--json", "--plain"]
    output = whole / OUTPUT
    started = start(argv, log=output, errors=output, cwd=Path.cwd(), env=os.environ)
    write_json(whole / PROCESS, asdict(started))
    return started


def process_of(folder: Path) -> Started | None:
    """The process that was started last for a run, None where it was not started with --detach.

    Raises:
        EvaluationError: the file that names it is damaged.
    """
    try:
        return Started(**json.loads((folder / PROCESS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise EvaluationError(
            f"{folder / PROCESS} is damaged; delete it, then: agentlab runs resume {folder}"
        ) from error


def life(folder: Path) -> Life:
    """Whether the process of a run still runs."""
    process = process_of(folder)
    if process is None:
        return "none"
    if not alive(process):
        reap(process.pid)
        return "ended"
    return "stopping" if (folder / STOPPED).exists() else "running"


def stop(folder: Path, *, now: bool = False) -> Life:
    """Ask a run to finish its step and report, as Ctrl-C does; asking again changes nothing. What it was is returned.

    With `now` its processes are killed instead: `agentlab runs resume` continues it.

    Raises:
        AgentlabError: the run was started in a terminal: no process is known that could be told.
    """
    process, was = process_of(folder), life(folder)
    if process is None:
        raise AgentlabError(f"{folder.name} was not started with --detach; press Ctrl-C where it runs")
    if now and was in ("running", "stopping"):
        (folder / STOPPED).touch()
        kill_tree(process.pid, process.mark)
        reap(process.pid)
    elif was == "running":
        (folder / STOPPED).touch()
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
    return was
