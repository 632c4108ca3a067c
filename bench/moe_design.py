"""The design of the moe_leverage sweep: which models, at which budgets, in which order, by which rules.

Rules, from the short tuning runs listed in tasks/moe_leverage/NOTES.md:
- learning rate .012 (d_model / 24)^-.75, dense and MoE alike; batch grows with the budget; 2 layers up to width 32,
  3 up to 64, 4 above; heads of 16 (12 at widths 12 and 24, 10 at 20, 14 at 28, 20 at 40);
- every FFN has an active width of 4 d_model (SwiGLU): an MoE with top_k k before splitting has unsplit experts of width
  4 d_model / k, so all models of one width cost the same but for the router;
- a point is (A, K): K = k * split active experts of width 4 d_model / K, so granularity 2 d_model / d_expert = K / 2.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

BATCH = {1e11: 4, 3e11: 6, 1e12: 8, 3e12: 12, 6e12: 14, 1e13: 16, 2e13: 20}
SEGMENTS = {1e11: 1, 3e11: 1, 1e12: 2, 3e12: 4, 6e12: 6, 1e13: 8, 2e13: 12}
HOLDOUT = 1e13
HEADS = {12: 1, 20: 2, 24: 2, 28: 2}


@dataclass(frozen=True)
class Point:
    """One run of the sweep; widths in units of the model, lr as AdamW takes it, order = when it is run."""

    name: str
    order: int
    role: str  # train, frontier (dense runs between budgets) or holdout
    budget_flops: float
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    experts: int
    top_k: int
    split: int
    batch_sequences: int
    lr: float
    seed: int

    def config(self, corpus: str, report_every: int) -> dict[str, object]:
        """The config of the trainer for this run."""
        taken = ("d_model", "n_layers", "n_heads", "d_ff", "experts", "top_k", "split", "batch_sequences", "lr", "seed")
        mixture = {"balance_coef": 0.03, "normalise_gates": self.top_k * self.split > 1} if self.experts else {}
        own = {"flops": self.budget_flops, "segments": SEGMENTS[self.budget_flops], "report_every": report_every}
        return {"corpus": corpus, "save_model": False, **own, **mixture, **{k: getattr(self, k) for k in taken}}


def layers(width: int) -> int:
    """Depth of a width."""
    return 2 if width <= 32 else 3 if width <= 64 else 4


def split_of(active: int, per: int) -> tuple[int, int, int]:
    """(experts, top_k, split) before splitting, for K active experts and A = 1/per; experts stay within 4..64."""
    for top_k in (2, 1, 4):
        if active % top_k == 0 and active // top_k <= 8 and 4 <= top_k * per <= 64:
            return top_k * per, top_k, active // top_k
    raise ValueError(f"no split gives {active} active experts at A = 1/{per}; use at most 32 and at most 1/64")


def point(order: int, budget: float, width: int, *, active: int = 0, per: int = 0, seed: int = 0) -> Point:
    """A dense run (per = 0), or the MoE run with A = 1/per and K = active."""
    experts, top_k, split = split_of(active, per) if per else (0, 1, 1)
    shape = f"moe-a{per}-k{active}" if per else "dense"
    role = "holdout" if budget >= HOLDOUT else "frontier" if budget == 6e12 else "train"
    return Point(
        f"{budget:.0e}-d{width}-{shape}-s{seed}".replace("+", ""), order, role, budget, width, layers(width),
        HEADS.get(width, max(1, width // 16)), 4 * width // top_k, experts, top_k, split, BATCH[budget],
        round(0.012 * (width / 24) ** -0.75, 5), seed,
    )  # fmt: skip


# order, budget, width
DENSE = [
    (1, 1e11, 12), (1, 1e11, 16), (1, 1e11, 24), (1, 3e11, 16), (1, 3e11, 24), (1, 3e11, 32),
    (2, 1e12, 24), (2, 1e12, 32), (2, 1e12, 48),
    (4, 1e11, 20), (4, 3e11, 20), (4, 1e12, 64), (4, 3e12, 32), (4, 3e12, 48), (4, 3e12, 64),
    (5, 3e11, 28), (5, 1e12, 40), (5, 6e12, 48), (5, 6e12, 64), (7, 1e13, 64), (7, 1e13, 48),
    (12, 2e13, 64), (13, 3e12, 40), (13, 6e12, 40),
]  # fmt: skip
# order, budget, width, [K, ...] for each 1/A
MIXTURES = [
    (1, 1e11, 16, {4: [2], 8: [2, 4], 16: [2], 32: [2], 64: [1]}),
    (1, 3e11, 24, {4: [4], 8: [2, 4], 16: [2, 4], 32: [2]}),
    (2, 1e12, 32, {4: [4], 8: [2, 8], 32: [4]}),
    (4, 1e11, 16, {2: [2, 4], 4: [4, 8], 8: [1, 8], 16: [1, 4], 32: [1]}),
    (4, 3e11, 24, {2: [4], 4: [2, 8], 8: [1, 8], 16: [1, 8], 32: [1, 4], 64: [1, 2]}),
    (5, 1e12, 32, {4: [2], 8: [4, 16], 16: [4], 64: [2]}),
    (8, 1e12, 32, {4: [8], 16: [2, 8], 32: [2, 8]}),
    (6, 3e12, 48, {4: [4], 8: [2, 8], 32: [4]}),
    (6, 3e12, 32, {8: [2, 4]}),
    (7, 1e13, 64, {8: [4, 16], 32: [2]}),
    (7, 1e13, 48, {8: [4]}),
    (7, 1e13, 48, {4: [4], 16: [4]}),
    (13, 1e13, 48, {64: [2], 8: [2]}),
    (13, 1e13, 48, {32: [2], 8: [16]}),
    (13, 1e13, 48, {16: [8]}),
    (7, 1e11, 24, {4: [2, 4], 8: [2, 4, 8], 16: [2, 4], 32: [2]}),
    (7, 3e11, 32, {8: [2, 4], 16: [2, 4, 8], 32: [2, 4]}),
    (7, 3e11, 16, {4: [2], 8: [2, 4], 16: [2]}),
    (8, 3e12, 32, {4: [4], 16: [4], 32: [2, 4]}),
    (11, 1e12, 24, {4: [2, 4], 8: [2, 4, 8], 16: [4], 32: [4]}),
    (13, 3e12, 32, {8: [8], 64: [2]}),
    (12, 1e12, 48, {8: [4], 16: [4]}),
]
# order, budget, width, 1/A (0 for dense), K, seed: repeats, for the noise
REPEATS = [
    (3, 1e11, 16, 0, 0, 1), (3, 3e11, 24, 0, 0, 1), (3, 1e12, 32, 0, 0, 1), (3, 1e11, 16, 8, 2, 1),
    (5, 1e11, 16, 0, 0, 2), (5, 3e11, 24, 0, 0, 2), (5, 3e11, 24, 8, 4, 1), (5, 1e12, 48, 0, 0, 1),
    (5, 1e12, 32, 0, 0, 2), (8, 3e12, 48, 0, 0, 1), (8, 3e12, 64, 0, 0, 1),
    (7, 1e11, 12, 0, 0, 1), (7, 1e11, 20, 0, 0, 1), (7, 1e11, 24, 0, 0, 1), (5, 3e11, 32, 0, 0, 1),
    (7, 3e11, 20, 0, 0, 1), (5, 3e11, 28, 0, 0, 1), (5, 1e12, 40, 0, 0, 1), (7, 1e11, 20, 0, 0, 2),
    (7, 1e11, 24, 0, 0, 2), (7, 1e11, 12, 0, 0, 2), (7, 3e11, 16, 0, 0, 1), (7, 3e11, 32, 0, 0, 2),
    (7, 1e11, 16, 8, 4, 1), (7, 1e11, 16, 16, 2, 1), (7, 1e11, 16, 32, 2, 1), (7, 1e11, 16, 4, 2, 1),
    (7, 1e11, 16, 8, 2, 2), (7, 1e11, 16, 4, 4, 1), (7, 1e11, 16, 16, 4, 1), (7, 1e11, 16, 2, 2, 1),
    (7, 3e11, 24, 16, 2, 1), (7, 3e11, 24, 32, 2, 1), (7, 3e11, 24, 8, 2, 1), (7, 3e11, 24, 4, 4, 1),
    (11, 1e12, 32, 8, 2, 1), (11, 1e12, 32, 32, 4, 1), (12, 1e12, 32, 16, 4, 1),
    (12, 1e12, 24, 0, 0, 1), (12, 1e12, 64, 0, 0, 1), (12, 3e12, 32, 8, 4, 1),
    (7, 3e11, 24, 8, 4, 2), (12, 1e12, 48, 0, 0, 2),
    (7, 1e11, 16, 2, 4, 1), (7, 1e11, 16, 64, 1, 1), (7, 1e11, 16, 8, 8, 1), (7, 1e11, 16, 4, 8, 1),
]  # fmt: skip


def points() -> list[Point]:
    """All runs, in the order they are run: a thin spine, depth, the hold-out, then more."""
    found = [point(order, budget, width) for order, budget, width in DENSE]
    for order, budget, width, grid in MIXTURES:
        found += [point(order, budget, width, active=k, per=per) for per, actives in grid.items() for k in actives]
    found += [point(o, b, w, per=per, active=active, seed=seed) for o, b, w, per, active, seed in REPEATS]
    if len({p.name for p in found}) != len(found):
        raise ValueError("two points of the design have one name; give one of them another seed")
    return sorted(found, key=lambda p: (p.order, p.budget_flops))


def write(path: Path) -> None:
    """The design as a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(p), "budget_flops": f"{p.budget_flops:.0e}".replace("+", "")} for p in points())


def read(path: Path) -> list[Point]:
    """The table as points, in its own order."""
    kinds = {f.name: {"str": str, "int": int, "float": float}[str(f.type)] for f in fields(Point)}
    with path.open(newline="", encoding="utf-8") as file:
        return [Point(**{k: kinds[k](v) for k, v in row.items()}) for row in csv.DictReader(file)]
