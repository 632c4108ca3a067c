"""A report as Markdown: the same blocks, with references in brackets; figures stand in the HTML file alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentlab.report_parts import (
    BLANK,
    REFERENCES,
    Block,
    Bullets,
    Code,
    Grid,
    Heading,
    Math,
    Para,
    Part,
    Parts,
    Picture,
    Pre,
    Sourced,
)

NO_BREAK = "\N{NO-BREAK SPACE}"
SHORT = 24
"""Characters of a figure that stays on one line; more are a sentence."""


def markdown(blocks: Sequence[Block]) -> str:
    """The report; figures are named with what they show."""
    parts = [_block(b) for b in blocks]
    parts.append("## References\n\n" + "\n".join(f"- `[{k}]` {v}" for k, v in REFERENCES.items()))
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading(parts, level):
            return f"{'#' * level} {_inline(parts)}"
        case Para(parts, lead):
            return f"**{_inline(parts)}**" if lead else _inline(parts)
        case Bullets(items):
            return "\n".join(f"- {_inline(i)}" for i in items)
        case Grid():
            return _grid(block)
        case Math(latex, text):
            return f"$${latex}$$\n\n{_code(text)}"
        case Picture(_, caption, ref):
            return f"Figure, in report.html: {_inline(caption)} [{ref}]"
        case Pre(text, _):
            fence = "`" * max(3, max((len(run) + 1 for run in re.findall("`+", text)), default=0))
            return f"{fence}\n{text}\n{fence}"


def _grid(grid: Grid) -> str:
    referred = any(row.ref for row in grid.rows)
    head = [_part(p) for p in grid.head] + (["record"] if referred else [])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in grid.rows:
        cells = [BLANK if c is None else _cell(c, row.ref) for c in row.cells]
        cells += [f"[{row.ref}]" if row.ref else ""] if referred else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(part: Part, ref: str) -> str:
    text = _escaped(part.text) if isinstance(part, Sourced) and part.ref == ref else _part(part)
    return text.replace("|", "\\|")


def _inline(parts: Parts) -> str:
    return "".join(_part(p) for p in parts)


def _part(part: Part) -> str:
    """A figure and its reference stay on one line."""
    if isinstance(part, Sourced):
        text = _escaped(part.text)
        return f"{text if len(text) > SHORT else text.replace(' ', NO_BREAK)}{NO_BREAK}[{part.ref}]"
    return _code(part.text) if isinstance(part, Code) else _escaped(part)


def _code(text: str) -> str:
    """A name or a formula on one line; a fence of its own could not be closed by what it holds."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def _escaped(text: str) -> str:
    """Text in which Markdown and HTML see no marks of their own."""
    return re.sub(r"([\\`*_<>\[\]])", r"\\\1", text) if text != BLANK else text
