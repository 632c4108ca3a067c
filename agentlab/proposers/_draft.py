"""What an operator works on: two parents, the variables, the dice, and where things stand in the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from agentlab.law import Call, Node, Sym
from agentlab.law_edit import Path, at, log, walk
from agentlab.library_shapes import Shape, factors, filled, suits
from agentlab.proposers._dice import Dice
from agentlab.types import Variable

ILL_SUITED = 0.1
"""How often a block is taken although its variables are not of the kind that it wants."""


@dataclass(frozen=True)
class Draft:
    """What an operator works on: a parent's tree and fitted values, another parent's tree, the variables, the dice.

    `values` are the parent's parameters (medians over groups and targets), `hints` the blocks that its residuals ask
    for. Parameters that an operator adds carry "?".
    """

    tree: Node
    other: Node
    values: Mapping[str, float]
    variables: Sequence[Variable]
    dice: Dice
    hints: Sequence[str] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the variables."""
        return frozenset(v.name for v in self.variables)

    @cached_property
    def nodes(self) -> list[tuple[Path, Node]]:
        """All nodes of the tree with their paths."""
        return walk(self.tree)

    @cached_property
    def varying(self) -> list[Path]:
        """The paths of the subtrees that hold a variable."""
        above = {path[:depth] for path in self.occurrences for depth in range(len(path) + 1)}
        return [path for path, _ in self.nodes if path in above]

    @cached_property
    def parameters(self) -> list[Path]:
        """The paths of the parameters."""
        return [p for p, n in self.nodes if isinstance(n, Sym) and n.name not in self.names]

    @cached_property
    def occurrences(self) -> list[Path]:
        """The paths of the variables."""
        return [p for p, n in self.nodes if isinstance(n, Sym) and n.name in self.names]

    @cached_property
    def exponents(self) -> list[Path]:
        """The paths of the parameters that stand in an exponent."""
        inside = [(*p, 1) for p, n in self.nodes if isinstance(n, Call) and n.op == "**"]
        return [p for p in self.parameters if any(p[: len(e)] == e for e in inside)]

    def block(self, mark: str = "?n") -> Node:
        """A factor over variables that suit it, by the weights of the grammar."""
        return filled(*self.choose(factors()), mark)

    def choose(self, shapes: Sequence[tuple[float, Shape]]) -> tuple[Shape, list[Variable]]:
        """A shape and variables for its slots; one that suits, unless none is found in a few draws."""
        fitting = [(w, s) for w, s in shapes if len(s.slots) <= len(self.variables)]
        for _ in range(12):
            shape = self.dice.weighted(fitting)
            chosen = self.several(len(shape.slots))
            if suits(shape, chosen) or self.dice.chance(ILL_SUITED):
                break
        return shape, chosen

    def several(self, count: int) -> list[Variable]:
        """`count` different variables in random order."""
        left = list(self.variables)
        return [left.pop(int(self.dice.unit() * len(left))) for _ in range(count)]

    def coordinate(self) -> Node:
        """Log of a variable that is a scale, any other as it is."""
        variable = self.dice.pick(self.variables)
        return log(Sym(variable.name)) if variable.log else Sym(variable.name)

    def name_at(self, path: Path) -> str:
        """The name of the symbol at `path`, "" where something else stands."""
        node = at(self.tree, path)
        return node.name if isinstance(node, Sym) else ""

    def distinct(self, paths: Sequence[Path]) -> list[str]:
        """The names of the symbols at the paths, each once, in order."""
        return list(dict.fromkeys(self.name_at(p) for p in paths))
