"""Prompts are files: each holds the phrasings of one question, separated by a line of three dashes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("prompts")


@cache
def phrasings(name: str, folder: Path = FOLDER) -> tuple[str, ...]:
    """The phrasings in `NAME.md` of a folder, the base one first; `$word` stands where something is filled in."""
    text = (folder / f"{name}.md").read_text(encoding="utf-8")
    return tuple(part.strip() for part in text.split("\n---\n"))
