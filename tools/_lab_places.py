"""Where the lab may read and write: roots for rows, one folder for runs, and nothing that holds sealed rows.

Rows come as the path of a table below a root or in a data folder ($AGENTLAB_DATA), or as CSV text. Runs are named by
id, never by path. Every path is followed to its end before it is judged: links and `..` lead nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from pathlib import Path

from agentlab.tools._jobs import NAME
from agentlab.tools._sealed import SealedError, refuse_sealed
from mcp.server.mcpserver.exceptions import ToolError

from agentlab.catalog import data_folders, task_names
from agentlab.errors import nearest
from agentlab.files import cache_folder

ROOTS = "AGENTLAB_MCP_ROOTS"
"""Variable with the folders below which tables may be read, a path list; default is the current folder, if not /."""
RUNS = "AGENTLAB_MCP_RUNS"
"""Variable with the folder of the runs; default is `runs` in the first root."""

MOST_CSV = 1 << 20
"""Characters of rows that come as text."""
TABLES = (".csv", ".tsv", ".txt")
INLINE = ".inline"
"""Folder under the runs' where rows that came as text are kept."""
CARDS = ".cards"
"""Folder under the runs' with the cards of audits that are of no run."""
_FILE = re.compile(r"\.(csv|tsv|txt|npz|json|toml)\s*$", re.IGNORECASE)


def roots() -> list[Path]:
    """The folders below which tables may be read, data folders last."""
    named = [Path(part).expanduser() for part in os.environ.get(ROOTS, "").split(os.pathsep) if part]
    here = [] if Path.cwd() == Path("/") else [Path.cwd()]
    return [folder.resolve() for folder in [*(named or here), *data_folders()]]


def runs_folder() -> Path:
    """Where runs lie, which need not be there yet."""
    given = os.environ.get(RUNS)
    if given:
        return Path(given).expanduser().resolve()
    first = next(iter(roots()[: -len(data_folders())]), None)
    return (cache_folder() if first is None else first).resolve() / "runs"


def table(data: str, csv: str) -> Path:
    """The file of the rows that a caller means: `data` is a path, `csv` the text itself.

    Raises:
        ToolError: neither or both are given, the file is outside the roots, no table, or holds sealed rows.
    """
    if bool(data) == bool(csv):
        raise ToolError("give the rows once: data= with the path of a CSV file, or csv= with its text")
    return _kept(csv) if csv else _found(data)


def _kept(text: str) -> Path:
    if len(text) > MOST_CSV:
        raise ToolError(
            f"csv: {len(text):,} characters; send at most {MOST_CSV:,}, or write a file and name it in data"
        )
    if len(text.strip().splitlines()) < 2:
        raise ToolError("csv: no rows; send a header line and one line a training run, with commas between the cells")
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = runs_folder() / INLINE / f"inline-{name}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")  # two callers may send the same rows
        own.write_text(text, encoding="utf-8")
        own.replace(path)
    return path


def _found(name: str) -> Path:
    if "\0" in name:
        raise ToolError("data: a path has no NUL; write the path of a CSV file")
    allowed = roots()
    below = ", ".join(str(r) for r in allowed)
    for place in (Path(name).expanduser(), *(root / name for root in allowed)):
        if not _is_there(place) or not (real := place.resolve()).is_file():
            continue
        if not any(real.is_relative_to(root) for root in allowed):
            raise ToolError(f"data: {name} is outside what this server may read; put the table below {below}")
        if real.suffix.lower() not in TABLES:
            raise ToolError(f"data: {name} is no table; name a file that ends in {', '.join(TABLES)}")
        try:
            refuse_sealed(place)
        except SealedError as error:
            raise ToolError(f"data: {error}") from error
        return real
    raise ToolError(f"data: no file {name}; files are looked for below {below}, or send the rows as csv=")


def _is_there(path: Path) -> bool:
    """Whether something of that name exists; a name that none can have is no crash."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def run_folder(run: str) -> Path:
    """The folder of a run by its id. Raises ToolError where there is none of that name."""
    home = runs_folder()
    folder = home / run
    if not re.fullmatch(NAME, run):
        raise ToolError(f"run: {run[:40]!r} is no run id; write one as discover_start gave it")
    if folder.is_symlink() or not (folder / "config.json").is_file():
        known = sorted((p.parent.name for p in home.glob("*/config.json")), reverse=True)
        raise ToolError(f"run: no run {run} in {home}; {nearest(run, known)}")
    return folder


def task_name(task: str) -> str:
    """The name of a task that is here; a folder is no name. Raises ToolError for any other."""
    known = task_names()
    if task not in known:
        raise ToolError(f"task: no task {task[:40]!r}; {nearest(task, known)}")
    return task


def expression(key: str, text: str | None) -> str | None:
    """An expression over columns, which must not name a file. Raises ToolError where it does."""
    if text is not None and (_FILE.search(text) or _is_there(Path(text))):
        raise ToolError(f'{key}: a file is not taken here; write an expression over columns, such as "N*D > 1e21"')
    return text
