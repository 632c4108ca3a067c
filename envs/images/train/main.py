"""Trains one byte-level language model: a JSON config in (path argument or standard input), JSON lines out.

Lines, told apart by "event": start, resume, progress, segment, validation, diverged, done, error. The FLOP convention
stands in train_plan.py and is repeated in the start line. A run is resumed from the checkpoint in its `out` folder, bit
for bit on the same machine with the same thread count; only `seconds` and `tokens_per_second` may differ. A config that
cannot be run gives one error line and exit code 2; a diverged run is a result, with exit code 0. `--plan` prints the
cost of the config and runs nothing. `--segment` stops after the next segment, whose checkpoint is read back, and adds a
line "answer": the digest of the whole state, figures, and the sha256 of every file that is left.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from train_lines import emit
from train_plan import CONVENTION, Config, ConfigError, parse, plan


def read(path: str | None) -> Config:
    """The config in that file, or on standard input."""
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8") if path else sys.stdin.read())
    except OSError as error:
        raise ConfigError(str(error), "config", "give the path of a JSON file") from error
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", "config", 'write {"d_model": 64, ...}') from error
    return parse(raw)


def main(arguments: list[str]) -> int:
    """Exit code: 0 trained or planned, 2 bad config or checkpoint."""
    path = next((a for a in arguments if not a.startswith("--")), None)
    try:
        config = read(path)
        if "--plan" in arguments:
            emit("plan", **asdict(plan(config)), convention=CONVENTION)
        else:
            from train_run import train  # noqa: PLC0415 - imports torch, which a plan has no need of

            train(config, one_segment="--segment" in arguments)
    except ConfigError as error:
        emit("error", what=error.what, where=error.where, instead=error.instead)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
