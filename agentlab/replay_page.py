"""An executed notebook as one HTML file that needs nothing else: no script, no network, light and dark."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from agentlab.replay_style import STYLE

HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
    'content="width=device-width, initial-scale=1"><meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"><title>{title}</title>"
    "<style>{style}</style></head><body><main>{body}</main></body></html>\n"
)


def page(notebook: Any, title: str) -> str:  # noqa: ANN401 - nbformat has no types
    """The notebook as a page; code is folded, outputs are shown."""
    body = "".join(_markdown(c.source) if c.cell_type == "markdown" else _code(c) for c in notebook.cells)
    return whole(title, body)


def whole(title: str, body: str) -> str:
    """A page around its body, which is HTML already."""
    return HEAD.format(title=escape(title), style=STYLE, body=body)


def _markdown(text: str) -> str:
    """Headings, paragraphs and `code`: all that the notebook's own text uses."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        level = len(block) - len(block.lstrip("#"))
        inner = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(block.lstrip("# "), quote=False))
        found.append(f"<h{level}>{inner}</h{level}>" if level else f"<p>{inner}</p>")
    return "".join(found)


def _code(cell: Any) -> str:  # noqa: ANN401 - nbformat has no types
    folded = "" if "parameters" not in cell.metadata.get("tags", ()) else " open"
    source = f"<details{folded}><summary>code</summary><pre>{escape(cell.source)}</pre></details>"
    return f'<section class="cell">{source}{"".join(_output(o) for o in cell.outputs)}</section>'


def _output(output: Any) -> str:  # noqa: ANN401 - nbformat has no types
    if output.output_type == "stream":
        return f"<pre>{escape(output.text)}</pre>"
    if output.output_type == "error":
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
        return f'<pre class="error">{escape(trace)}</pre>'
    data = output.data
    if "text/latex" in data:
        return f'<div class="law">{mathml(data["text/latex"].strip().strip("$"))}</div>'
    if "text/html" in data:  # tables and figures of agentlab, whose cells are escaped
        return f'<div class="scroll">{data["text/html"]}</div>'
    return f"<pre>{escape(data.get('text/plain', ''))}</pre>"


def mathml(latex: str) -> str:
    """A formula as MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert  # noqa: PLC0415 - only pages need it

    return str(convert(latex, display="block"))
