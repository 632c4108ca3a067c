"""What a run's laws were fitted on and how: its rows, its inner hold-outs, the options of every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from agentlab import selection
from agentlab.fitting import FitOptions
from agentlab.run_rows import read_rows
from agentlab.types import Rows, RunConfig, Task

STARTS: Mapping[str, int] = {"search": 10, "final": 48}
"""Starting points a fit, as the tool server `fit` has them."""

Made = Literal["law", "finalist", "search", "refit"]
"""How parameters came about: the law's last fit, a finalist's, a candidate's while searching, or a fit made here."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What a run's laws were fitted on: its task and settings, and its rows, read once."""

    folder: Path
    task: Task
    config: RunConfig

    @cached_property
    def rows(self) -> Rows:
        """The rows that the search saw."""
        return read_rows(self.folder)[1]

    @cached_property
    def every(self) -> Rows:
        """All rows that are not sealed."""
        return read_rows(self.folder, every=True)[1]

    @cached_property
    def judge(self) -> selection.Problem:
        """The rows with their inner hold-outs, as candidates were judged by."""
        return selection.problem(self.task, self.rows)

    def options(self, made: Made) -> FitOptions:
        """How laws were fitted at that stage of the run."""
        if made == "search":
            return replace(selection.search_options(self.task, STARTS["search"], self.config.seed), thorough=False)
        options = selection.fit_options(self.task, STARTS["final"], self.config.seed)
        return options if made != "finalist" else replace(options, thorough=False)
