"""Small files that appear whole or not at all, and the folder of what can be made again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text so that a reader finds the old file or the new one, never half."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """The same for a value as JSON."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def sync(path: Path) -> None:
    """Bring a file's bytes, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """The user's cache folder for agentlab, which need not be there yet."""
    return Path(env.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "agentlab"
