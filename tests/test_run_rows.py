"""Rows in a run folder: they come back bit for bit, the sealed ones apart, and a large table has a fair sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentlab import run_rows
from agentlab.run_rows import Intake, RunRowsError, read_rows, read_sealed, sample, write_rows
from agentlab.types import Reference, Rows, Task, Variable


def some_rows(n: int, groups: int = 3, seed: int = 0, *, scaled: bool = True) -> Rows:
    rng = np.random.default_rng(seed)
    x = rng.lognormal(size=n)
    group = np.array([f"g{i}" for i in rng.integers(0, groups, n)])
    return Rows({"x": x}, {"a/b loss": rng.normal(size=n)}, group, np.ones(n), x**2 if scaled else None, np.arange(n))


TASK = Task(
    name="made up",
    features=(Variable("x", unit="1", box=(0.5, 2.0), monotone="-"),),
    targets=("a/b loss",),
    group="family",
    bounds={"E": (0.0, 3.0)},
    reference=Reference("E + A/x", {"E": 1.7, "A": 2.0}, "nobody 2025"),
)


def same(a: Rows, b: Rows) -> bool:
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        *zip(a.columns.values(), b.columns.values(), strict=True),
        *zip(a.targets.values(), b.targets.values(), strict=True),
    ]
    pairs += [(a.group, b.group), (a.weight, b.weight), (a.run, b.run)]
    return list(a.targets) == list(b.targets) and all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def test_task_rows_and_sealed_rows_come_back_bit_for_bit(tmp_path: Path) -> None:
    rows, sealed = some_rows(20), some_rows(5, scaled=False)
    write_rows(tmp_path, Intake(TASK, rows, sealed))
    task, back = read_rows(tmp_path)
    assert task == TASK
    assert same(rows, back)
    assert back.scale is not None
    found = read_sealed(tmp_path)
    assert found is not None
    assert same(sealed, found)
    assert found.scale is None


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name, Intake(TASK, some_rows(20)))
    assert (tmp_path / "one/rows.npz").read_bytes() == (tmp_path / "two/rows.npz").read_bytes()
    assert not (tmp_path / "one/holdout.npz").exists()
    assert read_sealed(tmp_path / "one") is None


def test_the_search_sees_a_sample_of_a_large_table_and_the_last_fit_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_rows, "SAMPLE_ROWS", 30)
    write_rows(tmp_path, Intake(TASK, some_rows(100)))
    assert len(read_rows(tmp_path)[1]) == 30
    assert len(read_rows(tmp_path, every=True)[1]) == 100


def test_a_damaged_or_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunRowsError, match=r"task\.json: no readable task here; give the folder of a run"):
        read_rows(tmp_path)
    write_rows(tmp_path, Intake(TASK, some_rows(20)))
    (tmp_path / "rows.npz").write_bytes((tmp_path / "rows.npz").read_bytes()[:100])
    with pytest.raises(RunRowsError, match=r"rows\.npz: cannot be read as a run's rows"):
        read_rows(tmp_path)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 30), st.integers(1, 200), st.integers(0, 5), st.booleans())
def test_a_sample_is_small_seeded_and_spans_the_scale(n: int, groups: int, size: int, seed: int, scaled: bool) -> None:
    rows = some_rows(n, groups, scaled=scaled)
    drawn = sample(rows, size, seed)
    assert len(drawn) == min(n, size)
    assert same(drawn, sample(rows, size, seed))
    assert len(np.unique(drawn.run)) == len(drawn)
    assert np.all(np.diff(drawn.run) > 0)
    if size >= 4 * len(rows.groups):
        assert drawn.groups == rows.groups
    if scaled and size >= 8 * groups:
        assert rows.scale is not None
        assert drawn.scale is not None
        assert (drawn.scale.min(), drawn.scale.max()) == (rows.scale.min(), rows.scale.max())


def test_groups_keep_their_shares_in_a_sample() -> None:
    rows = some_rows(4000, groups=1)
    rare = np.arange(4000) < 40
    mixed = Rows(rows.columns, rows.targets, np.where(rare, "rare", "common"), rows.weight, rows.scale, rows.run)
    drawn = sample(mixed, 400, seed=1)
    assert np.sum(drawn.group == "rare") >= 16
    assert np.sum(drawn.group == "common") >= 380
    assert not same(drawn, sample(mixed, 400, seed=2))
