"""The two readers of CSV files: the quick one and the careful one agree, and what is wrong is told with its line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentlab import csv_clean, csv_columns, csv_header
from agentlab.csv_clean import read_clean
from agentlab.csv_columns import read_columns
from agentlab.csv_header import TableError, read_header

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**12), 10**12).map(str),
    st.sampled_from(["nan", "inf", "-inf", "1e300", " 2.5 ", "+3"]),
)
LABELS = st.text(alphabet="abcXYZ019 -.:#%", min_size=1, max_size=8).filter(lambda s: s.strip() != "")


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "runs.csv"
    path.write_bytes(text.encode(encoding))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(NUMBERS, LABELS, NUMBERS), min_size=1, max_size=12),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from([",", ";", "\t"]),
    last=st.booleans(),
    blank=st.booleans(),
    bom=st.booleans(),
)
def test_the_quick_and_the_careful_reader_agree(
    rows: list[tuple[str, str, str]], end: str, mark: str, last: bool, blank: bool, bom: bool, tmp_path: Path
) -> None:
    lines = [mark.join(["n", "kind", "loss"]), *(mark.join(row) for row in rows)]
    if blank:
        lines.insert(1, "")
    text = end.join(lines) + (end if last else "")
    path = write(tmp_path, text, "utf-8-sig" if bom else "utf-8")
    assert read_header(path)[1] == ("n", "kind", "loss")
    kinds: dict[str, csv_header.Kind] = {"loss": "number", "kind": "text", "n": "either"}
    layout = csv_header.read_layout(path, kinds)
    quick, careful = read_clean(layout), csv_columns._read_cells(layout)
    assert (quick is None) == blank
    assert careful.lines.tolist() == list(range(2 + blank, len(rows) + 2 + blank))
    for name, values in (quick or {}).items():
        np.testing.assert_array_equal(values, careful.values[name])
    assert careful.values["kind"].tolist() == [row[1].strip() for row in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(st.text(alphabet='ab",\n; ', max_size=5), st.integers(0, 9)), min_size=1, max_size=8))
def test_what_pythons_csv_writes_is_read_back_with_its_line_numbers(
    rows: list[tuple[str, int]], tmp_path: Path
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["label", "x"])
    starts = []
    for row in rows:
        starts.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    read = read_columns(write(tmp_path, text.getvalue()), {"label": "text", "x": "number"})
    assert read.values["label"].tolist() == [label.strip() for label, _ in rows]
    assert read.values["x"].tolist() == [float(x) for _, x in rows]
    assert read.lines.tolist() == starts


@pytest.mark.parametrize("rows_in_a_chunk", [1, 2, 3, 100])
def test_chunks_leave_no_seam(rows_in_a_chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_columns, "_CHUNK_ROWS", rows_in_a_chunk)
    monkeypatch.setattr(csv_clean, "_SCAN_BYTES", 7)
    clean = write(tmp_path, "a,b\n1,2\n3,4\n5,6")
    assert read_columns(clean, {"b": "number"}).values["b"].tolist() == [2, 4, 6]
    assert read_columns(clean, {"b": "number"}).lines.tolist() == [2, 3, 4]
    quoted = write(tmp_path, 'a,b\n"1",2\n\n"3\n",4\n5,x')
    read = read_columns(quoted, {"b": "number", "a": "text"})
    assert read.lines.tolist() == [2, 4, 6]
    assert read.text_cells == {"b": {2: "x"}}


def test_missing_cells_are_nan_and_text_is_remembered(tmp_path: Path) -> None:
    read = read_columns(write(tmp_path, "a,b\n1,\nNA,2\nfour,null\n1_000,3\n"), {"a": "number", "b": "number"})
    np.testing.assert_array_equal(read.values["a"], [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(read.values["b"], [np.nan, 2, np.nan, 3])
    assert read.text_cells == {"a": {2: "four", 3: "1_000"}}


def test_a_column_with_gaps_is_still_numbers(tmp_path: Path) -> None:
    read = read_columns(write(tmp_path, "a,b\n,x\n2,y\n"), {"a": "either", "b": "either"})
    assert read.values["a"].dtype == np.float64
    assert read.values["b"].tolist() == ["x", "y"]


BAD_FILES = {
    "is empty": b"",
    "is empty; the first line must name the columns": b"\n \n",
    "no rows; add one line a training run": b"a,b\n",
    "no column 'b'; did you mean 'B'?": b"a,B\n1,2\n",
    "no column 'b'; there is: x, y": b"x,y\n1,2\n",
    "2 columns are called 'b'; rename all but one in line 1": b"a,b,b\n1,2,3\n",
    "line 3: 3 cells where the header has 2; put quotes around a cell that holds ','": b"a,b\n1,2\n1,2,3\n",
    "line 3: 1 cells where the header has 2; is the line cut short": b"a,b\n1,2\n3\n4,5\n",
    "is a quote left open?": b'a,b\n1,2\n"3,4\n5,6\n',
    "line 3: not UTF-8 text; save the file with UTF-8 encoding": b"a,b\n1,2\n\xe9,3\n",
    "not UTF-8 text": "a,b\n1,2\n".encode("utf-16"),
    "compressed or a workbook?": b"\x1f\x8b\x08\x00\x00",
}


@pytest.mark.parametrize("words", BAD_FILES)
def test_a_bad_file_is_told_in_one_line(words: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(BAD_FILES[words])
    with pytest.raises(TableError) as caught:
        read_columns(path, {"a": "number", "b": "number"} if "there is: x" not in words else {"b": "number"})
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_names_the_nearest_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "a\n1\n")
    with pytest.raises(TableError, match=r"rums\.csv: no such file; did you mean 'runs\.csv'\?"):
        read_header(tmp_path / "rums.csv")
    with pytest.raises(TableError, match="is a folder; name the CSV file in it"):
        read_header(tmp_path)


def test_too_large_a_file_is_refused_with_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a,b\n" + "1,2\n" * 50)
    monkeypatch.setattr(csv_header, "MAX_ROWS", 20)
    with pytest.raises(TableError, match="more than 20 rows"):
        read_columns(path, {"a": "number"})
    write(tmp_path, 'a,b\n"1",2\n' + "1,2\n" * 50)
    with pytest.raises(TableError, match="more than 20 rows"):
        read_columns(path, {"a": "number"})
    monkeypatch.setattr(csv_header, "MAX_BYTES", 100)
    with pytest.raises(TableError, match=r"0\.0 GB; at most 0 GB is read"):
        read_columns(path, {"a": "number"})
