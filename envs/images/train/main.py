"""Trains one byte-level language model: a JSON config in (path argument or standard input), JSON lines out.

Lines, told apart by "event": start, resume, progress, segment, validation, diverged, done, error. The FLOP convention
stands in train_plan.py and is repeated in the start line. A run is resumed from the checkpoint in its `out` folder,
bit for bit on the same machine with the same thread count; only `seconds` and `tokens_per_second` may differ.
A config that cannot be run gives one error line and exit code 2; a diverged run is a result, with exit code 0.
`--plan` prints the cost of the config and runs nothing.
"""

import fcntl
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from train_plan import Config, ConfigError, Plan, parse, plan

CONVENTION = (
    "training FLOPs = 3 x forward; forward per token = 2 x active matrix parameters (router and head included) "
    "+ attention scores and values over the positions seen; embedding look-up free; padding of experts not counted"
)


def emit(event: str, **values: object) -> None:
    """One JSON line; a number that is not finite becomes null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    sys.stdout.write(json.dumps({"event": event, **clean}) + "\n")
    sys.stdout.flush()


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

    loss: float = 0.0
    balance: float = 0.0
    z: float = 0.0
    max_load: float = 0.0
    grad_norm: float = 0.0
    count: int = 0
    running: float = math.log(256)
    spikes: int = 0
    began: float = field(default=0.0, compare=False)


class Corpus:
    """Bytes to train on and to validate on; a batch depends on (seed, step) alone."""

    def __init__(self, c: Config) -> None:
        import numpy as np

        self.np, self.c = np, c
        folder = Path(c.corpus)
        self.train, self.valid = (self._load(folder / name) for name in ("train.bin", "valid.bin"))

    def _load(self, path: Path) -> Any:
        if not path.is_file():
            raise ConfigError(f"{path.name} is not in {path.parent}", "corpus", "build the corpus first: `corpus` of the train tool")
        data = self.np.memmap(path, dtype=self.np.uint8, mode="r")
        if len(data) < self.c.context + 2:
            raise ConfigError(f"{path.name} has only {len(data)} bytes", "corpus", f"give at least {self.c.context + 2}")
        return data

    def batch(self, step: int, count: int) -> Any:
        """int64 [count, context + 1], windows at random starts."""
        chance = self.np.random.Generator(self.np.random.Philox(key=[self.c.seed, step]))
        starts = chance.integers(0, len(self.train) - self.c.context, count)
        return self._windows(self.train, starts)

    def validation(self) -> Any:
        """int64 [valid_sequences, context + 1], windows evenly spaced: the same for every run of one context."""
        starts = self.np.linspace(0, len(self.valid) - self.c.context - 1, self.c.valid_sequences).astype(self.np.int64)
        return self._windows(self.valid, starts)

    def _windows(self, data: Any, starts: Any) -> Any:
        return data[starts[:, None] + self.np.arange(self.c.context + 1)].astype(self.np.int64)


class Trainer:
    """A model, its optimizer and its position in the data; `run` goes to the end of the plan."""

    def __init__(self, c: Config, p: Plan, corpus: Corpus) -> None:
        import torch
        from train_model import CrossEntropy, Transformer

        self.torch, self.c, self.plan, self.corpus = torch, c, p, corpus
        self.device = _device(c, torch)
        self.model = Transformer(c).to(self.device)
        self.cross_entropy = CrossEntropy.apply
        self.named = list(self.model.named_parameters())
        matrices = [q for n, q in self.named if q.dim() > 1]
        vectors = [q for n, q in self.named if q.dim() == 1]
        groups = [{"params": matrices, "weight_decay": c.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=c.lr, betas=(c.beta1, c.beta2), fused=True)
        self.step, self.tally = 0, Tally()
        self.cast = c.dtype == "bfloat16"

    def run(self) -> None:
        """Segments to the end, then validation; lines go out as things happen."""
        began, steps = time.perf_counter(), self.plan.steps
        self._resume()
        self.tally.began = time.perf_counter()
        bounds = [steps * (i + 1) // self.c.segments for i in range(self.c.segments)]
        for number, bound in enumerate(bounds):
            if bound <= self.step:
                continue
            if not self._segment(bound):
                self._finish(status="diverged", step=self.step, valid_loss=None, flops=self._flops(), seconds=time.perf_counter() - began)
                return
            self._save(number)
            if self.c.valid_every_segment and bound < steps:
                emit("validation", step=self.step, flops=self._flops(), **self.validate())
        result = self.validate()
        emit("validation", step=self.step, flops=self._flops(), **result)
        if self.c.save_model:
            self._export()
        self._finish(status="ok", step=self.step, **result, flops=self._flops(), tokens=self.plan.tokens, digest=self.digest(), seconds=time.perf_counter() - began)

    def _finish(self, **result: object) -> None:
        """Writes result.json, then the done line; the checkpoint has served once the result is there."""
        path = Path(self.c.out) / "result.json"
        path.with_suffix(".part").write_text(json.dumps({**result, "plan": asdict(self.plan)}, indent=1) + "\n")
        os.replace(path.with_suffix(".part"), path)
        emit("done", **result)
        (Path(self.c.out) / "checkpoint.pt").unlink(missing_ok=True)

    def _segment(self, bound: int) -> bool:
        while self.step < bound:
            loss = self._step()
            if not math.isfinite(loss):
                emit("diverged", step=self.step, loss=None, lr=learning_rate(self.c, self.step, self.plan.steps))
                return False
            if self.step % self.c.report_every == 0 or self.step == bound:
                self._report()
        return True

    def _count(self) -> int:
        """Sequences of the present step: the last one may be short, so that the budget is met and never passed."""
        return min(self.c.batch_sequences, self.plan.sequences - self.step * self.c.batch_sequences)

    def _step(self) -> float:
        torch, c, t = self.torch, self.c, self.tally
        windows = torch.from_numpy(self.corpus.batch(self.step, self._count())).to(self.device)
        loss, routing = self._loss(windows)
        total = loss
        if routing is not None:
            total = loss + c.balance_coef * routing.balance + c.z_coef * routing.z
            t.balance += float(routing.balance.detach())
            t.z += float(routing.z.detach())
            t.max_load = max(t.max_load, float(routing.max_share))
        value = float(loss.detach())
        if not math.isfinite(value):
            return value
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        t.grad_norm = self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(c, self.step, self.plan.steps)
        self.optimizer.step()
        self.step += 1
        t.loss, t.count = t.loss + value, t.count + 1
        t.spikes += value > t.running + c.spike
        t.running += 0.05 * (value - t.running)
        return value if math.isfinite(t.grad_norm) else math.nan

    def _loss(self, windows: Any) -> tuple[Any, Any]:
        torch = self.torch
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.cast):
            logits, routing = self.model(windows[:, :-1])
        return self.cross_entropy(logits.float().view(-1, 256), windows[:, 1:].reshape(-1)), routing

    def _clip(self) -> float:
        torch = self.torch
        grads = [q.grad for _, q in self.named]
        norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads])))
        if self.c.clip and norm > self.c.clip:
            torch._foreach_mul_(grads, self.c.clip / norm)
        return norm

    def validate(self) -> dict[str, float]:
        """Mean loss (nats per byte) on the fixed held-out windows, and its standard error over windows."""
        torch, losses = self.torch, []
        windows = torch.from_numpy(self.corpus.validation())
        self.model.eval()
        with torch.no_grad():
            for part in windows.split(max(1, 2048 // self.c.context)):
                part = part.to(self.device)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.cast):
                    logits = self.model(part[:, :-1])[0]
                each = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), part[:, 1:], reduction="none")
                losses.append(each.double().mean(1))
        self.model.train()
        every = torch.cat(losses)
        return {"valid_loss": float(every.mean()), "valid_se": float(every.std() / math.sqrt(len(every)))}

    def _flops(self) -> int:
        done = min(self.step * self.c.batch_sequences, self.plan.sequences)
        return done * (self.plan.flops // self.plan.sequences)

    def _report(self) -> None:
        t, now = self.tally, time.perf_counter()
        tokens = min(self.step * self.c.batch_sequences, self.plan.sequences) * self.c.context
        rate = t.count * self.c.batch_sequences * self.c.context / max(1e-9, now - t.began)
        shown = {"loss": t.loss / t.count, "lr": learning_rate(self.c, self.step - 1, self.plan.steps), "grad_norm": t.grad_norm}
        if self.c.experts:
            shown |= {"balance": t.balance / t.count, "z": t.z / t.count, "max_load": t.max_load}
        emit("progress", step=self.step, tokens=tokens, flops=self._flops(), **shown, tokens_per_second=round(rate))
        self.tally = Tally(running=t.running, spikes=t.spikes, began=now)

    def digest(self) -> str:
        """sha256 over names and bytes of all parameters."""
        whole = hashlib.sha256()
        for name, q in self.named:
            whole.update(name.encode())
            whole.update(q.detach().cpu().contiguous().numpy().data)
        return whole.hexdigest()

    def _save(self, number: int) -> None:
        torch, path = self.torch, Path(self.c.out) / "checkpoint.pt"
        state = {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
            "rng": torch.get_rng_state(), "running": self.tally.running, "spikes": self.tally.spikes,
            "config": _identity(self.c), "digest": self.digest(),
        }  # fmt: skip
        with open(path.with_suffix(".part"), "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path.with_suffix(".part"), path)
        emit("segment", segment=number, step=self.step, flops=self._flops(), digest=state["digest"], spikes=self.tally.spikes, checkpoint=path.name)

    def _resume(self) -> None:
        path = Path(self.c.out) / "checkpoint.pt"
        if not path.exists():
            return
        state = self.torch.load(path, map_location=self.device, weights_only=True)
        if state["config"] != _identity(self.c):
            raise ConfigError("the checkpoint there is of another config", "out", "write an empty folder")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.torch.set_rng_state(state["rng"].cpu())
        self.step, self.tally = state["step"], Tally(running=state["running"], spikes=state["spikes"])
        if self.digest() != state["digest"]:
            raise ConfigError("the checkpoint is damaged: its digest differs", "out", "delete checkpoint.pt")
        emit("resume", step=self.step, digest=state["digest"])

    def _export(self) -> None:
        from safetensors.torch import save_file

        path = Path(self.c.out) / "model.safetensors"
        tensors = {name: q.detach().cpu().contiguous() for name, q in self.named}
        save_file(tensors, str(path) + ".part", metadata={"config": json.dumps(_identity(self.c), sort_keys=True)})
        os.replace(str(path) + ".part", path)


def _device(c: Config, torch: Any) -> Any:
    if c.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is here", "device", "write cpu or auto")
    torch.set_num_threads(c.threads)
    if c.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")  # every operator used here repeats its bits on CPU
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda")


def _lock(folder: Path) -> Any:
    """An open file that no second trainer of this folder can lock; the system frees it however the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / "lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError("another process trains there", "out", "wait for it, or write another folder") from error
    return file


def _identity(c: Config) -> dict[str, object]:
    """The config without where its files lie."""
    return {f.name: getattr(c, f.name) for f in fields(c) if f.name not in ("corpus", "out")}


def train(c: Config) -> None:
    """Runs the config to its end, resuming what its folder holds."""
    corpus, p = Corpus(c), plan(c)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    lock = _lock(Path(c.out))
    trainer = Trainer(c, p, corpus)
    emit("start", **asdict(p), device=trainer.device.type, dtype=c.dtype, threads=c.threads, torch=trainer.torch.__version__, convention=CONVENTION)
    trainer.run()
    lock.close()


def read(arguments: Iterator[str]) -> Config:
    """The config named by the first argument, else on standard input."""
    path = next(arguments, None)
    try:
        text = Path(path).read_text(encoding="utf-8") if path else sys.stdin.read()
        return parse(json.loads(text))
    except OSError as error:
        raise ConfigError(str(error), "config", "give the path of a JSON file") from error
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not JSON: {error}", "config", 'write {"d_model": 64, ...}') from error


def main(arguments: list[str]) -> int:
    """Exit code: 0 trained or planned, 2 bad config."""
    only_plan = "--plan" in arguments
    try:
        config = read(iter([a for a in arguments if a != "--plan"]))
        if only_plan:
            emit("plan", **asdict(plan(config)), convention=CONVENTION)
        else:
            train(config)
    except ConfigError as error:
        emit("error", what=error.what, where=error.where, instead=error.instead)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
