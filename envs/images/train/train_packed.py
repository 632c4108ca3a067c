"""Several runs of one shape at once: parameters stacked [runs, ...], one batched product where each had its own.

Small models leave a device idle between kernels; packed, R runs start as many kernels as one. Each run has its data,
optimizer, checkpoints and result as if it were alone, and agrees with that to rounding: it may be resumed packed or
alone. One that diverges ends, and the others go on. On CUDA this has not run on a device.
"""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from train_checkpoint import lock
from train_data import Corpus
from train_lines import emit
from train_model import VOCAB, Block, MoE, Routing, Transformer, rotary, together
from train_ops import cross_entropy, swiglu_or_gelu
from train_plan import CONVENTION, Config, ConfigError, plan
from train_run import Trainer, prepare, segment_ends

Weights = dict[str, Tensor]


def train_packed(configs: Sequence[Config]) -> None:
    """Runs all to their end, resuming what their folders hold."""
    if configs[0].compile:
        raise ConfigError("packed runs are not compiled", "compile", "write false")
    corpus, p = Corpus(configs[0]), plan(configs[0])
    prepare()
    with ExitStack() as held:
        for c in configs:
            held.enter_context(lock(Path(c.out)))
        trainers = [Trainer(c, p, Corpus(c), tell=partial(emit, run=i)) for i, c in enumerate(configs)]
        where = {"device": trainers[0].device.type, "dtype": corpus.c.dtype, "threads": corpus.c.threads}
        emit("start", runs=len(configs), **asdict(p), **where, torch=torch.__version__, convention=CONVENTION)
        Pack(trainers).run()


class PackedModel:
    """Models of one shape as one: their parameters become slices of stacks, so that what changes one changes both."""

    def __init__(self, models: Sequence[Transformer]) -> None:
        self.models, self.shape = models, models[0]
        self.weights: Weights = {}
        for name, _ in self.shape.named_parameters():
            parts = [m.get_parameter(name) for m in models]
            self.weights[name] = torch.stack([q.detach() for q in parts]).requires_grad_()
            for q, part in zip(parts, self.weights[name].detach().unbind(), strict=True):
                q.data = part
        device = self.weights["embedding"].device
        self.turn = rotary(self.shape.context, self.shape.width, device)
        self.first = torch.arange(len(models), device=device)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Routing | None]:
        """tokens [runs, batch, context] -> logits [runs, batch * context, 256]; routing has an entry for each run."""
        w, (runs, _, context) = self.weights, tokens.shape
        rows = tokens + VOCAB * self.first[:, None, None]
        x = functional.embedding(rows, w["embedding"].flatten(0, 1))
        if "positions" in w:
            x = x + w["positions"][:, None]
        x = x.view(runs, -1, x.shape[-1])
        seen: list[Routing] = []
        for i, block in enumerate(self.shape.blocks):
            assert isinstance(block, Block)  # noqa: S101 - a module list tells no more than modules
            prefix = f"blocks.{i}."
            own = {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}
            x, routing = self._block(block, own, x, context)
            if routing is not None:
                seen.append(routing)
        return _linear(_norm(x, w["norm"]), w["head"]), together(seen)

    def _block(self, block: Block, w: Weights, x: Tensor, context: int) -> tuple[Tensor, Routing | None]:
        qkv = _linear(_norm(x, w["norm_attention"]), w["qkv"])
        y = block.attention(qkv.view(-1, context, 3 * block.heads, self.shape.width), self.turn)
        x = x + _linear(y.reshape_as(x), w["out"])
        flat = _norm(x, w["norm_ffn"])
        if isinstance(block.ffn, MoE):
            y, routing = self._mixture(block.ffn, w, flat)
            return x + y, routing
        return x + _feed_forward(flat, w["ffn.w_in"], w["ffn.w_out"], block.ffn.gated), None

    def _mixture(self, ffn: MoE, w: Weights, x: Tensor) -> tuple[Tensor, Routing]:
        """All experts of all runs side by side: run r has experts r * total ... of one large layer."""
        runs, n, d = x.shape
        logits = _linear(x, w["ffn.router"]).float()
        probs, gates, chosen = ffn.choose(logits)
        among = (chosen + ffn.total * self.first[:, None, None]).flatten(0, 1)
        counts = torch.bincount(among.view(-1), minlength=runs * ffn.total)
        matrices = (w[name].flatten(0, 1) for name in ("ffn.w_in", "ffn.w_out"))
        y = ffn.routed(x.view(-1, d), gates.flatten(0, 1), among, counts, *matrices).view_as(x)
        if ffn.shared is not None:
            y = y + _feed_forward(x, w["ffn.shared.w_in"], w["ffn.shared.w_out"], ffn.gated)
        share = counts.view(runs, -1).float() / (n * ffn.active)
        balance = ffn.total * (share * probs.mean(1)).sum(-1)
        return y, Routing(balance, logits.logsumexp(-1).square().mean(-1), share.amax(-1) * ffn.total)

    def hand_out(self) -> None:
        """Gives each model its slice of the gradients."""
        for name, stack in self.weights.items():
            assert stack.grad is not None  # noqa: S101 - every parameter reaches the loss
            for model, part in zip(self.models, stack.grad.unbind(), strict=True):
                model.get_parameter(name).grad = part


class Pack:
    """Trainers of one shape that take their steps together; all that is not a step they do as if alone."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers, self.c = trainers, trainers[0].c
        self.diverged: set[int] = set()
        for t in trainers:
            t.resume()
        self.model = PackedModel([t.model for t in trainers])
        self.coefficients = [
            torch.tensor([getattr(t.c, name) for t in trainers], device=t.device) for name in ("balance_coef", "z_coef")
        ]

    def run(self) -> None:
        """Segments to the end, then validation and a result for each."""
        began = time.perf_counter()
        for number, bound in enumerate(segment_ends(self.c, self.trainers[0].plan)):
            behind = [t for t in self._going() if t.step < bound]
            while any(t.step < bound for t in self._going()):
                self._step(bound)
            for t in (t for t in behind if t in self._going()):
                torch.manual_seed(t.c.seed)  # the generator's state is part of a checkpoint, of each run its own
                t.save(number)
                if t.c.valid_every_segment and bound < t.plan.steps:
                    t.tell_validation(t.validate())
        for i, t in enumerate(self.trainers):
            ended: dict[str, object] = {"status": "diverged", "valid_loss": None}
            t.finish(ended if i in self.diverged else {"status": "ok"}, began)

    def _going(self) -> list[Trainer]:
        return [t for i, t in enumerate(self.trainers) if i not in self.diverged]

    def _step(self, bound: int) -> None:
        """One step of those that are furthest behind: after a kill between two checkpoints, some stand further on."""
        step = min(t.step for t in self._going())
        windows = torch.stack([t.windows(step) for t in self.trainers]).to(self.trainers[0].device)
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=self.c.dtype == "bfloat16"):
            logits, routing = self.model.forward(windows[:, :, :-1])
        losses = cross_entropy(logits.float(), windows[:, :, 1:].flatten(1))
        values, routed = losses.tolist(), _figures(routing)
        norms = self._backward(losses, routing)
        for i, t in enumerate(self.trainers):
            if i in self.diverged or t.step != step:
                continue
            if not (math.isfinite(values[i]) and math.isfinite(norms[i])):
                t.diverge()
                self.diverged.add(i)
                continue
            if routed:
                t.note(*routed[i])
            t.advance(values[i], norms[i])
            t.report_if_due(bound)

    def _backward(self, losses: Tensor, routing: Routing | None) -> list[float]:
        """Gradients, clipped run by run, in the models' hands; returns their norms before clipping."""
        if routing is not None:
            losses = losses + self.coefficients[0] * routing.balance + self.coefficients[1] * routing.z
        for stack in self.model.weights.values():
            stack.grad = None
        torch.autograd.backward(losses.sum())
        gradients = [stack.grad for stack in self.model.weights.values() if stack.grad is not None]
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]), dim=0
        )
        found: list[float] = norm.tolist()
        clips = [t.c.clip for t in self.trainers]
        factors = [clip / n if clip and n > clip else 1.0 for clip, n in zip(clips, found, strict=True)]
        if any(factor != 1.0 for factor in factors):
            by_run = norm.new_tensor(factors)
            for g in gradients:
                g.mul_(by_run.view(-1, *(1,) * (g.dim() - 1)))
        self.model.hand_out()
        return found


def _figures(routing: Routing | None) -> list[list[float]]:
    """For each run balance, z and largest load; nothing for a dense model."""
    if routing is None:
        return []
    figures: list[list[float]] = torch.stack([routing.balance, routing.z, routing.max_share], 1).detach().tolist()
    return figures


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    """x [runs, n, d] by its root mean square, times gain [runs, d]."""
    return functional.rms_norm(x, x.shape[-1:]) * gain.unsqueeze(1)


def _linear(x: Tensor, w: Tensor) -> Tensor:
    """x [runs, n, i] by w [runs, j, i] -> [runs, n, j]."""
    return torch.bmm(x, w.transpose(1, 2))


def _feed_forward(x: Tensor, w_in: Tensor, w_out: Tensor, gated: bool) -> Tensor:
    return _linear(swiglu_or_gelu(_linear(x, w_in), gated), w_out)
