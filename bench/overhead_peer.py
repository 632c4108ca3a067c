"""OpenEvolve against an instant model, for bench/overhead.py: `PYTHON bench/overhead_peer.py URL CANDIDATES WORKERS`.

Runs under the interpreter that OpenEvolve is installed for and imports nothing of agentlab. Its defaults stand, but for
what would wait or write without need: whole rewrites, an evaluator that answers at once, no cascade, quiet logs, no
checkpoint before the end. Prints a line of JSON: its version, and the seconds at which candidates were evaluated.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path

# The lines of openevolve's own API are imported inside, so that this file can be read where it is not installed.
EVALUATOR = """
import os, time

def evaluate(path):
    with open({marks!r}, "a") as file:
        file.write(f"{{time.monotonic()}}\\n")
    return {{"combined_score": float(sum(open(path, "rb").read()) % 997)}}
"""
FIRST = "# EVOLVE-BLOCK-START\ndef law(n):\n    return n\n# EVOLVE-BLOCK-END\n"


def main() -> None:
    """Run once."""
    url, candidates, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    from openevolve import run_evolution  # type: ignore[import-not-found] # noqa: PLC0415 - as above
    from openevolve.config import Config, LLMModelConfig  # type: ignore[import-not-found] # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name:
        marks = Path(name) / "marks"
        config = Config(max_iterations=candidates, checkpoint_interval=10 * candidates, log_level="ERROR")
        config.llm.models = [LLMModelConfig(name="instant", api_base=url, api_key="EMPTY", timeout=60, retries=0)]
        config.llm.evaluator_models = config.llm.models
        config.diff_based_evolution = False
        config.evaluator.cascade_evaluation = False
        config.evaluator.parallel_evaluations = workers
        config.database.log_prompts = False
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123 - no path to tell
            run_evolution(
                FIRST, EVALUATOR.format(marks=str(marks)), config=config, iterations=candidates,
                output_dir=str(Path(name) / "out"),
            )  # fmt: skip
        seconds = sorted(float(line) for line in marks.read_text().split())
    print(json.dumps({"version": importlib.metadata.version("openevolve"), "marks": seconds}))


if __name__ == "__main__":
    main()
