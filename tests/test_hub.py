"""Rows from the hub: fetched page by page from a real HTTP server that speaks its protocol, checked, written whole."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agentlab.csv_columns import read_columns
from agentlab.hub import HubError, digest, fetch
from agentlab.types import Source

COLUMNS = ("group", "n", "loss")
ROWS: list[dict[str, Any]] = [{"group": "a, b", "n": float(i), "loss": 1 / (i + 1), "more": 0} for i in range(230)]


class Hub(BaseHTTPRequestHandler):
    """The hub's service of rows, for one data set (its documented protocol, served locally)."""

    def do_GET(self) -> None:
        asked = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        if asked["dataset"] != "owner/rows":
            self.send_error(404)
            return
        rows = ROWS if asked["split"] == "train" else ROWS[:7]
        start = int(asked["offset"])
        page = [{"row_idx": i, "row": rows[i]} for i in range(start, min(start + int(asked["length"]), len(rows)))]
        body = json.dumps({"rows": page, "num_rows_total": len(rows)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AGENTLAB_HUB", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def source(**more: Any) -> Source:
    return Source(**({"dataset": "owner/rows", "config": "one"} | more))


def test_every_page_is_fetched_and_read_back(tmp_path: Path) -> None:
    right = source(train=230, test=7, digest=digest(ROWS, COLUMNS))
    train, test = fetch(right, COLUMNS, tmp_path / "new" / "place")
    read = read_columns(train, {"group": "text", "n": "number", "loss": "number"})
    assert list(read.values["n"]) == [row["n"] for row in ROWS]
    assert list(read.values["loss"]) == [row["loss"] for row in ROWS]
    assert set(read.values["group"]) == {"a, b"}
    assert len(read_columns(test, {"n": "number"}).lines) == 7


def test_the_digest_does_not_depend_on_the_order_of_rows() -> None:
    assert digest(ROWS, COLUMNS) == digest(ROWS[::-1], COLUMNS)
    assert digest(ROWS, COLUMNS) != digest(ROWS[1:], COLUMNS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"train": 229}, "230 rows on the hub, 229 expected"),
        ({"digest": "0" * 64}, "these are not the rows this task was made from"),
        ({"dataset": "owner/gone"}, "cannot be read (HTTPStatusError)"),
    ],
)
def test_rows_that_are_not_the_tasks_are_refused_and_nothing_is_written(
    tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(HubError, match="owner/") as told:
        fetch(source(**wrong), COLUMNS, tmp_path / "place")
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "place").exists()


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="no column 'tokens' on the hub; it holds group, n, loss, more"):
        fetch(source(), ("n", "tokens"), tmp_path)


def test_a_hub_that_cannot_be_reached_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLAB_HUB", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="set AGENTLAB_DATA") as told:
        fetch(source(), COLUMNS, tmp_path)
    assert told.value.exit_code == 5
