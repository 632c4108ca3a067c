"""A simulated model for micro-steps: it errs, mumbles and repeats itself as often as it is told to. No model is asked.

Every draw is a pure function of (seed, step, rung, number of the draw), so that the same draws come one by one or in
waves, in one chain or in many, before a crash and after it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentlab.errors import AgentlabError
from agentlab.hanoi import Towers
from agentlab.hanoi_model import read_answer
from agentlab.vote import Answer, RedFlag, Rung, VoteError, Wave

RIGHT, WRONG, MALFORMED, REPEATING = range(4)

BLOCK = 1024
"""Steps that are drawn for at once."""

Codes = NDArray[np.int8]
Floats = NDArray[np.float64]
Whole = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Faults:
    """How a simulated model fails.

    A share `malformed` of its answers cannot be read, a share `repeating` goes round in circles; of the others `error`
    are wrong, always in the same way. With `correlation` a step's own error is Beta with mean `error` and that
    intraclass correlation. On `hard` steps of `steps` the share of right answers is `hard_p`; on every further rung,
    asked in other words or of another model, such a step is like all others with probability `cure`.
    """

    error: float = 0.01
    malformed: float = 0.0
    repeating: float = 0.0
    correlation: float = 0.0
    hard: int = 0
    hard_p: float = 0.4
    cure: float = 0.9
    steps: int = 0

    def __post_init__(self) -> None:
        for name in ("error", "malformed", "repeating", "correlation", "hard_p", "cure"):
            if not 0 <= getattr(self, name) <= 1:
                raise AgentlabError(f"{name}={getattr(self, name):g}: a share lies between 0 and 1")
        if self.malformed + self.repeating >= 1:
            raise AgentlabError("malformed and repeating together leave no answer that counts; lower them")
        if self.correlation == 1:
            raise AgentlabError("correlation=1: a step would always answer the same; write less")
        if self.correlation and self.error in (0, 1):
            raise AgentlabError(f"correlation: error={self.error:g} leaves nothing to correlate; write another error")
        if not 0 <= self.hard <= self.steps:
            raise AgentlabError(f"hard={self.hard}: there are {self.steps} steps; write fewer")

    @property
    def valid(self) -> float:
        """The share of draws that are not flagged."""
        return 1 - self.malformed - self.repeating


class Oracle:
    """Draws RIGHT, WRONG, MALFORMED or REPEATING for (step, rung, number), the same ones whenever it is asked.

    `blocks` of draws are kept ready, 15 kB each: as many as there are chains, or they are drawn again and again; of
    each step the first `ahead`, as many as a first wave takes.
    """

    def __init__(self, faults: Faults, seed: int, blocks: int = 8, ahead: int = 8) -> None:
        self.faults, self.seed, self._most, self.ahead = faults, seed % 2**64, blocks, ahead
        self.block = -1
        self.kept: dict[int, list[int]] = {}
        self._blocks: dict[int, dict[int, list[int]]] = {}
        self._difficulties: dict[tuple[int, int], Floats] = {}
        chance = np.random.default_rng([seed, 0])
        self.hard = (
            np.sort(chance.choice(faults.steps, faults.hard, replace=False)) if faults.hard else np.empty(0, int)
        )

    def draws(self, index: int, wave: Wave) -> list[int]:
        """The codes of a wave."""
        if index // BLOCK != self.block:
            self.fill(index)
        end = wave.number + wave.count
        rung = _number(wave.rung)
        if rung == 0 and end <= self.ahead:
            return self.kept[index][wave.number : end] if index in self.kept else [RIGHT] * wave.count
        found: list[int] = self._codes(np.array([index]), rung, wave.number, wave.count)[0].tolist()
        return found

    def errors(self, steps: NDArray[np.int64], rung: int) -> Floats:
        """The share of wrong answers among those that count, of each step on a rung."""
        faults = self.faults
        error = np.full(len(steps), faults.error)
        if faults.correlation:
            error = self._difficulty(steps, rung)
        if faults.hard:
            hard = np.isin(steps, self.hard)
            if rung:
                hard &= _uniform(self.seed, steps, rung, np.array([-1]))[:, 0] >= faults.cure
            error[hard] = 1 - faults.hard_p
        return error

    def _difficulty(self, steps: NDArray[np.int64], rung: int) -> Floats:
        """Beta draws, made block by block so that a step has the same one whoever asks."""
        scale, found = 1 / self.faults.correlation - 1, np.empty(len(steps))
        blocks = steps // BLOCK
        for block in np.unique(blocks):
            place = rung, int(block)
            if place not in self._difficulties:
                if len(self._difficulties) >= 3 * self._most:  # of three rungs
                    del self._difficulties[next(iter(self._difficulties))]
                chance = np.random.default_rng([self.seed, 1, *place])
                drawn = chance.beta(scale * self.faults.error, scale * (1 - self.faults.error), BLOCK)
                self._difficulties[place] = drawn
            here = blocks == block
            found[here] = self._difficulties[place][steps[here] % BLOCK]
        return found

    def fill(self, index: int) -> None:
        """Turn to the block of a step: `kept` then has those of its steps that are not all right."""
        self.block = index // BLOCK
        if self.block not in self._blocks:
            if len(self._blocks) >= self._most:
                del self._blocks[next(iter(self._blocks))]
            low = self.block * BLOCK
            codes = self._codes(np.arange(low, low + BLOCK), 0, 0, self.ahead)
            off = np.flatnonzero(codes.any(axis=1))
            self._blocks[self.block] = dict(zip((off + low).tolist(), codes[off].tolist(), strict=True))
        self.kept = self._blocks[self.block]

    def _codes(self, steps: NDArray[np.int64], rung: int, number: int, count: int) -> Codes:
        faults = self.faults
        u = _uniform(self.seed, steps, rung, np.arange(number, number + count))
        flagged = faults.malformed + faults.repeating
        wrong = (u - flagged) < self.errors(steps, rung)[:, None] * (1 - flagged)
        codes = np.where(
            u < faults.malformed, MALFORMED, np.where(u < flagged, REPEATING, np.where(wrong, WRONG, RIGHT))
        )
        return codes.astype(np.int8)


def _number(rung: Rung) -> int:
    return rung.phrasing + 16 * rung.model


def _uniform(seed: int, steps: NDArray[np.int64], rung: int, numbers: NDArray[np.int64]) -> Floats:
    """Uniform numbers (steps, numbers) in [0, 1): the finaliser of SplitMix64 (Steele et al. 2014), over a counter."""
    counter = steps.astype(np.uint64)[:, None] << np.uint64(20)
    counter = counter ^ (numbers & 0xFFF).astype(np.uint64)[None, :] ^ np.uint64(rung << 12)
    key = _mixed(np.array([seed], np.uint64) + np.uint64(1))
    return (_mixed(_mixed(counter + key) ^ key) >> np.uint64(11)) / 2.0**53


def _mixed(x: Whole) -> Whole:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


class Answers:
    """Draws of a simulated model that solves the towers: `draw` is that of their job.

    A flagged draw is a text, spoiled in one of several ways, that goes through the reader that a model's answers go
    through; it is an error of this module if the reader lets it pass.
    """

    def __init__(self, towers: Towers, oracle: Oracle) -> None:
        self.towers, self.oracle = towers, oracle
        self._right = towers.right
        self._plain: Wave | None = None  # the first wave of steps as it came last: chains hand in the same one

    def draw(self, state: int, index: int, wave: Wave) -> list[Answer]:
        """The answers of a wave: keys of the right move, keys of a wrong one, red flags."""
        oracle, right = self.oracle, self._right(state, index)
        if wave is self._plain and index // BLOCK == oracle.block and index not in oracle.kept:
            return [right] * wave.count
        if wave.rung.phrasing == wave.rung.model == wave.number == 0 and wave.count <= oracle.ahead:
            self._plain = wave
        return [
            right if code == RIGHT else self._other(code, state, index, wave.number + i)
            for i, code in enumerate(self.oracle.draws(index, wave))
        ]

    def _other(self, code: int, state: int, index: int, number: int) -> Answer:
        if code == WRONG:
            return self.towers.wrong(state, index)
        key = self.towers.right(state, index)
        source, target = key >> 2 & 3, key & 3
        pegs = self.towers.pegs(state)
        text = (
            f"move = {[pegs[source][-1], source, target]}\nnext_state = {[list(p) for p in self.towers.pegs(key >> 4)]}"
        )
        spoiled = spoil(text, index + number, repeating=code == REPEATING)
        flag = read_answer(spoiled, self.towers.disks, pegs)
        if not isinstance(flag, RedFlag):
            raise VoteError(f"hanoi: the reader took a spoiled answer: {spoiled!r}")
        return flag


class Questions:
    """A job of independent questions to a simulated model, each answered RIGHT or WRONG: the state counts wrong ones.

    Unlike a tower it goes on after an error, so that the errors that nobody noticed can be counted.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self._flags: dict[int, Answer] = {MALFORMED: RedFlag("format"), REPEATING: RedFlag("repetition")}

    def begin(self) -> int:
        """No error yet."""
        return 0

    def draw(self, state: int, index: int, wave: Wave) -> list[Answer]:  # noqa: ARG002 - the questions are independent
        """The answers of a wave."""
        return [self._flags.get(code, code) for code in self.oracle.draws(index, wave)]

    def check(self, state: int, key: Hashable) -> int:
        """One error more for a wrong answer."""
        return state + (key == WRONG)

    def keys(self, state: int) -> tuple[int, int]:  # noqa: ARG002
        """Right and wrong."""
        return RIGHT, WRONG

    def digest(self, key: Hashable) -> int:
        """The answer itself."""
        return WRONG if key == WRONG else RIGHT

    def dump(self, state: int) -> object:
        """The count."""
        return state

    def load(self, value: int) -> int:
        """The count."""
        return value


def spoil(text: str, way: int, *, repeating: bool) -> str:
    """An answer that must not count: three times the same, or cut short, without its state, on a peg that is not there.

    `way` chooses among the ways, round and round.
    """
    if repeating:
        return "\n".join([text] * 3)
    move, state = text.split("\n")
    ways = (
        text[:-1],
        move,
        state,
        f"The move is {move[7:]}.\n{state}",
        text.replace("[", "[9", 1),
        "I think that " * 300,
    )
    return ways[way % len(ways)]
