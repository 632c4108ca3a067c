"""The program behind the fixture's jobs: `python fixture_job.py KIND CONFIG` in a job's folder."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def write(name: str, value: object) -> None:
    Path(name + ".part").write_text(json.dumps(value))
    Path(name + ".part").replace(name)


def ask(*keys: str) -> dict[str, Any]:
    """Put questions, wait for all the answers."""
    schema = {"type": "object", "properties": {"confirm": {"type": "boolean"}}}
    params = {"message": "Go on?", "mode": "form", "requestedSchema": schema}
    write("asks.json", {key: {"method": "elicitation/create", "params": params} for key in keys})
    files = {key: Path("answers", f"{key}.json") for key in keys}
    end = time.monotonic() + 300  # nobody may ever answer
    while not all(file.exists() for file in files.values()):
        if time.monotonic() > end:
            sys.exit("no answer came")
        time.sleep(0.02)
    return {key: json.loads(file.read_text()) for key, file in files.items()}


def main() -> None:
    """Do what the kind says."""
    kind, config = sys.argv[1], json.loads(sys.argv[2])
    sys.stdout.write(json.dumps({"event": "start"}) + "\n")
    sys.stdout.flush()
    match kind:
        case "slow_compute":
            time.sleep(config["seconds"])
            write("result.json", {"done": config["label"]})
        case "failing_job":
            time.sleep(0.2)
            sys.exit("this job fails, as it should")
        case "protocol_error_job":
            os.kill(os.getpid(), signal.SIGKILL)
        case "confirm_delete":
            write("result.json", ask("confirm"))
        case "multi_input":
            write("result.json", ask("first", "second"))
        case "test_tool_with_task":
            write("result.json", {"name": config["name"]})
        case _:
            sys.exit(f"no job of kind {kind}")


if __name__ == "__main__":
    main()
