"""Runs one foreign command as a job: `python -m agentlab.tools._command FOLDER`.

Reads FOLDER/command.json, keeps the command's raw output in output.txt, turns the lines that its template knows into
JSON lines of progress, and writes result.json whole when the command ends with code 0. It knows nothing of any trainer.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from pydantic import JsonValue

from agentlab.files import write_json

Fields = dict[str, JsonValue]

LONGEST = 1 << 16
"""Bytes of one line; a longer one is read in pieces."""
MOST_OUTPUT = 1 << 26
"""Bytes of raw output that are kept; what comes later is read and left out."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_INTEGER = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Command:
    """What FOLDER/command.json says.

    Attributes:
        backend: Name of the template.
        argv: The command, no shell.
        cwd: Folder to run it in.
        environment: Variables to add.
        steps: Length of the run, where it is known.
        patterns: Regular expressions whose named groups are progress.
        json: Fields {ours: theirs} of output lines that are JSON; without any, such lines are not read.
        follow: A file whose lines are read like output, "" for none; relative to the job's folder.
        result_file: A JSON file that the command writes, "" for none.
        result_fields: Fields {ours: theirs} of the result, from that file or the newest progress; {} takes all.
    """

    backend: str
    argv: Sequence[str]
    cwd: str
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: int | None = None
    patterns: Sequence[str] = ()
    json: Mapping[str, str] = field(default_factory=dict)
    follow: str = ""
    result_file: str = ""
    result_fields: Mapping[str, str] = field(default_factory=dict)


def prepare(folder: Path, command: Command) -> list[str]:
    """Writes command.json and returns the argv that runs it; -P keeps modules in the folder from being imported."""
    write_json(folder / "command.json", asdict(command))
    return [sys.executable, "-P", "-m", "agentlab.tools._command", str(folder)]


class Progress:
    """Turns lines into progress; two threads may bring lines: the command's output, and a file that is followed."""

    def __init__(self, patterns: Sequence[str], json_fields: Mapping[str, str]) -> None:
        self._patterns, self._json = [re.compile(p) for p in patterns], json_fields
        self._lock = threading.Lock()
        self.newest: Fields = {}
        self.last = ""
        self.error: Fields = {}

    def line(self, raw: bytes) -> None:
        """Takes one line of output."""
        text = _COLOUR.sub("", raw.decode(errors="replace")).strip()
        if not text:
            return
        with self._lock:
            self.last = text
            fields = self._fields(text)
            if fields:
                self.newest |= fields
                emit("progress", **fields)

    def _fields(self, text: str) -> Fields:
        for pattern in self._patterns:
            if match := pattern.search(text):
                values = {k: value_of(v) for k, v in match.groupdict().items() if v is not None}
                return {k: v for k, v in values.items() if v is not None}
        if not (self._json and text.startswith("{")):
            return {}
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        if found.get("event") == "error":
            self.error = found
        return picked(found, self._json)


def value_of(text: str) -> float | None:
    """The number that a text writes ("1,234" does), None where it writes none."""
    plain = text.replace(",", "").strip()
    try:
        return int(plain) if _INTEGER.fullmatch(plain) else float(plain)
    except ValueError:
        return None


def picked(found: Mapping[str, JsonValue], fields: Mapping[str, str]) -> Fields:
    """The fields {ours: theirs} that are there, as ours; all plain values where none are named."""
    if not fields:
        return {k: v for k, v in found.items() if isinstance(v, str | int | float)}
    return {ours: found[theirs] for ours, theirs in fields.items() if theirs in found}


def clean(fields: Mapping[str, JsonValue]) -> Fields:
    """Numbers that are not finite become null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}


def emit(event: str, **fields: JsonValue) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps({"event": event, **clean(fields)}) + "\n")
    sys.stdout.flush()


def follow(path: Path, ended: threading.Event, progress: Progress) -> None:
    """Brings the lines that others append to a file, until the command has ended and the file is read."""
    position, kept = 0, b""
    while True:
        last_look = ended.wait(0.2)
        if path.is_file():
            with path.open("rb") as file:
                file.seek(position)
                block = file.read()
            position += len(block)
            *whole, kept = (kept + block).split(b"\n")
            for line in whole:
                progress.line(line)
        if last_look:
            progress.line(kept)
            return


def pump(output: IO[bytes], kept: Path, progress: Progress) -> None:
    """Reads the command's output to its end."""
    with kept.open("ab", buffering=0) as raw:
        room = MOST_OUTPUT - kept.stat().st_size
        while line := output.readline(LONGEST):
            raw.write(line[: max(0, room)])
            room -= len(line)
            progress.line(line)


def run(folder: Path) -> int:
    """Exit code: 0 with a result, 1 the command failed or told nothing, 2 it could not be started."""
    order = Command(**json.loads((folder / "command.json").read_text(encoding="utf-8")))
    progress, began = Progress(order.patterns, order.json), time.monotonic()
    with (folder / "lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            emit("start", backend=order.backend, **({} if order.steps is None else {"steps": order.steps}))
            process = subprocess.Popen(
                order.argv, cwd=order.cwd, env={**os.environ, **order.environment}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(held.fileno(),),
            )  # fmt: skip
        except BlockingIOError:
            return failed("another process of this job runs there", "cancel it first")
        except OSError as error:
            return failed(f"cannot be started: {error}", "write the path of a program in argv", order.argv[0])
        ended = threading.Event()
        follower = threading.Thread(target=follow, args=(folder / order.follow, ended, progress))
        if order.follow:
            follower.start()
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        pump(process.stdout, folder / "output.txt", progress)
        code = process.wait()
        ended.set()
        if order.follow:
            follower.join()
    if code:
        if progress.error:
            emit("error", **{k: v for k, v in progress.error.items() if k != "event"})
            return 1
        what = f"ended with code {code}: {progress.last[:200]}"
        failed(what, f"see {folder / 'output.txt'}", Path(order.argv[0]).name)
        return 1
    return finish(folder, order, progress.newest, time.monotonic() - began)


def failed(what: str, instead: str, where: str = "command") -> int:
    """Says why there is no result."""
    emit("error", where=where, what=what, instead=instead)
    return 2


def finish(folder: Path, order: Command, newest: Fields, seconds: float) -> int:
    """Writes the result: the newest progress, and over it what the template picks from it or from a file."""
    found: Mapping[str, JsonValue] = newest
    if order.result_file:
        path = folder / str(order.result_file)
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            failed(f"no JSON object in it: {error}", "write in [result] file what the command writes", str(path))
            return 1
    chosen = picked(found, order.result_fields)
    if not chosen:
        failed("ended well but told nothing that is known", "correct [progress] or [result] of its template")
        return 1
    result = {**newest, **chosen}
    wild = [k for k in ("loss", "valid_loss") if isinstance(v := result.get(k), float) and not math.isfinite(v)]
    whole = {**clean(result), "status": "diverged" if wild else "ok", "backend": order.backend, "seconds": seconds}
    write_json(folder / "result.json", whole)
    emit("done", **whole)
    return 0


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
