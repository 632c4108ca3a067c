"""The board over HTTP: many submitters at once, a server that is killed, tokens, and what it says of bad requests."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cheats_place import packed, sealed, shared_place

from agentlab.leaderboard_board import open_board
from agentlab.leaderboard_records import MOST_BYTES, TOKEN

TOKENS = "a-token-of-the-tests"
SUBMITTERS, EACH = 32, 2
DEADLINE = 120.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_place(tmp_path_factory))
        patch.setenv("AGENTLAB_BOARD_FILES", str(tmp_path_factory.mktemp("files")))
        yield Path.cwd()


class Server:
    """A served board; killed and started again it keeps its port."""

    def __init__(self, where: str, port: int = 0) -> None:
        program = "import sys; from agentlab.cli_board import board_app; board_app(sys.argv[1:])"
        command = [sys.executable, "-c", program, "serve", "--port", str(port), "--board", where]
        env = {**os.environ, TOKEN: TOKENS}
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        assert told["token_file"] is None
        self.port = int(told["url"].rpartition(":")[2])

    def end(self, *, kill: bool = False) -> int:
        self.process.kill() if kill else self.process.terminate()
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def asked(port: int, method: str, path: str, body: bytes = b"", token: str = "", host: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = ({"Authorization": f"Bearer {token}"} if token else {}) | ({"Host": host} if host else {})
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else text
    finally:
        connection.close()


class Submitter:
    """Sends its submissions one after the other, each until it is acknowledged, as the command line would."""

    def __init__(self, bodies: list[bytes]) -> None:
        self.bodies = bodies
        self.acknowledged: list[str] = []

    def run(self, port: int, told: threading.Semaphore) -> None:
        for body in self.bodies:
            until, pause = time.monotonic() + DEADLINE, threading.Event()
            while True:
                try:
                    status, answer = asked(port, "POST", "/submissions", body, TOKENS)
                except (OSError, http.client.HTTPException):
                    assert time.monotonic() < until, "the server did not come back"
                    pause.wait(0.05)
                    continue
                assert status in (200, 201), answer
                self.acknowledged.append(answer["id"])
                told.release()
                break


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "board.sqlite")
    return str(request.getfixturevalue("postgres"))


def test_nothing_acknowledged_is_lost_and_nothing_doubled_when_the_server_is_killed(place: Path, where: str) -> None:
    told = packed(0)
    names = [f"submitter {i}" for i in range(SUBMITTERS)]
    all_of = [Submitter([sealed(told | {"submitter": n, "note": str(i)}) for i in range(EACH)]) for n in names]
    server, acknowledged = Server(where), threading.Semaphore(0)
    with ThreadPoolExecutor(SUBMITTERS) as threads:
        going = [threads.submit(one.run, server.port, acknowledged) for one in all_of]
        for _ in range(SUBMITTERS):
            assert acknowledged.acquire(timeout=DEADLINE)
        server.end(kill=True)
        assert sum(len(one.acknowledged) for one in all_of) < SUBMITTERS * EACH
        server = Server(where, server.port)
        for future in going:
            future.result(timeout=DEADLINE)
    known = [one for submitter in all_of for one in submitter.acknowledged]
    assert len(known) == len(set(known)) == SUBMITTERS * EACH
    status, (row,) = asked(server.port, "GET", "/board?task=tiny")
    assert status == 200
    assert sorted([row["id"], *row["merged"]]) == sorted(known)
    again, answer = asked(server.port, "POST", "/submissions", all_of[0].bodies[0], TOKENS)
    assert (again, answer["id"], answer["new"]) == (200, all_of[0].acknowledged[0], False)
    assert server.end() == 0
    with open_board(where) as board:
        kept = board.rows()
        assert sorted(r.id for r in kept) == sorted(known)
        assert {r.level for r in kept} == {"received"}
        assert board.payload(known[0]).task == "tiny"


def test_who_has_no_token_may_read_and_not_write_and_bad_requests_are_one_line(place: Path, tmp_path: Path) -> None:
    where = str(tmp_path / "board.sqlite")
    with open_board(where) as board:
        own = board.token("ben")
    server = Server(where)
    body = sealed(packed(0))
    try:
        for token in ("", "wrong", "x" * 5000):
            assert asked(server.port, "POST", "/submissions", body, token)[0] == 401
        assert asked(server.port, "GET", "/board") == (200, [])
        status, told = asked(server.port, "POST", "/submissions", body, own)
        assert (status, told["reason"]) == (422, "another's name")
        assert asked(server.port, "POST", "/submissions", sealed(packed(0, submitter="ben")), own)[0] == 201
        for bad in (b"", b"{", b"[" * 100_000, b'{"form": 1e999}', b"\xff\xfe", body.replace(b'"tiny"', b'"none"', 1)):
            status, told = asked(server.port, "POST", "/submissions", bad, TOKENS)
            assert status == 422
            assert len(told["error"].splitlines()) == 1
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.putrequest("POST", "/submissions")
        connection.putheader("Authorization", f"Bearer {TOKENS}")
        connection.putheader("Content-Length", str(MOST_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()
        assert asked(server.port, "GET", "/submissions/nothing")[0] == 404
        assert asked(server.port, "GET", "/incidents") == (200, [])
        assert asked(server.port, "GET", "/board", host="evil.example")[0] == 400
    finally:
        assert server.end() == 0
