"""Efficiency leverage of mixtures of experts against the dense frontier, from a table of training runs.

Efficiency leverage EL = C_dense / C at equal validation loss (arXiv 2507.17702): how many times the FLOPs a dense model
needs for the loss that a mixture of experts reached with C.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from agentlab.csv_columns import Columns, read_columns
from agentlab.csv_header import TableError, read_header
from agentlab.table_rows import check_numbers

Vector = NDArray[np.float64]
NEEDED = ("name", "budget_flops", "flops", "params_active", "A", "G", "seed", "valid_loss")
EXPONENTS = np.geomspace(0.02, 1.5, 160)


@dataclass(frozen=True)
class Run:
    """One training run; flops and budget in FLOPs, loss in nats per byte; dense when A = 1 and G is empty or .5."""

    name: str
    budget: float
    flops: float
    params_active: float
    A: float
    G: float
    seed: int
    loss: float
    dense: bool


@dataclass(frozen=True)
class Frontier:
    """Lowest dense loss by compute, E + B C^-b, fitted to the best dense loss of every budget."""

    E: float
    B: float
    b: float
    budgets: tuple[float, ...]
    best: tuple[float, ...]  # loss at the best width of each budget
    misfit: float  # root mean square of ln(fit / best)

    def compute(self, loss: float) -> float:
        """Dense FLOPs that reach this loss; infinite at or below E."""
        return ((loss - self.E) / self.B) ** (-1 / self.b) if loss > self.E else math.inf


class LeverageRow(BaseModel):
    """One MoE run: A active share of experts, G granularity, C training FLOPs, loss nats per byte, EL and its error."""

    name: str
    A: float
    G: float
    C: float
    loss: float
    EL: float
    el_se: float
    C_dense: float
    extrapolated: int = Field(description="1 where C_dense is outside the dense budgets, else 0")
    seed: int


class Leverage(BaseModel):
    """Leverage of the MoE runs at their best size, and what it was measured against."""

    rows: list[LeverageRow]
    offset: float = Field(description="E of the dense frontier E + B C^-b, nats per byte")
    scale: float = Field(description="B")
    exponent: float = Field(description="b")
    misfit: float = Field(description="root mean square of ln(frontier / best dense loss of a budget)")
    dense_budgets: list[float]
    dense_best: list[float]
    noise: float = Field(description="standard deviation of ln(loss) between seeds, pooled")
    left_out: list[str] = Field(description="MoE runs whose loss no dense compute reaches on this frontier")


def read_runs(path: Path) -> list[Run]:
    """Runs of a CSV with at least the columns `NEEDED`; rows without a loss (diverged) are left out.

    A run is dense where the column `experts` is 0 or blank, or, without that column, where A is 1.
    """
    _, header = read_header(path)
    missing = [c for c in NEEDED if c not in header]
    if missing:
        raise TableError(f"{path}: no column {', '.join(missing)}; needed are {', '.join(NEEDED)}")
    numbers = [*NEEDED[1:], *(["experts"] if "experts" in header else [])]
    read = read_columns(path, {NEEDED[0]: "text", **dict.fromkeys(numbers, "number")})
    loss = np.asarray(read.values["valid_loss"], dtype=np.float64)
    kept = ~np.isnan(loss)
    kept[list(read.text_cells.get("valid_loss", {}))] = True  # to be told of, not passed over
    index = np.flatnonzero(kept)
    if len(index):
        for column in NEEDED[1:]:
            check_numbers(read, column, index)
    return [_run(read, int(i)) for i in index]


def _run(read: Columns, i: int) -> Run:
    named = {column: float(read.values[column][i]) for column in NEEDED[1:]}
    experts = float(read.values["experts"][i]) if "experts" in read.values else math.nan
    dense = not experts > 0 if "experts" in read.values else named["A"] >= 1
    return Run(
        str(read.values["name"][i]), named["budget_flops"], named["flops"], named["params_active"], named["A"],
        named["G"], int(named["seed"]), named["valid_loss"], dense,
    )  # fmt: skip


def noise_of(runs: Iterable[Run]) -> float:
    """Pooled standard deviation of ln(loss) between seeds of the same point; 0 when nothing was repeated."""
    groups: dict[tuple[float, float, float, float, bool], list[float]] = defaultdict(list)
    for r in runs:
        groups[r.budget, r.params_active, r.A, r.G, r.dense].append(math.log(r.loss))
    repeated = [g for g in groups.values() if len(g) > 1]
    squares = sum(float(np.var(g)) * len(g) for g in repeated)
    freedom = sum(len(g) - 1 for g in repeated)
    return math.sqrt(squares / freedom) if freedom else 0.0


def best_loss(params: Vector, losses: Vector) -> float:
    """Lowest loss over widths: vertex of the parabola in ln(params) through the best width and its two neighbours."""
    widths = np.unique(params)
    means = np.array([np.log(losses[params == w]).mean() for w in widths])
    i = int(means.argmin())
    if not 0 < i < len(widths) - 1:
        return float(np.exp(means[i]))
    x, y = np.log(widths[i - 1 : i + 2]), means[i - 1 : i + 2]
    a, b, c = np.polyfit(x - x[1], y, 2)
    return float(np.exp(c - b * b / (4 * a)))


def best_by_budget(dense: Sequence[Run], losses: Vector) -> tuple[Vector, Vector]:
    """Budgets of the dense runs, and the best loss at each."""
    budget, params = np.array([r.budget for r in dense]), np.array([r.params_active for r in dense])
    budgets = np.unique(budget)
    return budgets, np.array([best_loss(params[budget == c], losses[budget == c]) for c in budgets])


def fit_frontier(dense: Sequence[Run]) -> Frontier:
    """Frontier of the dense runs. Raises TableError below 3 budgets, and where loss does not fall with compute."""
    budgets, best = best_by_budget(dense, np.array([r.loss for r in dense]))
    if len(budgets) < 3:
        raise TableError(f"dense runs at {len(budgets)} budgets; the frontier needs at least 3")
    law = _power_law(budgets, best)
    if law is None:
        raise TableError("dense loss does not fall with compute; give runs of other budgets")
    return law


def _power_law(budgets: Vector, best: Vector) -> Frontier | None:
    """E + B C^-b with E >= 0 by least squares on relative error: linear in (E, B) for every b of a grid.

    None where loss does not fall with compute.
    """
    chosen: tuple[float, float, float, float] | None = None
    for b in EXPONENTS:
        power = (budgets / budgets[0]) ** -b / best
        ones = 1 / best
        E, B = np.linalg.lstsq(np.stack([ones, power], 1), np.ones_like(best), rcond=None)[0]
        if E < 0:
            E, B = 0.0, float(power.sum() / (power @ power))
        error = float(((E * ones + B * power - 1) ** 2).mean())
        if B > 0 and (chosen is None or error < chosen[0]):
            chosen = (error, float(E), float(B) * budgets[0] ** b, float(b))
    if chosen is None:
        return None
    error, E, B, b = chosen
    return Frontier(E, B, b, tuple(budgets.tolist()), tuple(best.tolist()), math.sqrt(error))


def at_best_size(moe: Sequence[Run]) -> list[Run]:
    """The runs of the size that is best on average, for every budget, A and G: best MoE is compared with best dense."""
    groups: dict[tuple[float, float, float], dict[float, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for r in moe:
        groups[r.budget, r.A, r.G][r.params_active].append(r)
    kept = [min(sizes.values(), key=lambda runs: np.mean([r.loss for r in runs])) for sizes in groups.values()]
    names = {r.name for runs in kept for r in runs}
    return [r for r in moe if r.name in names]


def leverage_of(moe: Sequence[Run], dense: Sequence[Run], resamples: int = 400, seed: int = 0) -> Leverage:
    """EL of the MoE runs of the best size for their budget, A and G, with its standard error.

    The error comes from redrawing all losses with the noise between seeds, and the best dense losses with the misfit of
    the frontier, refitting each time.
    """
    noise, frontier = noise_of([*moe, *dense]), fit_frontier(dense)
    best = at_best_size(moe)
    drawn = _resampled(best, dense, noise, frontier, resamples, np.random.default_rng(seed))
    rows, left_out = [], []
    for r, draws in zip(best, drawn, strict=True):
        C_dense = frontier.compute(r.loss)
        usable = draws[np.isfinite(draws)]
        if not math.isfinite(C_dense) or len(usable) < resamples / 2:
            left_out.append(r.name)
            continue
        EL = C_dense / r.flops
        outside = not frontier.budgets[0] <= C_dense <= frontier.budgets[-1]
        rows.append(
            LeverageRow(
                name=r.name,
                A=r.A,
                G=r.G,
                C=r.flops,
                loss=r.loss,
                EL=EL,
                el_se=EL * float(np.log(usable).std()),
                C_dense=C_dense,
                extrapolated=int(outside),
                seed=r.seed,
            )
        )
    return Leverage(
        rows=rows, offset=frontier.E, scale=frontier.B, exponent=frontier.b, misfit=frontier.misfit,
        dense_budgets=list(frontier.budgets), dense_best=list(frontier.best), noise=noise, left_out=left_out,
    )  # fmt: skip


def _resampled(
    moe: Sequence[Run],
    dense: Sequence[Run],
    noise: float,
    frontier: Frontier,
    resamples: int,
    chance: np.random.Generator,
) -> NDArray[np.float64]:
    """Dense compute for every MoE run [runs, resamples], by resampled losses."""
    losses = np.array([r.loss for r in dense])
    drawn = np.full((len(moe), resamples), math.inf)
    for j in range(resamples):
        budgets, best = best_by_budget(dense, losses * np.exp(noise * chance.standard_normal(len(dense))))
        law = _power_law(budgets, best * np.exp(frontier.misfit * chance.standard_normal(len(best))))
        moved = [r.loss * math.exp(noise * chance.standard_normal()) for r in moe]
        if law is not None:
            drawn[:, j] = [law.compute(loss) for loss in moved]
    return drawn


def write_leverage(path: Path, table: Leverage) -> None:
    """The rows as CSV, rounded to 6 significant digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LeverageRow.model_fields)
        for row in table.rows:
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row.model_dump().values()])
