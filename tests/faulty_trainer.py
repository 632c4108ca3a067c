"""The trainer, broken at a chosen place: faults of the machine for the tests and the bench of replicas.

    faulty_trainer.py FAULTS.json RUN.json [--segment]     trains
    faulty_trainer.py --serve SOCKET                       forks trainers, which saves the seconds that torch takes to
                                                           load, for faulty_trainer_client.py; ends with its input

A fault is addressed by segment and run (the folders that a replica gets are named so), and happens before a step.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

IMAGE = Path(__file__).resolve().parents[1] / "envs" / "images" / "train"
Kind = Literal["flip", "nan", "killed", "truncated", "stalled"]
KINDS: tuple[Kind, ...] = ("flip", "nan", "killed", "truncated", "stalled")


@dataclass(frozen=True)
class Fault:
    """What breaks, in which run of which segment, before which step; a flip also has its weight and bit (31: sign).

    Weights are counted through all parameters of the model, in its order. A flip before the step that is never done
    happens when the last state has been saved, before it is validated and exported.
    """

    kind: Kind
    segment: int
    run: int
    step: int = 0
    weight: int = 0
    bit: int = 22


def write_faults(path: Path, faults: Sequence[Fault]) -> Path:
    """Leaves the faults where the trainer finds them."""
    path.write_text(json.dumps([asdict(f) for f in faults]), encoding="utf-8")
    return path


@contextmanager
def warm(folder: Path) -> Iterator[tuple[str, ...]]:
    """A command that runs the trainer with the faults in a file: `(*command, FAULTS.json, RUN.json)`."""
    path = folder / "socket"
    with subprocess.Popen(
        [sys.executable, __file__, "--serve", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield (sys.executable, "-I", "-S", __file__.replace(".py", "_client.py"), str(path))
        finally:
            server.kill()


def train(arguments: Sequence[str]) -> int:
    """The trainer's main with the faults in the first file that concern the run in the second."""
    faults, run = Path(arguments[0]), Path(arguments[1])
    named = run.parent.parent.name, run.parent.name
    here = (int(named[0]), int(named[1])) if all(n.isdigit() for n in named) else None
    mine = [f for f in (Fault(**f) for f in json.loads(faults.read_text())) if (f.segment, f.run) == here]
    sys.path.insert(0, str(IMAGE))
    for fault in mine:
        _break(fault)
    import main as trainer  # noqa: PLC0415 - torch is loaded where the trainer runs, and not by who asks for it

    code = trainer.main(list(arguments[1:]))
    for fault in mine:
        if fault.kind == "truncated":
            name = next(n for n in ("checkpoint.pt", "model.safetensors") if (run.parent / n).exists())
            os.truncate(run.parent / name, (run.parent / name).stat().st_size // 2)
    return code


def _break(fault: Fault) -> None:
    import train_run  # noqa: PLC0415

    sound_step, sound_logits = train_run.Trainer._step, train_run.Trainer._logits
    sound_validate = train_run.Trainer.validate

    def validate(self: train_run.Trainer) -> dict[str, float]:
        if self.step == fault.step and fault.kind == "flip":
            _flip(self.parameters, fault)
        return sound_validate(self)

    def logits(self: train_run.Trainer, windows: torch.Tensor) -> object:
        found, routing = sound_logits(self, windows)
        return found * float("nan"), routing

    def step(self: train_run.Trainer) -> bool:
        if self.step == fault.step and fault.kind == "flip":
            _flip(self.parameters, fault)
        elif self.step == fault.step and fault.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.step == fault.step and fault.kind == "stalled":
            signal.pause()
        broken = self.step == fault.step and fault.kind == "nan"
        train_run.Trainer._logits = logits if broken else sound_logits  # type: ignore[method-assign, assignment]
        return sound_step(self)

    train_run.Trainer._step = step  # type: ignore[method-assign]
    train_run.Trainer.validate = validate  # type: ignore[method-assign]


def _flip(parameters: Sequence[torch.Tensor], fault: Fault) -> None:
    import torch  # noqa: PLC0415

    place = fault.weight
    for q in parameters:
        if place < q.numel():
            bits = q.detach().view(-1).view(torch.int32)
            bits[place] ^= torch.tensor(1 << fault.bit if fault.bit < 31 else -(1 << 31), dtype=torch.int32)
            return
        place -= q.numel()
    raise ValueError(f"weight {fault.weight}: the model has fewer")


# ---- forked from a process that has torch loaded ----


def serve(path: str) -> int:
    """Forks a trainer for everyone who asks, until standard input ends."""
    sys.path.insert(0, str(IMAGE))
    import numpy.random  # noqa: F401, PLC0415 - what the forks then need not load
    import train_run  # noqa: F401, PLC0415

    gc.freeze()  # so that collecting in a fork does not copy what it shares

    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen(16)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    _fork(listener, selector)
                elif key.fileobj is sys.stdin:
                    return 0
                else:
                    _end(key, selector)


def _fork(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    client, _ = listener.accept()
    message, handles, _, _ = socket.recv_fds(client, 1 << 16, 2)
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it goes with the one that forked it
        client.close()
        os.dup2(handles[0], 1)
        os.dup2(handles[1], 2)
        os.setsid()
        code = 1
        try:
            code = train(message.decode().split("\0"))
        finally:
            os._exit(code)
    for handle in handles:
        os.close(handle)
    ended = os.pidfd_open(pid)
    selector.register(ended, selectors.EVENT_READ, (pid, client))
    selector.register(client, selectors.EVENT_READ, (pid, ended))


def _end(key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
    """The fork ended, or who asked for it did."""
    pid, other = key.data
    client, ended = (key.fileobj, other) if isinstance(key.fileobj, socket.socket) else (other, key.fd)
    if client is key.fileobj:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    for one in (client, ended):
        selector.unregister(one)
    os.close(ended)
    with client:
        try:
            client.sendall(str(status).encode())
        except OSError:
            return  # nobody waits for it


if __name__ == "__main__":
    sys.exit(serve(sys.argv[2]) if sys.argv[1] == "--serve" else train(sys.argv[1:]))
