"""Maximal-update parametrisation: what a wider model does in its first steps, and what it shares with its base."""

from __future__ import annotations

import math
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs agentlab-discovery[train]")

from torch import Tensor  # noqa: E402

IMAGE = Path(str(files("agentlab.envs"))) / "images" / "train"
sys.path.insert(0, str(IMAGE))

import train_export  # noqa: E402
import train_model  # noqa: E402
import train_mup  # noqa: E402
import train_ops  # noqa: E402
import train_optimizer  # noqa: E402
import train_plan  # noqa: E402

WIDTHS = (16, 32, 64, 128)
SHAPE = {"n_layers": 2, "n_heads": 2, "context": 16, "weight_decay": 0.0, "lr": 0.03}
MIXED = {"experts": 4, "top_k": 2, "split": 2, "shared": 1}
MUP = {"parametrisation": "mup", "base_width": 16, "base_head_width": 8}
STEPS = 8


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def config(width: int, **values: Any) -> train_plan.Config:
    found = train_plan.parse({
        "corpus": "c", "out": "o", "steps": 1, "d_model": width, "d_ff": 2 * width, **SHAPE, **values,
    })  # fmt: skip
    assert isinstance(found, train_plan.Config)
    return found


def activations(model: train_model.Transformer, tokens: Tensor) -> dict[str, Tensor]:
    """What each block and the head give."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, given, out: seen.__setitem__(name, out[0].detach())

    hooks = [block.register_forward_hook(keep(f"block {i}")) for i, block in enumerate(model.blocks)]
    seen["logits"] = model(tokens)[0].detach()
    for hook in hooks:
        hook.remove()
    return seen


def movement(c: train_plan.Config) -> dict[str, float]:
    """Mean |change| of the activations over a few steps of Adam on one batch."""
    tokens = torch.randint(256, (8, c.context + 1), generator=torch.Generator().manual_seed(1))
    model = train_model.Transformer(c)
    optimizer = train_optimizer.AdamW(model.named_parameters(), c)
    before = activations(model, tokens[:, :-1])
    for _ in range(STEPS):
        for p in model.parameters():
            p.grad = None
        torch.autograd.backward(
            train_ops.cross_entropy(model(tokens[:, :-1])[0].flatten(0, 1), tokens[:, 1:].flatten())
        )
        optimizer.step(c.lr)
    after = activations(model, tokens[:, :-1])
    return {name: float((after[name] - was).abs().mean()) for name, was in before.items()}


def slopes(**values: Any) -> dict[str, float]:
    """Slope of log mean |change| against log width, for each activation."""
    moves = [movement(config(width, **values)) for width in WIDTHS]
    x = torch.tensor(WIDTHS).log()
    x = x - x.mean()
    return {name: float(x @ torch.tensor([m[name] for m in moves]).log() / (x @ x)) for name in moves[0]}


@pytest.mark.parametrize("extra", [{}, MIXED], ids=["dense", "moe"])
def test_activations_move_alike_at_every_width_under_mup_and_more_at_larger_ones_without(extra: dict[str, Any]) -> None:
    # the coordinate check of arXiv 2203.03466, appendix D.1
    standard, mup = slopes(**extra), slopes(**extra, **MUP)
    assert max(abs(slope) for slope in mup.values()) < 0.2
    assert min(standard["block 0"], standard["block 1"]) > 0.9
    assert standard["logits"] > 0.3  # what the batch asks of them bounds their movement


def test_at_the_base_both_parametrisations_are_the_same_to_the_bit() -> None:
    for extra in ({}, MIXED):
        mup = {**MUP, "base_width": 32, "base_head_width": 16}
        plain, scaled = (config(32, weight_decay=0.1, **extra, **own) for own in ({}, mup))
        assert movement(plain) == movement(scaled)


def test_rates_fall_with_width_and_rate_times_decay_does_not() -> None:
    c = config(64, **MUP, d_ff=256, base_d_ff=32)
    for leaf, ratio in (("qkv", 4), ("out", 4), ("w_in", 4), ("w_out", 8), ("head", 4), ("router", 4)):
        factor = train_mup.scale(c, leaf)
        assert (factor.rate, factor.rate * factor.decay) == (1 / ratio, 1)
        assert factor.start == (0.5 if leaf in ("head", "router") else 1)
    for leaf in ("embedding", "positions", "norm", "norm_ffn"):
        assert train_mup.scale(c, leaf) == train_mup.Scale()


def test_a_tensor_without_gradient_decays_alike_at_every_width() -> None:
    left = []
    for width in (16, 64):
        c = config(width, **MUP, weight_decay=0.5)
        model = train_model.Transformer(c)
        before = model.head.detach().clone()
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        train_optimizer.AdamW(model.named_parameters(), c).step(0.1)
        left.append(float((model.head.detach() / before).mean()))
    assert left == pytest.approx([0.95, 0.95])


def test_heads_that_keep_their_width_keep_the_scale_of_their_scores() -> None:
    many = {"n_heads": 8, **MUP}
    assert train_mup.attention_scale(config(64, **many)) is None
    assert train_mup.attention_scale(config(64, **MUP)) == pytest.approx(math.sqrt(8) / 32)


def test_an_exported_model_has_the_scale_of_attention_in_its_queries() -> None:
    c = config(64, **MUP)
    model = train_model.Transformer(c)
    qkv = model.get_parameter("blocks.0.qkv").detach()
    ours = {name: p.detach().numpy() for name, p in model.named_parameters()}
    stock = train_export.weights(c, ours)
    rows = train_export._halves(qkv[:64].numpy(), c.n_heads)
    found = torch.from_numpy(stock["model.layers.0.self_attn.q_proj.weight"])
    torch.testing.assert_close(found, torch.from_numpy(rows) * math.sqrt(8 / 32))  # sqrt(8) / 32 over 1 / sqrt(32)


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"parametrisation": "mup", "base_head_width": 8}, "base_width", "lr was found"),
        ({"parametrisation": "mup", "base_width": 16}, "base_head_width", "write 32 if heads keep"),
        ({"base_width": 16}, "base_width", "mup"),
        ({"parametrisation": "mu"}, "parametrisation", "standard, mup"),
    ],
)
def test_a_base_that_is_missing_or_unused_is_refused(change: dict[str, Any], where: str, says: str) -> None:
    with pytest.raises(train_plan.ConfigError) as caught:
        config(64, **change)
    assert caught.value.where == where
    assert says in caught.value.instead
