"""The towers of Hanoi as a job of micro-steps: states, legal moves, the published strategy, and a referee.

n disks go from peg 0 to peg 2 in 2^n - 1 moves, as in arXiv 2511.09030, section 4: odd moves take the smallest disk
round the pegs in one direction, even moves are the only legal ones without it. The vote key is the exact pair of move
and next state. A state is one integer of three fields of n bits, a bit a disk, the smallest the lowest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from agentlab.errors import AgentlabError
from agentlab.steps import StepError
from agentlab.vote import Wave

MOST_DISKS = 24
"""Moves are kept as one byte each, 16 MB for 24 disks."""

Pegs = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Disks by peg, the largest (and lowest) first; disk 1 is the smallest."""


OTHERS = ((1, 2), (2, 0), (0, 1))
"""The two other pegs of each peg."""


class Towers:
    """The geometry of n disks: moves of a state as vote keys, and back.

    A key is `next_state << 4 | source << 2 | target`; its low byte of four bits is what the list of moves keeps.
    """

    __slots__ = ("_at", "_full", "_next", "_rounds", "disks")

    def __init__(self, disks: int) -> None:
        if not 1 <= disks <= MOST_DISKS:
            raise AgentlabError(f"hanoi: disks={disks}; write a number from 1 to {MOST_DISKS}")
        self.disks = disks
        self._at = (0, disks, 2 * disks)
        self._full = (1 << disks) - 1
        self._next = (2, 0, 1) if disks % 2 else (1, 2, 0)
        # What the smallest disk changes in a state when it goes round from each peg, and the move.
        self._rounds = tuple((1 << self._at[a] | 1 << self._at[b], a << 2 | b) for a, b in enumerate(self._next))

    @property
    def moves(self) -> int:
        """Moves of the whole tower: 2^n - 1."""
        return self._full

    def begin(self) -> int:
        """All disks on peg 0."""
        return self._full

    def key(self, state: int, source: int, target: int) -> int:
        """The key of moving the top disk of `source` to `target`."""
        at = self._at
        top = state >> at[source] & self._full
        top &= -top
        return (state ^ top << at[source] ^ top << at[target]) << 4 | source << 2 | target

    def keys(self, state: int) -> Iterator[int]:
        """The keys of all legal moves."""
        for source in range(3):
            for target in OTHERS[source]:
                here, there = self._tops(state, source, target)
                if here and (not there or here < there):
                    yield self.key(state, source, target)

    def _tops(self, state: int, one: int, two: int) -> tuple[int, int]:
        """The lowest bits of two pegs, 0 for an empty one."""
        here, there = state >> self._at[one] & self._full, state >> self._at[two] & self._full
        return here & -here, there & -there

    def check(self, state: int, key: Any) -> int:  # noqa: ANN401 - an integer; a look at its type would cost a tenth
        """The state after a key. Raises StepError for a move that is not legal, or whose next state is another."""
        source, target, at, full = key >> 2 & 3, key & 3, self._at, self._full
        after: int = key >> 4
        here = state >> at[source] & full
        here &= -here
        # A smaller disk on the target is one of the bits below `here`; this runs at every step.
        free = here and source != target and not state >> at[target] & here - 1
        if free and state ^ after == here << at[source] | here << at[target]:
            return after
        raise StepError(f"hanoi: move {source} to {target} cannot be made in this state")

    def right(self, state: int, index: int) -> int:
        """The key that the strategy takes at step `index` (from 0)."""
        at = self._at
        small = 0 if state & 1 else 1 if state >> at[1] & 1 else 2
        if not index & 1:
            change, move = self._rounds[small]
            return (state ^ change) << 4 | move
        a, b = OTHERS[small]
        full = self._full
        one, two = state >> at[a] & full, state >> at[b] & full
        one, two = one & -one, two & -two
        if not one or 0 < two < one:
            one, a, b = two, b, a
        if not one:  # all disks on one peg: only a run that has gone astray asks here
            return self.key(state, small, self._next[small])
        return (state ^ one << at[a] ^ one << at[b]) << 4 | a << 2 | b

    def wrong(self, state: int, index: int) -> int:
        """A legal key that the strategy does not take: the smallest disk the other way, or at the wrong time."""
        small = 0 if state & 1 else 1 if state >> self._at[1] & 1 else 2
        found = self.key(state, small, self._next[small])
        return found if found != self.right(state, index) else self.key(state, small, 3 - small - self._next[small])

    def state_at(self, index: int) -> int:
        """The state before step `index` of the shortest solution.

        Disk d (0 the smallest) has then moved (index + 2^d) >> (d + 1) times, always round in the same direction.
        """
        state = 0
        for disk in range(self.disks):
            turns = (index + (1 << disk)) >> (disk + 1)
            peg = turns * (2 if (self.disks - disk) % 2 else 1) % 3
            state |= 1 << self.disks * peg + disk
        return state

    def pegs(self, state: int) -> Pegs:
        """The state as lists of disk numbers."""
        n = self.disks
        a, b, c = (tuple(d + 1 for d in reversed(range(n)) if state >> n * peg + d & 1) for peg in range(3))
        return a, b, c

    def state(self, pegs: Iterable[Iterable[int]]) -> int:
        """The state of lists of disk numbers."""
        return sum(1 << self.disks * peg + disk - 1 for peg, disks in enumerate(pegs) for disk in disks)

    def digest(self, key: Any) -> int:  # noqa: ANN401 - an integer
        """48 bits of a key: the CRC-32 of all of it, and its own lowest 16, in a third of the time of a hash."""
        found: int = crc32(key.to_bytes(10, "little")) << 16 | key & 0xFFFF
        return found


class TowersJob:
    """The towers as a job; `draw` answers, simulated or asked of a model, at once or waited for."""

    def __init__(self, towers: Towers, draw: Callable[[int, int, Wave], Any]) -> None:
        self.begin, self.keys, self.digest = towers.begin, towers.keys, towers.digest
        self.draw, self.check = draw, towers.check  # bound once: they are called at every step

    def dump(self, state: int) -> object:
        """The state itself."""
        return state

    def load(self, value: int) -> int:
        """The state itself."""
        return value


def legs(towers: Towers, chains: int) -> list[tuple[int, int]]:
    """Where `chains` chains begin and end: the solution cut into parts of equal length, at known states.

    Raises:
        AgentlabError: more chains than moves.
    """
    if not 1 <= chains <= towers.moves:
        raise AgentlabError(f"hanoi: chains={chains}; write a number from 1 to the {towers.moves} moves")
    bounds = [towers.moves * i // chains for i in range(chains + 1)]
    return list(itertools.pairwise(bounds))


def astray(disks: int, start: int, moves: Sequence[int] | NDArray[np.uint8]) -> int | None:
    """The first step from `start` on that the shortest solution does not take, None where all are its own.

    Move m (from 1) goes from peg (m & m - 1) mod 3 to peg ((m | m - 1) + 1) mod 3, with pegs 1 and 2 swapped
    for an even number of disks.
    """
    made = np.frombuffer(moves, np.uint8) if isinstance(moves, bytes | bytearray) else np.asarray(moves, np.uint8)
    m = np.arange(start + 1, start + 1 + len(made), dtype=np.int64)
    source, target = (m & m - 1) % 3, ((m | m - 1) + 1) % 3
    if disks % 2 == 0:
        source, target = (3 - source) % 3, (3 - target) % 3
    off = np.flatnonzero(made != source << 2 | target)
    return int(off[0]) + start if len(off) else None


def simulate(disks: int, moves: Iterable[int]) -> str:
    """Play moves (4 source + target, a byte each) with three lists of disks.

    Returns "" when the tower stands on peg 2 at the end, and otherwise what is wrong. It shares nothing with the job:
    no masks, no strategy, no known length.
    """
    pegs: list[list[int]] = [list(range(disks, 0, -1)), [], []]
    for number, move in enumerate(moves):
        if move >> 2 == move & 3 or move >> 2 > 2 or move & 3 > 2:
            return f"move {number} goes from peg {move >> 2} to peg {move & 3}"
        source, target = pegs[move >> 2], pegs[move & 3]
        if not source:
            return f"move {number} takes a disk from an empty peg"
        if target and target[-1] < source[-1]:
            return f"move {number} puts disk {source[-1]} on disk {target[-1]}"
        target.append(source.pop())
    return "" if len(pegs[2]) == disks else f"{len(pegs[2])} of {disks} disks stand on peg 2"
