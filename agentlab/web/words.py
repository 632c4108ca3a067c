"""What a page is made of on its way to a browser: numbers that JSON has words for, formulas as trees and as MathML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

import numpy as np

from agentlab.law import Call, Node, Num

DIGITS = 7
"""Significant digits of figures that are only drawn."""

MATHML = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mstyle", "mfrac", "msup", "msub", "msubsup", "msqrt", "mroot",
    "mfenced", "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mpadded", "mphantom", "menclose",
}  # fmt: skip
"""Elements that a formula may consist of."""


def plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value comes and goes
    """The value with arrays as lists, and None for numbers that are not finite, also where a trace spells them out."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def finite(value: object) -> float | None:
    """A number of a trace, None where it is "inf", "-inf", "nan" or missing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def drawn(values: Sequence[float] | np.ndarray[Any, Any]) -> list[float | None]:
    """Numbers for a figure: DIGITS significant digits, None where they are not finite."""
    return [float(f"{v:.{DIGITS}g}") if math.isfinite(v) else None for v in map(float, values)]


def coded(words: Sequence[str]) -> dict[str, Any]:
    """Words as numbers: `words` holds each once, in order of appearance, `codes` one number for every place."""
    known: dict[str, int] = {}
    codes = [known.setdefault(word, len(known)) for word in words]
    return {"words": list(known), "codes": codes}


def tree(node: Node) -> Any:  # noqa: ANN401 - a number, a name, or an operation with its arguments
    """The tree of a law: a number, a name, or [operation, argument, ..]."""
    if isinstance(node, Num):
        return node.value
    if isinstance(node, Call):
        return [node.op, *(tree(a) for a in node.args)]
    return node.name


@lru_cache(maxsize=4096)
def mathml(latex: str) -> Any:  # noqa: ANN401 - nested lists of the elements, None where there are none
    """LaTeX as [tag, text, child, ..], elements of MATHML alone; None where it cannot be read."""
    from latex2mathml import converter, exceptions  # noqa: PLC0415 - slow to import, and only pages need it

    own = (e for e in vars(exceptions).values() if isinstance(e, type) and issubclass(e, Exception))
    refusals: tuple[type[Exception], ...] = (*own, ParseError, ValueError, LookupError, TypeError, RecursionError)
    try:
        return _element(fromstring(converter.convert(latex)))  # noqa: S314 - what the converter wrote a moment ago
    except refusals:
        return None


def _element(node: Element) -> list[Any]:
    tag = node.tag.rpartition("}")[2]
    if tag not in MATHML:
        raise ValueError(tag)
    return [tag, (node.text or "").strip(), *(_element(child) for child in node)]
