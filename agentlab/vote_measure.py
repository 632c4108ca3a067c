"""k from what the votes show: a lower confidence bound on p, and how far the draws of one step are correlated."""

from __future__ import annotations

import math

from agentlab.vote import Outcome, VoteError
from agentlab.vote_theory import k_min, warning


def lower_bound(right: float, n: float, delta: float) -> float:
    """A p that is too high with probability delta at most, from a sum `right` of n numbers in 0..1: Chernoff's bound.

    The p below right / n with n KL(right / n || p) = ln(1 / delta); without an error it is delta^(1 / n), which is
    exact for draws (Clopper and Pearson). It holds for every n, unlike normal approximations near p = 1.
    """
    if n <= 0:
        return 0.0
    share, limit = right / n, -math.log(delta) / n
    low, high = 0.0, share
    for _ in range(60):
        middle = (low + high) / 2
        if middle <= 0 or _divergence(share, middle) > limit:
            low = middle
        else:
            high = middle
    return low


def _divergence(a: float, b: float) -> float:
    left = a * math.log(a / b) if a else 0.0
    return left + ((1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0)


def _poisson_low(count: int, delta: float) -> float:
    """A mean that is too high with probability delta at most, given a Poisson count: Chernoff's bound, inverted."""
    low, high = 0.0, float(count)
    for _ in range(60):
        middle = (low + high) / 2
        if middle <= 0 or middle - count + count * math.log(count / middle) > -math.log(delta):
            low = middle
        else:
            high = middle
    return low


class Reliability:
    """Chooses k for a job of `steps` steps that shall be all right with probability `target`; chains may share one.

    Only the first wave of a step counts, draws that are taken whatever they say, so that stopping early biases nothing;
    the answer that was elected in the end stands for the right one, so a step whose wrong answers all agree is not
    seen. A step gives one number, its share of right draws, and the bound on p is Chernoff's for the mean of such
    numbers (Hoeffding 1963, theorem 1): it holds however the draws of one step are correlated. It is looked at when
    the number of steps has doubled, with a share of `doubt` for look j of 1 / (j (j + 1)), so that all looks together
    fail with probability `doubt` at most. k is `start` until `first` steps are seen, and `most` at most.

    Raises:
        VoteError: a target or a doubt that is no probability.
    """

    def __init__(
        self, target: float, steps: float, *, start: int = 10, most: int = 20, doubt: float = 0.05, first: int = 10
    ) -> None:
        if not (0 < target < 1 and 0 < doubt < 1):
            raise VoteError(
                f"target={target:g}, doubt={doubt:g}: both are probabilities between 0 and 1, such as .95, .05"
            )
        self.target, self.steps, self.most, self.doubt = target, steps, most, doubt
        self.k = start
        self.p_low = 0.0
        self._next, self._looks = first, 0
        self._seen = self._draws = self._right = self._pairs = self._wrong_pairs = self._crowded = 0
        self._shares = 0.0

    @property
    def room(self) -> int:
        """Steps until k is looked at again."""
        return self._next - self._seen

    @property
    def p(self) -> float:
        """The share of opening draws that were for the elected answer."""
        return self._right / self._draws if self._draws else 0.0

    @property
    def rho(self) -> float:
        """The intraclass correlation of right and wrong: pairs of opening draws that are both wrong, beyond chance.

        With q = 1 - p, P(both wrong) = q^2 + rho p q (beta-binomial); 0 while there is no error, and never below.
        """
        return self._rho(self._wrong_pairs)

    @property
    def rho_low(self) -> float:
        """A rho too high with probability `doubt` at most; steps with pairs of wrong draws are rare, hence Poisson."""
        return self._rho(self._wrong_pairs * _poisson_low(self._crowded, self.doubt) / max(1, self._crowded))

    def _rho(self, wrong_pairs: float) -> float:
        q = 1 - self.p
        if not self._pairs or not 0 < q < 1:
            return 0.0
        return min(1.0, max(0.0, (wrong_pairs / self._pairs - q * q) / (self.p * q)))

    @property
    def warning(self) -> str:
        """One sentence where errors are correlated beyond doubt and k does not reach the target for it, else ""."""
        return warning(self.p, self.k, self.steps, self.target, min(self.rho_low, 0.999)) if self.p > 0 else ""

    def unanimous(self, steps: int, k: int) -> None:
        """Count steps whose first k votes all agreed; `room` of them at most, so that no look comes late."""
        self._seen += steps
        self._shares += steps
        self._draws += k * steps
        self._right += k * steps
        self._pairs += steps * k * (k - 1) // 2
        self._look()

    def note(self, outcome: Outcome) -> None:
        """Count one step by the first wave of its first rung, against what was elected or, undecided, led there."""
        tally = outcome.tallies[0]
        draws = sum(tally.opening.values())
        key = getattr(outcome, "key", tally.leader)
        right = tally.opening.get(key, 0)
        wrong = draws - right
        self._seen += 1
        self._shares += right / draws if draws else 1.0  # all flagged: nothing was said, right or wrong
        self._draws += draws
        self._right += right
        self._pairs += draws * (draws - 1) // 2
        self._wrong_pairs += wrong * (wrong - 1) // 2
        self._crowded += wrong > 1
        self._look()

    def _look(self) -> None:
        if self._seen < self._next:
            return
        self._next = 2 * self._seen
        self._looks += 1
        delta = self.doubt / (self._looks * (self._looks + 1))
        self.p_low = lower_bound(self._shares, self._seen, delta)
        # At one half or below no k is enough: the most there is, and the tallies that are not clean go up the ladder.
        self.k = min(self.most, k_min(self.p_low, self.target, self.steps)) if self.p_low > 0.5 else self.most
