"""The towers of Hanoi, every move voted: solved where theory says so, dead where it says so, and never in silence."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_model import Asked, Said, serving

from agentlab.cli import app
from agentlab.errors import AgentlabError, BackendError
from agentlab.hanoi import OTHERS, Towers, astray, legs, simulate
from agentlab.hanoi_bench import Setting, page, run
from agentlab.hanoi_expected import expected_calls
from agentlab.hanoi_oracle import WRONG, Faults, Oracle, Questions
from agentlab.steps import Chain, StepError, Voting, Walk
from agentlab.vote import LADDER, Rules, Rung, VoteError, Wave
from agentlab.vote_theory import k_min, p_step, votes_per_step

JSON_KEYS = {
    "solved", "steps", "calls", "expected_calls", "undecided", "escalated", "seconds", "peak_mb", "moves_sha256",
}  # fmt: skip


# ---- the game ----


@pytest.mark.parametrize("disks", range(1, 11))
def test_the_strategy_is_the_shortest_solution(disks: int) -> None:
    towers, state, moves = Towers(disks), Towers(disks).begin(), bytearray()
    for index in range(towers.moves):
        assert towers.state_at(index) == state
        right, wrong = towers.right(state, index), towers.wrong(state, index)
        assert {right, wrong} <= set(towers.keys(state))
        assert right != wrong
        state = towers.check(state, right)
        moves.append(right & 15)
    assert simulate(disks, moves) == ""
    assert astray(disks, 0, moves) is None
    assert towers.state_at(towers.moves) == state


@given(st.integers(2, 8), st.data())
@settings(max_examples=60, deadline=None)
def test_any_state_reached_by_legal_moves_has_a_right_and_a_wrong_answer(disks: int, data: st.DataObject) -> None:
    towers = Towers(disks)
    state = towers.begin()
    for index in range(20):
        pegs = towers.pegs(state)
        assert towers.state(pegs) == state
        keys = list(towers.keys(state))
        legal = [(a, b) for a in range(3) for b in OTHERS[a] if pegs[a] and (not pegs[b] or pegs[a][-1] < pegs[b][-1])]
        assert sorted((key >> 2 & 3, key & 3) for key in keys) == sorted(legal)
        right, wrong = towers.right(state, index), towers.wrong(state, index)
        assert {right, wrong} <= set(keys)
        assert right != wrong
        state = towers.check(state, data.draw(st.sampled_from(keys)))


def test_an_illegal_move_or_another_next_state_is_refused() -> None:
    towers = Towers(3)
    state = towers.begin()
    key = towers.right(state, 0)
    for bad in (key ^ 1 << 6, towers.key(state, 1, 2), towers.key(state, 0, 0)):
        with pytest.raises(StepError, match="cannot be made"):
            towers.check(state, bad)


@pytest.mark.parametrize(
    ("moves", "told"),
    [
        (bytes([1, 2, 6]), "2 of 2 disks"), (bytes([2]), "1 of 2 disks stand"), (bytes([6]), "empty peg"),
        (bytes([2, 2]), "puts disk 2 on disk 1"), (bytes([0, 2]), "from peg 0 to peg 0"),
        (bytes([3]), "from peg 0 to peg 3"),
    ],
)  # fmt: skip
def test_the_referee_knows_a_wrong_solution(moves: bytes, told: str) -> None:
    if told == "2 of 2 disks":
        assert simulate(2, moves) == ""
        assert astray(2, 0, bytes([1, 2, 6])) is None
        assert astray(2, 0, bytes([1, 2, 4])) == 2
    else:
        assert told in simulate(2, moves)


# ---- the simulated model ----


def test_the_simulated_model_errs_as_often_as_it_is_told_whoever_asks_and_in_whatever_waves() -> None:
    faults = Faults(0.1, malformed=0.05, repeating=0.2, steps=20_000)
    oracle, other = Oracle(faults, 5), Oracle(faults, 5)
    codes = np.array([oracle.draws(i, Wave(Rung(), 0, 4)) for i in range(20_000)])
    shares = np.bincount(codes.ravel(), minlength=4) / codes.size
    expected = np.array([0.75 * 0.9, 0.75 * 0.1, 0.05, 0.2])
    assert np.all(abs(shares - expected) < 4 * np.sqrt(expected / codes.size))
    for index in (19_999, 3, 4096, 12_000):
        singly = [other.draws(index, Wave(Rung(), n, 1))[0] for n in range(14)]
        assert singly == [*oracle.draws(index, Wave(Rung(), 0, 6)), *oracle.draws(index, Wave(Rung(), 6, 8))]
    assert Oracle(faults, 6).draws(3, Wave(Rung(), 0, 50)) != oracle.draws(3, Wave(Rung(), 0, 50))


def test_correlated_errors_have_the_mean_and_the_correlation_that_were_asked_for() -> None:
    oracle = Oracle(Faults(0.1, correlation=0.2, steps=40_000), 0)
    errors = oracle.errors(np.arange(40_000), 0)
    assert errors.mean() == pytest.approx(0.1, abs=0.004)
    assert errors.var() == pytest.approx(0.2 * 0.1 * 0.9, rel=0.06)
    wrong = np.array([oracle.draws(i, Wave(Rung(), 0, 2)) for i in range(20_000)]) == WRONG
    both = (wrong.all(axis=1).mean() - 0.01) / 0.09
    assert both == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"error": 1.5}, "error=1.5: a share"), ({"malformed": 0.5, "repeating": 0.5}, "leave no answer"),
        ({"hard": 3, "steps": 2}, "hard=3"), ({"correlation": 1.0}, "correlation=1"),
    ],
)  # fmt: skip
def test_faults_that_make_no_sense_are_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(AgentlabError, match=told):
        Faults(**values)


# ---- a million moves ----


def test_a_million_moves_are_solved_with_the_calls_that_theory_says() -> None:
    found = run(Setting(disks=20, error=0.01, k=4))
    assert (found["steps"], found["solved"], found["verdict"]) == (1_048_575, True, "solved")
    theory = found["steps"] * votes_per_step(0.99, 4)
    assert found["expected_calls"] == pytest.approx(theory)
    assert found["calls"] == pytest.approx(theory, rel=0.005)
    assert (found["undecided"], found["escalated"], found["died_at"]) == (0, 0, None)


def test_without_a_vote_it_dies_before_step_1000() -> None:
    found = run(Setting(disks=20, error=0.01, k=1))
    assert not found["solved"]
    assert found["died_at"] == found["steps"] < 1000
    assert "next: agentlab bench hanoi disks=20 k=2" in page(found)


def test_malformed_and_repeating_answers_are_never_counted() -> None:
    found = run(Setting(disks=13, error=0.01, k=4, malformed=0.027, repeat=0.25, seed=2))
    assert found["solved"]
    votes = found["steps"] * votes_per_step(0.99, 4)
    assert found["calls"] == pytest.approx(votes / (1 - 0.277), rel=0.01)
    flagged = sum(found["flags"].values())
    assert found["calls"] - flagged == pytest.approx(votes, rel=0.01)
    assert found["flags"]["repetition"] / found["calls"] == pytest.approx(0.25, rel=0.05)
    assert {"format", "range", "length", "repetition"} == set(found["flags"])


def test_k_is_measured_on_the_way_where_none_is_given() -> None:
    found = run(Setting(disks=14, error=0.05))
    assert found["solved"]
    assert found["k"] == k_min(found["p_low"], 0.95, 2**14 - 1)
    assert found["calls"] == pytest.approx(found["expected_calls"], rel=0.02)


# ---- steps that are hard, and errors that nobody sees ----


def answered(faults: Faults, k: int, rules: Rules, seed: int = 0) -> tuple[Chain[int], Oracle]:
    oracle = Oracle(faults, seed)
    chain = Chain(Questions(oracle), 0, faults.steps, 0, Voting(k=k, rules=rules))
    walk = Walk([chain])
    while not walk.over:
        walk.superstep()
    return chain, oracle


def test_every_vote_on_a_hard_step_that_is_not_unanimous_is_escalated() -> None:
    faults = Faults(0.01, hard=10, steps=100_000)
    rules = Rules(ladder=LADDER, escalate="dissent")
    chain, oracle = answered(faults, 4, rules, seed=1)
    seen = [i for i in oracle.hard.tolist() if len(set(oracle.draws(i, Wave(Rung(), 0, 4)))) > 1]
    assert chain.index == faults.steps
    assert 5 <= len(seen) <= 10
    dissent = sum(len(set(oracle.draws(i, Wave(Rung(), 0, 4)))) > 1 for i in range(faults.steps))
    assert chain.counts.dissent == chain.counts.escalated == dissent
    silent = sum(oracle.draws(i, Wave(Rung(), 0, 4)) == [WRONG] * 4 for i in oracle.hard.tolist())
    assert chain.state == silent, "the only errors left are first runs of k wrong answers"
    assert chain.counts.draws == pytest.approx(expected_calls(faults, chain.counts.ahead, 3), rel=0.005)


def test_silent_errors_are_as_many_as_theory_says_and_asking_otherwise_solves_the_others() -> None:
    faults, steps = Faults(0.01, hard=4000, steps=4000), 4000  # hard steps alone, so that there are enough to count
    oracle, rules = Oracle(faults, 0), Rules(ladder=LADDER, escalate="dissent", most_draws=200)
    chains = [Chain(Questions(oracle), i, i + 1, 0, Voting(k=4, rules=rules)) for i in range(steps)]
    walk = Walk(chains)
    while not walk.over:
        walk.superstep()
    silent = [chain for chain in chains if chain.state and not chain.counts.escalated]
    expected = 0.6**4
    assert abs(len(silent) / steps - expected) <= 3 * math.sqrt(expected * (1 - expected) / steps)
    assert all(oracle.draws(c.index - 1, Wave(Rung(), 0, 4)) == [WRONG] * 4 for c in silent)
    escalated = [chain for chain in chains if chain.counts.escalated]
    solved = sum(chain.index == chain.end and chain.state == 0 for chain in escalated)
    assert solved / len(escalated) >= 0.95, "a paraphrase or a second model solves what was seen"
    assert sum(chain.undecided is not None for chain in chains) < steps / 100


def test_a_larger_k_alone_makes_hard_steps_worse_and_is_not_called_a_cure() -> None:
    wrong = [answered(Faults(0.01, hard=1000, steps=1000), k, Rules(most_draws=500))[0].state for k in (2, 4, 8)]
    assert wrong == sorted(wrong)
    for k, count in zip((2, 4, 8), wrong, strict=True):
        expected = 1 - p_step(0.4, k)
        assert abs(count / 1000 - expected) <= 3 * math.sqrt(expected * (1 - expected) / 1000)
    with pytest.raises(VoteError, match="a larger k makes it worse"):
        k_min(0.4, 0.95, 1000)
    found = run(Setting(disks=13, error=0.01, correlation=0.2, escalate="undecided"))
    assert "escalate what is not unanimous" in found["warning"]


def test_hard_steps_of_a_tower_are_escalated_by_default() -> None:
    found = run(Setting(disks=10, error=0.01, k=4, hard=2, seed=0))
    assert found["solved"]
    assert found["escalated"] == found["dissent"] > 2
    plain = run(Setting(disks=10, error=0.01, k=4, hard=2, seed=0, escalate="undecided"))
    assert not plain["solved"]


# ---- the command ----


def test_the_command_prints_what_it_found_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "hanoi", "disks=7", "error=0.01", "k=4", "seed=0", f"journal={tmp_path / 'j'}", "chains=3"]
    app([*words, "--json"], standalone_mode=False)
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(first) >= JSON_KEYS
    assert (first["solved"], first["steps"], first["replayed"], first["simulated"]) == (True, 127, 0, True)
    app([*words, "--json"], standalone_mode=False)
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (again["calls"], again["replayed"], again["moves_sha256"]) == (0, 127, first["moves_sha256"])
    app(["bench", "hanoi", "disks=7", "k=4"], standalone_mode=False)
    text = capsys.readouterr().out
    assert first["moves_sha256"] in text
    assert "the answers are simulated" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bench", "hanio"], "did you mean 'hanoi'"),
        (["bench", "hanoi", "disk=3"], "did you mean 'disks'"),
        (["bench", "hanoi", "disks=40"], "from 1 to 24"),
        (["bench", "hanoi", "error=2"], "error=2: a share"),
        (["bench", "hanoi", "disks=3", "chains=9"], "from 1 to the 7 moves"),
        (["bench", "hanoi", "base_url=http://127.0.0.1:1/v1"], "needs model=NAME"),
        (["bench", "hanoi", "k=0"], "k=0 is too small"),
        (["bench", "hanoi", "k=1001"], "k=1001 is too large"),
        (["bench", "hanoi", "target=2"], "target=2, doubt="),
        (["bench", "hanoi", "target=.9", "k=3"], "leave one of the two out"),
        (["bench", "hanoi", "latency=1e9"], "latency=1e.09 is too large"),
        (["bench", "hanoi", "model=a", "base_url=http://127.0.0.1:1/v1", "hard=2"], "is of the simulated model"),
        (["bench", "hanoi", "model=a,", "base_url=http://127.0.0.1:1/v1"], "has an empty name"),
        (["bench", "hanoi", "tokens=5"], "tokens=5 needs model=NAME"),
        (["bench", "hanoi", "fsync=5"], "name its file with journal="),
        (["bench", "hanoi", "disks=3", "journal=/dev/null"], "is no regular file"),
    ],
)
def test_a_mistake_is_told_in_one_line(words: list[str], told: str) -> None:
    with pytest.raises(AgentlabError, match=told) as error:
        app(words, standalone_mode=False)
    assert "\n" not in str(error.value)


def test_a_budget_of_calls_stops_it_in_time() -> None:
    for more in ({}, {"chains": 8, "latency": 0.0}):
        found = run(Setting(disks=10, k=4, calls=300, **more))  # type: ignore[arg-type]
        assert not found["solved"]
        assert found["stopped"].startswith("the budget of 300 calls has ")
        assert 200 < found["calls"] <= 300


def test_a_run_that_died_says_so_again_from_its_journal(tmp_path: Path) -> None:
    setting = Setting(disks=10, k=1, journal=str(tmp_path / "journal"), chains=2, error=0.05)
    first, again = run(setting), run(replace(setting, k=4))
    assert first["died_at"] is not None
    assert not first["solved"]
    assert first["steps"] < first["calls"]
    assert first["verdict"] == f"{first['steps']} of 1,023 moves are right"
    assert (again["died_at"], again["steps"], again["calls"]) == (first["died_at"], first["steps"], 0)
    assert "with another journal" in page(again)
    with pytest.raises(AgentlabError, match="another job"):
        run(replace(setting, error=0.01))


def test_checkpoints_that_cannot_be_kept_are_told(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(AgentlabError, match="cannot keep checkpoints"):
        run(Setting(disks=5, k=3, journal=str(tmp_path / "journal")))


def test_a_large_seed_and_a_large_k_are_as_good_as_any() -> None:
    assert run(Setting(disks=5, k=150, seed=10**30))["solved"]


def test_legs_cover_the_solution_without_a_gap() -> None:
    bounds = legs(Towers(7), 10)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 127
    assert all(a[1] == b[0] for a, b in pairwise(bounds))


# ---- a model behind a server ----


def player(error: float, seed: int) -> Callable[[Asked], str | Said]:
    """A scripted model that plays the strategy, and errs on purpose now and then, in what it says or how it says it."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, no secret

    def answer(asked: Asked) -> str:
        (state_told, *_) = re.findall(r"\[\[[\d, ]*\], \[[\d, ]*\], \[[\d, ]*\]\]", asked.text)
        (before,) = re.findall(r"(?:Previous move|as \[disk, from, to\]): (?:\[(\d+)|none)", asked.text)
        pegs = json.loads(state_told)
        towers = Towers(sum(map(len, pegs)))
        state, index = towers.state(pegs), int(before == "1")
        key = towers.wrong(state, index) if chance.random() < error else towers.right(state, index)
        source, target = key >> 2 & 3, key & 3
        told = [list(peg) for peg in towers.pegs(key >> 4)]
        text = f"move = {[pegs[source][-1], source, target]}\nnext_state = {told}"
        return text[:-1] if chance.random() < 0.1 else text

    return answer


def test_models_behind_a_server_solve_the_towers_within_their_budget() -> None:
    with serving(player(0.15, 1), ("one",)) as server:
        found = run(Setting(disks=4, k=3, model="one", base_url=server.url, chains=2))
        assert found["solved"]
        assert (found["steps"], found["simulated"], found["expected_calls"]) == (15, False, None)
        assert found["calls"] == len(server.receipts)
        assert found["tokens"] == server.tokens
        assert found["flags"]["format"] > 0
        assert {a.temperature for a in server.asked} == {0.0, 0.1}
        spent = server.tokens
        short = run(Setting(disks=4, k=3, model="one", base_url=server.url, tokens=20_000))
        assert not short["solved"]
        assert 0 < short["tokens"] == server.tokens - spent <= 20_000


def test_a_second_model_decides_where_the_first_is_not_sure() -> None:
    unsure, sure = player(0.5, 2), player(0.0, 3)
    with serving(lambda a: unsure(a) if a.model == "one" else sure(a), ("one", "two")) as server:
        words = Setting(disks=3, k=2, model="one,two", base_url=server.url, escalate="dissent", seed=4)
        found = run(words)
    assert found["escalated"] > 0
    assert found["verdict"] in ("solved", f"{found['steps']} of 7 moves are right")
    assert {a.model for a in server.asked} == {"one", "two"}


def test_a_server_that_goes_away_is_told_and_what_was_decided_is_kept(tmp_path: Path) -> None:
    answer, journal = player(0.0, 5), str(tmp_path / "journal")

    def until_the_end(asked: Asked) -> str | Said:
        return answer(asked) if asked.number < 20 else Said("gone", status=400)

    with serving(until_the_end, ("one",)) as server:
        setting = Setting(disks=4, k=2, model="one", base_url=server.url, journal=journal)
        with pytest.raises(BackendError, match="refused"):
            run(setting)
    with serving(answer, ("one",)) as server:
        found = run(replace(setting, base_url=server.url))
    assert found["solved"]
    assert 5 < found["replayed"] <= 10
    assert found["calls"] == len(server.receipts) >= 2 * (15 - found["replayed"])
