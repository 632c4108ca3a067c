"""Serves the `server` of a module over HTTP without a token, for the conformance package, which can send none.

`python -m conformance.open_server MODULE` prints {"url": ..} and serves until SIGTERM. The application is the one that
`--http` serves; that it can be opened is a keyword of its builder, which no command line of ours reaches.
"""

from __future__ import annotations

import importlib
import json
import sys

from agentlab.tools._http import MAX_OPEN, Listening, bind, http_app, serve_app, url_of
from agentlab.tools._server import plain_log


def main() -> None:
    """Serve until told to stop."""
    server = importlib.import_module(sys.argv[1]).server
    plain_log()
    where = Listening()
    with bind(where) as sock:
        sys.stdout.write(json.dumps({"url": url_of(where, sock)}) + "\n")
        sys.stdout.flush()
        serve_app(http_app(server, where, sock.getsockname()[1], token=None), sock, MAX_OPEN)


if __name__ == "__main__":
    main()
