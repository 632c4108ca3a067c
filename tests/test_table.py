"""Intake: a user's words and file become a task and rows, or one line that says what to change."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from agentlab.csv_header import TableError
from agentlab.run_rows import Intake
from agentlab.table import default_max_params, file_rows, intake
from agentlab.types import ALL, AgentlabError, RunConfig


def table(folder: Path, *, rows: int = 24, **changes: list[str]) -> Path:
    """A clean file of runs of a Chinchilla-like law, with cells replaced where `changes` gives a column."""
    n = [f"{1e6 * 10 ** (i % 6 / 2):.6g}" for i in range(rows)]
    d = [f"{1e8 * 10 ** (i // 6 / 2):.6g}" for i in range(rows)]
    loss = [f"{1.7 + 400 / float(a) ** 0.34 + 410 / float(b) ** 0.28:.6f}" for a, b in zip(n, d, strict=True)]
    columns = {"n": n, "d": d, "loss": loss, "kind": [f"k{i % 2}" for i in range(rows)], "w": ["1"] * rows} | changes
    lines = [",".join(columns), *(",".join(cells) for cells in zip(*columns.values(), strict=True))]
    path = folder / "runs.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def cells(value: str, at: dict[int, str], rows: int = 24) -> list[str]:
    """A column of one value with some cells replaced, by position."""
    return [at.get(i, value) for i in range(rows)]


def take(path: Path, **words: object) -> Intake:
    given: dict[str, object] = {"data": str(path), "target": "loss", "features": "n,d"}
    assert set(words) <= {f.name for f in fields(RunConfig)}
    return intake(RunConfig(**(given | words)))  # type: ignore[arg-type]  # words as the command line gives them


def test_a_clean_file_becomes_a_task_and_its_rows(tmp_path: Path) -> None:
    got = take(table(tmp_path), group="kind", weights="w", monotone="n:-,d:-", box="n:1e6..1e13")
    assert got.task.names == ("n", "d")
    assert [v.monotone for v in got.task.features] == ["-", "-"]
    assert [v.box for v in got.task.features] == [(1e6, 1e13), None]
    assert got.rows.groups == ("k0", "k1")
    assert len(got.rows) == 24
    assert got.holdout is None
    assert got.rows.columns["n"].dtype == np.float64


def test_what_is_not_given_is_chosen_and_told(tmp_path: Path) -> None:
    got = take(table(tmp_path))
    assert got.task.scale == "n*d"
    assert got.task.residual == "log"
    assert got.task.max_params == 6
    assert all(v.log for v in got.task.features)
    assert got.rows.groups == (ALL,)
    assert got.rows.scale is not None
    np.testing.assert_allclose(got.rows.scale, got.rows.columns["n"] * got.rows.columns["d"])
    assert any(note.startswith("scale: n*d") for note in got.notes)
    assert any(note.startswith("residual: log") for note in got.notes)


def test_a_compute_column_orders_the_runs_without_being_asked(tmp_path: Path) -> None:
    assert take(table(tmp_path, compute=[f"{i + 1}e18" for i in range(24)])).task.scale == "compute"
    assert take(table(tmp_path, compute=["1e18"] * 24)).task.scale == "n*d"
    assert take(table(tmp_path, compute=["1e18"] * 24), scale="6*n*d").task.scale == "6*n*d"


def test_learning_rates_and_ratios_are_no_scale(tmp_path: Path) -> None:
    path = table(tmp_path, lr=cells("0.001", {0: "0.1"}), bsz=cells("8", {0: "4096"}), share=cells("0.9", {0: "0.01"}))
    assert take(path, features="lr,bsz,share").task.scale is None
    assert take(path, features="lr,n").task.scale == "n"


def test_a_target_at_or_below_zero_has_plain_residuals(tmp_path: Path) -> None:
    path = table(tmp_path, loss=[str(i - 3) for i in range(24)])
    assert take(path).task.residual == "plain"
    with pytest.raises(AgentlabError, match=r"line 2: target 'loss' is -3; residual=log needs values > 0"):
        take(path, residual="log")


def test_small_groups_lower_the_default_of_max_params(tmp_path: Path) -> None:
    path = table(tmp_path, kind=["a"] * 20 + ["b"] * 4)
    assert take(path, group="kind").task.max_params == 2
    assert default_max_params(take(path).rows) == 6
    assert take(path, group="kind", max_params=3).task.max_params == 3


def test_the_rows_are_split_before_anything_is_chosen_from_them(tmp_path: Path) -> None:
    loss = [f"{2 + i / 100}" for i in range(23)] + ["-1"]
    got = take(table(tmp_path, loss=loss), holdout="loss<0", residual=None)
    assert got.task.residual == "log"  # the sealed row is negative, and has no say


def test_where_train_and_holdout_choose_rows(tmp_path: Path) -> None:
    path = table(tmp_path, ok=cells("1", {3: "0", 23: "0"}))
    got = take(path, where="ok==1", holdout="d>5e8")
    assert got.holdout is not None
    assert (len(got.rows), len(got.holdout)) == (11, 11)
    assert got.holdout.columns["d"].min() > 5e8
    assert got.rows.columns["d"].max() < 5e8
    part = take(path, train="n<1e8", holdout="n>2e8")
    assert part.holdout is not None
    assert (len(part.rows), len(part.holdout)) == (16, 4)


def test_a_holdout_file_is_read_with_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "sealed").mkdir()
    sealed = table(tmp_path / "sealed", rows=6)
    data = table(tmp_path)
    with pytest.raises(TableError, match="all 5 rows are among the 20 that are fitted"):
        take(data, holdout=str(sealed), where="n>1e6")
    sealed = table(tmp_path / "sealed", rows=6, loss=[f"{2.1 + i / 10}" for i in range(6)])
    got = take(data, holdout=str(sealed), where="n>1e6")
    assert got.holdout is not None
    assert len(got.holdout) == 5
    assert len(got.rows) == 20


def test_rows_of_one_run_share_its_number(tmp_path: Path) -> None:
    path = table(tmp_path, run_id=[f"r{i // 3}" for i in range(24)], seed=[str(i % 2) for i in range(24)])
    assert np.unique(take(path).rows.run).tolist() == list(range(8))
    assert len(np.unique(take(path, run="seed").rows.run)) == 2
    assert len(np.unique(take(table(tmp_path)).rows.run)) == 24


def test_a_numeric_column_may_be_group_and_condition_at_once(tmp_path: Path) -> None:
    path = table(tmp_path, size=[str(70 + i % 3) for i in range(24)])
    assert take(path, group="size", where="size>=71").rows.groups == ("71", "72")


def test_gaps_outside_the_rows_that_are_kept_do_no_harm(tmp_path: Path) -> None:
    path = table(tmp_path, loss=cells("2.5", {2: "3.1", 5: "", 6: "diverged"}), ok=cells("1", {5: "0", 6: "0"}))
    assert len(take(path, where="ok==1").rows) == 22


def test_separators_quotes_and_byte_marks_are_read(tmp_path: Path) -> None:
    plain = table(tmp_path).read_text(encoding="utf-8")
    want = take(tmp_path / "runs.csv").rows
    variants = (plain.replace(",", ";"), plain.replace(",", "\t"), plain.replace("\n", "\r\n"), "\ufeff" + plain,
                plain.replace("k1", '"k,1"'), plain.rstrip("\n"), plain.replace("\n", "\n\n", 3))  # fmt: skip
    for text in variants:
        (tmp_path / "runs.csv").write_bytes(text.encode("utf-8"))
        np.testing.assert_array_equal(take(tmp_path / "runs.csv").rows.targets["loss"], want.targets["loss"])


BAD_CELLS: dict[str, tuple[dict[str, list[str]], dict[str, object]]] = {
    "line 5: column 'n' holds '1M', not a number; correct the cell": ({"n": cells("5", {3: "1M"})}, {}),
    "holds '1,000', not a number; write it without thousands": ({"n": cells("5", {3: '"1,000"'})}, {}),
    "holds '1,5', not a number; write the decimal point as '.'": ({"n": cells("5", {3: '"1,5"'})}, {}),
    "column 'n' holds text in every one of the 24 rows; name another": ({"n": cells("big", {})}, {}),
    "line 3: column 'loss' is blank or not a number in 1 of 24 rows": ({"loss": cells("3", {0: "2", 1: ""})}, {}),
    "lines 2, 4, 6, 8, 10, ..: column 'n' is blank": ({"n": ["", "7"] * 12}, {}),
    'leave them out with where="n<=7.0"': ({"n": ["", "7"] * 12}, {}),
    "column 'loss' is infinite in 1 of 24 rows": ({"loss": cells("3", {0: "2", 1: "inf"})}, {}),
    "column 'loss' holds no number in every one of the 24 rows": ({"loss": cells("nan", {})}, {}),
    "target 'loss' is 3 in all 24 rows; there is nothing to explain": ({"loss": cells("3", {})}, {}),
    "line 4: no group in column 'kind' (2 rows)": ({"kind": cells("a", {2: "", 9: " "})}, {"group": "kind"}),
    "group 'b' of column 'kind' has 1 row; at least 3": ({"kind": cells("a", {2: "b"})}, {"group": "kind"}),
    "line 6: weight 'w' is -1; weights must be 0 or more": ({"w": cells("1", {4: "-1"})}, {"weights": "w"}),
    "every weight in column 'w' is 0": ({"w": cells("0", {})}, {"weights": "w"}),
    "line 5: scale='n/w' is inf": ({"w": cells("1", {3: "0"})}, {"scale": "n/w"}),
}


@pytest.mark.parametrize("words", BAD_CELLS)
def test_a_bad_cell_is_told_with_file_column_line_and_fix(words: str, tmp_path: Path) -> None:
    columns, keys = BAD_CELLS[words]
    path = table(tmp_path, rows=24, **columns)
    with pytest.raises(AgentlabError) as caught:
        take(path, **keys)
    told = str(caught.value)
    assert words in told
    assert told.startswith(str(path))
    assert "\n" not in told
    assert caught.value.exit_code == 2


BAD_WORDS: dict[str, dict[str, object]] = {
    "neither task= nor data= is given; write task=moe_leverage": {"data": None},
    "task= and data= are both given": {"task": "moe_leverage"},
    "target= is missing; write target=COLUMN": {"target": None},
    "features= is missing; write features=COLUMN": {"features": None},
    "no column 'los'; did you mean 'loss'?": {"target": "los"},
    "no column 'N'; did you mean 'n'?": {"features": "N,d"},
    "features=: 'loss' is the target; leave it out": {"features": "n,loss"},
    "features=: 'kind' is the group": {"features": "n,kind", "group": "kind"},
    "features='n,n': 'n' stands twice": {"features": "n,n"},
    "features='n,,d': there is nothing between two commas": {"features": "n,,d"},
    "no column 'knd'; did you mean 'kind'?": {"group": "knd"},
    "no column 'weight'": {"weights": "weight"},
    "no column 'lss', which 'lss>2' mentions; did you mean 'loss'?": {"where": "lss>2"},
    "where='n>1e20' keeps none of the 24 rows; loosen it": {"where": "n>1e20"},
    "holdout='n>1e20' keeps none of the 24 rows": {"holdout": "n>1e20"},
    "train='n>1e20' keeps none of the 24 rows": {"train": "n>1e20"},
    "holdout= takes all 24 rows and leaves none to fit": {"holdout": "n>0"},
    "4 rows are in train= and in holdout=; make the two disjoint": {"train": "n>0", "holdout": "n>1e8"},
    "where='n>': ": {"where": "n>"},
    "where='n': ": {"where": "n"},
    "scale='6*n*': ": {"scale": "6*n*"},
    "no column 'c', which '6*c' mentions": {"scale": "6*c"},
    "1 row to fit; at least 3 are needed": {"where": "n==1e6 and d==1e8"},
    "there are 4 rows for max_params=4; write max_params=3 or less": {"where": "n==1e6", "max_params": 4},
    "max_params=0: a law needs a parameter": {"max_params": 0},
    "residual='sqrt' is not known; write residual=log": {"residual": "sqrt"},
    "monotone='n:down': n:down is not + (rises) or - (falls)": {"monotone": "n:down"},
    "monotone='m:-': 'm' is not among the features; there is: n, d": {"monotone": "m:-"},
    "monotone='n': 'n' is not NAME:VALUE": {"monotone": "n"},
    "monotone='n:-,n:+': 'n' stands twice": {"monotone": "n:-,n:+"},
    "box='n:1e6': n:1e6 is no range low..high": {"box": "n:1e6"},
    "box='n:9..2': n:9..2 is no range low..high": {"box": "n:9..2"},
    "box='n:a..b': n:a..b is no range low..high": {"box": "n:a..b"},
    "nosuch.csv: no such file": {"holdout": "nosuch.csv"},
}


@pytest.mark.parametrize("words", BAD_WORDS)
def test_a_bad_word_is_told_with_what_to_write(words: str, tmp_path: Path) -> None:
    with pytest.raises(AgentlabError) as caught:
        take(table(tmp_path), **BAD_WORDS[words])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_data_file_is_told(tmp_path: Path) -> None:
    table(tmp_path)
    with pytest.raises(AgentlabError, match=r"run\.csv: no such file; did you mean 'runs\.csv'\?"):
        take(tmp_path / "run.csv")


def test_a_column_that_cannot_stand_in_a_formula_gets_a_better_name(tmp_path: Path) -> None:
    path = table(tmp_path)
    path.write_text(path.read_text().replace("n,d,", "model size,d,", 1))
    with pytest.raises(
        AgentlabError, match=r"line 1: 'model size' cannot stand in a formula; rename it to 'model_size'"
    ):
        take(path, features="model size,d")


def test_a_sealed_group_without_rows_to_fit_is_told(tmp_path: Path) -> None:
    path = table(tmp_path, kind=["a"] * 20 + ["b"] * 4)
    with pytest.raises(AgentlabError, match=r"holdout=: group 'b' of column 'kind' has no rows to fit"):
        take(path, group="kind", holdout="kind=='b'")


def test_data_is_found_in_the_data_folders_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path)
    monkeypatch.setenv("AGENTLAB_DATA", f"{tmp_path / 'none'}:{tmp_path}")
    assert len(take(Path("runs.csv")).rows) == 24


def test_published_tables_are_taken_as_they_are(third_party_data: Path) -> None:
    got = take(
        third_party_data / "laws/chinchilla_epoch/data.csv",
        features="n_params,tokens",
        where="is_outlier_besiroglu==0",
        holdout="compute_train>=9.5e20",
    )
    assert got.holdout is not None
    assert (len(got.rows), len(got.holdout)) == (205, 35)
    assert got.task.scale == "compute_train"
    split = third_party_data / "sldbench/sft"
    words: dict[str, object] = {"target": "sft_loss", "features": "sft_data_size", "group": "group"}
    many = take(split / "train.csv", holdout=str(split / "test.csv"), **words)
    assert len(many.rows.groups) == 42
    assert len(file_rows(many.task, split / "test.csv")) == 42


def test_rows_with_text_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    got = take(table(tmp_path, loss=cells("2.5", {2: "3.1", 5: "", 6: "diverged"})), where="loss>0")
    assert len(got.rows) == 22
    assert (
        "where: 2 of 24 rows are left out, 1 of them with text in place of a number (line 8: 'diverged')" in got.notes
    )


def test_a_condition_on_a_column_with_a_stray_word_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(AgentlabError, match=r"where='step>3'.*column 'step' is text, as line 9 holds 'end'"):
        take(table(tmp_path, step=cells("5", {7: "end"})), where="step>3")
