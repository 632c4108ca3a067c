"""Formula text to a tree: a whitelist over Python's `ast`, guarded before the parser sees it; nothing is executed."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Collection, Mapping

from agentlab.errors import nearest
from agentlab.law_tree import FUNCTIONS, MAX_DEPTH, MAX_NAME, Call, LawError, Node, Num, Sym, clip

MAX_TEXT = 4000

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_LAW_TEXT = re.compile(rf"(?:\s++|{_NAME}|(?:{_NUMBER})(?![A-Za-z0-9_.])|\*\*|[-+*/(),])*+")
_KEYWORD = re.compile(rf"\b(?:{'|'.join(keyword.kwlist)})\b")
_MARK = "__kw_"

_BINARY: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}

_ADVICE = {
    "^": "write ** for a power",
    "=": "write only the right-hand side, without =",
    "[": "write names without subscripts, such as a1",
    "]": "write names without subscripts, such as a1",
    "{": "write ( and ) for brackets",
    "}": "write ( and ) for brackets",
    ".": "write a number such as 0.5; attributes are not allowed",
    "'": "write names and numbers, no quotes",
    '"': "write names and numbers, no quotes",
    "%": "write + - * / ** and functions only",
    "\x00": "remove the NUL character",
}


def guarded(text: str, what: str) -> str:
    """`text` on one line once its type, length, characters and nesting are harmless; LawError otherwise."""
    if not isinstance(text, str):
        raise LawError(f"{what} is not text: got {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise LawError(f"{what} has {len(text)} characters; at most {MAX_TEXT} are read")
    if not text or text.isspace():
        raise LawError(f"{what} is empty; write for example E + A/N**a")
    depth = 0
    for character in text:
        if character == "(":
            depth += 1
            if depth > MAX_DEPTH:
                raise LawError(f"{what} nests brackets more than {MAX_DEPTH} deep; write a shorter one")
        elif character == ")":
            depth -= 1
            if depth < 0:
                break
    if depth:
        raise LawError(f"{what} {clip(text)} has an unbalanced bracket")
    return text


def tree_of(text: str, variables: Collection[str]) -> Node:
    """The tree of a formula; every name that is not in `variables` is a parameter. Raises LawError."""
    guarded(text, "the formula")
    end = _LAW_TEXT.match(text)
    if end is None or end.end() != len(text):
        raise unreadable(text, end.end() if end else 0)
    return node_of(syntax(text, "the formula"), variables)


def syntax(text: str, what: str, keep: Collection[str] = ()) -> ast.expr:
    """The syntax tree of guarded text, with Python's keywords (but those in `keep`) read as plain names."""
    line = " ".join(text.split())
    line = _KEYWORD.sub(lambda m: m[0] if m[0] in keep else _MARK + m[0], line)
    try:
        return ast.parse(line, mode="eval").body
    except SyntaxError as error:
        at = line[max((error.offset or 1) - 6, 0) :].replace(_MARK, "")
        raise LawError(f"{what} {clip(text)} cannot be read near {clip(at, 16)}") from None
    except (ValueError, MemoryError, RecursionError):
        raise LawError(f"{what} {clip(text)} is too large or too deep to read") from None


def name_of(node: ast.Name) -> str:
    """The name as the user wrote it; LawError when it is too long or starts with two underscores."""
    name = node.id.removeprefix(_MARK)
    if len(name) > MAX_NAME or name.startswith("__"):
        raise LawError(f"the name {clip(name)} is not allowed; write a short name that starts with a letter")
    return name


def node_of(item: ast.expr, variables: Collection[str], depth: int = 0) -> Node:
    """The tree of an arithmetic expression; LawError for any other syntax."""
    if depth > MAX_DEPTH:
        raise LawError(f"the formula is nested more than {MAX_DEPTH} deep; write a shorter one")
    match item:
        case ast.Name():
            name = name_of(item)
            if name in FUNCTIONS and name not in variables:
                raise LawError(f"{name} is a function; write {name}(...) or another name")
            return Sym(name)
        case ast.BinOp() if type(item.op) in _BINARY:
            args = (node_of(item.left, variables, depth + 1), node_of(item.right, variables, depth + 1))
            return Call(_BINARY[type(item.op)], args)
        case ast.Constant():
            return constant(item)
        case ast.UnaryOp(op=ast.UAdd()):
            return node_of(item.operand, variables, depth + 1)
        case ast.UnaryOp(op=ast.USub()):
            inner = node_of(item.operand, variables, depth + 1)
            return Num(-inner.value) if isinstance(inner, Num) else Call("neg", (inner,))
        case ast.Call():
            return _call(item, variables, depth)
    raise LawError(f"{type(item).__name__} is not allowed in a formula; write + - * / ** and {', '.join(FUNCTIONS)}")


def constant(item: ast.Constant) -> Num:
    """A finite number; LawError for anything else."""
    value = item.value
    if type(value) not in (int, float):
        raise LawError(f"{clip(str(value), 20)} is not a number; write digits such as 0.5")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = float("inf")
    if number in (float("inf"), float("-inf")):
        raise LawError("a number in the formula is too large; write a number below 1e308")
    return Num(number)


def _call(item: ast.Call, variables: Collection[str], depth: int) -> Node:
    if not isinstance(item.func, ast.Name):
        raise LawError("only a function's name can stand before brackets; write * for a product")
    name = name_of(item.func)
    if name not in FUNCTIONS:
        known = nearest(name, FUNCTIONS)
        raise LawError(f"{clip(name)} is not a function; write {name[:20]}*(...) for a product; {known}")
    low, high = FUNCTIONS[name]
    if not low <= len(item.args) <= high or item.keywords:
        raise LawError(f"{name} takes {low if low == high else f'{low} to {high}'} argument(s), got {len(item.args)}")
    return Call(name, tuple(node_of(a, variables, depth + 1) for a in item.args))


def unreadable(text: str, at: int, advice: Mapping[str, str] = _ADVICE) -> LawError:
    """The error for the first character or token outside the whitelist, with what `advice` has to say of it."""
    character = text[at]
    here = clip(text[max(at - 8, 0) : at + 8], 30)
    if character.isdigit():
        token = re.match(r"[0-9A-Za-z_.]*", text[at:])
        return LawError(f"{clip(token[0] if token else '', 20)} is not a number; write * between a number and a name")
    if not character.isascii():
        code = f"U+{ord(character):04X}"
        return LawError(f"character {at + 1}, {code}, near {here} is not ASCII; write names in a-z, A-Z, 0-9")
    write = advice.get(character) or _ADVICE.get(character, "write names, numbers, + - * / ** and brackets")
    return LawError(f"character {at + 1}, {character!r}, near {here} is not allowed; {write}")
