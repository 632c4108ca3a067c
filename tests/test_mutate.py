"""The proposer without an LLM: the sweep of known laws, then edits that are new, valid, within the cap, repeatable."""

from __future__ import annotations

import time
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.archive import Archive
from agentlab.law import Law, LawError, from_tree, parse
from agentlab.law_edit import uses
from agentlab.library_naming import named
from agentlab.proposers import Proposer
from agentlab.proposers._dice import Dice
from agentlab.proposers._draft import Draft
from agentlab.proposers._edits import OPERATORS, Operator
from agentlab.proposers._tidy import tidy
from agentlab.proposers.mutate import SWEEP_ALONE, Mutate
from agentlab.types import Entry, Outcome, Proposal, Task, Variable

CHINCHILLA = Task("chinchilla", (Variable("N", monotone="-"), Variable("D", monotone="-")), ("loss",))
LEVERAGE = Task("leverage", (Variable("A", box=(0.004, 1.0)), Variable("G"), Variable("C")), ("EL",))
SFT = Task("sft", (Variable("sft_data_size"),), ("loss",), max_params=4)
PARALLEL = Task("parallel", (Variable("num_params"), Variable("parallel_size")), ("loss",), max_params=4)
VOCAB = Task("vocab", (Variable("N"), Variable("V"), Variable("D")), ("loss",), max_params=7)
SHARES = Task("shares", tuple(Variable(f"r{i}", log=False, box=(0.0, 1.0)) for i in range(5)), ("loss",), max_params=7)
EXPERTS = Task("experts", (Variable("num_experts"), Variable("dense_parameter_count")), ("loss",))
REPEATED = Task("repeated", tuple(map(Variable, ("unique_tokens", "params", "tokens"))), ("loss",), max_params=7)
TUNING = Task("tuning", tuple(map(Variable, ("lr", "bsz", "D", "N"))), ("loss",), max_params=20)
FLOPS = Task("flops", (Variable("log_flops", log=False, box=(-2.0, 1.0)),), ("brier",))
TASKS = (CHINCHILLA, LEVERAGE, SFT, PARALLEL, VOCAB, SHARES, EXPERTS, REPEATED, TUNING, FLOPS)

IDS = [t.name for t in TASKS]

KNOWN = [
    (CHINCHILLA, 10, "E + A/N**a + B/D**b"),
    (CHINCHILLA, 40, "E + (A/N**a + B/D**b)**k"),
    (LEVERAGE, 40, "(A + A0)**(a + d*log10(C) + g*log2(G)**2 + b*log2(G))"),
    (SFT, 20, "A/(sft_data_size**a + B) + C"),
    (PARALLEL, 40, "E + (A/(num_params*(k*log(parallel_size) + 1)))**a"),
    (VOCAB, 10, "A/N**a + B/V**b + C/D**c + E"),
    (SHARES, 10, "c + k*exp(t1*r0 + t2*r1 + t3*r2 + t4*r3 + t5*r4)"),
    (
        EXPERTS,
        100,
        "exp(d + a*log(dense_parameter_count))*(1/(num_experts + s) + m)**(b + c*log(dense_parameter_count))",
    ),
    (
        REPEATED,
        100,
        "E + A/params**a + B/({U}*(1 + R*(1 - exp(-(tokens/{U} - 1)/R))))**b".replace(
            "{U}", "min(tokens, unique_tokens)"
        ),
    ),
    (REPEATED, 100, "E + A/params**a + B/tokens**b"),
    (
        TUNING,
        130,
        "A/D**a + B/N**b + C + d*(lr - F*N**g*D**z)**2 + e*(log(bsz) + G*D**h/bsz)",
    ),
    (FLOPS, 10, "a + b*log_flops + c*log_flops**2 + d*log_flops**3 + e*log_flops**4 + f*log_flops**5"),
]
"""(task, asks, law): published laws (FACTS sections 1 to 3) and within how many asks each must come."""


def answer(proposal: Proposal, task: Task, seed: int = 0) -> Entry:
    """An entry with invented but repeatable figures: one law in five is rejected, simple laws score better."""
    law = parse(proposal.formula, task.names)
    luck = np.random.default_rng([seed, crc32(proposal.key.encode())])
    if luck.random() < 0.2:
        return Entry(proposal.index, proposal, Outcome("rejected", "non-finite"))
    params = {"all": {target: {p: float(luck.normal()) for p in law.params} for target in task.targets}}
    objective = 2.5 * law.complexity + 30.0 * float(luck.normal())
    outcome = Outcome("ok", "", objective, 0.0, law.n_params, law.complexity, law.structure, params=params)
    return Entry(proposal.index, proposal, outcome)


def asked(task: Task, count: int, seed: int = 0, window: int = 8) -> list[Proposal | None]:
    """The proposals of a run in which ask i sees the entries up to i - window."""
    proposer, archive = Mutate(task, seed), Archive()
    proposals: list[Proposal | None] = []
    for index in range(count):
        if index >= window and (old := proposals[index - window]) is not None:
            archive.add(answer(old, task))
        pending = [p.key for p in proposals[max(0, index - window) :] if p is not None]
        proposals.append(proposer.ask(index, archive, pending))
    return proposals


def laws_of(task: Task, count: int) -> list[Law]:
    return [parse(p.formula, task.names) for p in asked(task, count) if p is not None]


def test_mutate_is_a_proposer() -> None:
    proposer: Proposer = Mutate(CHINCHILLA, 0)
    assert proposer.name == "mutate"
    assert not hasattr(proposer, "tell")


@pytest.mark.parametrize(("task", "asks", "formula"), KNOWN, ids=[f"{t.name}: {f[:30]}" for t, _, f in KNOWN])
def test_the_law_that_people_use_is_among_the_first_asks(task: Task, asks: int, formula: str) -> None:
    assert parse(formula, task.names).key in [p.key for p in asked(task, asks) if p is not None]


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_every_proposal_is_a_new_law_within_the_cap_over_the_task_s_variables(task: Task) -> None:
    keys = set()
    for index, proposal in enumerate(asked(task, 300)):
        if proposal is None:
            continue
        law = parse(proposal.formula, task.names, max_params=task.max_params)
        assert (proposal.index, proposal.tool, proposal.proposer) == (index, "fit.laws", "mutate")
        assert (law.text, law.key) == (proposal.formula, proposal.key)
        assert law.used
        assert law.n_params
        assert proposal.key not in keys
        assert all(parent < index for parent in proposal.parents)
        keys.add(proposal.key)
    assert len(keys) > 250


@pytest.mark.parametrize("task", [CHINCHILLA, LEVERAGE, SHARES], ids=["chinchilla", "leverage", "shares"])
def test_the_same_seed_gives_the_same_stream_and_another_seed_another(task: Task) -> None:
    count = SWEEP_ALONE + 60
    first = asked(task, count)
    assert first == asked(task, count)
    other = asked(task, count, seed=1)
    assert first[:SWEEP_ALONE] == other[:SWEEP_ALONE]
    assert first != other


def test_an_ask_depends_on_the_archive_alone_and_not_on_what_was_asked_before() -> None:
    entries = [answer(p, LEVERAGE) for p in asked(LEVERAGE, 150) if p is not None]
    fresh_proposer, used_proposer = Mutate(LEVERAGE, 3), Mutate(LEVERAGE, 3)
    for index in (7, 101, 333, 222):
        used_proposer.ask(index, Archive(), ())
    archive = Archive()
    for entry in entries:
        archive.add(entry)
    for index in (500, 201, 104):
        assert fresh_proposer.ask(index, archive, ()) == used_proposer.ask(index, archive, ())


def test_a_law_that_is_pending_or_was_seen_is_not_proposed_again() -> None:
    proposer, archive = Mutate(CHINCHILLA, 0), Archive()
    first = proposer.ask(0, archive, ())
    assert first is not None
    waiting = proposer.ask(0, archive, [first.key])
    assert waiting is not None
    assert waiting.key != first.key
    archive.add(answer(first, CHINCHILLA))
    again = proposer.ask(0, archive, ())
    assert again is not None
    assert again.key != first.key


def test_where_every_law_is_known_there_is_nothing_new_to_ask() -> None:
    class Everything(frozenset[str]):
        def __contains__(self, key: object) -> bool:
            return True

    assert Mutate(CHINCHILLA, 0).ask(0, Archive(), Everything()) is None


def test_a_parent_that_is_no_law_of_the_task_is_passed_over() -> None:
    archive = Archive()
    for i, formula in enumerate(("__import__('os')", "E", "")):
        proposal = Proposal(i, "fit.laws", formula, formula, "other", "none")
        archive.add(Entry(i, proposal, Outcome("ok", "", float(i), structure=formula)))
    found = Mutate(CHINCHILLA, 0).ask(101, archive, ())
    assert found is not None
    assert found.parents == ()


@pytest.mark.parametrize("cap", [1, 2, 3, 12])
def test_the_cap_on_parameters_holds_from_1_to_12(cap: int) -> None:
    task = Task("capped", (Variable("N"), Variable("D")), ("loss",), max_params=cap)
    found = laws_of(task, 160)
    assert len(found) > (4 if cap == 1 else 60)
    assert min(cap, 7) <= max(law.n_params for law in found) <= cap


def test_parameter_names_collide_neither_with_variables_nor_with_bounded_names() -> None:
    task = Task("clash", tuple(map(Variable, ("E", "A", "a"))), ("y",), bounds={"B": (0.0, 1.0)})
    for law in laws_of(task, 150):
        assert not {"E", "A", "a", "B"} & set(law.params)


def test_edits_improve_on_the_seed_laws_where_the_objective_asks_for_it() -> None:
    target = parse("E + A/(N + N0)**(a + b*log(D))", CHINCHILLA.names)
    proposer, archive = Mutate(CHINCHILLA, 0), Archive()
    wanted = set(target.structure.split())
    for index in range(600):
        proposal = proposer.ask(index, archive, ())
        if proposal is None:
            continue
        law = parse(proposal.formula, CHINCHILLA.names)
        distance = abs(law.complexity - target.complexity) + 5 * len(wanted ^ set(law.structure.split()))
        outcome = Outcome("ok", "", float(distance), complexity=law.complexity, structure=law.structure)
        archive.add(Entry(index, proposal, outcome))
    best = archive.best()
    assert best is not None
    seeds = [e.outcome.objective for e in archive.top(600) if e.proposal.operator == "seed"]
    assert best.outcome.objective <= min(seeds)


PARENTS = (
    "E + A/N**a + B/D**b",
    "(N + N0)**(a + b*log(D) + c*log(D)**2)",
    "E + A*exp(-N/k)*D**-0.5 + 2",
    "exp(A*N**a + B) + exp(C*N**b + D2)*D**(-exp(F*N**c + G))",
    "E + A/(min(N, D)*(1 + R*(1 - exp(-(N/min(N, D) - 1)/R))))**b",
    "N",
    "A - (N - D)**2/(N*D)",
    "sqrt(log10(N)) + tanh(D)",
)


@pytest.mark.parametrize("operator", [f for _, f in OPERATORS], ids=[f.__name__ for _, f in OPERATORS])
@given(
    seed=st.integers(0, 2**32 - 1),
    pair=st.tuples(st.sampled_from(PARENTS), st.sampled_from(PARENTS)),
    fitted=st.sampled_from([{}, {"a": 0.52, "b": 1e-3, "A": 400.0}]),
)
@settings(max_examples=60, deadline=None)
def test_every_operator_makes_a_law_of_any_parents(
    operator: Operator, seed: int, pair: tuple[str, str], fitted: dict[str, float]
) -> None:
    names = frozenset(CHINCHILLA.names)
    tree, other = (parse(text, CHINCHILLA.names).tree for text in pair)
    draft = Draft(tree, other, fitted, CHINCHILLA.features, Dice(np.random.default_rng(seed)))
    edited = operator(draft)
    if edited is None:
        return
    law = from_tree(named(tidy(edited, names), names), CHINCHILLA.names)
    assert parse(law.text, CHINCHILLA.names).key == law.key
    assert not any("?" in p for p in law.params)


@pytest.mark.parametrize(
    ("redundant", "expected"),
    [
        ("A*B*N**a", "A*N**a"),
        ("2*A*N**a", "A*N**a"),
        ("E + F + A*N", "E + A*N"),
        ("E + k*(C + N)", "E + A*N"),
        ("N**a*N**b*A", "A*N**a"),
        ("A*exp(B + b*N)", "A*exp(a*N)"),
        ("E + A*(B*N)**a", "E + A*N**a"),
        ("E + A/(B + C*N**c)", "E + A/(B + N**a)"),
        ("E + A*log(B*N**b)", "E + A*log(N)"),
        ("(N**a)**b", "N**a"),
        ("E + A*log(N) + B*log(N)", "E + A*log(N)"),
        ("E - A*log(N)", "E + A*log(N)"),
        ("exp(log(N))**a", "N**a"),
        ("E + A*N**(a - b)", "E + A*N**a"),
    ],
)
def test_redundant_parameters_are_taken_out(redundant: str, expected: str) -> None:
    names = frozenset(("N", "D"))
    assert from_tree(named(tidy(parse(redundant, ("N", "D")).tree, names), names), ("N", "D")).text == expected


@pytest.mark.parametrize(
    "text", ["A*N**a + B*D**a", "E + A/N**a + B/(N**a*D**b)", "(N + N0)**(a + b*log(D))", "A + B*N**A"]
)
def test_parameters_that_are_needed_stay(text: str) -> None:
    names = frozenset(("N", "D"))
    law = parse(text, ("N", "D"))
    assert from_tree(tidy(law.tree, names), ("N", "D")).n_params == law.n_params


def test_asks_cost_the_same_at_the_start_and_after_thousands_of_entries() -> None:
    proposer, archive = Mutate(CHINCHILLA, 0), Archive()
    costs = []
    for index in range(3000):
        begin = time.thread_time()
        proposal = proposer.ask(index, archive, ())
        costs.append(time.thread_time() - begin)
        if proposal is not None:
            archive.add(answer(proposal, CHINCHILLA))
    assert np.median(costs[-500:]) < 8 * np.median(costs[SWEEP_ALONE:600])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_tidying_a_law_whose_parameters_are_numbers_keeps_its_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names, dice = frozenset(CHINCHILLA.names), Dice(rng)
    tree, other = (parse(dice.pick(PARENTS), CHINCHILLA.names).tree for _ in range(2))
    for _ in range(2):
        edited = dice.weighted(OPERATORS)(Draft(tree, other, {}, CHINCHILLA.features, dice))
        if edited is not None and uses(edited, names):
            tree = named(edited, names)
    try:
        law = from_tree(tree, CHINCHILLA.names)
    except LawError:
        return
    before = law.substitute({name: round(float(rng.uniform(0.2, 2.0)), 3) for name in law.params})
    after = from_tree(tidy(before.tree, names), CHINCHILLA.names)
    columns = {name: rng.uniform(0.3, 4.0, 40) for name in CHINCHILLA.names}
    nothing = np.zeros(0)
    first, second = before.evaluate(columns, nothing), after.evaluate(columns, nothing)
    both = np.isfinite(first) & np.isfinite(second) & (np.abs(first) < 1e100)
    np.testing.assert_allclose(second[both], first[both], rtol=1e-5, atol=1e-6)
