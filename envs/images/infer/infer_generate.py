"""Continuations of a prompt by a checkpoint."""

import torch
from infer_lines import InferError, emit
from infer_model import stock
from infer_plan import Generate


def generate(request: Generate) -> dict[str, object]:
    """`count` continuations; the same seed gives the same ones on the same machine."""
    with stock(request) as model, torch.inference_mode():
        prompt, _ = model.encode(request.prompt)
        room = model.positions - len(prompt)
        if not prompt or room < request.new_tokens:
            what = f"{len(prompt)} tokens of prompt and {request.new_tokens} new ones, for {model.positions} positions"
            raise InferError(what, "new_tokens", f"write at most {max(room, 0)}, or a shorter prompt")
        emit("start", task="generate", steps=request.count)
        torch.manual_seed(request.seed)
        sampling = {"do_sample": True, "temperature": request.temperature} if request.temperature else {}
        texts, tokens = [], 0
        for number in range(1, request.count + 1):
            here = torch.tensor([prompt], device=model.model.device)
            out = model.model.generate(
                here, attention_mask=torch.ones_like(here), max_new_tokens=request.new_tokens, **(sampling or GREEDY)
            )[0, len(prompt) :]
            texts.append(model.tokenizer.decode(out, skip_special_tokens=True))
            tokens += len(out)
            emit("progress", step=number)
    return {"texts": texts, "prompt_tokens": len(prompt), "new_tokens": tokens}


GREEDY: dict[str, object] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
"""Sampling that a folder's generation_config.json asks for is switched off."""
