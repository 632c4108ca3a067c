"""The text of a law that is a program: what of it counts, how long that is, and the key that tells it from others."""

from __future__ import annotations

import ast
import builtins
import hashlib
import warnings
from collections.abc import Iterator, Mapping

from agentlab.types import AgentlabError
from agentlab.words import UsageError

MOST_TEXT = 64 << 10
"""Bytes of a program."""
CHARACTERS = 8
"""Characters that count as a node at least: a long constant or name can hold a table."""
KEY = "program:"
"""What the canonical key of a program begins with; that of a formula never does."""


class ProgramError(AgentlabError):
    """What a program did wrong, in one line: the candidate is rejected for it, the run goes on."""


def complexity(text: str) -> int:
    """Nodes of the program that can carry meaning, of what `law` needs but the imports: what its length is counted by.

    At least one for CHARACTERS characters of what `law` needs, imports included: a long constant or name can hold a
    table. Raises ProgramError where the text is no program, or too long.
    """
    tree = without_fit(text)
    kept = [n for n in tree.body if not isinstance(n, ast.Import | ast.ImportFrom)]
    silent = (ast.expr_context, ast.arguments, ast.arg, ast.Load, ast.Store)
    nodes = sum(not isinstance(node, silent) for one in kept for node in ast.walk(one))
    return max(nodes, len(written(tree)) // CHARACTERS)


def parsed(text: str) -> ast.Module:
    """The program as a tree. Raises ProgramError where the text is no program, or too long."""
    try:
        size = len(text.encode())
        if size <= MOST_TEXT:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a stray backslash, say: the text is not ours to mend
                return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProgramError(f"the program is no Python: {' '.join(str(error).split())[:200]}") from error
    raise ProgramError(f"the program has {size} bytes; write at most {MOST_TEXT}")


def without_fit(text: str) -> ast.Module:
    """What `law` needs of the program: no `fit`, nothing that only `fit` uses, no docstrings and no annotations.

    This is what counts, and all that the sandbox of `law` is sent. Raises ProgramError where the text is no program, or
    too long.
    """
    tree = parsed(text)
    rest = [n for n in tree.body if getattr(n, "name", "") != "fit"]
    defined = [_defines(n) for n in rest]
    needed, kept = {"law"}, [False] * len(rest)
    while more := [i for i, names in enumerate(defined) if not kept[i] and (names is None or needed & names)]:
        for i in more:
            kept[i] = True
            needed |= {n.id for n in ast.walk(rest[i]) if isinstance(n, ast.Name)}
    tree.body = [n for n, needs in zip(rest, kept, strict=True) if needs]
    return _bare(tree)


def written(tree: ast.Module) -> str:
    """The program as text, without comments. Raises ProgramError where it is nested too deeply."""
    try:
        return ast.unparse(tree)
    except RecursionError as error:
        raise ProgramError("the program is nested too deeply; write it in smaller steps") from error


def program_key(text: str) -> str:
    """The canonical key: programs that differ in format, comments, docstrings or the names they choose share it.

    Raises ProgramError where the text is no program, too long, or nested too deeply.
    """
    tree = _bare(parsed(text))
    chosen = _renamed(tree)
    for node in ast.walk(tree):
        for field in ("id", "arg", "name"):
            name = getattr(node, field, None)
            if isinstance(name, str) and name in chosen:
                setattr(node, field, chosen[name])
    return KEY + hashlib.sha256(written(tree).encode(errors="surrogatepass")).hexdigest()[:32]


def refuse_program(law: Mapping[str, object], verb: str, run: str) -> None:
    """Raise UsageError where a verb that reads formulas is asked of a run whose law is a program."""
    if law.get("program"):
        raise UsageError(
            f"{verb}: the law of {run} is a program, and this reads formulas; search with proposer=evolve for one"
        )


def _defines(node: ast.stmt) -> set[str] | None:
    """The names that a statement is there to define; None where it may do more."""
    match node:
        case ast.FunctionDef(name=name, decorator_list=[]):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names) if names[0].name != "*":
            return {(n.asname or n.name).partition(".")[0] for n in names}
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            stored = [n for n in ast.walk(node) if isinstance(getattr(n, "ctx", None), ast.Store)]
            if all(isinstance(n, ast.Name | ast.Tuple | ast.List | ast.Starred) for n in stored):
                return {n.id for n in stored if isinstance(n, ast.Name)}
    return None


def _bare(tree: ast.Module) -> ast.Module:
    """The tree without docstrings and without the annotations of functions."""
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                match node.body:
                    case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                        node.body = rest if rest or isinstance(node, ast.Module) else [ast.Pass()]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    return tree


def _renamed(tree: ast.Module) -> dict[str, str]:
    """New names, in the order of their first use, for the names that a program chose and uses as plain names only."""
    found: dict[str, None] = {}
    fixed = {*vars(builtins), "law", "fit"}
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=name):
                found[name] = None
            case ast.FunctionDef(name=name):
                found[name] = None
            case ast.Name(id=name, ctx=ast.Store()):
                found[name] = None
            case ast.Name():
                pass
            case _:
                fixed.update(_texts(node))
    return {name: f"?{i}" for i, name in enumerate(n for n in found if n not in fixed)}


def _texts(node: ast.AST) -> Iterator[str]:
    """The texts that stand in a node itself: attributes, keywords, aliases, constants."""
    for _, value in ast.iter_fields(node):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                yield one
