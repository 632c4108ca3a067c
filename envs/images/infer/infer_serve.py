"""Serves a checkpoint with `transformers serve` on loopback, for a bounded time; tells its address when it is up."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infer_lines import InferError, emit
from infer_model import stock_folder
from infer_plan import Serve

HOST = "127.0.0.1"
SCRIPT = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; sys.exit(main())"


def serve(request: Serve) -> dict[str, object]:
    """Returns when the time is over; a kill of the process tree ends it sooner. Raises InferError when it fails."""
    with stock_folder(request) as folder:
        port = request.port or _free_port()
        base_url, begun = f"http://{HOST}:{port}/v1", time.monotonic()
        emit("start", task="serve", base_url=base_url, model=str(folder))
        with _child(request, folder, port) as child:
            _wait_until_up(child, port, begun + request.start_seconds)
            emit("ready", ready=True, base_url=base_url, model=str(folder), start_seconds=time.monotonic() - begun)
            try:
                code = child.wait(request.seconds)
            except subprocess.TimeoutExpired:
                return {"base_url": base_url, "model": str(folder), "served_seconds": request.seconds}
        raise InferError(f"the server ended with code {code}", "serve", "see errors.txt in the job's folder")


@contextmanager
def _child(request: Serve, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    words = ["serve", str(folder), "--host", HOST, "--port", str(port), "--dtype", request.dtype]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the child is stopped below
    device = [] if request.device == "auto" else ["--device", request.device]
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words, *device], stdin=subprocess.DEVNULL, stdout=sys.stderr,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind((HOST, 0))
        port: int = s.getsockname()[1]
        return port


def _wait_until_up(child: subprocess.Popen[bytes], port: int, end: float) -> None:
    while time.monotonic() < end:
        if child.poll() is not None:
            raise InferError(f"the server ended with code {child.returncode}", "serve", "see errors.txt of the job")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise InferError("the server did not come up in time", "start_seconds", "write a larger one")
