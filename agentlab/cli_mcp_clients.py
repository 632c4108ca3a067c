"""The configuration files of MCP clients: where they are, and how our server is put in with all else left as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.errors import AgentlabError, nearest

NAME = "agentlab"
"""What our server is called in a client."""
STARTUP_SECONDS, CALL_SECONDS = 30, 60
"""What Codex allows for start and call; its own defaults suit a machine that has nothing else to do."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client: its file for the user and for a project, below the home or the project's folder, and how it is merged.

    `kind` says whether the file names the transport of a server.
    """

    user: str
    project: str
    merge: Callable[[str, Mapping[str, Any]], str]
    kind: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A file as it would be: its whole new text, and whether that differs."""

    path: Path
    text: str
    changed: bool


def merged_json(text: str, entry: Mapping[str, Any]) -> str:
    """A JSON file with our server in `mcpServers`. Raises AgentlabError where it is no such file."""
    try:
        whole = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise AgentlabError(f"no JSON ({error})") from error
    servers = whole.setdefault("mcpServers", {}) if isinstance(whole, dict) else None
    if not isinstance(servers, dict):
        raise AgentlabError("no object with an object mcpServers")
    servers[NAME] = dict(entry)
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


_TABLE = re.compile(rf"^\s*\[\s*mcp_servers\s*\.\s*(\"{NAME}\"|'{NAME}'|{NAME})\s*(\.[^\]]*)?\]")


def merged_toml(text: str, entry: Mapping[str, Any]) -> str:
    """A TOML file with our server as [mcp_servers.agentlab]; its other lines stay as they are.

    Raises:
        AgentlabError: the file is no TOML, or writes our server in a way that cannot be replaced by lines.
    """
    before = _toml(text)
    kept: list[str] = []
    remarks: list[str] = []  # of the table that follows ours, as far as anybody can tell
    ours = False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            kept += remarks if ours else []
            ours = bool(_TABLE.match(line))
            remarks = []
        if not ours:
            kept.append(line)
        elif line.lstrip().startswith("#"):
            remarks.append(line)
        elif line.strip():
            remarks = []
    kept += remarks
    block = [f"[mcp_servers.{NAME}]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
    head = "".join(kept).rstrip()
    made = (f"{head}\n\n" if head else "") + "\n".join(block) + "\n"
    wanted = {**before, "mcp_servers": {**before.get("mcp_servers", {}), NAME: dict(entry)}}
    try:
        same = tomllib.loads(made) == wanted
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise AgentlabError(f"{NAME} stands there in a way that cannot be replaced; take it out of the file")
    return made


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AgentlabError(f"no TOML ({error})") from error


CLIENTS: Mapping[str, Client] = {
    "claude": Client(".claude.json", ".mcp.json", merged_json, kind=True),
    "cursor": Client(".cursor/mcp.json", ".cursor/mcp.json", merged_json),
    "codex": Client(".codex/config.toml", ".codex/config.toml", merged_toml),
}


def find(name: str) -> Client:
    """The client of that name. Raises AgentlabError for any other."""
    if name not in CLIENTS:
        raise AgentlabError(f"agentlab mcp install: no client {name!r}; {nearest(name, CLIENTS)}")
    return CLIENTS[name]


def entry_of(client: Client, roots: Sequence[Path], runs: str = "") -> dict[str, Any]:
    """How a client starts our server; without roots it serves the folder that the client works in."""
    program = Path(sys.executable).with_name("agentlab")
    found = shutil.which("agentlab") or ""
    args = ["mcp", *(word for root in roots for word in ("--root", str(root))), *(["--runs", runs] if runs else [])]
    entry: dict[str, Any] = {"type": "stdio"} if client.kind else {}
    entry |= {"command": str(program) if program.exists() else found or "agentlab", "args": args}
    slow = {"startup_timeout_sec": STARTUP_SECONDS, "tool_timeout_sec": CALL_SECONDS}
    return entry | (slow if client.merge is merged_toml else {})


def change(client: Client, folder: Path, entry: Mapping[str, Any], *, project: bool) -> Change:
    """The client's file below `folder` with our server in it; nothing is written.

    Raises:
        AgentlabError: the file is broken or cannot be read; it is left as it is.
    """
    path = (folder / (client.project if project else client.user)).resolve()
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        made = client.merge(text, entry)
    except (OSError, UnicodeDecodeError) as error:
        raise AgentlabError(f"{path} cannot be read ({error}); it is left as it is") from error
    except AgentlabError as error:
        raise AgentlabError(f"{path} holds {error}; it is left as it is: mend it, then install again") from error
    return Change(path, made, changed=made != text)


def apply(made: Change) -> Path | None:
    """Write the file, whole or not at all and with the rights it had; the copy of what was there, None for a new one.

    Raises:
        AgentlabError: the folder cannot be written.
    """
    path = made.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        backup = _backup(path) if path.exists() else None
        rights = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, rights), "w", encoding="utf-8") as file:
            file.write(made.text)
        temporary.replace(path)
    except OSError as error:
        raise AgentlabError(f"{path} cannot be written ({error.strerror}); give rights to its folder") from error
    return backup


def _backup(path: Path) -> Path:
    number = 0
    while (copy := path.with_name(f"{path.name}.bak{number or ''}")).exists():
        number += 1
    shutil.copy2(path, copy)
    return copy
