"""The local sandbox: what a command gets, what it may use, and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from agentlab.envs import Executed, Limits, Sandbox, SandboxError
from agentlab.envs._processes import alive, environment, kill_tree, reap, start
from agentlab.envs.local import Local

PYTHON = sys.executable


def run(argv: Sequence[str], *, limits: Limits | None = None, **options: Any) -> Executed:
    async def inner() -> Executed:
        async with Local(limits=limits) as sandbox:
            return await sandbox.exec(argv, **options)

    return asyncio.run(inner())


def python(program: str, *, limits: Limits | None = None, **options: Any) -> Executed:
    return run([PYTHON, "-c", program], limits=limits, **options)


def test_local_is_a_sandbox() -> None:
    assert isinstance(Local(), Sandbox)


def test_a_command_gets_its_input_and_its_output_and_exit_code_come_back() -> None:
    done = python(
        "import sys; t = sys.stdin.read(); print(t.upper()); print('low', file=sys.stderr); sys.exit(3)", stdin="hé"
    )
    assert (done.returncode, done.stdout, done.stderr, done.timed_out) == (3, "HÉ\n", "low\n", False)
    assert 0 < done.seconds < 30


def test_a_command_that_reads_nothing_is_no_error_however_much_it_is_sent() -> None:
    assert python("print('bye')", stdin="x" * 3_000_000).stdout == "bye\n"


def test_secrets_of_the_environment_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    seen = python("import os; print(sorted(os.environ))", env={"ASKED": "1"}).stdout
    assert "SOME_API_KEY" not in seen
    assert "'ASKED'" in seen
    assert "'OMP_NUM_THREADS'" in seen


def test_a_timeout_kills_children_that_left_the_group_and_their_parent(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
for leave in (False, True):
    if os.fork() == 0:
        if leave:
            os.setsid()
            if os.fork():
                os._exit(0)
        open({str(tmp_path)!r} + f"/{{os.getpid()}}", "w").close()
        time.sleep(600)
while len(os.listdir({str(tmp_path)!r})) < 2:
    time.sleep(0.01)
print("both there", flush=True)
time.sleep(600)
"""
    done = python(program, timeout=4)
    assert (done.timed_out, done.stdout) == (True, "both there\n")
    assert done.seconds < 20
    for child in tmp_path.iterdir():
        assert not _runs(int(child.name))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_a_command_leaves_in_the_background_ends_with_it() -> None:
    program = "import subprocess as s; print(s.Popen(['sleep', '600'], stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
    assert not _runs(int(python(program).stdout))


def test_memory_beyond_the_limit_is_refused_to_the_program() -> None:
    done = python("import time; time.sleep(.2); x = bytearray(10**9)", limits=Limits(memory_bytes=300_000_000))
    assert done.returncode != 0
    assert "MemoryError" in done.stderr


def test_a_program_that_only_burns_time_is_stopped_by_its_cpu_limit() -> None:
    done = python("while True: pass", limits=Limits(cpu_seconds=1), timeout=60)
    assert (done.returncode < 0, done.timed_out) == (True, False)


def test_a_flood_of_output_is_cut_and_said_to_be() -> None:
    done = python("print('x' * 5_000_000)", limits=Limits(output_bytes=1000))
    assert (len(done.stdout), done.truncated, done.returncode) == (1000, True, 0)
    assert not python("print('x')").truncated


def test_files_go_in_and_come_out_and_the_folder_is_gone_afterwards() -> None:
    async def inner() -> str:
        async with Local() as sandbox:
            await sandbox.put("in/data.txt", b"abc")
            program = "import os; d = open('data.txt').read(); open('out.txt', 'w').write(d * 2); print(os.getcwd())"
            done = await sandbox.exec([PYTHON, "-c", program], cwd="in")
            assert await sandbox.get("in/out.txt") == b"abcabc"
            return str(done.stdout).strip()

    assert not Path(asyncio.run(inner())).parent.exists()


@pytest.mark.parametrize("path", ["../above.txt", "/etc/hostname", "in/../../above.txt"])
def test_paths_outside_the_folder_are_refused(path: str) -> None:
    async def inner() -> None:
        async with Local() as sandbox:
            with pytest.raises(SandboxError, match="give a path below it"):
                await sandbox.put(path, b"")
            with pytest.raises(SandboxError, match="give a path below it"):
                await sandbox.get(path)

    asyncio.run(inner())


def test_errors_say_what_to_do() -> None:
    async def inner() -> None:
        async with Local() as sandbox:
            with pytest.raises(SandboxError, match="no such file"):
                await sandbox.get("nothing.txt")
            with pytest.raises(SandboxError, match="cannot be started"):
                await sandbox.exec(["/no/such/program"])
        with pytest.raises(SandboxError, match="async with"):
            await sandbox.exec(["true"])

    asyncio.run(inner())


def _wait_for(file: Path) -> None:
    while not (file.exists() and file.read_text()):
        pass


def test_a_cancelled_call_leaves_no_process(tmp_path: Path) -> None:
    async def inner() -> None:
        async with Local() as sandbox:
            program = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
            call = asyncio.ensure_future(sandbox.exec([PYTHON, "-c", program]))
            await asyncio.to_thread(_wait_for, tmp_path / "pid")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(inner())
    assert not _runs(int((tmp_path / "pid").read_text()))


def test_a_detached_process_is_told_from_a_later_one_of_its_number(tmp_path: Path) -> None:
    env: Mapping[str, str] = environment(threads=3)
    argv = [PYTHON, "-c", "import os, time; print(os.environ['OMP_NUM_THREADS'], flush=True); time.sleep(600)"]
    process = start(argv, log=tmp_path / "log", errors=tmp_path / "errors", cwd=tmp_path, env=env)
    assert alive(process)
    assert not alive(type(process)(process.pid, process.start_ticks + 1, process.mark))
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    while not (tmp_path / "log").read_text().endswith("\n"):
        assert alive(process)
    kill_tree(process.pid, process.mark)
    reap(process.pid)
    assert not alive(process)
    assert (tmp_path / "log").read_text() == "3\n"
