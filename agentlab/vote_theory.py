"""What voting does in theory: reliability of a whole job, the k it needs, votes, waves and cost of a step.

Every draw is right with probability p, and wrong ones agree with one another: the worst case. The margin of the right
answer is then a random walk that ends at k or -k (gambler's ruin). Formulas of MAKER (arXiv 2511.09030, equations 9 to
18), written so that they hold for 1e14 steps: powers are taken in logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agentlab.vote import VoteError

Floats = NDArray[np.float64]

MANY = 200
"""A k so large that only steps which are more often wrong than right go wrong."""


def log_odds(p: float) -> float:
    """ln(p / (1 - p)), infinite at 0 and 1. Raises VoteError for anything that is no probability."""
    if not 0 <= p <= 1:
        raise VoteError(f"p={p}: a probability lies between 0 and 1")
    if p in (0, 1):
        return math.inf if p else -math.inf
    return math.log(p) - math.log1p(-p)


def p_step(p: float, k: int) -> float:
    """Probability that a step is decided rightly: 1 / (1 + ((1 - p) / p)^k)."""
    return math.exp(-_log_miss(p, k))


def p_full(p: float, k: int, s: float) -> float:
    """Probability that all s steps are decided rightly: (1 + ((1 - p) / p)^k)^-s."""
    return math.exp(-s * _log_miss(p, k))


def _log_miss(p: float, k: int) -> float:
    """-ln p_step = ln(1 + exp(-k ln(p / (1 - p))))."""
    _check(k)
    return _softplus(-k * log_odds(p))


def _check(k: int) -> None:
    if k < 1:
        raise VoteError(f"k={k}: the elected answer must lead by at least 1 vote")


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def k_min(p: float, t: float, s: float) -> int:
    """The least k with p_full >= t: ceil(ln(t^(-1/s) - 1) / ln((1 - p) / p)).

    Raises:
        VoteError: p is not above one half, where every vote more makes it worse, or t is not between 0 and 1.
    """
    if not 0 < t < 1:
        raise VoteError(f"t={t}: the reliability to reach lies between 0 and 1")
    if not s > 0:
        raise VoteError(f"s={s}: a job has a step or more")
    if not p > 0.5:
        raise VoteError(f"p={p:g} is not above 1/2: a larger k makes it worse; ask in other words, or another model")
    # ln(1 + r^k) <= -ln(t) / s; the quotient is 0 or less where one draw is already good enough
    return max(1, math.ceil(math.log(math.expm1(-math.log(t) / s)) / -log_odds(p)))


def votes_per_step(p: float, k: int) -> float:
    """Expected votes of a step: k (2 p_step - 1) / (2 p - 1), and k^2 at p = 1/2."""
    _check(k)
    half = log_odds(p) / 2
    if math.isinf(half):
        return float(k)
    # 2 p - 1 = tanh(half), 2 p_step - 1 = tanh(k half): no difference of nearly equal numbers
    return k * math.tanh(k * half) / math.tanh(half) if half else float(k * k)


def waves_per_step(p: float, k: int, v: float = 1.0) -> float:
    """Expected deficit waves of a step, where a share v of the draws is unflagged.

    From a margin of x the next wave has n = k - |x| draws, a trinomial of right, wrong and flagged ones; the expected
    waves solve the linear system of that chain, whose 2k - 1 states are the margins short of a decision.
    """
    if not 0 < v <= 1:
        raise VoteError(f"v={v}: the share of unflagged draws lies above 0 and up to 1")
    _check(k)
    log_odds(p)
    margins = range(1 - k, k)
    system = np.eye(len(margins))
    for row, x in enumerate(margins):
        for shift, share in enumerate(_steps_of(k - abs(x), p * v, (1 - p) * v), start=abs(x) - k):
            if -k < x + shift < k:
                system[row, x + shift + k - 1] -= share
    return float(np.linalg.solve(system, np.ones(len(margins)))[k - 1])


def _steps_of(n: int, up: float, down: float) -> Floats:
    """Probabilities of a shift of -n .. n in n draws, each up, down or neither."""
    found: Floats = np.ones(1)
    for _ in range(n):
        found = np.convolve(found, [down, 1 - up - down, up])
    return found


def p_dissent(p: float, k: int) -> float:
    """Probability that the first k votes are not unanimous."""
    _check(k)
    if math.isinf(log_odds(p)):
        return 0.0
    return -math.expm1(k * math.log(p)) - (1 - p) ** k


def cost(p: float, k: int, s: float, c: float = 1.0, v: float = 1.0) -> float:
    """Expected cost of s steps at a price c a draw, a share v of the draws being unflagged: c s votes / v."""
    if not 0 < v <= 1:
        raise VoteError(f"v={v}: the share of unflagged draws lies above 0 and up to 1")
    return c * s * votes_per_step(p, k) / v


def p_step_correlated(p: float, k: int, rho: float) -> float:
    """p_step where steps differ in difficulty: a step's own p is Beta with mean p and intraclass correlation rho."""
    return 1 - _miss_correlated(p, k, rho)


def p_full_correlated(p: float, k: int, s: float, rho: float) -> float:
    """p_full where steps differ in difficulty, with the intraclass correlation rho of the draws of one step."""
    miss = _miss_correlated(p, k, rho)
    return math.exp(s * math.log1p(-miss)) if miss < 1 else 0.0


def steps_reached(p: float, k: int, t: float, rho: float = 0.0) -> float:
    """The number of steps that are all right with probability t."""
    miss = _miss_correlated(p, k, rho)
    if miss >= 1:
        return 0.0
    return math.log(t) / math.log1p(-miss) if miss else math.inf


def votes_correlated(p: float, k: int, rho: float) -> float:
    """votes_per_step where steps differ in difficulty."""
    if _independent(p, rho):
        return votes_per_step(p, k)

    def votes(y: Floats) -> Floats:
        half = np.where(abs(y) < 1e-9, 1e-9, y) / 2
        found: Floats = k * np.tanh(k * half) / np.tanh(half)
        return found

    return _beta_mean(votes, p, k, rho)


def dissent_correlated(p: float, k: int, rho: float) -> float:
    """p_dissent where steps differ in difficulty."""
    if _independent(p, rho):
        return p_dissent(p, k)
    return _beta_mean(lambda y: 1 - np.exp(-k * np.logaddexp(0, -y)) - np.exp(-k * np.logaddexp(0, y)), p, k, rho)


def _miss_correlated(p: float, k: int, rho: float) -> float:
    """1 - p_step, over the difficulties of steps."""
    if _independent(p, rho):
        odds = k * log_odds(p)
        return math.exp(-_softplus(odds)) if odds > -math.inf else 1.0
    return min(1.0, _beta_mean(lambda y: np.exp(-np.logaddexp(0, k * y)), p, k, rho))


def _independent(p: float, rho: float) -> bool:
    """Whether errors within a step can be taken as independent. Raises VoteError for a rho that is no correlation."""
    if not 0 <= rho < 1:
        raise VoteError(f"rho={rho}: an intraclass correlation lies from 0 to below 1")
    return rho < 1e-12 or math.isinf(log_odds(p))


def _beta_mean(f: Callable[[Floats], Floats], p: float, k: int, rho: float) -> float:
    """The mean of f(ln(x / (1 - x))) over x from a Beta((1 / rho - 1) p, (1 / rho - 1) (1 - p)).

    In y = ln(x / (1 - x)) the integrand is analytic and falls off exponentially at both ends, where the trapezoidal
    rule converges exponentially; y = middle + width sinh(t) keeps the points few where a tail is long. The step
    resolves the nearest pole, at i pi / k, and the weights are normalised by their own sum, so that no large numbers
    cancel.
    """
    a, b = (1 / rho - 1) * p, (1 / rho - 1) * (1 - p)
    width, middle = math.sqrt(1 / a + 1 / b), log_odds(p)
    low, high = k * width**2 + 10 * width + 45 / a, 10 * width + 45 / b
    step = min(0.1, 0.4 / (k * max(width, abs(middle))))
    t = np.arange(-math.asinh(low / width), math.asinh(high / width), step)
    y = middle + width * np.sinh(t)
    log = -a * np.logaddexp(0, -y) - b * np.logaddexp(0, y) + np.log(np.cosh(t))
    weight = np.exp(log - log.max())
    return float((weight * f(y)).sum() / weight.sum())


def warning(p: float, k: int, s: float, t: float, rho: float) -> str:
    """One sentence where correlated errors make k too small for t: "" where it is enough all the same.

    Some steps are then more often wrong than right, and for them every larger k is worse; they bound what any k holds.
    """
    if rho <= 0 or steps_reached(p, k, t, rho) >= s:
        return ""
    bound = steps_reached(p, MANY, t, rho)
    ends = f"no k holds it for more than {bound:,.0f}" if bound < s else "a larger k alone is no cure for hard ones"
    return (
        f"errors within a step are correlated ({rho:.2g}): k={k} holds {t:.0%} for {steps_reached(p, k, t, rho):,.0f} "
        f"steps, not for the {steps_reached(p, k, t):,.0f} that independent errors would allow, and {ends}; escalate "
        "what is not unanimous"
    )
