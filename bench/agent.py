"""Fits until a planted law is on record, with and without a scripted model: `python bench/agent.py [key=value ...]`.

    arms=mutate,evolve,code,useless   what searches: nobody writes; a competent scripted model writes formulas, or
                                      programs; a scripted model of no use writes formulas
    searches=1     seeds of the search    cap=600   candidates of a run    window=16    processes=2
    families=a,b   some of the sets alone
    out=FILE       a line for every run (bench/work/agent.jsonl); a rerun makes only those that are missing
    part=table     the tables of what is there

The models are scripts, no language models (tests/competent_model.py): the competent ones give the truth after 20 wrong
replies. What counts as a fit and as found: agent_run.Watch. A run that does not find the law within the cap counts as
the cap. Bars, in the sum and in the median over all sets and seeds: evolve and code below mutate, useless at most 1.1
times mutate.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_run import ARMS, Job, jobs_of, measured
from agent_sets import SETS
from machine import RESULTS, about, save

Line = Mapping[str, Any]

BARS: Mapping[str, float] = {"evolve": 1.0, "code": 1.0, "useless": 1.1}
"""What an arm's fits may be of mutate's; for the first two, less."""


@dataclass(frozen=True)
class Options:
    """What to run."""

    arms: tuple[str, ...] = ARMS
    searches: tuple[int, ...] = (1,)
    cap: int = 600
    window: int = 16
    processes: int = 2
    families: tuple[str, ...] = ()
    out: str = "bench/work/agent.jsonl"
    part: str = "run"


def read_options(words: Iterable[str]) -> Options:
    """The options that the words key=value give."""
    given: dict[str, Any] = dict(word.split("=", 1) for word in words)
    given |= {name: int(given[name]) for name in ("cap", "window", "processes") if name in given}
    given |= {name: tuple(given[name].split(",")) for name in ("arms", "families") if name in given}
    given |= {"searches": tuple(int(s) for s in given["searches"].split(","))} if "searches" in given else {}
    options = Options(**given)
    assert set(options.arms) <= set(ARMS), f"arms={','.join(options.arms)}: some of {', '.join(ARMS)}"
    return options


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file; one that was torn by a kill is left out."""
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            continue


def place_of(line: Line) -> tuple[str, str, int, int, int, int]:
    """The run that a line tells of."""
    return line["arm"], line["family"], line["seed"], line["search"], line["cap"], line["window"]


def run(options: Options) -> None:
    """Make the runs that are missing, a few at a time, each in a process of its own."""
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {place_of(line) for line in lines_of(out)}
    sets = [one for one in SETS if not options.families or one[0] in options.families]
    wanted = jobs_of(options.arms, sets, options.searches, options.cap, options.window)
    jobs = [job for job in wanted if job.place not in done]
    print(f"{len(jobs)} runs to make", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool, out.open("a") as file:
        for number, line in enumerate(_finished(pool, jobs), 1):
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(f"{number}/{len(jobs)} {told(line)}", flush=True)


def _finished(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
    for future in as_completed([pool.submit(measured, job) for job in jobs]):
        yield future.result()


def told(line: Line) -> str:
    """One line for a person."""
    found = f"found by {line['by']} with fit {line['found']}" if line["found"] else f"not found in {line['fits']} fits"
    return f"{line['arm']:8} {line['family']:18} {line['seed']} {line['search']} {line['seconds']:6.1f} s  {found}"


def fits_of(line: Line) -> int:
    """Fits to the truth; the cap where it was not found."""
    return int(line["found"] or line["cap"])


def tables(lines: Sequence[Line], cap: int, window: int) -> tuple[dict[str, Any], list[str]]:
    """The result and the page: a row for every set and search, and a row of totals for every arm."""
    known = {place_of(line)[:4]: line for line in lines if (line["cap"], line["window"]) == (cap, window)}
    cases = list(dict.fromkeys(place[1:] for place in known))
    arms = [arm for arm in ARMS if any(place[0] == arm for place in known)]
    whole = [case for case in cases if all((arm, *case) in known for arm in arms)]
    page = ["", f"{'set':20}{'seed':>5}{'search':>7}" + "".join(f"{arm:>10}" for arm in arms)]
    rows = []
    for case in whole:
        here = {arm: known[arm, *case] for arm in arms}
        cells = [f"{line['found'] or f'>{cap}':>10}" for line in here.values()]
        page.append(f"{case[0]:20}{case[1]:5}{case[2]:7}" + "".join(cells))
        rows.append(
            dict(zip(("family", "seed", "search"), case, strict=True)) | {a: x["found"] for a, x in here.items()}
        )
    totals = {arm: _total([known[arm, *case] for case in whole]) for arm in arms} if whole else {}
    page += _totals(totals)
    bars = _bars(totals)
    page += ["", *(f"{'met' if met else 'MISSED':7} {what}" for what, met in bars.items())]
    return {"bench": "agent", "cap": cap, "window": window, "runs": rows, "totals": totals, "bars": bars}, page


def _total(lines: Sequence[Line]) -> dict[str, Any]:
    fits = [fits_of(line) for line in lines]
    return {
        "runs": len(lines), "found": sum(line["found"] is not None for line in lines), "sum": sum(fits),
        "median": statistics.median(fits), "by_model": sum(line["by"] not in ("", "mutate") for line in lines),
        "written": sum(line["written"] for line in lines), "replies": sum(line["replies"] for line in lines),
        "seconds": round(sum(line["seconds"] for line in lines)),
    }  # fmt: skip


def _totals(totals: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if "mutate" not in totals:
        return []
    base = totals["mutate"]
    head = ("runs", "found", "sum", "of mutate", "median", "of mutate", "by model", "written", "replies", "s")
    page = ["", f"{'arm':10}" + "".join(f"{name:>10}" for name in head)]
    for arm, one in totals.items():
        ratios = f"{one['sum'] / base['sum']:.3f}", f"{one['median'] / base['median']:.3f}"
        cells = [one["runs"], one["found"], one["sum"], ratios[0], one["median"], ratios[1]]
        cells += [one[name] for name in ("by_model", "written", "replies", "seconds")]
        page.append(f"{arm:10}" + "".join(f"{cell:>10}" for cell in cells))
    return page


def _bars(totals: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    found = {}
    for arm, most in BARS.items():
        for figure in ("sum", "median") if arm in totals and "mutate" in totals else ():
            ratio = totals[arm][figure] / totals["mutate"][figure]
            words = f"{arm}: {figure} of fits {'<' if most == 1 else '<='} {most:g} x mutate ({ratio:.3f})"
            found[words] = ratio < most if most == 1 else ratio <= most
    return found


NOTES = """Fits until the planted law is on record; entries that were rejected before fitting do not count. Found: the
canonical key is the truth's, or a law of as many parameters is the same function (1e-6 at noise-free rows beyond), or
the program is the truth's. by model: found by a proposal of the model's, the others by mutate beside it; written: fits
that the model's proposals took. The models are scripts, no language models; the competent ones give the truth after 20
wrong replies. The sets were chosen with other seeds of the search than those measured here."""


def main() -> None:
    """Run what is missing, print the tables and a JSON line, keep the result."""
    options = read_options(sys.argv[1:])
    if options.part != "table":
        run(options)
    result, page = tables(list(lines_of(Path(options.out))), options.cap, options.window)
    print("\n".join(page))
    if (options.out, options.window) == (Options.out, Options.window):
        save(result)
        shown = "\n".join(["```", *page, "```", "", NOTES.format(window=options.window)])
        (RESULTS / "agent.md").write_text(f"# Fits to a planted law, cap {options.cap}\n\n{shown}\n")
    print(json.dumps(result | {"machine": about()}))
    sys.exit(not all(result["bars"].values()))


if __name__ == "__main__":
    main()
