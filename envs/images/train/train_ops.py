"""Operators that torch has only in a slower or a larger form: gated activation, cross-entropy at 256 classes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def activate(u: Tensor, gated: bool) -> tuple[Tensor, list[Tensor]]:
    """The activation of u [rows, h or 2h] and what its backward needs; u is gate and up side by side when gated."""
    if not gated:
        return functional.gelu(u), [u]
    gate, up = u.chunk(2, -1)
    bent = torch.sigmoid(gate)
    return (gate * bent).mul_(up), [u, bent]


def activate_backward(da: Tensor, kept: list[Tensor], gated: bool) -> Tensor:
    """Gradient of u, given that of the activation."""
    if not gated:
        back: Tensor = torch.ops.aten.gelu_backward(da, kept[0])
        return back
    (gate, up), bent = kept[0].chunk(2, -1), kept[1]
    du = torch.empty_like(kept[0])
    dgate, dup = du.chunk(2, -1)
    silu = gate * bent
    torch.mul(da, silu, out=dup)
    slope = torch.addcmul(bent, silu, 1 - bent, out=silu)  # of silu
    torch.mul(slope.mul_(up), da, out=dgate)
    return du


class _Activation(torch.autograd.Function):
    """SwiGLU or GELU of one wide matrix product, without the copies that autograd would make."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, gated: bool) -> Tensor:  # noqa: ANN401
        """u [rows, h or 2h] -> [rows, h]."""
        a, kept = activate(u, gated)
        ctx.save_for_backward(*kept)
        ctx.gated = gated
        return a

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradient of u."""
        return activate_backward(grad, ctx.saved_tensors, ctx.gated), None


class _CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy in nats; torch's own log_softmax takes five times longer on CPU at this vocabulary."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:  # noqa: ANN401
        """logits [..., n, 256] float32, target [..., n] -> [...]."""
        top = logits.amax(-1, keepdim=True)
        weight = (logits - top).exp_()
        total = weight.sum(-1, keepdim=True)
        ctx.save_for_backward(weight, total, target)
        return (total.log() + top - logits.gather(-1, target.unsqueeze(-1))).mean((-2, -1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradient of logits: (softmax - one-hot) / n."""
        weight, total, target = ctx.saved_tensors
        out = weight / total
        out.scatter_add_(-1, target.unsqueeze(-1), out.new_full((*target.shape, 1), -1.0))
        return out.mul_((grad / out.shape[-2])[..., None, None]), None


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits [..., n, 256] at target [..., n] -> [...]."""
    return apply(_CrossEntropy, logits, target)


def swiglu_or_gelu(u: Tensor, gated: bool) -> Tensor:
    """The activation of u [rows, h or 2h] -> [rows, h]."""
    return apply(_Activation, u, gated)


def apply(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """The typed result of a function with its own backward."""
    out: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return out
