"""Whether the search finds laws that are known to be there: `python bench/planted.py [key=value ...]`.

    part=main         11 seeds x 20 families (five outside the starting grammar, apart): test R2 against the true form's
    part=recovery     3 seeds x 20 families at .5% noise, no outliers, 150 rows: is the true form itself found?
    part=chinchilla   the 16 sets of $AGENTLAB_DATA/planted_chinchilla, and pyoperon with its description length
    part=table        the tables of what is there, and bench/results/planted.json

Others: seeds=11 families=a,b candidates=600 processes=2 out=FILE operon=PYTHON (an interpreter that has pyoperon).
Every set adds one line to `out` (bench/work/planted.jsonl); a rerun does only the sets that are missing. Bars: test
R2 >= .9 in 95% of the sets where the true form reaches it; the true form found in 60% at .5% noise; 90% intervals of
the true form hold the truth in 85-95%; 15 of the 16 sets (pyoperon 11).
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planted_chinchilla import SETS, by_operon, chinchilla_case
from planted_judge import case_of, judge
from planted_tables import show

from agentlab.planted import families, family, plant

PARTS = ("main", "recovery", "chinchilla", "table")
RECOVERY_SEED = 1000
"""The first seed of the recovery sets, far from those of the main part."""
RECOVERY_ROWS = 150
GOOD_NOISE = 0.005


@dataclass(frozen=True)
class Options:
    """What to run."""

    part: str = "main"
    seeds: int = 11
    families: str = ""
    candidates: int = 600
    processes: int = 2
    out: str = "bench/work/planted.jsonl"
    operon: str = sys.executable


@dataclass(frozen=True)
class Job:
    """One set to judge."""

    part: str
    family: str
    seed: int
    candidates: int
    operon: str

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What makes two jobs the same."""
        return self.part, self.family, self.seed, self.candidates


def read_options(words: Iterable[str]) -> Options:
    """The options that the words key=value give."""
    given: dict[str, Any] = dict(word.split("=", 1) for word in words)
    for name in ("seeds", "candidates", "processes"):
        given |= {name: int(given[name])} if name in given else {}
    options = Options(**given)
    assert options.part in PARTS, f"part={options.part}: one of {', '.join(PARTS)}"
    return options


def jobs_of(options: Options) -> list[Job]:
    """The sets of a part, seed by seed, so that a run cut short has seen all families."""
    names = options.families.split(",") if options.families else [f.name for f in families()]
    if options.part == "chinchilla":
        numbered = [("planted_chinchilla", i) for i in range(1, SETS + 1)]
    elif options.part == "recovery":
        numbered = [(name, RECOVERY_SEED + i) for i in range(min(options.seeds, 3)) for name in names]
    else:
        numbered = [(name, i) for i in range(options.seeds) for name in names]
    return [Job(options.part, name, seed, options.candidates, options.operon) for name, seed in numbered]


def judged(job: Job) -> dict[str, Any]:
    """The line of one set."""
    line: dict[str, Any] = {
        "part": job.part,
        "family": job.family,
        "seed": job.seed,
        "candidates": job.candidates,
    }
    if job.part == "chinchilla":
        case = chinchilla_case(job.seed)
        return line | judge(case, job.candidates) | by_operon(case, job.operon)
    kind = family(job.family)
    if job.part == "recovery":
        one = plant(job.family, job.seed, noise=GOOD_NOISE, outliers=0.0, rows=RECOVERY_ROWS)
    else:
        one = plant(job.family, job.seed)
    about = {"noise": one.noise, "outliers": one.outliers, "rows": len(one.rows), "design": one.design}
    return line | {"outside": kind.outside} | about | judge(case_of(one, kind.equal), job.candidates)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a results file; a line torn by a kill is left out."""
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            continue


def latest(path: Path) -> dict[tuple[str, str, int, int], dict[str, Any]]:
    """The last line of every set: one that failed is judged again."""
    return {(x["part"], x["family"], x["seed"], x["candidates"]): x for x in read_lines(path)}


def run(options: Options) -> None:
    """Judge the sets that are missing or failed, a few at a time, each in a process of its own."""
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {place for place, line in latest(out).items() if "failure" not in line}
    missing = [job for job in jobs_of(options) if job.key not in done]
    print(f"{options.part}: {len(missing)} sets to judge", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool, out.open("a") as file:
        for number, future in enumerate(as_completed([pool.submit(judged, job) for job in missing]), 1):
            line = future.result()
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(f"{number}/{len(missing)} {told(line)}", flush=True)


def told(line: Mapping[str, Any]) -> str:
    """One line for a person."""
    r2, true = ("-inf" if v is None else f"{v:.3f}" for v in (line["r2"], line["true_r2"]))
    mark, seconds = "=" if line["recovered"] else " ", line.get("seconds", 0.0)
    found = line.get("failure") or line["formula"]
    return f"{line['family']:18} {line['seed']:4} R2 {r2:>8} true {true:>8} {mark} {seconds:5.1f} s  {found}"


def main() -> None:
    """Run a part, then show the tables of all that is there."""
    options = read_options(sys.argv[1:])
    if options.part != "table":
        run(options)
    lines = [x for x in latest(Path(options.out)).values() if x["candidates"] == options.candidates]
    show(lines, options.candidates, keep=options.out == Options.out)


if __name__ == "__main__":
    main()
