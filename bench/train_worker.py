"""One side of bench/train.py in a process of its own: `train_worker.py SIDE SHAPE CORPUS`.

It says how many parameters it trains; then, for every number of steps on standard input, what they took: a JSON line
with seconds by the clock and of processor time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "envs" / "images" / "train"))

import torch
import train_allocator
import train_packed
import train_plan
import train_run
from torch import Tensor
from torch.nn import functional
from train_data import Corpus
from train_shapes import KEPT, OURS, PACKS, RUNS, SHAPES, STOCK

CUDA = torch.cuda.is_available()
PRODUCT = 2048
Step = Callable[[], object]


def config(shape: dict[str, Any], corpus: str, **values: Any) -> train_plan.Config:  # noqa: ANN401
    """A config of our trainer."""
    kind = {"dtype": "bfloat16"} if CUDA else {}
    return train_plan.parse({**shape, **kind, "corpus": corpus, "out": "unused", **values})


def trainer(c: train_plan.Config) -> train_run.Trainer:
    """Our trainer, before its first step."""
    return train_run.Trainer(c, train_plan.plan(c), Corpus(c))


def ours(c: train_plan.Config) -> tuple[int, Step]:
    """A step of our trainer, its loading of data included."""
    train_run.prepare()
    made = trainer(c)
    return made.plan.params, made._step  # noqa: SLF001 - the step alone, without reports and checkpoints


def stock(c: train_plan.Config, experts: str | None) -> tuple[int, Step]:
    """A step of transformers' model of the same shape, by torch's fused AdamW, on the same batches."""
    import transformers  # noqa: PLC0415 - takes seconds, and only this side needs it
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func  # noqa: PLC0415

    shape: dict[str, Any] = {
        "vocab_size": 256, "hidden_size": c.d_model, "num_hidden_layers": c.n_layers, "intermediate_size": c.d_ff,
        "num_attention_heads": c.n_heads, "num_key_value_heads": c.n_heads, "max_position_embeddings": c.context,
        "tie_word_embeddings": False, "use_cache": False, "attn_implementation": "sdpa",
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    model: Any
    if experts is None:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    else:
        mixture: dict[str, Any] = {
            "num_local_experts": c.experts,
            "num_experts_per_tok": c.top_k,
            "experts_implementation": experts,
        }
        asked = transformers.MixtralConfig(**shape, **mixture, sliding_window=None, output_router_logits=True)
        model = transformers.MixtralForCausalLM(asked)
    device = torch.device("cuda" if CUDA else "cpu")
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=c.lr, betas=(c.beta1, c.beta2), weight_decay=c.weight_decay, fused=True
    )
    corpus, at = Corpus(c), iter(range(c.steps))

    def step() -> None:
        windows = torch.from_numpy(corpus.batch(next(at), c.batch_sequences)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=CUDA):
            out = model(windows[:, :-1])
        loss = functional.cross_entropy(out.logits.float().view(-1, 256), windows[:, 1:].reshape(-1))
        float(loss.detach())
        if experts is not None:
            loss = loss + c.balance_coef * load_balancing_loss_func(out.router_logits, c.experts, c.top_k)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
        optimizer.step()
        optimizer.zero_grad()

    return sum(p.numel() for p in model.parameters()), step


def packed(shape: dict[str, Any], corpus: str, together: bool) -> tuple[int, Step]:
    """A step of several runs, packed or one after the other."""
    train_run.prepare()
    made = [trainer(config(shape, corpus, seed=i)) for i in range(16 if CUDA else RUNS)]
    if together:
        pack = train_packed.Pack(made)
        return made[0].plan.params * len(made), lambda: pack._step(shape["steps"])  # noqa: SLF001

    return made[0].plan.params * len(made), lambda: [t._step() for t in made]  # noqa: SLF001


def product() -> tuple[int, Step]:
    """A large matrix product, which says what the machine can do."""
    kind = {"dtype": torch.bfloat16, "device": "cuda"} if CUDA else {}
    size = PRODUCT * (4 if CUDA else 1)
    a, b = torch.randn(size, size, **kind), torch.randn(size, size, **kind)  # type: ignore[call-overload]
    return size, lambda: torch.mm(a, b)


def loading(c: train_plan.Config) -> tuple[int, Step]:
    """A batch, as a step of our trainer reads it."""
    corpus, at = Corpus(c), iter(range(c.steps))

    def read() -> Tensor:
        return torch.from_numpy(corpus.batch(next(at), c.batch_sequences))

    return 0, read


def side(name: str, shape: str, corpus: str) -> tuple[int, Step]:
    """What is asked for on the command line."""
    if name == "product":
        return product()
    if name in ("packed", "one by one"):
        return packed(PACKS[shape], corpus, name == "packed")
    c = config(SHAPES[shape], corpus, **OURS.get(name, {}))
    if name == "loading":
        return loading(c)
    if name in OURS:
        return ours(c)
    if name.endswith(KEPT):
        train_allocator.keep_blocks()
    return stock(c, STOCK[name.removesuffix(KEPT)] if c.experts else None)


def main() -> None:
    """Three steps to warm up, then as many as asked for."""
    torch.set_num_threads(1)
    params, step = side(*sys.argv[1:])
    for _ in range(3):
        step()
    print(json.dumps({"params": params}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            step()
        if CUDA:
            torch.cuda.synchronize()
        spent = {"clock": time.perf_counter() - began[0], "processor": time.process_time() - began[1]}
        print(json.dumps({what: seconds / int(line) for what, seconds in spent.items()}), flush=True)


if __name__ == "__main__":
    main()
