"""Tables of runs: described, filtered, extended, turned into leverage with honest errors; hold-outs stay sealed."""

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
from agentlab.tools._leverage import Frontier
from mcp import Client

TRUE = Frontier(0.7, 120.0, 0.19, (), (), 0.0)
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


def call(tool: str, arguments: dict[str, Any]) -> Any:
    async def inner() -> Any:
        async with Client(data.server) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(inner())


def ask(tool: str, **arguments: Any) -> dict[str, Any]:
    reply = call(tool, arguments)
    assert not reply.is_error, reply.content
    return dict(reply.structured_content)


def refused(tool: str, **arguments: Any) -> str:
    reply = call(tool, arguments)
    assert reply.is_error
    text = str(reply.content[0].text)
    assert "\n" not in text
    return text


def leverage(path: str, **more: Any) -> data.Leverage:
    reply = call("leverage", {"runs": path, **more})
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
    return refused("leverage", runs=runs, **more)


def test_bad_tables_are_named_with_place_and_fix(tmp_path: Path) -> None:
    rows = planted()
    assert "no such file" in refusal(str(tmp_path / "none.csv"))
    assert "no column A" in refusal(table(tmp_path / "a.csv", [{k: v for k, v in r.items() if k != "A"} for r in rows]))
    text = refusal(table(tmp_path / "b.csv", [rows[0], {**rows[1], "flops": "many"}]))
    assert "line 3: column 'flops' holds 'many', not a number" in text
    few = [r for r in rows if r["budget_flops"] in (1e11, 3e11)]
    assert "needs at least 3" in refusal(table(tmp_path / "c.csv", few))
    assert "sealed hold-out" in refusal(table(tmp_path / "holdout_runs.csv", rows))


def test_the_shipped_leverage_is_what_the_tool_makes_of_the_shipped_runs() -> None:
    folder = Path(str(files("agentlab.tasks"))) / "moe_leverage" / "data"
    found = {r.name: r for r in leverage(str(folder / "runs.csv"), resamples=20).rows}
    with (folder / "leverage.csv").open(newline="") as file:
        shipped = {r["name"]: float(r["EL"]) for r in csv.DictReader(file)}
    assert shipped == pytest.approx({name: row.EL for name, row in found.items()}, rel=1e-4)


# ---- describe ----


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Synthetic runs: tokens move with size, one cell is missing, one label is rare."""
    path = tmp_path / "sweep.csv"
    chance = np.random.default_rng(0)
    lines = ["n,d,lr,family,note,loss"]
    for i in range(40):
        n = float(f"{10 ** (6 + 3 * i / 39):.6g}")
        d = float(f"{20 * n * math.exp(0.05 * chance.standard_normal()):.6g}")
        loss = round(1.7 + 400 / n**0.34 + 410 / d**0.28, 6)
        lines.append(f"{n!r},{d!r},{0.001 if i % 2 else 0.003},{'ab'[i % 2]},run {i},{'' if i == 7 else loss}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_is_described(runs: Path) -> None:
    told = ask("describe", data=str(runs))
    columns = {c["name"]: c for c in told["columns"]}
    assert told["rows"] == 40
    assert columns["n"]["decades"] == pytest.approx(3)
    assert (columns["loss"]["missing"], columns["loss"]["kind"]) == (1, "number")
    assert columns["family"]["labels"] == {"a": 20, "b": 20}
    assert told["groups"] == ["family"]
    assert told["scales"] == ["n*d"]
    assert {(p["left"], p["right"]) for p in told["together"]} >= {("n", "d")}


def test_features_that_move_together_are_told_by_a_large_condition_number(runs: Path) -> None:
    near = ask("describe", data=str(runs), target="loss", features=["n", "d"])
    apart = ask("describe", data=str(runs), target="loss", features=["n", "lr"])
    assert near["condition"] > 10 * apart["condition"]
    assert apart["together"] == []


def test_what_discover_would_choose_or_refuse_is_told(runs: Path, tmp_path: Path) -> None:
    told = ask("describe", data=str(runs), target="loss", features=["n", "d"])
    assert any("blank or not a number" in note for note in told["notes"])
    whole = tmp_path / "whole.csv"
    ask("filter", data=str(runs), where="loss > 0", out=str(whole))
    told = ask("describe", data=str(whole), target="loss", features=["n", "d"])
    assert told["notes"] == []
    assert any(line.startswith("scale: n*d") for line in told["chosen"])


def test_a_wide_table_is_described_briefly(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = [f"column_{i}" for i in range(200)]
    path.write_text("\n".join([",".join(names), *(",".join(str(i + j) for i in range(200)) for j in range(5))]) + "\n")
    told = ask("describe", data=str(path))
    assert told["notes"] == ["140 more columns are not described"]
    assert len(str(told)) < 40_000


# ---- filter and derive ----


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_filtered_rows_are_kept_cell_for_cell(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "some.csv"
    told = ask("filter", data=str(runs), where="n >= 1e8 and family == 'a'", out=str(out))
    wanted = [r for r in read(runs) if float(r["n"]) >= 1e8 and r["family"] == "a"]
    assert read(out) == wanted
    assert (told["rows"], told["of"]) == (len(wanted), 40)


def test_derived_columns_are_exact_and_may_build_on_one_another(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "more.csv"
    told = ask("derive", data=str(runs), columns={"C": "6*n*d", "per": "C/n", "gap": "log(loss - 1.7)"}, out=str(out))
    rows = read(out)
    assert [{k: v for k, v in r.items() if k not in ("C", "per", "gap")} for r in rows] == read(runs)
    for row in rows:
        assert float(row["C"]) == 6 * float(row["n"]) * float(row["d"])
        assert float(row["per"]) == float(row["C"]) / float(row["n"])
    assert rows[7]["gap"] == ""
    assert [c["blank"] for c in told["columns"]] == [0, 0, 1]
    assert told["columns"][0]["high"] == max(float(r["C"]) for r in rows)


def test_quotes_and_other_separators_survive(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text('name;x\n"a, b";1\n"say ""hi""";2\n', encoding="utf-8")
    out = tmp_path / "out.csv"
    ask("derive", data=str(path), columns={"y": "x**2"}, out=str(out))
    assert read(out) == [{"name": "a, b", "x": "1", "y": "1"}, {"name": 'say "hi"', "x": "2", "y": "4"}]


def test_nothing_is_ever_written_over(runs: Path, tmp_path: Path) -> None:
    before = runs.read_bytes()
    hanging = tmp_path / "hanging.csv"
    hanging.symlink_to(tmp_path / "elsewhere.csv")
    for tool, what in (("filter", {"where": "n > 0"}), ("derive", {"columns": {"C": "n"}})):
        for out in (runs, hanging):
            assert "exists; give the name of a new file" in refused(tool, data=str(runs), out=str(out), **what)
    assert runs.read_bytes() == before
    assert not (tmp_path / "elsewhere.csv").exists()


@pytest.mark.parametrize(
    ("tool", "more", "words"),
    [
        ("filter", {"where": "n > 1e99"}, "keeps none of the 40 rows"),
        ("filter", {"where": "m > 1"}, "no column 'm'"),
        ("filter", {"where": "__import__('os').system('x')"}, "is not allowed"),
        ("derive", {"columns": {"n": "d"}}, "has a column 'n' already"),
        ("derive", {"columns": {"6n": "d"}}, "cannot stand in a formula"),
        ("derive", {"columns": {"x": "family*2"}}, "holds 'a', not a number"),
        ("derive", {"columns": {"x": "n +"}}, "cannot be read"),
        ("derive", {"columns": {"x": "y", "y": "n"}}, "no column 'y'"),
        ("derive", {"columns": {"x": "n"}, "out": "x.txt"}, "ends in .csv"),
        ("derive", {"columns": {"x": "n"}, "out": "/nowhere/x.csv"}, "no folder /nowhere"),
        ("derive", {"columns": {"x": "n"}, "out": "holdout_x.csv"}, "kept for sealed rows"),
        ("describe", {"features": ["q"]}, "no column 'q'"),
    ],
)
def test_a_mistake_is_told_in_one_line(runs: Path, tmp_path: Path, tool: str, more: dict[str, Any], words: str) -> None:
    out = {} if tool == "describe" else {"out": str(tmp_path / "out.csv")}
    assert words in refused(tool, **{"data": str(runs), **out, **more})


# ---- hold-outs ----


@pytest.fixture(params=["named", "link", "chain", "hard link", "copy", "upper case"])
def sealed(request: pytest.FixtureRequest, tmp_path: Path, runs: Path) -> Path:
    """A hold-out, and ways to call it something else."""
    folder = tmp_path / "task"
    folder.mkdir()
    real = folder / "holdout.csv"
    real.write_bytes(runs.read_bytes())
    other = folder / "innocent.csv"
    match request.param:
        case "named":
            return real
        case "link":
            other.symlink_to(real)
        case "chain":
            (tmp_path / "first.csv").symlink_to(real)
            other = tmp_path / "second.csv"
            other.symlink_to(tmp_path / "first.csv")
        case "hard link":
            other.hardlink_to(real)
        case "copy":
            other.write_bytes(real.read_bytes())
        case "upper case":
            return real.rename(folder / "HoldOut_rows.csv")
    return other


def test_no_tool_reads_a_hold_out_whatever_it_is_called(sealed: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out.csv")
    for tool, more in (
        ("describe", {}),
        ("filter", {"where": "n > 0", "out": out}),
        ("derive", {"columns": {"C": "n"}, "out": out}),
    ):
        assert "sealed hold-out" in refused(tool, data=str(sealed), **more)
    assert "sealed hold-out" in refused("leverage", runs=str(sealed))
    assert not (tmp_path / "out.csv").exists()


def test_a_copy_of_a_tasks_hold_out_is_known_by_its_bytes(tmp_path: Path) -> None:
    shipped = Path(str(files("agentlab.tasks"))) / "moe_leverage" / "data" / "holdout.csv"
    copy = tmp_path / "mine.csv"
    copy.write_bytes(shipped.read_bytes())
    assert "sealed hold-out" in refused("describe", data=str(copy))


def test_the_test_rows_of_a_published_benchmark_are_sealed(third_party_data: Path) -> None:
    path = next(third_party_data.glob("sldbench/*/test.csv"))
    assert "sealed hold-out" in refused("describe", data=str(path))
    assert ask("describe", data=str(path.with_name("train.csv")))["rows"] > 0


def test_every_tool_says_what_it_does_and_what_it_gives() -> None:
    async def inner() -> Any:
        async with Client(data.server) as client:
            return (await client.list_tools()).tools

    tools = asyncio.run(inner())
    assert {t.name for t in tools} == {"describe", "filter", "derive", "leverage"}
    for tool in tools:
        assert tool.description
        assert tool.output_schema
        assert None not in tool.annotations.model_dump(exclude={"title"}).values()
        assert tool.annotations.read_only_hint is (tool.name == "describe")
