"""What a run leaves in its folder: lock, checkpoint, digest, model, result; each file appears whole or not at all."""

import fcntl
import hashlib
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from train_optimizer import AdamW
from train_plan import Config, ConfigError, Plan

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class State:
    """Position and running figures; data and learning rate follow from the step."""

    step: int
    running: float
    spikes: int


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keeps a second trainer out of the folder; the system frees the lock however the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError("another process trains there", "out", "wait for it, or write another folder") from error
        yield


LATER = ("parametrisation", "base_width", "base_head_width", "base_d_ff", "compile", "expert_products")
"""Keys that configs had not always: at their defaults they leave no trace, so that older files stay valid."""


def identity(c: Config) -> dict[str, object]:
    """The config without where its files lie."""
    kept = (f for f in fields(c) if f.name not in ("corpus", "out"))
    return {f.name: getattr(c, f.name) for f in kept if f.name not in LATER or getattr(c, f.name) != f.default}


def digest(model: nn.Module) -> str:
    """sha256 over names and bytes of all parameters."""
    whole = hashlib.sha256()
    for name, q in model.named_parameters():
        whole.update(name.encode())
        whole.update(q.detach().cpu().contiguous().numpy().data)
    return whole.hexdigest()


def whole(content: Mapping[str, object]) -> str:
    """sha256 over all that the next step depends on: parameters, optimiser moments, generator, step, running figures.

    Names, types and shapes count as well as bytes, so that what is read back has the digest of what was written.
    """
    found = hashlib.sha256()
    for part in ("model", "optimizer", "rng", "state"):
        _hash(found, part, content[part])
    return found.hexdigest()


def _hash(found: "hashlib._Hash", name: str, value: object) -> None:
    if isinstance(value, Tensor):
        found.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        for key in sorted(value):
            _hash(found, f"{name}.{key}", value[key])
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _hash(found, f"{name}.{i}", item)
    else:
        found.update(f"{name}={value!r};".encode())  # numbers: repr keeps every bit of a float


@dataclass(frozen=True)
class Saved:
    """A checkpoint as it was written: its file's name, the digest of the state in it, and sha256 of its bytes."""

    name: str
    state: str
    sha256: str


class _Hashed:
    """A file that is written through, and the sha256 of what went into it, whatever the disk makes of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def content_of(model: nn.Module, optimizer: AdamW, state: State) -> dict[str, object]:
    """What a checkpoint holds of a run, before its labels."""
    return {
        "model": model.state_dict(), "optimizer": optimizer.state(), "rng": torch.get_rng_state(),
        "state": asdict(state),
    }  # fmt: skip


def save(
    folder: Path, model: nn.Module, optimizer: AdamW, state: State, c: Config, *, read_back: bool = False
) -> Saved:
    """Writes the checkpoint; with `read_back` the file must give the same state again, else ConfigError is raised."""
    content = content_of(model, optimizer, state)
    content |= {"config": identity(c), "digest": digest(model), "whole": whole(content)}
    part = folder / (CHECKPOINT + ".part")
    with part.open("wb") as file:
        through = _Hashed(file)
        torch.save(content, through)  # type: ignore[arg-type]  # it asks for write and flush alone
        file.flush()
        os.fsync(file.fileno())
    if read_back and whole(_read(part, "cpu")) != content["whole"]:
        raise ConfigError("the checkpoint does not read back as it was written", CHECKPOINT, "train the segment again")
    part.replace(folder / CHECKPOINT)
    return Saved(CHECKPOINT, str(content["whole"]), through.sha256.hexdigest())


def load(folder: Path, model: nn.Module, optimizer: AdamW, c: Config) -> tuple[State, str] | None:
    """Takes over the folder's checkpoint; its position and the digest of its whole state, None if there is none.

    Raises ConfigError on one that is damaged or of another config.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    content = _read(path, next(model.parameters()).device)
    if content["config"] != identity(c):
        raise ConfigError("the checkpoint there is of another config", "out", "write an empty folder")
    state = whole(content)
    if state != content.get("whole", state):  # one of an older trainer has none
        raise ConfigError("the checkpoint is damaged: its digest differs", CHECKPOINT, f"delete {CHECKPOINT}")
    model.load_state_dict(content["model"])
    optimizer.load(content["optimizer"])
    torch.set_rng_state(content["rng"].cpu())
    if digest(model) != content["digest"]:
        raise ConfigError("the checkpoint is damaged: its digest differs", "out", f"delete {CHECKPOINT}")
    return State(**content["state"]), state


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError("the checkpoint cannot be read", CHECKPOINT, f"delete {CHECKPOINT}") from error
    return content


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def export(folder: Path, model: nn.Module, c: Config) -> None:
    """The model as safetensors, its config in the metadata."""
    part = folder / "model.safetensors.part"
    tensors = {name: q.detach().cpu().contiguous() for name, q in model.named_parameters()}
    save_file(tensors, str(part), metadata={"config": json.dumps(identity(c), sort_keys=True)})
    part.replace(folder / "model.safetensors")


def write_result(folder: Path, result: dict[str, object], p: Plan) -> None:
    """result.json; the checkpoint has then served."""
    part = folder / "result.json.part"
    part.write_text(json.dumps({**result, "plan": asdict(p)}, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / "result.json")
    (folder / CHECKPOINT).unlink(missing_ok=True)
