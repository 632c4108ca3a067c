"""Which OpenAI-compatible servers may be asked, and with which key: what an agent writes here must leak nothing."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from mcp.server.mcpserver.exceptions import ToolError

BASE_URLS = "AGENTLAB_BASE_URLS"
"""Variable with the addresses beyond this machine that may be asked, apart by commas or blanks."""
KEY_NAME = r"^[A-Z][A-Z0-9_]*API_KEY$"
"""Pattern of a variable that may be sent as a key: no other secret of the environment can be named."""


def checked_url(base_url: str, allowed: str | None = None) -> str:
    """The address, without a slash at its end.

    Args:
        base_url: What was asked for.
        allowed: Addresses beyond this machine; without it what AGENTLAB_BASE_URLS holds.

    Raises:
        ToolError: it is no address of a server, holds a secret, or is neither on this machine nor allowed.
    """
    parts = _split(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ToolError(f"base_url; {_shown(base_url)!r} is no address of a server; write http://HOST:PORT/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ToolError("base_url; an address must hold no user, password, query or fragment; use key_variable")
    others = re.split(r"[\s,]+", os.environ.get(BASE_URLS, "") if allowed is None else allowed)
    if not _on_this_machine(parts.hostname) and _origin(parts) not in {_origin(_split(u)) for u in others if u}:
        what = f"base_url; {parts.hostname} is not this machine"
        raise ToolError(f"{what}; whoever starts this server may allow it in {BASE_URLS}")
    return base_url.rstrip("/")


def key_of(variable: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variable with its value, for the environment of one program; {} where none is named.

    Raises:
        ToolError: it is no name of a key, or it is not set.
    """
    if not variable:
        return {}
    if not re.fullmatch(KEY_NAME, variable):
        raise ToolError("key_variable; this is no name of a key; write one that ends in API_KEY, never the key itself")
    value = (os.environ if environment is None else environment).get(variable)
    if not value:
        raise ToolError(f"key_variable; {variable} is not set; set it where this server is started")
    return {variable: value}


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        _ = parts.port  # raises on a bad one
    except ValueError as error:
        raise ToolError(f"base_url; {_shown(url)!r} is no address; write http://HOST:PORT/v1") from error
    return parts


def _shown(url: str) -> str:
    """The address without what may be a secret in it."""
    return re.sub(r"//[^@/]*@", "//", url)[:100].partition("?")[0]


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _on_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
