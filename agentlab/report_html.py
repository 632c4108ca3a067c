"""A report as one HTML file: formulas are MathML, figures SVG, every figure says where it stands on record."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from agentlab.replay_page import mathml, whole
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
    Row,
    Sourced,
)


def html(title: str, blocks: Sequence[Block]) -> str:
    """The page. Every text is escaped; nothing is loaded from elsewhere."""
    return whole(title, "".join(_block(b) for b in blocks) + _references())


def _block(block: Block) -> str:
    match block:
        case Heading(parts, level):
            return f"<h{level}>{_inline(parts)}</h{level}>"
        case Para(parts, lead):
            return f'<p class="verdict">{_inline(parts)}</p>' if lead else f"<p>{_inline(parts)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{_inline(i)}</li>' for i in items)}</ul>"
        case Grid():
            return _grid(block)
        case Math(latex, text):
            return f'<div class="law">{mathml(latex)}</div><p><code>{escape(text)}</code></p>'
        case Picture(figure, caption, ref):
            return (
                f'<figure data-ref="{escape(ref)}">{figure.svg()}<figcaption>{_inline(caption)}{_ref(ref)}'
                "</figcaption></figure>"
            )
        case Pre(text, folded):
            inner = f"<pre>{escape(text)}</pre>"
            return f"<details><summary>{escape(folded)}</summary>{inner}</details>" if folded else inner


def _grid(grid: Grid) -> str:
    referred = any(row.ref for row in grid.rows)
    head = "".join(f"<th>{_part(p, alone=False)}</th>" for p in grid.head) + ("<th>record</th>" if referred else "")
    body = "".join(_row(row, referred=referred) for row in grid.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(row: Row, *, referred: bool) -> str:
    cells = "".join(f"<td>{_cell(c, row.ref)}</td>" for c in row.cells)
    last = f"<td>{_ref(row.ref) if row.ref else ''}</td>" if referred else ""
    return f"<tr>{cells}{last}</tr>"


def _cell(part: Part | None, ref: str) -> str:
    if part is None or part == BLANK:
        return f'<span class="blank">{BLANK}</span>'
    return _part(part, alone=not (isinstance(part, Sourced) and part.ref == ref))


def _inline(parts: Parts) -> str:
    return "".join(_part(p) for p in parts)


def _part(part: Part, *, alone: bool = True) -> str:
    """A part; a figure that stands `alone` has its reference beside it, others have it at the end of their row."""
    if isinstance(part, Sourced):
        value = f'<span class="v" data-ref="{escape(part.ref)}" title="{escape(part.ref)}">{escape(part.text)}</span>'
        return value + (_ref(part.ref) if alone else "")
    return f"<code>{escape(part.text)}</code>" if isinstance(part, Code) else escape(part)


def _ref(ref: str) -> str:
    return f' <a class="ref" href="#references">[{escape(ref)}]</a>'


def _references() -> str:
    rows = "".join(f"<tr><td><code>[{escape(k)}]</code></td><td>{escape(v)}</td></tr>" for k, v in REFERENCES.items())
    return f'<h2 id="references">References</h2><table><tbody>{rows}</tbody></table>'
