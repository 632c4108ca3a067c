"""What more agents cost and bring: figures worked out by hand, and a simulated job whose theory is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentlab.decisions import Option, Receipt, decision_record, pick_run
from agentlab.errors import AgentlabError
from agentlab.topology import Figures, Report, report
from agentlab.topology_bench import Setting, page, run
from agentlab.trace import Record, Trace, read
from agentlab.vote import Decision, Tally, Undecided
from agentlab.vote_theory import votes_per_step
from agentlab.words import read_words

SMALL = Setting(disks=5, error=0.03, repetitions=60)
STEPS = 31 * SMALL.repetitions


def first(topology: str, agents: int = 1, k: int = 1, **other: object) -> Record:
    settings = {"job": "sort"}
    return {"kind": "run", "topology": topology, "agents": agents, "k": k, "seed": 0, "settings": settings, **other}


def call(agent: int, step: int, key: object) -> Record:
    return {"kind": "call", "agent": agent, "step": step, "key": key}


def flagged(agent: int, step: int) -> Record:
    return {"kind": "call", "agent": agent, "step": step, "flag": "format"}


def ended(result: str | None, *wrong: int, right: bool = False, **whose: int) -> Record:
    return {"kind": "outcome", **whose, "result": result, "right": right, "wrong": list(wrong)}


SINGLE = [
    first("single"), call(0, 0, 1), call(0, 1, 2), ended("a", right=True),
    first("single"), flagged(0, 0), call(0, 0, 1), call(0, 1, 9), ended("b", 1),
]  # fmt: skip
TEAM = [
    first("team", 2, 2), call(0, 0, 1), call(1, 0, 1),
    call(0, 1, 2), call(1, 1, 9), call(0, 1, 9), call(1, 1, 2), call(0, 1, 2), call(1, 1, 2), ended("a", right=True),
    first("team", 2, 2), flagged(0, 0), call(1, 0, [1, 1]), call(0, 0, [1, 1]),
    call(1, 1, 9), call(0, 1, 9), ended("b", 1),
    first("team", 2, 2), call(0, 0, 1), call(1, 0, 7), ended(None, 0),
]  # fmt: skip
INDEPENDENT = [
    first("independent", 3), call(0, 0, 8), call(0, 1, 9), call(1, 0, 1), call(1, 1, 2), call(2, 0, 1), call(2, 1, 2),
    ended("b", 0, 1, agent=0), ended("a", right=True, agent=1), ended("a", right=True, agent=2),
    first("independent", 3), call(0, 0, 8), call(0, 1, 9), call(1, 0, 1), call(1, 1, 2), call(2, 0, 1), call(2, 1, 3),
    ended("c", 1, agent=2), ended("a", right=True, agent=1), ended("b", 0, 1, agent=0),
]  # fmt: skip


def told(folder: Path, *records: Record) -> Report:
    path = folder / "trace.jsonl"
    path.unlink(missing_ok=True)
    with Trace(path) as trace:
        trace.append(records)
    return report([path])


def by_name(found: Report) -> dict[str, Figures]:
    return {row.topology: row for row in found.topologies}


def test_one_agent_is_its_own_measure(tmp_path: Path) -> None:
    (one,) = told(tmp_path, *SINGLE).topologies
    assert (one.runs, one.calls, one.turns, one.flags) == (2, 5, 2.5, {"format": 1})
    assert (one.steps, one.wrong, one.step_error, one.run_error, one.success) == (4, 1, 0.25, 0.5, 0.5)
    assert (one.overhead, one.amplification, one.run_amplification, one.efficiency) == (0, 1, 1, 0.5)
    assert one.redundancy is None
    assert one.why == {"redundancy": "no step was answered by two agents"}


def test_a_team_is_measured_by_every_call_and_by_what_it_decided(tmp_path: Path) -> None:
    team = by_name(told(tmp_path, *TEAM, *SINGLE))["team"]
    assert (team.agents, team.k, team.runs, team.calls, team.turns) == (2, 2, 3, 15, 5)
    assert team.overhead == (5 - 2.5) / 2.5
    # The second step of the first run has nine pairs of different agents, of which five agree; the last run one, none.
    assert team.redundancy == pytest.approx((1 + 5 / 9 + 1 + 1 + 0) / 5)
    assert (team.steps, team.wrong, team.undecided, team.tied) == (5, 2, 1, 0)
    assert team.amplification == pytest.approx((2 / 5) / (1 / 4))
    assert (team.success, team.run_error) == pytest.approx((1 / 3, 2 / 3))
    assert team.run_amplification == pytest.approx((2 / 3) / (1 / 2))
    assert team.efficiency == pytest.approx((1 / 3) / (5 / 2.5))


def test_independent_results_are_put_together_by_plurality_and_the_earliest_of_equals(tmp_path: Path) -> None:
    apart = by_name(told(tmp_path, *SINGLE, *INDEPENDENT))["independent"]
    assert (apart.calls, apart.turns) == (12, 6)
    assert apart.overhead == pytest.approx(6 / 2.5 - 1)
    assert (apart.success, apart.run_error, apart.tied) == (0.5, 0.5, 1)
    assert (apart.steps, apart.wrong) == (4, 2), "only the steps of the result that was taken count"
    # Run 1: 1 of 3 pairs at each step; run 2: 1 of 3, then none, the second agent and the third having parted.
    assert apart.redundancy == pytest.approx((1 / 3 + 1 / 3 + 1 / 3 + 0) / 4)


def test_an_agent_without_a_result_has_no_say(tmp_path: Path) -> None:
    calls = [call(agent, 0, 1) for agent in range(3)]
    lost = [ended(None, 0, agent=0), ended(None, 0, agent=1)]
    assert told(tmp_path, first("independent", 3), *calls, *lost, ended("a", right=True, agent=2)).topologies[0].success
    none = told(tmp_path, first("independent", 2), *calls[:2], *lost).topologies[0]
    assert (none.success, none.undecided, none.tied) == (0, 1, 0)


def test_a_figure_that_cannot_be_had_is_null_and_says_why(tmp_path: Path) -> None:
    alone = told(tmp_path, *TEAM).topologies[0]
    assert (alone.overhead, alone.amplification, alone.run_amplification, alone.efficiency) == (None,) * 4
    assert set(alone.why.values()) == {"there is no run of one agent to compare with"}
    faultless = by_name(told(tmp_path, *SINGLE[:4], *TEAM))["team"]
    assert (faultless.amplification, faultless.run_amplification) == (None, None)
    assert faultless.why["amplification"] == "one agent got no step wrong"
    assert faultless.why["run_amplification"] == "one agent failed in no run"
    assert faultless.overhead is not None


def test_runs_that_voted_otherwise_stand_apart_and_in_order(tmp_path: Path) -> None:
    larger = [record | {"agents": 3, "k": 3} if record["kind"] == "run" else record for record in TEAM]
    found = told(tmp_path, *larger, *TEAM, *INDEPENDENT, *SINGLE)
    order = [(row.topology, row.agents, row.k) for row in found.topologies]
    assert order == [("single", 1, 1), ("independent", 3, 1), ("team", 2, 2), ("team", 3, 3)]


def test_decisions_of_models_are_counted_but_never_called_right_or_wrong(tmp_path: Path) -> None:
    question = pick_run("tell two laws apart", [Option(name, f"{name} experts") for name in ("r1", "r2", "r3")])
    split = Tally("base", {"r1": 3, "r2": 1}, {"format": 2}, 6, 3, {"r1": 1})
    whole = Tally("paraphrase", {"r1": 3}, {}, 3, 1, {"r1": 3})
    lost = Tally("base", {}, {"length": 4}, 4, 2, {})
    unasked = Tally("base", {}, {}, 0, 0, {})
    records = [
        decision_record(question, Decision((split, whole), key="r1"), [Receipt(10, 5)] * 9),
        decision_record(question, Undecided((lost,), reason="no answer"), [Receipt(10, 5)] * 4),
        decision_record(question, Decision((unasked,), key="r1")),
    ]
    other = {"kind": "run", "schema": 1, "task": "of a discovery, which names no topology"}
    found = told(tmp_path, other, *records).decisions
    assert found is not None
    assert (found.decisions, found.asked, found.calls, found.escalated, found.undecided) == (3, 2, 13, 1, 1)
    assert found.votes == 7 / 2
    assert found.redundancy == pytest.approx((3 / 6 + 1) / 2), "three of six pairs agree in the first tally"
    assert found.flags == {"format": 2, "length": 4}
    assert (found.step_error, found.run_error, found.amplification) == (None, None, None)
    assert found.why["step_error"] == "nobody knows which decisions are right"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run(replace(SMALL, out=str(tmp_path_factory.mktemp("simulated"))))


def rows(result: Record) -> tuple[Record, Record, Record]:
    single, independent, team = result["topologies"]
    return single, independent, team


def test_a_simulated_agent_errs_as_often_as_it_is_told_to(simulated: Record) -> None:
    single, _, _ = rows(simulated)
    assert single["calls"] == single["steps"] == STEPS
    assert abs(single["step_error"] - 0.03) < 3 * (0.03 * 0.97 / STEPS) ** 0.5
    fails = 1 - 0.97**31
    assert abs(single["run_error"] - fails) < 3 * (fails * (1 - fails) / SMALL.repetitions) ** 0.5


def test_independent_agents_multiply_calls_and_hardly_err_less(simulated: Record) -> None:
    single, independent, team = rows(simulated)
    assert independent["calls"] == 3 * single["calls"]
    assert (independent["overhead"], independent["efficiency"]) == (2, pytest.approx(independent["success"] / 3))
    assert independent["amplification"] > 0.5
    assert independent["redundancy"] < team["redundancy"], "agents that do not talk drift apart"


def test_a_voting_team_fails_less_and_calls_more(simulated: Record) -> None:
    single, independent, team = rows(simulated)
    assert team["run_error"] < 0.1 < min(single["run_error"], independent["run_error"])
    assert team["amplification"] < 0.05
    assert team["turns"] == pytest.approx(31 * votes_per_step(0.97, 3), rel=0.02)
    assert team["overhead"] > independent["overhead"]


def test_correlated_errors_leave_the_team_no_better_than_one_agent(tmp_path: Path) -> None:
    single, independent, team = rows(run(replace(SMALL, correlation=0.98, out=str(tmp_path))))
    assert single["wrong"] > 20
    for row in (independent, team):
        assert row["amplification"] == pytest.approx(1, abs=0.1)
        assert row["run_amplification"] == pytest.approx(1, abs=0.1)
    assert team["redundancy"] > 0.99


def test_a_run_is_solved_exactly_where_no_step_of_it_is_wrong(simulated: Record) -> None:
    records = [record for path in simulated["traces"] for record in read(Path(path)) if record["kind"] == "outcome"]
    assert len(records) == 5 * SMALL.repetitions
    assert {record["right"] for record in records} == {True, False}
    assert all(record["right"] == (not record["wrong"]) for record in records)


def test_every_topology_draws_from_the_same_stream(simulated: Record) -> None:
    single, independent, team = (list(read(Path(path))) for path in simulated["traces"])
    alone = [r for r in single if r["kind"] == "call"]
    assert [r for r in independent if r["kind"] == "call" and r["agent"] == 0] == alone
    assert [r["seed"] for r in team if r["kind"] == "run"] == [r["seed"] for r in single if r["kind"] == "run"]
    assert {r["agent"] for r in team if r["kind"] == "call"} == {0, 1, 2}


def test_the_same_seed_writes_the_same_bytes_in_place_of_what_was_there(tmp_path: Path) -> None:
    setting = replace(SMALL, repetitions=3, out=str(tmp_path / "new" / "folder"))
    result = run(setting)
    before = [Path(path).read_bytes() for path in result["traces"]]
    run(replace(setting, seed=1))
    assert [Path(path).read_bytes() for path in result["traces"]] != before
    assert json.dumps(run(setting)) == json.dumps(result)
    assert [Path(path).read_bytes() for path in result["traces"]] == before
    assert not any(str(tmp_path).encode() in data for data in before)


def test_the_report_needs_the_traces_alone(simulated: Record) -> None:
    again = report([Path(path) for path in reversed(simulated["traces"])]).as_record()
    assert again == {key: simulated[key] for key in ("settings", "topologies", "decisions")}
    assert json.loads(json.dumps(simulated)) == simulated


def test_the_page_ends_with_a_command_that_runs(simulated: Record) -> None:
    shown = page(simulated).splitlines()
    assert [line.split()[0] for line in shown[3:6]] == ["single", "independent", "team"]
    words = shown[-1].removeprefix("next: agentlab bench topology ").split()
    assert read_words(words, Setting, "agentlab bench topology") == replace(SMALL, repetitions=50, correlation=0.9)


BAD = {
    "a call before its run": ([call(0, 0, 1)], 'line 1: a "call" stands before any "run"'),
    "a topology that is none": ([first("ring")], "line 1: topology 'ring'; there is: single, independent, team"),
    "no number of agents": ([first("team", agents="3")], '"agents" should be a whole number of 1 or more'),  # type: ignore[arg-type]
    "one agent that is two": ([first("single", 2)], "has agents=1 and k=1"),
    "no settings": ([first("single", settings=None)], '"settings" should be'),
    "a run cut short": ([*SINGLE, *TEAM[:3]], "line 10: 0 outcomes; a team run has one: the run is not whole"),
    "an agent that handed nothing in": ([*INDEPENDENT[:8]], "3 independent agents need an outcome each"),
    "an agent that is not there": ([first("single"), call(1, 0, 1)], "line 2: agent 1 of 1"),
    "a call without an answer": ([first("single"), {"kind": "call", "agent": 0, "step": 0}], "a call has either"),
    "an outcome that nobody judged": ([*SINGLE[:3], {"kind": "outcome", "result": "a"}], "line 4: an outcome has"),
    "right without a result": ([*SINGLE[:3], ended(None, right=True)], "line 4: an outcome without a result"),
    "an outcome out of nothing": ([first("single"), ended("a")], "line 1: an outcome without a call"),
    "a wrong step that nobody was asked": ([*SINGLE[:3], ended("a", 5)], '"wrong" names a step twice or one that'),
    "steps that are words": ([*SINGLE[:3], ended("a") | {"wrong": ["1"]}], 'line 4: "wrong" should be the list'),
    "another job": ([*SINGLE, first("team", 2, 2, settings={"job": "search"}), *TEAM[1:10]], "compare one job"),
    "a damaged decision": ([{"kind": "decision", "key": 1}], "a record of a decision is damaged"),
    "nothing to report on": ([{"kind": "run", "task": "x"}], "no runs of a topology and no decisions"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_trace_is_told_in_one_line_that_says_where(name: str, tmp_path: Path) -> None:
    records, words = BAD[name]
    with pytest.raises(AgentlabError) as caught:
        told(tmp_path, *records)
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "trace.jsonl"))
    assert words in text
    assert "\n" not in text


def test_a_missing_and_a_damaged_file_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AgentlabError, match=r"nowhere\.jsonl: cannot be read \(No such file or directory\)"):
        report([tmp_path / "nowhere.jsonl"])
    path = tmp_path / "torn.jsonl"
    path.write_text('{"kind":"run"\n{"kind":"run"}\n')
    with pytest.raises(AgentlabError, match=r"torn\.jsonl: line 1 is damaged"):
        report([path])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"agents": 1}, "agents=1; write 2 or more"),
        ({"k": 0}, "k and repetitions are 1 or more"),
        ({"error": 0.0, "correlation": 0.5}, "error=0 leaves nothing to correlate"),
        ({"error": 2.0}, "error=2: a share lies between 0 and 1"),
        ({"disks": 20}, "calls; write fewer disks or repetitions"),
        ({"disks": 99}, "disks=99"),
        ({"out": "/dev/null/x"}, "out=/dev/null/x cannot be written"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told_in_one_line(change: dict[str, object], words: str) -> None:
    with pytest.raises(AgentlabError, match=words) as caught:
        run(replace(SMALL, **change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
