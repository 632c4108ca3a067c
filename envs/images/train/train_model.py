"""Byte-level decoder-only transformers, dense or mixture of experts, in plain PyTorch."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from train_experts import Layout, dispatch, expert_ffn, groups, groups_fit
from train_mup import attention_scale, scale
from train_ops import swiglu_or_gelu
from train_plan import Config

VOCAB = 256


@dataclass
class Routing:
    """What the routers of one forward pass did: losses to add, and the largest share of load of an expert."""

    balance: Tensor
    z: Tensor
    max_share: Tensor  # largest count of an expert over the mean count, over all layers


class FFN(nn.Module):
    """Dense feed-forward, SwiGLU or GELU."""

    def __init__(self, d: int, width: int, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.w_in = nn.Parameter(torch.empty(width * (1 + gated), d))
        self.w_out = nn.Parameter(torch.empty(d, width))

    def forward(self, x: Tensor) -> Tensor:
        """x [n, d] -> [n, d]."""
        return functional.linear(swiglu_or_gelu(functional.linear(x, self.w_in), self.gated), self.w_out)


class MoE(nn.Module):
    """experts*split routed experts of width d_ff/split, top_k*split of them active, and shared ones."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        width, self.gated = c.d_ff // c.split, c.ffn == "swiglu"
        self.total, self.active = c.experts * c.split, c.top_k * c.split
        self.normalise, self.products = c.normalise_gates, c.expert_products
        self.scale = c.gate_scale or float(self.active if c.normalise_gates else 1)
        self.router = nn.Parameter(torch.empty(self.total, c.d_model))
        self.w_in = nn.Parameter(torch.empty(self.total, c.d_model, width * (1 + self.gated)))
        self.w_out = nn.Parameter(torch.empty(self.total, width, c.d_model))
        self.shared = FFN(c.d_model, width * c.shared, self.gated) if c.shared else None

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """x [n, d] -> [n, d] and what the router did; every token reaches all its experts."""
        logits = functional.linear(x, self.router).float()
        probs, gates, chosen = self.choose(logits)
        counts = torch.bincount(chosen.view(-1), minlength=self.total)
        y = self.routed(x, gates, chosen, counts, self.w_in, self.w_out)
        if self.shared is not None:
            y = y + self.shared(x)
        share = counts.float() / chosen.numel()
        balance = self.total * (share * probs.mean(0)).sum()
        z = logits.logsumexp(-1).square().mean()
        return y, Routing(balance, z, share.max() * self.total)

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities of logits [..., experts], gates and numbers [..., active] of the experts chosen."""
        probs = logits.softmax(-1)
        top, chosen = probs.topk(self.active, -1, sorted=False)
        return probs, (top / top.sum(-1, keepdim=True) if self.normalise else top) * self.scale, chosen

    def routed(self, x: Tensor, gates: Tensor, chosen: Tensor, counts: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
        """What the experts chosen [n, active] make of x [n, d]; counts [e] is how often each expert is chosen."""
        kind = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        x, gates, w_in, w_out = (t.to(kind) for t in (x, gates, w_in, w_out))  # backward is not autocast
        return expert_ffn(x, gates, w_in, w_out, self.layout(chosen, counts, kind), self.gated)

    def layout(self, chosen: Tensor, counts: Tensor, kind: torch.dtype) -> Layout:
        """Rows for chosen [tokens, active] in the layout that the config asks for, or that suits the device."""
        widths = (self.w_in.shape[1], self.w_in.shape[2], self.w_out.shape[1])
        suits = self.products == "groups" or (self.products == "auto" and chosen.is_cuda)
        if suits and groups_fit(kind, widths, chosen.device):
            return groups(chosen, counts)
        return dispatch(chosen, counts)


def rotary(context: int, width: int, device: torch.device) -> Tensor:
    """Unit complex numbers [context, 1, width/2] that turn a vector by its position (arXiv 2104.09864)."""
    rate = 10000.0 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(context, device=device, dtype=torch.float64), rate)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64).unsqueeze(1)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """x [batch, context, heads, width] turned by its position; neighbours are real and imaginary part."""
    if torch.compiler.is_compiling():  # the compiler has no complex numbers
        real, imaginary = x.float().view(*x.shape[:-1], -1, 2).unbind(-1)
        turned = (real * turn.real - imaginary * turn.imag, real * turn.imag + imaginary * turn.real)
        return torch.stack(turned, -1).flatten(-2).to(x.dtype)
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads, self.rope, self.scale = c.n_heads, c.positions == "rope", attention_scale(c)
        self.norm_attention = nn.Parameter(torch.ones(c.d_model))
        self.norm_ffn = nn.Parameter(torch.ones(c.d_model))
        self.qkv = nn.Parameter(torch.empty(3 * c.d_model, c.d_model))
        self.out = nn.Parameter(torch.empty(c.d_model, c.d_model))
        self.ffn = MoE(c) if c.experts else FFN(c.d_model, c.d_ff, c.ffn == "swiglu")

    def forward(self, x: Tensor, turn: Tensor) -> tuple[Tensor, Routing | None]:
        """x [batch, context, d] -> the same shape."""
        x = x + self._attend(functional.rms_norm(x, x.shape[-1:], self.norm_attention), turn)
        flat = functional.rms_norm(x, x.shape[-1:], self.norm_ffn).view(-1, x.shape[-1])
        if isinstance(self.ffn, MoE):
            y, routing = self.ffn(flat)
            return x + y.view_as(x), routing
        return x + self.ffn(flat).view_as(x), None

    def _attend(self, x: Tensor, turn: Tensor) -> Tensor:
        b, t, d = x.shape
        y = self.attention(functional.linear(x, self.qkv).view(b, t, 3 * self.heads, -1), turn)
        return functional.linear(y.reshape(b, t, d), self.out)

    def attention(self, qkv: Tensor, turn: Tensor) -> Tensor:
        """Causal attention of qkv [batch, context, 3 * heads, width] -> [batch, context, heads, width]."""
        qk, v = torch.split(qkv, [2 * self.heads, self.heads], 2)
        if self.rope:
            qk = rotate(qk, turn)
        q, k = qk.transpose(1, 2).chunk(2, 1)
        y = functional.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, scale=self.scale)
        return y.transpose(1, 2)


class Transformer(nn.Module):
    """Byte-level language model; `forward` gives logits and the routing of all layers together."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(VOCAB, c.d_model))
        self.positions = nn.Parameter(torch.empty(c.context, c.d_model)) if c.positions == "learned" else None
        self.blocks = nn.ModuleList([Block(c) for _ in range(c.n_layers)])
        self.norm = nn.Parameter(torch.ones(c.d_model))
        self.head = nn.Parameter(torch.empty(VOCAB, c.d_model))
        self.width, self.context = c.d_model // c.n_heads, c.context
        self.angles: Tensor | None = None
        self._initialise(c)

    def _initialise(self, c: Config) -> None:
        chance = torch.Generator().manual_seed(c.seed)
        depth = 1 / math.sqrt(2 * c.n_layers)
        for name, p in self.named_parameters():
            leaf = name.rsplit(".", 1)[-1]
            if leaf.startswith("norm"):
                continue
            if leaf in ("embedding", "positions"):
                std = 0.5 if leaf == "embedding" else 0.1
            elif p.dim() == 3:  # [expert, in, out]; w_out as if all active experts were one wide layer
                fan = p.shape[1] if leaf == "w_in" else p.shape[1] * c.top_k * c.split
                std = fan**-0.5 * (depth if leaf == "w_out" else 1)
            else:
                std = p.shape[1] ** -0.5 * {"w_out": depth, "out": depth, "head": 0.5, "router": 0.5}.get(leaf, 1.0)
            std *= scale(c, leaf).start
            with torch.no_grad():
                p.copy_(torch.randn(p.shape, generator=chance) * std)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Routing | None]:
        """tokens [batch, context] -> logits [batch, context, 256]."""
        if self.angles is None:
            self.angles = rotary(self.context, self.width, tokens.device)
        x = functional.embedding(tokens, self.embedding)
        if self.positions is not None:
            x = x + self.positions
        seen: list[Routing] = []
        for block in self.blocks:
            x, routing = block(x, self.angles)
            if routing is not None:
                seen.append(routing)
        logits = functional.linear(functional.rms_norm(x, x.shape[-1:], self.norm), self.head)
        return logits, together(seen)


def together(seen: list[Routing]) -> Routing | None:
    """Of all layers: the mean losses and the largest share."""
    if not seen:
        return None
    every = [torch.stack([getattr(r, name) for r in seen]) for name in ("balance", "z", "max_share")]
    return Routing(every[0].mean(0), every[1].mean(0), every[2].amax(0))
