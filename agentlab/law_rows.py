"""Expressions over the columns of a table: conditions that choose rows, and arithmetic that makes one more column."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentlab.errors import nearest
from agentlab.law_parse import guarded, name_of, node_of, syntax, tree_of, unreadable
from agentlab.law_program import Program, check_constants, tape_of
from agentlab.law_tree import MAX_DEPTH, LawError, Node, Sym, checked, clip, walk
from agentlab.types import BoolArray, FloatArray

Column = NDArray[Any]
Columns = Mapping[str, Column]

_NUMERIC: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_WORDS = ("and", "or", "not", "in", "is")
_TOKENS = re.compile(
    r"(?:\s++|'[^'\\\n]*+'|\"[^\"\\\n]*+\"|[A-Za-z_][A-Za-z0-9_]*+"
    r"|(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?(?![A-Za-z0-9_.])"
    r"|\*\*|[<>=!]=|[-+*/(),<>\[\]])*+"
)
_ADVICE = {
    "=": "write == for equality",
    "&": "write and",
    "|": "write or",
    "!": "write not, or !=",
    "~": "write not",
    ";": "join conditions with and / or",
}


def rows_where(text: str, columns: Columns) -> BoolArray:
    """Which of n rows meet a condition such as "n_params >= 1e8 and family in ('a', 'b')"; returns (n,) booleans.

    Conditions are comparisons joined by and / or / not; numbers are compared as arithmetic over columns (chains such as
    1 < x <= 2 are allowed), columns of text by ==, != and in with quoted text. A nan meets no comparison but !=.
    Raises LawError.
    """
    guarded(text, "the condition")
    end = _TOKENS.match(text)
    if end is None or end.end() != len(text):
        raise unreadable(text, end.end() if end else 0, _ADVICE)
    return _condition(syntax(text, "the condition", keep=_WORDS), columns, 0)


def column_expression(text: str, columns: Mapping[str, FloatArray]) -> FloatArray:
    """Arithmetic over columns of numbers, such as "6*n*d"; returns (n,). Every name must be a column, else LawError."""
    return _arithmetic(checked(tree_of(text, tuple(columns))), columns)


def _arithmetic(node: Node, columns: Columns) -> FloatArray:
    for item in walk(node):
        if isinstance(item, Sym) and item.name not in columns:
            raise LawError(f"no column {clip(item.name)}: {nearest(item.name, columns)}")
        if isinstance(item, Sym) and columns[item.name].dtype.kind not in "fiub":
            raise LawError(f"column {clip(item.name)} holds text; arithmetic needs a column of numbers")
    check_constants(node)
    return Program(tape_of(node), columns, ())(np.empty(0))


def _condition(item: ast.expr, columns: Columns, depth: int) -> BoolArray:
    if depth > MAX_DEPTH:
        raise LawError(f"the condition is nested more than {MAX_DEPTH} deep; write a shorter one")
    match item:
        case ast.BoolOp():
            combine = np.logical_and if isinstance(item.op, ast.And) else np.logical_or
            out = _condition(item.values[0], columns, depth + 1)
            for value in item.values[1:]:
                out = combine(out, _condition(value, columns, depth + 1))
            return out
        case ast.UnaryOp(op=ast.Not()):
            return ~_condition(item.operand, columns, depth + 1)
        case ast.Compare():
            return _comparison(item, columns)
        case ast.Name():
            name = name_of(item)
            raise LawError(f"{clip(name)} stands alone in the condition; compare it, for example {name[:40]} == 1")
    raise LawError("the condition holds no comparison; write for example n_params >= 1e8 and tokens < 1e10")


def _comparison(item: ast.Compare, columns: Columns) -> BoolArray:
    out: BoolArray | None = None
    left = item.left
    for operator, right in zip(item.ops, item.comparators, strict=True):
        here = _compared(operator, left, right, columns)
        out = here if out is None else out & here
        left = right
    assert out is not None  # noqa: S101  - ast gives every comparison one operator or more
    return out


def _compared(operator: ast.cmpop, left: ast.expr, right: ast.expr, columns: Columns) -> BoolArray:
    if isinstance(operator, (ast.In, ast.NotIn)):
        out = _membership(left, right, columns)
        return ~out if isinstance(operator, ast.NotIn) else out
    if type(operator) not in _NUMERIC:
        raise LawError("a condition compares with < <= > >= == != and in; write == or != for is")
    texts = [_text(left, columns), _text(right, columns)]
    if texts[0] is None and texts[1] is None:
        sides = [_arithmetic(checked(node_of(side, tuple(columns))), columns) for side in (left, right)]
        return np.asarray(_NUMERIC[type(operator)](*sides), dtype=bool)
    if texts[0] is None or texts[1] is None:
        shown = ast.unparse(left if texts[0] is None else right)
        raise LawError(f"text is compared with {clip(shown, 30)}, a number; quote text and leave numbers bare")
    if not isinstance(operator, (ast.Eq, ast.NotEq)):
        raise LawError("text has no order here; compare columns of text with ==, != or in")
    return _sized(_NUMERIC[type(operator)](texts[0], texts[1]), columns)


def _membership(left: ast.expr, right: ast.expr, columns: Columns) -> BoolArray:
    if not isinstance(right, (ast.Tuple, ast.List)) or not right.elts:
        raise LawError("in needs a list: write for example family in ('a', 'b') or size in (1, 2)")
    out: BoolArray | None = None
    for element in right.elts:
        here = _compared(ast.Eq(), left, element, columns)
        out = here if out is None else out | here
    assert out is not None  # noqa: S101  - the list was found not to be empty
    return out


def _text(item: ast.expr, columns: Columns) -> Column | None:
    """The side of a comparison as text: a quoted constant () or a column of text (n,); None for arithmetic."""
    if isinstance(item, ast.Constant) and isinstance(item.value, str):
        return np.asarray(item.value)
    if isinstance(item, ast.Name) and (name := name_of(item)) in columns and columns[name].dtype.kind not in "fiub":
        return columns[name].astype(str)
    return None


def _sized(value: Column, columns: Columns) -> BoolArray:
    n = len(next(iter(columns.values()))) if columns else 1
    return np.array(np.broadcast_to(value, (n,)), dtype=bool)
