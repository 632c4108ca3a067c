"""The loop's decisions by a model: voted over strict answers, within a token budget, recorded without a secret."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_model import Asked, Said, Scripted, serving

from agentlab.budget import Purse
from agentlab.decisions import (
    NOTHING,
    SPENT,
    DecisionError,
    Option,
    Question,
    Receipt,
    check_constraint,
    choose_parents,
    decide,
    decision_record,
    name_failure,
    pick_run,
    read_decision,
    read_log,
)
from agentlab.errors import BackendError
from agentlab.models import KEY, Chat, Model, prompt_bound
from agentlab.trace import Trace, TraceError, dump, read
from agentlab.types import Entry, Outcome, Proposal, Score
from agentlab.vote import LADDER, Decision, RedFlag, Rules, Undecided

SECRET = "sk-very-secret-0123456789"  # noqa: S105 -- made up
RIGHT = "r3"
RUNS = pick_run("tell two laws apart", [Option(f"r{n}", f"{n}e18 FLOPs, {n} experts") for n in range(1, 6)])
LOG = "step 1,024 loss 3.2150 lr 1.50e-3\nstep 2,048 loss 3.1e0 WARNING: gradient norm -0.5"


def entry(number: int, formula: str = "E + A/N**a", **outcome: object) -> Entry:
    proposal = Proposal(number, "fit.laws", formula, f"key {formula}", "mutate", "edit")
    measured = Outcome("ok", objective=-100.0 - number, mdl=50.0, n_params=3, complexity=9, cuts=(0.1, 0.2))
    score = Score(0.9, 0.1, 0.2, 0.3, 0.04, 20)
    return Entry(number, proposal, replace(measured, dev=score, **outcome))  # type: ignore[arg-type]


PARENTS = choose_parents([entry(n, f"E + A/N**{n}") for n in (12, 7, 30, 4)], 2)
FAILURE = name_failure(entry(5, status="rejected", reason="not finite beyond a cut"), entry(2))
CONSTRAINT = check_constraint("the loss falls with N", ["its slope is negative at every row", "a = 0.3"])
KINDS = (PARENTS, FAILURE, RUNS, CONSTRAINT, read_log(LOG, "the last loss"))


def paraphrased(asked: Asked) -> bool:
    """Whether a request is in RUNS' second phrasing."""
    return asked.text.startswith(RUNS.phrasings[1].split("$")[0])


def erring(share: float) -> Callable[[Asked], str]:
    """A scripted model that gives a wrong label with this probability, by the seed it is sent."""

    def answer(asked: Asked) -> str:
        dice = random.Random(asked.seed)  # noqa: S311 -- a script, no secret
        wrong = dice.choice(["r1", "r2", "r4", "r5"])
        return f"The cost matters.\nanswer = {wrong if dice.random() < share else RIGHT}"

    return answer


def decided(
    server: Scripted,
    questions: Sequence[Question],
    k: int = 3,
    rules: Rules = Rules(),  # noqa: B008 -- frozen
    purse: Purse | None = None,
    models: Sequence[str] = ("scripted",),
    receipts: list[Receipt] | None = None,
    seed: int = 0,
    **chat: float,
) -> list[Decision | Undecided]:
    """The outcomes of all questions, asked side by side; question number i with seed `seed` + i."""
    purse = Purse() if purse is None else purse

    async def all_of_them() -> list[Decision | Undecided]:
        chats = [Chat(server.url, m, env={KEY: SECRET}, retries=1, **chat) for m in models]  # type: ignore[arg-type]
        asked: list[Model] = [*chats]
        try:
            return await asyncio.gather(
                *(decide(q, asked, k, rules, purse, seed + i, receipts) for i, q in enumerate(questions))
            )
        finally:
            for one in chats:
                await one.close()

    return asyncio.run(all_of_them())


def test_votes_decide_against_a_model_that_errs_once_in_five() -> None:
    with serving(erring(0.2)) as server:
        alone = decided(server, [RUNS] * 16, k=1)
        voted = decided(server, [RUNS] * 16, k=4)
    assert 0 < sum(isinstance(o, Decision) and o.key != RIGHT for o in alone) < 8
    assert [o.key for o in voted if isinstance(o, Decision)] == [RIGHT] * 16
    assert sum(o.draws for o in voted) == len(server.asked) - 16


def test_each_draw_of_a_decision_lists_the_options_in_another_order() -> None:
    with serving(erring(0.0)) as server:
        decided(server, [RUNS], k=5)
    listed = [tuple(re.findall(r"^- (r\d):", a.text, re.MULTILINE)) for a in server.asked]
    assert len(set(listed)) == 5
    assert {tuple(sorted(names)) for names in listed} == {("r1", "r2", "r3", "r4", "r5")}


def test_answers_with_a_red_flag_are_drawn_again_and_not_counted() -> None:
    said = [
        "r1",
        "answer = r9",
        f"{'Because of the cost, and of the number of experts that it has, and more. ' * 2}answer = r1\nanswer = r1",
        "answer = r1 or r2",
        " ".join(str(n) for n in range(600)) + "\nanswer = r1",
        "so then " * 20 + "\nanswer = r1",
        "**answer = r1**",
        "answer = r1\nI am sure.",
    ]
    with serving(lambda asked: said[asked.number] if asked.number < len(said) else f"answer = {RIGHT}") as server:
        outcome = decided(server, [RUNS], k=2)[0]
    assert isinstance(outcome, Decision)
    assert outcome.key == RIGHT
    assert outcome.tallies[0].votes == {RIGHT: 2}
    assert outcome.flags == {"format": 5, "range": 1, "length": 1, "repetition": 1}
    assert outcome.draws == len(said) + 2


def test_a_phrasing_that_misleads_is_solved_by_the_paraphrase() -> None:
    def answer(asked: Asked) -> str:
        return erring(0.0)(asked) if paraphrased(asked) else erring(0.6)(asked)

    with serving(answer) as server:
        outcomes = decided(server, [RUNS] * 3, k=4, rules=Rules(ladder=LADDER[:2], escalate="dissent"))
    assert [o.key for o in outcomes if isinstance(o, Decision)] == [RIGHT] * 3
    assert [o.escalated for o in outcomes] == [1] * 3


def test_a_model_that_is_misled_by_every_phrasing_is_solved_by_a_second_model_and_else_undecided() -> None:
    def answer(asked: Asked) -> str:
        return f"answer = {RIGHT}" if asked.model == "second" else f"answer = r{1 + asked.number % 4}"

    rules = Rules(most_draws=12, ladder=LADDER, escalate="dissent")
    with serving(answer, models=("first", "second")) as server:
        solved = decided(server, [RUNS], rules=rules, models=("first", "second"))[0]
        halted = decided(server, [RUNS], rules=replace(rules, ladder=LADDER[:2]), models=("first",))[0]
    assert isinstance(solved, Decision)
    assert solved.key == RIGHT
    assert [t.rung for t in solved.tallies] == ["base", "paraphrase", "second model"]
    assert isinstance(halted, Undecided)
    assert [t.draws for t in halted.tallies] == [12, 12]
    assert {a.model for a in server.asked} == {"first", "second"}


def test_the_budget_holds_with_64_decisions_at_once_and_equals_the_servers_receipts() -> None:
    purse = Purse(tokens=8 * (prompt_bound(RUNS.prompt(0, 0, 0)) + RUNS.max_tokens))
    over: list[float] = []

    def answer(asked: Asked) -> Said:
        over.append(purse.tokens.spent + purse.tokens.held - purse.tokens.cap)
        return Said(f"answer = {RIGHT}", delay=0.002)

    receipts: list[Receipt] = []
    with serving(answer) as server:
        outcomes = decided(server, [RUNS] * 64, purse=purse, receipts=receipts)
    assert max(over) <= 0
    assert server.busiest >= 4
    assert server.tokens == purse.tokens.spent == sum(sum(r) for r in receipts) <= purse.tokens.cap
    assert purse.tokens.held == 0
    halted = [o for o in outcomes if isinstance(o, Undecided)]
    assert {o.reason for o in halted} == {SPENT}
    assert 0 < len(halted) < 64
    assert sum(o.draws for o in outcomes) == len(receipts) == len(server.asked)


def test_a_budget_too_small_for_one_call_is_one_clear_outcome_and_no_call() -> None:
    with serving(erring(0.0)) as server:
        outcome = decided(server, [RUNS], purse=Purse(tokens=10))[0]
    assert not server.asked
    assert isinstance(outcome, Undecided)
    record = decision_record(RUNS, outcome)
    assert (record["undecided"], record["draws"], record["tokens"]) == (SPENT, 0, {"in": 0, "out": 0})
    assert read_decision(record) == outcome


def test_a_call_that_fails_ends_the_decision_once_all_others_are_booked() -> None:
    purse = Purse()
    with (
        serving(
            lambda asked: Said("no", status=400) if asked.number == 1 else Said("answer = r1", delay=0.05)
        ) as server,
        pytest.raises(BackendError, match="refused"),
    ):
        decided(server, [RUNS], purse=purse)
    assert len(server.asked) == 3
    assert (purse.tokens.spent, purse.tokens.held) == (server.tokens, 0)


def test_a_reply_that_is_lost_counts_as_the_worst_case() -> None:
    purse = Purse()
    slow = serving(lambda asked: Said("answer = r1", delay=0.6))
    with slow as server, pytest.raises(BackendError, match="no reply within"):
        decided(server, [RUNS], k=1, purse=purse, deadline=0.2)
    worst = prompt_bound(RUNS.prompt(0, 0, 0)) + RUNS.max_tokens
    assert (purse.tokens.spent, purse.tokens.held) == (worst, 0)


def test_a_reply_that_nobody_waits_for_any_more_counts_as_the_worst_case() -> None:
    purse = Purse()

    async def given_up(url: str) -> None:
        async with Chat(url, "scripted", env={}) as chat, asyncio.timeout(0.2):
            await decide(RUNS, [chat], 2, Rules(), purse, 0)

    slow = serving(lambda asked: Said("answer = r1", delay=0.4))
    with slow as server, pytest.raises(TimeoutError):
        asyncio.run(given_up(server.url))
    assert purse.tokens.spent == sum(prompt_bound(RUNS.prompt(0, 0, n)) + RUNS.max_tokens for n in range(2))
    assert purse.tokens.held == 0


def test_the_key_is_in_no_record_error_or_repr(tmp_path: Path) -> None:
    receipts: list[Receipt] = []
    with serving(lambda asked: f"Your key is {asked.key}.\nanswer = {RIGHT}") as server:
        outcome = decided(server, [RUNS], receipts=receipts)[0]
    assert server.asked[0].key == SECRET
    record = decision_record(RUNS, outcome, receipts)
    assert record["calls"] == 3
    assert SECRET not in json.dumps(record) + repr(outcome) + repr(receipts)
    locked = serving(lambda asked: Said(f"bad key {asked.key}", status=401))
    with locked as server, pytest.raises(BackendError) as told:
        decided(server, [RUNS])
    assert SECRET not in str(told.value)


def test_a_record_is_a_line_of_a_trace_that_replays_the_decision_without_a_call(tmp_path: Path) -> None:
    with serving(lambda asked: "answer = 30, 7" if asked.number % 3 else "answer = 12, 7") as server:
        receipts: list[Receipt] = []
        outcome = decided(server, [PARENTS], k=4, receipts=receipts)[0]
        assert decided(server, [FAILURE], rules=Rules(most_draws=3))[0] != outcome
    assert isinstance(outcome, Decision)
    assert outcome.key == (7, 30)
    path = tmp_path / "trace.jsonl"
    with Trace(path) as trace:
        trace.append([decision_record(PARENTS, outcome, receipts)])
    record = next(read(path))
    assert record["key"] == [7, 30]
    assert record["tokens"]["in"] + record["tokens"]["out"] == sum(sum(r) for r in receipts)
    assert read_decision(record, PARENTS) == outcome
    with pytest.raises(TraceError, match="where another one was asked"):
        read_decision(record, RUNS)
    with pytest.raises(TraceError, match="damaged"):
        read_decision({k: v for k, v in record.items() if k != "tally"})


def test_the_same_seed_asks_the_same_and_records_the_same_bytes() -> None:
    def bytes_of(seed: int) -> bytes:
        receipts: list[Receipt] = []
        with serving(lambda asked: Said(erring(0.4)(asked), delay=asked.seed % 7 / 1000)) as server:
            outcome = decided(server, [RUNS], k=4, receipts=receipts, seed=seed)[0]
        requests = sorted((a.text, a.seed, a.temperature) for a in server.asked)
        assert len({seed for _, seed, _ in requests}) == len(requests)
        assert [t for *_, t in requests].count(0.0) == 1
        return dump(decision_record(RUNS, outcome, receipts)) + repr(requests).encode()

    assert bytes_of(1) == bytes_of(1) != bytes_of(2)


@pytest.mark.parametrize("question", [PARENTS, FAILURE, RUNS, CONSTRAINT], ids=lambda q: str(q.kind))
def test_each_option_stands_once_at_each_place_and_keeps_its_label(question: Question) -> None:
    count = len(question.options)
    orders = [question.order(3, 1, draw) for draw in range(count)]
    for place in zip(*orders, strict=True):
        assert set(place) == set(question.options)
    assert all(a != b for a, b in pairwise(orders))
    told = [re.findall(r"^- ([\w.-]+): ", question.prompt(1, 3, draw), re.MULTILINE)[-count:] for draw in range(count)]
    assert told == [[str(o.label) for o in order] for order in orders]
    assert len({question.order(seed, phrasing, 0) for seed in range(20) for phrasing in (0, 1)}) > 2


@pytest.mark.parametrize("question", KINDS, ids=lambda q: str(q.kind))
def test_every_kind_has_a_paraphrase_and_tells_how_to_answer(question: Question) -> None:
    assert len(question.phrasings) >= 2
    for phrasing in range(len(question.phrasings)):
        prompt = question.prompt(phrasing, 0, 0)
        assert prompt.splitlines()[-1].startswith("answer = ")
        assert "$" not in prompt
    assert isinstance(question.read(question.prompt(0, 0, 0)), RedFlag), "an echo is no answer"


@given(st.sampled_from(KINDS), st.text(alphabet="answer =,0123456789.e-r\nyocdtnl", max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_reply_is_an_allowed_answer_or_flagged(question: Question, text: str) -> None:
    for reply in (text, f"answer = {text}"):
        key = question.read(reply)
        labels = {o.label for o in question.options}
        assert isinstance(key, RedFlag) or (set(key) <= labels if isinstance(key, tuple) else key in labels)


@given(st.permutations([4, 7, 12, 30]))
def test_parents_are_one_key_in_whatever_order_they_are_named(named: list[int]) -> None:
    first, second = named[:2]
    assert PARENTS.read(f"answer = {first}, {second}") == tuple(sorted((first, second)))
    assert PARENTS.read(f"answer = {first}, {first}") == RedFlag("repetition")
    assert PARENTS.read(f"answer = {first}") == RedFlag("format")
    assert PARENTS.read(f"answer = {first}, 5") == RedFlag("range")


def test_a_log_is_read_as_a_number_or_a_word_that_stands_in_it() -> None:
    number, word = read_log(LOG, "the learning rate"), read_log(LOG, "the level of the warning", "word")
    assert number.read("answer = 0.0015") == number.read("answer = 1.50e-3") == 0.0015
    assert number.read("answer = 1024") == 1024.0
    assert number.read("answer = none") == "none"
    assert number.read("answer = 0.0016") == RedFlag("range")
    assert number.read("answer = about 3") == number.read("answer = 1,024") == RedFlag("format")
    assert word.read("answer = Warning") == "warning"
    assert word.read("answer = error") == RedFlag("range")
    with pytest.raises(DecisionError, match="give 4000 at most"):
        read_log("x" * 4001, "the loss")


def test_no_model_is_asked_where_there_is_no_choice() -> None:
    questions = [
        pick_run("anything", []),
        pick_run("anything", [Option("r1")]),
        choose_parents([entry(9), entry(3)], 2),
        choose_parents([], 1),
        read_log("no figure here", "the loss"),
    ]

    async def all_of_them() -> list[Decision | Undecided]:
        async with Chat("http://127.0.0.1:9/v1", "nobody", env={}) as chat:
            return [await decide(q, [chat], 3, Rules(), Purse(tokens=0), 0) for q in questions]

    outcomes = asyncio.run(all_of_them())
    assert [o.key if isinstance(o, Decision) else o.reason for o in outcomes] == [
        NOTHING,
        "r1",
        (3, 9),
        NOTHING,
        "none",
    ]
    assert all(read_decision(decision_record(q, o)) == o for q, o in zip(questions, outcomes, strict=True))


def test_a_question_that_cannot_be_asked_is_refused_in_words() -> None:
    with pytest.raises(DecisionError, match="is no label"):
        pick_run("a law", [Option("a*N**-b"), Option("E + a/N")])
    with pytest.raises(DecisionError, match="labelled 'r1'"):
        pick_run("twice", [Option("r1"), Option("r1")])
    with pytest.raises(DecisionError, match="needs a paraphrase"):
        replace(RUNS, phrasings=("one",))
    with pytest.raises(DecisionError, match="was not rejected"):
        name_failure(entry(1))
    with serving(erring(0.0)) as server, pytest.raises(DecisionError, match="asks for model 1; 1 are given"):
        decided(server, [RUNS], rules=Rules(ladder=LADDER))
    assert not server.asked
