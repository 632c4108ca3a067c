"""Fabricated submissions: none is verified, and each is refused for what is wrong with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cheats import CHEATS, Cheat, with_program
from cheats_place import packed, sealed, shared_place

from agentlab.leaderboard_board import Board, Row, open_board
from agentlab.leaderboard_records import LEVELS, RefusedError, read_submission
from agentlab.leaderboard_rows import rows_of
from agentlab.leaderboard_second import make_second
from agentlab.leaderboard_tasks import task_of
from agentlab.leaderboard_verify import SECOND_LOOKS, verify
from agentlab.leaderboard_work import Worker
from agentlab.words import UsageError

VERIFIED = LEVELS[LEVELS.index("replayed") :]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The place of the runs, which the tests of this file work in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_place(tmp_path_factory))
        yield Path.cwd()


@pytest.fixture(scope="module")
def worker(place: Path) -> Iterator[Worker]:
    with Worker(seconds=120) as one:
        yield one


@pytest.fixture(scope="module")
def board(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with open_board(str(tmp_path_factory.mktemp("board") / "board.sqlite")) as one:
        yield one


def received(board: Board, text: bytes) -> str:
    return board.receive(text, task_of(read_submission(text)[1]).version)[0]


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_a_fabricated_submission_is_not_verified(cheat: Cheat, board: Board, worker: Worker) -> None:
    text = cheat.make()
    if cheat.where == "door":
        with pytest.raises(RefusedError) as refused:
            received(board, text)
        assert refused.value.reason == cheat.reason
        assert "\n" not in str(refused.value)
        return
    before = len(board.incidents())
    row = verify(board, received(board, text), worker)
    assert row.level not in VERIFIED
    if cheat.where == "held":
        assert (row.level, cheat.reason in row.reason) == ("scored", True)
        return
    assert (row.level, row.reason.split(":")[0]) == ("rejected", cheat.reason), row.reason
    assert [i["reason"] for i in board.incidents()[before:]] == [cheat.reason]
    assert row.id not in [r["id"] for r in rows_of(board.rows())]
    assert verify(board, row.id, worker).level == "rejected"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return params[0] + 0*X[:, 0] + X[:, 0].mean()/1e9", "program"),
        ("return params[0] + 0*X[:, 0]", "wrong numbers"),
    ],
    ids=["a_program_looks_at_other_rows", "a_programs_parameters_are_not_those_of_its_fit"],
)
def test_a_fabricated_program_is_not_verified(body: str, reason: str, board: Board, worker: Worker, bwrap: str) -> None:
    row = verify(board, received(board, with_program(body)), worker)
    assert (row.level, row.reason.split(":")[0]) == ("rejected", reason), row.reason


def test_the_honest_submission_that_they_are_made_from_is_verified(
    board: Board, worker: Worker, tmp_path: Path
) -> None:
    """Else nothing above would show anything. A declared seed that nothing was sent for counts as the worst."""
    row = verify(board, received(board, sealed(packed(0, 1, declared=(0, 1, 2)))), worker)
    assert (row.level, row.reason) == ("replayed", "")
    (shown,) = [r for r in rows_of(board.rows()) if r["level"] in VERIFIED]
    assert (shown["runs_declared"], shown["runs_finished"]) == (3, 2)
    errors = [run["are"] for run in row.figures["runs"].values()]
    assert all(0 < e < 0.05 for e in errors)
    assert shown["holdout_are"] == pytest.approx((sum(errors) + 1) / 3)
    assert shown["holdout_se"] == pytest.approx(np.std([*errors, 1.0], ddof=1) / np.sqrt(3))
    assert shown["difference"] == pytest.approx(shown["holdout_are"] - shown["reference_are"])
    assert shown["coverage"] > 0.5
    assert shown["identifiable"] is True
    check_second(board, worker, row, tmp_path)


def check_second(board: Board, worker: Worker, honest: Row, tmp_path: Path) -> None:
    """It is confirmed on a second hold-out, and others are as long as their submitter has looks left."""
    n = np.geomspace(3e6, 3e8, 10)
    rows = [f"{a!r},{1.5 + 4.0 * a**-0.3!r}" for a in n.tolist()]
    (tmp_path / "rows.csv").write_text("\n".join(["n,loss", *rows]) + "\n")
    path = make_second(board, "tiny", file=tmp_path / "rows.csv")
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="has a second hold-out already"):
        make_second(board, "tiny", file=tmp_path / "rows.csv")
    row = verify(board, honest.id, worker)
    assert (row.level, row.figures["second_looks"]) == ("confirmed", 1)
    assert 0 < row.figures["second_are"] - 1 / 3 < 0.05
    again = received(board, sealed(packed(0, 1, note="once more")))
    board.advance(again, "replayed", row.figures)
    for i in range(SECOND_LOOKS - 1):
        board.look(replace(row, id=f"another {i}"), "second")
    held = verify(board, again, worker)
    assert (held.level, "used up" in held.reason) == ("replayed", True)
    path.chmod(0o600)
    path.write_text("n,loss\n1e9,1.5\n")
    shutil.rmtree(board.home / "sealed")
    other = received(board, sealed(packed(0, submitter="ben")))
    board.advance(other, "replayed", row.figures)
    assert "digest is pinned" in verify(board, other, worker).reason


def test_there_are_at_least_twenty_cheats_and_each_has_a_name() -> None:
    assert len({c.name for c in CHEATS}) == len(CHEATS) >= 20
