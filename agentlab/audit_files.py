"""A Law Card on disk: audit.json, audit.md and, where matplotlib is installed, the plots that the page shows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from agentlab.audit_page import markdown
from agentlab.audit_plots import draw, installed
from agentlab.audit_records import Card, Case
from agentlab.trace import dump
from agentlab.words import UsageError

JSON, PAGE = "audit.json", "audit.md"
WITHOUT_PLOTS = "no plots: matplotlib is missing; install it with pip install matplotlib (the extra `plot`)"


def record(card: Card) -> dict[str, Any]:
    """The card as JSON values; numbers that JSON has no word for are the strings "inf", "-inf" and "nan"."""
    return dict(json.loads(dump(dataclasses.asdict(card))))


def write(card: Card, case: Case, folder: Path) -> tuple[list[str], list[str]]:
    """Write the card into `folder`, which is made; the files written, and lines that say what is missing.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plots = draw(card, case, folder) if installed() else {}
        (folder / JSON).write_text(json.dumps(record(card) | {"plots": plots}, indent=1) + "\n", encoding="utf-8")
        (folder / PAGE).write_text(markdown(card, plots), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"out={folder}: {error.strerror}: {error.filename}; give a folder that can be written"
        ) from error
    names = [PAGE, JSON, *plots.values()]
    return [str(folder / n) for n in names], [] if installed() else [WITHOUT_PLOTS]
