"""Runs a plan to its end: segments of steps, checkpoints, progress lines, validation."""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from train_allocator import keep_blocks
from train_checkpoint import (
    Saved,
    State,
    content_of,
    digest,
    export,
    file_sha256,
    load,
    lock,
    save,
    whole,
    write_result,
)
from train_compile import compile_forward
from train_data import Corpus
from train_lines import emit
from train_model import Routing, Transformer
from train_ops import cross_entropy
from train_optimizer import AdamW
from train_plan import CONVENTION, Config, ConfigError, Plan, plan


def train(c: Config, *, one_segment: bool = False) -> None:
    """Runs the config to its end, or to that of the next segment, resuming what its folder holds."""
    if c.compile and one_segment:
        what = "compiled kernels may be chosen by their speed, so replicas would not agree to the bit"
        raise ConfigError(what, "compile", "write false where segments are voted on")
    corpus, p = Corpus(c), plan(c)
    prepare()
    with lock(Path(c.out)):
        trainer = Trainer(c, p, corpus, one_segment=one_segment)
        where = {"device": trainer.device.type, "dtype": c.dtype, "threads": c.threads, "torch": torch.__version__}
        emit("start", **asdict(p), **where, convention=CONVENTION)
        trainer.run()


def prepare() -> None:
    """What must be set before torch is first used, for repeatable bits on CUDA and for speed on CPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA repeats its bits only so
    keep_blocks()


def learning_rate(c: Config, step: int, steps: int) -> float:
    """Rate at `step` (from 0): linear warm-up, then cosine, or flat and linear decay (wsd)."""
    warm = max(1, round(c.warmup_share * steps))
    if step < warm:
        return c.lr * (step + 1) / warm
    if c.schedule == "cosine":
        shape = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    else:
        shape = min(1.0, (steps - step) / max(1.0, c.decay_share * steps))
    return c.lr * (c.final_lr_ratio + (1 - c.final_lr_ratio) * shape)


@dataclass
class Tally:
    """Sums since the last progress line, and the running mean of the loss that spikes are told by."""

    began: float
    loss: float = 0.0
    balance: float = 0.0
    z: float = 0.0
    max_load: float = 0.0
    grad_norm: float = 0.0
    count: int = 0
    running: float = math.log(256)
    spikes: int = 0


class Trainer:
    """A model, its optimizer and its position in the data; `run` goes to the end of the plan, or of one segment."""

    def __init__(
        self, c: Config, p: Plan, corpus: Corpus, *, one_segment: bool = False, tell: Callable[..., None] = emit
    ) -> None:
        self.c, self.plan, self.corpus, self.one_segment, self.tell = c, p, corpus, one_segment, tell
        self.device = _device(c)
        torch.manual_seed(c.seed)  # nothing draws from it, but it is part of the state that replicas agree on
        self.model = Transformer(c).to(self.device)
        if c.compile:
            compile_forward(self.model, self.device)
        self.parameters: list[Tensor] = [q for _, q in self.model.named_parameters()]
        self.optimizer = AdamW(self.model.named_parameters(), c)
        self.step, self.tally = 0, Tally(time.perf_counter())
        self.loss: float | None = None  # of the last progress line
        self.began: str | None = None  # digest of the whole state that was resumed from

    def run(self) -> None:
        """Segments to the end, then validation; lines go out as things happen."""
        began, steps = time.perf_counter(), self.plan.steps
        self.resume()
        before = {"flops": self.flops(), "spikes": self.tally.spikes}
        bounds = segment_ends(self.c, self.plan)
        result: dict[str, object] = {"status": "ok"}
        number, saved = len(bounds) - 1, None
        for number, bound in enumerate(bounds):
            if bound <= self.step:
                continue
            if not self._segment(bound):
                result = {"status": "diverged", "valid_loss": None}
                break
            saved = self.save(number)
            checked = {}
            if self.c.valid_every_segment and bound < steps:
                checked = self.validate()
                self.tell_validation(checked)
            if self.one_segment and bound < steps:
                self._answer(number, {"status": "ok", **checked}, saved, before)
                return
        result = self.finish(result, began)
        if self.one_segment:
            self._answer(number, result, None if result["status"] == "diverged" else saved, before)

    def finish(self, result: dict[str, object], began: float) -> dict[str, object]:
        """The result with its last figures, written beside the model; `began` is of time.perf_counter."""
        if result["status"] == "ok":
            result |= self.validate()
            self.tell_validation(result)
            if self.c.save_model:
                export(Path(self.c.out), self.model, self.c)
        told = {"step": self.step, "flops": self.flops(), "tokens": self._tokens(), "digest": digest(self.model)}
        result |= told | {"seconds": time.perf_counter() - began}
        write_result(Path(self.c.out), result, self.plan)
        self.tell("done", **result)
        return result

    def validate(self) -> dict[str, float]:
        """Mean loss (nats per byte) on the fixed held-out windows, and its standard error over windows."""
        losses = []
        windows = torch.from_numpy(self.corpus.validation())
        with torch.no_grad():
            for part in torch.split(windows, max(1, 2048 // self.c.context)):
                here = part.to(self.device)
                logits = self._logits(here)[0]
                each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), here[:, 1:], reduction="none")
                losses.append(each.double().mean(1))
        every = torch.cat(losses)
        return {"valid_loss": float(every.mean()), "valid_se": float(every.std() / math.sqrt(len(every)))}

    def _segment(self, bound: int) -> bool:
        """Steps up to `bound`; False as soon as the loss or its gradient is not finite."""
        while self.step < bound:
            if not self._step():
                self.diverge()
                return False
            self.report_if_due(bound)
        return True

    def diverge(self) -> None:
        """Tells where the loss or its gradient was no number."""
        self.tell("diverged", step=self.step, lr=learning_rate(self.c, self.step, self.plan.steps))

    def windows(self, step: int) -> Tensor:
        """The batch of that step; the last one may be short, so that the budget is met and never passed."""
        count = min(self.c.batch_sequences, self.plan.sequences - step * self.c.batch_sequences)
        return torch.from_numpy(self.corpus.batch(step, count))

    def _step(self) -> bool:
        windows = self.windows(self.step).to(self.device)
        logits, routing = self._logits(windows)
        loss = cross_entropy(logits.view(-1, 256), windows[:, 1:].reshape(-1))
        value = float(loss.detach())
        if not math.isfinite(value):
            return False
        norm = self._backward(loss if routing is None else self._with_auxiliary(loss, routing))
        if not math.isfinite(norm):
            return False
        self.advance(value, norm)
        return True

    def advance(self, value: float, norm: float) -> None:
        """Takes the step that the gradients ask for; value is the loss, norm that of the gradients before clipping."""
        c, t = self.c, self.tally
        self.optimizer.step(learning_rate(c, self.step, self.plan.steps))
        self.step += 1
        t.grad_norm, t.loss, t.count = norm, t.loss + value, t.count + 1
        t.spikes += value > t.running + c.spike
        t.running += 0.05 * (value - t.running)

    def _logits(self, windows: Tensor) -> tuple[Tensor, Routing | None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.c.dtype == "bfloat16"):
            logits, routing = self.model(windows[:, :-1])
        return logits.float(), routing

    def _with_auxiliary(self, loss: Tensor, routing: Routing) -> Tensor:
        self.note(float(routing.balance.detach()), float(routing.z.detach()), float(routing.max_share))
        return loss + self.c.balance_coef * routing.balance + self.c.z_coef * routing.z

    def note(self, balance: float, z: float, max_load: float) -> None:
        """Adds what the routers did to the tally."""
        t = self.tally
        t.balance, t.z, t.max_load = t.balance + balance, t.z + z, max(t.max_load, max_load)

    def _backward(self, loss: Tensor) -> float:
        """Gradients, clipped; returns their norm before clipping."""
        for q in self.parameters:
            q.grad = None
        torch.autograd.backward(loss)
        gradients = [q.grad for q in self.parameters if q.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients])))
        if self.c.clip and norm > self.c.clip:
            torch._foreach_mul_(gradients, self.c.clip / norm)
        return norm

    def tell_validation(self, found: Mapping[str, object]) -> None:
        """The line of a validation."""
        shown = {k: found[k] for k in ("valid_loss", "valid_se")}
        self.tell("validation", step=self.step, flops=self.flops(), **shown)

    def _sequences(self) -> int:
        return min(self.step * self.c.batch_sequences, self.plan.sequences)

    def _tokens(self) -> int:
        return self._sequences() * self.c.context

    def flops(self) -> int:
        """Training FLOPs up to this step."""
        return self._sequences() * (self.plan.flops // self.plan.sequences)

    def report_if_due(self, bound: int) -> None:
        """A line of progress every so many steps, and at the segment's end."""
        if self.step % self.c.report_every and self.step != bound:
            return
        t, now, rate = self.tally, time.perf_counter(), learning_rate(self.c, self.step - 1, self.plan.steps)
        shown = {"loss": t.loss / t.count, "lr": rate, "grad_norm": t.grad_norm}
        if self.c.experts:
            shown |= {"balance": t.balance / t.count, "z": t.z / t.count, "max_load": t.max_load}
        speed = t.count * self.c.batch_sequences * self.c.context / max(1e-9, now - t.began)
        position = {"step": self.step, "tokens": self._tokens(), "flops": self.flops()}
        self.tell("progress", **position, **shown, tokens_per_second=round(speed))
        self.loss = shown["loss"]
        self.tally = Tally(now, running=t.running, spikes=t.spikes)

    def save(self, number: int) -> Saved:
        """Writes the checkpoint at the end of a segment."""
        state = State(self.step, self.tally.running, self.tally.spikes)
        saved = save(Path(self.c.out), self.model, self.optimizer, state, self.c, read_back=self.one_segment)
        told = {"digest": digest(self.model), "spikes": state.spikes, "checkpoint": saved.name}
        self.tell("segment", segment=number, step=self.step, flops=self.flops(), **told)
        return saved

    def _answer(self, number: int, found: Mapping[str, object], saved: Saved | None, before: Mapping[str, int]) -> None:
        """The line by which one run of a segment is held against another: what it came to, and what it left."""
        folder, state = Path(self.c.out), State(self.step, self.tally.running, self.tally.spikes)
        squares = [torch.linalg.vector_norm(q.detach().double()) ** 2 for q in self.parameters]
        left = [n for n in ("checkpoint.pt", "model.safetensors", "result.json") if (folder / n).exists()]
        files = {name: file_sha256(folder / name) for name in left}
        if saved is not None and saved.name in files:
            files[saved.name] = saved.sha256  # of what was written, not of what the disk has now
        self.tell(
            "answer", segment=number, step=self.step, status=found["status"], began=self.began,
            state=saved.state if saved else whole(content_of(self.model, self.optimizer, state)),
            loss=self.loss, valid_loss=found.get("valid_loss"), valid_se=found.get("valid_se"),
            norm=math.sqrt(math.fsum(float(s) for s in squares)), spikes=state.spikes - before["spikes"],
            flops=self.flops() - before["flops"], files=files,
        )  # fmt: skip

    def resume(self) -> None:
        """Takes over the checkpoint of its folder, if there is one."""
        found = load(Path(self.c.out), self.model, self.optimizer, self.c)
        if found is not None:
            state, self.began = found
            self.step = state.step
            self.tally = Tally(time.perf_counter(), running=state.running, spikes=state.spikes)
            self.tell("resume", step=self.step, digest=digest(self.model))


def segment_ends(c: Config, p: Plan) -> list[int]:
    """The step at which each segment ends."""
    return [p.steps * (i + 1) // c.segments for i in range(c.segments)]


def _device(c: Config) -> torch.device:
    torch.set_num_threads(c.threads)
    there = torch.cuda.is_available()
    if c.device == "cuda" and not there:
        raise ConfigError("no CUDA device is here", "device", "write cpu or auto")
    if c.device == "cpu" or not there:
        return torch.device("cpu")  # every operator used here repeats its bits on CPU
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda")
