"""Derivatives as formulas, each checked at points against the exact slope of its law before anyone sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentlab.tools._points import agreement, drawn, slopes, values
from agentlab.tools._symbolic import SymbolicError, ask

from agentlab.law import Law, Node, parse


@dataclass(frozen=True)
class Derived:
    """A derivative, and the drawn points at which it is the slope."""

    law: Law
    checked: int
    note: str


def names_of(law: Law) -> tuple[str, ...]:
    """Every name of a law."""
    return (*law.used, *law.params)


def request(op: str, law: Law, signs: Mapping[str, str], **more: str) -> dict[str, Any]:
    """What `_symbolic_worker` is asked about a law."""
    return {"op": op, "formula": law.text, "signs": dict(signs), **more}


async def derived(law: Law, signs: Mapping[str, str], by: str, seconds: float) -> Derived:
    """The derivative in the name `by`. Raises SymbolicError where none is found, or it is not the slope at points."""
    found = await ask(request("derivative", law, signs, by=by), seconds)
    what = f"d/d{by} of {law.text[:60]}"
    if not found.formula:
        raise SymbolicError(f"{what}: {found.reason}")
    slope = parse(found.formula, law.variables)
    points = drawn(names_of(law), signs)
    equal, told = agreement(slopes(law, points, by), values(slope, points))
    if equal < told:
        raise SymbolicError(f"{what}: {slope.text[:60]} is the slope at {equal} of {told} points only")
    return Derived(slope, told, found.note)


async def slope_of(law: Law, signs: Mapping[str, str], by: str, seconds: float) -> tuple[Node | None, str]:
    """The derivative's tree, or None and why there is none."""
    if seconds <= 0:
        return None, "without the derivative as a formula: no time was left"
    try:
        found = await derived(law, signs, by, seconds)
    except SymbolicError as error:
        return None, f"without the derivative as a formula: {error}"
    return found.law.tree, ""
