"""Readable parameter names: E for the constant, A, B for coefficients, a, b for exponents, N0 for a shift of N."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from agentlab.law import Call, Node, Sym
from agentlab.law_edit import put, terms_of

CONSTANT = "E"
COEFFICIENTS = "ABCDFGHJKLMPQRTUVWXYZ"
EXPONENTS = "abcdfghjkmpqrstuvwxyz"


def named(node: Node, variables: Collection[str], reserved: Collection[str] = ()) -> Node:
    """The law with its parameters renamed by the place where each occurs first.

    No name collides with a variable. The names in `reserved` (those a task bounds) are not handed out either, except
    E, which keeps its meaning.
    """
    namer = _Namer(variables, reserved)
    namer.visit(node, "top")
    return put(node, {old: Sym(new) for old, new in namer.names.items()})


class _Namer:
    """Walks a tree in reading order and names each parameter at first sight."""

    def __init__(self, variables: Collection[str], reserved: Collection[str]) -> None:
        self._variables = variables
        self._taken = {*variables, *reserved} - ({CONSTANT} if CONSTANT not in variables else set())
        self._upper = endless(COEFFICIENTS)
        self._lower = endless(EXPONENTS)
        self.names: dict[str, str] = {}

    def visit(self, node: Node, role: str) -> None:
        """Name the parameters of a subtree; `role` is top, sum, inner or exponent."""
        if isinstance(node, Sym):
            if node.name not in self._variables and node.name not in self.names:
                self.names[node.name] = self._fresh(role)
            return
        if not isinstance(node, Call):
            return
        if node.op in ("+", "-", "neg"):
            self._sum(node, role)
        elif node.op == "**":
            self.visit(node.args[0], "exponent" if role == "exponent" else "inner")
            self.visit(node.args[1], "exponent")
        else:
            inner = "exponent" if role == "exponent" or node.op in ("exp", "sigmoid", "tanh") else "inner"
            for arg in node.args:
                self.visit(arg, inner)

    def _sum(self, node: Call, role: str) -> None:
        terms = [t.args[0] if isinstance(t, Call) and t.op == "neg" else t for t in terms_of(node)]
        shifted = next((t.name for t in terms if isinstance(t, Sym) and t.name in self._variables), None)
        for term in terms:
            if shifted is not None and role == "inner" and isinstance(term, Sym) and self._shift(term.name, shifted):
                continue
            bare = isinstance(term, Sym)
            self.visit(term, ("top" if bare else "inner") if role == "top" else role)

    def _shift(self, name: str, variable: str) -> bool:
        """Name the parameter added to a variable after it; False where that is a variable or the name is taken."""
        new = f"{variable}0"
        if name in self._variables or name in self.names or new in self._taken:
            return name in self.names
        self._taken.add(new)
        self.names[name] = new
        return True

    def _fresh(self, role: str) -> str:
        if role == "top" and CONSTANT not in self._taken:
            new = CONSTANT
        else:
            names = self._lower if role == "exponent" else self._upper
            new = next(n for n in names if n not in self._taken)
        self._taken.add(new)
        return new


def endless(letters: str) -> Iterator[str]:
    """The letters, then the letters with 2, 3, ... behind them."""
    yield from letters
    count = 2
    while True:
        yield from (f"{letter}{count}" for letter in letters)
        count += 1
