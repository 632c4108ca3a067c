"""The models of bench/train.py, and who trains them."""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {
    "d_model": 64, "n_layers": 3, "n_heads": 4, "d_ff": 256, "context": 128, "batch_sequences": 16, "lr": 0.003,
    "steps": 1_000_000, "threads": 1,
}  # fmt: skip
MIXTURE: dict[str, Any] = {"d_ff": 128, "top_k": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "dense": COMMON,
    "E=8": {**COMMON, **MIXTURE, "experts": 8},
    "E=64": {**COMMON, **MIXTURE, "experts": 64},
    "E=64, narrow": {**COMMON, **MIXTURE, "experts": 64, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64},
}
"""Widths of tasks/moe_leverage; an expert is half as wide as the dense feed-forward, so that two are as wide."""

SMALL: dict[str, Any] = {**COMMON, "d_model": 16, "n_layers": 2, "n_heads": 1, "d_ff": 64, "batch_sequences": 4}
PACKS: dict[str, dict[str, Any]] = {
    "smallest": SMALL,
    "smallest, E=8": {**SMALL, **MIXTURE, "d_ff": 32, "experts": 8},
    "dense": COMMON,
}
RUNS = 4
"""Packed runs on CPU; a GPU takes 16."""

OURS = {"ours": {}, "ours, groups": {"expert_products": "groups"}}
STOCK = {"stock eager": "eager", "stock grouped_mm": "grouped_mm"}
KEPT = ", our allocator"
"""Of a stock model: with the trainer's setting of the allocator, which it does not have by itself."""


def sides(shape: dict[str, Any]) -> list[str]:
    """Who is measured on a shape: all that transformers has for experts on this machine, and both of our layouts."""
    if not shape.get("experts"):
        return ["ours", "stock", "stock" + KEPT]
    return [*OURS, *STOCK, "stock grouped_mm" + KEPT]
