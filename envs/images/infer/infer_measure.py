"""Times of prefill and decode on a model of random weights: one batch and length, one shape."""

from typing import Any

import infer_cost
import torch
from infer_lines import InferError
from infer_model import drawn
from infer_plan import Measure
from infer_speed import time_once
from infer_times import Timed, measure_all

MILLISECONDS = {
    "ttft_ms": "ttft_seconds", "tpot_ms": "seconds_per_token",
    "ttft_busy_ms": "ttft_busy_seconds", "tpot_busy_ms": "busy_seconds_per_token",
}  # fmt: skip
"""What is told in milliseconds, by the names of what was measured in seconds."""


def measure(request: Measure) -> dict[str, object]:
    """Medians and quartiles over the repetitions, in milliseconds, with cost and load. Prompts are random tokens.

    `ttft_ms` is the forward pass over the prompts, `tpot_ms` one decoding step of the whole batch. The same in time of
    the processor, `ttft_busy_ms` and `tpot_busy_ms`, is what one thread would need on a core of its own; None on CUDA.
    """
    cost = infer_cost.told(request)
    try:
        timed = _timed(request)
    except (MemoryError, RuntimeError) as error:  # torch says so of a device or a system without memory
        if "memory" not in str(error):
            raise
        raise InferError("the memory does not do", "batch", "write a smaller batch, length or model") from error
    return timed | cost | {"new_tokens": request.new_tokens, "dtype": request.dtype, "threads": request.threads}


def _timed(request: Measure) -> dict[str, object]:
    model = drawn(request)
    chance = torch.Generator().manual_seed(request.seed)

    def once(batch: int, length: int, _: int) -> Timed:
        prompt = torch.randint(infer_cost.VOCAB, (batch, length), generator=chance).to(model.device)
        return time_once(model, prompt, request.new_tokens)[0]

    with torch.inference_mode():
        result = measure_all(request, once)
    every: Any = result["cells"]
    cell, told = every[0], {}
    for name, of_cell in MILLISECONDS.items():
        told[name] = 1e3 * cell[of_cell] if of_cell in cell else None
        told[f"{name}_quartiles"] = [1e3 * t for t in cell[f"{of_cell}_quartiles"]] if of_cell in cell else None
    return told | {
        "tokens_per_second": cell["tokens_per_second"], "repeats": request.repeats, "warmup": request.warmup,
        "machine": result["machine"], "device": model.device.type,
    }  # fmt: skip
