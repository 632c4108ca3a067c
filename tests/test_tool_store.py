"""The file of an index of tools: whatever happened to it, it is whole or made anew, and never another's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tool_examples import FIT, MAIL, built, by_server, thousand

from agentlab.errors import AgentlabError
from agentlab.tool_embed import Hashed, WeightedAverage
from agentlab.tool_index import ToolIndex


def test_another_embedder_or_recipe_makes_the_index_anew(tmp_path: Path) -> None:
    path = tmp_path / "tools.sqlite"
    built([FIT, MAIL], path)
    for index in (ToolIndex(path, Hashed(64)), ToolIndex(path, Hashed(64), WeightedAverage())):
        assert index.tools == ()
        assert len(index.sync(by_server([FIT, MAIL])).created) == 2
        assert index.find("fit a formula", 1)[0].name == "fit.fitLaw"
    assert ToolIndex(path, Hashed(64), WeightedAverage()).tools == (FIT, MAIL)


def test_a_torn_or_damaged_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "tools.sqlite"
    built(thousand()[:60], path)
    whole = path.read_bytes()
    for damage in (whole[:10], whole[: len(whole) // 2], whole[:5000], b"", b"\0" * len(whole), _flipped(whole)):
        path.write_bytes(damage)
        index = ToolIndex(path)
        assert index.tools == ()
        index.sync(by_server([FIT, MAIL]))
        assert ToolIndex(path).tools == (FIT, MAIL)


def _flipped(whole: bytes) -> bytes:
    """A file in which one letter of a description is another, as a bad disk leaves it."""
    at = whole.index(b"descri")
    return whole[:at] + b"D" + whole[at + 1 :]


@pytest.mark.parametrize("content", [b"my thesis\n" * 20, b"SQLite format 3\0" + b"\1" * 200], ids=["text", "database"])
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thesis.tex"
    path.write_bytes(content)
    with pytest.raises(AgentlabError, match="something else"):
        ToolIndex(path)
    assert path.read_bytes() == content
    with pytest.raises(AgentlabError, match="not a file"):
        ToolIndex(tmp_path)


KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("DELETE FROM tools")
for number in range(2000):
    connection.execute("INSERT INTO tools VALUES (?, 'x', 'y', zeroblob(4000))", (str(number),))
print("half-way", flush=True)
sys.stdin.read()
"""


def test_a_writer_killed_half_way_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "tools.sqlite"
    built([FIT, MAIL], path)
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half-way\n"
        process.send_signal(signal.SIGKILL)
    assert path.stat().st_size > 1e6  # it did write into the file
    assert ToolIndex(path).tools == (FIT, MAIL)


def test_two_indexes_may_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tools.sqlite"
    one, two = ToolIndex(path), ToolIndex(path)
    one.sync(by_server([FIT]))
    two.sync(by_server([MAIL]))
    assert ToolIndex(path).tools == (FIT, MAIL)
