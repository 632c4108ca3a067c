"""Kills runs with -9 at random moments and resumes them: `python bench/kill_resume.py [KILLS]`.

Every kill ends the whole process group (the run and its tool servers) at a moment drawn evenly over the time that an
undisturbed run takes; after each the run is resumed in full and its trace compared, byte by byte, with the undisturbed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import about, save

AGENTLAB = Path(sys.executable).with_name("agentlab")
TRUTH = "E = 1.69, A = 406.4, a = .34, B = 410.7, b = .28, 0.5% noise (synthetic)"


def write_rows(path: Path) -> None:
    """48 runs of a planted Chinchilla law."""
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 9, 48), 10 ** rng.uniform(9, 11, 48)
    loss = (1.69 + 406.4 / n**0.34 + 410.7 / d**0.28) * np.exp(0.005 * rng.normal(size=48))
    lines = ["n,d,loss", *(f"{a!r},{b!r},{c!r}" for a, b, c in zip(n.tolist(), d.tolist(), loss.tolist(), strict=True))]
    path.write_text("\n".join(lines) + "\n")


def start(folder: Path, *given: str) -> subprocess.Popen[bytes]:
    """A run in a process group of its own."""
    command = [str(AGENTLAB), *given, "--plain"]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def discover_words() -> list[str]:
    """The run that is killed."""
    return [
        "discover",
        "data=rows.csv",
        "target=loss",
        "features=n,d",
        "holdout=n*d>1e19",
        "budget.candidates=64",
        "window=16",
        "seed=1",
    ]


def killed_once(folder: Path, moment: float) -> tuple[bytes, int]:
    """The trace of a run killed at `moment` (s) and resumed, and how many lines it had when it was killed."""
    write_rows(folder / "rows.csv")
    process = start(folder, *discover_words())
    run = folder / "runs" / "rows.csv-001"
    begin = time.monotonic()
    while process.poll() is None and (time.monotonic() - begin < moment or not (run / "config.json").exists()):
        time.sleep(0.005)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    trace = run / "trace.jsonl"
    lines = trace.read_bytes().count(b"\n") if trace.exists() else 0
    if start(folder, "runs", "resume", str(run)).wait():
        raise SystemExit(f"resume failed after a kill at {moment:.2f} s")
    return trace.read_bytes(), lines


def main() -> None:
    """Run, print a table and a JSON line, keep the result."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as name:
        write_rows(Path(name) / "rows.csv")
        begin = time.monotonic()
        start(Path(name), *discover_words()).wait()
        seconds = time.monotonic() - begin
        whole = (Path(name) / "runs" / "rows.csv-001" / "trace.jsonl").read_bytes()
    rng = np.random.default_rng(0)
    same, at = 0, []
    for i in range(kills):
        moment = float(rng.uniform(0.3, seconds))
        with tempfile.TemporaryDirectory() as name:
            trace, lines = killed_once(Path(name), moment)
        same += trace == whole
        at.append(lines)
        verdict = "same" if trace == whole else "DIFFERENT"
        print(f"kill {i + 1:2d} at {moment:6.2f} s with {lines:4d} lines on record: {verdict}")
    result = {"bench": "kill_resume", "kills": kills, "identical": same, "lines_at_kill": at, "trace_bytes": len(whole)}
    print(json.dumps(result | about()))
    save(result)
    sys.exit(same != kills)


if __name__ == "__main__":
    main()
