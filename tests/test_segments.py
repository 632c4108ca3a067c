"""Training in voted segments: whatever breaks in one replica, the run ends as if nothing had."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trained
from agentlab.envs._processes import environment, start_ticks
from agentlab.tools import _segments, _train_log, train
from agentlab.tools._jobs import Store
from agentlab.tools._segments_replicas import Replicated
from faulty_trainer import KINDS, Fault, Kind, warm, write_faults
from train_calls import ask, call, refusal, until, until_step

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs agentlab-discovery[train]", allow_module_level=True)

TINY: dict[str, Any] = {
    "d_model": 16, "n_layers": 1, "n_heads": 1, "d_ff": 32, "context": 32, "batch_sequences": 4, "lr": 0.01,
    "report_every": 2, "steps": 12, "segments": 2, "valid_sequences": 16, "device": "cpu",
}  # fmt: skip
THREE = {**TINY, "segments": 3}
WILD = {"lr": 10.0, "weight_decay": 10.0, "clip": 0.0, "warmup_share": 0.0, "steps": 60}
USED = ord("e") * TINY["d_model"]
"""A weight of the embedding of a byte that the text has."""
STALL = 2.5
"""Seconds: far above what lies between two lines of a sound replica, on a busy machine too."""
CAUGHT_AS = {"nan": "nan", "killed": "died", "truncated": "checksum", "stalled": "stall"}
Line = dict[str, Any]


@dataclass(frozen=True)
class World:
    """Where runs are trained: a text, a trainer that can be broken, and what every run must come to.

    That is the result of a trainer that goes straight through, and its model by number of segments, which it names.
    """

    folder: Path
    corpus: Path
    command: tuple[str, ...]
    result: Line
    models: dict[int, bytes]

    def ask(self, name: str, config: Line, faults: Sequence[Fault] = (), **voting: Any) -> Path:
        """A folder with a run that can be supervised."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        worker = (*self.command, str(write_faults(folder / "faults.json", faults)))
        rules = {"replicas": 2, "stall": None, "tolerance": 0.0} | voting
        asked = Replicated({**config, "corpus": str(self.corpus)}, worker=worker, **rules)
        path: Path = _segments.write_order(folder, asked)
        return path

    def alone(self, name: str, config: Line) -> Line:
        """The result of the trainer by itself, without segments that are voted on."""
        path = self.ask(name, config)
        path.write_text(json.dumps({**config, "corpus": str(self.corpus), "out": str(path.parent)}))
        faults = str(path.parent / "faults.json")
        subprocess.run([*self.command, faults, str(path)], stdout=subprocess.DEVNULL, timeout=60, check=True)
        return result_of(path.parent)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, text = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("text")
    trained.write_corpus(text)
    with warm(tmp_path_factory.mktemp("warm")) as command:
        bare, models = World(folder, text, command, {}, {}), {}
        for config in (THREE, TINY):
            result = bare.alone("alone", config)
            models[config["segments"]] = (folder / "alone" / "model.safetensors").read_bytes()
        yield World(folder, text, command, result, models)


def result_of(folder: Path) -> Line:
    """result.json but for its time."""
    result: Line = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    return result


def run(path: Path, code: int = 0) -> list[Line]:
    """Supervises a run to its end; what it told."""
    lines: list[Line] = []
    found = _segments.supervise(path, lines.append)
    assert found == code, lines[-1]
    return lines


def ends(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line["event"] == "segment"]


def as_if_nothing_broke(world: World, path: Path, segments: int = 2) -> None:
    assert result_of(path.parent) == world.result
    assert (path.parent / "model.safetensors").read_bytes() == world.models[segments]
    assert not (path.parent / "agreed").exists()
    assert not (path.parent / "work").exists()


# ---- without a fault ----


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_sound_run_in_segments_has_the_bytes_of_one_that_went_straight_through(world: World, replicas: int) -> None:
    path = world.ask("sound", TINY, replicas=replicas)
    lines = run(path)
    as_if_nothing_broke(world, path)
    events = [line["event"] for line in lines if line["event"] != "progress"]
    assert events == ["start", "segment", "segment", "validation", "done"]
    assert [line["step"] for line in lines if line["event"] == "progress"] == [2, 4, 6, 8, 10, 12]
    assert [line["votes"] for line in ends(lines)] == [[replicas]] * 2
    assert lines[-1]["flops_spent"] == replicas * world.result["flops"]


# ---- one fault in one replica ----


@pytest.mark.parametrize("replicas", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_replicas_catch_a_fault_and_end_with_the_same_bytes(world: World, kind: Kind, replicas: int) -> None:
    fault = Fault(kind, segment=0, run=1, step=3, weight=USED)
    path = world.ask("fault", TINY, [fault], replicas=replicas, stall=STALL if kind == "stalled" else None)
    lines = run(path)
    as_if_nothing_broke(world, path)
    voted = ends(lines)[0]
    if kind == "flip":
        assert (voted["votes"], voted["flags"], voted["draws"]) == ([replicas + 1, 1], {}, replicas + 2)
    else:
        assert (voted["votes"], list(voted["flags"])) == ([replicas], [CAUGHT_AS[kind]])
        assert [line["reason"] for line in lines if line["event"] == "flag"] == [CAUGHT_AS[kind]] * (
            voted["draws"] - replicas
        )
    assert lines[-1]["flops_spent"] > replicas * world.result["flops"]


def test_a_bit_that_flips_after_the_last_state_was_saved_is_outvoted_too(world: World) -> None:
    path = world.ask("fault", TINY, [Fault("flip", segment=1, run=0, step=12, weight=USED)])
    lines = run(path)
    as_if_nothing_broke(world, path)
    assert [line["votes"] for line in ends(lines)] == [[2], [3, 1]]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "flip"])
def test_one_replica_catches_what_raises_a_flag(world: World, kind: Kind) -> None:
    fault = Fault(kind, segment=1, run=0, step=6)
    path = world.ask("fault", TINY, [fault], replicas=1, stall=STALL if kind == "stalled" else None)
    lines = run(path)
    as_if_nothing_broke(world, path)
    assert list(ends(lines)[1]["flags"]) == [CAUGHT_AS[kind]]
    done_again = 0.5 if kind == "truncated" else 0  # the others broke before their first step
    assert lines[-1]["flops_spent"] == (1 + done_again) * world.result["flops"]


def test_one_replica_misses_a_flipped_bit(world: World) -> None:
    path = world.ask("fault", TINY, [Fault("flip", segment=1, run=0, step=6, weight=USED)], replicas=1)
    lines = run(path)
    assert [(line["votes"], line["flags"]) for line in ends(lines)] == [([1], {})] * 2
    assert result_of(path.parent)["valid_loss"] != world.result["valid_loss"]


def test_a_flipped_bit_that_makes_the_loss_spike_is_caught_by_one_replica(world: World) -> None:
    fault = Fault("flip", segment=1, run=0, step=6, weight=USED, bit=30)
    path = world.ask("fault", TINY, [fault], replicas=1)
    lines = run(path)
    as_if_nothing_broke(world, path)
    assert set(ends(lines)[1]["flags"]) <= {"spike", "nan"}
    assert ends(lines)[1]["draws"] == 2


def test_a_fault_in_every_segment_and_every_replica_is_overcome(world: World) -> None:
    faults = [Fault("flip", 0, 0, 1, USED), Fault("nan", 0, 1, 2), Fault("killed", 1, 0, 5), Fault("nan", 1, 1, 6),
              Fault("truncated", 1, 2), Fault("flip", 2, 1, 10, USED + 1), Fault("truncated", 2, 0)]  # fmt: skip
    path = world.ask("faults", THREE, faults)
    lines = run(path)
    as_if_nothing_broke(world, path, 3)
    assert [line["flags"] for line in ends(lines)] == [
        {"nan": 1},
        {"died": 1, "nan": 1, "checksum": 1},
        {"checksum": 1},
    ]
    shown = _train_log.segments(lines)
    assert [s.flags for s in shown] == [line["flags"] for line in ends(lines)]
    assert [s.votes for s in shown] == [[3, 1], [2], [3, 1]]
    assert [p.step for p in _train_log.curve(lines, 100)] == [2, 4, 6, 8, 10, 12]


def test_the_curve_is_that_of_the_elected_answer_where_the_first_replica_was_outvoted(world: World) -> None:
    sound = _train_log.curve(run(world.ask("sound", TINY)), 100)
    lines = run(world.ask("fault", TINY, [Fault("flip", segment=1, run=0, step=6, weight=USED)]))
    assert _train_log.curve(lines, 100) == sound


# ---- what only looks like a fault ----


@pytest.mark.parametrize(("replicas", "draws", "flags"), [(1, 2, {"nan": 1}), (2, 2, {}), (3, 3, {})])
def test_a_divergence_that_every_replica_repeats_is_the_result(
    world: World, replicas: int, draws: int, flags: dict[str, int]
) -> None:
    config = {**TINY, **WILD}
    path = world.ask("wild", config, replicas=replicas)
    lines = run(path)
    assert result_of(path.parent) == world.alone("wild alone", config)
    assert result_of(path.parent)["status"] == "diverged"
    told = next(line for line in lines if line["event"] == "diverged")
    assert (told["draws"], told["flags"], told["votes"]) == (draws, flags, [replicas])


@pytest.mark.parametrize(("replicas", "draws", "flags"), [(1, 2, {"spike": 1}), (2, 2, {})])
def test_a_spike_that_repeats_bit_for_bit_is_believed(
    world: World, replicas: int, draws: int, flags: dict[str, int]
) -> None:
    config = {**TINY, "spike": 0.0, "segments": 1}  # the first loss is above the mean that it is held against
    path = world.ask("spike", config, replicas=replicas)
    lines = run(path)
    assert ends(lines)[0]["spikes"] > 0
    assert (ends(lines)[0]["draws"], ends(lines)[0]["flags"]) == (draws, flags)
    assert result_of(path.parent)["valid_loss"] == world.result["valid_loss"]


def test_a_config_that_no_replica_can_run_ends_with_the_line_of_the_trainer(world: World) -> None:
    path = world.ask("bad", {**TINY, "d_modle": 3})
    assert run(path, code=2)[-1] == {
        "event": "error", "where": "d_modle", "what": "unknown key", "instead": "did you mean d_model?"
    }  # fmt: skip


# ---- undecided ----


def test_replicas_that_never_agree_end_the_job_and_the_next_start_goes_on_from_what_was_agreed(world: World) -> None:
    faults = [Fault("flip", segment=1, run=n, step=6, weight=USED + n) for n in range(8)]
    path = world.ask("undecided", TINY, faults)
    lines = run(path, code=1)
    assert len(ends(lines)) == 1
    told = lines[-1]
    assert (told["event"], told["where"]) == ("error", "segment 1")
    assert "votes: 1, 1, 1, 1, 1, 1, 1, 1; flags: none" in told["what"]
    assert not (path.parent / "result.json").exists()
    again = run(path)
    assert [line["segment"] for line in ends(again)] == [0, 1]  # the agreed one is told once more
    assert again[1]["event"] == "resume"
    as_if_nothing_broke(world, path)
    assert again[-1]["flops_spent"] == 2 * world.result["flops"] + 8 * ends(lines)[0]["flops"]


# ---- the checkpoints ----


def test_a_damaged_agreed_checkpoint_is_seen_and_the_one_before_is_taken(world: World) -> None:
    faults = [Fault("killed", segment=2, run=n, step=9) for n in range(6)]
    path = world.ask("rot", THREE, faults)
    assert "votes: none; flags: died 6" in run(path, code=1)[-1]["what"]
    for damaged in (1, 2):
        folder = world.folder / f"rot {damaged}"
        shutil.copytree(path.parent, folder)
        kept = sorted((folder / "agreed").iterdir())
        assert [p.name for p in kept] == ["0000000", "0000001"]
        for place in kept[-damaged:]:
            content = bytearray((place / "checkpoint.pt").read_bytes())
            content[len(content) // 2] ^= 1
            (place / "checkpoint.pt").write_bytes(content)
        lines = run(folder / path.name)
        assert [line["event"] for line in lines].count("damaged") == damaged
        as_if_nothing_broke(world, folder / path.name, 3)


# ---- tolerance ----


def test_answers_within_a_declared_tolerance_agree_and_others_do_not(world: World) -> None:
    small, large = (Fault("flip", segment=1, run=1, step=6, weight=USED, bit=bit) for bit in (2, 22))
    for fault, tolerance, draws in ((small, 0.0, 4), (small, 1e-4, 2), (large, 1e-4, 4)):
        lines = run(world.ask("close", TINY, [fault], tolerance=tolerance))
        assert [line["draws"] for line in ends(lines)] == [2, draws]
    as_if_nothing_broke(world, world.folder / "close" / "run.json")


# ---- the supervisor itself is killed ----


def killed_at(path: Path, there: Callable[[Line], bool]) -> None:
    """Supervises in a process of its own, which is killed with -9 when it tells such a line; its replicas live on."""
    command = [sys.executable, "-m", "agentlab.tools._segments", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if there(json.loads(text)):
                break
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_a_supervisor_killed_again_and_again_ends_with_the_same_bytes(world: World) -> None:
    stalled = [Fault("stalled", segment=1, run=n, step=7) for n in (0, 1)]  # so that some outlive their supervisor
    path = world.ask("killed", THREE, [*stalled, Fault("flip", segment=2, run=0, step=9)])
    killed_at(path, lambda line: line["event"] == "segment")
    killed_at(path, lambda line: line["event"] == "progress" and line["step"] == 6)
    left = [json.loads(p.read_text()) for p in path.parent.glob("work/0000001/*/process.json")]
    assert len(left) > 1
    lines = run(path)
    assert [start_ticks(process["pid"]) for process in left] == [None] * len(left)
    assert "resume" in [line["event"] for line in lines]
    as_if_nothing_broke(world, path, 3)


def test_a_second_supervisor_is_refused(world: World) -> None:
    path = world.ask("twice", TINY, [Fault("stalled", segment=0, run=0, step=3)])
    command = [sys.executable, "-m", "agentlab.tools._segments", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as first:
        assert first.stdout is not None
        assert json.loads(first.stdout.readline())["event"] == "start"
        assert "another process trains there" in run(path, code=2)[-1]["what"]
        process = json.loads((path.parent / "work" / "0000000" / "0000" / "process.json").read_text())
        first.terminate()  # ends its replicas before it ends
    assert first.returncode == 128 + signal.SIGTERM
    assert start_ticks(process["pid"]) is None


# ---- the tool server ----


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(train.JOBS, str(tmp_path / "jobs"))
    monkeypatch.setenv(train.MAX_JOBS, "2")
    yield tmp_path / "jobs"
    for job in ask("list", {})["jobs"]:
        ask("cancel", {"job": job["job"]})


def test_a_job_in_replicas_ends_as_one_without(world: World, jobs: Path) -> None:
    asked = {"config": {**TINY, "segments": 1, "corpus": str(world.corpus)}, "replicas": 2}
    done = until(ask("start", asked)["job"], "done")
    assert (done["valid_loss"], done["digest"]) == (world.result["valid_loss"], world.result["digest"])
    assert (done["step"], done["steps"], done["flops_spent"]) == (12, 12, 2 * done["flops"])
    assert ask("start", asked) == done
    assert [p.name for p in jobs.glob("*/config.json")] == ["config.json"]


def test_a_cancelled_job_leaves_no_replica_and_is_resumed_and_shown_with_its_votes(world: World, jobs: Path) -> None:
    faults = [Fault("stalled", segment=1, run=0, step=7), Fault("killed", segment=0, run=1)]
    path = world.ask("job", TINY, faults)

    def start() -> Any:
        def argv_of(folder: Path) -> list[str]:
            shutil.copy(path, folder / "run.json")
            return [sys.executable, "-m", "agentlab.tools._segments", str(folder / "run.json")]

        return Store(jobs).start("train", TINY, argv_of, name="pair")

    assert start().going
    until_step("pair", 6)
    while ask("wait", {"job": "pair", "seconds": 0.1})["flops_spent"] is None:
        pass
    assert ask("cancel", {"job": "pair"})["state"] == "cancelled"
    mark = json.loads((jobs / "pair" / "process.json").read_text())["mark"].encode()
    assert not [p for p in Path("/proc").glob("[0-9]*/environ") if mark in readable(p)]
    assert start().going
    done = until("pair", "done")
    assert (done["valid_loss"], done["digest"]) == (world.result["valid_loss"], world.result["digest"])
    shown = ask("segments", {"job": "pair"})["segments"]
    assert [(s["step"], s["votes"], s["flags"]) for s in shown] == [(6, [2], {"died": 1}), (12, [2], {})]


def readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended, or is another user's
        return b""


def test_replicas_are_refused_in_one_line_where_they_cannot_be(world: World, jobs: Path) -> None:
    config = {**TINY, "corpus": str(world.corpus)}
    assert "only our trainer runs in replicas" in refusal(
        "start", {"config": {"N": 1}, "backend": "simulator", "replicas": 2}
    )
    assert "write sandbox=local" in refusal("start", {"config": config, "sandbox": "docker", "replicas": 2})
    assert "nothing to agree with" in refusal("start", {"config": config, "tolerance": 1e-6})
    assert call("start", {"config": config, "replicas": 4}).is_error
    assert "did you mean d_model" in refusal("start", {"config": {**config, "d_mode": 1}, "replicas": 2})
    assert not jobs.exists()
