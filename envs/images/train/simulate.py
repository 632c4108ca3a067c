"""Plays a run whose losses are known beforehand: simulate.py RUN.json; JSON lines and result as of the real trainer.

No model is trained: every line, and the result, says "simulated": true. RUN.json has `points` (step, flops, tokens,
loss), evenly spread over `seconds`; `segment_ends` (numbers of points); `result`; and `out`, the folder of result.json.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

from train_lines import emit


def play(run: dict[str, object]) -> None:
    """Emits the points at their times, then writes the result."""
    points, ends, result = run["points"], run["segment_ends"], run["result"]
    assert isinstance(points, list)  # noqa: S101 - the server wrote the file
    assert isinstance(ends, list)  # noqa: S101
    assert isinstance(result, dict)  # noqa: S101
    began, seconds = time.monotonic(), float(str(run["seconds"]))
    emit("start", steps=points[-1]["step"], simulated=True)
    for index, point in enumerate(points, 1):
        time.sleep(max(0.0, began + seconds * index / len(points) - time.monotonic()))
        emit("progress", **point, simulated=True)
        if index in ends:
            digest = hashlib.sha256(json.dumps(points[:index]).encode()).hexdigest()
            emit("segment", segment=ends.index(index), step=point["step"], digest=digest, simulated=True)
    emit("validation", step=points[-1]["step"], valid_loss=result["valid_loss"], simulated=True)
    whole = {**result, "simulated": True, "digest": hashlib.sha256(json.dumps(run["points"]).encode()).hexdigest()}
    part = Path(str(run["out"])) / "result.json.part"
    part.write_text(json.dumps({**whole, "seconds": time.monotonic() - began}, indent=1) + "\n", encoding="utf-8")
    part.replace(part.with_suffix(""))
    emit("done", **whole)


if __name__ == "__main__":
    play(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
