"""One run of bench/agent.py: a search beside a scripted model, broken off once the planted law is on record."""

from __future__ import annotations

import ast
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from agent_sets import Case, case_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the scripted models are the tests' own
from competent_laws import program_of, wrong_laws
from competent_model import Answer, competent, competent_programs, useless
from scripted_model import serving

from agentlab import runs
from agentlab.discover import TRACE, Progress
from agentlab.fitting import FitOptions, fit
from agentlab.law import parse
from agentlab.run_rows import Intake
from agentlab.trace import Record, follow
from agentlab.types import Budget, RunConfig

ARMS = ("mutate", "evolve", "code", "useless")
SAME = 1e-6
"""Relative error up to which a law fitted to rows without noise is the same function as the truth."""
CLOSE = 20.0
"""Nats above the best objective up to which a law is looked at for being the truth in another writing."""


@dataclass(frozen=True)
class Job:
    """One run: what searches, on which set, the seed of the search, the candidates at most, and their window."""

    arm: str
    family: str
    seed: int
    search: int
    cap: int
    window: int = 16

    @property
    def place(self) -> tuple[str, str, int, int, int, int]:
        """What makes two jobs the same."""
        return self.arm, self.family, self.seed, self.search, self.cap, self.window


class EnoughError(Exception):
    """The planted law is on record, or the search is over: the rest of the run would tell nothing."""


class Watch:
    """Reads a run's trace as it grows, counts fits, and looks for the truth.

    A fit is an entry that was tried: not one that was rejected before fitting. The truth is found with the first entry
    whose canonical key is one of the truth's; or that is the same function: of as many parameters, and within SAME of
    the noise-free rows beyond when fitted to them; or that is the truth's program.
    """

    def __init__(self, case: Case, trace: Path, program: str) -> None:
        self.case, self.trace, self.program = case, trace, program
        self.fits = self.written = self.replies = self.rejects = 0
        self.found: int | None = None
        self.by = ""
        self._offset, self._best = 0, float("inf")

    def __call__(self, progress: Progress) -> None:
        """Read on. Raises EnoughError once the truth is on record, or the search is over."""
        self.read()
        if self.found is not None or progress.phase != "search":
            raise EnoughError

    def read(self) -> None:
        """Take in what is new."""
        records, self._offset = follow(self.trace, self._offset)
        for record in records:
            if record["kind"] == "reply":
                self.replies += 1
                self.rejects += len(record.get("rejects", ()))
            elif record["kind"] == "entry" and self.found is None:
                self._entry(record)

    def _entry(self, record: Record) -> None:
        if not record["formula"]:
            return  # nothing new was proposed: nothing was fitted
        self.fits += 1
        self.written += record["proposer"] != "mutate"
        if record["status"] == "ok" and self._is_truth(record):
            self.found, self.by = self.fits, record["proposer"]

    def _is_truth(self, record: Record) -> bool:
        objective = float(record["objective"])
        close = objective < self._best + CLOSE
        self._best = min(self._best, objective)
        if record["tool"] != "fit.laws":
            return _law_of(record["formula"]) == _law_of(self.program)
        if record["key"] in self.case.keys:
            return True
        law, truth = parse(record["formula"], self.case.task.names), self.case.truth
        if not close or law.n_params != truth.n_params or set(law.used) != set(truth.used):
            return False
        (target,) = self.case.task.targets
        y = self.case.hidden.targets[target]
        one = fit(law, self.case.hidden.columns, y, options=FitOptions(starts=24))
        return one.ok and bool(np.max(np.abs(law.evaluate(self.case.hidden.columns, one.params) / y - 1)) < SAME)


def _law_of(program: str) -> str:
    """A program without its fit, comments and spacing."""
    tree = ast.parse(program)
    kept = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == "fit")]
    return ast.unparse(ast.Module(kept, []))


def answer_of(arm: str, case: Case, program: str) -> Answer:
    """The scripted model of an arm."""
    names = case.task.names
    wrong = wrong_laws(case.truth.text, names)
    if arm == "code":
        return competent_programs(program, [program_of(text, names, case.start) for text in wrong])
    return competent(case.truth.text, wrong) if arm == "evolve" else useless(case.seed, names)


@contextmanager
def configured(job: Job, case: Case, program: str, out: str) -> Iterator[RunConfig]:
    """The settings of a run, with its model served until the block ends."""
    plain = RunConfig(
        seed=job.search, budget=Budget(candidates=job.cap), workers=1, patience=0, out=out, window=job.window
    )
    if job.arm == "mutate":
        yield plain
        return
    proposer = "code" if job.arm == "code" else "evolve"
    with serving(answer_of(job.arm, case, program)) as server:
        yield RunConfig(
            seed=job.search, budget=Budget(candidates=job.cap), workers=1, patience=0, out=out, proposer=proposer,
            model="scripted", base_url=server.url, window=job.window,
        )  # fmt: skip


def measured(job: Job) -> dict[str, Any]:
    """The line of one run: fits until the truth was on record (null where it was not within the cap), and by whom."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    case = case_of(job.family, job.seed)
    program = program_of(case.truth.text, case.task.names, case.start)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out, configured(job, case, program, out) as config:
        folder = runs.create(config, Intake(case.task, case.rows, None))
        watch = Watch(case, folder / TRACE, program)
        with suppress(EnoughError):
            runs.carry_out(folder, watch)
        watch.read()
    return {
        "arm": job.arm, "family": job.family, "seed": job.seed, "search": job.search, "cap": job.cap,
        "window": job.window, "found": watch.found, "by": watch.by, "fits": watch.fits, "written": watch.written,
        "replies": watch.replies, "rejects": watch.rejects, "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def jobs_of(
    arms: Sequence[str], sets: Sequence[tuple[str, int]], searches: Sequence[int], cap: int, window: int
) -> list[Job]:
    """All runs, one set after the other, so that a bench cut short has seen all arms."""
    return [Job(arm, name, seed, s, cap, window) for s in searches for name, seed in sets for arm in arms]
