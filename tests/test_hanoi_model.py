"""A step of the towers of Hanoi asked of a model: what the prompt tells is enough, and only a whole answer is read."""

from __future__ import annotations

import asyncio
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_model import Asked, serving

from agentlab.hanoi_model import PHRASINGS, Move, Pegs, moved, prompt, read_answer
from agentlab.models import Chat
from agentlab.vote import Answer, Decision, RedFlag, Wave, first_ahead_async

START: Pegs = ((3, 2, 1), (), ())
GOOD = "move = [1, 0, 2]\nnext_state = [[3, 2], [], [1]]"


def written(move: Move, pegs: Pegs) -> str:
    return f"move = {list(move)}\nnext_state = {[list(p) for p in pegs]}"


def obedient(text: str) -> tuple[Move, Pegs]:
    """What the rule in a prompt says, from the words of the prompt alone."""
    pegs, previous = pegs_of(text), re.search(r"(?:Previous move|\[disk, from, to\]): (none|\[.*\])", text)
    circle = re.search(r"0 -> (\d) -> (\d) -> 0", text)
    assert previous
    assert circle
    if previous[1] == "none" or json.loads(previous[1])[0] != 1:
        here = next(i for i, peg in enumerate(pegs) if peg[-1:] == (1,))
        onward = {0: int(circle[1]), int(circle[1]): int(circle[2]), int(circle[2]): 0}
        move: Move = (1, here, onward[here])
    else:
        others = [i for i, peg in enumerate(pegs) if peg[-1:] != (1,)]
        source, target = sorted(others, key=lambda i: pegs[i][-1] if pegs[i] else 99)
        move = (pegs[source][-1], source, target)
    after = moved(pegs, move)
    assert after is not None
    return move, after


def pegs_of(text: str) -> Pegs:
    """The state that a prompt tells."""
    state = re.search(r"(?:State|bottom disk first): (\[\[.*\]\])", text)
    assert state
    first, second, third = (tuple(peg) for peg in json.loads(state[1]))
    return first, second, third


def wrong(text: str, right: Move) -> tuple[Move, Pegs]:
    """Another move that the rules allow, with the state that it leads to: an answer that only votes can refute."""
    pegs = pegs_of(text)
    tries = [(peg[-1], i, j) for i, peg in enumerate(pegs) for j in range(3) if peg and i != j]
    return next((m, after) for m in tries if m != right and (after := moved(pegs, m)) is not None)


@pytest.mark.parametrize("phrasing", range(len(PHRASINGS)))
@pytest.mark.parametrize("disks", range(1, 8))
def test_each_prompt_tells_enough_to_bring_every_disk_over_in_the_fewest_moves(disks: int, phrasing: int) -> None:
    pegs: Pegs = (tuple(range(disks, 0, -1)), (), ())
    previous: Move | None = None
    for _ in range(2**disks - 1):
        assert pegs[2] != tuple(range(disks, 0, -1))
        move, after = obedient(prompt(pegs, previous, phrasing))
        assert read_answer(written(move, after), disks, pegs) == (move, after)
        previous, pegs = move, after
    assert pegs == ((), (), tuple(range(disks, 0, -1)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "format"),
        ("move = [1, 0, 2]", "format"),
        (f"{GOOD}\nmove = [1, 0, 2]", "format"),
        (f"{GOOD}\nSo move = [1, 0, 2].", "format"),
        (GOOD.replace("move", "**move"), "format"),
        (GOOD.replace("]]", "]"), "format"),
        (GOOD.replace("[], ", ""), "format"),
        (GOOD.replace("2]", "two]"), "format"),
        (GOOD.replace("[1, 0, 2]", "[1, 0, 3]"), "range"),
        (GOOD.replace("[1, 0, 2]", "[0, 0, 2]"), "range"),
        (GOOD.replace("[1, 0, 2]", "[1, 2, 2]"), "range"),
        (GOOD.replace("[1, 0, 2]", "[2, 0, 1]"), "range"),
        (GOOD.replace("[3, 2]", "[2, 3]"), "range"),
        (GOOD.replace("[3, 2]", "[3]"), "range"),
        (GOOD.replace("[3, 2]", "[3, 2, 1]"), "range"),
        (GOOD.replace("[3, 2]", "[4, 3, 2]"), "range"),
        ("I will think. " * 3 + GOOD, "repetition"),
        (" ".join(str(n) for n in range(600)) + "\n" + GOOD, "length"),
    ],
)
def test_an_answer_that_is_not_whole_is_flagged(text: str, reason: str) -> None:
    assert read_answer(GOOD, 3) == read_answer(f"Disk 1 is due.\n{GOOD}  \n", 3) == ((1, 0, 2), ((3, 2), (), (1,)))
    assert read_answer(text, 3) == RedFlag(reason)


def test_an_answer_is_the_result_of_its_move_where_the_state_is_known() -> None:
    leap = written((1, 0, 2), ((3,), (2,), (1,)))
    assert not isinstance(read_answer(leap, 3), RedFlag)
    assert read_answer(leap, 3, START) == RedFlag("range")
    assert read_answer(GOOD, 3, START) == ((1, 0, 2), ((3, 2), (), (1,)))
    assert moved(((3, 2), (), (1,)), (2, 0, 2)) is None


@given(st.text(alphabet="move=nxt_s[], 0123\n", max_size=80), st.integers(0, len(GOOD)))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_flagged(noise: str, at: int) -> None:
    read = read_answer(GOOD[:at] + noise + GOOD[at:], 3, START)
    assert isinstance(read, RedFlag) or moved(START, read[0]) == read[1]


def test_a_served_model_that_errs_once_in_five_solves_the_towers_by_votes() -> None:
    """Voted at k=4 with 4 disks; by single answers it would get through 15 steps once in 28 tries."""
    disks, dissent = 4, list[bool]()

    def answer(asked: Asked) -> str:
        move, after = obedient(asked.text)
        dice = random.Random(asked.seed)  # noqa: S311 -- a script, no secret
        if dice.random() < 0.1:
            return "move = " + written(move, after)
        return written(*(wrong(asked.text, move) if dice.random() < 0.2 else (move, after)))

    async def solve(url: str) -> tuple[Pegs, set[str]]:
        pegs: Pegs = (tuple(range(disks, 0, -1)), (), ())
        previous: Move | None = None
        flags: set[str] = set()
        async with Chat(url, "scripted", env={}) as chat:
            for step in range(2**disks - 1):

                async def draw(
                    wave: Wave, asked: str = prompt(pegs, previous), here: Pegs = pegs, step: int = step
                ) -> list[Answer]:
                    seeds = [1000 * step + wave.number + i for i in range(wave.count)]
                    calls = (chat.complete(asked, temperature=0.1, seed=s, max_tokens=200) for s in seeds)
                    return [read_answer(r.text, disks) for r in await asyncio.gather(*calls)]

                outcome = await first_ahead_async(draw, 4)
                assert isinstance(outcome, Decision)
                flags |= set(outcome.flags)
                dissent.append(not outcome.unanimous)
                key = outcome.key
                assert isinstance(key, tuple)
                previous, pegs = key
        return pegs, flags

    with serving(answer) as server:
        pegs, flags = asyncio.run(solve(server.url))
    assert pegs == ((), (), (4, 3, 2, 1))
    assert flags == {"format"}
    assert sum(dissent) > 3
    assert len(server.asked) > 4 * 15
