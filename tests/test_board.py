"""The board's books: tables made and kept, what is shown of submissions, and what the verbs say."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cheats_place import packed, sealed, shared_place
from typer.testing import CliRunner

from agentlab.cli_board import board_app
from agentlab.errors import AgentlabError, BackendError
from agentlab.leaderboard_board import Row, open_board
from agentlab.leaderboard_records import RefusedError
from agentlab.leaderboard_rows import board_rows, rows_of
from agentlab.leaderboard_store import HEAD, metadata, open_engine
from agentlab.leaderboard_submit import pack, send
from agentlab.leaderboard_verify import verify, waiting
from agentlab.leaderboard_work import Worker
from agentlab.words import UsageError

SECRET = "hush-hush-0123"  # noqa: S105 -- made up


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_place(tmp_path_factory))
        yield Path.cwd()


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AGENTLAB_BOARD_FILES", str(tmp_path / "files"))
    if request.param == "sqlite":
        return str(tmp_path / "board.sqlite")
    return str(request.getfixturevalue("postgres"))


def row(number: int, **changes: Any) -> Row:
    """A submission as the board has it; with `error` one that is scored."""
    error = changes.pop("error", None)
    figures = {} if error is None else {"holdout_are": error, "holdout_r2": 1 - error, "holdout_se": None}
    told: dict[str, Any] = {
        "number": number, "id": f"{number:024d}", "received": f"2026-01-{number:02d}", "submitter": f"who {number}",
        "task": "tiny", "version": "1", "law": "E + A/n**a", "key": f"key {number}", "method": "mutate", "declared": 1,
        "finished": 1, "note": "", "level": "received" if error is None else "scored", "reason": "", "figures": figures,
    }  # fmt: skip
    return Row(**(told | changes))


# ---- tables ----


def test_a_new_board_may_be_opened_by_many_at_once(where: str) -> None:
    def use(n: int) -> int:
        with open_board(where) as board:
            board.token(f"who {n}")
            return len(board.rows())

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(use, range(8))) == [0] * 8
    engine = open_engine(where)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one() == HEAD
        assert connection.execute(sa.text("SELECT count(*) FROM submitters")).scalar_one() == 8
    engine.dispose()


def test_the_migrations_make_the_tables_that_the_board_uses(where: str) -> None:
    open_board(where).__exit__()
    engine = open_engine(where)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert not [change for change in found if "submissions_task" not in str(change)]


def test_nobody_can_change_the_incident_log(where: str) -> None:
    with open_board(where) as board:
        board.incident(row(1), RefusedError("wrong numbers", "an error of 0"))
        before = board.incidents()
    assert [(i["reason"], i["found"]) for i in before] == [("wrong numbers", "an error of 0")]
    engine = open_engine(where)
    for statement in ("DELETE FROM incidents", "UPDATE incidents SET reason = 'none'"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(sa.text(statement))
    engine.dispose()
    with open_board(where) as board:
        assert board.incidents() == before


def test_a_submission_that_is_sent_twice_is_kept_once_and_a_look_is_counted_once(place: Path, where: str) -> None:
    text = sealed(packed(0))
    with open_board(where) as board:
        name, new = board.receive(text, "1")
        assert (new, board.receive(text, "1")) == (True, (name, False))
        (kept,) = board.rows("tiny")
        assert board.rows("another") == []
        assert asdict(board.row(name[:8])) == asdict(kept)
        assert [board.look(kept, "first") for _ in range(3)] == [1, 1, 1]
        assert board.look(row(7, submitter=kept.submitter), "first") == 2
        assert (board.looks("ann", "tiny", "second"), board.has_looked(name, "first")) == (0, True)


def test_a_look_above_the_limit_is_not_counted_and_one_that_was_counted_stays(where: str) -> None:
    with open_board(where) as board:
        told = [row(n, submitter="ann") for n in range(3)]
        assert [board.look(one, "second", 2) for one in told] == [1, 2, None]
        assert (board.look(told[0], "second", 2), board.looks("ann", told[0].task, "second")) == (2, 2)
        assert not board.has_looked(told[2].id, "second")


def test_a_token_is_anothers_no_more_when_a_new_one_is_made(where: str) -> None:
    with open_board(where) as board:
        old, new = board.token("ann"), board.token("ann")
        assert (board.holder(old), board.holder(new), board.holder("")) == (None, "ann", None)


def test_a_board_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "board.sqlite"
    open_board(str(path)).__exit__()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(BackendError, match="made by a newer agentlab"):
        open_board(str(path))


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://ann:{SECRET}@db.example/board",
        f"postgresql://ann:{SECRET}@{SECRET}@db.example/board",
        f"postgresql://ann:{SECRET}@127.0.0.1:1/board",
        f"postgresql://ann:{SECRET}@127.0.0.1:port/board",
        "sqlite:////nowhere/at/all/board.sqlite",
    ],
)
def test_a_bad_address_is_one_line_without_the_password(url: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AGENTLAB_BOARD_FILES", str(tmp_path))
    if url.startswith("sqlite"):
        (tmp_path / "file").touch()
        url = f"sqlite:///{tmp_path}/file/board.sqlite"
    with pytest.raises(AgentlabError, match=r"^[^\n]+$") as raised:
        open_board(url)
    assert SECRET not in str(raised.value)


# ---- what is shown ----


def test_equal_laws_are_one_row_and_the_first_that_is_scored_has_the_credit() -> None:
    told = [row(1, key="same"), row(2, key="same", error=0.2), row(3, key="same", error=0.1), row(4, error=0.15)]
    found = rows_of(told)
    assert [r["id"] for r in found] == [told[3].id, told[1].id]
    assert found[1]["merged"] == [told[0].id, told[2].id]
    assert found[1]["submitter"] == "who 2"
    apart = rows_of([row(1, key="same", error=0.1), row(2, key="same", error=0.1, version="2")])
    assert len(apart) == 2


def test_what_cannot_be_run_again_takes_neither_rank_nor_credit_from_what_was() -> None:
    held, made = row(1, key="same", error=0.01), row(2, key="same", error=0.2, level="replayed")
    best, last = row(3, error=0.001), row(4, error=0.3, level="confirmed")
    found = rows_of([held, made, best, last])
    assert [r["id"] for r in found] == [made.id, last.id, best.id]
    assert found[0]["merged"] == [held.id]


def test_what_is_not_scored_stands_last_and_what_is_rejected_nowhere() -> None:
    told = [row(1), row(2, error=0.3), row(3, level="rejected"), row(4, error=0.1)]
    assert [r["id"] for r in rows_of(told)] == [told[3].id, told[1].id, told[0].id]


KEYS = (
    "id task task_version law latex key method submitter holdout_are holdout_r2 holdout_se reference_are difference "
    "coverage regret n_params complexity identifiable usd seconds flops looks runs_declared runs_finished level date "
    "merged note"
)


def test_a_row_has_every_column_before_it_is_scored_too() -> None:
    assert set(KEYS.split()) <= rows_of([row(1)])[0].keys() == rows_of([row(1, error=0.1)])[0].keys()


def test_a_submission_to_a_task_that_has_changed_since_is_held_and_not_rejected(place: Path, tmp_path: Path) -> None:
    with open_board(str(tmp_path / "board.sqlite")) as board, Worker() as worker:
        held = verify(board, board.receive(sealed(packed(0)), "before")[0], worker)
        assert (held.level, "it was before when this came" in held.reason) == ("received", True)
        assert (board.incidents(), waiting(board)) == ([], [])


# ---- verbs ----


def said(*words: str) -> str:
    done = CliRunner().invoke(board_app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_runs_are_submitted_shown_and_exported(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLAB_BOARD", str(tmp_path / "board.sqlite"))
    assert "next: agentlab leaderboard submit" in said()
    told = json.loads(said("submit", "tiny-001", "tiny-002", "--name", "ann", "--note", "=1+1", "--json"))
    assert told["new"] is True
    assert "was received before" in said("submit", "tiny-001", "tiny-002", "--name", "ann", "--note", "=1+1")
    (found,) = json.loads(said("--json"))
    assert (found["id"], found["level"], found["runs_finished"]) == (told["id"], "received", 2)
    page = said()
    assert page.splitlines()[-1] == f"next: agentlab leaderboard verify {told['id'][:12]}"
    assert found == board_rows()[0]
    for kind in ("csv", "json", "md"):
        said("export", "--out", str(tmp_path / f"board.{kind}"))
    assert json.loads((tmp_path / "board.json").read_text()) == [found]
    with (tmp_path / "board.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert (line["id"], line["note"]) == (told["id"], "'=1+1")
    assert "| tiny |" in (tmp_path / "board.md").read_text()
    assert "0 incident(s)" in said("incidents")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["submit", "nowhere"], "no run 'nowhere'"),
        (["submit", "tiny-001", "--declared", "0,x"], "write the seeds with commas"),
        (["submit", "tiny-001", "--declared", "5"], "leaves out seed 0"),
        (["submit", "tiny-001", "tiny-001"], "two runs have the same seed"),
        (["submit", "tiny-001", "--name", "<b>"], "submitter"),
        (["submit", "tiny-001", "--to", "http://127.0.0.1:1"], "does not answer"),
        (["verify", "abc"], "no submission 'abc'"),
        (["export", "--out", "board.docx"], "told by the ending"),
        (["export", "--out", "nowhere/board.md"], "a file that can be written"),
        (["token", ""], "is no name"),
        (["--board", "."], "unable to open"),
        (["--board", "sqlite://"], "a board in memory"),
        (["second", "nothing"], "no such task"),
        (["second", "tiny"], "its truth is not known"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_line(
    words: list[str], says: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLAB_BOARD", str(tmp_path / "board.sqlite"))
    with pytest.raises(AgentlabError, match=r"^[^\n]+$") as raised:
        said(*words)
    assert says in str(raised.value)


def test_a_run_of_a_file_has_no_place_on_the_board(place: Path, tmp_path: Path) -> None:
    config = json.loads((place / "runs/tiny-001/config.json").read_text())
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"task": None, "data": "mine.csv"}))
    (folder / "trace.jsonl").write_bytes((place / "runs/tiny-001/trace.jsonl").read_bytes())
    with pytest.raises(UsageError, match="make the file a task"):
        pack([str(folder)], "ann")


def test_what_is_packed_says_nothing_of_where_the_runs_were_made(place: Path) -> None:
    text = pack(["tiny-001"], "ann")
    assert str(place).encode() not in text
    assert b"workers" in text


def test_a_board_that_is_not_there_is_one_line() -> None:
    with pytest.raises(BackendError, match=r"^[^\n]*does not answer[^\n]*$"):
        send(b"{}", "http://127.0.0.1:1")
