"""Two real clients of the lab at once, over stdio and over HTTP: a law is discovered on a CSV through tools alone."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from agentlab.tools._lab_records import Table
from agentlab.tools._lab_words import Search, search_words
from lab_session import KEY, POINTS, ROWS, SEARCH, TRUE, Session, environment_of, session

from agentlab.predict import predict
from agentlab.runs_detach import start
from agentlab.types import RunConfig
from agentlab.words import UsageError, read_words

__all__ = ["session"]


def test_a_law_is_discovered_through_tools_alone(session: Session) -> None:
    for state in session.both("done"):
        assert state["state"] == "done"
        assert state["law"]["formula"]
        assert state["score"]["dev"]["are"] < 0.02
        assert state["score"]["holdout"]["n"] == 3
        assert "sealed hold-out" in state["verdict"]
    law = session.answers["stdio"]["fit"]
    low, high = law["intervals"]["all"]["loss"]["E"]
    assert low < 1.7 < high
    assert law["formula"] == TRUE


def test_both_clients_are_told_the_same(session: Session) -> None:
    for step in ("predict", "fit"):
        first, second = session.both(step)
        assert first == second, step
    first, second = session.both("done")
    assert all(first[k] == second[k] for k in ("law", "score", "verdict", "evaluated"))


def test_a_start_with_one_key_from_two_clients_at_once_happens_once(session: Session) -> None:
    first, second = session.both("start")
    assert first["run"] == second["run"]
    assert sorted([first["new"], second["new"]]) == [False, True]
    assert [p.parent.name for p in session.root.glob("runs/*/config.json")] == [session.run]


def test_the_key_is_known_ever_after_and_to_the_same_words_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(session.root).items():
        monkeypatch.setenv(name, value)
    words = search_words(Table(**ROWS), Search(**SEARCH, max_minutes=20))
    config = read_words(words, RunConfig)
    again = start(config, KEY)
    assert (again.folder, again.new) == (session.folder, False)
    with pytest.raises(UsageError, match="another seed=; give another key"):
        start(dataclasses.replace(config, seed=1), KEY)


def test_a_search_that_is_stopped_still_chooses_a_law(session: Session) -> None:
    assert session.answers["http"]["stop"]["was"] in ("running", "stopping")
    done = session.answers["http"]["done"]
    assert 0 < done["evaluated"] + done["rejected"] < SEARCH["candidates"]
    assert any(e["event"] == "stop" and e["reason"] == "interrupted" for e in told_events(session))


def told_events(session: Session) -> list[dict[str, object]]:
    return [event for state in session.answers["stdio"]["states"] for event in state["events"]]


def test_every_event_is_told_once_and_the_best_law_only_gets_better(session: Session) -> None:
    events = told_events(session)
    better = [float(str(e["objective"])) for e in events if e["event"] == "better law"]
    assert better == sorted(better, reverse=True)
    assert len({json.dumps(e) for e in events}) == len(events)
    assert [e["event"] for e in events].count("holdout") == 1


def test_predictions_are_those_of_the_command_line(session: Session) -> None:
    file = session.root / "points.csv"
    file.write_text("N\n" + "".join(f"{n!r}\n" for n in POINTS["N"]))
    expected = predict(str(session.folder), [f"data={file}", "by=law"])["columns"]["loss"]
    for told in session.both("predict"):
        assert told["columns"]["loss"] == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("which", ["no token", "wrong token"])
def test_without_the_token_there_is_no_answer(session: Session, which: str) -> None:
    assert session.answers[which]["status"] == 401
    assert "tools" not in session.answers[which]["text"]


def test_no_sealed_row_stands_in_any_answer(session: Session) -> None:
    rows = np.genfromtxt(session.root / "sweep.csv", delimiter=",", names=True)
    sealed = rows["loss"][rows["N"] > 1e10]
    assert len(sealed) == 3
    told = json.dumps(session.answers)
    assert not [v for v in sealed if f"{v:.6f}"[:7] in told]
