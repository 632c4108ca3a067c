"""One set made ready for bench/laws.py: its table, its split, the product's task, and the rows on either side."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from laws_sets import SETS, LawSet
from laws_tables import made

from agentlab.catalog import find_data
from agentlab.table import file_rows, intake
from agentlab.types import Budget, Rows, RunConfig, Task, Variable
from agentlab.words import UsageError


@dataclass(frozen=True)
class Words:
    """The words of the command line."""

    sets: str = ",".join(s.name for s in SETS)
    out: str = ".sweep/laws"
    candidates: int = 1000
    seed: int = 0
    operon: str = sys.executable
    jobs: int = 1
    dev: bool = False


@dataclass(frozen=True)
class Case:
    """A set with its files: the split's expressions, the product's task and the training rows with every column."""

    words: Words
    spec: LawSet
    path: Path
    split: tuple[str, str]
    config: RunConfig

    @cached_property
    def task(self) -> Task:
        """The task as the product reads it."""
        return intake(self.config).task

    @cached_property
    def wide(self) -> Task:
        """The task with the columns that only comparators use."""
        used = sorted({n for f in self.spec.forms for text in f.formulas for n in _made_columns(text)})
        return replace(self.task, features=(*self.task.features, *(Variable(n, log=False) for n in used)))

    @cached_property
    def train(self) -> Rows:
        """The training rows, in the order in which the product sees them."""
        return self._rows(self.split[0])

    def test(self) -> Rows:
        """The rows to predict, of groups that have training rows. The ledger is written before this is called."""
        rows = self._rows(self.split[1])
        return rows.take(np.isin(rows.group, self.train.group))

    def _rows(self, text: str) -> Rows:
        where = f"({self.spec.where}) and ({text})" if self.spec.where else text
        return file_rows(self.wide, self.path, where)


def _made_columns(text: str) -> set[str]:
    return {w for w in text.replace("*", " ").split() if w.startswith("mpl_")}


def folder(words: Words, spec: LawSet) -> Path:
    """Where a set's run and result lie; other words, another folder."""
    kind = "dev" if words.dev else "test"
    return Path(words.out) / f"{spec.name}-{kind}-{words.candidates}-{words.seed}"


def prepare(words: Words, spec: LawSet) -> Case:
    """The set's table, split and the words that a user would give the product. No test row is looked at."""
    file = find_data(f"laws/{spec.name}/data.csv")
    if file is None:
        raise UsageError(
            f"laws/{spec.name}/data.csv is not under $AGENTLAB_DATA; set it to the folder that holds laws/"
        )
    manifest = json.loads((file.parents[1] / "MANIFEST.json").read_text())["datasets"][spec.name]
    primary = manifest["split"]["primary"]
    split = spec.dev if words.dev else (primary["train"], primary["test"])
    path = made(spec.made, file, Path(words.out) / "tables")
    config = RunConfig(
        data=str(path),
        target=spec.target,
        features=",".join(spec.features),
        group=spec.group,
        run=spec.run,
        scale=spec.scale,
        where=spec.where,
        train=split[0],
        max_params=(spec.dev_params if words.dev else None) or spec.max_params,
        seed=words.seed,
        budget=Budget(candidates=words.candidates),
        workers=1,
        out=str(folder(words, spec) / "runs"),
    )
    return Case(words, spec, path, split, config)
