"""Fitting as tools: inner scores, laws side by side with honest errors, progress, and calls that can be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest
from agentlab.tools import fit
from agentlab.tools._compare import Judge
from mcp import Client
from test_selection import planted

from agentlab import selection
from agentlab.law import parse
from agentlab.run_rows import Intake, write_rows
from agentlab.selection_cuts import FOLD, SCALE
from agentlab.types import Rows, Task

TRUE = "E + A/N**a + B/D**b"
HALF = "E + A/N**a"
PRODUCT = "A*N**a*D**b"


def stored(folder: Path, task: Task, rows: Rows) -> str:
    folder.mkdir(exist_ok=True)
    write_rows(folder, Intake(task, rows))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stored(tmp_path_factory.mktemp("run"), *planted(60))


def use(work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with Client(fit.server) as client:
            return await work(client)

    return asyncio.run(main())


def call(tool: str, **arguments: Any) -> Any:
    reply = use(lambda client: client.call_tool(tool, arguments))
    return getattr(reply.content[0], "text", "") if reply.is_error else reply.structured_content


# ---- scores ----


def test_scores_are_the_errors_by_which_finalists_are_judged(folder: str) -> None:
    told = call("scores", data=folder, formula=TRUE)
    judged = call("laws", data=folder, formulas=[TRUE], effort="final")["outcomes"][0]
    assert [c["error"] for c in told["cuts"]] == judged["cuts"]
    assert (told["objective"], told["mdl"]) == (judged["objective"], judged["mdl"])
    assert told["dev"] == judged["dev"]
    assert {c["axis"] for c in told["cuts"]} == {SCALE, "N", "D"}
    assert all(c["fitted"] + c["hidden"] == 60 for c in told["cuts"])


def test_rows_without_a_scale_are_judged_in_folds(tmp_path: Path) -> None:
    task, rows = planted(40)
    told = call(
        "scores", data=stored(tmp_path / "x", replace(task, scale=None), replace(rows, scale=None)), formula=HALF
    )
    assert [c["axis"] for c in told["cuts"]] == [FOLD] * 4


def test_a_law_that_cannot_be_judged_says_why(folder: str) -> None:
    told = call("scores", data=folder, formula="a + b*N + c*D + d*N**2 + e*D**2 + f*N*D + g*N**3")
    assert (told["ok"], told["reason"]) == (False, "too many parameters")


# ---- compare ----


@pytest.fixture(scope="module")
def side_by_side(folder: str) -> dict[str, Any]:
    told = call("compare", data=folder, formulas=[HALF, PRODUCT, TRUE, "E + A*N**-a + B*D**-b", TRUE])
    assert isinstance(told, dict)
    return told


def test_the_planted_law_is_found_better_than_chance_explains(side_by_side: dict[str, Any]) -> None:
    assert side_by_side["laws"][0]["formula"] == TRUE
    found = {d["formula"]: d for d in side_by_side["differences"]}
    for formula in (HALF, PRODUCT):
        assert found[formula]["verdict"] == "worse"
        assert found[formula]["nats"] > 2 * found[formula]["standard_error"] > 0
        assert found[formula]["mdl"] > 0
    assert "it predicts hidden rows better than" in side_by_side["verdict"]


def test_two_spellings_of_one_law_are_alike_and_repetitions_count_once(side_by_side: dict[str, Any]) -> None:
    found = {d["formula"]: d for d in side_by_side["differences"]}
    assert len(side_by_side["laws"]) == 4
    assert found["E + A*N**-a + B*D**-b"]["verdict"] == "alike"
    assert abs(found["E + A*N**-a + B*D**-b"]["nats"]) < 0.01


def test_errors_stand_side_by_side_on_the_same_cuts(side_by_side: dict[str, Any]) -> None:
    cuts = [[(c["axis"], c["share"], c["hidden"]) for c in law["cuts"]] for law in side_by_side["laws"]]
    assert all(c == cuts[0] for c in cuts)


def judge_of(task: Task, rows: Rows) -> Judge:
    """A judge that looks along the scale alone."""
    problem = selection.problem(task, rows)
    along = tuple(c for c in problem.final_cuts if c.axis == SCALE)
    return Judge(replace(problem, final_cuts=along), selection.search_options(task, 4), seed=0)


def pair_of(task: Task, judge: Judge) -> tuple[float, float]:
    """The difference of two laws that 48 rows barely tell apart, and its error."""
    laws = [parse(text, task.names) for text in (TRUE, "E + A/N**a + B/D**a")]
    assert all(judge.scores(law).ok for law in laws)
    gap, error = judge.difference(*laws)
    return gap, error


def test_rows_of_one_run_do_not_count_as_independent() -> None:
    """Every row four times: as runs of their own the difference seems twice as sure as it is."""
    task, rows = planted(48, noise=0.02)
    four = rows.take(np.repeat(np.arange(48), 4))
    together = pair_of(task, judge_of(task, four))[1]
    apart = pair_of(task, judge_of(task, replace(four, run=np.arange(192))))[1]
    assert together > 1.4 * apart


def test_the_error_of_a_difference_is_about_what_it_varies_between_tables() -> None:
    found = []
    for seed in range(8):
        task, rows = planted(48, seed=seed, noise=0.02)
        found.append(pair_of(task, judge_of(task, rows)))
    gaps, errors = np.array(found).T
    assert 0.3 < np.std(gaps, ddof=1) / np.mean(errors) < 1.5


def test_when_no_formula_can_be_judged_the_call_says_so(folder: str) -> None:
    bad = "a + b*N + c*D + d*N**2 + e*D**2 + f*N*D + g*N**3"
    told = call("compare", data=folder, formulas=[bad, bad + "*D"])
    assert "no formula could be judged" in told
    assert "\n" not in told


# ---- many laws in one call ----


def test_progress_is_told_after_every_formula(folder: str) -> None:
    seen: list[tuple[float, float | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total))

    formulas = [TRUE, HALF, "not a law (", PRODUCT]
    arguments = {"data": folder, "formulas": formulas}
    use(lambda client: client.call_tool("laws", arguments, progress_callback=note))
    assert seen == [(i + 1, 4) for i in range(4)]


def test_one_call_gives_what_single_calls_give(folder: str) -> None:
    formulas = [TRUE, HALF, PRODUCT, "x +"]
    together = call("laws", data=folder, formulas=formulas)["outcomes"]
    assert together == [call("laws", data=folder, formulas=[f])["outcomes"][0] for f in formulas]


def test_a_cancelled_call_ends_between_formulas_and_the_server_goes_on(folder: str) -> None:
    many = [f"E + A/N**a + B*D**{-k / 500}" for k in range(1, 400)]

    async def work(client: Client) -> Any:
        first = anyio.Event()
        scope = anyio.CancelScope()

        async def note(progress: float, total: float | None, message: str | None) -> None:
            first.set()

        async def long() -> None:
            with scope:
                await client.call_tool("laws", {"data": folder, "formulas": many}, progress_callback=note)

        async with anyio.create_task_group() as group:
            group.start_soon(long)
            await first.wait()
            scope.cancel()
        told = await client.call_tool("laws", {"data": folder, "formulas": [HALF]})
        busy = anyio.to_thread.current_default_thread_limiter().borrowed_tokens
        return scope.cancelled_caught, busy, told

    cancelled, busy, told = use(work)
    assert cancelled
    assert busy == 0  # no thread fits the formulas that nobody waits for
    assert told.structured_content["outcomes"][0]["status"] == "ok"


# ---- hold-outs ----


def test_rows_that_are_a_linked_hold_out_are_refused(tmp_path: Path) -> None:
    task, rows = planted(40)
    run = tmp_path / "run"
    run.mkdir()
    write_rows(run, Intake(task, rows, holdout=planted(20, seed=1)[1]))
    (run / "rows.npz").unlink()
    (run / "rows.npz").symlink_to(next(run.glob("holdout*")))
    told = call("law", data=str(run), formula=HALF)
    assert "sealed hold-out" in told
    assert "\n" not in told


def test_every_tool_says_what_it_does_and_what_it_gives() -> None:
    tools = use(lambda client: client.list_tools()).tools
    assert {t.name for t in tools} >= {"law", "laws", "scores", "compare", "refit", "choose", "baselines", "luck"}
    for tool in tools:
        assert tool.description
        assert tool.output_schema
        assert None not in tool.annotations.model_dump(exclude={"title"}).values()
        assert "ctx" not in tool.input_schema["properties"]
