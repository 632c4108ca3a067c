"""Routed experts: where each token's rows lie, and the matrix products over them. No token is dropped.

Two layouts of the rows: `Buckets` pads experts of similar load to one size, `Groups` keeps them end to end, for grouped
products. Results agree to rounding, and not to the bit.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from train_ops import activate, activate_backward, apply


class Layout(Protocol):
    """Rows of a table, a stretch of them for each expert."""

    @property
    def slot(self) -> Tensor:
        """[tokens * active]: the row of each (token, choice)."""
        ...

    def spread(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """x [n, d], times gates [n, k] where given, in the rows of its experts -> [rows, d]."""
        ...

    def product(self, x: Tensor, w: Tensor, *, across: bool = False) -> Tensor:
        """x [rows, i] by the matrix of each row's expert, w [e, i, j], or [e, j, i] when across -> [rows, j]."""
        ...

    def combine(self, gates: Tensor, y: Tensor) -> Tensor:
        """The sum over k of gates [n, k] times y [n, k, d] -> [n, d]."""
        ...

    def outer(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """For each expert the sum over its rows of x [rows, i] by y [rows, j], shaped as w [e, i, j]."""
        ...


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
class Buckets:
    """Where each (token, choice) goes: its row in a table of buckets; padded rows are zero in and zero out."""

    slot: Tensor  # [tokens * active]
    buckets: list[Bucket]
    rows: int

    def spread(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """See Layout."""
        (n, d), active = x.shape, self.slot.numel() // x.shape[0]
        every = x.unsqueeze(1).expand(n, active, d) if gates is None else gates.unsqueeze(2) * x.unsqueeze(1)
        return x.new_zeros(self.rows, d).index_copy_(0, self.slot, every.reshape(n * active, d))

    def product(self, x: Tensor, w: Tensor, *, across: bool = False) -> Tensor:
        """See Layout."""
        out = x.new_empty(self.rows, w.shape[1 if across else 2])
        for b in self.buckets:
            chosen = w.index_select(0, b.experts)
            torch.bmm(b.rows(x), chosen.transpose(1, 2) if across else chosen, out=b.rows(out))
        return out

    def combine(self, gates: Tensor, y: Tensor) -> Tensor:
        """See Layout."""
        return torch.bmm(gates.unsqueeze(1), y).squeeze(1)

    def outer(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """See Layout."""
        used = sum(b.experts.numel() for b in self.buckets)
        out = torch.empty_like(w) if used == w.shape[0] else torch.zeros_like(w)
        for b in self.buckets:
            out.index_copy_(0, b.experts, torch.bmm(b.rows(x).transpose(1, 2), b.rows(y)))
        return out


@dataclass(frozen=True)
class Groups:
    """Rows of all experts end to end, without padding, for torch's grouped products.

    On CUDA these are one kernel for all experts, in bfloat16 from compute capability 8.0 on; that path has been written
    from torch's description and has not run on a device. On CPU torch goes through the experts one by one.
    """

    slot: Tensor  # [tokens * active]
    order: Tensor  # [tokens * active]: the (token, choice) of each row
    ends: Tensor  # int32 [e]: where the rows of each expert end

    def spread(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """See Layout."""
        active = self.order.numel() // x.shape[0]
        rows = x.index_select(0, self.order // active)
        return rows if gates is None else rows.mul_(gates.reshape(-1, 1).index_select(0, self.order))

    def product(self, x: Tensor, w: Tensor, *, across: bool = False) -> Tensor:
        """See Layout."""
        return functional.grouped_mm(x, w.transpose(1, 2) if across else w, offs=self.ends)

    def combine(self, gates: Tensor, y: Tensor) -> Tensor:
        """See Layout; as a sum it takes a third of the time of a batched product on CPU."""
        return (gates.unsqueeze(2) * y).sum(1)

    def outer(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """See Layout."""
        out = functional.grouped_mm(x.t(), y, offs=self.ends).to(w.dtype)
        if out.is_cuda:  # an expert without rows is a sum over nothing, which a kernel may leave unwritten
            out.masked_fill_((self.ends.diff(prepend=self.ends.new_zeros(1)) == 0)[:, None, None], 0.0)
        return out


def groups_fit(kind: torch.dtype, widths: tuple[int, ...], device: torch.device) -> bool:
    """Whether grouped products can take matrices of these widths: rows must begin at multiples of 16 bytes."""
    if any(width * kind.itemsize % 16 for width in widths):
        return False
    return device.type == "cpu" or (kind == torch.bfloat16 and torch.cuda.get_device_capability(device) >= (8, 0))


def groups(chosen: Tensor, counts: Tensor) -> Groups:
    """Rows for chosen [tokens, active], with no wait for the device; counts [e] is how often each expert is chosen."""
    flat = chosen.reshape(-1)
    order, slot = torch.sort(flat, stable=True).indices, torch.empty_like(flat)
    slot[order] = torch.arange(flat.numel(), device=flat.device)
    return Groups(slot, order, torch.cumsum(counts, 0, dtype=torch.int32))


def dispatch(chosen: Tensor, counts: Tensor, waste: float = 1.2) -> Buckets:
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
    return Buckets(slot, buckets, first)


class _ExpertFFN(torch.autograd.Function):
    """Routed feed-forward: scatter to the table, products of each expert's rows, weighted gather back."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        gates: Tensor,
        w_in: Tensor,
        w_out: Tensor,
        where: Layout,
        gated: bool,
    ) -> Tensor:
        """x [n, d], gates [n, k], w_in [e, d, h or 2h], w_out [e, h, d] -> [n, d]."""
        (n, d), k = x.shape, gates.shape[1]
        xs = where.spread(x)
        a, kept = activate(where.product(xs, w_in), gated)
        yk = where.product(a, w_out).index_select(0, where.slot).view(n, k, d)
        ctx.save_for_backward(gates, w_in, w_out, xs, a, yk, *kept)
        ctx.where, ctx.gated = where, gated
        return where.combine(gates, yk)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients of x, gates, w_in, w_out."""
        gates, w_in, w_out, xs, a, yk, *kept = ctx.saved_tensors
        where, (n, k, d) = ctx.where, yk.shape
        dgates = torch.bmm(yk, grad.unsqueeze(2)).squeeze(2)
        dy = where.spread(grad, gates)
        dw_out = where.outer(a, dy, w_out)
        du = activate_backward(where.product(dy, w_out, across=True), kept, ctx.gated)
        dw_in = where.outer(xs, du, w_in)
        dx = where.product(du, w_in, across=True).index_select(0, where.slot).view(n, k, d).sum(1)
        return dx, dgates, dw_in, dw_out, None, None


def expert_ffn(x: Tensor, gates: Tensor, w_in: Tensor, w_out: Tensor, where: Layout, gated: bool) -> Tensor:
    """x [n, d], gates [n, k], w_in [e, d, h or 2h], w_out [e, h, d] -> [n, d]."""
    return apply(_ExpertFFN, x, gates, w_in, w_out, where, gated)
