"""Maximal-update parametrisation: what width does to each tensor's start, learning rate and weight decay.

The rules are those for Adam of arXiv 2203.03466 in the form of its table 3, where the output multiplier of table 8 has
gone into start and learning rate of the matrix: for Adam both train alike, and a trained model needs no multiplier, so
that it can be exported and served as it stands. With r = width of the input over that of the base model:

| tensors | start | learning rate |
|---|---|---|
| embedding, positions, norms | as in the base | as in the base |
| matrices of attention, feed-forward and experts | variance / r, as in the standard parametrisation | / r |
| output head, router: they map a growing width to a fixed number | variance / r**2 | / r |

The base model is the config with d_model = base_width, d_ff = base_d_ff and heads of base_head_width; there both
parametrisations are the same, bit for bit. Number of experts, active ones, split, depth and batch are not widths: they
are the base model's own. Experts count as hidden matrices (cf. arXiv 2508.09752); what reaches a token through w_out is
the sum over its active experts, of width d_ff * top_k however they are split, so its r is that of d_ff. Scores of
attention are divided by the width of a head instead of its root, up to the constant that makes both agree at the base
(definition 4.1 of arXiv 2203.03466).

Weight decay is independent of the rate: learning rate times decay is the same for every width (as arXiv 2405.13698 and
2309.14322 advise), so a tensor whose rate is divided by r has its decay multiplied by r. With AdamW's own coupling the
time over which a wide matrix forgets would grow with r, and the best decay would not carry over from width to width.
Adam's epsilon is left alone: gradients shrink with width, so it must stay far below them.
"""

import math
from dataclasses import dataclass

from train_plan import Config


@dataclass(frozen=True)
class Scale:
    """Factors of one tensor: of its standard deviation at the start, its learning rate and its weight decay."""

    start: float = 1.0
    rate: float = 1.0
    decay: float = 1.0


def scale(c: Config, leaf: str) -> Scale:
    """Factors of the tensors whose name ends in `leaf`; all are 1 in the standard parametrisation."""
    if c.parametrisation == "standard" or leaf in ("embedding", "positions") or leaf.startswith("norm"):
        return Scale()
    wider = c.d_model / c.base_width
    if leaf == "w_out":
        wider = c.d_ff / base_d_ff(c)
    return Scale(wider**-0.5 if leaf in ("head", "router") else 1.0, 1 / wider, wider)


def base_d_ff(c: Config) -> float:
    """Width of the base model's feed-forward, in proportion to its d_model unless the config says otherwise."""
    return c.base_d_ff or c.d_ff * c.base_width / c.d_model


def attention_scale(c: Config) -> float | None:
    """What scores are multiplied with; None is torch's own 1 / sqrt(width of a head)."""
    if c.parametrisation == "standard":
        return None
    width = c.d_model // c.n_heads
    return None if width == c.base_head_width else math.sqrt(c.base_head_width) / width
