"""The loop over experiments, on the real tool servers: simulated runs with planted truth, cheap enough to repeat."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import scripted_search

from agentlab import runs
from agentlab.discover_state import Progress
from agentlab.errors import AgentlabError
from agentlab.experiments_plan import next_runs
from agentlab.table import intake
from agentlab.types import Approve, Budget, RunConfig
from agentlab.words import read_words, refuse_unused

AGENTLAB = [str(Path(sys.executable).with_name("agentlab"))]

TOML = """
[task]
title = "Synthetic: a law of size and data, with costs"
scale = "6*N*D"
[[feature]]
name = "N"
[[feature]]
name = "D"
[target]
columns = ["loss"]
[law]
max_params = 5
residual = "log"
[data]
train = "rows.csv"
[design]
tool = "train.start"
poll = "train.status"
cancel = "train.cancel"
progress = "train.segments"
cost = "6*N*D"
noise = 0.01
seed = "seed"
require = ["N <= D"]
[design.arguments]
backend = "simulator"
[design.arguments.truth]
law = "1.7 + 360/N**0.35 + 1800/D**0.34"
noise = 0.01
params = {}
[[design.knob]]
name = "N"
low = 2e7
high = 2e9
levels = 5
[[design.knob]]
name = "D"
low = 4e8
high = 4e10
levels = 5
[design.config]
N = "= N"
D = "= D"
segments = 4
[design.targets]
loss = "valid_loss"
"""


def rows() -> str:
    """A few noisy runs of the planted law, so that the decision is still open."""
    told = ["N,D,loss"]
    for i, (n, d) in enumerate([(n, d) for n in (2e7, 6e7, 2e8) for d in (4e8, 1e9, 2e9, 4e9)]):
        noise = 0.02 * math.sin(7.0 * i)
        told.append(f"{n:g},{d:g},{(1.7 + 360 / n**0.35 + 1800 / d**0.34) * math.exp(noise):.6f}")
    return "\n".join(told) + "\n"


WORDS = ("experiments=1", "budget.flops=1e20", "budget.candidates=10", "workers=1")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with the task `toy`, its table changed as told."""

    def write(replaced: Mapping[str, str] = MappingProxyType({})) -> Path:
        place = tmp_path_factory.mktemp("toy")
        (place / "toy").mkdir()
        text = TOML
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        (place / "toy" / "task.toml").write_text(text)
        (place / "toy" / "rows.csv").write_text(rows())
        return place

    return write


def agentlab(place: Path, *words: str, code: int = 0) -> str:
    """What a command prints; its exit code is checked."""
    done = subprocess.run([*AGENTLAB, *words], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout if not code else done.stderr


def trace(place: Path, run: str = "toy-001") -> list[dict[str, Any]]:
    """The records of a run's trace."""
    return [json.loads(line) for line in (place / "runs" / run / "trace.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def ended(make: Callable[..., Path]) -> Path:
    """A folder with a loop that ran to its end."""
    place = make()
    told = json.loads(agentlab(place, "discover", "task=toy", *WORDS, "--json").splitlines()[-1])
    (place / "told.json").write_text(json.dumps(told))
    return place


def test_every_run_is_on_record_with_its_configuration_seed_and_flops(ended: Path) -> None:
    records = trace(ended)
    assert "+" in records[0]["code"]
    asked = [r for r in records if r["kind"] == "experiment"]
    measured = [r for r in records if r["kind"] == "measured"]
    assert [r["id"] for r in measured] == [r["id"] for r in asked] == list(range(len(asked)))
    assert 1 <= len(asked) <= 2
    assert all(r["status"] == "ok" and r["simulated"] and r["targets"]["loss"] > 1.5 for r in measured)
    assert all(r["config"]["N"] <= r["config"]["D"] and r["config"]["seed"] == r["seed"] for r in asked)
    assert sum(r["flops"] for r in measured) <= 1e20
    assert len({(r["config"]["N"], r["config"]["D"], r["seed"]) for r in asked}) == len(asked)
    assert not any(key in json.dumps(records) for key in ("seconds_took", str(ended), "toy-001"))


def test_the_rows_of_a_round_are_those_before_it_and_what_was_measured(ended: Path) -> None:
    rounds = [r for r in trace(ended) if r["kind"] == "round"]
    assert [r["rows"] for r in rounds] == [12 + r["runs"] for r in rounds]
    assert rounds[0]["runs"] == 0
    assert all(r["laws"] and r["decision"] for r in rounds)


def test_the_result_counts_runs_flops_and_candidates_and_says_that_they_were_simulated(ended: Path) -> None:
    told = json.loads((ended / "told.json").read_text())
    measured = [r for r in trace(ended) if r["kind"] == "measured"]
    assert told["cost"]["flops"] == pytest.approx(sum(r["flops"] for r in measured))
    assert told["counts"]["experiments"]["made"] == len(measured)
    assert told["counts"]["evaluated"] > 5
    assert "simulated" in told["verdict"]
    page = agentlab(ended, "runs", "show", "toy-001")
    assert "FLOPs (simulated: nothing was trained)" in page


def test_the_next_runs_are_planned_with_their_cost_and_what_each_settles(ended: Path) -> None:
    found = next_runs(ended / "runs" / "toy-001", 1e22, runs=3)
    assert found is not None
    assert 1 <= len(found) <= 3
    assert all(r.flops == pytest.approx(6 * r.columns["N"] * r.columns["D"]) and 0 < r.closes <= 1 for r in found)
    configs = [json.dumps(r.config) for r in found]
    assert len(set(configs)) == len(configs), "a repeat has another seed"
    assert min(r.config["seed"] for r in found) >= 1000
    page = agentlab(ended, "plan", "toy-001", "--flops", "1e22", "--runs", "3")
    assert "what it settles" in page
    assert "/toy experiments=" in page.strip().splitlines()[-1]


def looped(make: Callable[..., Path], **changed: Any) -> Path:
    """The folder of a new loop over experiments whose searches will be scripted."""
    place = make(changed.pop("replaced", {}))
    budget = Budget(candidates=20, flops=changed.pop("flops", 1e20))
    config = RunConfig(task=str(place / "toy"), out=str(place / "runs"), budget=budget, **{"experiments": 5} | changed)
    return runs.create(config, intake(config))


def test_a_loop_that_breaks_off_anywhere_resumes_to_the_same_bytes_and_makes_no_run_twice(
    make: Callable[..., Path],
) -> None:
    whole, broken = looped(make), looped(make)
    records = scripted_search.carry_out(whole)
    made = sum(r["kind"] == "measured" for r in records)
    assert made >= 4
    for after in range(1, made + 1):

        def watch(progress: Progress, after: int = after) -> None:
            if progress.notes and progress.committed == after:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            scripted_search.carry_out(broken, watch)
    jobs = {p.name: (p / "job.json").read_bytes() for p in (broken / "jobs").glob("x*")}
    scripted_search.carry_out(broken)
    assert (broken / "trace.jsonl").read_bytes() == (whole / "trace.jsonl").read_bytes()
    assert {p.name: (p / "job.json").read_bytes() for p in (broken / "jobs").glob("x*")} == jobs
    assert len(jobs) == made


def test_a_loop_killed_while_runs_are_made_finds_them_again(make: Callable[..., Path]) -> None:
    slow = {"noise = 0.01\nparams": "noise = 0.01\nseconds = 1.0\nparams"}
    folder, whole = looped(make, replaced=slow, experiments=2), looped(make, replaced=slow, experiments=2)
    script = [sys.executable, str(Path(__file__).with_name("scripted_search.py")), str(folder)]
    process = subprocess.Popen(script, start_new_session=True)
    while process.poll() is None and not (folder / "jobs" / "x0000" / "job.json").exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    was = (folder / "jobs" / "x0000" / "job.json").read_bytes()
    assert scripted_search.carry_out(folder) == scripted_search.carry_out(whole)
    assert (folder / "jobs" / "x0000" / "job.json").read_bytes() == was


def test_runs_that_the_tool_refuses_end_as_named_rejects_and_the_loop_goes_on(make: Callable[..., Path]) -> None:
    folder = looped(make, replaced={"360/N**0.35": "360/(N - 2e7)**0.35"}, design="grid")
    records = scripted_search.carry_out(folder)
    measured = [r for r in records if r["kind"] == "measured"]
    rejected = [r["reason"] for r in measured if r["status"] == "rejected"]
    assert rejected
    assert all(reason.startswith("refused: ") and "\n" not in reason for reason in rejected)
    assert [r for r in records if r["kind"] == "round"][-1]["rows"] == 12 + len(measured) - len(rejected)
    assert records[-1]["kind"] == "law"


def test_dear_runs_wait_for_approval_and_are_not_made_when_denied(make: Callable[..., Path]) -> None:
    folder = looped(make, approve=Approve(flops=1e3))
    with pytest.raises(AgentlabError, match=r"approve\.flops.*--approve"):
        scripted_search.carry_out(folder)
    records = scripted_search.carry_out(folder, answer=False)
    assert [r["approved"] for r in records if r["kind"] == "approval"] == [False]
    assert not any(r["kind"] == "measured" for r in records)
    assert next(r["reason"] for r in records if r["kind"] == "stop") == "denied"
    approved = scripted_search.carry_out(looped(make, approve=Approve(flops=1e3)), answer=True)
    assert all(r["approved"] for r in approved if r["kind"] == "approval")
    assert any(r["kind"] == "measured" for r in approved)


def test_a_sealed_budget_is_refused_as_an_experiment(make: Callable[..., Path]) -> None:
    sealed = {'train = "rows.csv"\n': 'train = "rows.csv"\nsealed_flops = 4e16\n'}
    records = scripted_search.carry_out(looped(make, replaced=sealed, experiments=2))
    reasons = [r["reason"] for r in records if r["kind"] == "measured"]
    assert reasons
    assert all("sealed hold-out" in reason for reason in reasons)


def test_equal_budgets_are_kept_by_every_design(make: Callable[..., Path]) -> None:
    for how in ("random", "isoflop"):
        records = scripted_search.carry_out(looped(make, design=how, flops=3e18))
        spent = sum(r["flops"] for r in records if r["kind"] == "measured")
        assert 0 < spent <= 3e18


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("experiments=2", "budget.flops=1e3"), "the cheapest run of toy costs 4.8e+16"),
        (("experiments=2", "budget.flops=-1"), "budget.flops=-1 is not more than 0"),
        (("budget.flops=1e12",), "add experiments=N"),
        (("replicas=2",), "add experiments=N"),
        (("experiments=2", "replicas=9"), "replicas=9"),
        (("experiments=-1",), "experiments=-1"),
        (("experiments=2", "design=best"), "design=best"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(
    make: Callable[..., Path], words: tuple[str, ...], said: str
) -> None:
    place = make()
    with pytest.raises(AgentlabError) as told:
        asked(place, f"task={place / 'toy'}", *words)
    assert said in str(told.value)
    assert len(str(told.value).splitlines()) == 1
    assert not (place / "runs").exists()


def test_a_task_without_a_design_space_says_how_to_write_one(make: Callable[..., Path]) -> None:
    with pytest.raises(AgentlabError, match=r"\[design\]"):
        asked(make(), "task=planted_broken", "experiments=2")


def asked(place: Path, *words: str) -> None:
    """What `agentlab discover` does before anything is run."""
    config = read_words([*words, f"out={place / 'runs'}"], RunConfig)
    refuse_unused(config)
    runs.create(config, intake(config))
