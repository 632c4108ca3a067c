"""What the tools of the server `algebra` take and give."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Formula = Annotated[
    str,
    Field(
        max_length=4000,
        description="Such as E + A/N**a: the names in `variables` are columns, every other name is a parameter.",
    ),
]
Variables = Annotated[list[str], Field(max_length=64, description='The columns of the formula, such as ["N", "D"].')]
Sign = Literal["+", "-", "any"]
Signs = Annotated[dict[str, Sign], Field(description="Signs of names; a name without one is taken to be positive.")]
Seconds = Annotated[float, Field(gt=0, le=15, description="Time for one symbolic step.")]
Direction = Literal["rises", "falls", "constant", "turns", "unknown"]


class Rewritten(BaseModel):
    """A formula found by symbolic algebra, and at how many drawn points it was checked."""

    formula: str
    latex: str
    complexity: int = Field(description="nodes of the formula")
    checked: int = Field(description="drawn points at which it has the value that it must have")
    assumed: str = Field(description="the signs under which it holds")
    note: str = ""


class Limit(BaseModel):
    """Where a formula goes as one variable goes to 0 from above, or to infinity."""

    variable: str
    to: Literal["0", "inf"]
    limit: str = Field(description='a formula, "inf" or "-inf"; empty where it is not known or depends on parameters')
    how: Literal["symbolic", "points", "open"] = Field(
        description="symbolic: found by algebra and confirmed at points; points: seen at points only; open: not known"
    )
    note: str = ""


class Limits(BaseModel):
    """The limits of one formula."""

    limits: list[Limit]
    assumed: str


class Trend(BaseModel):
    """How a formula moves with one name in the box; weakly: what rises never falls."""

    name: str
    direction: Direction
    how: Literal["proven", "sampled"]
    cells: int = Field(description="parts of the box over which the slope was bounded")
    points: int = Field(description="points at which the slope was looked at; 0 where it was proven")
    rising_at: dict[str, float] | None = None
    falling_at: dict[str, float] | None = None
    note: str = ""


class Trends(BaseModel):
    """Monotonicity in each name asked for, and the box it holds in; null is no bound."""

    trends: list[Trend]
    box: dict[str, tuple[float | None, float | None]]


class Broken(BaseModel):
    """A term whose unit does not fit."""

    term: str
    inside: str
    unit: str
    needed: str
    advice: str


class Units(BaseModel):
    """Whether a formula can have units at all, and those its parameters must have."""

    ok: bool
    unit: str = Field(description="the formula's own; unit_of_E is the unit of a parameter that nothing fixes")
    parameters: dict[str, str]
    breaks: list[Broken]
    undeclared: list[str] = Field(description="variables without a unit, taken to be plain numbers")


class Key(BaseModel):
    """What a formula is, whatever its parameters are called and however it is written."""

    key: str = Field(description="equal for laws that are the same family of functions")
    structure: str
    complexity: int
    variables: list[str]
    parameters: list[str]
    linear: list[str] = Field(description="parameters in which the formula is jointly affine")
    formula: str


class Equivalence(BaseModel):
    """Whether two formulas say the same."""

    verdict: Literal[
        "same law", "same function", "each fits the other", "left fits right", "right fits left", "different"
    ]
    how: Literal["key", "points", "fit"] = Field(
        description="key: equal by rules; points: equal at drawn points; fit: each refitted to the other's values"
    )
    points: int
    error: float | None = Field(default=None, description="largest relative error of the refits")
    note: str = ""


class Text(BaseModel):
    """A formula written in another language."""

    text: str
