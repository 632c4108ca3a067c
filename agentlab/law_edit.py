"""Small algebra on the trees of laws that the proposers need: build, walk, replace, take sums and products apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from agentlab.law import Call, Node, Num, Sym

Path = tuple[int, ...]
"""The way from the root of a tree to a node: which argument at each step."""

Factor = tuple[Node, bool]
"""A factor of a product, and whether it divides."""

ONE = Num(1.0)
ZERO = Num(0.0)


def add(terms: Sequence[Node]) -> Node:
    """The sum of the terms, from left to right; a negated term is subtracted; 0 for none."""
    if not terms:
        return ZERO
    total = terms[0]
    for term in terms[1:]:
        if isinstance(term, Call) and term.op == "neg":
            total = Call("-", (total, term.args[0]))
        elif isinstance(term, Num) and term.value < 0:
            total = Call("-", (total, Num(-term.value)))
        else:
            total = Call("+", (total, term))
    return total


def multiply(factors: Sequence[Factor]) -> Node:
    """The product of the factors over the dividing ones; 1 for none."""
    above = [f for f, divides in factors if not divides and not _is_number(f, 1.0)]
    below = [f for f, divides in factors if divides and not _is_number(f, 1.0)]
    sign = bool(above) and _is_number(above[0], -1.0) and len(above) + len(below) > 1
    top = _chain(above[1:] if sign else above)
    whole = Call("/", (top, _chain(below))) if below else top
    return negate(whole) if sign else whole


def _is_number(node: Node, value: float) -> bool:
    return isinstance(node, Num) and node.value == value


def _chain(nodes: Sequence[Node]) -> Node:
    if not nodes:
        return ONE
    joined = nodes[0]
    for node in nodes[1:]:
        joined = Call("*", (joined, node))
    return joined


def times(*nodes: Node) -> Node:
    """The product of the nodes."""
    return multiply([(n, False) for n in nodes])


def power(base: Node, exponent: Node) -> Node:
    """Base ** exponent; the base itself for 1, 1 for 0."""
    if exponent == ONE:
        return base
    return ONE if exponent == ZERO else Call("**", (base, exponent))


def log(node: Node) -> Node:
    """The natural logarithm of a node."""
    return Call("log", (node,))


def negate(node: Node) -> Node:
    """-node, without a double sign."""
    if isinstance(node, Call) and node.op == "neg":
        return node.args[0]
    return Num(-node.value) if isinstance(node, Num) else Call("neg", (node,))


def terms_of(node: Node) -> list[Node]:
    """The terms of a sum, subtracted ones as `neg`; the node itself if it is no sum."""
    if isinstance(node, Call):
        if node.op == "+":
            return terms_of(node.args[0]) + terms_of(node.args[1])
        if node.op == "-":
            return terms_of(node.args[0]) + [negate(t) for t in terms_of(node.args[1])]
        if node.op == "neg" and _is_sum(node.args[0]):
            return [negate(t) for t in terms_of(node.args[0])]
    return [node]


def factors_of(node: Node, divides: bool = False) -> list[Factor]:
    """The factors of a product or quotient; the node itself if it is neither; a sign becomes the factor -1."""
    if isinstance(node, Call):
        if node.op == "*":
            return factors_of(node.args[0], divides) + factors_of(node.args[1], divides)
        if node.op == "/":
            return factors_of(node.args[0], divides) + factors_of(node.args[1], not divides)
        if node.op == "neg":
            return [(Num(-1.0), False), *factors_of(node.args[0], divides)]
    return [(node, divides)]


def _is_sum(node: Node) -> bool:
    return isinstance(node, Call) and node.op in ("+", "-", "neg")


def walk(node: Node) -> list[tuple[Path, Node]]:
    """Every node with its path, parents before children."""
    found: list[tuple[Path, Node]] = [((), node)]
    for path, here in found:
        if isinstance(here, Call):
            found.extend(((*path, i), arg) for i, arg in enumerate(here.args))
    return found


def groups(node: Node, of: Callable[[Node], Sequence[object]]) -> list[Path]:
    """The paths of the outermost sums (or products) that `of` takes apart into two or more parts."""
    heads = ("+", "-") if of is terms_of else ("*", "/")
    found = []
    for path, here in walk(node):
        if op_of(here) in heads and not (path and op_of(at(node, path[:-1])) in heads):
            found.append(path)
    return found


def replace(node: Node, path: Path, new: Node) -> Node:
    """The tree with the node at `path` replaced."""
    if not path or not isinstance(node, Call):
        return new
    i = path[0]
    return Call(node.op, (*node.args[:i], replace(node.args[i], path[1:], new), *node.args[i + 1 :]))


def at(node: Node, path: Path) -> Node:
    """The node at `path`."""
    for i in path:
        if isinstance(node, Call):
            node = node.args[i]
    return node


def op_of(node: Node) -> str:
    """The operation of a call, "" for a leaf."""
    return node.op if isinstance(node, Call) else ""


def symbols(node: Node) -> list[str]:
    """The names in a tree in reading order, with repetition."""
    found: list[str] = []
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, Sym):
            found.append(here.name)
        elif isinstance(here, Call):
            stack.extend(reversed(here.args))
    return found


def uses(node: Node, names: Collection[str]) -> bool:
    """Whether one of the names occurs in the tree."""
    if isinstance(node, Sym):
        return node.name in names
    return isinstance(node, Call) and any(uses(arg, names) for arg in node.args)


def put(node: Node, values: Mapping[str, Node]) -> Node:
    """The tree with symbols replaced by trees, all at once."""
    if isinstance(node, Sym):
        return values.get(node.name, node)
    if isinstance(node, Call):
        return Call(node.op, tuple([put(arg, values) for arg in node.args]))
    return node


def size(node: Node) -> int:
    """The number of nodes."""
    return 1 + sum(map(size, node.args)) if isinstance(node, Call) else 1
