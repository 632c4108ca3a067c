"""The text of a law that is a program: what of it counts, and how long that is."""

from __future__ import annotations

import ast

from agentlab.types import AgentlabError

MOST_TEXT = 64 << 10
"""Bytes of a program."""
CHARACTERS = 8
"""Characters that count as a node at least: a long constant or name can hold a table."""


class ProgramError(AgentlabError):
    """What a program did wrong, in one line: the candidate is rejected for it, the run goes on."""


def complexity(text: str) -> int:
    """Nodes of the program that can carry meaning, outside of `fit` and the imports: what its length is counted by.

    At least one for CHARACTERS characters of all but `fit`, imports included: a long constant or name can hold a table.
    Raises ProgramError where the text is no program, or too long.
    """
    tree = without_fit(text)
    kept = [n for n in tree.body if not isinstance(n, ast.Import | ast.ImportFrom)]
    silent = (ast.expr_context, ast.arguments, ast.arg, ast.Load, ast.Store)
    nodes = sum(not isinstance(node, silent) for one in kept for node in ast.walk(one))
    return max(nodes, len(written(tree)) // CHARACTERS)


def without_fit(text: str) -> ast.Module:
    """The program without the function `fit`. Raises ProgramError where the text is no program, or too long."""
    try:
        size = len(text.encode())
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProgramError(f"the program is no Python: {' '.join(str(error).split())[:200]}") from error
    if size > MOST_TEXT:
        raise ProgramError(f"the program has {size} bytes; write at most {MOST_TEXT}")
    tree.body = [n for n in tree.body if getattr(n, "name", "") != "fit"]
    return tree


def written(tree: ast.Module) -> str:
    """The program as text, without comments. Raises ProgramError where it is nested too deeply."""
    try:
        return ast.unparse(tree)
    except RecursionError as error:
        raise ProgramError("the program is nested too deeply; write it in smaller steps") from error
