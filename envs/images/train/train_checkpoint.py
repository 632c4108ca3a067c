"""What a run leaves in its folder: lock, checkpoint, digest, model, result; each file appears whole or not at all."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from train_model import AdamW
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


def identity(c: Config) -> dict[str, object]:
    """The config without where its files lie."""
    return {f.name: getattr(c, f.name) for f in fields(c) if f.name not in ("corpus", "out")}


def digest(model: nn.Module) -> str:
    """sha256 over names and bytes of all parameters."""
    whole = hashlib.sha256()
    for name, q in model.named_parameters():
        whole.update(name.encode())
        whole.update(q.detach().cpu().contiguous().numpy().data)
    return whole.hexdigest()


def save(folder: Path, model: nn.Module, optimizer: AdamW, state: State, c: Config) -> str:
    """Writes the checkpoint and returns its file name."""
    content = {
        "model": model.state_dict(), "optimizer": optimizer.state(), "rng": torch.get_rng_state(),
        "state": asdict(state), "config": identity(c), "digest": digest(model),
    }  # fmt: skip
    part = folder / (CHECKPOINT + ".part")
    with part.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / CHECKPOINT)
    return CHECKPOINT


def load(folder: Path, model: nn.Module, optimizer: AdamW, c: Config) -> State | None:
    """Takes over the folder's checkpoint, None if there is none; raises ConfigError on one of another config."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    content = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    if content["config"] != identity(c):
        raise ConfigError("the checkpoint there is of another config", "out", "write an empty folder")
    model.load_state_dict(content["model"])
    optimizer.load(content["optimizer"])
    torch.set_rng_state(content["rng"].cpu())
    if digest(model) != content["digest"]:
        raise ConfigError("the checkpoint is damaged: its digest differs", "out", f"delete {CHECKPOINT}")
    return State(**content["state"])


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
