"""The archive: elites, islands, migration, sampling, and costs that do not grow."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.archive import Archive
from agentlab.types import Entry, Outcome, Proposal


def entry(
    number: int, objective: float = 0.0, *, complexity: int = 5, structure: str = "", island: int = 0, reason: str = ""
) -> Entry:
    """An entry with its own key; rejected where a reason is given."""
    proposal = Proposal(number, "fit.laws", f"E + {number}", f"key {number}", "test", "seed", (), island)
    if reason:
        return Entry(number, proposal, Outcome("rejected", reason))
    return Entry(number, proposal, Outcome("ok", "", objective, complexity=complexity, structure=structure))


def random_entries(count: int, seed: int = 0) -> list[Entry]:
    rng = np.random.default_rng(seed)
    values, sizes, shapes = rng.normal(0, 100, count), rng.integers(3, 60, count), rng.integers(0, 500, count)
    return [
        entry(i, float(v), complexity=int(c), structure=f"s{s}", island=i % 5)
        for i, (v, c, s) in enumerate(zip(values, sizes, shapes, strict=True))
    ]


def filled(entries: list[Entry], **settings: int) -> Archive:
    archive = Archive(**settings)
    for one in entries:
        archive.add(one)
    return archive


def state(archive: Archive) -> list[list[int]]:
    """The ids of the elites of each island, in order."""
    return [[e.id for e in archive.elites(i)] for i in range(archive.islands)]


def test_an_empty_archive_has_nothing_to_give() -> None:
    archive = Archive()
    assert (len(archive), archive.best(), archive.top(3), archive.elites()) == (0, None, [], [])
    assert archive.sample(np.random.default_rng(0), 0) is None
    assert not archive.seen("key 0")


def test_best_is_the_lowest_objective_and_the_older_entry_on_a_tie() -> None:
    archive = filled([entry(0, 3.0), entry(1, 1.0), entry(2, 1.0), entry(3, 2.0)])
    assert archive.best() == entry(1, 1.0)
    assert [e.id for e in archive.top(3)] == [1, 2, 3]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_top_agrees_with_sorting_all_entries(objectives: list[float], keep: int) -> None:
    archive = filled([entry(i, v) for i, v in enumerate(objectives)], keep=keep)
    expected = sorted(range(len(objectives)), key=lambda i: (objectives[i], i))[:keep]
    assert [e.id for e in archive.top(keep)] == expected


def test_a_rejected_entry_is_counted_and_seen_but_is_no_parent() -> None:
    archive = filled([entry(0, reason="non-finite"), entry(1, reason="outclassed"), entry(2, reason="non-finite")])
    assert archive.rejected == {"non-finite": 2, "outclassed": 1}
    assert (len(archive), archive.evaluated, archive.best()) == (3, 0, None)
    assert archive.seen("key 0")
    assert archive.sample(np.random.default_rng(0), 0) is None


def test_an_entry_without_a_finite_objective_is_no_parent() -> None:
    archive = filled([entry(0, math.inf), entry(1, math.nan)])
    assert (archive.evaluated, archive.best(), archive.elites()) == (2, None, [])


def test_a_cell_keeps_the_better_of_two_laws_of_its_kind() -> None:
    archive = filled([entry(0, 5.01), entry(1, 5.0), entry(2, 5.02)])
    assert [e.id for e in archive.elites(0)] == [1]


def test_laws_of_another_structure_or_size_or_score_stand_beside_a_better_law() -> None:
    better = entry(0, 5.0)
    others = [entry(1, 5.01, structure="other"), entry(2, 5.01, complexity=40), entry(3, 500.0)]
    assert [e.id for e in filled([better, *others]).elites(0)] == [0, 1, 2, 3]


def test_a_full_island_keeps_simple_laws_beside_many_better_rich_ones() -> None:
    rich = [entry(i, -1000.0 - i, complexity=40, structure=f"s{i}") for i in range(1, 60)]
    archive = filled([entry(0, 100.0, complexity=3), *rich], capacity=20)
    ids = [e.id for e in archive.elites(0)]
    assert len(ids) == 20
    assert {0, 59} <= set(ids)


@given(st.lists(st.tuples(st.floats(-500, 500), st.integers(1, 30), st.integers(0, 3)), max_size=200))
@settings(max_examples=40, deadline=None)
def test_no_island_outgrows_its_capacity_or_loses_its_best(laws: list[tuple[float, int, int]]) -> None:
    archive = Archive(2, capacity=12, migrate_every=10_000)
    best: dict[int, Entry] = {}
    for i, (objective, complexity, structure) in enumerate(laws):
        one = entry(i, objective, complexity=complexity, structure=str(structure), island=i % 2)
        archive.add(one)
        former = best.get(i % 2)
        if former is None or objective < former.outcome.objective:
            best[i % 2] = one
    for island, one in best.items():
        elites = archive.elites(island)
        assert one in elites
        assert len(elites) <= 12
        assert len({e.id for e in elites}) == len(elites)


def test_migration_carries_the_best_of_an_island_around_the_ring() -> None:
    archive = Archive(3, migrate_every=4)
    archive.add(entry(0, -100.0, island=0))
    homes = []
    for i in range(1, 12):
        archive.add(entry(i, reason="non-finite"))
        homes.append([island for island in range(3) if archive.elites(island)])
    assert homes[1] == [0]
    assert homes[2] == [0, 1]
    assert homes[6] == [0, 1, 2]


def test_a_migrant_does_not_displace_a_better_law_of_its_kind() -> None:
    archive = filled([entry(0, 5.01, island=0), entry(1, 5.0, island=1)], islands=2, migrate_every=2)
    assert state(archive) == [[0], [1]]


def test_the_same_entries_give_the_same_archive_and_the_same_parents() -> None:
    entries = random_entries(400)
    first, second = filled(entries), filled(entries)
    assert state(first) == state(second)
    drawn = [
        [a.sample(rng, i % 5) for i in range(50)]
        for a, rng in ((first, np.random.default_rng(3)), (second, np.random.default_rng(3)))
    ]
    assert drawn[0] == drawn[1]


def test_parents_come_mostly_from_the_own_island_and_also_from_others() -> None:
    archive = filled(
        [entry(i, float(i), structure=f"s{i}", island=i % 2) for i in range(20)], islands=2, migrate_every=999
    )
    rng = np.random.default_rng(0)
    drawn = Counter(e.proposal.island for e in (archive.sample(rng, 1) for _ in range(2000)) if e is not None)
    assert 0.75 < drawn[1] / 2000 < 0.95
    ids = {e.id for e in (archive.sample(rng, 1) for _ in range(2000)) if e is not None}
    assert len(ids) > 15


def test_an_island_without_elites_draws_parents_from_the_others() -> None:
    archive = filled([entry(0, 1.0, island=0)])
    drawn = archive.sample(np.random.default_rng(0), 3)
    assert drawn is not None
    assert drawn.id == 0


def test_adding_costs_the_same_at_the_first_thousand_and_at_the_last_of_50_000_entries() -> None:
    entries = random_entries(50_000)
    archive = Archive()
    costs = []
    for start in range(0, len(entries), 1000):
        begin = time.thread_time()
        for one in entries[start : start + 1000]:
            archive.add(one)
        costs.append(time.thread_time() - begin)
    assert np.median(costs[-10:]) < 5 * np.median(costs[:10])


def test_whole_entries_are_kept_for_elites_and_the_best_only() -> None:
    archive = filled(random_entries(5000), capacity=20, keep=30)
    assert len(archive.elites()) <= 100
    assert len(archive.top(5000)) == 30
    entries = [entry(i, float(i)) for i in range(200)]
    held = entries[100]
    before = sys.getrefcount(held)
    small = filled(entries, capacity=5, keep=5)
    assert sys.getrefcount(held) == before
    assert small.seen("key 100")


@pytest.mark.parametrize("settings", [{"islands": 0}, {"capacity": 0}, {"keep": 0}, {"migrate_every": 0}])
def test_an_archive_without_room_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Archive(**settings)


def test_an_archive_is_idle_since_the_best_last_fell_by_a_nat() -> None:
    archive = filled([entry(0, 10.0), entry(1, 5.0), entry(2, 4.5), entry(3, 4.2), entry(4, reason="non-finite")])
    assert archive.idle == 3
    archive.add(entry(5, 3.9))
    assert archive.idle == 0
