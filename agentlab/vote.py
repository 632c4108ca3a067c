"""One micro-step decided by repeated draws: the first answer that leads every other by k votes is taken.

First-to-ahead-by-k voting with red flags as in MAKER (arXiv 2511.09030, sections 3.2 and 3.3), over canonical keys and
in deficit waves: a wave draws what a decision still lacks at least, k minus the lead, so it decides as draws one by one
would, with the same number of calls. An answer with a red flag is discarded and drawn again, never repaired. Where the
draws end without a decision the next rung of a ladder asks otherwise, and after the last one the outcome is Undecided.

`vote_theory.py` has the formulas, `vote_measure.py` chooses k from what the votes show, `vote_flags.py` flags texts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from agentlab.errors import AgentlabError

__all__ = [
    "LADDER",
    "Answer",
    "Decision",
    "RedFlag",
    "Rules",
    "Rung",
    "Tally",
    "Undecided",
    "VoteError",
    "Wave",
    "first_ahead",
    "first_ahead_async",
]


class VoteError(AgentlabError):
    """A vote that cannot be held as asked."""


@dataclass(frozen=True, slots=True)
class RedFlag:
    """An answer that is not counted, and why: "length", "format", "range", "repetition" or a word of the asker's."""

    reason: str


Answer: TypeAlias = Hashable
"""What a draw returns: the canonical key of an answer, or a RedFlag."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to ask: which phrasing, which model, and the temperatures of draw 0, 1, ..; the last one repeats.

    The first draw is greedy and later ones are not (MAKER, appendix C), so that draws of one rung differ at all.
    """

    name: str = "base"
    phrasing: int = 0
    model: int = 0
    temperatures: tuple[float, ...] = (0.0, 0.1)

    def temperature(self, number: int) -> float:
        """The temperature of draw `number`, counted from 0."""
        return self.temperatures[min(number, len(self.temperatures) - 1)]


LADDER = (Rung(), Rung("paraphrase", phrasing=1), Rung("second model", phrasing=1, model=1))
"""Ask, ask in other words, ask another model; then it is undecided."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of a vote and what follows a vote without a decision.

    `most_draws` and `most_flags` bound a rung: all draws, and the discarded ones. With `escalate="dissent"` a tally
    that is not unanimous is not believed either: the next rung asks afresh, and where no rung is unanimous the answer
    is taken only if two rungs or more elected one and all of them the same.
    """

    most_draws: int = 100
    most_flags: int = 50
    ladder: tuple[Rung, ...] = (Rung(),)
    escalate: Literal["undecided", "dissent"] = "undecided"


RULES = Rules()


# The next five are not frozen: a frozen one takes six times as long to make, and they are made at every vote.
@dataclass(slots=True)
class Wave:
    """Draws that are asked for together: numbers `number` to `number + count - 1` of a rung."""

    rung: Rung
    number: int
    count: int

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperature of each draw, in order."""
        return tuple(self.rung.temperature(self.number + i) for i in range(self.count))


@dataclass(slots=True)
class Tally:
    """The votes of one rung: by key, and discarded draws by reason; `opening` are the votes of the first wave alone."""

    rung: str
    votes: Mapping[Hashable, int]
    flags: Mapping[str, int]
    draws: int
    waves: int
    opening: Mapping[Hashable, int]

    @property
    def lead(self) -> int:
        """Votes by which the first is ahead of the second."""
        return _lead(self.votes)

    @property
    def leader(self) -> Hashable:
        """The key with the most votes, the earliest of equals; None without a vote."""
        return max(self.votes, key=self.votes.__getitem__, default=None)

    @property
    def unanimous(self) -> bool:
        """Whether all votes are for one key; flagged draws are no votes."""
        return len(self.votes) == 1


@dataclass(slots=True)
class _Held:
    """What every outcome of a vote tells of how it came about."""

    tallies: tuple[Tally, ...]

    @property
    def draws(self) -> int:
        """Answers drawn on all rungs, discarded ones included: the calls that were paid."""
        return sum(t.draws for t in self.tallies)

    @property
    def waves(self) -> int:
        """Waves on all rungs: how often somebody waited."""
        return sum(t.waves for t in self.tallies)

    @property
    def flags(self) -> dict[str, int]:
        """Discarded draws on all rungs by reason."""
        total: dict[str, int] = {}
        for tally in self.tallies:
            for reason, count in tally.flags.items():
                total[reason] = total.get(reason, 0) + count
        return total

    @property
    def escalated(self) -> int:
        """How many rungs above the first were asked."""
        return len(self.tallies) - 1

    @property
    def unanimous(self) -> bool:
        """Whether the last rung spoke with one voice."""
        return self.tallies[-1].unanimous


@dataclass(slots=True)
class Decision(_Held):
    """The key that was elected, and the tallies of the rungs that were asked, in order."""

    key: Hashable = field(kw_only=True)


@dataclass(slots=True)
class Undecided(_Held):
    """No key was elected: the tallies, and why in words. An outcome of its own, never a plurality in silence."""

    reason: str = field(kw_only=True)


Outcome: TypeAlias = Decision | Undecided
Ballot: TypeAlias = Generator[Wave | Outcome, Sequence[Answer], None]
"""A vote under way: it yields waves, is sent their answers, and yields the outcome last."""


def first_ahead(draw: Callable[[Wave], Sequence[Answer]], k: int, rules: Rules = RULES) -> Outcome:
    """Draw until a key leads every other by k votes.

    Args:
        draw: Returns the `count` answers of a wave, in order.
        k: Votes that the elected key must be ahead; at least 1.
        rules: Limits, ladder, and whether dissent escalates.

    Raises:
        VoteError: k, the rules, or the number of answers of a wave make no sense.
    """
    check(k, rules)
    ballot = held(k, rules)
    item = next(ballot)
    while isinstance(item, Wave):
        item = ballot.send(draw(item))
    return item


async def first_ahead_async(
    draw: Callable[[Wave], Awaitable[Sequence[Answer]]], k: int, rules: Rules = RULES
) -> Outcome:
    """The same for answers that are waited for; the answers of a wave may be drawn side by side."""
    check(k, rules)
    ballot = held(k, rules)
    item = next(ballot)
    while isinstance(item, Wave):
        item = ballot.send(await draw(item))
    return item


def check(k: int, rules: Rules) -> None:
    """Raise VoteError for a vote that could not be held."""
    if k < 1:
        raise VoteError(f"k={k}: the elected answer must lead by at least 1 vote")
    if not rules.ladder or rules.most_draws < k or rules.most_flags < 1:
        raise VoteError(
            f"rules: {len(rules.ladder)} rungs, most_draws={rules.most_draws}, most_flags={rules.most_flags}; a vote "
            f"needs a rung, most_draws of at least k={k}, and most_flags of 1 or more"
        )


def held(k: int, rules: Rules) -> Ballot:
    """The vote itself, for k and rules that `check` lets pass; the drivers above feed it."""
    tallies: list[Tally] = []
    for rung in rules.ladder:
        votes: dict[Hashable, int] = {}
        flags: dict[str, int] = {}
        opening: dict[Hashable, int] = {}
        draws = waves = flagged = lead = 0
        while lead < k and draws < rules.most_draws and flagged < rules.most_flags:
            # Not one draw more than those that one-by-one drawing could not have done without either.
            count = min(k - lead, rules.most_draws - draws, rules.most_flags - flagged)
            answers = yield Wave(rung, draws, count)
            if len(answers) != count:
                raise VoteError(f"draw: {len(answers)} answers to a wave of {count}; return one answer or RedFlag each")
            for answer in answers:
                if isinstance(answer, RedFlag):
                    flags[answer.reason] = flags.get(answer.reason, 0) + 1
                    flagged += 1
                else:
                    votes[answer] = votes.get(answer, 0) + 1
            draws += count
            waves += 1
            lead = _lead(votes)
            if waves == 1:
                opening = dict(votes)
        tally = Tally(rung.name, votes, flags, draws, waves, opening)
        tallies.append(tally)
        if lead >= k and (len(votes) == 1 or rules.escalate == "undecided"):
            yield Decision(tuple(tallies), key=tally.leader)
            return
    yield _at_the_end(tallies, k, rules)


def _at_the_end(tallies: Sequence[Tally], k: int, rules: Rules) -> Outcome:
    """What a ladder comes to whose rungs are all asked and none of them believed alone."""
    elected = [t.leader for t in tallies if t.lead >= k]
    if len(elected) > 1 and len(set(elected)) == 1:
        return Decision(tuple(tallies), key=elected[0])
    return Undecided(tuple(tallies), reason=_why(tallies, elected, k, rules))


def _lead(votes: Mapping[Hashable, int]) -> int:
    first = second = 0
    for count in votes.values():
        if count > first:
            first, second = count, first
        elif count > second:
            second = count
    return first - second


def _why(tallies: Sequence[Tally], elected: Sequence[Hashable], k: int, rules: Rules) -> str:
    if len(set(elected)) > 1:
        return "the rungs elected different answers"
    if elected:
        return "the votes were not unanimous and no second rung elected the same answer"
    last = tallies[-1]
    if sum(last.flags.values()) >= rules.most_flags:
        worst = max(last.flags, key=last.flags.__getitem__)
        return f"{sum(last.flags.values())} answers were discarded, most for {worst}"
    return f"no answer led by {k} after {last.draws} draws"
