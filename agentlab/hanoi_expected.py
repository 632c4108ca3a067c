"""How many calls the towers should take in theory, for a simulated model whose faults are known."""

from __future__ import annotations

from collections.abc import Mapping

from agentlab.hanoi_oracle import Faults
from agentlab.vote_theory import dissent_correlated, p_dissent, votes_correlated, votes_per_step


def expected_calls(faults: Faults, votes: Mapping[int, int], rungs: int) -> float:
    """Calls of so many votes by k, flagged draws included.

    `rungs` is the length of the ladder that a vote climbs which is not unanimous; 1 where dissent does not escalate.
    Votes on hard steps are counted in proportion, the rungs' difficulties being drawn independently.
    """
    hard = faults.hard / faults.steps if faults.steps else 0.0
    total = 0.0
    for k, count in votes.items():
        usual = _climb([(1 - faults.error, faults.correlation)], k, rungs)
        total += count * ((1 - hard) * usual + (hard * _hard(faults, k, rungs) if hard else 0.0))
    return total / faults.valid


def _climb(difficulty: list[tuple[float, float]], k: int, rungs: int) -> float:
    """Votes of one step on a ladder whose rungs have these (p, rho), the last one for all that follow."""
    votes, reached = 0.0, 1.0
    for rung in range(rungs):
        p, rho = difficulty[min(rung, len(difficulty) - 1)]
        votes += reached * votes_correlated(p, k, rho)
        reached *= dissent_correlated(p, k, rho)
    return votes


def _hard(faults: Faults, k: int, rungs: int) -> float:
    """Votes of a hard step: on each further rung it is like the others with probability `cure`."""
    p = faults.hard_p
    easy, rho = 1 - faults.error, faults.correlation
    later = faults.cure * votes_correlated(easy, k, rho) + (1 - faults.cure) * votes_per_step(p, k)
    stays = faults.cure * dissent_correlated(easy, k, rho) + (1 - faults.cure) * p_dissent(p, k)
    votes, reached = votes_per_step(p, k), p_dissent(p, k)
    for _ in range(1, rungs):
        votes += reached * later
        reached *= stays
    return votes
