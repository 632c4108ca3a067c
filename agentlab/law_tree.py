"""The tree of a law: numbers, symbols and calls of a closed list of operations, its limits, and its text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from agentlab.types import AgentlabError

MAX_NODES = 300
MAX_DEPTH = 60
MAX_NAME = 64

_NAME = re.compile(rf"(?!__)[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}")

FUNCTIONS: dict[str, tuple[int, int]] = {
    "exp": (1, 1),
    "log": (1, 1),
    "log2": (1, 1),
    "log10": (1, 1),
    "sqrt": (1, 1),
    "abs": (1, 1),
    "tanh": (1, 1),
    "sigmoid": (1, 1),
    "min": (2, 8),
    "max": (2, 8),
}
"""The functions a law may call, with the least and the largest number of arguments."""

OPS: dict[str, tuple[int, int]] = {
    "+": (2, 2),
    "-": (2, 2),
    "*": (2, 2),
    "/": (2, 2),
    "**": (2, 2),
    "neg": (1, 1),
    **FUNCTIONS,
}
"""Every operation of a `Call`, with the least and the largest number of arguments."""


class LawError(AgentlabError):
    """A text or tree that is not a law; one line that says what is wrong and what to write instead."""


@dataclass(frozen=True, slots=True)
class Num:
    """A constant of the formula; finite."""

    value: float


@dataclass(frozen=True, slots=True)
class Sym:
    """A variable or a parameter."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operation of `OPS` on one or more subtrees."""

    op: str
    args: tuple[Node, ...]


Node = Num | Sym | Call


def clip(text: str, width: int = 40) -> str:
    """`text` quoted, on one line, at most about `width` characters."""
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def walk(node: Node) -> Iterator[Node]:
    """Every node of the tree, parents first, left to right."""
    stack = [node]
    while stack:
        item = stack.pop()
        yield item
        if isinstance(item, Call):
            stack.extend(reversed(item.args))


def checked(node: Node, depth: int = 0) -> Node:
    """`node` with `-number` folded into the number; LawError where an operation or its arguments are not allowed."""
    if isinstance(node, Num):
        if not math.isfinite(node.value):
            raise LawError("a number in the formula is not finite; write a number below 1e308")
        return node
    if isinstance(node, Sym):
        if not _NAME.fullmatch(node.name):
            raise LawError(f"{clip(node.name)} is not a name; write letters a-z, A-Z, digits and _")
        return node
    if depth > MAX_DEPTH:
        raise LawError(f"the formula is nested more than {MAX_DEPTH} deep; write a shorter one")
    low, high = OPS.get(node.op, (1, 0))
    if not low <= len(node.args) <= high:
        raise LawError(f"{clip(node.op)} with {len(node.args)} argument(s) is not an operation of a law")
    args = tuple(checked(a, depth + 1) for a in node.args)
    if node.op == "neg" and isinstance(args[0], Num):
        return Num(-args[0].value)
    return Call(node.op, args)


_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "**": 4}
_SPACED = {"+": " + ", "-": " - ", "*": "*", "/": "/"}


def number(value: float) -> str:
    """A number as a formula writes it: the shortest text that reads back as the same float, no point in an integer."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def text_of(node: Node) -> str:
    """The tree as a formula; parsing it gives the same tree back."""
    return _print(node)[0]


def _print(node: Node) -> tuple[str, int]:
    """The text of a node and the precedence of its outermost operation (5 for an atom)."""
    if isinstance(node, Sym):
        return node.name, 5
    if isinstance(node, Num):
        return number(node.value), 3 if node.value < 0 else 5
    if node.op in FUNCTIONS:
        return f"{node.op}({', '.join(_print(a)[0] for a in node.args)})", 5
    here = _PRECEDENCE[node.op]
    if node.op == "neg":
        return "-" + _wrapped(node.args[0], 4), here
    left, right = node.args
    if node.op == "**":
        return f"{_wrapped(left, 5)}**{_wrapped(right, 3)}", here
    negative = here == 1 and _print(right)[0].startswith("-")
    return _wrapped(left, here) + _SPACED[node.op] + _wrapped(right, 9 if negative else here + 1), here


def _wrapped(node: Node, least: int) -> str:
    text, precedence = _print(node)
    return text if precedence >= least else f"({text})"
