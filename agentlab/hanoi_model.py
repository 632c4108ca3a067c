"""One step of the towers of Hanoi as a question to a model: the prompt of a state, and the strict reading of a reply.

The step is the one of MAKER (arXiv 2511.09030): the strategy is told, and the model carries out one move of
it, given the pegs and the move before.
"""

from __future__ import annotations

import re
from itertools import pairwise
from string import Template
from typing import TypeAlias

from agentlab.models_prompts import phrasings
from agentlab.vote import RedFlag
from agentlab.vote_flags import FORMAT, RANGE, Flags

Pegs: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Three pegs, each its disks from the bottom up: the largest first; disk 1 is the smallest."""

Move: TypeAlias = tuple[int, int, int]
"""Disk, peg it leaves, peg it goes to; pegs are numbered from 0."""

LONGEST, A_DISK = 2000, 12
"""Characters an answer may have, and more for each disk: the state is written twice at most."""

PHRASINGS = phrasings("hanoi")

_MOVE = re.compile(r"^move = \[ *(\d+) *, *(\d+) *, *(\d+) *\][ \t]*$", re.MULTILINE)
_PEG = r"\[ *((?:\d+(?: *, *\d+)*)?) *\]"
_STATE = re.compile(rf"^next_state = \[ *{_PEG} *, *{_PEG} *, *{_PEG} *\][ \t]*$", re.MULTILINE)
_NAMED = re.compile(r"\b(move|next_state)[ \t]*=")


def prompt(pegs: Pegs, previous: Move | None, phrasing: int = 0) -> str:
    """The question for the step that follows `previous` (None at the start), in one of `PHRASINGS`.

    Disk 1 goes round 0, 2, 1 where the number of disks is odd and 0, 1, 2 where it is even, so that all end on peg 2.
    """
    disks = sum(len(peg) for peg in pegs)
    return Template(PHRASINGS[phrasing]).substitute(
        disks=disks,
        circle="0 -> 2 -> 1 -> 0" if disks % 2 else "0 -> 1 -> 2 -> 0",
        previous="none" if previous is None else str(list(previous)),
        state=str([list(peg) for peg in pegs]),
    )


def read_answer(text: str, disks: int, pegs: Pegs | None = None) -> tuple[Move, Pegs] | RedFlag:
    """The move and the next pegs that an answer gives, or why it is discarded; nothing is repaired.

    Flags: "length"; "repetition"; "format" unless both lines stand there exactly once; "range" where a disk or peg does
    not exist, the next pegs are not all disks in order, or do not have the moved disk on top of where it went. With
    `pegs`, the state that was asked about, the next pegs must also be what the move makes of it.
    """
    flag = Flags(longest=LONGEST + A_DISK * disks).flag(text)
    if flag is not None:
        return flag
    moves, states = _MOVE.findall(text), _STATE.findall(text)
    if len(moves) != 1 or len(states) != 1 or len(_NAMED.findall(text)) != 2:
        return RedFlag(FORMAT)
    disk, source, target = (int(word) for word in moves[0])
    first, second, third = (tuple(int(word) for word in peg.split(",") if word.strip()) for peg in states[0])
    found: Pegs = (first, second, third)
    if not (1 <= disk <= disks and source != target and max(source, target) <= 2 and _whole(found, disks)):
        return RedFlag(RANGE)
    if found[target][-1:] != (disk,) or (pegs is not None and found != moved(pegs, (disk, source, target))):
        return RedFlag(RANGE)
    return (disk, source, target), found


def moved(pegs: Pegs, move: Move) -> Pegs | None:
    """The pegs after a move, None where the rules forbid it."""
    disk, source, target = move
    if pegs[source][-1:] != (disk,) or (pegs[target] and pegs[target][-1] < disk):
        return None
    after = [*pegs]
    after[source], after[target] = pegs[source][:-1], (*pegs[target], disk)
    return after[0], after[1], after[2]


def _whole(pegs: Pegs, disks: int) -> bool:
    """Whether every disk stands there once, larger ones below smaller ones."""
    ordered = all(below > above for peg in pegs for below, above in pairwise(peg))
    return ordered and sorted(d for peg in pegs for d in peg) == list(range(1, disks + 1))
