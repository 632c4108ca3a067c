"""A task as a model sees it: with its names and words, or, in a blind run, without any that could be recalled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agentlab.law import Law, LawError, Node, Sym, from_tree, parse
from agentlab.law_edit import put, symbols
from agentlab.library_naming import named
from agentlab.proposers._writing import Failure
from agentlab.types import Rows, Task, Variable

HIDDEN_TEXT = "(hidden)"
"""What stands for a text that cannot be renamed."""

HIDDEN = "x"
"""Columns are called x1, x2, .. in a blind run."""


class Veil:
    """The task as it is shown, and formulas there and back.

    `task` has the names a model sees; ranges of the columns stand in their descriptions. In a blind run title,
    descriptions, units and names are gone, the reference with them: what is left is numbers.
    """

    def __init__(self, task: Task, rows: Rows | None = None, *, blind: bool = False) -> None:
        self._real, self._blind = task, blind
        self._shown = {v.name: f"{HIDDEN}{i}" if blind else v.name for i, v in enumerate(task.features, start=1)}
        features = tuple(self._feature(v, rows) for v in task.features)
        targets = tuple(f"y{i}" for i in range(1, len(task.targets) + 1)) if len(task.targets) > 1 else ("y",)
        self.task = replace(
            task,
            features=features,
            targets=targets if blind else task.targets,
            title="" if blind else task.title,
            name="" if blind else task.name,
            reference=None,
            holdout_file=None,
            train_file="",
        )
        self._back = {shown: real for real, shown in self._shown.items()}

    def _feature(self, v: Variable, rows: Rows | None) -> Variable:
        seen = ""
        if rows is not None:
            column = rows.columns[v.name]
            seen = f"from {column.min():.3g} to {column.max():.3g} in the rows"
        words = "; ".join(w for w in ("" if self._blind else v.description, seen) if w)
        return replace(v, name=self._shown[v.name], unit="" if self._blind else v.unit, description=words)

    @property
    def real_names(self) -> tuple[str, ...]:
        """The names of the columns in the rows."""
        return self._real.names

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """The task's bounds of parameters, by name."""
        return self._real.bounds

    def shown(self, text: str) -> str:
        """A formula of the task as the model sees it; a text that is no formula stays as it is."""
        if not self._blind:
            return text
        try:
            law = parse(text, self._real.names)
        except LawError:
            return HIDDEN_TEXT
        return from_tree(self._renamed(law.tree, self._shown, self.task.names), self.task.names).text

    def real(self, law: Law) -> Node:
        """The tree of a law in the model's names, in the task's own; raises nothing."""
        return self._renamed(law.tree, self._back, self._real.names) if self._blind else law.tree

    def failure(self, text: str, reason: str, most: int = 160) -> Failure:
        """A rejected formula and the reason, as a model may see them: of the reason its first words in a blind run."""
        told = reason.split(":", maxsplit=1)[0] if self._blind else reason
        return Failure(self.shown(text)[:most], told)

    @property
    def blind(self) -> bool:
        """Whether names and words are hidden."""
        return self._blind

    def words(self, text: str) -> str:
        """Text that may hold column names (hints, constraints) as the model sees it: nothing in a blind run."""
        return "" if self._blind else text

    def _renamed(self, tree: Node, columns: Mapping[str, str], names: tuple[str, ...]) -> Node:
        moved: dict[str, Node] = {n: Sym(columns.get(n, f"?{n}")) for n in symbols(tree)}
        return named(put(tree, moved), frozenset(names), self._real.bounds)
