"""What can be said against a law that is a program from its text alone, before any sandbox is asked.

None of this protects anybody: the sandbox does. It tells a writer at once, and by name, what is wrong.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Iterator

from agentlab.program_text import MOST_TEXT, ProgramError, parsed, without_fit, written

PACKAGES = frozenset(
    {"numpy", "scipy", "math", "cmath", "functools", "itertools", "collections", "dataclasses", "typing", "warnings"}
    | {"__future__"}
)
"""What a law may import; numpy and scipy are in its sandbox, the rest is Python's own."""

STRANGE = frozenset(
    {"eval", "exec", "compile", "open", "input", "breakpoint", "exit", "quit", "help", "globals", "locals", "vars"}
    | {"getattr", "setattr", "delattr"}
)
"""Names that no law needs, beside those with two underscores."""

SMALL = 16
"""Whole numbers up to this size are part of a form, as indices, counts and factors are."""
QUARTERS = 4.0
"""Multiples of a quarter up to this size are, too."""
TABLE = 8
"""Numbers in one list, tuple, set or dictionary that is not yet a table."""
WORDS = 200
"""Characters of a text in `law` that is not yet a table."""
LARGE = 1 << 64
"""Whole numbers that nobody writes out."""
NAMED, SHOWN = 4, 24
"""Numbers and names that a reason repeats, and characters of each."""


def fault(text: str) -> str:
    """Why a program cannot be a law: a fixed phrase, details behind a colon; "" where nothing speaks against it."""
    if len(text.encode(errors="replace")) > MOST_TEXT:
        return f"program too long: at most {MOST_TEXT} bytes"
    try:
        whole, law = parsed(text), without_fit(text)
    except ProgramError as error:
        return str(error).removeprefix("the program is ")
    try:
        written(whole)
    except ProgramError:
        return "nested too deeply"
    return next(_faults(whole, law), "")


def _faults(whole: ast.Module, law: ast.Module) -> Iterator[str]:
    for name, second in (("law", "params"), ("fit", "y")):
        function = next((n for n in whole.body[::-1] if isinstance(n, ast.FunctionDef) and n.name == name), None)
        if function is None or not _takes_two(function.args):
            yield f"no function {name}(X, {second})"
            return
        used = {n.id for part in function.body for n in ast.walk(part) if isinstance(n, ast.Name)}
        given = [a.arg for a in [*function.args.posonlyargs, *function.args.args]]
        for mine, plain in zip(given, ("X", second), strict=False):
            if mine not in used and (name, plain) != ("fit", "X"):  # a mean needs no X
                yield f"{name} does not use {plain}"
    if strange := [n for n in _imported(whole) if n not in PACKAGES]:
        yield f"an import that no law needs: {_list(strange)}; there are numpy, scipy and math"
    if strange := [n for n in _used(whole) if n in STRANGE or (n.startswith("__") and n != "__name__")]:
        yield f"a name that no law needs: {_list(strange)}"
    if any(_is_table(n) for n in ast.walk(law)):
        yield "a table written into law: what it holds is fitted, or left out"
    if fixed := [n.value for n in ast.walk(law) if isinstance(n, ast.Constant) and not _plain(n.value)]:
        yield f"constants written into law: {_list(fixed)}; make them parameters, and fit them"


def _takes_two(args: ast.arguments) -> bool:
    """Whether a function can be called with two arguments."""
    most = len(args.posonlyargs) + len(args.args)
    required = sum(default is None for default in args.kw_defaults)
    return most - len(args.defaults) <= 2 and not required and (most >= 2 or args.vararg is not None)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0] if not node.level else "."


def _used(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _is_table(node: ast.AST) -> bool:
    match node:
        case ast.List(elts=held) | ast.Tuple(elts=held) | ast.Set(elts=held):
            return sum(_is_number(n) for n in held) > TABLE
        case ast.Dict(values=held):
            return sum(_is_number(n) for n in held) > TABLE
        case ast.Constant(value=str() | bytes() as held):
            return len(held) > WORDS
    return False


def _is_number(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(inner, ast.Constant) and isinstance(inner.value, int | float | complex)


def _plain(value: object) -> bool:
    """Whether a constant is part of a form rather than a figure that was measured: 2, 0.5 and 1e9, but not 0.34."""
    if isinstance(value, int):
        return value <= SMALL or value.bit_count() == 1 or (value < LARGE and not str(value).rstrip("0")[1:])
    if not isinstance(value, float | complex):
        return True
    size = abs(value)
    if (size <= QUARTERS and (4 * size).is_integer()) or (size <= SMALL and size.is_integer()):
        return True
    return math.frexp(size)[0] == 0.5 or float(f"{size:.0e}") == size  # a power of two, or one digit


def _list(values: Iterable[object]) -> str:
    shown = list(dict.fromkeys(str(v)[:SHOWN] for v in values if not isinstance(v, int) or v < LARGE)) or ["a number"]
    return ", ".join(shown[:NAMED]) + (", .." if len(shown) > NAMED else "")
