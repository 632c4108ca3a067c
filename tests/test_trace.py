"""The trace: written, read, followed, repaired."""

import json
import math
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.trace import Trace, TraceError, dump, entry_record, follow, read, read_entry, repair, rewind
from agentlab.types import Entry, Outcome, Proposal, Score

numbers = st.floats(allow_nan=False)
scores = st.builds(Score, numbers, numbers, numbers, numbers, numbers, n=st.integers(0, 10**6))
outcomes = st.builds(
    Outcome,
    status=st.sampled_from(["ok", "rejected"]),
    reason=st.text(max_size=20),
    objective=numbers,
    mdl=numbers,
    n_params=st.integers(0, 9),
    complexity=st.integers(0, 99),
    structure=st.text(max_size=20),
    dev=st.none() | scores,
    cuts=st.lists(numbers, max_size=3).map(tuple),
    violations=st.lists(st.text(max_size=9), max_size=2).map(tuple),
    params=st.just({"all": {"loss": {"E": 1.5}}}),
)
proposals = st.builds(
    Proposal,
    index=st.integers(0, 10**6),
    tool=st.just("fit.laws"),
    formula=st.text(max_size=30),
    key=st.text(max_size=30),
    proposer=st.just("mutate"),
    operator=st.text(max_size=9),
    parents=st.lists(st.integers(0, 99), max_size=2).map(tuple),
    island=st.integers(0, 4),
)


@given(proposals, outcomes)
def test_an_entry_reads_back_bit_for_bit(proposal: Proposal, outcome: Outcome) -> None:
    entry = Entry(proposal.index, proposal, outcome)
    assert read_entry(json.loads(dump(entry_record(entry)))) == entry


def test_numbers_that_json_has_no_word_for_survive(tmp_path: Path) -> None:
    with Trace(tmp_path / "t") as trace:
        trace.append([{"kind": "x", "a": math.inf, "b": [-math.inf, {"c": math.nan}]}])
    assert list(read(tmp_path / "t")) == [{"kind": "x", "a": "inf", "b": ["-inf", {"c": "nan"}]}]


def written(path: Path, count: int) -> bytes:
    with Trace(path) as trace:
        for i in range(count):
            trace.append([{"kind": "entry", "id": i, "text": "é\n" * i}])
    return path.read_bytes()


def test_a_trace_torn_at_any_byte_keeps_its_whole_lines_and_goes_on(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", 4)
    for cut in range(len(whole)):
        path = tmp_path / "torn"
        path.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        assert [r["id"] for r in read(path)] == list(range(lines))
        with Trace(path) as trace:
            trace.append([{"kind": "entry", "id": lines, "text": "é\n" * lines}])
        assert whole.startswith(path.read_bytes())


def test_a_tail_of_zeros_as_a_power_cut_leaves_it_is_cut_off(tmp_path: Path) -> None:
    whole = written(tmp_path / "t", 3)
    (tmp_path / "t").write_bytes(whole + b"\0" * 100)
    assert repair(tmp_path / "t") == 100
    assert (tmp_path / "t").read_bytes() == whole


def test_damage_before_the_last_line_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    whole = written(tmp_path / "t", 3)
    damaged = whole.replace(b'"id":1', b'"id"!1')
    (tmp_path / "t").write_bytes(damaged)
    with pytest.raises(TraceError, match="damaged"):
        repair(tmp_path / "t")
    with pytest.raises(TraceError, match="line 2 is damaged"):
        list(read(tmp_path / "t"))
    assert (tmp_path / "t").read_bytes() == damaged


def test_following_a_trace_gives_each_whole_line_once(tmp_path: Path) -> None:
    path = tmp_path / "t"
    whole = written(path, 5)
    seen, offset = [], 0
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        records, offset = follow(path, offset)
        seen += [r["id"] for r in records]
    assert seen == [0, 1, 2, 3, 4]


def test_an_ending_that_was_cut_short_is_written_anew(tmp_path: Path) -> None:
    with Trace(tmp_path / "t") as trace:
        trace.append([{"kind": "run"}, {"kind": "entry", "id": 0}])
        before = (tmp_path / "t").read_bytes()
        trace.append([{"kind": "stop"}, {"kind": "finalist"}])
    rewind(tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == before


def test_a_write_that_fails_leaves_the_trace_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "t"
    before = written(path, 3)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Trace(path) as trace:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, old[1]))
            with pytest.raises(TraceError, match="free space"):
                trace.append([{"kind": "entry", "id": 3, "text": "x" * 200}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
