"""Decisions of the discovery loop by a chat model, each one voted: asked in waves, counted against a budget, recorded.

question = choose_parents(archive.top(8), 2)
outcome = await decide(question, [chat], 3, rules, purse, seed, receipts)
trace.append([decision_record(question, outcome, receipts)])
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from agentlab.budget import Cost, Price, Purse, cost_of
from agentlab.budget_call import charged, worst_call
from agentlab.decisions_kinds import FAILURES, check_constraint, choose_parents, name_failure, pick_run, read_log
from agentlab.decisions_question import DecisionError, Key, Kind, Label, Option, Question
from agentlab.decisions_record import Receipt, decision_record, read_decision
from agentlab.errors import BackendError
from agentlab.ledger import BrokenBoundError, OverBudgetError
from agentlab.models import LostReplyError, Model
from agentlab.vote import Answer, Decision, Outcome, RedFlag, Rules, Rung, Tally, Undecided, Wave, first_ahead_async
from agentlab.vote_flags import LENGTH

__all__ = [
    "FAILURES",
    "NOTHING",
    "OUT_OF",
    "SPENT",
    "DecisionError",
    "Key",
    "Kind",
    "Label",
    "Option",
    "Question",
    "Receipt",
    "check_constraint",
    "choose_parents",
    "decide",
    "decision_record",
    "name_failure",
    "pick_run",
    "read_decision",
    "read_log",
]

NOTHING = "there is nothing to choose from"
SPENT = "the token budget is spent"
"""The reasons of an Undecided for which nobody need be asked, or nobody can be."""

OUT_OF = {"tokens": SPENT, "USD": "the money budget is spent", "seconds": "the time budget is spent"}
"""The reason of an Undecided by the unit of the cap that left no room for a call."""


async def decide(  # noqa: PLR0913, PLR0917 - what is asked, of whom, by which rules, at what cost
    question: Question,
    models: Sequence[Model],
    k: int,
    rules: Rules,
    purse: Purse,
    seed: int,
    receipts: list[Receipt] | None = None,
    prices: Sequence[Price | None] = (),
    before: Callable[[Cost], None] = lambda _: None,
) -> Outcome:
    """Ask until an answer leads by k votes; nobody is asked where no more than one answer is possible.

    The calls of a wave are made side by side, each after its worst case (a bound on the prompt's tokens, and the
    longest reply) was set aside. Where that no longer fits, the outcome is Undecided for one of the reasons `OUT_OF`,
    with the votes there were. Calls that failed cost nothing, calls whose reply was lost or not waited for count as the
    worst case.

    Args:
        question: What is asked.
        models: The rungs of the rules number them from 0.
        k: Votes that the elected key must be ahead.
        rules: Limits and the ladder: its rungs name a phrasing, a model and temperatures.
        purse: The caps; many decisions may share them.
        seed: Of the order of the options and of the seeds that are sent to the models.
        receipts: Where to add the receipt of each call.
        prices: What each of the models costs; none need be known where money has no cap.
        before: Told the worst case of each wave before any of its calls goes out.

    Raises:
        BackendError: a model cannot be asked, once the other calls of the wave have ended.
        DecisionError: a rung names a phrasing or a model that is not there.
        UnpricedError: money has a cap, and the price of a model is not known.
    """
    _check(question, models, rules)
    if question.only is not None:
        return Decision((_empty(rules.ladder[0]),), key=question.only)
    if not question.options:
        return Undecided((_empty(rules.ladder[0]),), reason=NOTHING)
    known = prices or (None,) * len(models)
    pairs = list(zip(models, known, strict=True))
    asking = _Asking(question, pairs, purse, seed, [] if receipts is None else receipts, before)
    try:
        return await first_ahead_async(asking.draw, k, rules)
    except OverBudgetError as error:
        return Undecided(tuple(asking.tallies()) or (_empty(rules.ladder[0]),), reason=OUT_OF.get(error.unit, SPENT))


def _check(question: Question, models: Sequence[Model], rules: Rules) -> None:
    for rung in rules.ladder:
        if not 0 <= rung.phrasing < len(question.phrasings):
            have = len(question.phrasings)
            raise DecisionError(f"rung {rung.name!r} asks for phrasing {rung.phrasing}; {question.kind} has {have}")
        if not 0 <= rung.model < len(models):
            raise DecisionError(f"rung {rung.name!r} asks for model {rung.model}; {len(models)} are given")


def _empty(rung: Rung) -> Tally:
    return Tally(rung.name, {}, {}, 0, 0, {})


@dataclass(frozen=True)
class _Asking:
    """One decision under way; `seen` are the waves that were paid, in order, so that a vote cut short can be told."""

    question: Question
    models: Sequence[tuple[Model, Price | None]]
    purse: Purse
    seed: int
    receipts: list[Receipt]
    before: Callable[[Cost], None]
    seen: list[tuple[Wave, list[Answer]]] = field(default_factory=list)

    async def draw(self, wave: Wave) -> Sequence[Answer]:
        """The answers of a wave in order. All calls end before one that failed is told, so that all are booked."""
        numbers = range(wave.number, wave.number + wave.count)
        self.before(sum((self._worst(wave.rung, n) for n in numbers), Cost()))
        found = await asyncio.gather(*(self._ask(wave.rung, n) for n in numbers), return_exceptions=True)
        answers = [a for a in found if not isinstance(a, BaseException)]
        if answers:
            self.seen.append((wave, answers))
        failed = [a for a in found if isinstance(a, BaseException)]
        # A model that cannot be asked is told before a budget that ran out: the latter is an outcome, not an error.
        for error in sorted(failed, key=lambda e: isinstance(e, OverBudgetError)):
            raise error
        return answers

    def _worst(self, rung: Rung, number: int) -> Cost:
        prompt = self.question.prompt(rung.phrasing, self.seed, number)
        return worst_call(prompt, self.question.max_tokens, price=self.models[rung.model][1])

    async def _ask(self, rung: Rung, number: int) -> Answer:
        question = self.question
        model, price = self.models[rung.model]
        prompt = question.prompt(rung.phrasing, self.seed, number)
        try:
            reply = await charged(
                model,
                prompt,
                self.purse,
                temperature=rung.temperature(number),
                seed=question.call_seed(rung.name, self.seed, number),
                max_tokens=question.max_tokens,
                price=price,
            )
        except LostReplyError:
            worst = worst_call(prompt, question.max_tokens, price=price)
            self.receipts.append(Receipt(worst.tokens_in, worst.tokens_out, worst.nanos))
            raise
        except BrokenBoundError as error:
            # No outcome of a budget: the server does not keep to max_tokens, and no cap holds with it.
            what = f"a model's server counts more than was asked of it: {error}; ask another server"
            raise BackendError(what) from None
        self.receipts.append(Receipt(reply.tokens_in, reply.tokens_out, cost_of(reply, price).nanos))
        return RedFlag(LENGTH) if reply.finish == "length" else question.read(reply.text)

    def tallies(self) -> list[Tally]:
        """What was asked so far, rung by rung."""
        by_rung: dict[str, list[list[Answer]]] = {}
        for wave, answers in self.seen:
            by_rung.setdefault(wave.rung.name, []).append(answers)
        return [_tally(name, waves) for name, waves in by_rung.items()]


def _tally(rung: str, waves: Sequence[Sequence[Answer]]) -> Tally:
    answers = [a for wave in waves for a in wave]
    flags = Counter(a.reason for a in answers if isinstance(a, RedFlag))
    return Tally(rung, _votes(answers), dict(flags), len(answers), len(waves), _votes(waves[0]))


def _votes(answers: Sequence[Answer]) -> dict[Hashable, int]:
    return dict(Counter(a for a in answers if not isinstance(a, RedFlag)))
