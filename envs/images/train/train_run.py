"""Runs a plan to its end: segments of steps, checkpoints, progress lines, validation."""

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
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
from train_data import Corpus
from train_lines import emit
from train_model import AdamW, Routing, Transformer, cross_entropy
from train_plan import CONVENTION, Config, ConfigError, Plan, plan


def train(c: Config, *, one_segment: bool = False) -> None:
    """Runs the config to its end, or to that of the next segment, resuming what its folder holds."""
    corpus, p = Corpus(c), plan(c)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA repeats its bits only so
    with lock(Path(c.out)):
        trainer = Trainer(c, p, corpus, one_segment=one_segment)
        where = {"device": trainer.device.type, "dtype": c.dtype, "threads": c.threads, "torch": torch.__version__}
        emit("start", **asdict(p), **where, convention=CONVENTION)
        trainer.run()


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

    def __init__(self, c: Config, p: Plan, corpus: Corpus, *, one_segment: bool = False) -> None:
        self.c, self.plan, self.corpus, self.one_segment = c, p, corpus, one_segment
        self.device = _device(c)
        torch.manual_seed(c.seed)  # nothing draws from it, but it is part of the state that replicas agree on
        self.model = Transformer(c).to(self.device)
        self.parameters: list[Tensor] = [q for _, q in self.model.named_parameters()]
        self.optimizer = AdamW(self.parameters, c)
        self.step, self.tally = 0, Tally(time.perf_counter())
        self.loss: float | None = None  # of the last progress line
        self.began: str | None = None  # digest of the whole state that was resumed from

    def run(self) -> None:
        """Segments to the end, then validation; lines go out as things happen."""
        began, steps = time.perf_counter(), self.plan.steps
        self._resume()
        before = {"flops": self._flops(), "spikes": self.tally.spikes}
        bounds = [steps * (i + 1) // self.c.segments for i in range(self.c.segments)]
        result: dict[str, object] = {"status": "ok"}
        number, saved = len(bounds) - 1, None
        for number, bound in enumerate(bounds):
            if bound <= self.step:
                continue
            if not self._segment(bound):
                result = {"status": "diverged", "valid_loss": None}
                break
            saved = self._save(number)
            checked = {}
            if self.c.valid_every_segment and bound < steps:
                checked = self.validate()
                self._tell_validation(checked)
            if self.one_segment and bound < steps:
                self._answer(number, {"status": "ok", **checked}, saved, before)
                return
        if result["status"] == "ok":
            result |= self.validate()
            self._tell_validation(result)
            if self.c.save_model:
                export(Path(self.c.out), self.model, self.c)
        told = {"step": self.step, "flops": self._flops(), "tokens": self._tokens(), "digest": digest(self.model)}
        result |= told | {"seconds": time.perf_counter() - began}
        write_result(Path(self.c.out), result, self.plan)
        emit("done", **result)
        if self.one_segment:
            self._answer(number, result, None if result["status"] == "diverged" else saved, before)

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
                emit("diverged", step=self.step, lr=learning_rate(self.c, self.step, self.plan.steps))
                return False
            if self.step % self.c.report_every == 0 or self.step == bound:
                self._report()
        return True

    def _step(self) -> bool:
        c, t = self.c, self.tally
        # the last batch may be short, so that the budget is met and never passed
        count = min(c.batch_sequences, self.plan.sequences - self.step * c.batch_sequences)
        windows = torch.from_numpy(self.corpus.batch(self.step, count)).to(self.device)
        logits, routing = self._logits(windows)
        loss = cross_entropy(logits.view(-1, 256), windows[:, 1:].reshape(-1))
        value = float(loss.detach())
        if not math.isfinite(value):
            return False
        norm = self._backward(loss if routing is None else self._with_auxiliary(loss, routing))
        if not math.isfinite(norm):
            return False
        self.optimizer.step(learning_rate(c, self.step, self.plan.steps))
        self.step += 1
        t.grad_norm, t.loss, t.count = norm, t.loss + value, t.count + 1
        t.spikes += value > t.running + c.spike
        t.running += 0.05 * (value - t.running)
        return True

    def _logits(self, windows: Tensor) -> tuple[Tensor, Routing | None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.c.dtype == "bfloat16"):
            logits, routing = self.model(windows[:, :-1])
        return logits.float(), routing

    def _with_auxiliary(self, loss: Tensor, routing: Routing) -> Tensor:
        t = self.tally
        t.balance += float(routing.balance.detach())
        t.z += float(routing.z.detach())
        t.max_load = max(t.max_load, float(routing.max_share))
        return loss + self.c.balance_coef * routing.balance + self.c.z_coef * routing.z

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

    def _tell_validation(self, found: Mapping[str, object]) -> None:
        shown = {k: found[k] for k in ("valid_loss", "valid_se")}
        emit("validation", step=self.step, flops=self._flops(), **shown)

    def _sequences(self) -> int:
        return min(self.step * self.c.batch_sequences, self.plan.sequences)

    def _tokens(self) -> int:
        return self._sequences() * self.c.context

    def _flops(self) -> int:
        return self._sequences() * (self.plan.flops // self.plan.sequences)

    def _report(self) -> None:
        t, now, rate = self.tally, time.perf_counter(), learning_rate(self.c, self.step - 1, self.plan.steps)
        shown = {"loss": t.loss / t.count, "lr": rate, "grad_norm": t.grad_norm}
        if self.c.experts:
            shown |= {"balance": t.balance / t.count, "z": t.z / t.count, "max_load": t.max_load}
        speed = t.count * self.c.batch_sequences * self.c.context / max(1e-9, now - t.began)
        position = {"step": self.step, "tokens": self._tokens(), "flops": self._flops()}
        emit("progress", **position, **shown, tokens_per_second=round(speed))
        self.loss = shown["loss"]
        self.tally = Tally(now, running=t.running, spikes=t.spikes)

    def _save(self, number: int) -> Saved:
        state = State(self.step, self.tally.running, self.tally.spikes)
        saved = save(Path(self.c.out), self.model, self.optimizer, state, self.c, read_back=self.one_segment)
        told = {"digest": digest(self.model), "spikes": state.spikes, "checkpoint": saved.name}
        emit("segment", segment=number, step=self.step, flops=self._flops(), **told)
        return saved

    def _answer(self, number: int, found: Mapping[str, object], saved: Saved | None, before: Mapping[str, int]) -> None:
        """The line by which one run of a segment is held against another: what it came to, and what it left."""
        folder, state = Path(self.c.out), State(self.step, self.tally.running, self.tally.spikes)
        squares = [torch.linalg.vector_norm(q.detach().double()) ** 2 for q in self.parameters]
        left = [n for n in ("checkpoint.pt", "model.safetensors", "result.json") if (folder / n).exists()]
        files = {name: file_sha256(folder / name) for name in left}
        if saved is not None and saved.name in files:
            files[saved.name] = saved.sha256  # of what was written, not of what the disk has now
        emit(
            "answer", segment=number, step=self.step, status=found["status"], began=self.began,
            state=saved.state if saved else whole(content_of(self.model, self.optimizer, state)),
            loss=self.loss, valid_loss=found.get("valid_loss"), valid_se=found.get("valid_se"),
            norm=math.sqrt(math.fsum(float(s) for s in squares)), spikes=state.spikes - before["spikes"],
            flops=self._flops() - before["flops"], files=files,
        )  # fmt: skip

    def _resume(self) -> None:
        found = load(Path(self.c.out), self.model, self.optimizer, self.c)
        if found is not None:
            state, self.began = found
            self.step = state.step
            self.tally = Tally(time.perf_counter(), running=state.running, spikes=state.spikes)
            emit("resume", step=self.step, digest=digest(self.model))


def _device(c: Config) -> torch.device:
    torch.set_num_threads(c.threads)
    there = torch.cuda.is_available()
    if c.device == "cuda" and not there:
        raise ConfigError("no CUDA device is here", "device", "write cpu or auto")
    if c.device == "cpu" or not there:
        return torch.device("cpu")  # every operator used here repeats its bits on CPU
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda")
