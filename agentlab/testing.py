"""Contracts of plug-ins, for us and for others: a check runs the real thing and raises AssertionError on a breach."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

from agentlab.envs import Sandbox, SandboxError

__all__ = ["SANDBOX_CHECKS", "check_sandbox"]

Check = Callable[[Sandbox], Awaitable[None]]

ECHO = """
import sys
for line in sys.stdin:
    print(line.strip().upper(), flush=True)
"""

ORPHANS = """
import os, time  # MARK
for leave in (False, True):
    if os.fork() == 0:
        if leave:
            os.setsid()
            if os.fork():
                os._exit(0)
        open(f"child{leave}", "w").close()
        time.sleep(600)
while not (os.path.exists("childTrue") and os.path.exists("childFalse")):
    time.sleep(0.01)
"""

COUNT = """
import os
found, mark = 0, b"FIRST" + b"REST"
for name in os.listdir("/proc"):
    try:
        found += name.isdigit() and mark in open(f"/proc/{name}/cmdline", "rb").read()
    except OSError:
        pass
print(found)
"""


async def check_sandbox(make: Callable[[], Sandbox]) -> list[str]:
    """Runs every check on sandboxes of its own, and returns their names.

    `make` makes a new sandbox each time. Raises AssertionError, with the name of the check, at the first breach.
    """
    for name, check in SANDBOX_CHECKS.items():
        async with make() as box:
            try:
                await check(box)
            except AssertionError as breach:
                raise AssertionError(f"{name}: {breach}") from breach
    await _closed(make())
    return [*SANDBOX_CHECKS, "a closed sandbox refuses"]


def _holds(met: bool, *told: object) -> None:
    if not met:
        raise AssertionError(" ".join(map(str, told)))


async def _speaks(box: Sandbox) -> None:
    code = "import sys; t = sys.stdin.read(); print(t.upper()); print('low', file=sys.stderr); sys.exit(3)"
    done = await box.exec([box.python, "-c", code], stdin="hé")
    _holds((done.returncode, done.stdout, done.stderr) == (3, "HÉ\n", "low\n"), done)
    _holds(not (done.timed_out or done.truncated or done.out_of_memory), done)


async def _keeps_files(box: Sandbox) -> None:
    await box.put("in/data.bin", bytes(range(256)))
    code = "d = open('data.bin', 'rb').read(); open('out.bin', 'wb').write(d[::-1])"
    done = await box.exec([box.python, "-c", code], cwd="in")
    _holds(done.returncode == 0, done)
    _holds(await box.get("in/out.bin") == bytes(range(256))[::-1], "the file came back changed")


async def _stays_inside(box: Sandbox) -> None:
    for path in ("../above", "/etc/hostname", "in/../../above"):
        for refused in (box.put(path, b""), box.get(path)):
            try:
                await refused
            except SandboxError:
                continue
            raise AssertionError(f"{path} was not refused")


async def _tells_what_is_missing(box: Sandbox) -> None:
    for refused in (box.get("nothing.txt"), box.exec(["/no/such/program"])):
        try:
            await refused
        except SandboxError:
            continue
        raise AssertionError("no SandboxError for what is not there")


async def _kills_in_time(box: Sandbox) -> None:
    began = time.monotonic()
    done = await box.exec([box.python, "-c", "import time; print(1, flush=True); time.sleep(600)"], timeout=3)
    _holds(done.timed_out, done)
    _holds(done.stdout == "1\n", "what it printed before is kept", done)
    _holds(time.monotonic() - began < 60, "the call returned late")
    again = await box.exec([box.python, "-c", "print(2)"])
    _holds(again.stdout == "2\n", "the sandbox goes on after a time-out", again)


async def _leaves_no_orphans(box: Sandbox) -> None:
    mark = uuid.uuid4().hex
    await box.exec([box.python, "-c", ORPHANS.replace("MARK", mark)])
    left = await _running(box, mark)
    _holds(left == "0", "processes that a command left behind still run:", left)


async def _running(box: Sandbox, mark: str) -> str:
    """How many processes seen in the sandbox carry the mark on their command line."""
    code = COUNT.replace("FIRST", mark[:9]).replace("REST", mark[9:])  # so that the counter does not count itself
    done = await box.exec([box.python, "-c", code])
    return str(done.stdout).strip()


async def _passes_no_secrets(box: Sandbox) -> None:
    done = await box.exec([box.python, "-c", "import os; print(sorted(os.environ))"], env={"ASKED": "1"})
    names = {name for name in ("KEY", "TOKEN", "SECRET", "PASSWORD") if name in done.stdout.upper()}
    _holds(not names, "the environment holds", names)
    _holds("'ASKED'" in done.stdout, "a variable that was asked for is missing")


async def _cuts_floods(box: Sandbox) -> None:
    done = await box.exec([box.python, "-c", "print('x' * 40_000_000)"])
    _holds(done.truncated, "a flood is not said to be cut")
    _holds(len(done.stdout) < 40_000_000, "a flood came through whole")


async def _reads_what_it_likes(box: Sandbox) -> None:
    done = await box.exec([box.python, "-c", "print('bye')"], stdin="x" * 3_000_000)
    _holds(done.stdout == "bye\n", done)


async def _talks(box: Sandbox) -> None:
    talk = await box.open([box.python, "-c", ECHO])
    for word in (b"one", b"two"):
        reply = await talk.ask(word, 60)
        _holds(reply.line == word.upper() and not reply.failure, reply)
    await talk.close()
    again = await box.exec([box.python, "-c", "print(2)"])
    _holds(again.stdout == "2\n", "the sandbox goes on after a talk", again)


async def _tells_why_no_answer_came(box: Sandbox) -> None:
    for code, wanted in (("import time; time.sleep(600)", "time-out"), ("pass", "ended")):
        talk = await box.open([box.python, "-c", code])
        for _ in range(2):
            reply = await talk.ask(b"well?", 3)
            _holds(reply.failure == wanted, wanted, "expected,", reply.failure, "told")


async def _can_be_cancelled(box: Sandbox) -> None:
    mark = uuid.uuid4().hex
    call = asyncio.ensure_future(box.exec([box.python, "-c", f"import time; time.sleep(600)  # {mark}"]))
    await asyncio.wait([call], timeout=2)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    _holds(await _running(box, mark) == "0", "a cancelled command still runs")


async def _closed(box: Sandbox) -> None:
    try:
        await box.exec(["true"])
    except SandboxError:
        return
    raise AssertionError("a sandbox that is not open runs commands")


SANDBOX_CHECKS: dict[str, Check] = {
    "a command gets its input, and its output and exit code come back": _speaks,
    "files go in and come out": _keeps_files,
    "paths outside the folder are refused": _stays_inside,
    "what is not there is told": _tells_what_is_missing,
    "a time-out kills, and the sandbox goes on": _kills_in_time,
    "what a command leaves running is killed": _leaves_no_orphans,
    "no secret is passed on": _passes_no_secrets,
    "a flood of output is cut": _cuts_floods,
    "input that nobody reads is no error": _reads_what_it_likes,
    "a program answers line by line": _talks,
    "a missing answer has its reason": _tells_why_no_answer_came,
    "a cancelled command ends": _can_be_cancelled,
}
"""What every sandbox must do, by the sentence that says it."""
