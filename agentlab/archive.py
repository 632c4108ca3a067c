"""The entries of a run in memory, derived from the trace: what was seen, the elites of each island, and the best."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from agentlab.types import Entry

OWN_ISLAND = 0.7
"""Share of the parents that come from the elites of the asking island (arXiv 2507.21184)."""
ANY_ISLAND = 0.2
"""Share of the parents drawn evenly over the elites of all islands; the rest are drawn by fitness."""
RIVALS = 3
"""Elites compared for one parent of the asking island: the best of the drawn wins."""
FITNESS_HALF_LIFE = 8.0
"""Ranks over which the chance of being drawn by fitness halves."""
COMPLEXITY_BIN = 4
"""Nodes to one bin of the grid."""
GAIN = 1.0
"""Nats by which the best objective must fall for a search to be still gaining."""

Cell = tuple[int, int, str]
Rank = tuple[float, int]


@dataclass(slots=True)
class _Island:
    """One grid: the best entry of every (objective, complexity, structure) cell, at most `capacity` cells."""

    capacity: int
    place: dict[Cell, int] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    elites: list[Entry] = field(default_factory=list)
    crowds: dict[int, list[tuple[Rank, Cell]]] = field(default_factory=dict)
    best: Entry | None = None

    def offer(self, entry: Entry) -> bool:
        """Take the entry in if it opens a cell or beats the elite of its cell; True if it was taken."""
        cell, rank = _cell(entry), _rank(entry)
        crowd = self.crowds.setdefault(cell[1], [])
        at = self.place.get(cell)
        if at is None:
            self.place[cell] = len(self.elites)
            self.cells.append(cell)
            self.elites.append(entry)
        elif rank < (former := _rank(self.elites[at])):
            del crowd[bisect_left(crowd, (former, cell))]
            self.elites[at] = entry
        else:
            return False
        insort(crowd, (rank, cell))
        if self.best is None or rank < _rank(self.best):
            self.best = entry
        if len(self.elites) > self.capacity:
            self._evict()
        return True

    def _evict(self) -> None:
        """Give up the worst elite of the most crowded complexity, so that simple laws stay beside rich ones."""
        fullest = max(self.crowds, key=lambda c: (len(self.crowds[c]), c))
        _, cell = self.crowds[fullest].pop()
        hole = self.place.pop(cell)
        last_cell, last_elite = self.cells.pop(), self.elites.pop()
        if hole < len(self.elites):
            self.cells[hole], self.elites[hole] = last_cell, last_elite
            self.place[last_cell] = hole


class Archive:
    """Entries in memory: adding costs the same at the first entry and at the 100,000th.

    Whole entries are kept for the elites of each island and for the best `keep` only; of all others an 8-byte digest
    of the key remains. Every `migrate_every` entries the best of one island is offered to the next one. The state
    depends on the sequence of entries alone, but for `chosen`.
    """

    def __init__(self, islands: int = 5, *, capacity: int = 100, keep: int = 200, migrate_every: int = 20) -> None:
        """An empty archive of `islands` grids with at most `capacity` elites each."""
        if islands < 1 or capacity < 1 or keep < 1 or migrate_every < 1:
            raise ValueError("islands, capacity, keep and migrate_every must be at least 1")
        self._islands = [_Island(capacity) for _ in range(islands)]
        self._keep = keep
        self._migrate_every = migrate_every
        self._keys: set[int] = set()
        self._ranks: list[Rank] = []
        self._kept: dict[int, Entry] = {}
        self._reasons: Counter[str] = Counter()
        self._count = 0
        self._gained = (math.inf, 0)
        self._chosen: tuple[Entry, ...] = ()

    def __len__(self) -> int:
        """How many entries were added, rejected ones included."""
        return self._count

    @property
    def islands(self) -> int:
        """The number of islands."""
        return len(self._islands)

    @property
    def evaluated(self) -> int:
        """How many entries were added that were not rejected."""
        return self._count - self._reasons.total()

    @property
    def idle(self) -> int:
        """How many entries were added since the best objective last fell by a nat or more."""
        return self._count - self._gained[1]

    @property
    def rejected(self) -> Mapping[str, int]:
        """How many entries were rejected, by reason."""
        return dict(self._reasons)

    def add(self, entry: Entry) -> None:
        """Take in one entry, in the order of the trace; a rejected one is counted and its key is marked as seen."""
        self._count += 1
        self._keys.add(_digest(entry.proposal.key))
        if entry.outcome.status == "rejected":
            self._reasons[entry.outcome.reason] += 1
        elif math.isfinite(entry.outcome.objective):
            self._rank_in(entry)
            if entry.outcome.objective < self._gained[0] - GAIN:
                self._gained = (entry.outcome.objective, self._count)
            self._islands[entry.proposal.island % self.islands].offer(entry)
        if self._count % self._migrate_every == 0:
            self._migrate()

    @property
    def chosen(self) -> tuple[Entry, ...]:
        """The entries that were elected as parents of what is asked now; none where nobody chose."""
        return self._chosen

    def choose(self, ids: Iterable[int]) -> None:
        """Prefer these entries as parents until the next choice; one that is not among the best kept is left out."""
        self._chosen = tuple(self._kept[i] for i in ids if i in self._kept)

    def seen(self, key: str) -> bool:
        """Whether an entry with this canonical key was added."""
        return _digest(key) in self._keys

    def best(self) -> Entry | None:
        """The entry with the lowest objective (the lower id on a tie), or None."""
        return self._kept[self._ranks[0][1]] if self._ranks else None

    def top(self, k: int) -> list[Entry]:
        """The best k entries by objective, ties by id; at most the `keep` of the constructor."""
        return [self._kept[i] for _, i in self._ranks[:k]]

    def elites(self, island: int | None = None) -> list[Entry]:
        """The elites of one island, or of all of them, in the order of the grid; a migrant can stand on two islands."""
        grids = self._islands if island is None else [self._islands[island % self.islands]]
        return [entry for grid in grids for entry in grid.elites]

    def sample(self, rng: np.random.Generator, island: int) -> Entry | None:
        """One parent: 70% from the island's elites, 20% evenly from all elites, 10% by fitness; None when empty."""
        if not self._ranks:
            return None
        luck = rng.random()
        home = self._islands[island % self.islands].elites
        if luck < OWN_ISLAND and home:
            drawn = [home[int(u * len(home))] for u in rng.random(RIVALS)]
            return min(drawn, key=_rank)
        if luck < OWN_ISLAND + ANY_ISLAND:
            return self._any_elite(float(rng.random()))
        rank = int(FITNESS_HALF_LIFE * -math.log2(1.0 - rng.random()))
        return self._kept[self._ranks[rank % len(self._ranks)][1]]

    def _any_elite(self, luck: float) -> Entry:
        """The elite at the share `luck` of the elites of all islands laid end to end."""
        at = int(luck * sum(len(grid.elites) for grid in self._islands))
        for grid in self._islands:
            if at < len(grid.elites):
                return grid.elites[at]
            at -= len(grid.elites)
        raise AssertionError("unreachable: an archive that ranks an entry holds an elite")

    def _rank_in(self, entry: Entry) -> None:
        """Put the entry in its place among the best `keep`."""
        rank = _rank(entry)
        if len(self._ranks) == self._keep:
            if bisect_left(self._ranks, rank) == self._keep:
                return
            del self._kept[self._ranks.pop()[1]]
        insort(self._ranks, rank)
        self._kept[entry.id] = entry

    def _migrate(self) -> None:
        """Offer the best of one island to the next; the islands take turns."""
        source = (self._count // self._migrate_every - 1) % self.islands
        best = self._islands[source].best
        if best is not None:
            self._islands[(source + 1) % self.islands].offer(best)


def _rank(entry: Entry) -> Rank:
    return entry.outcome.objective, entry.id


def _cell(entry: Entry) -> Cell:
    """The cell of the grid: objectives (nats, any sign) are binned on a scale that is linear near 0 and log beyond."""
    score = math.floor(8.0 * math.asinh(entry.outcome.objective / 10.0))
    return score, entry.outcome.complexity // COMPLEXITY_BIN, entry.outcome.structure


def _digest(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
