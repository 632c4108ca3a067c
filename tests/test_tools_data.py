"""Efficiency leverage from tables of runs: planted leverage is found, its error is honest, bad tables are named."""

from __future__ import annotations

import asyncio
import csv
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agentlab.tools import data
from mcp import Client

TRUE = data.Frontier(0.7, 120.0, 0.19, (), (), 0.0)
BUDGETS = (1e11, 3e11, 1e12, 3e12, 6e12)


def dense_loss(compute: float, params: float) -> float:
    """A frontier whose best size grows with compute, and a parabola around it."""
    best = 0.05 * compute**0.5
    bend = math.exp(0.02 * math.log(params / best) ** 2)
    return float((TRUE.E + TRUE.B * compute**-TRUE.b) * bend)


def planted(noise: float = 0.0, seeds: int = 2, leverage: float = 1.9, seed: int = 0) -> list[dict[str, object]]:
    chance = np.random.default_rng(seed)
    rows = []
    for budget in BUDGETS:
        for s in range(seeds):
            for size in (0.25, 0.7, 1.6, 4.0):
                params = round(size * 0.05 * budget**0.5)
                loss = dense_loss(budget, params) * math.exp(noise * chance.standard_normal())
                rows.append(_row(f"dense-{budget:.0e}-{size}-{s}", budget, params, 1.0, 0.5, s, loss, 0))
            loss = (TRUE.E + TRUE.B * (leverage * budget) ** -TRUE.b) * math.exp(noise * chance.standard_normal())
            rows.append(_row(f"moe-{budget:.0e}-{s}", budget, 1000, 0.125, 2.0, s, loss, 16))
    return rows


def _row(
    name: str, budget: float, params: float, a: float, g: float, seed: int, loss: float, experts: int
) -> dict[str, object]:
    return {
        "name": name, "budget_flops": budget, "flops": budget, "params_active": params, "A": a, "G": g, "seed": seed,
        "valid_loss": loss, "experts": experts,
    }  # fmt: skip


def table(path: Path, rows: list[dict[str, object]]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def call(arguments: dict[str, Any]) -> Any:
    async def inner() -> Any:
        async with Client(data.server) as client:
            return await client.call_tool("leverage", arguments)

    return asyncio.run(inner())


def leverage(path: str, **more: Any) -> data.Leverage:
    reply = call({"runs": path, **more})
    assert not reply.is_error, reply.content
    return data.Leverage.model_validate(reply.structured_content)


def test_planted_leverage_is_found_without_noise(tmp_path: Path) -> None:
    found = leverage(table(tmp_path / "runs.csv", planted()), resamples=20)
    assert [r.EL for r in found.rows] == pytest.approx([1.9] * 10, rel=0.02)
    assert found.noise == 0
    assert found.misfit < 0.001
    assert [r.extrapolated for r in found.rows] == [0] * 8 + [1] * 2


def test_the_standard_error_is_as_large_as_the_error(tmp_path: Path) -> None:
    far = []
    for seed in range(5):
        found = leverage(table(tmp_path / f"runs{seed}.csv", planted(noise=0.01, seed=seed)), resamples=60)
        far += [math.log(r.EL / 1.9) / (r.el_se / r.EL) for r in found.rows if not r.extrapolated]
        assert found.noise == pytest.approx(0.01, rel=0.5)
    assert 0.5 < math.sqrt(np.mean(np.square(far))) < 1.7


def test_the_same_seed_gives_the_same_table(tmp_path: Path) -> None:
    runs = table(tmp_path / "runs.csv", planted(noise=0.01))
    assert leverage(runs, resamples=20, seed=3) == leverage(runs, resamples=20, seed=3)
    assert leverage(runs, resamples=20, seed=3) != leverage(runs, resamples=20, seed=4)


def test_dense_runs_above_a_budget_can_be_left_out(tmp_path: Path) -> None:
    runs = table(tmp_path / "runs.csv", planted())
    found = leverage(runs, resamples=20, max_dense_flops=3e12)
    assert found.dense_budgets == [1e11, 3e11, 1e12, 3e12]
    assert [r.extrapolated for r in found.rows] == [0] * 6 + [1] * 4


def test_a_diverged_run_has_no_leverage_and_no_influence(tmp_path: Path) -> None:
    rows = planted()
    with_failures = [
        *rows,
        {**rows[0], "name": "diverged", "valid_loss": ""},
        {**rows[4], "name": "lost", "valid_loss": ""},
    ]
    assert leverage(table(tmp_path / "a.csv", rows), resamples=20) == leverage(
        table(tmp_path / "b.csv", with_failures), resamples=20
    )


def test_a_loss_that_no_dense_compute_reaches_is_named_and_left_out(tmp_path: Path) -> None:
    rows = planted()
    found = leverage(
        table(tmp_path / "runs.csv", [*rows, {**rows[4], "name": "magic", "A": 0.01, "valid_loss": 0.1}]), resamples=20
    )
    assert found.left_out == ["magic"]
    assert len(found.rows) == 10


def test_of_several_sizes_the_best_one_counts(tmp_path: Path) -> None:
    rows = planted()
    small = [
        {**r, "name": f"small-{r['name']}", "params_active": 500, "valid_loss": 1.02 * float(str(r["valid_loss"]))}
        for r in rows
        if r["experts"]
    ]
    found = leverage(table(tmp_path / "runs.csv", [*rows, *small]), resamples=20)
    assert [r.EL for r in found.rows] == pytest.approx([1.9] * 10, rel=0.02)


def test_the_table_is_written_once(tmp_path: Path) -> None:
    runs, out = table(tmp_path / "runs.csv", planted()), tmp_path / "leverage.csv"
    found = leverage(runs, resamples=20, out=str(out))
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "A", "G", "C", "loss", "EL", "el_se", "C_dense", "extrapolated", "seed"]
    assert [float(r["EL"]) for r in rows] == pytest.approx([r.EL for r in found.rows], rel=1e-5)
    assert "exists" in refusal(runs, out=str(out))


def refusal(runs: str, **more: Any) -> str:
    reply = call({"runs": runs, **more})
    assert reply.is_error
    return str(reply.content[0].text)


def test_bad_tables_are_named_with_place_and_fix(tmp_path: Path) -> None:
    rows = planted()
    assert "no such file" in refusal(str(tmp_path / "none.csv"))
    assert "no column A" in refusal(table(tmp_path / "a.csv", [{k: v for k, v in r.items() if k != "A"} for r in rows]))
    text = refusal(table(tmp_path / "b.csv", [rows[0], {**rows[1], "flops": "many"}]))
    assert "line 3, flops: 'many' is no number" in text
    few = [r for r in rows if r["budget_flops"] in (1e11, 3e11)]
    assert "needs at least 3" in refusal(table(tmp_path / "c.csv", few))
    assert "sealed hold-out" in refusal(table(tmp_path / "holdout_runs.csv", rows))


def test_the_shipped_leverage_is_what_the_tool_makes_of_the_shipped_runs() -> None:
    folder = Path(str(files("agentlab.tasks"))) / "moe_leverage" / "data"
    found = {r.name: r for r in leverage(str(folder / "runs.csv"), resamples=20).rows}
    with (folder / "leverage.csv").open(newline="") as file:
        shipped = {r["name"]: float(r["EL"]) for r in csv.DictReader(file)}
    assert shipped == pytest.approx({name: row.EL for name, row in found.items()}, rel=1e-4)
