"""Writes one HTML file that holds everything: the program of the page, its runs and the board; it opens from disk."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentlab import __version__
from agentlab.files import write_whole
from agentlab.replay import Run
from agentlab.types import AgentlabError
from agentlab.web.page import page_run
from agentlab.web.words import mathml, plain

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"

MOST = 4
"""Runs that are shown where none is named: as many as can be compared."""


def write_bundle(runs: Sequence[Run], out: Path, board: dict[str, Any]) -> Path:
    """Write the page of some runs and the board into the folder `out`, made where it is not there; the page's path.

    Raises:
        AgentlabError: the folder cannot be written.
    """
    text = page([page_run(run) for run in runs], board)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / INDEX, text)
    except OSError as error:
        raise AgentlabError(f"{out}: {error.strerror}; give a folder that can be written with --out") from error
    return out / INDEX


def board_told(url: str | None = None) -> dict[str, Any]:
    """The rows of the leaderboard with their laws as MathML, or why there are none."""
    from agentlab.leaderboard_rows import board_rows  # noqa: PLC0415 - a database, which a page of runs can do without

    try:
        found = board_rows(url)
    except AgentlabError as error:
        return {"rows": [], "missing": str(error)}
    return {"rows": [plain(r) | {"mathml": mathml(r.get("latex") or "")} for r in found], "missing": ""}


def page(runs: Sequence[dict[str, Any]], board: dict[str, Any], *, live: bool = False) -> str:
    """The page as HTML; nothing in it runs but the scripts that ship with it, and nothing is fetched unless `live`."""
    scripts = [path.read_text(encoding="utf-8") for path in (*STATIC.glob("vendor/*.js"), *sorted(STATIC.glob("*.js")))]
    setup = {"live": live, "version": __version__, "runs": [_named(run) for run in runs]}
    blocks = [("setup", _script_safe(json.dumps(setup))), ("board", packed(board))]
    blocks += [(f"run-{i}", packed(run)) for i, run in enumerate(runs)]
    data = "\n".join(f'<script type="text/plain" id="{name}">{text}</script>' for name, text in blocks)
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"
    )
    policy += "; form-action 'none'; connect-src " + ("'self'" if live else "'none'")
    title = f"{runs[0]['id']}: agentlab" if len(runs) == 1 else "agentlab"
    parts = {
        "POLICY": policy,
        "TITLE": html.escape(title),
        "STYLE": (STATIC / "style.css").read_text(encoding="utf-8"),
        "DATA": data,
        "SCRIPTS": "\n".join(f"<script>{text}</script>" for text in scripts),
    }
    pieces = (STATIC / "page.html").read_text(encoding="utf-8").split("{{")
    return pieces[0] + "".join(parts[name] + rest for name, rest in (p.split("}}", 1) for p in pieces[1:]))


def _named(run: dict[str, Any]) -> dict[str, Any]:
    """What the page says of a run before its data is unpacked."""
    return {k: run[k] for k in ("id", "task", "state", "seed", "proposer")}


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _script_safe(text: str) -> str:
    """JSON in which no end of a script can stand."""
    return text.replace("<", "\\u003c")


def packed(value: object) -> str:
    """JSON, compressed, in letters that HTML leaves alone; `unpacked` reads it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 9)).decode()


def unpacked(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """What `packed` packed."""
    return json.loads(zlib.decompress(base64.b64decode(text)))
