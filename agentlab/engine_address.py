"""Where a Ray cluster is: the address that was given, knocked at before anything is started."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from collections.abc import Mapping

from agentlab.errors import BackendError

ADDRESS = "RAY_ADDRESS"
"""Variable that names the cluster where no address is given; without it one of this machine is started."""
LOCAL = "local"
KNOCK = 5.0
"""Seconds for a first answer."""
TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")
"""Ray's own variables for a cluster that asks for a token: only what joins the cluster gets them."""
_FORM = re.compile(r"(?P<client>ray://)?\[?(?P<host>[^\s/\[\]]+)\]?:(?P<port>\d{1,5})")


def token(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What of our environment proves to a cluster that we may join; nothing where it asks for nothing."""
    return {name: env[name] for name in TOKEN if name in env}


def reach(address: str | None, env: Mapping[str, str] = os.environ) -> str:
    """Where to join: the address, else that of $RAY_ADDRESS, else "local"; something answers there.

    Ray itself waits for minutes where nothing answers, and cannot be interrupted meanwhile.

    Raises:
        BackendError: Ray is not installed, or nothing answers.
    """
    if importlib.util.find_spec("ray") is None:
        raise BackendError("engine=ray: the package ray is missing; pip install '.[ray]' in the checkout")
    place = address or env.get(ADDRESS) or LOCAL
    if place == LOCAL:
        return place
    found = _FORM.fullmatch(place)
    if found is None:
        raise BackendError(f"engine=ray: {place!r} is no address; write HOST:PORT, as `ray start --head` prints it")
    if found["client"] and importlib.util.find_spec("grpc") is None:
        raise BackendError(f"engine=ray: {place} needs Ray's client; pip install 'ray[client]', or write HOST:PORT")
    try:
        socket.create_connection((found["host"], int(found["port"])), timeout=KNOCK).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise BackendError(
            f"engine=ray: no cluster answers at {place}; start one with `ray start --head` and write what it prints"
        ) from error
    return place
