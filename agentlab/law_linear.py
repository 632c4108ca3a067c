"""Which parameters of a law enter linearly, so that least squares can solve for them exactly (variable projection)."""

from __future__ import annotations

from collections.abc import Sequence

from agentlab.law_tree import Call, Node, Num, Sym


def linear_of(node: Node, params: Sequence[str]) -> tuple[str, ...]:
    """A maximal set of parameters in which the law is jointly affine, in order of `params`.

    A parameter is a candidate where the law is affine in it alone; two conflict where they are multiplied. Parameters
    that stand as additive constants come first, then those with the fewest conflicts, then the order of `params`.
    """
    bit = {name: 1 << i for i, name in enumerate(params)}
    conflicts = dict.fromkeys(bit.values(), 0)
    occurring, bent = _scan(node, bit, conflicts)
    straight = occurring & ~bent
    constant = _constants(node, bit)
    free = [b for b in bit.values() if b & straight]
    free.sort(key=lambda b: (not b & constant, (conflicts[b] & straight).bit_count(), b))
    chosen = 0
    for b in free:
        if not conflicts[b] & chosen:
            chosen |= b
    return tuple(name for name, b in bit.items() if b & chosen)


def _scan(node: Node, bit: dict[str, int], conflicts: dict[int, int]) -> tuple[int, int]:
    """(parameters that occur, those that occur not affinely) below `node`, as bit sets; products enter `conflicts`."""
    if isinstance(node, Num):
        return 0, 0
    if isinstance(node, Sym):
        return bit.get(node.name, 0), 0
    scans = [_scan(a, bit, conflicts) for a in node.args]
    occurring = bent = 0
    for here, bent_here in scans:
        occurring |= here
        bent |= bent_here
    if node.op in ("+", "-", "neg"):
        return occurring, bent
    if node.op == "/":
        bent |= scans[1][0]
    elif node.op == "*":
        bent |= scans[0][0] & scans[1][0]
        _conflict(scans[0][0], scans[1][0], conflicts)
    else:
        bent = occurring
    return occurring, bent


def _conflict(left: int, right: int, conflicts: dict[int, int]) -> None:
    for b in conflicts:
        if b & left:
            conflicts[b] |= right & ~b
        if b & right:
            conflicts[b] |= left & ~b


def _constants(node: Node, bit: dict[str, int]) -> int:
    """The parameters that stand as terms of the outermost sum."""
    if isinstance(node, Sym):
        return bit.get(node.name, 0)
    if isinstance(node, Call) and node.op in ("+", "-", "neg"):
        out = 0
        for argument in node.args:
            out |= _constants(argument, bit)
        return out
    return 0
