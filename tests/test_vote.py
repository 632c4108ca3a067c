"""One micro-step: waves decide as single draws do, the formulas hold, flags are not votes, doubt climbs the ladder."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.vote import (
    LADDER,
    Answer,
    Decision,
    Outcome,
    RedFlag,
    Rules,
    Rung,
    Undecided,
    VoteError,
    Wave,
    first_ahead,
    first_ahead_async,
)
from agentlab.vote_flags import Flags, repeats
from agentlab.vote_measure import Reliability, lower_bound
from agentlab.vote_theory import (
    cost,
    dissent_correlated,
    k_min,
    p_dissent,
    p_full,
    p_full_correlated,
    p_step,
    p_step_correlated,
    steps_reached,
    votes_correlated,
    votes_per_step,
    warning,
    waves_per_step,
)

TABLE = {  # FACTS of the published method at a target of .95: k, votes a step, p_full, and p_full with one less
    (0.90, 1e3): (5, 6.25, 0.983, None),
    (0.95, 1e3): (4, 4.44, 0.992, None),
    (0.99, 1e3): (3, 3.06, 0.999, None),
    (0.998, 1e3): (2, 2.01, 0.996, None),
    (0.90, 1e6): (8, 10.00, 0.977, 0.811),
    (0.95, 1e6): (6, 6.67, 0.979, 0.668),
    (0.99, 1e6): (4, 4.08, 0.990, 0.357),
    (0.998, 1e6): (3, 3.01, 0.992, 0.018),
}
probabilities = st.floats(0.501, 0.9999)


def seeded(seed: object) -> random.Random:
    return random.Random(str(seed))  # noqa: S311 - a simulation, no secret


# ---- theory ----


@pytest.mark.parametrize(("asked", "known"), TABLE.items(), ids=str)
def test_k_votes_and_reliability_are_those_of_the_table(
    asked: tuple[float, float], known: tuple[int, float, float, float | None]
) -> None:
    (p, s), (k, votes, full, less) = asked, known
    assert k_min(p, 0.95, s) == k
    assert round(votes_per_step(p, k), 2) == votes
    assert round(p_full(p, k, s), 3) == full
    assert less is None or round(p_full(p, k - 1, s), 3) == less


@given(probabilities, st.floats(0.01, 0.999), st.floats(1, 1e14))
def test_k_min_is_the_least_k_that_reaches_the_target(p: float, t: float, s: float) -> None:
    k = k_min(p, t, s)
    assert p_full(p, k, s) >= t * (1 - 1e-9)
    assert k == 1 or p_full(p, k - 1, s) < t * (1 + 1e-9)


def test_a_hundred_trillion_steps_lose_no_digits() -> None:
    miss = (0.01 / 0.99) ** 8
    assert p_full(0.99, 8, 1e14) == pytest.approx(math.exp(-1e14 * miss), rel=1e-9)
    assert k_min(0.99, 0.95, 1e14) == 8
    assert p_full(1.0, 1, 1e14) == 1
    assert p_full(0.0, 3, 1) == 0
    assert votes_per_step(0.5, 4) == 16
    assert votes_per_step(0.5 + 1e-12, 4) == pytest.approx(16)


@given(st.floats(0.01, 0.99), st.integers(1, 12), st.floats(0.2, 1))
def test_waves_and_votes_are_those_of_the_random_walk(p: float, k: int, v: float) -> None:
    moments = [votes_per_step(p, k), waves_per_step(p, k, v), cost(p, k, 1, v=v)]
    assert 1 <= moments[1] <= moments[2] * (1 + 1e-9)
    assert k <= moments[0] * (1 + 1e-9) <= k * k * (1 + 1e-6)
    if k == 1:
        assert moments[1] == pytest.approx(1 / v)


def test_correlated_errors_are_those_of_a_beta_binomial() -> None:
    chance = np.random.default_rng(3)
    for p, k, rho in ((0.99, 4, 0.01), (0.9, 8, 0.3), (0.6, 3, 0.9), (0.99, 4, 1e-9)):
        a, b = (1 / rho - 1) * p, (1 / rho - 1) * (1 - p)
        x = np.clip(chance.beta(a, b, 400_000), 1e-300, 1 - 1e-16)
        right = 1 / (1 + np.exp(np.clip(k * (np.log1p(-x) - np.log(x)), -700, 700)))
        error = 4 * float(np.std(right)) / math.sqrt(len(x)) + 1e-12
        assert p_step_correlated(p, k, rho) == pytest.approx(float(right.mean()), abs=error)
        dissent = 1 - x**k - (1 - x) ** k
        error = 4 * float(np.std(dissent)) / math.sqrt(len(x)) + 1e-9
        assert dissent_correlated(p, k, rho) == pytest.approx(float(dissent.mean()), abs=error)
    for rho in (1e-320, 1e-15, 1e-12, 1e-9):
        assert votes_correlated(0.99, 4, rho) == pytest.approx(votes_per_step(0.99, 4), rel=1e-6)
    assert votes_correlated(0.5, 4, 1e-7) == pytest.approx(16, rel=1e-4)
    for p, rho in ((0.99, 0.999), (1 - 1e-6, 0.9), (1e-6, 0.5), (0.5, 0.99999)):
        assert 4 <= votes_correlated(p, 4, rho) <= 16
        assert p_step_correlated(p, 4, rho) == pytest.approx(p, abs=0.05)
    assert steps_reached(0.0, 3, 0.95) == 0
    assert p_full_correlated(0.0, 3, 10, 0.5) == 0


def test_correlation_and_not_k_decides_how_far_a_job_gets() -> None:
    assert steps_reached(0.99, 4, 0.95, 0.01) == pytest.approx(182_000, rel=0.01)
    assert steps_reached(0.99, 4, 0.95, 0.1) == pytest.approx(200, rel=0.1)
    assert p_full_correlated(0.99, 4, 1e6, 0.0) == pytest.approx(p_full(0.99, 4, 1e6))
    # From k = 4 to k = 8 independent errors fall by a factor of a hundred million, these by three.
    assert steps_reached(0.99, 8, 0.95, 0.1) < 4 * steps_reached(0.99, 4, 0.95, 0.1)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: k_min(0.5, 0.95, 10), "not above 1/2"),
        (lambda: k_min(0.4, 0.95, 10), "a larger k makes it worse"),
        (lambda: k_min(0.9, 1.0, 10), "t=1.0"),
        (lambda: p_full(1.2, 3, 10), "p=1.2"),
        (lambda: p_step_correlated(0.9, 3, 1.0), "rho=1.0"),
        (lambda: cost(0.9, 3, 10, v=0.0), "v=0.0"),
        (lambda: k_min(0.9, 0.95, 0), "s=0"),
        (lambda: p_dissent(1.5, 3), "p=1.5"),
        (lambda: waves_per_step(1.5, 3), "p=1.5"),
        (lambda: votes_per_step(0.9, -3), "k=-3"),
        (lambda: first_ahead(lambda w: [1] * w.count, 0), "k=0"),
        (lambda: first_ahead(lambda w: [1], 3), "1 answers to a wave of 3"),
        (lambda: first_ahead(lambda w: [1] * w.count, 3, Rules(most_draws=2)), "most_draws of at least k=3"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(call: object, told: str) -> None:
    assert callable(call)
    with pytest.raises(VoteError, match=told) as error:
        call()
    assert "\n" not in str(error.value)


# ---- the vote ----


def one_by_one(stream: Iterator[Answer], k: int, most_draws: int, most_flags: int) -> tuple[Hashable, int, int]:
    """The rule as it is written: draw, count, look. The elected key (None without one), draws and flagged draws."""
    votes: dict[Hashable, int] = {}
    draws = flagged = 0
    while draws < most_draws and flagged < most_flags:
        answer = next(stream)
        draws += 1
        if isinstance(answer, RedFlag):
            flagged += 1
            continue
        votes[answer] = votes.get(answer, 0) + 1
        if min([votes[answer], *(votes[answer] - n for key, n in votes.items() if key != answer)]) >= k:
            return answer, draws, flagged
    return None, draws, flagged


def stream_of(seed: int, keys: int, wrong: float, flagged: float) -> Iterator[Answer]:
    chance = seeded(seed)
    while True:
        u = chance.random()
        if u < flagged:
            yield RedFlag("format")
        else:
            yield chance.randrange(1, keys) if keys > 1 and chance.random() < wrong else 0


@given(
    st.integers(0, 10**6), st.integers(1, 5), st.floats(0, 0.9), st.floats(0, 0.9), st.integers(1, 7),
    st.integers(7, 60), st.integers(1, 30),
)  # fmt: skip
def test_waves_decide_as_single_draws_do_with_the_same_number_of_calls(
    seed: int, keys: int, wrong: float, flagged: float, k: int, most_draws: int, most_flags: int
) -> None:
    stream = stream_of(seed, keys, wrong, flagged)
    rules = Rules(most_draws=most_draws, most_flags=most_flags)
    outcome = first_ahead(lambda wave: [next(stream) for _ in range(wave.count)], k, rules)
    key, draws, flags = one_by_one(stream_of(seed, keys, wrong, flagged), k, most_draws, most_flags)
    assert (getattr(outcome, "key", None), outcome.draws, sum(outcome.flags.values())) == (key, draws, flags)


def test_the_number_of_waves_is_that_of_theory() -> None:
    chance, waves, steps = seeded(1), 0, 40_000
    for _ in range(steps):
        waves += first_ahead(lambda wave: [chance.random() < 0.99 for _ in range(wave.count)], 4).waves
    assert waves / steps == pytest.approx(waves_per_step(0.99, 4), rel=0.01)


def test_waiting_for_answers_changes_no_decision() -> None:
    rules = Rules(ladder=LADDER, escalate="dissent")

    def run(seed: int) -> Outcome:
        stream = stream_of(seed, 3, 0.3, 0.2)
        return first_ahead(lambda wave: [next(stream) for _ in range(wave.count)], 3, rules)

    async def wait(seed: int) -> Outcome:
        stream = stream_of(seed, 3, 0.3, 0.2)

        async def draw(wave: Wave) -> Sequence[Answer]:
            await asyncio.sleep(0)
            return [next(stream) for _ in range(wave.count)]

        return await first_ahead_async(draw, 3, rules)

    for seed in range(50):
        assert asyncio.run(wait(seed)) == run(seed)


@pytest.mark.parametrize(
    ("p", "k", "s"), [(0.9, 3, 200), (0.8, 4, 150), (0.95, 2, 150), (0.7, 3, 10), (0.99, 1, 60), (0.6, 5, 8)]
)
def test_jobs_are_solved_as_often_as_theory_says(p: float, k: int, s: int) -> None:
    chance, seeds = seeded(f"{p} {k}"), 400

    def solved() -> bool:
        for _ in range(s):
            outcome = first_ahead(lambda wave: [chance.random() < p for _ in range(wave.count)], k)
            if getattr(outcome, "key", None) is not True:
                return False
        return True

    rate, expected = sum(solved() for _ in range(seeds)) / seeds, p_full(p, k, s)
    assert abs(rate - expected) <= 3 * math.sqrt(expected * (1 - expected) / seeds)


# ---- escalation ----


def asked(answers: dict[str, Sequence[Answer]], k: int = 2, rules: Rules | None = None) -> Outcome:
    """A vote where each rung says the same things again and again."""
    rules = rules or Rules(ladder=LADDER, escalate="dissent", most_draws=20)
    return first_ahead(
        lambda w: [answers[w.rung.name][i % len(answers[w.rung.name])] for i in range(w.number, w.number + w.count)],
        k,
        rules,
    )


def test_dissent_is_asked_again_and_a_clean_rung_is_believed() -> None:
    outcome = asked({"base": ["a", "b", "a", "a"], "paraphrase": ["b"], "second model": ["c"]})
    assert isinstance(outcome, Decision)
    assert (outcome.key, outcome.escalated, outcome.unanimous) == ("b", 1, True)
    assert [t.rung for t in outcome.tallies] == ["base", "paraphrase"]


def test_rungs_that_agree_without_being_clean_are_believed_and_others_never() -> None:
    noisy = ["a", "b", "a", "a", "a"]
    agreed = asked({"base": noisy, "paraphrase": noisy, "second model": noisy})
    assert isinstance(agreed, Decision)
    assert agreed.key == "a"
    split = asked({"base": noisy, "paraphrase": ["b", "a", "b", "b", "b"], "second model": noisy})
    assert isinstance(split, Undecided)
    assert split.reason == "the rungs elected different answers"
    assert split.tallies[0].votes == {"a": 3, "b": 1}


def test_a_plurality_is_no_decision() -> None:
    outcome = asked({"base": ["a", "b"]}, 3, Rules(most_draws=21))
    assert isinstance(outcome, Undecided)
    assert outcome.tallies[0].votes == {"a": 11, "b": 10}
    assert outcome.reason == "no answer led by 3 after 21 draws"


def test_flagged_answers_are_drawn_again_up_to_a_cap() -> None:
    flag = RedFlag("length")
    found = asked({"base": [flag, "a", flag, "a"]}, 2, Rules())
    assert isinstance(found, Decision)
    assert (found.draws, found.flags, found.tallies[0].votes) == (4, {"length": 2}, {"a": 2})
    outcome = asked({"base": [flag]}, 2, Rules(most_flags=5))
    assert isinstance(outcome, Undecided)
    assert (outcome.draws, outcome.reason) == (5, "5 answers were discarded, most for length")


def test_a_rung_is_greedy_first_and_warmer_after() -> None:
    assert Wave(Rung(), 0, 3).temperatures == (0.0, 0.1, 0.1)
    assert Wave(Rung(temperatures=(0.0, 0.3, 0.6)), 1, 3).temperatures == (0.3, 0.6, 0.6)


# ---- flags of texts ----


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the answer is 4", None),
        ("", "format"),
        ("x " * 2001, "length"),
        ("move one disk " * 3, "repetition"),
        ("ab" * 40, "repetition"),
        ("very very very good", None),
        ("[[3, 2, 1], [], []] [[3, 2], [1], []]", None),
    ],
)
def test_a_text_is_flagged_for_length_repetition_or_format(text: str, reason: str | None) -> None:
    assert Flags().flag(text) == (None if reason is None else RedFlag(reason))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=20), st.integers(0, 10))
def test_a_run_of_words_that_comes_three_times_is_seen_wherever_it_stands(run: list[str], before: int) -> None:
    words = [f"w{i}" for i in range(before)] + run * 3 + ["end"]
    assert repeats(" ".join(words))
    assert repeats(" ".join([f"v{i}" for i in range(201)] * 3))
    assert not repeats(" ".join(f"w{i}" for i in range(before * 10)))


# ---- k from what is seen ----


def test_the_lower_bound_is_exact_without_errors_and_never_too_high_too_often() -> None:
    assert lower_bound(100, 100, 0.05) == pytest.approx(0.05**0.01)
    assert lower_bound(0, 10, 0.05) == pytest.approx(0, abs=1e-9)
    chance = np.random.default_rng(0)
    right = chance.binomial(200, 0.97, 2000)
    too_high = np.mean([lower_bound(int(r), 200, 0.05) > 0.97 for r in right])
    assert too_high <= 0.05


def test_k_is_the_one_that_the_measured_p_needs() -> None:
    chance, measured = seeded(2), Reliability(0.95, 1e6)
    assert measured.k == 10
    for _ in range(10):
        measured.note(first_ahead(lambda wave: [True] * wave.count, measured.k))
    assert measured.p_low == pytest.approx(0.025**0.1)
    assert measured.k == 20 == measured.most < k_min(0.025**0.1, 0.95, 1e6)
    for _ in range(20_000):
        measured.note(first_ahead(lambda wave: [chance.random() < 0.99 for _ in range(wave.count)], measured.k))
    assert 0.986 < measured.p_low < 0.99
    assert measured.k == k_min(0.99, 0.95, 1e6) == 4
    assert measured.warning == ""


def test_the_bound_on_p_holds_though_the_draws_of_a_step_are_correlated() -> None:
    chance, too_high = np.random.default_rng(8), 0
    for _ in range(200):
        measured = Reliability(0.95, 1e4, most=5)
        for p in chance.beta(0.95 * 1.5, 0.05 * 1.5, 160):
            measured.note(first_ahead(lambda wave: list(chance.random(wave.count) < p), 5))  # noqa: B023
        # What was elected stands for the right answer: the share of steps that were decided wrongly is not seen.
        too_high += measured.p_low > 0.97
    assert too_high <= 10


def test_a_step_that_was_settled_higher_up_counts_against_what_was_elected_there() -> None:
    measured = Reliability(0.95, 1e4)
    said = {"base": ["a", "b", "a", "a", "a"], "paraphrase": ["b"], "second model": ["b"]}
    measured.note(asked(said, 3))  # type: ignore[arg-type]
    assert measured.p == 1 / 3
    measured.note(asked({"base": [RedFlag("length")]}, 2, Rules(most_flags=5)))
    assert measured.p == 1 / 3


def test_where_half_the_answers_are_wrong_k_is_the_most_there_is() -> None:
    measured = Reliability(0.95, 1e4, most=12)
    for _ in range(40):
        measured.note(first_ahead(lambda wave: ["a", "b", "a", "a", "a"][wave.number : wave.number + wave.count], 3))
    assert (measured.p_low < 0.5, measured.k) == (True, 12)


@pytest.mark.parametrize("target", [0.0, 1.0, 2.0, math.inf])
def test_a_target_that_is_no_probability_is_told(target: float) -> None:
    with pytest.raises(VoteError, match="probabilities between 0 and 1"):
        Reliability(target, 100)


def test_a_warning_comes_only_where_the_target_is_missed() -> None:
    reached = steps_reached(0.99, 4, 0.95, 0.05)
    assert warning(0.99, 4, reached * 0.99, 0.95, 0.05) == ""
    assert "k=4 holds 95% for 2,344 steps" in warning(0.99, 4, reached * 1.01, 0.95, 0.05)
    assert warning(0.99, 4, 1e9, 0.95, 0.0) == ""


def test_correlated_errors_are_warned_of_and_a_larger_k_is_not_called_a_cure() -> None:
    chance, measured = np.random.default_rng(5), Reliability(0.95, 1e6)
    for _ in range(5000):
        p = chance.beta(0.99 * 9, 0.01 * 9)
        measured.note(first_ahead(lambda wave: list(chance.random(wave.count) < p), measured.k))  # noqa: B023
    assert 0.05 < measured.rho < 0.2
    assert "escalate what is not unanimous" in measured.warning


def test_steps_in_bulk_count_as_steps_one_by_one() -> None:
    single, bulk = Reliability(0.95, 1e4, first=10**9), Reliability(0.95, 1e4, first=10**9)
    noisy = first_ahead(lambda wave: [1, 1, 2, 2, 1, 1, 1][wave.number : wave.number + wave.count], 3)
    for _ in range(30):
        single.note(first_ahead(lambda wave: [1] * wave.count, 3))
    bulk.unanimous(30, 3)
    for measured in (single, bulk):
        measured.note(noisy)
    assert (single.p, single.rho, single.rho_low, single.room) == (bulk.p, bulk.rho, bulk.rho_low, bulk.room)
    assert single.p == 92 / 93


def test_dissent_is_what_is_left_of_unanimity() -> None:
    assert p_dissent(0.9, 3) == pytest.approx(1 - 0.9**3 - 0.1**3)
    assert p_dissent(1 - 1e-13, 4) == pytest.approx(4e-13, rel=1e-3)
    assert cost(0.99, 4, 1000, 0.5, 0.8) == pytest.approx(1000 * 0.5 * votes_per_step(0.99, 4) / 0.8)
    assert p_step(0.6, 2) == pytest.approx(0.36 / 0.52)
