"""Where tool servers are, and what of our environment they get."""

from __future__ import annotations

import ipaddress
import os
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from agentlab.errors import AgentlabError, BackendError

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""One thread a server: as many servers as cores compute side by side, and sums do not depend on the machine."""

_KEEP = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH"),
    *("CUDA_VISIBLE_DEVICES", "AGENTLAB_DATA", "AGENTLAB_JOBS", "AGENTLAB_MAX_JOBS", "AGENTLAB_BACKENDS"),
    *("AGENTLAB_BASE_URLS", "DOCKER_HOST", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"),
)
"""What of our environment a tool server gets: no keys, no tokens."""


def environment(*, keys: bool = False) -> dict[str, str]:
    """The environment of a tool server that we start; with `keys` also the variables that end in API_KEY."""
    named = [k for k in os.environ if k in _KEEP or (keys and k.endswith("API_KEY"))]
    return {k: os.environ[k] for k in named} | THREADS


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """Where a tool server is: a `module` with an object `server`, run as `python -m module` over stdio, or a `url`.

    `token_env` names the environment variable that holds the bearer token of a server at a URL. Calls to one copy wait
    for one another; give more `copies` for calls side by side. With `tasks` a tool that starts a job answers when the
    job has ended, where the server has the tasks extension; without, it answers at once and its job is polled. With
    `keys` a server that we start gets our API keys: one that speaks with other people's services needs them. `env` are
    variables of its own.
    """

    name: str
    module: str = ""
    copies: int = 1
    url: str = ""
    token_env: str = ""
    tasks: bool = False
    keys: bool = False
    env: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if bool(self.module) == bool(self.url):
            raise AgentlabError(f"tool server {self.name!r}: give either a module or a url")
        if self.copies < 1:
            raise AgentlabError(f"tool server {self.name!r}: copies={self.copies}; write 1 or more")
        if self.token_env and not (self.url.startswith("https://") or _is_loopback(self.url)):
            raise AgentlabError(f"tool server {self.name!r}: {self.url} would carry the token in clear; write https://")

    def unreachable(self) -> BackendError:
        """What to tell where nothing answers, and what to try."""
        if not self.url:
            return BackendError(f"tool server {self.name!r} did not start; try: python -m {self.module}")
        token = f", and is ${self.token_env} right" if self.token_env else ""
        return BackendError(f"tool server {self.name!r} did not answer at {self.url}; is it running{token}?")

    def token(self) -> str:
        """The bearer token. Raises BackendError where the variable that should hold it is not set."""
        token = os.environ.get(self.token_env, "").strip()
        if not token:
            raise BackendError(f"tool server {self.name!r}: set ${self.token_env} to its bearer token")
        return token


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
