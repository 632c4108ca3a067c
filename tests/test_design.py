"""Designs of the next runs: what a run is worth for a decision, in worlds where the truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentlab.allocation import best
from agentlab.allocation_regret import Yardstick
from agentlab.belief import Belief, believe
from agentlab.fitting import FitOptions
from agentlab.planted_worlds import KINDS, World, world
from agentlab.proposers._misfit import misfit_vectors
from agentlab.proposers.design import DESIGNS, Round, choose, outlook
from agentlab.types import Rows

OPTIONS = FitOptions(residual="log", starts=8)


def pilot(one: World, count: int = 14) -> Rows:
    """Rows of a few cheap runs."""
    cheap = np.argsort(one.space.cost, kind="stable")[: 3 * count : 3]
    return one.rows(cheap, np.zeros(len(cheap), dtype=np.int64))


@pytest.fixture(scope="module")
def chinchilla() -> World:
    """A world with the law of Hoffmann et al."""
    return world("chinchilla", 0)


@pytest.fixture(scope="module")
def belief(chinchilla: World) -> Belief:
    """What its pilot runs leave open."""
    return believe(chinchilla.laws, pilot(chinchilla), OPTIONS, noise=0.01, draws=48)


def ask(one: World, belief: Belief, flops: float, most: int = 8) -> Round:
    """A round in a world."""
    return Round(one.space, pilot(one), (belief,), one.question, flops, most, seed=0, number=0)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_design_stays_within_its_budget_and_repeats_itself(name: str, chinchilla: World, belief: Belief) -> None:
    flops = chinchilla.largest / 20
    picks = DESIGNS[name](ask(chinchilla, belief, flops))
    again = DESIGNS[name](ask(chinchilla, belief, flops))
    assert 1 <= len(picks) <= 8
    assert sum(chinchilla.space.cost[p.place] for p in picks) <= flops
    assert [p.place for p in picks] == [p.place for p in again]


@pytest.mark.parametrize("name", DESIGNS)
def test_nothing_is_chosen_that_cannot_be_paid_for(name: str, chinchilla: World, belief: Belief) -> None:
    assert DESIGNS[name](ask(chinchilla, belief, float(chinchilla.space.cost.min()) / 2)) == []


def test_the_runs_of_a_batch_close_what_they_say_and_never_more_than_all(chinchilla: World, belief: Belief) -> None:
    picks = choose(ask(chinchilla, belief, chinchilla.largest, 12))
    assert all(0 < p.closes < 1 and 0 <= p.between <= 1 for p in picks)
    assert sum(p.closes for p in picks) <= 1 + 1e-9


def test_a_run_that_was_just_chosen_is_worth_less_the_second_time(chinchilla: World, belief: Belief) -> None:
    few = choose(ask(chinchilla, belief, chinchilla.largest, 1))[0]
    alone = replace(chinchilla.space, cost=np.where(np.arange(len(chinchilla.space)) == few.place, 1.0, 1e300))
    twice = choose(replace(ask(chinchilla, belief, 10.0, 2), space=alone))
    assert [p.place for p in twice] == [few.place] * 2
    assert twice[1].closes < twice[0].closes


def test_where_laws_may_be_wrong_dearer_runs_nearer_the_decision_are_worth_more(
    chinchilla: World, belief: Belief
) -> None:
    trusting = ask(chinchilla, belief, chinchilla.largest, 1)
    cost = chinchilla.space.cost
    alike = replace(trusting, space=replace(chinchilla.space, cost=np.ones_like(cost)), flops=10.0)
    wary = replace(alike, misfit=0.5)
    assert cost[choose(wary)[0].place] == cost.max()
    near, far = misfit_vectors(0.5, 0.01, wary.rows, chinchilla.space.columns, wary.rows.columns)
    assert np.all((far**2).sum(axis=1) < 0.02**2)
    assert np.all((near**2).sum(axis=1) <= 0.5**2 * (1 + 1e-9))
    assert (near**2).sum(axis=1)[np.argmax(cost)] > 0.4**2


def test_what_the_decision_costs_falls_with_the_runs_that_are_designed(chinchilla: World) -> None:
    yard = Yardstick.of(chinchilla.truth, chinchilla.params, chinchilla.question)
    rows, lost = pilot(chinchilla), []
    places = [int(i) for i in np.argsort(chinchilla.space.cost, kind="stable")[:42:3]]
    for number in range(3):
        found = believe(chinchilla.laws, rows, OPTIONS, noise=0.01, draws=48, seed=number)
        choice = best(found.best.law, found.best.fit.params, chinchilla.question)
        lost.append(float(yard.regret(choice.config)[0]))
        asked = Round(chinchilla.space, rows, (found,), chinchilla.question, chinchilla.largest / 4, 12, 0, number)
        places += [p.place for p in choose(asked)]
        rows = chinchilla.rows(np.array(places), np.arange(len(places)))
    assert lost[-1] < lost[0] / 10


def test_an_ensemble_weighs_laws_by_how_well_they_explain(chinchilla: World) -> None:
    spread = np.linspace(0, len(chinchilla.space) - 1, 60).astype(np.int64)
    found = believe(chinchilla.laws, chinchilla.rows(spread, np.zeros(60, dtype=np.int64)), OPTIONS, draws=24)
    assert found.best.law.key == chinchilla.truth.key
    assert found.weight.sum() == pytest.approx(1.0)
    assert found.noise == pytest.approx(chinchilla.noise, rel=0.3)
    tempered = believe(
        chinchilla.laws, chinchilla.rows(spread, np.zeros(60, dtype=np.int64)), OPTIONS, draws=24, temper=1e-3
    )
    assert len(tempered.members) == len(chinchilla.laws)


def test_repeats_tell_the_noise_whatever_the_laws_miss(chinchilla: World) -> None:
    places = np.repeat([0, 90, 190], 12)
    rows = chinchilla.rows(places, np.arange(36))
    wrong = [law for law in chinchilla.laws if law.key != chinchilla.truth.key][-1:]
    assert believe(wrong, rows, OPTIONS, draws=8).noise == pytest.approx(chinchilla.noise, rel=0.35)


def test_the_decision_is_the_configuration_that_loses_least_over_the_ensemble(
    chinchilla: World, belief: Belief
) -> None:
    seen = outlook(belief, chinchilla.question)
    assert seen.expected == pytest.approx(seen.regret.min())
    cost = 6 * seen.decision["N"] * seen.decision["D"]
    assert cost == pytest.approx(chinchilla.question.compute, rel=1e-6)


@pytest.mark.parametrize("kind", [k.name for k in KINDS])
def test_a_world_is_the_same_for_the_same_seed_and_has_an_answer(kind: str) -> None:
    one, again, other = world(kind, 1), world(kind, 1), world(kind, 2)
    assert one.measure(5, 3) == again.measure(5, 3)
    assert one.measure(5, 3) != one.measure(5, 4)
    assert not np.array_equal(one.params, other.params)
    assert one.space.cost.max() <= one.largest
    choice = best(one.truth, one.params, one.question)
    assert Yardstick.of(one.truth, one.params, one.question).regret(choice.config)[0] == pytest.approx(0.0, abs=1e-3)
