"""The loop, through the command line: same bytes, any workers, killed and resumed, bad input, shared folders."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_selection import planted

from agentlab.trace import read

AGENTLAB = Path(sys.executable).with_name("agentlab")


def write_csv(path: Path, columns: dict[str, Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    _, rows = planted(48, seed=5)
    columns = {k: v.tolist() for k, v in {**rows.columns, **rows.targets}.items()}
    return write_csv(tmp_path / "runs.csv", columns)


def words(data: Path, *more: str) -> list[str]:
    return [f"data={data}", "target=loss", "features=N,D", "monotone=N:-,D:-", "holdout=N*D>1e19", *more]


SMALL = ("budget.candidates=16", "window=8", "seed=3")
"""Few candidates: most of a short run is its end, where each of the best is judged in earnest."""


def agentlab(*given: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    if given[:1] == ("discover",) and not any(
        "workers=" in word or "engine=" in word or word == "--dry-run" for word in given
    ):
        given = (*given, "workers=1")  # starts soonest; the trace is the same with any number
    done = subprocess.run([str(AGENTLAB), *given], cwd=cwd, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(done.stderr)
    return done


def trace_of(folder: Path) -> bytes:
    return (folder / "trace.jsonl").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    """The trace and result of one small run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    _, rows = planted(48, seed=5)
    path = write_csv(folder / "runs.csv", {k: v.tolist() for k, v in {**rows.columns, **rows.targets}.items()})
    done = agentlab("discover", *words(path, *SMALL), "workers=2", "--json", cwd=folder)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return trace_of(folder / result["dir"]), result


def test_the_last_line_of_json_keeps_the_contract(uninterrupted: tuple[bytes, dict[str, Any]]) -> None:
    _, result = uninterrupted
    assert {"run", "dir", "task", "seed", "proposer", "law", "score", "counts", "cost", "verdict"} <= result.keys()
    assert {"formula", "latex", "key", "n_params", "params"} <= result["law"].keys()
    assert set(result["law"]["params"]) == {"all"}
    figures = {"r2", "nmse", "nmae", "mae", "are", "n"}
    assert set(result["score"]["dev"]) == figures
    assert set(result["score"]["holdout"]) == figures
    assert result["score"]["reference_holdout"] is None
    assert {"seconds", "usd", "flops"} == result["cost"].keys()
    counts = result["counts"]
    assert counts["evaluated"] + sum(counts["rejected"].values()) == 16
    for name, (low, high) in result["law"]["intervals"]["all"]["loss"].items():
        assert low <= high, name


def test_a_planted_law_is_found_and_extrapolates(uninterrupted: tuple[bytes, dict[str, Any]]) -> None:
    _, result = uninterrupted
    assert result["score"]["holdout"]["r2"] > 0.9


def test_every_figure_shown_stands_in_the_trace_and_no_path_or_time_does(
    uninterrupted: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    trace, result = uninterrupted
    (tmp_path / "t").write_bytes(trace)
    records = list(read(tmp_path / "t"))
    law = next(r for r in records if r["kind"] == "law")
    assert result["law"]["formula"] == law["formula"]
    assert result["score"]["dev"] == law["dev"]
    entries = [r for r in records if r["kind"] == "entry"]
    assert [r["id"] for r in entries] == list(range(16))
    assert entries[law["entry"]]["formula"] == law["formula"]
    assert records[0]["schema"] == 1
    assert b"/" + b"tmp" not in trace
    assert result["run"].encode() not in trace


def test_the_same_seed_writes_the_same_bytes_with_any_number_of_workers(
    data: Path, tmp_path: Path, uninterrupted: tuple[bytes, dict[str, Any]]
) -> None:
    agentlab("discover", *words(data, *SMALL), "workers=1", "--plain", cwd=tmp_path)
    assert trace_of(tmp_path / "runs" / "runs.csv-001") == uninterrupted[0]


@pytest.mark.parametrize("seed", [1])
def test_a_run_killed_at_random_moments_and_resumed_writes_the_same_bytes(
    data: Path, tmp_path: Path, uninterrupted: tuple[bytes, dict[str, Any]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path / "runs" / "runs.csv-001"
    command = [str(AGENTLAB), "discover", *words(data, *SMALL), "workers=1", "--plain"]
    kills = 0
    while True:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        # The first run is let live long enough to make its folder; the later ones may die at once.
        moment = rng.uniform(0.5, 5.0)
        end = time.monotonic() + moment
        while process.poll() is None and (time.monotonic() < end or not (folder / "config.json").exists()):
            time.sleep(0.02)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        command = [str(AGENTLAB), "runs", "resume", str(folder), "--plain"]
        if kills == 4:
            agentlab("runs", "resume", str(folder), "--plain", cwd=tmp_path)
            break
    assert kills >= 1
    assert trace_of(folder) == uninterrupted[0]


def test_interrupting_once_finishes_the_step_and_reports(data: Path, tmp_path: Path) -> None:
    command = [str(AGENTLAB), "discover", *words(data, "budget.candidates=100000", "window=8", "workers=1"), "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    trace = tmp_path / "runs" / "runs.csv-001" / "trace.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (trace.exists() and b'"entry"' in trace.read_bytes()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["law"]["formula"]
    assert [r["reason"] for r in read(trace) if r["kind"] == "stop"] == ["interrupted"]


def test_two_runs_share_a_folder(data: Path, tmp_path: Path) -> None:
    more = ("budget.candidates=4", "window=4", "workers=1")
    command = [str(AGENTLAB), "discover", *words(data, *more), "out=shared", "--plain"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    folders = [tmp_path / "shared" / f"runs.csv-00{i}" for i in (1, 2)]
    end = time.monotonic() + 120
    while time.monotonic() < end and not all((f / "trace.jsonl").exists() and b"entry" in trace_of(f) for f in folders):
        time.sleep(0.1)
    for process in both:
        process.kill()
        process.wait()
    assert sorted((tmp_path / "shared").iterdir()) == folders
    first, second = (trace_of(f).splitlines()[:2] for f in folders)
    assert first == second


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("N,D,loss\n1,2,3\n", (), "row"),
        ("N,D,loss\n" + "1,2,nan\n" * 9, (), "loss"),
        ("N,D,loss\n1e7,1e9,3\n1e8,many,2.9\n1e9,1e9,2.8\n2e9,1e9,2.7\n", (), "line 3"),
        ("N,D,lost\n1,2,3\n", (), "no column 'loss'"),
        ("", (), "empty"),
        ("N,D,loss,g\n" + "1e7,1e9,3,a\n2e7,1e9,2.9,\n" * 5, ("group=g",), "line 3"),
        ("N,D,loss\n" + "1e7,1e9,3\n2e7,1e9,2.9\n" * 5, ("budget.candidate=5",), "budget.candidates"),
        ("N,D,loss\n" + "1e7,1e9,3\n2e7,1e9,2.9\n" * 5, ("out=/proc/no",), "out="),
        ("N,D,loss\n" + "1e7,1e9,3\n2e7,1e9,2.9\n" * 5, ("proposer=mutat",), "mutate"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(tmp_path: Path, text: str, more: tuple[str, ...], said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    done = agentlab("discover", f"data={path}", "target=loss", "features=N,D", *more, cwd=tmp_path, check=False)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert said in lines[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_unknown_task_names_the_nearest(tmp_path: Path) -> None:
    done = agentlab("discover", "task=moe_leverge", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "moe_leverage" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_without_any_law_ends_with_code_3(data: Path, tmp_path: Path) -> None:
    (tmp_path / "hopeless.py").write_text(HOPELESS)
    given = ("proposer=hopeless:Hopeless", "budget.candidates=3", "window=2", "workers=1")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [str(AGENTLAB), "discover", *words(data, *given)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "raise budget.candidates=" in done.stderr
    reasons = [r["reason"] for r in read(tmp_path / "runs" / "runs.csv-001" / "trace.jsonl") if r["kind"] == "entry"]
    assert reasons == ["non-finite"] * 3


HOPELESS = """
from agentlab.types import Proposal


class Hopeless:
    name = "hopeless"

    def __init__(self, task, seed):
        pass

    def ask(self, index, archive, pending):
        text = f"a + log(-{index + 1}*N)"
        return Proposal(index, "fit.laws", text, text, "hopeless", "list")
"""


def test_a_tool_that_fails_ends_the_run_with_code_4_and_a_resume_can_follow(data: Path, tmp_path: Path) -> None:
    command = [str(AGENTLAB), "discover", *words(data, "window=8", "budget.candidates=5000", "workers=1"), "--plain"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "runs" / "runs.csv-001"
    end = time.monotonic() + 120
    while time.monotonic() < end and not ((run / "trace.jsonl").exists() and b'"entry"' in trace_of(run)):
        time.sleep(0.05)
    busy = agentlab("runs", "resume", str(run), cwd=tmp_path, check=False)
    assert busy.returncode == 2
    assert "is being run by another process" in busy.stderr
    (run / "rows.npz").rename(run / "gone.npz")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4
    assert "rows.npz" in err.splitlines()[-1]
    (run / "gone.npz").rename(run / "rows.npz")


@pytest.mark.parametrize("given", ["experiments=5", "blind=true", "budget.usd=1", "replicas=2"])
def test_a_key_whose_part_is_not_built_is_refused_not_ignored(data: Path, tmp_path: Path, given: str) -> None:
    done = agentlab("discover", *words(data, given), cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert given.partition("=")[0] in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_search_without_a_gain_stops_and_resumes_to_the_same_bytes(data: Path, tmp_path: Path) -> None:
    given = (*words(data), "budget.candidates=200", "patience=4", "window=4", "seed=1")
    done = agentlab("discover", *given, "--json", cwd=tmp_path)
    folder = tmp_path / json.loads(done.stdout.splitlines()[-1])["dir"]
    records = list(read(folder / "trace.jsonl"))
    stop = next(r for r in records if r["kind"] == "stop")
    assert stop["reason"] == "no gain"
    assert 4 <= stop["asked"] < 200
    whole = trace_of(folder)
    entries = [line for line in whole.splitlines(keepends=True) if b'"kind":"entry"' in line or b'"kind":"run"' in line]
    (folder / "trace.jsonl").write_bytes(b"".join(entries))
    agentlab("runs", "resume", str(folder), cwd=tmp_path)
    assert trace_of(folder) == whole


def test_noise_is_no_law_and_predict_uses_the_baseline(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    size = np.geomspace(1e6, 1e9, 40)
    path = write_csv(tmp_path / "noise.csv", {"N": size.tolist(), "loss": (3 + 0.2 * rng.normal(size=40)).tolist()})
    given = (f"data={path}", "target=loss", "features=N", "budget.candidates=10", "window=4")
    result = json.loads(agentlab("discover", *given, "--json", cwd=tmp_path).stdout.splitlines()[-1])
    assert set(result["baselines"]["dev"]) == {"nearest neighbour", "group mean", "last rung"}
    assert result["luck"]["law_gain"] < 0.3
    write_csv(tmp_path / "points.csv", {"N": [1e10]})
    point = ("predict", result["run"], "data=points.csv")
    answer = json.loads(agentlab(*point, "--json", cwd=tmp_path).stdout.splitlines()[-1])
    assert answer["by"] == (result["baselines"]["beaten_by"] or "law")
    assert 2.5 < answer["columns"]["loss"][0] < 3.5
    by_law = json.loads(agentlab(*point, "by=law", "--json", cwd=tmp_path).stdout.splitlines()[-1])
    assert by_law["by"] == "law"
    if result["baselines"]["beaten_by"]:
        assert "no law beats the baseline" in result["verdict"]


def test_a_single_largest_run_is_a_table_like_any_other(tmp_path: Path) -> None:
    size = [1e3, 1e4, 1e5, 1e6, 1e7]
    path = write_csv(tmp_path / "five.csv", {"E": size, "loss": [2 + 3 * n**-0.3 for n in size]})
    given = (f"data={path}", "target=loss", "features=E", "max_params=2", "budget.candidates=8", "window=4")
    result = json.loads(agentlab("discover", *given, "--json", cwd=tmp_path).stdout.splitlines()[-1])
    assert result["law"]["formula"]
    assert result["luck"]["candidates"] > 0
