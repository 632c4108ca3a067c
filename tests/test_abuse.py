"""Programs that try to get out, look around, use up, hide or pretend: in bubblewrap and in Docker, for real.

Each may have managed no more than its line says; the host is as it was; its sandbox goes on, or where it fell the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from abused import KINDS, LIMITS, Attack, Cell, Ends, Host, host
from agentlab.envs import Executed, SandboxError

MASKED = {"/proc/keys", "/proc/timer_list"}
"""Where Docker lays /dev/null over a file."""
POWERLESS: dict[str, object] = {
    "NoNewPrivs": "1", "Seccomp": "2", "uid": 65534,
    **dict.fromkeys(("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"), "0" * 16),
}  # fmt: skip

ATTACKS = [
    # Using up.
    Attack("exhaust.fork_bomb", lambda t: 0 < t["forked"] < 64),
    Attack("exhaust.recursive_forks", ends="time-out", seconds=1.5),
    Attack("exhaust.thread_bomb", lambda t: 0 < t["started"] < 64),
    Attack("exhaust.zombies", lambda t: 0 < t["dead"] < 64),
    Attack("exhaust.memory_bomb", ends="memory"),
    Attack("exhaust.memory_of_children", lambda t: t == {"parent": "lives"}, ends="memory"),
    Attack("exhaust.memory_of_the_small", ends="memory", spares=False),
    Attack("exhaust.shared_mapping", ends="memory"),
    Attack("exhaust.memory_files", ends="memory"),
    Attack("exhaust.system_v_memory", lambda t: t == {"segments": 0, "queue": False, "semaphore": False}),
    Attack("exhaust.disk", lambda t: 48 <= t["megabytes"] <= 64),
    Attack("exhaust.shared_memory_disk", lambda t: t["megabytes"] <= 16),
    Attack("exhaust.inodes", lambda t: 0 < t["made"] < 300_000, ends="any"),
    Attack("exhaust.sparse", lambda t: t == {"size": 0}),
    Attack("exhaust.long_file", lambda t: t == {"megabytes": 32}),
    Attack("exhaust.descriptors", lambda t: 0 < t["held"] < 256),
    Attack("exhaust.watches", lambda t: t == {"made": 0}),
    Attack("exhaust.processors", lambda t: t["processors"] < 1.5),
    Attack("exhaust.no_end", ends="time-out", seconds=1),
    Attack("exhaust.deep", ends="killed"),
    # Output.
    Attack("floods.stdout", ends="time-out", seconds=1),
    Attack("floods.stderr", ends="time-out", seconds=1),
    Attack("floods.one_line", ends="time-out", seconds=1),
    Attack("floods.pipes_of_the_first", lambda t: t == {"managed": {}, "extra": []}),
    Attack("floods.closed", ends="time-out", seconds=1),
    Attack("floods.never_read", ends="time-out", seconds=1),
    Attack("floods.held_open", lambda t: t == {"sent": True}),
    # Sockets.
    Attack("network.tcp", lambda t: t == {}),
    Attack("network.udp", lambda t: t == {}),
    Attack("network.names", lambda t: t == {}),
    Attack("network.unix", lambda t: t == {}),
    Attack("network.families", lambda t: t == {}),
    Attack("network.protocols", lambda t: not t.keys() & {"icmp", "raw", "priority"}),
    Attack("network.interfaces", lambda t: t == {"names": ["lo"]}),
    # What lies around.
    Attack("hostfiles.secrets", lambda t: not [p for p in t if p not in ("/root", "/home", "/work")]),
    Attack("hostfiles.environment", lambda t: t == {"found": [], "names": []}),
    Attack("hostfiles.holdouts", lambda t: t == {"found": []}),
    Attack("hostfiles.processes", lambda t: t == {"others": []}),
    Attack("hostfiles.the_first", lambda t: t == {}),
    Attack("hostfiles.own_program", lambda t: t == {}),
    Attack("hostfiles.roots", lambda t: t == {}),
    Attack(
        "hostfiles.kernel_files", lambda t: {p for p in t["found"] if not p.startswith("/proc/pressure/")} <= MASKED
    ),
    Attack("hostfiles.sensitive", lambda t: t == {}),
    Attack("hostfiles.roots_files", lambda t: t == {}),
    Attack("hostfiles.cgroups", lambda t: t == {}),
    Attack("hostfiles.memory_score", lambda t: t == {}),
    Attack("hostfiles.devices", lambda t: t == {"found": []}),
    Attack("hostfiles.next_one", lambda t: t["left"] > 0, spares=False),
    # System calls.
    Attack("kernel.tracing", lambda t: t == {}),
    Attack("kernel.first_process", lambda t: t == {}),
    Attack("kernel.kernel_doors", lambda t: t == {}),
    Attack("kernel.administration", lambda t: t == {}),
    Attack("kernel.namespaces", lambda t: t == {}),
    Attack("kernel.mounts", lambda t: t == {}),
    Attack("kernel.rights", lambda t: t == {}),
    Attack("kernel.set_user_id", lambda t: t == {"became": [], **POWERLESS}),
    Attack("kernel.other_calls", lambda t: t == {"x32": "SIGSYS", "i386": "SIGSYS"}),
    Attack("kernel.looser_filter", lambda t: t == {}),
    Attack("kernel.from_memory", lambda t: t == {"said": ["-1", "-1"]}),
    # Signals, and not dying.
    Attack("signals.first_process", lambda t: t == {"sent": True}),
    Attack("signals.everybody", lambda t: t == {"alive": True}),
    Attack("signals.parent", lambda t: t == {"parent": 1}),
    Attack("signals.storm", ends="time-out", seconds=1),
    Attack("signals.stopped", ends="time-out", seconds=1),
    Attack("signals.deaf", ends="time-out", seconds=1),
    Attack("signals.daemon", lambda t: t == {"left": True}),
    Attack("signals.renamed", lambda t: t == {"left": True}),
    Attack("signals.stopped_children", lambda t: t == {"left": True}),
    Attack("signals.runaway", ends="any"),
    Attack("signals.orphans", lambda t: t == {"made": 40}),
    Attack("signals.crash", ends="killed"),
    Attack("signals.at_exit", ends="time-out", seconds=1),
]


@pytest.fixture(scope="session")
def cells() -> Iterator[dict[str, Cell]]:
    made: dict[str, Cell] = {}
    yield made
    for cell in made.values():
        cell.runner.run(cell.close())
        cell.runner.close()


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("host")) as one:
        yield one


@pytest.fixture(params=KINDS)
def cell(request: pytest.FixtureRequest, cells: dict[str, Cell], watched: Host) -> Cell:
    request.getfixturevalue({"bubblewrap": "bwrap", "docker": "law_image"}[request.param])
    return cells.setdefault(request.param, Cell(request.param))


def end_of(done: Executed) -> Ends:
    if done.timed_out:
        return "time-out"
    if done.out_of_memory:
        return "memory"
    return "killed" if done.returncode < 0 else "well"


def test_there_are_enough_attacks() -> None:
    assert len({a.name for a in ATTACKS}) == len(ATTACKS) >= 40


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_an_attack_is_stopped_and_the_host_is_unchanged(attack: Attack, cell: Cell, watched: Host) -> None:
    done, told = cell.attack(attack, watched.told, watched.mark)
    fell = done is None
    assert not (fell and attack.spares), "the sandbox fell with the command"
    if done is not None:
        ended = end_of(done)
        assert attack.ends in (ended, "any"), (ended, done)
        assert ended != "well" or done.returncode == 0, done
        assert max(len(done.stdout), len(done.stderr)) <= LIMITS.output_bytes
        if told or ended == "well":
            assert attack.allowed(told), (told, done.stderr)
        assert watched.told["secret"] not in done.stdout + done.stderr
    works = cell.works()
    assert works or (not attack.spares and cell.works()), "the sandbox does not go on"
    assert watched.changes() == []


def test_frames_of_the_first_process_cannot_be_forged(cell: Cell, watched: Host) -> None:
    done, _ = cell.attack(Attack("floods.frames"), watched.told, watched.mark)
    assert done is not None
    assert (done.returncode, done.timed_out, done.out_of_memory) == (7, False, False)
    assert '{"code": 0, "memory_kills": 0}' in done.stdout
    assert "forged" in done.stderr
    assert cell.works()


def refused(cell: Cell, path: str, data: bytes | None = None) -> str:
    """The words with which a file is refused."""

    async def ask() -> None:
        box = await cell.opened()
        await asyncio.wait_for(box.get(path) if data is None else box.put(path, data), 20)

    with pytest.raises(SandboxError) as told:
        cell.runner.run(ask())
    return str(told.value)


def test_no_link_is_followed_to_or_from_a_result(cell: Cell, watched: Host) -> None:
    cell.attack(Attack("results.links"), watched.told, watched.mark)
    for name in ("secret", "passwd", "zero", "environ", "out", "itself", "nowhere", "loop"):
        assert watched.told["secret"] not in refused(cell, f"{name}.json")
        refused(cell, f"{name}.json", b"over")
    for path in ("etc/hostname", "proc/environ", "own/fd/1", "own/environ", "root/tmp/x", "up/tmp/x", "shm/x"):
        refused(cell, path)
        refused(cell, path, b"over")
    cell.runner.run(cell.close())
    assert cell.works()
    assert watched.changes() == []


def test_what_is_no_plain_file_is_refused_and_nobody_waits_for_it(cell: Cell, watched: Host) -> None:
    cell.attack(Attack("results.odd_files"), watched.told, watched.mark)
    for name in ("pipe.json", "socket.json", "folder.json", "locked.json", "closed/x.json"):
        refused(cell, name)
        refused(cell, name, b"over")
    cell.runner.run(cell.close())
    assert cell.works()


def test_no_second_name_of_a_file_outside_can_be_made(cell: Cell, watched: Host) -> None:
    done, told = cell.attack(Attack("results.hard_links"), watched.told, watched.mark)
    assert told == {"made": []}, done


def test_a_result_is_bytes_whatever_its_size_and_its_looks(cell: Cell, watched: Host) -> None:
    async def fetch(path: str) -> bytes:
        box = await cell.opened()
        return bytes(await box.get(path))

    cell.attack(Attack("results.frames"), watched.told, watched.mark)
    assert cell.runner.run(fetch("frames.bin")).endswith(b"D\xff\xff\xff\xff")
    cell.attack(Attack("results.large"), watched.told, watched.mark)
    assert cell.runner.run(fetch("large.bin")) == b"\xff" * (31 << 20)
    assert cell.runner.run(fetch("hole.bin")) == bytes(32 << 20)
    cell.runner.run(cell.close())
    assert cell.works()


def test_a_full_sandbox_refuses_a_file_and_says_so(cell: Cell, watched: Host) -> None:
    cell.attack(Attack("results.full"), watched.told, watched.mark)
    assert "No space left" in refused(cell, "new.json", b"x" * 100_000)
    cell.runner.run(cell.close())
    assert cell.works()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "/proc/self/mem", "x\0y", "//tmp/x"])
def test_no_path_leads_out(path: str, cell: Cell) -> None:
    assert "outside the sandbox" in refused(cell, path)
    assert "outside the sandbox" in refused(cell, path, b"x")


def test_data_below_a_folder_that_bubblewrap_shows_looks_empty(
    bwrap: str, watched: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = str(Path(pytest.__file__).parent)  # beside numpy, which programs may import
    monkeypatch.setenv("AGENTLAB_DATA", sealed)
    cell = Cell("bubblewrap")
    done, told = cell.attack(Attack("hostfiles.below"), {**watched.told, "empty": [sealed]}, watched.mark)
    cell.runner.run(cell.close())
    cell.runner.close()
    assert told == {sealed: []}, done
