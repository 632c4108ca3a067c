"""Which rule picks the law that extrapolates: `python bench/selection.py [candidates=250] [seeds=2001,2002] [out=..]`.

A quick search makes a pool of finalists for every set; each rule picks one of the pool; the pick is scored on rows that
neither the search nor the rule saw. The sets are planted laws (families of the starting grammar, seeds that no other
benchmark uses) and real runs ($AGENTLAB_DATA): there the largest of the training rows play the test, and the test
splits themselves are not read. Every set adds one line to `selection.jsonl` in `out`; a rerun makes what is missing.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from machine import RESULTS, save

from agentlab import library, selection
from agentlab.archive import Archive
from agentlab.discover import gate_of
from agentlab.law import Law, parse
from agentlab.planted import families, plant
from agentlab.proposers.mutate import Mutate
from agentlab.selection_consensus import nearest_to_consensus
from agentlab.table import intake
from agentlab.types import BoolArray, Entry, Outcome, Rows, RunConfig, Task
from agentlab.words import read_words

FINALISTS = 24
TASKS = ("parallel", "moe", "data_constrained", "easy_question", "vocab", "sft", "lr_bsz")
GOOD = 0.9


@dataclass(frozen=True)
class Words:
    """The words of the benchmark."""

    candidates: int = 250
    seeds: str = "2001,2002,2003"
    out: str = "bench/work"


@dataclass(frozen=True)
class Case:
    """A set: what is searched, and what is predicted."""

    name: str
    task: Task
    rows: Rows
    test: Rows


def planted_cases(seeds: Sequence[int]) -> Iterator[Case]:
    """Planted laws of the families that the starting grammar holds."""
    for seed in seeds:
        for family in families():
            if not family.outside:
                one = plant(family.name, seed)
                yield Case(f"{family.name} {seed}", one.task, one.rows, one.holdout)


def real_cases() -> Iterator[Case]:
    """SLDBench's training rows, their largest set apart."""
    for name in TASKS:
        taken = intake(read_words([f"task=sldbench_{name}"], RunConfig))
        for level, top in _tops(taken.rows):
            yield Case(f"sldbench {name} {level}", taken.task, taken.rows.take(~top), taken.rows.take(top))


def _tops(rows: Rows) -> Iterator[tuple[str, BoolArray]]:
    """The largest one or two scale values where there are few, else the top 15% and 30% of every group."""
    assert rows.scale is not None
    values = np.unique(rows.scale)
    if len(values) < 20:
        for count in (1, 2)[: len(values) - 2]:
            yield f"top {count}", rows.scale >= values[-count]
        return
    for share in (0.85, 0.7):
        top = np.zeros(len(rows), dtype=bool)
        for group in rows.groups:
            mine = rows.group == group
            top |= mine & (rows.scale > np.quantile(rows.scale[mine], share))
        yield f"top {1 - share:.0%}", top


def pool(case: Case, candidates: int) -> tuple[list[Law], list[Outcome], selection.Problem]:
    """The finalists of a quick search, judged as finalists are."""
    judge = selection.problem(case.task, case.rows)
    options = selection.search_options(case.task, 10)
    archive, proposer = Archive(), Mutate(case.task, 0)
    for index in range(candidates):
        proposal = proposer.ask(index, archive, ())
        if proposal is not None:
            gate = gate_of(archive, len(case.rows) * len(case.task.targets))
            law = parse(proposal.formula, case.task.names)
            archive.add(Entry(index, proposal, selection.evaluate(law, judge, options, gate=gate)))
    laws = [parse(e.proposal.formula, case.task.names) for e in archive.top(FINALISTS)]
    final = replace(selection.fit_options(case.task, 48), thorough=False)
    return laws, [selection.evaluate(law, judge, final, final=True) for law in laws], judge


Rule = Callable[[Sequence[Law], Sequence[Outcome], selection.Problem], int]


def by(key: Callable[[Law, Outcome, selection.Problem], float], *, constrained: bool = True) -> Rule:
    """The finalist with the least value of `key`, among those that break the fewest constraints."""

    def pick(laws: Sequence[Law], outcomes: Sequence[Outcome], judge: selection.Problem) -> int:
        ranked = [
            (len(o.violations) * constrained, key(law, o, judge), i)
            for i, (law, o) in enumerate(zip(laws, outcomes, strict=True))
            if o.status == "ok"
        ]
        return min(ranked)[2]

    return pick


def in_sample(law: Law, outcome: Outcome, judge: selection.Problem) -> float:
    """Log squared error of the fit itself."""
    predicted = law.predict(judge.rows.columns, judge.rows.group, outcome.params)
    return selection.hidden_errors(judge, judge.rows, predicted)


def spelled(law: Law, outcome: Outcome, judge: selection.Problem) -> float:
    """The objective with every formula spelled out node by node, known or not."""
    length = law.complexity * math.log(selection.VOCABULARY)
    known = law.key in library.keys(judge.task.features)
    return outcome.objective + (max(length - selection.KNOWN, 0.0) if known else 0.0)


def _consensus(laws: Sequence[Law], outcomes: Sequence[Outcome], judge: selection.Problem) -> int:
    found = nearest_to_consensus(laws, outcomes, judge)
    assert found is not None
    return found


RULES: dict[str, Rule] = {
    "in-sample fit": by(in_sample, constrained=False),
    "description length": by(lambda _, o, __: o.mdl, constrained=False),
    "description length, constraints": by(lambda _, o, __: o.mdl),
    "one hold-out, constraints": by(lambda _, o, __: math.inf if o.dev is None else o.dev.nmse),
    "objective, formulas spelled out": by(spelled),
    "objective": by(lambda _, o, __: o.objective),
    "nearest to the consensus": _consensus,
}


def judged(case: Case, candidates: int) -> dict[str, Any]:
    """The test R2 of every rule's pick, and the best of the pool."""
    laws, outcomes, judge = pool(case, candidates)
    scores = [_score(case, law, o) for law, o in zip(laws, outcomes, strict=True)]
    picks = {name: scores[rule(laws, outcomes, judge)] for name, rule in RULES.items()}
    return {"case": case.name, "candidates": candidates, "best": max(scores), "rules": picks}


def _score(case: Case, law: Law, outcome: Outcome) -> float:
    """Test R2, clipped to [-1, 1]."""
    if outcome.status != "ok":
        return -1.0
    predicted = law.predict(case.test.columns, case.test.group, outcome.params)
    errors = [float(np.mean((predicted[t] - y) ** 2) / np.var(y)) for t, y in case.test.targets.items()]
    score = 1.0 - float(np.mean(errors))
    return max(score, -1.0) if math.isfinite(score) else -1.0


def table(found: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Mean clipped test R2 and share of good picks, planted and real sets apart."""
    rows = []
    lines = ["| rule | planted: mean R2 | picks >= .9 | real: mean R2 |", "|---|---|---|---|"]
    plants = [r for r in found if not r["case"].startswith("sldbench") and r["best"] >= GOOD]
    reals = [r for r in found if r["case"].startswith("sldbench")]
    for name in (*RULES, "best of the pool"):
        of = [r["rules"].get(name, r["best"]) for r in plants]
        real = [r["rules"].get(name, r["best"]) for r in reals]
        row = {"rule": name, "planted": mean(of), "good": mean(v >= GOOD for v in of), "real": mean(real)}
        rows.append(row)
        lines.append(f"| {name} | {row['planted']:.3f} | {row['good']:.0%} | {row['real']:.3f} |")
    lines.append(f"\n{len(plants)} planted sets whose pool holds a law with test R2 >= .9; {len(reals)} inner splits.")
    return rows, "\n".join(lines)


def main(given: Sequence[str]) -> None:
    """Judge the sets that are missing, then print and write the table."""
    words = read_words(given, Words, "bench/selection.py")
    path = Path(words.out) / "selection.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    cases = [*planted_cases([int(s) for s in words.seeds.split(",")]), *real_cases()]
    done = [r for r in done if r["candidates"] == words.candidates]
    for case in cases:
        if not any(r["case"] == case.name for r in done):
            done.append(judged(case, words.candidates))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(case.name, {k: round(v, 3) for k, v in done[-1]["rules"].items()}, flush=True)
    rows, text = table(done)
    print(text)
    save({"bench": "selection", "words": {"candidates": words.candidates, "seeds": words.seeds}, "rows": rows})
    (RESULTS / "selection.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
