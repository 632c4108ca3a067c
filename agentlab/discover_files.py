"""What stands in a run's folder and how its end is made: names and numbers that are read without loading the loop."""

from __future__ import annotations

TRACE = "trace.jsonl"
TIMING = "timing.jsonl"

LUCKY = 32
"""Candidates that are judged on shuffled targets, to show what luck alone would give."""

FINALISTS = 24
"""Candidates that are judged again with many starts and more cuts before one is believed."""

CLEAR = 1.0
"""Nats by which a program must beat the formula that is believed, to be believed in its place."""
