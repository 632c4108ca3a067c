"""Proposes laws without an LLM: a sweep of known scaling laws first, then edits of what the archive holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from statistics import median
from typing import TypeAlias
from zlib import crc32

import numpy as np

from agentlab.archive import Archive
from agentlab.law import Law, LawError, Node, Sym, from_tree, parse
from agentlab.law_edit import ONE, put, size, symbols
from agentlab.library import sweep
from agentlab.library_naming import named
from agentlab.proposers._dice import Dice
from agentlab.proposers._draft import Draft
from agentlab.proposers._edits import OPERATORS, PARENTS, Operator, fresh
from agentlab.proposers._tidy import tidy
from agentlab.types import Entry, Outcome, Proposal, Task

TOOL = "fit.laws"
TRIES = 30
"""Edits tried for one ask before it gives up."""
SWEEP_ALONE = 100
"""The first asks take the sweep's laws only."""
SWEEP_EVERY = 2
"""From then on every second ask does, until the sweep is used up."""
SWEEP_LAWS = 260
"""Laws of the sweep at most; what lies beyond is found by edits if it is any good."""
MAX_SIZE = 60
"""Nodes of a law made by an edit; seed laws may be larger."""
CACHED = 2048
"""Parents kept as trees."""
CHOSEN = 0.5
"""Share of the asks that start from a parent which was chosen, while there are any."""


Parent: TypeAlias = tuple[Entry, Node]


class Mutate:
    """The proposer "mutate": what ask `index` gives depends on the task, the seed, the index and the archive alone."""

    name = "mutate"

    def __init__(self, task: Task, seed: int = 0, known: Sequence[str] = ()) -> None:
        """A proposer for one task; `seed` is a non-negative integer, `known` are formulas that it begins with."""
        self._known = tuple(known)
        self._task = task
        self._seed = seed
        self._variables = task.names
        self._names = frozenset(task.names)
        self._sweep = self._seeds()
        self._swept: list[Law] = []
        self._trees: dict[str, Node | None] = {}

    def ask(self, index: int, archive: Archive, pending: Collection[str]) -> Proposal | None:
        """A law that is neither in the archive nor pending, or None when `TRIES` edits gave no new one.

        Raises nothing for any archive: an entry whose formula cannot be read as a law is no parent.
        """
        island = index % archive.islands
        seed = self._seed_law(index)
        if seed is not None and not archive.seen(seed.key) and seed.key not in pending:
            return Proposal(index, TOOL, seed.text, seed.key, self.name, "seed", (), island)
        entropy = np.random.SeedSequence([self._seed, crc32(self.name.encode()), index])
        rng = np.random.Generator(np.random.PCG64(entropy))
        dice = Dice(rng)
        chosen = self._chosen(archive, rng)
        for _ in range(TRIES):
            parents = self._parents(archive, rng, island, chosen)
            operator = dice.weighted(OPERATORS) if parents else fresh
            law = self._edited(operator, parents, dice)
            if law is not None and not archive.seen(law.key) and law.key not in pending:
                used = PARENTS.get(operator, 1)
                ids = tuple(entry.id for entry, _ in parents[:used])
                return Proposal(index, TOOL, law.text, law.key, self.name, operator.__name__, ids, island)
        return None

    def _seed_law(self, index: int) -> Law | None:
        """The sweep's law for this ask, or None where an edit is due."""
        if index < SWEEP_ALONE:
            position = index
        elif index % SWEEP_EVERY:
            return None
        else:
            position = SWEEP_ALONE + (index - SWEEP_ALONE) // SWEEP_EVERY
        while len(self._swept) <= position < SWEEP_LAWS:
            law = next(self._sweep, None)
            if law is None:
                return None
            self._swept.append(law)
        return self._swept[position] if position < SWEEP_LAWS else None

    def _seeds(self) -> Iterator[Law]:
        """The sweep's laws within the task's cap, each once."""
        keys: set[str] = set()
        for text in self._known:
            one = parse(text, self._variables)
            if one.n_params <= self._task.max_params and one.key not in keys:
                keys.add(one.key)
                yield one
        for tree in sweep(self._task.features):
            law = self._law(tree)
            if law is not None and law.key not in keys:
                keys.add(law.key)
                yield law

    def _chosen(self, archive: Archive, rng: np.random.Generator) -> list[Parent]:
        """The chosen parents with their trees, for half of the asks; chance is drawn only where there are any."""
        if not archive.chosen or rng.random() >= CHOSEN:
            return []
        trees = ((entry, self._tree(entry.proposal.formula)) for entry in archive.chosen)
        return [(entry, tree) for entry, tree in trees if tree is not None]

    def _parents(
        self, archive: Archive, rng: np.random.Generator, island: int, chosen: Sequence[Parent]
    ) -> list[Parent]:
        """Two parents with their trees, the first a chosen one where there are any.

        None where the archive is empty or a draw is no law with a variable.
        """
        found = [chosen[int(rng.random() * len(chosen))]] if chosen else []
        for _ in range(2 - len(found)):
            entry = archive.sample(rng, island)
            tree = None if entry is None else self._tree(entry.proposal.formula)
            if entry is None or tree is None:
                return []
            found.append((entry, tree))
        return found

    def _tree(self, text: str) -> Node | None:
        """The tree of a parent's formula, remembered; None if it is no law with one of the task's variables."""
        if text not in self._trees:
            if len(self._trees) >= CACHED:
                self._trees.clear()
            try:
                law = parse(text, self._variables)
            except LawError:
                self._trees[text] = None
            else:
                self._trees[text] = law.tree if law.used else None
        return self._trees[text]

    def _edited(self, operator: Operator, parents: list[Parent], dice: Dice) -> Law | None:
        """What the operator makes of the parents; None where it cannot or the law breaks a limit."""
        tree: Node = ONE
        other: Node = ONE
        values: dict[str, float] = {}
        hints: tuple[str, ...] = ()
        if parents:
            (entry, tree), (_, other) = parents
            hints = entry.outcome.hints
            values = _fitted(entry.outcome)
            other = put(other, {name: Sym(f"?o{name}") for name in symbols(other) if name not in self._names})
        edited = operator(Draft(tree, other, values, self._task.features, dice, hints))
        if edited is None or size(edited) > 2 * MAX_SIZE:
            return None
        law = self._law(edited)
        return law if law is not None and law.complexity <= MAX_SIZE else None

    def _law(self, tree: Node) -> Law | None:
        """The tree tidied and named, as a law; None if it holds no variable or is too rich for the task."""
        tidied = tidy(tree, self._names)
        try:
            law = from_tree(named(tidied, self._names, self._task.bounds), self._variables)
        except LawError:
            return None
        return law if law.used and 1 <= law.n_params <= self._task.max_params else None


def _fitted(outcome: Outcome) -> dict[str, float]:
    """The median of every parameter over groups and targets."""
    found: dict[str, list[float]] = {}
    for targets in outcome.params.values():
        for values in targets.values():
            for name, value in values.items():
                found.setdefault(name, []).append(value)
    return {name: median(values) for name, values in found.items()}
