"""When a model may be asked again: pauses that grow, pauses that a server asks for, and a limit on calls a minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MINUTE = 60.0
"""Seconds."""

FIRST, LONGEST, SPREAD = 0.5, 8.0, 0.25
"""Seconds of the first and the longest pause, and the share of it that callers side by side are spread over."""

_GOLDEN = 0.6180339887498949


def pause(tries: int, seed: int) -> float:
    """Seconds to wait after so many tries that failed; `seed`, another one for every call, spreads the callers."""
    return float(min(FIRST * 2.0 ** min(tries - 1, 16), LONGEST) * (1 - SPREAD * (seed % 2**32 * _GOLDEN % 1.0)))


def pause_asked(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that the headers of a refusal ask to wait, which may be as many as they like; None where they do not."""
    for name, share in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * share
        except (KeyError, ValueError):
            continue
        return seconds if seconds >= 0 else None
    try:
        until = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    left = (until.replace(tzinfo=until.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return left if left >= 0 else None


class Pace:
    """So many starts a minute at most, any number where it is None; times are seconds of one clock."""

    def __init__(self, per_minute: int | None) -> None:
        self._starts: deque[float] = deque(maxlen=per_minute)
        self._per_minute = per_minute

    def wait(self, now: float) -> float:
        """Seconds until the next start is allowed."""
        full = self._per_minute is not None and len(self._starts) == self._per_minute
        return max(0.0, self._starts[0] + MINUTE - now) if full else 0.0

    def start(self, now: float) -> float:
        """Take the next start that is allowed; seconds until then."""
        wait = self.wait(now)
        if self._per_minute is not None:
            self._starts.append(now + wait)
        return wait
