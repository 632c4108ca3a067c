"""A search and a training run on a cluster come to what one machine comes to, though nodes die; mistakes are told."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from agentlab.tools import _ray_node
from agentlab.tools._ray import Needs
from test_discover import AGENTLAB, agentlab, trace_of, write_csv
from train_calls import ask, refusal, until
from trained import RUN, train, write_corpus

from agentlab.engine import PORTIONS
from agentlab.engine_address import reach, token
from agentlab.engine_ray import Spread
from agentlab.errors import BackendError
from agentlab.types import RunConfig
from agentlab.words import UsageError, read_words, refuse_unused

NOBODY = "127.0.0.1:9"
SECRET = "sk-that-must-not-travel"  # noqa: S105 - made up
LONG = {**RUN, "steps": 240, "segments": 2, "report_every": 5, "threads": 1}


class Machines:
    """A Ray cluster of this machine whose head runs no tasks, and whose nodes of one processor can be killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster  # noqa: PLC0415 - heavy, and only for those who have it

        self._small: dict[str, Any] = {"include_log_monitor": False, "object_store_memory": 80 << 20}
        self._cluster: Any = Cluster()
        self._cluster.add_node(**self._small, num_cpus=0, include_dashboard=False)
        self.address = str(self._cluster.address)

    def add(self) -> None:
        self._cluster.add_node(**self._small, num_cpus=1)

    def kill(self, node: str | None = None) -> None:
        """Kills a node at once: the one of that id, else any."""
        found = next(n for n in self._cluster.worker_nodes if node in (None, n.node_id))
        self._cluster.remove_node(found, allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    pytest.importorskip("ray", reason="needs agentlab-discovery[ray]")
    before = dict(os.environ)
    # Ray gives its tasks way to all other programs: on a busy machine they would not come to an end.
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"})
    started = Machines()
    for _ in range(2):
        started.add()
    yield started
    started.end()
    os.environ.clear()
    os.environ.update(before)


def wait_until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def holding(value: str) -> set[int]:
    """The processes of this machine whose environment holds a value."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            found |= {int(path.parent.name)} if value.encode() in path.read_bytes() else set()
    return found


def lines(job: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (jobs() / job / "log.jsonl").read_text().splitlines()]


def jobs() -> Path:
    return Path(os.environ["AGENTLAB_JOBS"])


def test_the_trace_is_the_same_on_a_cluster_one_of_whose_nodes_is_killed(machines: Machines, tmp_path: Path) -> None:
    sizes = [10 ** (6 + i / 5) for i in range(20)]
    losses = [1.7 + 400 / n**0.34 * (1 + 0.002 * math.sin(7.1 * i)) for i, n in enumerate(sizes)]
    data = write_csv(tmp_path / "runs.csv", {"N": sizes, "loss": losses})
    given = ["discover", f"data={data}", "target=loss", "features=N", "holdout=N>3e9", "window=4"]
    given += ["budget.candidates=8", "seed=3", "--plain"]
    command = [str(AGENTLAB), *given, "out=ray", "engine=ray", f"address={machines.address}"]
    env = {**os.environ, "ANY_API_KEY": SECRET}
    running = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    far = tmp_path / "ray" / "runs.csv-001"
    wait_until(lambda: running.poll() is not None or (far / "timing.jsonl").exists())
    assert holding(SECRET) == {running.pid}
    machines.kill()
    agentlab(*given, "out=local", cwd=tmp_path)
    said = running.communicate(timeout=120)
    assert running.returncode == 0, said
    assert trace_of(far) == trace_of(tmp_path / "local" / "runs.csv-001")
    assert b'"law"' in trace_of(far)
    assert "aylet" not in "".join(said)


def test_a_training_run_loses_at_most_a_segment_with_its_node(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLAB_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("AGENTLAB_MAX_JOBS", "3")
    (tmp_path / "corpus").mkdir()
    config = {**LONG, "corpus": str(write_corpus(tmp_path / "corpus"))}
    cluster = {"engine": "ray", "address": machines.address}
    ask("start", {"config": config, "name": "far", **cluster})
    ask("start", {"config": {**config, "threads": 64}, "name": "large", **cluster})
    machines.add()
    wait_until(lambda: b'"step": 125' in (log := (jobs() / "far" / "log.jsonl").read_bytes()) or b'"error"' in log)
    machines.kill([line["node"] for line in lines("far") if line["event"] == "placed"][-1])
    here = train(tmp_path / "here", tmp_path / "corpus", LONG)
    until("far", "done")
    result = json.loads((jobs() / "far" / "result.json").read_text())
    assert {**result, "seconds": 0} == {**json.loads((tmp_path / "here" / "result.json").read_text()), "seconds": 0}
    told = [line for line in lines("far") if line["event"] == "segment"]
    assert [line["flags"] for line in told] == [{}, {"died": 1}]
    assert here["flops"] < told[-1]["flops_spent"] <= 1.5 * here["flops"]
    message = until("large", "failed")["message"]
    assert "no node has room for 64 CPU" in message
    assert "\n" not in message


def test_an_address_where_nothing_answers_ends_with_code_5_before_a_run_is_made(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "runs.csv", {"N": [1e6, 1e7, 1e8, 1e9], "loss": [4.0, 3.0, 2.5, 2.2]})
    given = ["discover", f"data={data}", "target=loss", "features=N", "engine=ray", f"address={NOBODY}"]
    done = agentlab(*given, cwd=tmp_path, check=False)
    assert done.returncode == 5
    assert f"no cluster answers at {NOBODY}" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_a_job_for_a_cluster_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLAB_JOBS", str(tmp_path / "jobs"))
    config = {**RUN, "corpus": str(write_corpus(tmp_path))}
    assert NOBODY in refusal("start", {"config": config, "engine": "ray", "address": NOBODY})
    assert "engine=ray" in refusal("start", {"config": config, "address": NOBODY})
    assert "sandbox=docker" in refusal("start", {"config": config, "engine": "ray", "sandbox": "docker"})
    assert not (tmp_path / "jobs").exists() or not list((tmp_path / "jobs").iterdir())


@pytest.mark.parametrize("address", ["here", "ray:/x", "host:port", "1.2.3.4:999999", ":6379", "a b:1"])
def test_what_is_no_address_is_told_in_one_line(address: str) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("no ray here")
    with pytest.raises(BackendError, match=r"^engine=ray: [^\n]*; (write|start)[^\n]*$"):
        reach(address)


def test_without_the_package_ray_it_is_said_what_to_install() -> None:
    code = "import sys; from agentlab import engine_address as e; sys.path[:] = []; e.reach(None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the package ray is missing; pip install" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("words", [["address=1.2.3.4:6379"], ["engine=ray", "workers=2"]])
def test_words_that_do_not_go_with_the_engine_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^(address|workers)=[^\n]*engine=ray"):
        refuse_unused(read_words(words, RunConfig))


def test_a_node_with_other_versions_is_refused_by_name() -> None:
    same = _ray_node.versions("numpy")
    _ray_node.refuse_others(same)
    with pytest.raises(BackendError, match=r"has numpy [0-9.]+, not 0\.1; install the same"):
        _ray_node.refuse_others({**same, "numpy": "0.1"})


def test_what_a_killed_task_left_on_its_node_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, other = tmp_path / f"{_ray_node.PREFIX}4194304-rows", tmp_path / f"{_ray_node.PREFIX}{os.getppid()}-rows"
    left.mkdir()
    other.mkdir()
    with _ray_node.folder("rows") as mine:
        assert mine.stat().st_mode & 0o777 == 0o700
        assert sorted(tmp_path.iterdir()) == sorted([mine, other])
    assert list(tmp_path.iterdir()) == [other]


def test_a_task_comes_to_its_node_before_numpy_has_counted_the_processors() -> None:
    code = "import sys, agentlab.tools._ray_calls, agentlab.tools._ray_segments; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_joins_a_cluster_gets_its_token_and_no_other_key() -> None:
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/t", "OPENAI_API_KEY": SECRET, "RAY_ADDRESS": NOBODY}
    assert token(env) == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/t"}


def test_a_task_fits_a_node_that_has_all_it_needs() -> None:
    node = {"CPU": 4.0, "memory": 1e9}
    assert Needs(4, 0, 10**9).fit(node)
    assert not any(needs.fit(node) for needs in (Needs(5), Needs(1, 1), Needs(1, 0, 2 * 10**9)))


def test_a_large_cluster_is_given_smaller_portions() -> None:
    spread = Spread(None, 64, PORTIONS)
    sizes = []
    for spread._cpus in (1, 4, 16, 500):
        sizes.append(spread.portion("fit.laws"))
    assert sizes == [8, 8, 2, 1]
    assert spread.portion("program.judge") == 1
