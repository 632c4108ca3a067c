"""What the inference programs say: JSON lines on standard output, one result file, and errors of one line."""

import json
import math
import sys
from pathlib import Path


class InferError(ValueError):
    """A request that cannot be met: what is wrong, in which key, and what to write instead."""

    def __init__(self, what: str, where: str, instead: str) -> None:
        super().__init__(f"{where}: {what}; {instead}")
        self.what, self.where, self.instead = what, where, instead


def emit(event: str, **values: object) -> None:
    """One JSON line; a number that is not finite becomes null."""
    sys.stdout.write(json.dumps({"event": event, **_finite(values)}) + "\n")
    sys.stdout.flush()


def write_result(folder: str, result: dict[str, object]) -> None:
    """result.json in the folder, whole or not at all; nothing where no folder is given."""
    if not folder:
        return
    part = Path(folder) / "result.json.part"
    part.write_text(json.dumps(_finite(result), indent=1) + "\n", encoding="utf-8")
    part.replace(Path(folder) / "result.json")


def _finite(values: dict[str, object]) -> dict[str, object]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
