"""Notebooks of five kinds of runs, executed without a network: what is recorded, recomputed, read and copied."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from finished_runs import KINDS, finished

from agentlab.replay import open_run
from agentlab.replay_cells import Asked
from agentlab.replay_notebook import write
from agentlab.types import EvaluationError

ALONE = ("--dev-bind", "/", "/", "--unshare-net", "--die-with-parent")
"""What gives bubblewrap's command a network of its own, in which there is nothing but loopback."""


def outputs(path: Path) -> str:
    """What the cells of a notebook showed, without their code."""
    cells = nbformat.read(path, as_version=4).cells  # type: ignore[no-untyped-call]
    shown = [o.get("data", {}).get("text/html", "") + o.get("text", "") for c in cells for o in c.get("outputs", [])]
    return "\n".join(shown)


def summary(shown: str) -> dict[str, list[str]]:
    """The table of kinds: how many values, how many differ, by how much at most."""
    rows = re.findall(r"<tr><td>(recomputed|measured \(read\)|hold-out \(copied\))</td>(.*?)</tr>", shown)
    return {kind: re.findall(r"<td>(.*?)</td>", rest) for kind, rest in rows}


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebook_executes_from_the_folder_alone_without_network_and_every_value_is_the_recorded_one(
    kind: str, bwrap: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path / "elsewhere" / finished(kind, tmp_path_factory).name
    shutil.copytree(finished(kind, tmp_path_factory), folder)
    net = subprocess.run([bwrap, *ALONE, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0].strip() for line in net.splitlines()[2:]] == ["lo"]
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    write(open_run(folder), tmp_path / "made", Asked(""), under=[bwrap, *ALONE])
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before, "a run is only read"
    shown = outputs(tmp_path / "made" / "replay.ipynb")
    found = summary(shown)
    assert int(found["recomputed"][0]) > 100
    assert found["recomputed"][1] == "0"
    assert float(found["recomputed"][2]) <= 1e-9
    run = open_run(folder)
    if kind in ("models", "programs", "training"):
        assert int(found["measured (read)"][0]) > 2
    if kind == "training":
        loss = run.experiments()[0]["targets"]["loss"]
        assert f"<td>measured targets.loss</td><td>{loss:.10g}</td>" in shown
    if kind == "plain":
        assert found["hold-out (copied)"][0] == "6"
        figure = run.of("holdout")[0]["holdout"]["are"]
        assert f"<td>hold-out holdout.are</td><td>{figure:.10g}</td>" in shown
    assert run.law.program is (kind == "programs")
    page = (tmp_path / "made" / "replay.html").read_text()
    assert "<svg" in page
    assert ("<math" in page) is (kind != "programs")
    assert not re.findall(r"""(?:src|href)=["'](?!#)|url\(|@import|<script""", page), "nothing is loaded from elsewhere"


def test_a_notebook_fails_where_a_recorded_value_is_not_what_is_computed_and_shows_where(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = changed(finished("plain", tmp_path_factory), tmp_path, "objective")
    with pytest.raises(EvaluationError, match=r"a cell failed, AssertionError: trace.jsonl line \d+: entry objective"):
        write(open_run(folder), tmp_path / "made", Asked("", entries=4))
    assert "AssertionError" in (tmp_path / "made" / "replay.html").read_text()


def test_a_notebook_has_its_parameters_in_a_tagged_cell_and_names_the_run_by_its_path_from_there(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from agentlab.replay_cells import cells_of  # noqa: PLC0415
    from agentlab.replay_notebook import notebook_of  # noqa: PLC0415

    run = open_run(finished("plain", tmp_path_factory))
    notebook = notebook_of(cells_of(run, Asked("../plain", generation=1, entries=3)))
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    given: dict[str, Any] = {}
    exec(cell.source, given)  # noqa: S102 -- our own text
    assert given["RUN"] == "../plain"
    assert (given["GENERATION"], given["ENTRIES"], given["FORK_AFTER"]) == (1, 3, None)


def changed(source: Path, tmp_path: Path, field: str) -> Path:
    """A copy of a run in whose trace one value of the first entry is another, by a millionth."""
    folder = tmp_path / "changed"
    shutil.copytree(source, folder)
    lines = (folder / "trace.jsonl").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if '"kind":"entry"' in line)
    record = json.loads(lines[at])
    record[field] *= 1 + 1e-6
    lines[at] = json.dumps(record, separators=(",", ":"))
    (folder / "trace.jsonl").write_text("\n".join([*lines, ""]))
    return folder
