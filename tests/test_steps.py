"""Long jobs of micro-steps: killed, torn, out of disk or out of time, they end as if nothing had happened."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from agentlab.hanoi import Towers, TowersJob, legs
from agentlab.hanoi_oracle import Answers, Faults, Oracle, Questions
from agentlab.journal import Journal, JournalError
from agentlab.ledger import BrokenBoundError, Ledger
from agentlab.steps import Chain, StepError, Voting, Walk
from agentlab.steps_async import SideBySide
from agentlab.steps_graph import build, supersteps
from agentlab.vote import Answer, Rules, VoteError, Wave
from agentlab.vote_measure import Reliability

DISKS, GROUP = 12, 200
JOB = b"towers of a test"


def towers_walk(
    path: Path | None, *, chains: int = 1, disks: int = DISKS, every: int = GROUP, **settings: Any
) -> tuple[Walk[int], bytearray]:
    """A walk over simulated towers, its moves beside it."""
    towers = Towers(disks)
    job = TowersJob(towers, Answers(towers, Oracle(Faults(0.05, steps=towers.moves), seed=7)).draw)
    moves = bytearray(towers.moves)

    def note(index: int, keys: Any) -> None:
        moves[index : index + len(keys)] = bytes([key & 15 for key in keys])

    parts = [Chain(job, low, high, towers.state_at(low), Voting(k=5)) for low, high in legs(towers, chains)]
    journal = None if path is None else Journal(path, JOB, every=every)
    return Walk(parts, journal, note, **settings), moves


def to_the_end(walk: Walk[Any]) -> str:
    while not walk.over:
        walk.superstep()
    if walk.journal is not None:
        walk.journal.close()
    return walk.digest()


@pytest.fixture(scope="module")
def undisturbed() -> tuple[str, bytes]:
    """The digest and the moves of a walk that nothing happened to."""
    walk, moves = towers_walk(None)
    return to_the_end(walk), bytes(moves)


# ---- crashes ----


def in_a_child(work: Callable[[], None]) -> int:
    """Run something in a forked process; its number. It ends with 1 where something was raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


@pytest.mark.parametrize("chains", [1, 3])
def test_killed_at_twenty_random_moments_it_ends_the_same_and_redoes_one_group_at_most(
    tmp_path: Path, undisturbed: tuple[str, bytes], chains: int
) -> None:
    path, chance, kills = tmp_path / "journal", random.Random(chains), 0  # noqa: S311 - chance, no secret
    plain = undisturbed if chains == 1 else _plain(chains)
    shared = mmap.mmap(-1, 16)
    for _ in range(400):
        shared[:8] = struct.pack("q", 0)

        def work() -> None:
            walk, _ = towers_walk(path, chains=chains)
            carried = walk.replayed
            job = walk.chains[0].job
            check = job.check

            def counted(state: int, key: Hashable) -> int:
                nonlocal carried
                carried += 1
                shared[:8] = struct.pack("q", carried)  # every step that is carried out, before anything is written
                if carried % 16 == 0:
                    time.sleep(0.0005)  # a step takes time, so that a kill finds it under way
                return check(state, key)

            job.check = counted  # type: ignore[method-assign]
            to_the_end(walk)

        pid = in_a_child(work)
        time.sleep(chance.uniform(0.003, 0.04))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        (carried,) = struct.unpack("q", shared[:8])
        with Journal(path, JOB, every=GROUP) as journal:
            kept = journal.length
        assert carried - kept <= GROUP + 1, "more than one group would be done again"
        if os.WIFSIGNALED(status) and carried:
            kills += 1
        elif not os.WIFSIGNALED(status):
            path.unlink()  # it had come to its end before the kill: from the beginning again
        if kills == 20 and 0 < kept < Towers(DISKS).moves:
            break
    assert kills >= 20
    walk, moves = towers_walk(path, chains=chains)
    assert 0 < walk.replayed < Towers(DISKS).moves
    assert to_the_end(walk) == plain[0]
    assert bytes(moves) == plain[1] == undisturbed[1]


def _plain(chains: int) -> tuple[str, bytes]:
    walk, moves = towers_walk(None, chains=chains)
    return to_the_end(walk), bytes(moves)


def test_an_answer_that_fails_in_mid_slice_leaves_no_hole(tmp_path: Path, undisturbed: tuple[str, bytes]) -> None:
    path = tmp_path / "journal"
    walk, moves = towers_walk(path)
    draw, failed = walk.chains[0].job.draw, []

    def failing(state: int, index: int, wave: Wave) -> Any:
        if index in (700, 1501) and index not in failed:
            failed.append(index)
            raise ConnectionError(index)
        return draw(state, index, wave)

    walk.chains[0].job.draw = failing  # type: ignore[method-assign]
    for index in (700, 1501):
        with pytest.raises(ConnectionError, match=str(index)):
            walk.superstep()
        assert walk.steps == walk.chains[0].index == index
    assert (to_the_end(walk), bytes(moves)) == undisturbed
    assert towers_walk(path)[0].replayed == Towers(DISKS).moves


def test_a_torn_tail_is_cut_and_the_steps_behind_it_are_decided_again(
    tmp_path: Path, undisturbed: tuple[str, bytes]
) -> None:
    path = tmp_path / "journal"
    to_the_end(towers_walk(path)[0])
    whole = path.read_bytes()
    for length in (len(whole) - 5, len(whole) // 2 + 3, 70, 10, 0):
        path.write_bytes(whole[:length])
        walk, moves = towers_walk(path)
        assert walk.replayed < Towers(DISKS).moves
        assert (to_the_end(walk), bytes(moves)) == undisturbed
        assert path.read_bytes() == whole


def test_a_full_disk_is_told_and_after_it_is_freed_the_job_goes_on(bwrap: str, tmp_path: Path) -> None:
    program = f"""
import os, sys, json
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from pathlib import Path
from test_steps import towers_walk, to_the_end
from agentlab.journal import JournalError
disk = Path(sys.argv[1])
(disk / "ballast").write_bytes(bytes(40_000))
walk, _ = towers_walk(disk / "journal")
try:
    to_the_end(walk)
    raise SystemExit("the disk was not full")
except JournalError as error:
    told = str(error)
try:
    walk.journal.close()
except JournalError:
    pass
(disk / "ballast").unlink()
walk, moves = towers_walk(disk / "journal")
kept = walk.replayed
print(json.dumps([told, kept, to_the_end(walk), moves.hex()]))
"""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        [bwrap, "--bind", "/", "/", "--dev", "/dev", "--size", "98304", "--tmpfs", str(disk), "--", sys.executable,
         "-c", program, str(disk)], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, kept, digest, moves = json.loads(done.stdout)
    assert "No space left on device" in told
    assert "free space, then resume" in told
    assert 0 < kept < Towers(DISKS).moves
    walk, plain = towers_walk(None)
    assert (digest, bytes.fromhex(moves)) == (to_the_end(walk), bytes(plain))


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, undisturbed: tuple[str, bytes]) -> None:
    chance, now = random.Random(1), [0.0]  # noqa: S311 - chance, no secret

    def clock() -> float:
        now[0] += chance.choice([0.0, 1e-3, -1e9, 1e9, 5.0])
        return now[0]

    towers_moves = Towers(DISKS).moves
    path = tmp_path / "journal"
    walk, moves = towers_walk(None, clock=clock)
    walk.journal = Journal(path, JOB, every=GROUP, clock=clock)
    assert (to_the_end(walk), bytes(moves)) == undisturbed
    with Journal(path, JOB) as journal:
        assert journal.length == towers_moves


def test_a_journal_of_another_job_is_refused_and_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    to_the_end(towers_walk(path, disks=6)[0])
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another job"):
        Journal(path, b"something else")
    with Journal(path, JOB) as journal, pytest.raises(StepError, match="step 0 fits no answer"):
        Walk(towers_walk(None, disks=7)[0].chains, journal)
    assert path.read_bytes() == before
    with Journal(path, JOB) as journal:
        journal.append(70, 0)  # beyond the end of six disks
        journal.sync()
        with pytest.raises(StepError, match="step 70 stands where no chain is"):
            Walk(towers_walk(None, disks=6)[0].chains, journal)


def test_a_snapshot_of_other_chains_is_refused(tmp_path: Path) -> None:
    walk = questions_walk(tmp_path / "journal", superstep=1000)
    walk.superstep()
    walk.journal.close()  # type: ignore[union-attr]
    job = walk.chains[0].job
    for bounds, told in ((((0, 900),), "at step 1000, where"), (((0, 2000), (2000, 5000)), "has 1 chains, this job 2")):
        chains = [Chain(job, low, high, 0, Voting(k=3)) for low, high in bounds]
        with Journal(tmp_path / "journal", JOB) as journal, pytest.raises(StepError, match=told):
            Walk(chains, journal)


# ---- snapshots, supersteps, LangGraph ----


def questions_walk(path: Path, steps: int = 5000, **settings: Any) -> Walk[int]:
    job = Questions(Oracle(Faults(0.2, steps=steps), seed=3))
    return Walk([Chain(job, 0, steps, 0, Voting(k=3))], Journal(path, JOB, every=GROUP), **settings)


def test_a_job_without_an_observer_resumes_from_its_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    walk = questions_walk(path, superstep=1000)
    for _ in range(3):
        walk.superstep()
    walk.journal.close()  # type: ignore[union-attr]
    whole = to_the_end(questions_walk(tmp_path / "other"))
    again = questions_walk(path)
    assert again.replayed == 3000
    assert again.journal is not None
    found = again.journal.latest()
    assert found is not None
    assert found.records == 3000
    assert to_the_end(again) == whole
    # without the snapshots every record is replayed, to the same state
    for file in tmp_path.glob("journal.snapshot*"):
        file.unlink()
    assert questions_walk(path).digest() == whole


def test_one_superstep_of_langgraph_is_a_thousand_steps_or_more_and_holds_a_cursor(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "graph.sqlite", check_same_thread=False)) as connection:
        walk = questions_walk(tmp_path / "journal", superstep=10)  # fewer than a thousand are not taken
        saver = SqliteSaver(connection)
        cursors = list(supersteps(walk, saver))
        assert [c.steps for c in cursors] == [1000, 2000, 3000, 4000, 5000]
        state = build(saver).get_state({"configurable": {"thread_id": "walk"}}).values
        assert state == {"steps": 5000, "offset": cursors[-1].offset, "digest": walk.digest()}
    assert walk.journal is not None
    walk.journal.close()
    assert cursors[-1].offset == (tmp_path / "journal").stat().st_size
    again = questions_walk(tmp_path / "journal")
    assert [c.steps for c in supersteps(again)] == [5000]


def test_a_superstep_ends_when_its_time_is_over(tmp_path: Path) -> None:
    ticks: Iterator[float] = iter(float(i) for i in range(10**6))
    walk = questions_walk(tmp_path / "journal", seconds=30.0, clock=lambda: next(ticks))
    assert 0 < walk.superstep().steps < 100


def test_a_vote_that_cannot_be_held_is_told_before_the_first_step() -> None:
    job = Questions(Oracle(Faults(0.1, steps=10), 0))
    with pytest.raises(VoteError, match="most_draws of at least k=8"):
        Walk([Chain(job, 0, 10, 0, Voting(k=8, rules=Rules(most_draws=7)))])


def test_too_many_answers_are_no_unanimous_vote() -> None:
    job = Questions(Oracle(Faults(0.0, steps=10), 0))
    job.draw = lambda state, index, wave: [0, 0, 0, 1]  # type: ignore[method-assign]
    with pytest.raises(VoteError, match="4 answers to a wave of 3"):
        Walk([Chain(job, 0, 10, 0, Voting(k=3))]).superstep()


def test_what_is_measured_does_not_depend_on_the_clock_or_the_journal(tmp_path: Path) -> None:
    def calls(path: Path | None, **settings: Any) -> tuple[int, float]:
        job = Questions(Oracle(Faults(0.05, steps=6000), seed=3))
        measured = Reliability(0.95, 6000)
        journal = None if path is None else Journal(path, JOB, every=7)
        walk = Walk([Chain(job, 0, 6000, 0, Voting(measured=measured))], journal, **settings)
        to_the_end(walk)
        return walk.chains[0].counts.draws, measured.p_low

    ticks = iter(float(i) for i in range(10**7))
    plain = calls(None)
    assert plain == calls(tmp_path / "journal") == calls(None, clock=lambda: next(ticks), seconds=50.0)


# ---- chains that wait ----


def late(draw: Callable[[int, int, Wave], list[Answer]], order: random.Random) -> Callable[[int, int, Wave], Any]:
    async def answer(state: int, index: int, wave: Wave) -> list[Answer]:
        for _ in range(order.randrange(3)):
            await asyncio.sleep(0)
        return draw(state, index, wave)

    return answer


@pytest.mark.parametrize("chains", [1, 7])
def test_chains_side_by_side_make_the_moves_of_one(tmp_path: Path, undisturbed: tuple[str, bytes], chains: int) -> None:
    order = random.Random(0)  # noqa: S311 - chance, no secret
    with SideBySide() as go:
        walk, moves = towers_walk(tmp_path / "journal", chains=chains, go=go, superstep=1000)
        for chain in walk.chains:
            job = chain.job
            chain.job = TowersJob(Towers(DISKS), late(job.draw, order))
        walk.superstep()
        assert walk.journal is not None
        walk.journal.close()
    again, moves = towers_walk(tmp_path / "journal", chains=chains)
    assert 1000 <= again.replayed < Towers(DISKS).moves
    to_the_end(again)
    assert bytes(moves) == undisturbed[1]


def test_256_chains_never_pass_the_budget_and_the_ledger_equals_the_receipts() -> None:
    towers, receipts = Towers(DISKS), []
    answers = Answers(towers, Oracle(Faults(0.1, malformed=0.1, steps=towers.moves), seed=1))

    async def draw(state: int, index: int, wave: Wave) -> list[Answer]:
        await asyncio.sleep(0.001)
        receipts.append(wave.count)
        return answers.draw(state, index, wave)

    ledger = Ledger(5000, "calls")
    chains = [
        Chain(TowersJob(towers, draw), low, high, towers.state_at(low), Voting(k=3, ledger=ledger))
        for low, high in legs(towers, 256)
    ]
    with SideBySide() as go:
        walk = Walk(chains, go=go)
        walk.superstep()
        assert walk.over
    assert all(chain.broke for chain in chains)
    assert ledger.spent == sum(receipts) == sum(chain.counts.draws + chain.counts.lost for chain in chains)
    assert 5000 - 3 < ledger.spent <= 5000


def test_answers_that_are_there_at_once_let_every_chain_in_and_end_the_superstep() -> None:
    job = Questions(Oracle(Faults(0.0, steps=8000), seed=1))
    plain = job.draw

    async def draw(state: int, index: int, wave: Wave) -> list[Answer]:
        return plain(state, index, wave)

    job.draw = draw  # type: ignore[method-assign, assignment]
    ticks, now = iter(float(i) for i in range(10**7)), [0.0]
    with SideBySide() as go:
        chains = [Chain(job, low, low + 4000, 0, Voting(k=2)) for low in (0, 4000)]
        walk = Walk(chains, go=go, superstep=1000, clock=lambda: now[0])
        assert walk.superstep().steps in (1000, 1001)
        assert min(chain.index - low for chain, low in zip(chains, (0, 4000), strict=True)) > 400
        walk.clock = lambda: next(ticks)
        assert 1000 < walk.superstep().steps < 1100, "30 ticks of the clock are over"
        walk.clock = lambda: now[0]
        to_the_end(walk)
        assert walk.steps == 8000


def test_a_chain_that_failed_is_taken_up_again_and_its_task_is_heard() -> None:
    towers = Towers(DISKS)
    answers = Answers(towers, Oracle(Faults(0.05, steps=towers.moves), seed=7))
    failing = {100, 2000}

    async def draw(state: int, index: int, wave: Wave) -> list[Answer]:
        await asyncio.sleep(0)
        if index in failing:
            raise ConnectionError(index)
        return answers.draw(state, index, wave)

    bounds = legs(towers, 3)
    with SideBySide() as go:
        chains = [Chain(TowersJob(towers, draw), low, high, towers.state_at(low), Voting(k=5)) for low, high in bounds]
        walk = Walk(chains, go=go)
        for _ in range(2):
            with pytest.raises(ConnectionError) as error:
                walk.superstep()
            failing.remove(int(str(error.value)))
        to_the_end(walk)
    assert walk.steps == towers.moves


def test_a_bound_that_is_broken_is_no_spent_budget() -> None:
    job = Questions(Oracle(Faults(0.0, steps=10), 0))
    tokens = Ledger(1_000_000)

    async def draw(state: int, index: int, wave: Wave) -> list[Answer]:
        (await tokens.reserve(10)).settle(11)
        return [0] * wave.count

    job.draw = draw  # type: ignore[method-assign, assignment]
    with SideBySide() as go, pytest.raises(BrokenBoundError, match="took 11"):
        Walk([Chain(job, 0, 10, 0, Voting(k=2))], go=go).superstep()


def test_an_undecided_step_stops_its_chain_and_no_other() -> None:
    faults = Faults(0.0, hard=1, hard_p=0.5, steps=400)
    oracle = Oracle(faults, seed=0)
    low, high = (0, 200) if oracle.hard[0] < 200 else (200, 400)
    job, rules = Questions(oracle), Rules(most_draws=6)
    chains = [Chain(job, a, b, 0, Voting(k=6, rules=rules)) for a, b in ((0, 200), (200, 400))]
    walk = Walk(chains)
    walk.superstep()
    stopped, other = sorted(chains, key=lambda c: c.index != oracle.hard[0])
    assert walk.over
    assert stopped.undecided is not None
    assert low <= stopped.index == oracle.hard[0] < high
    assert sum(stopped.undecided.tallies[0].votes.values()) == 6
    assert other.index == other.end


def test_k_that_is_measured_changes_on_the_way() -> None:
    job = Questions(Oracle(Faults(0.002, steps=3000), seed=0))
    chain = Chain(job, 0, 3000, 0, Voting(measured=Reliability(0.95, 3000)))
    Walk([chain]).superstep()
    assert chain.index == 3000
    assert chain.voting.ahead == 3
    assert chain.counts.ahead[10] == 10
    assert max(chain.counts.ahead) > 10 > min(chain.counts.ahead) == 3
    assert sum(chain.counts.ahead.values()) == 3000
