"""Trains one byte-level language model: a JSON config in (path argument or standard input), JSON lines out.

Lines, told apart by "event": start, resume, progress, segment, validation, diverged, done, error. The FLOP convention
stands in train_plan.py and is repeated in the start line. A run is resumed from the checkpoint in its `out` folder, bit
for bit on the same machine with the same thread count; only `seconds` and `tokens_per_second` may differ. A config that
cannot be run gives one error line and exit code 2; a diverged run is a result, with exit code 0. `--plan` prints the
cost of the config and runs nothing. `--segment` stops after the next segment, whose checkpoint is read back, and adds a
line "answer": the digest of the whole state, figures, and the sha256 of every file that is left.

A config with a list `runs` trains several models of one shape at once: each entry says what its run has of its own, as
seed and lr; run i leaves its files in out/i, and its lines carry "run": i.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from train_lines import emit
from train_plan import CONVENTION, Config, ConfigError, parse, parse_runs, plan


def read(path: str | None) -> list[Config]:
    """The config in that file, or on standard input; those of its runs where it lists `runs`."""
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8") if path else sys.stdin.read())
    except OSError as error:
        raise ConfigError(str(error), "config", "give the path of a JSON file") from error
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", "config", 'write {"d_model": 64, ...}') from error
    return parse_runs(raw) if isinstance(raw, dict) and "runs" in raw else [parse(raw)]


def run(configs: list[Config], *, one_segment: bool) -> None:
    """Trains them; imports torch here, which a plan has no need of."""
    if len(configs) == 1:
        from train_run import train  # noqa: PLC0415

        train(configs[0], one_segment=one_segment)
        return
    from train_packed import train_packed  # noqa: PLC0415

    if one_segment:
        raise ConfigError("segments of packed runs are not voted on", "runs", "train each as a run of its own")
    train_packed(configs)


def main(arguments: list[str]) -> int:
    """Exit code: 0 trained or planned, 2 bad config or checkpoint."""
    path = next((a for a in arguments if not a.startswith("--")), None)
    try:
        configs = read(path)
        if "--plan" in arguments:
            several = {"runs": len(configs)} if len(configs) > 1 else {}
            emit("plan", **several, **asdict(plan(configs[0])), convention=CONVENTION)
        else:
            run(configs, one_segment="--segment" in arguments)
    except ConfigError as error:
        emit("error", what=error.what, where=error.where, instead=error.instead)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
