"""Compiles the job folders of the moe_leverage sweep into the tables of the task."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentlab.tools.data import Leverage, leverage_of, read_runs, write_leverage
from moe_design import Point
from pydantic import JsonValue

CURVE_POINTS = 20
RUN_COLUMNS = (
    "name", "role", "budget_flops", "flops", "tokens", "steps", "batch_tokens", "params", "params_active",
    "flops_per_token", "router_share", "d_model", "n_layers", "d_expert", "experts", "active_experts", "E", "k",
    "split", "A", "G", "lr", "seed", "valid_loss", "valid_se", "train_loss", "max_load", "spikes", "seconds", "digest",
)  # fmt: skip


def compile_all(points: Sequence[Point], jobs: Path, task: Path) -> None:
    """Writes the tables of the jobs done, the hold-out's apart, and FIGURES.md, and prints what they say."""
    data = task / "data"
    data.mkdir(parents=True, exist_ok=True)
    done = [(p, row) for p in points if (row := run_row(p, jobs / p.name)) is not None]
    train = [(p, row) for p, row in done if p.role != "holdout"]
    holdout = [(p, row) for p, row in done if p.role == "holdout"]
    write_rows(data / "runs.csv", RUN_COLUMNS, [row for _, row in train])
    write_rows(data / "holdout_runs.csv", RUN_COLUMNS, [row for _, row in holdout])
    curves = [line for p, _ in train for line in curve(p.name, jobs / p.name / "log.jsonl")]
    write_rows(data / "curves.csv", ("name", "step", "tokens", "flops", "train_loss"), curves)
    runs = read_runs(data / "runs.csv")
    dense = [r for r in runs if r.dense]
    inner = leverage_of([r for r in runs if not r.dense], dense)
    write_leverage(data / "leverage.csv", inner)
    told = [cost([row for _, row in done], len(points)), *tell("Training rows", inner)]
    sealed = read_runs(data / "holdout_runs.csv")
    if any(not r.dense for r in sealed):
        outer = leverage_of([r for r in sealed if not r.dense], [*dense, *(r for r in sealed if r.dense)])
        write_leverage(data / "holdout.csv", outer)
        print("\n".join(tell("Hold-out rows, sealed: shown here and written nowhere else", outer)))
    text = "# Figures of moe_leverage\n\nWritten by `python bench/moe_sweep.py tables`.\n\n" + "\n".join(told) + "\n"
    (task / "FIGURES.md").write_text(text, encoding="utf-8")
    print(text)


def cost(rows: Sequence[Mapping[str, object]], planned: int) -> str:
    """How many runs there are, and what they took."""
    budgets = Counter(str(row["budget_flops"]) for row in rows)
    dense = sum(row["experts"] == 0 for row in rows)
    hours = sum(float(str(row["seconds"])) for row in rows) / 3600
    flops = sum(float(str(row["flops"])) for row in rows)
    by_budget = ", ".join(f"{budget}: {n}" for budget, n in sorted(budgets.items(), key=lambda b: float(b[0])))
    return (
        f"{len(rows)} of {planned} planned runs are done, {dense} of them dense; by budget {by_budget}. "
        f"Together {flops:.3g} FLOPs in {hours:.1f} thread-hours of training steps on a shared machine.\n"
    )


def run_row(point: Point, job: Path) -> dict[str, object] | None:
    """One row of runs.csv, or None when the job has no result yet; a diverged run has an empty loss."""
    if not (job / "result.json").is_file():
        return None
    result = json.loads((job / "result.json").read_text(encoding="utf-8"))
    plan, lines = result["plan"], log(job / "log.jsonl")
    progress = [line for line in lines if line["event"] == "progress"]
    segments = [line for line in lines if line["event"] == "segment"]
    return {
        "name": point.name, "role": point.role, "budget_flops": f"{point.budget_flops:.0e}".replace("+", ""),
        "flops": result["flops"], "tokens": plan["tokens"], "steps": plan["steps"],
        "batch_tokens": point.batch_sequences * 128, "params": plan["params"], "params_active": plan["params_active"],
        "flops_per_token": plan["flops_per_token_train"],
        "router_share": round(plan["router_flops_per_token_train"] / plan["flops_per_token_train"], 4),
        "d_model": point.d_model, "n_layers": point.n_layers, "d_expert": plan["d_expert"], "experts": plan["experts"],
        "active_experts": plan["active_experts"], "E": point.experts, "k": point.top_k if point.experts else 0,
        "split": point.split, "A": plan["activation_ratio"], "G": plan["granularity"],
        "lr": point.lr, "seed": point.seed,
        "valid_loss": rounded(result["valid_loss"]), "valid_se": rounded(result.get("valid_se")),
        "train_loss": rounded(progress[-1]["loss"]) if progress else "",
        "max_load": rounded(progress[-1].get("max_load")) if progress else "",
        "spikes": segments[-1]["spikes"] if segments else 0,
        "seconds": rounded(active_seconds(progress)), "digest": str(result.get("digest", ""))[:16],
    }  # fmt: skip


def active_seconds(progress: Sequence[Mapping[str, JsonValue]]) -> float:
    """Seconds spent in training steps, whatever pauses and restarts the run had."""
    total, before = 0.0, 0.0
    for line in progress:
        tokens, rate = float(str(line["tokens"])), float(str(line["tokens_per_second"]))
        total += (tokens - before) / max(1.0, rate)
        before = tokens
    return total


def log(path: Path) -> list[dict[str, JsonValue]]:
    """Lines of a log, each once: a resumed run repeats the steps after its checkpoint, to the same values."""
    kept: dict[tuple[str, str], dict[str, JsonValue]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        if text.startswith("{") and text.endswith("}"):  # else torn by a kill
            line = json.loads(text)
            kept[line["event"], str(line.get("step"))] = line
    return list(kept.values())


def curve(name: str, path: Path) -> list[dict[str, object]]:
    """At most CURVE_POINTS points of a run's training loss, each the mean since the point before in the log."""
    lines = [line for line in log(path) if line["event"] == "progress"]
    stride = -(-len(lines) // CURVE_POINTS)
    taken = lines[::-1][::stride][::-1]
    return [
        {"name": name, "step": x["step"], "tokens": x["tokens"], "flops": x["flops"], "train_loss": rounded(x["loss"])}
        for x in taken
    ]


def rounded(value: object) -> object:
    """Six significant digits; nothing stays nothing."""
    return "" if value is None else f"{float(str(value)):.6g}"


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV with these columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def tell(what: str, table: Leverage) -> list[str]:
    """The frontier and the noise behind a table."""
    best = ", ".join(f"{c:.0e}: {loss:.4f}" for c, loss in zip(table.dense_budgets, table.dense_best, strict=True))
    outside = sum(row.extrapolated for row in table.rows)
    return [
        f"## {what}",
        "",
        f"- {len(table.rows)} rows, {outside} of them with C_dense beyond the dense budgets",
        f"- left out, for want of a dense loss as low: {', '.join(table.left_out) or 'none'}",
        f"- dense frontier {table.offset:.4f} + {table.scale:.4g} C^-{table.exponent:.4f} nats per byte",
        f"- best dense loss by budget: {best}; misfit {table.misfit:.4f} of ln(loss)",
        f"- noise between seeds {table.noise:.4f} of ln(loss), pooled",
        "",
    ]
