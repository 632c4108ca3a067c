"""Loss of a checkpoint on a text, in nats per byte: mean and standard error over evenly spaced windows."""

import math
from pathlib import Path

import numpy as np
import torch
from infer_lines import InferError, emit
from infer_model import Model, device_of, load
from infer_plan import Perplexity
from numpy.typing import NDArray
from torch import Tensor

DEFAULT_CONTEXT = 1024
"""Bytes predicted in a window by a model whose tokens are not bytes, where nothing is asked."""
TOKENS_AT_ONCE = 2048
"""Tokens in one forward pass: the trainer's own, so that sums are taken over the same batches."""


def perplexity(request: Perplexity) -> dict[str, object]:
    """Nats per byte; for a byte model on the file that it was validated on, the trainer's `valid_loss`."""
    model, device = load(request), device_of(request)
    context = request.context or (model.positions if model.byte_tokens else DEFAULT_CONTEXT)
    if model.byte_tokens and context > model.positions:
        what = f"{context} is longer than the {model.positions} positions of the model"
        raise InferError(what, "context", f"write at most {model.positions}")
    windows = read_windows(Path(request.data), context, request.windows)
    emit("start", task="perplexity", steps=len(windows), context=context)
    with torch.inference_mode():
        losses, tokens, scored = (_of_bytes if model.byte_tokens else _of_text)(model, windows, device)
    mean, error = float(losses.mean()), float(losses.std() / math.sqrt(len(losses)))
    return {
        "nats_per_byte": mean, "standard_error": error, "bits_per_byte": mean / math.log(2),
        "perplexity_per_byte": math.exp(mean), "windows": len(windows), "context": context,
        "bytes_scored": scored, "tokens_scored": tokens, "byte_tokens": model.byte_tokens,
    }  # fmt: skip


def read_windows(path: Path, context: int, count: int) -> NDArray[np.uint8]:
    """Windows [count, context + 1] of the file, evenly spaced as the trainer's validation; raises InferError."""
    if not path.is_file():
        raise InferError(f"{path} is not there", "data", "write the path of a file of text")
    data = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
    if len(data) < context + 2:
        raise InferError(f"{path} has only {len(data)} bytes", "data", f"give at least {context + 2}, or less context")
    starts = np.linspace(0, len(data) - context - 1, count).astype(np.int64)
    windows: NDArray[np.uint8] = data[starts[:, None] + np.arange(context + 1)]
    return windows


def _of_bytes(model: Model, windows: NDArray[np.uint8], device: torch.device) -> tuple[Tensor, int, int]:
    """Mean loss of each window [count], all its bytes but the first predicted; tokens and bytes predicted."""
    losses, whole = [], torch.from_numpy(windows.astype(np.int64))
    done = 0
    for part in torch.split(whole, max(1, TOKENS_AT_ONCE // (whole.shape[1] - 1))):
        here = part.to(device)
        each = torch.nn.functional.cross_entropy(
            model.logits(here[:, :-1]).transpose(1, 2), here[:, 1:], reduction="none"
        )
        losses.append(each.double().mean(1).cpu())
        done += len(part)
        emit("progress", step=done, loss=float(torch.cat(losses).mean()))
    predicted = whole[:, 1:].numel()
    return torch.cat(losses), predicted, predicted


def _of_text(model: Model, windows: NDArray[np.uint8], device: torch.device) -> tuple[Tensor, int, int]:
    """Loss of each window over the bytes that its tokens after the first stand for.

    A letter cut by an end of the window is left out.
    """
    losses, tokens, scored = [], 0, 0
    for number, window in enumerate(windows, 1):
        text = window.tobytes().decode("utf-8", errors="ignore")
        ids, first = model.encode(text)
        count = len(text.encode()) - first
        if len(ids) < 2 or not count:
            raise InferError(f"window {number} gives {len(ids)} tokens", "context", "write a larger one, or give text")
        if len(ids) > model.positions + 1:
            what = f"window {number} gives {len(ids)} tokens to a model of {model.positions} positions"
            raise InferError(what, "context", "write a smaller one")
        here = torch.tensor([ids], device=device)
        loss = torch.nn.functional.cross_entropy(model.logits(here[:, :-1])[0], here[0, 1:], reduction="sum")
        losses.append(float(loss) / count)
        tokens, scored = tokens + len(ids) - 1, scored + count
        emit("progress", step=number, loss=sum(losses) / number)
    return torch.tensor(losses, dtype=torch.float64), tokens, scored
