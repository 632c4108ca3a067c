"""Our laws against published forms and peers on the shared sets of real runs: `python bench/laws.py KEY=VALUE ...`.

For each set the product searches the training rows as it would for a user; the published forms, a power law with
offset, pyoperon with description length and the baselines see the same rows. Only then is the test split opened, once,
and each opening is written to a ledger (bench/results/laws_ledger.jsonl). A set that is done under `out` is not run
again: give another `out` after a change of the engine, and the ledger will show that a split was opened for a second
law.

    sets=A,B        which sets (all)               candidates=1000     budget of our search
    out=.sweep/laws where runs and results lie     seed=0              of our search and of the fits
    operon=PYTHON   a Python that has pyoperon     jobs=1              sets side by side, at most 2
    dev=1           use the inner split of each set: no test row is read, no results are kept in bench/results
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from laws_case import Case, Words, folder, prepare
from laws_peers import Fitted, comparators, predicted
from laws_report import report
from laws_score import OURS, Standing, compared, figures, fingerprint, note_opening, verdict
from laws_sets import SETS, LawSet

from agentlab.errors import AgentlabError, nearest
from agentlab.run_rows import read_rows
from agentlab.runs import carry_out, create, result
from agentlab.table import intake
from agentlab.words import UsageError, read_words

RESULTS = Path(__file__).parent / "results"
MOST_JOBS = 2


# ---- one set ----


def measure(words: Words, spec: LawSet) -> dict[str, Any]:
    """One set from search to verdict; read back where it was done before."""
    done = folder(words, spec) / "result.json"
    if done.is_file():
        return dict(json.loads(done.read_text()))
    one = prepare(words, spec)
    ours, told = searched(one)
    others = comparators(one)
    sha = fingerprint(told["formula"], told["params"])
    ledger = Path(words.out) / "dev_ledger.jsonl" if words.dev else RESULTS / "laws_ledger.jsonl"
    looks = note_opening(ledger, spec.name, sha, len(one.train), {"seed": words.seed, "candidates": words.candidates})
    scored = judged(one, {OURS: ours, **others})
    told = {k: v for k, v in told.items() if k != "params"} | {"sha": sha}
    answer = {"set": spec.name, "split": list(one.split), "law": told, "looks": looks, **scored}
    temporary = done.with_suffix(".tmp")
    temporary.write_text(json.dumps(answer, indent=1) + "\n")
    temporary.replace(done)
    return answer


def searched(one: Case) -> tuple[Fitted, dict[str, Any]]:
    """Our law, by the product: intake, a run folder, the search. A run that was stopped goes on where it was."""
    out = Path(one.config.out)
    before = sorted(out.glob("*/config.json"))
    run = before[0].parent if before else create(one.config, intake(one.config))
    began = time.perf_counter()
    carry_out(run, lambda _: None)
    found = result(run)
    task, rows = read_rows(run)
    law = found["law"]
    told = {k: law[k] for k in ("formula", "key", "n_params", "params")}
    told |= {"dev": found["score"]["dev"], "evaluated": found["counts"]["evaluated"], "rows": len(rows)}
    told |= {"max_params": task.max_params, "seconds": round(time.perf_counter() - began, 1)}
    laws = tuple((group, law["formula"], of[one.spec.target]) for group, of in law["params"].items())
    return Fitted(laws), told


def judged(one: Case, known: Mapping[str, Fitted]) -> dict[str, Any]:
    """Scores of all on the rows to predict, ours against each, and the verdict."""
    rows = one.test()
    y = rows.targets[one.spec.target]
    predictions = {name: predicted(one, of, rows) for name, of in known.items()}
    scores = {name: figures(y, values) for name, values in predictions.items()}
    standings: dict[str, Standing | None] = {
        name: compared(y, predictions[OURS], values, rows.run) for name, values in predictions.items() if name != OURS
    }
    table = {}
    for name, of in known.items():
        standing = standings.get(name)
        ours = {} if standing is None else asdict(standing) | {"word": standing.word}
        finite = scores[name]["r2"] is not None
        reason = of.reason or ("" if finite else "a prediction is not finite")
        table[name] = scores[name] | {"ours": ours, "note": of.note, "reason": reason}
    runs = len(np.unique(rows.run))
    return {"rows": len(rows), "runs": runs, "table": table, "verdict": verdict(scores, standings)}


# ---- all sets ----


def attempt(words: Words, spec: LawSet) -> dict[str, Any]:
    """One set, or why it could not be measured."""
    try:
        return measure(words, spec)
    except AgentlabError as error:
        return {"set": spec.name, "verdict": "failed", "reason": str(error)}


def chosen(names: str) -> list[LawSet]:
    """The sets named in "a,b", in that order. Raises UsageError for an unknown one."""
    known = {s.name: s for s in SETS}
    for name in names.split(","):
        if name not in known:
            raise UsageError(f"bench/laws.py: there is no set {name!r}; {nearest(name, known)}")
    return [known[name] for name in names.split(",")]


def main() -> None:
    """Measure the sets, print the table and one JSON line, keep the results."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        words = read_words(sys.argv[1:], Words, "bench/laws.py")
        wanted = chosen(words.sets)
    except UsageError as error:
        sys.exit(str(error))
    with ProcessPoolExecutor(min(words.jobs, MOST_JOBS), get_context("spawn")) as pool:
        answers = list(pool.map(attempt, [words] * len(wanted), wanted))
    report(answers, asdict(words))


if __name__ == "__main__":
    main()
