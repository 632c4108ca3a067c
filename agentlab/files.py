"""Small files that appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text so that a reader finds the old file or the new one, never half."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """The same for a value as JSON."""
    write_whole(path, json.dumps(value, indent=1) + "\n")
