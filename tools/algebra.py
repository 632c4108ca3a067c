"""The tool server `algebra`: what a formula says, before any data: limits, slopes, units, and whether it is another."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import anyio.to_thread
from agentlab.tools import _points
from agentlab.tools._algebra_records import (
    Broken,
    Equivalence,
    Formula,
    Key,
    Limits,
    Rewritten,
    Seconds,
    Sign,
    Signs,
    Text,
    Trend,
    Trends,
    Units,
    Variables,
)
from agentlab.tools._derived import derived, names_of, request, slope_of
from agentlab.tools._equivalence import compared
from agentlab.tools._intervals import Interval
from agentlab.tools._limits import PLACES, limit_of
from agentlab.tools._monotone import direction_of
from agentlab.tools._refusals import refusals
from agentlab.tools._server import hints, serve, tool_server
from agentlab.tools._symbolic import WORKER, ask
from agentlab.tools._unit_powers import read_unit
from agentlab.tools._units import solve
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from agentlab.catalog import load_task
from agentlab.errors import nearest
from agentlab.law import Law, parse

server: MCPServer[Any] = tool_server(
    "algebra", "Ask what a formula says before it is fitted: limits, slopes, directions, units, equality with another."
)

LIMITS_SECONDS = 16.0
"""Seconds that all limits of one call may take together."""

Task = Annotated[str | None, Field(description="Name of a task whose features give what is not given here.")]
Ranges = Annotated[
    dict[str, tuple[float, float]],
    Field(description="(low, high) of variables and parameters; a name without one takes every value of its sign."),
]


@server.tool(annotations=hints(reads=True))
async def simplify(
    formula: Formula, variables: Variables, signs: Signs | None = None, seconds: Seconds = 5
) -> Rewritten:
    """The shortest way to write a formula that algebra finds; the same values at the same parameters."""
    law, signs = _law(formula, variables), signs or {}
    _check_signs(signs, law)
    with refusals():
        found = await ask(request("simplify", law, signs), seconds)
        shorter = parse(found.formula, variables) if found.formula else law
    points = _points.drawn(names_of(law), signs)
    equal, told = _points.agreement(_points.values(law, points), _points.values(shorter, points))
    if shorter.complexity >= law.complexity:
        return _rewritten(law, told, signs, found.note or "it is as short as it gets")
    if not told or equal < told:
        return _rewritten(law, 0, signs, f"a shorter form has its value at {equal} of {told} points only: not used")
    return _rewritten(shorter, told, signs, found.note)


@server.tool(annotations=hints(reads=True))
async def derivative(
    formula: Formula,
    variables: Variables,
    by: Annotated[str, Field(description="A variable or a parameter.")],
    signs: Signs | None = None,
    seconds: Seconds = 5,
) -> Rewritten:
    """The derivative in one name as a formula, checked against exact slopes; abs, min, max: not where they turn."""
    law, signs = _law(formula, variables), signs or {}
    _check_signs(signs, law)
    _check_name(by, law)
    with refusals():
        slope = await derived(law, signs, by, seconds)
    return _rewritten(slope.law, slope.checked, signs, slope.note)


@server.tool(annotations=hints(reads=True))
async def limits(
    formula: Formula,
    variables: Variables,
    of: Annotated[list[str] | None, Field(max_length=16, description="The variables to move; all by default.")] = None,
    signs: Signs | None = None,
    seconds: Seconds = 4,
) -> Limits:
    """Where the formula goes as each variable alone goes to 0 and to infinity; parameters positive but for `signs`."""
    law, signs = _law(formula, variables), signs or {}
    _check_signs(signs, law)
    moving = law.used if of is None else tuple(of)
    for name in moving:
        _check_name(name, law)
    end = time.monotonic() + LIMITS_SECONDS
    found = []
    for name in moving:
        for to in PLACES:
            left = min(seconds, end - time.monotonic())
            found.append(await limit_of(law, signs, name, to, left))
    return Limits(limits=found, assumed=_assumed(signs))


@server.tool(annotations=hints(reads=True))
async def monotonicity(
    formula: Formula,
    variables: Variables,
    box: Ranges | None = None,
    by: Annotated[list[str] | None, Field(max_length=16, description="Names; all variables by default.")] = None,
    signs: Signs | None = None,
    task: Task = None,
    seconds: Seconds = 4,
) -> Trends:
    """Whether the formula rises or falls with each variable in a box: proven by bounds of the slope, else sampled."""
    law, signs = _law(formula, variables), signs or {}
    _check_signs(signs, law)
    asked = law.used if by is None else tuple(by)
    for name in asked:
        _check_name(name, law)
    ranges = _ranges(law, signs, box or {}, task)
    end = time.monotonic() + LIMITS_SECONDS
    trends = []
    for name in asked:
        slope, note = await slope_of(law, signs, name, min(seconds, end - time.monotonic()))
        seen = await anyio.to_thread.run_sync(direction_of, law, slope, ranges, name)
        trends.append(
            Trend(
                name=name,
                direction=seen.direction,
                how="proven" if seen.proven else "sampled",
                cells=seen.cells,
                points=seen.draws,
                rising_at=seen.rising,
                falling_at=seen.falling,
                note=note,
            )
        )
    shown = {n: (_end(r.low), _end(r.high)) for n, r in ranges.items()}
    return Trends(trends=trends, box=shown)


@server.tool(annotations=hints(reads=True))
def units(
    formula: Formula,
    units: Annotated[
        dict[str, str] | None, Field(description='By variable or parameter, such as {"N": "parameters", "C": "FLOPs"}.')
    ] = None,
    target: Annotated[str | None, Field(description="Unit of what the formula gives, such as nats/byte.")] = None,
    variables: Variables | None = None,
    task: Task = None,
) -> Units:
    """Whether units agree: exponents carry none, sums are of like terms; the units that parameters must have."""
    with refusals():
        features = load_task(task).features if task else ()
        known = {v.name: v.unit for v in features if v.unit} | (units or {})
        columns = tuple(dict.fromkeys([*(variables or []), *(v.name for v in features), *(() if task else known)]))
        law = _law(formula, columns)
        declared = {name: read_unit(text) for name, text in known.items()}
        for name in units or {}:
            _check_name(name, law)
        found = solve(law, declared, read_unit(target) if target is not None else None)
    return Units(
        ok=not found.breaks,
        unit=found.unit,
        parameters=dict(found.parameters),
        breaks=[Broken(**asdict(b)) for b in found.breaks[:20]],
        undeclared=[n for n in law.used if n not in declared],
    )


@server.tool(annotations=hints(reads=True))
def key(formula: Formula, variables: Variables) -> Key:
    """The canonical key of a formula, equal for laws that are one family, with its parameters and its structure."""
    law = _law(formula, variables)
    return Key(
        key=law.key,
        structure=law.structure,
        complexity=law.complexity,
        variables=list(law.used),
        parameters=list(law.params),
        linear=list(law.linear),
        formula=law.text,
    )


@server.tool(annotations=hints(reads=True))
def equivalent(left: Formula, right: Formula, variables: Variables, signs: Signs | None = None) -> Equivalence:
    """Whether two formulas say the same: by their keys, else at drawn points, else by fitting each to the other."""
    one, other = _law(left, variables), _law(right, variables)
    for name in signs or {}:
        if name not in (*names_of(one), *names_of(other)):
            raise ToolError(f"signs: no formula has the name {name!r}; {nearest(name, names_of(one))}")
    found = compared(one, other, signs or {})
    return Equivalence(**asdict(found))


@server.tool(annotations=hints(reads=True))
def latex(formula: Formula, variables: Variables) -> Text:
    """The formula as LaTeX, without dollar signs."""
    return Text(text=_law(formula, variables).latex())


@server.tool(annotations=hints(reads=True))
def python(
    formula: Formula,
    variables: Variables,
    name: Annotated[str, Field(max_length=64, description="Of the function.")] = "law",
) -> Text:
    """The source of a Python module with the formula as a function of columns and parameters; it needs NumPy alone."""
    with refusals():
        return Text(text=_law(formula, variables).to_python(name=name))


# ---- what the tools share ----


def _law(formula: str, variables: list[str] | tuple[str, ...]) -> Law:
    with refusals():
        return parse(formula, tuple(variables))


def _check_name(name: str, law: Law) -> None:
    if name not in names_of(law):
        raise ToolError(f"the formula has no name {name!r}; {nearest(name, names_of(law))}")


def _check_signs(signs: Mapping[str, Sign], law: Law) -> None:
    for name in signs:
        _check_name(name, law)


def _assumed(signs: Mapping[str, Sign]) -> str:
    words = {"+": "positive", "-": "negative", "any": "of any sign"}
    others = [f"{name} {words[sign]}" for name, sign in signs.items() if sign != "+"]
    return ", ".join(["every name positive" + (" but for these" if others else ""), *others])


def _rewritten(law: Law, checked: int, signs: Mapping[str, Sign], note: str = "") -> Rewritten:
    return Rewritten(
        formula=law.text,
        latex=law.latex(),
        complexity=law.complexity,
        checked=checked,
        assumed=_assumed(signs),
        note=note,
    )


def _ranges(
    law: Law, signs: Mapping[str, Sign], box: Mapping[str, tuple[float, float]], task: str | None
) -> dict[str, Interval]:
    """A range for every name: given, the task's, or all values of its sign."""
    with refusals():
        boxes = {v.name: v.box for v in load_task(task).features if v.box} if task else {}
    usual = {"+": (0.0, math.inf), "-": (-math.inf, 0.0), "any": (-math.inf, math.inf)}
    for name in box:
        _check_name(name, law)
    found = {}
    for name in names_of(law):
        low, high = box.get(name) or boxes.get(name) or usual[signs.get(name, "+")]
        if not low <= high:
            raise ToolError(f"box: {name} is ({low:g}, {high:g}); write (low, high)")
        found[name] = Interval(low, high)
    return found


def _end(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    WORKER.start()
    serve(server)
