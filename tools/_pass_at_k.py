"""pass@k: the chance that at least one of k samples passes, estimated without bias from n samples a problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from statistics import fmean, stdev


@dataclass(frozen=True)
class PassRate:
    """Mean over problems, and its standard error over problems: None for a single problem, which shows no spread."""

    k: int
    mean: float
    standard_error: float | None


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k) for c passes among n samples (arXiv 2107.03374, equation 1).

    As a product of ratios, so that no factorial grows beyond a float; k is at most n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"n {n}, c {c}, k {k}: write 0 <= c <= n and 1 <= k <= n")
    if n - c < k:
        return 1.0
    # C(n-c, k) / C(n, k) over whichever of the two equal products is shorter
    few, many = sorted((c, k))
    return 1.0 - prod((n - many - i) / (n - i) for i in range(few))


def pass_rate(counts: Sequence[tuple[int, int]], k: int) -> PassRate:
    """pass@k over problems, given (n, c) of each."""
    each = [pass_at_k(n, c, k) for n, c in counts]
    error = stdev(each) / sqrt(len(each)) if len(each) > 1 else None
    return PassRate(k, fmean(each), error)
