"""What the verbs of the command line share: their words and switches, and the JSON that they print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

Words = Annotated[list[str] | None, typer.Argument(metavar="key=value ...", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON line last.")]
Plain = Annotated[bool, typer.Option("--plain", help="Plain progress lines, no live display.")]


def print_json(value: object) -> None:
    """One JSON line; numbers that JSON has no word for are the strings "inf", "-inf" and "nan"."""
    from agentlab.trace import dump

    sys.stdout.write(dump(value).decode())
