"""The towers solved by chat models: the `draw` of their job, one call a draw, each counted against a budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from agentlab.budget import Purse
from agentlab.budget_call import charged
from agentlab.hanoi import Towers
from agentlab.hanoi_model import Move, prompt, read_answer
from agentlab.ledger import OverBudgetError
from agentlab.models import Model
from agentlab.vote import Answer, RedFlag, Rung, Wave
from agentlab.vote_flags import LENGTH


class ModelAnswers:
    """Draws of models; rungs number the `models` from 0.

    Args:
        towers: The geometry.
        models: Who is asked.
        previous: The move before a step as 4 source + target, None before the first.
        purse: The budget: the worst case of a call is set aside before it.
        max_tokens: The longest reply; one that was cut off there is discarded.
        seed: Of the seeds that the models are sent, one a draw.
    """

    def __init__(
        self, towers: Towers, models: Sequence[Model], previous: Callable[[int], int | None],
        *, purse: Purse, max_tokens: int, seed: int,
    ) -> None:  # fmt: skip
        self.towers, self.models, self.previous = towers, models, previous
        self.purse, self.max_tokens, self.seed = purse, max_tokens, seed

    async def __call__(self, state: int, index: int, wave: Wave) -> list[Answer]:
        """The answers of a wave, asked side by side. Raises BackendError once all calls have ended."""
        numbers = range(wave.number, wave.number + wave.count)
        found = await asyncio.gather(*(self._ask(state, index, wave.rung, n) for n in numbers), return_exceptions=True)
        answers = [one for one in found if not isinstance(one, BaseException)]
        failed = next((one for one in found if isinstance(one, BaseException)), None)
        if isinstance(failed, OverBudgetError):
            failed.paid = len(answers)
        if failed is not None:
            raise failed
        return answers

    async def _ask(self, state: int, index: int, rung: Rung, number: int) -> Answer:
        pegs = self.towers.pegs(state)
        text = prompt(pegs, self._move_before(index, pegs), rung.phrasing)
        reply = await charged(
            self.models[rung.model],
            text,
            self.purse,
            temperature=rung.temperature(number),
            seed=self.seed + number,
            max_tokens=self.max_tokens,
        )
        if reply.finish == "length":
            return RedFlag(LENGTH)
        answer = read_answer(reply.text, self.towers.disks, pegs)
        if isinstance(answer, RedFlag):
            return answer
        return self.towers.key(state, answer[0][1], answer[0][2])

    def _move_before(self, index: int, pegs: Sequence[Sequence[int]]) -> Move | None:
        before = self.previous(index)
        return None if before is None else (pegs[before & 3][-1], before >> 2, before & 3)
