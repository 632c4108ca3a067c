"""Byte-level decoder-only transformers, dense or mixture of experts, in plain PyTorch."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from train_plan import Config

VOCAB = 256


@dataclass
class Routing:
    """What the routers of one forward pass did: losses to add, and the largest share of load of an expert."""

    balance: Tensor
    z: Tensor
    max_share: Tensor  # largest count of an expert over the mean count, over all layers


@dataclass(frozen=True)
class Bucket:
    """Experts of similar load, padded to one capacity: rows first .. first + len(experts)*capacity of the table."""

    experts: Tensor
    capacity: int
    first: int

    def rows(self, table: Tensor) -> Tensor:
        """The bucket's part of a table, as [experts, capacity, width]."""
        count = self.experts.numel()
        return table[self.first : self.first + count * self.capacity].view(count, self.capacity, -1)


@dataclass(frozen=True)
class Dispatch:
    """Where each (token, choice) goes: its row in a table of buckets. Nothing is dropped."""

    slot: Tensor  # [tokens * active]
    buckets: list[Bucket]
    rows: int


def dispatch(chosen: Tensor, counts: Tensor, waste: float = 1.2) -> Dispatch:
    """Rows for chosen [tokens, active]; a bucket's capacity is the largest count in it, at most `waste` x the least.

    Padding all experts to the largest count costs up to 15 times the work while the router is still uneven.
    """
    load = counts.tolist()
    order = sorted((e for e, n in enumerate(load) if n), key=load.__getitem__, reverse=True)
    buckets, start, first = [], 0, 0
    base = [0] * len(load)
    while start < len(order):
        capacity, end = load[order[start]], start
        while end < len(order) and load[order[end]] * waste + 2 >= capacity:
            base[order[end]] = first + (end - start) * capacity
            end += 1
        buckets.append(Bucket(torch.tensor(order[start:end], device=chosen.device), capacity, first))
        first, start = first + (end - start) * capacity, end
    flat = chosen.reshape(-1)
    ids, by_expert = torch.sort(flat, stable=True)
    offset = torch.tensor(base, device=flat.device) - (torch.cumsum(counts, 0) - counts)
    slot = torch.empty_like(flat)
    slot[by_expert] = offset[ids] + torch.arange(flat.numel(), device=flat.device)
    return Dispatch(slot, buckets, first)


class _ExpertFFN(torch.autograd.Function):
    """Routed feed-forward: scatter to the table, batched products bucket by bucket, weighted gather back."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        gates: Tensor,
        w_in: Tensor,
        w_out: Tensor,
        where: Dispatch,
        gated: bool,
    ) -> Tensor:
        """x [n, d], gates [n, k], w_in [e, d, h or 2h], w_out [e, h, d] -> [n, d]."""
        (n, d), k = x.shape, gates.shape[1]
        xs = x.new_zeros(where.rows, d)
        xs.index_copy_(0, where.slot, x.unsqueeze(1).expand(n, k, d).reshape(n * k, d))
        u, y = x.new_empty(where.rows, w_in.shape[2]), torch.empty_like(xs)
        for b in where.buckets:
            torch.bmm(b.rows(xs), w_in.index_select(0, b.experts), out=b.rows(u))
        a, kept = _activate(u, gated)
        for b in where.buckets:
            torch.bmm(b.rows(a), w_out.index_select(0, b.experts), out=b.rows(y))
        yk = y.index_select(0, where.slot).view(n, k, d)
        ctx.save_for_backward(gates, w_in, w_out, xs, a, yk, *kept)
        ctx.where, ctx.gated = where, gated
        return torch.bmm(gates.unsqueeze(1), yk).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients of x, gates, w_in, w_out; padded rows are zero in and zero out."""
        gates, w_in, w_out, xs, a, yk, *kept = ctx.saved_tensors
        where, (n, k, d) = ctx.where, yk.shape
        dgates = torch.bmm(yk, grad.unsqueeze(2)).squeeze(2)
        dy = torch.zeros_like(xs)
        dy.index_copy_(0, where.slot, (gates.unsqueeze(2) * grad.unsqueeze(1)).view(n * k, d))
        da, dxs = torch.empty_like(a), torch.empty_like(xs)
        dw_in, dw_out = torch.zeros_like(w_in), torch.zeros_like(w_out)
        for b in where.buckets:
            torch.bmm(b.rows(dy), w_out.index_select(0, b.experts).transpose(1, 2), out=b.rows(da))
            dw_out.index_copy_(0, b.experts, torch.bmm(b.rows(a).transpose(1, 2), b.rows(dy)))
        du = _activate_backward(da, kept, ctx.gated)
        for b in where.buckets:
            torch.bmm(b.rows(du), w_in.index_select(0, b.experts).transpose(1, 2), out=b.rows(dxs))
            dw_in.index_copy_(0, b.experts, torch.bmm(b.rows(xs).transpose(1, 2), b.rows(du)))
        dx = dxs.index_select(0, where.slot).view(n, k, d).sum(1)
        return dx, dgates, dw_in, dw_out, None, None


def _activate(u: Tensor, gated: bool) -> tuple[Tensor, list[Tensor]]:
    """The activation of u [rows, h or 2h] and what its backward needs; u is gate and up side by side when gated."""
    if not gated:
        return functional.gelu(u), [u]
    gate, up = u.chunk(2, -1)
    bent = torch.sigmoid(gate)
    return (gate * bent).mul_(up), [u, bent]


def _activate_backward(da: Tensor, kept: list[Tensor], gated: bool) -> Tensor:
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
        a, kept = _activate(u, gated)
        ctx.save_for_backward(*kept)
        ctx.gated = gated
        return a

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradient of u."""
        return _activate_backward(grad, ctx.saved_tensors, ctx.gated), None


class _CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy in nats; torch's own log_softmax takes five times longer on CPU at this vocabulary."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:  # noqa: ANN401
        """logits [n, 256] float32, target [n] -> scalar."""
        top = logits.amax(-1, keepdim=True)
        weight = (logits - top).exp_()
        total = weight.sum(-1, keepdim=True)
        ctx.save_for_backward(weight, total, target)
        return (total.log() + top - logits.gather(-1, target.unsqueeze(-1))).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradient of logits: (softmax - one-hot) / n."""
        weight, total, target = ctx.saved_tensors
        out = weight / total
        out.scatter_add_(-1, target.unsqueeze(-1), out.new_full((out.shape[0], 1), -1.0))
        return out.mul_(grad / out.shape[0]), None


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits [n, 256] at target [n]."""
    return _apply(_CrossEntropy, logits, target)


def swiglu_or_gelu(u: Tensor, gated: bool) -> Tensor:
    """The activation of u [rows, h or 2h] -> [rows, h]."""
    return _apply(_Activation, u, gated)


def expert_ffn(x: Tensor, gates: Tensor, w_in: Tensor, w_out: Tensor, where: Dispatch, gated: bool) -> Tensor:
    """x [n, d], gates [n, k], w_in [e, d, h or 2h], w_out [e, h, d] -> [n, d]."""
    return _apply(_ExpertFFN, x, gates, w_in, w_out, where, gated)


def _apply(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    out: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


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
        self.normalise = c.normalise_gates
        self.scale = c.gate_scale or float(self.active if c.normalise_gates else 1)
        self.router = nn.Parameter(torch.empty(self.total, c.d_model))
        self.w_in = nn.Parameter(torch.empty(self.total, c.d_model, width * (1 + self.gated)))
        self.w_out = nn.Parameter(torch.empty(self.total, width, c.d_model))
        self.shared = FFN(c.d_model, width * c.shared, self.gated) if c.shared else None

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """x [n, d] -> [n, d] and what the router did; every token reaches all its experts."""
        logits = functional.linear(x, self.router).float()
        probs = logits.softmax(-1)
        top, chosen = probs.topk(self.active, -1, sorted=False)
        gates = (top / top.sum(-1, keepdim=True) if self.normalise else top) * self.scale
        counts = torch.bincount(chosen.view(-1), minlength=self.total)
        kind = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        x_, gates_, w_in, w_out = (t.to(kind) for t in (x, gates, self.w_in, self.w_out))  # backward is not autocast
        y = expert_ffn(x_, gates_, w_in, w_out, dispatch(chosen, counts), self.gated)
        if self.shared is not None:
            y = y + self.shared(x)
        share = counts.float() / chosen.numel()
        balance = self.total * (share * probs.mean(0)).sum()
        z = logits.logsumexp(-1).square().mean()
        return y, Routing(balance, z, share.max() * self.total)


def rotary(context: int, width: int, device: torch.device) -> Tensor:
    """Unit complex numbers [context, 1, width/2] that turn a vector by its position (arXiv 2104.09864)."""
    rate = 10000.0 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(context, device=device, dtype=torch.float64), rate)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64).unsqueeze(1)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """x [batch, context, heads, width] turned by its position; neighbours are real and imaginary part."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads, self.rope = c.n_heads, c.positions == "rope"
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
        qkv = functional.linear(x, self.qkv).view(b, t, 3 * self.heads, -1)
        qk, v = qkv[:, :, : 2 * self.heads], qkv[:, :, 2 * self.heads :]
        if self.rope:
            qk = rotate(qk, turn)
        q, k = qk.transpose(1, 2).chunk(2, 1)
        y = functional.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        return functional.linear(y.transpose(1, 2).reshape(b, t, d), self.out)


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
        return logits, _together(seen)


def _together(seen: list[Routing]) -> Routing | None:
    if not seen:
        return None
    mean = [torch.stack([getattr(r, name) for r in seen]) for name in ("balance", "z", "max_share")]
    return Routing(mean[0].mean(), mean[1].mean(), mean[2].max())


class AdamW:
    """AdamW (arXiv 1711.05101) by torch's fused kernel; matrices and tables decay, vectors do not.

    The kernel is called directly: torch.optim imports the compiler, which takes as long as torch itself.
    """

    def __init__(self, parameters: list[Tensor], c: Config) -> None:
        self.c, self.parameters = c, parameters
        self.means = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.steps = [torch.zeros((), device=p.device) for p in parameters]

    def step(self, lr: float) -> None:
        """One update from the gradients that the parameters hold."""
        with torch.no_grad():
            torch._foreach_add_(self.steps, 1)
            for decays in (True, False):
                chosen = [i for i, p in enumerate(self.parameters) if (p.dim() > 1) == decays]
                gradients = [g for i in chosen if (g := self.parameters[i].grad) is not None]
                torch._fused_adamw_(
                    [self.parameters[i] for i in chosen], gradients, [self.means[i] for i in chosen],
                    [self.squares[i] for i in chosen], [], [self.steps[i] for i in chosen],
                    lr=lr, beta1=self.c.beta1, beta2=self.c.beta2, weight_decay=self.c.weight_decay if decays else 0.0,
                    eps=1e-8, amsgrad=False, maximize=False,
                )  # fmt: skip

    def state(self) -> dict[str, list[Tensor]]:
        """What a checkpoint must keep."""
        return {"means": self.means, "squares": self.squares, "steps": self.steps}

    def load(self, state: dict[str, list[Tensor]]) -> None:
        """Takes what a checkpoint kept."""
        self.means, self.squares, self.steps = state["means"], state["squares"], state["steps"]
