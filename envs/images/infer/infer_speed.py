"""Times and memory of a checkpoint: prefill and decode apart, against batch and length."""

import resource
import time
from typing import Any

import torch
from infer_lines import InferError
from infer_model import Stock, stock
from infer_plan import Speed, cells
from infer_times import Timed, measure_all
from torch import Tensor


def speed(request: Speed) -> dict[str, object]:
    """Medians for each pair. Prompts are random tokens; the likeliest token is taken at each step.

    `ttft_seconds` is the forward pass over the prompts, `seconds_per_token` one decoding step of the whole batch,
    `tokens_per_second` what all sequences together gain by decoding. Bytes of memory: parameters, the largest cache of
    keys and values, the peaks of the process and of the device.
    """
    with stock(request) as model, torch.inference_mode():
        longest = max(request.lengths) + request.new_tokens
        if longest > model.positions:
            what = f"{longest} tokens for a model of {model.positions} positions"
            raise InferError(what, "lengths", f"write at most {model.positions - request.new_tokens}")
        chance = torch.Generator().manual_seed(request.seed)
        cached = [0]

        def measure(batch: int, length: int, _: int) -> Timed:
            prompt = torch.randint(len(model.tokenizer), (batch, length), generator=chance)
            timed, held = time_once(model.model, prompt.to(model.model.device), request.new_tokens)
            cached[0] = max(cached[0], held)
            return timed

        result = measure_all(request, measure)
        return result | {
            "memory_bytes": _memory(model) | {"cache": cached[0]}, "device": model.model.device.type,
            "dtype": request.dtype, "threads": request.threads, "pairs": len(cells(request)),
        }  # fmt: skip


def time_once(model: Any, prompt: Tensor, steps: int) -> tuple[Timed, int]:  # noqa: ANN401 - a model of transformers
    """One prefill of a prompt (batch, length) and `steps` decoding steps; bytes of the cache at the end."""
    begun, worked = _now(prompt.device), time.process_time()
    out = model(prompt, use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1:].argmax(-1)
    first, worked_first = _now(prompt.device), time.process_time()
    for _ in range(steps):
        out = model(token, use_cache=True, cache=out.cache)
        token = out.logits[:, -1:].argmax(-1)
    end, worked_end = _now(prompt.device), time.process_time()
    decode = end - first
    busy = (worked_first - worked, (worked_end - worked_first) / steps) if prompt.device.type == "cpu" else None
    return Timed(first - begun, decode / steps, len(prompt) * steps / decode, busy=busy), _cache_bytes(out.cache)


def _now(device: torch.device) -> float:
    """The clock, when the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _cache_bytes(cache: object) -> int:
    layers = getattr(cache, "layers", [])
    tensors = [t for layer in layers for t in (layer.keys, layer.values) if isinstance(t, Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)


def _memory(model: Stock) -> dict[str, int]:
    found = {
        "parameters": sum(p.numel() * p.element_size() for p in model.model.parameters()),
        "peak_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if model.model.device.type == "cuda":
        found["peak_device"] = torch.cuda.max_memory_allocated(model.model.device)
    return found
