"""The JSON lines that the trainer's programs write on standard output."""

import json
import math
import sys


def emit(event: str, **values: object) -> None:
    """One JSON line; a number that is not finite becomes null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    sys.stdout.write(json.dumps({"event": event, **clean}) + "\n")
    sys.stdout.flush()
