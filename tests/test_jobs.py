"""The job store: jobs are folders and processes that outlive their server, however it and they end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agentlab.envs._processes import environment, start_ticks
from agentlab.tools._job_files import told
from agentlab.tools._jobs import CANCEL, MAX_JOBS, Job, Store
from mcp.server.mcpserver.exceptions import ToolError

Argv = Callable[[Path], list[str]]

SAY = "import json, os, subprocess, sys\ndef say(**line): print(json.dumps(line), flush=True)\n"
ENDS = SAY + "say(event='start', steps=2, flops=99)\nsay(event='progress', step=2, flops=20)\n"
RESULT = "open('result.part', 'w').write(json.dumps({'status': 'ok'})); os.rename('result.part', 'result.json')\n"
HOLDS = SAY + "say(event='progress', step=1)\nopen('ready', 'w').write('.')\nopen('go').read()\n" + RESULT


def program(text: str) -> Argv:
    """The command of a job: a small Python program in its folder, with two pipes to keep in step with a test."""

    def argv_of(folder: Path) -> list[str]:
        for name in ("ready", "go"):
            if not (folder / name).exists():
                os.mkfifo(folder / name)
        return [sys.executable, "-c", text]

    return argv_of


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv(MAX_JOBS, "4")
    found = Store(tmp_path / "jobs")
    yield found
    for job in found.list():
        if job.going:
            found.cancel(job.id)


def pid_of(job: Job) -> int:
    return int(json.loads((job.folder / "process.json").read_text())["pid"])


def ended(store: Store, job: Job) -> Job:
    """The job when its process is gone; the system tells when."""
    try:
        handle = os.pidfd_open(pid_of(job))
    except ProcessLookupError:
        return store.find(job.id)
    try:
        assert select.select([handle], [], [], 60)[0], "the process never ended"
    finally:
        os.close(handle)
    return store.find(job.id)


def ready(job: Job) -> Job:
    """Waits until the program of a job has come to its pipe."""
    (job.folder / "ready").read_text()
    return job


def held(store: Store, **config: Any) -> Job:
    """A job that stands at its pipe until it is told to go on."""
    return ready(store.start("train", config, program(HOLDS)))


def go(job: Job) -> None:
    (job.folder / "go").write_text(".")


def refusal(do: Callable[[], object]) -> str:
    with pytest.raises(ToolError) as caught:
        do()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_job_runs_is_found_by_any_store_and_is_not_run_twice(store: Store) -> None:
    job = held(store, a=1)
    assert (job.kind, job.config) == ("train", {"a": 1})
    other = Store(store.root)
    assert other.find(job.id).state == "running"
    assert other.start("train", {"a": 1}, program(HOLDS)).id == job.id
    go(job)
    done = ended(other, job)
    assert (done.state, done.result, done.created) == ("done", {"status": "ok"}, job.created)
    pid = pid_of(done)
    assert other.start("train", {"a": 1}, program(HOLDS)) == done
    assert pid_of(done) == pid


def test_what_is_seen_is_the_newest_of_every_field_and_no_plan(store: Store) -> None:
    job = ended(store, store.start("train", {}, program(ENDS + RESULT)))
    assert job.seen == {"event": "progress", "steps": 2, "step": 2, "flops": 20}
    assert store.result(job.id) == {"status": "ok"}
    assert [line["event"] for line in store.log(job.id)] == ["start", "progress"]
    assert [line["event"] for line in store.log(job.id, after=1)] == ["progress"]
    assert store.log(job.id, after=2) == []


def test_a_job_that_diverges_has_a_result(store: Store) -> None:
    wild = SAY + "open('result.json', 'w').write(json.dumps({'status': 'diverged'}))"
    assert ended(store, store.start("train", {}, program(wild))).state == "diverged"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SAY + "say(event='error', where='lr', what='is 7', instead='write 1'); sys.exit(2)", "lr; is 7; write 1"),
        ("raise SystemExit('first line\\nno such corpus')", "no such corpus"),
    ],
    ids=["error line", "standard error"],
)
def test_a_job_that_fails_says_why_and_may_be_started_again(text: str, says: str, store: Store) -> None:
    job = ended(store, store.start("train", {}, program(text)))
    assert (job.state, job.message) == ("failed", says)
    again = ready(store.start("train", {}, program(HOLDS)))
    assert store.find(again.id).state == "running"
    os.kill(pid_of(again), signal.SIGKILL)
    assert ended(store, again).state == "interrupted"  # and not failed, as the attempt before


def test_servers_that_start_one_job_at_once_start_one_process(store: Store, tmp_path: Path) -> None:
    launches = tmp_path / "launches"
    launches.mkdir()
    mark = f"import os; open({str(launches)!r} + '/' + str(os.getpid()), 'w')\n"
    replies = race(store, [{"a": 1}] * 4, mark + HOLDS)
    assert replies == [replies[0]] * 4
    ready(store.find(replies[0]))
    assert len(list(launches.iterdir())) == 1


def test_servers_that_start_many_jobs_at_once_keep_to_the_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_JOBS, "2")
    replies = race(store, [{"a": i} for i in range(4)], HOLDS)
    assert sum("2 jobs run already" in reply for reply in replies) == 2
    assert len(store.list(state="running") + store.list(state="starting")) == 2


RACE = """
import json, os, sys
from agentlab.tools import _jobs
from pathlib import Path
root, config, text = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
def argv_of(folder):
    for name in ("ready", "go"):
        if not (folder / name).exists():
            os.mkfifo(folder / name)
    return [sys.executable, "-c", text]
print("here", flush=True)
sys.stdin.readline()
try:
    print(_jobs.Store(Path(root)).start("train", config, argv_of).id)
except _jobs.ToolError as error:
    print(error)
"""


def race(store: Store, configs: list[dict[str, Any]], text: str) -> list[str]:
    """What so many processes say that start a job each, let loose together."""
    env = {**environment(), MAX_JOBS: os.environ[MAX_JOBS]}
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(store.root), json.dumps(config), text],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )
        for config in configs
    ]  # fmt: skip
    for server in servers:
        assert server.stdout is not None
        assert server.stdout.readline() == "here\n"
    for server in servers:
        assert server.stdin is not None
        server.stdin.write("\n")
        server.stdin.flush()
    return [server.communicate(timeout=60)[0].strip() for server in servers]


def test_cancel_kills_the_whole_tree_even_what_left_it(store: Store) -> None:
    child = "import os, time; open('ready', 'w').write('.'); time.sleep(1e6)"
    start = f"p = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
    text = SAY + start + "open('child', 'w').write(str(p.pid))\nopen('go').read()\n"
    job = ready(store.start("train", {}, program(text)))
    pids = [pid_of(job), int((job.folder / "child").read_text())]
    assert None not in map(start_ticks, pids)
    assert store.cancel(job.id).state == "cancelled"
    assert list(map(start_ticks, pids)) == [None, None]
    assert store.cancel(job.id).state == "cancelled"
    resumed = ready(store.start("train", {}, program(HOLDS)))
    assert store.find(resumed.id).state == "running"


def test_what_outlived_its_first_process_is_killed_before_the_job_starts_again(store: Store) -> None:
    start = "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1e6)'])\n"
    text = SAY + start + "open('child', 'w').write(str(p.pid))\nopen('ready', 'w').write('.')\nopen('go').read()\n"
    job = ready(store.start("train", {}, program(text)))
    child = int((job.folder / "child").read_text())
    os.kill(pid_of(job), signal.SIGKILL)
    assert ended(store, job).state == "interrupted"
    assert start_ticks(child) is not None
    ready(store.start("train", {}, program(HOLDS)))
    assert start_ticks(child) is None


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([sys.executable, "-c", "open('freed', 'w')"], "resume"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "exit code 3"),
        (["no-such-program"], "no-such-program failed"),
    ],
    ids=["works", "fails", "missing"],
)
def test_cancel_runs_what_the_backend_left_for_it(argv: list[str], says: str, store: Store) -> None:
    job = held(store, a=1)
    (job.folder / CANCEL).write_text(json.dumps({"argv": argv}))
    cancelled = store.cancel(job.id)
    assert cancelled.state == "cancelled"
    assert says in cancelled.message
    assert (job.folder / "freed").exists() == (says == "resume")


def test_a_result_counts_however_its_process_ends(store: Store) -> None:
    job = ready(store.start("train", {}, program(SAY + RESULT + "open('ready', 'w').write('.')\nopen('go').read()\n")))
    assert store.cancel(job.id).state == "done"


def test_a_later_process_with_the_number_of_a_job_is_left_alone(store: Store) -> None:
    job = held(store, a=1)
    store.cancel(job.id)
    (job.folder / "cancelled").unlink()
    file = job.folder / "process.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": os.getpid()}))
    assert store.find(job.id).state == "interrupted"
    assert store.cancel(job.id).state == "interrupted"  # and this test still runs


@pytest.mark.parametrize("name", ["config.json", "process.json", "job.json", "result.json"])
@pytest.mark.parametrize("text", ['{"half', "[1]", "\xff", "[" * 100_000], ids=["torn", "array", "bytes", "deep"])
def test_a_damaged_file_is_told_in_one_line_and_hides_no_other_job(name: str, text: str, store: Store) -> None:
    good = ended(store, store.start("train", {"a": 1}, program(ENDS + RESULT)))
    bad = ended(store, store.start("train", {"a": 2}, program(ENDS + RESULT)))
    (bad.folder / name).write_bytes(text.encode("latin-1"))
    assert name in refusal(lambda: store.find(bad.id))
    assert str(bad.folder) in refusal(lambda: store.start("train", {"a": 2}, program(ENDS)))
    states = {job.id: job.state for job in store.list()}
    assert states == {good.id: "done", bad.id: "failed"}
    assert store.start("train", {"a": 3}, program(ENDS)).id not in states


def test_a_torn_line_is_left_out_and_the_next_attempt_writes_a_line_of_its_own(store: Store) -> None:
    torn = SAY + "say(step=7)\nprint('{\"step\": 8', end='', flush=True)\nos.kill(os.getpid(), 9)"
    job = ended(store, store.start("train", {}, program(torn)))
    assert (job.state, job.seen) == ("interrupted", {"step": 7})
    job = ended(store, store.start("train", {}, program(ENDS + RESULT)))
    assert [line.get("step") for line in store.log(job.id)] == [7, None, 2]
    assert job.seen["step"] == 2


def test_a_long_log_costs_a_status_no_more_than_its_ends(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    middle = json.dumps({"event": "progress", "step": 5, "note": "x" * 100}) + "\n"
    log.write_text(json.dumps({"event": "start", "steps": 9}) + "\n" + middle * 20_000 + '{"step": 6}\n')
    seen = told(log).seen
    assert (seen["steps"], seen["step"]) == (9, 6)
    assert told(log, since=log.stat().st_size).last == {}


def test_ids_and_configs_that_make_no_sense_are_refused(store: Store) -> None:
    for job_id in ("../outside", "", ".hidden", "a/b", "x" * 101, "new\nline"):
        assert "no job id" in refusal(lambda job_id=job_id: store.find(job_id))  # type: ignore[misc]
        if job_id:
            assert "no job id" in refusal(
                lambda job_id=job_id: store.start("train", {}, program(ENDS), name=job_id)  # type: ignore[misc]
            )
    assert "no job nothing" in refusal(lambda: store.find("nothing"))
    assert "not JSON compliant" in refusal(lambda: store.start("train", {"a": float("nan")}, program(ENDS)))
    assert not list(store.root.glob("*/config.json"))


def test_a_name_belongs_to_one_kind_and_config(store: Store) -> None:
    job = ended(store, store.start("train", {"a": 1}, program(ENDS + RESULT), name="mine"))
    for kind, config in (("train", {"a": 2}), ("infer", {"a": 1})):
        assert "another config" in refusal(
            lambda kind=kind, config=config: store.start(kind, config, program(ENDS), name="mine")  # type: ignore[misc]
        )
    assert "ask the train server" in refusal(lambda: store.find(job.id, "infer"))
    assert [j.id for j in store.list("train")] == ["mine"]
    assert store.list("infer") == []


def test_the_newest_jobs_are_listed_first_and_no_more_than_asked(store: Store) -> None:
    jobs = [ended(store, store.start("train", {"a": i}, program(ENDS + RESULT))) for i in range(5)]
    assert [job.id for job in store.list(limit=3)] == [job.id for job in reversed(jobs)][:3]
    assert store.list(state="failed") == []


def test_a_job_is_forgotten_when_it_has_ended_and_not_before(store: Store) -> None:
    job = held(store, a=1)
    assert "cancel it first" in refusal(lambda: store.forget(job.id))
    store.cancel(job.id)
    store.forget(job.id)
    assert store.list() == []
    assert "no job" in refusal(lambda: store.find(job.id))


def test_a_command_that_cannot_be_made_leaves_no_job(store: Store) -> None:
    def argv_of(folder: Path) -> list[str]:
        (folder / "half").touch()
        raise ToolError("no such checkout")

    assert refusal(lambda: store.start("train", {"a": 1}, argv_of, name="mine")) == "no such checkout"
    assert store.list() == []
    assert not (store.root / "mine").exists()
    job = ended(store, store.start("train", {"a": 2}, program(ENDS + RESULT), name="mine"))
    assert job.state == "done"
