"""Laws that are programs and mean no good: what they answer, hang in, remember or spy on gains them nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
from abused import KINDS
from abused_programs import ANSWERS, CHEAT, GATHER, LEAVE, MEAN, POOR, ROUGH, SAME, SPY, TABLE, TEXTS, program
from agentlab.envs import STRICT
from agentlab.envs._pool import Pool

from agentlab.program import judge_program, programs
from agentlab.program_text import ProgramError, complexity
from agentlab.selection import Problem, problem
from agentlab.types import Outcome, Rows, Task, Variable

T = TypeVar("T")


def noise() -> Problem:
    """Rows without any law and without a scale: whoever does better than the mean has seen them."""
    rng = np.random.default_rng(5)
    n = np.geomspace(1e6, 1e9, 24)
    rows = Rows(
        {"n": n},
        {"loss": rng.normal(2.0, 1.0, n.size)},
        np.full(n.size, "all"),
        np.ones(n.size),
        None,
        np.arange(n.size),
    )
    return problem(Task("noise", (Variable("n"),), ("loss",), max_params=30), rows)


def world() -> Problem:
    """Rows of a law that the honest program finds."""
    n = np.geomspace(1e6, 1e9, 24)
    y = 4.0 - 0.1 * np.log(n) + np.random.default_rng(4).normal(0, 0.003, n.size)
    rows = Rows({"n": n}, {"loss": y}, np.full(n.size, "all"), np.ones(n.size), n, np.arange(n.size))
    return problem(Task("planted", (Variable("n"),), ("loss",), scale="n", max_params=3), rows)


@asynccontextmanager
async def pool(kind: str) -> AsyncIterator[Pool]:
    async with programs(kind, size=3, starting=2, limits=replace(STRICT, memory_bytes=256 << 20)) as (ready, _):
        yield ready


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue({"bubblewrap": "bwrap", "docker": "law_image"}[request.param])
    return str(request.param)


def judged(kind: str, work: Callable[[Pool], Awaitable[T]]) -> T:
    async def run() -> T:
        async with pool(kind) as ready:
            return await work(ready)

    return asyncio.run(run())


def wrong(outcome: Outcome, honest: Outcome, wanted: str) -> str:
    """What is not as it must be; "" where all is well."""
    if wanted == SAME:
        good = (outcome.status, outcome.cuts, outcome.dev, outcome.params) == (
            "ok",
            honest.cuts,
            honest.dev,
            honest.params,
        )
    elif outcome.status == "ok":
        good = POOR in wanted and outcome.dev is not None and outcome.dev.mae > 1
    else:
        good = bool(re.search(wanted, outcome.reason)) and outcome.reason.isprintable() and len(outcome.reason) < 600
    return "" if good else f"{outcome.status}: {outcome.reason or outcome.dev}; wanted {wanted}"


def test_no_answer_does_harm_and_none_delays_or_changes_another(kind: str) -> None:
    judge = world()
    chosen = ANSWERS if kind == "bubblewrap" else {name: ANSWERS[name] for name in ROUGH}

    async def work(ready: Pool) -> tuple[Outcome, list[Outcome]]:
        alone = await judge_program(program(), judge, ready, seconds=20)
        three_at_once = asyncio.Semaphore(3)

        async def one(text: str, seconds: float) -> Outcome:
            async with three_at_once:
                return await judge_program(text, judge, ready, seconds=seconds)

        asked = [one(text, 3 if "no answer within 3" in wanted else 20) for text, wanted in chosen.values()]
        return alone, await asyncio.gather(*asked, one(program(), 20))

    honest, (*outcomes, beside) = judged(kind, work)
    assert honest.status == "ok", honest
    assert honest.dev is not None
    assert honest.dev.r2 > 0.9
    assert beside == honest
    told = {name: wrong(o, honest, wanted) for (name, (_, wanted)), o in zip(chosen.items(), outcomes, strict=True)}
    assert {name: why for name, why in told.items() if why} == {}


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_harms_who_reads_it(name: str) -> None:
    text, wanted = TEXTS[name]
    with pytest.raises(ProgramError, match=wanted) as told:
        complexity(text)
    assert len(str(told.value)) < 600


def cheat(helpers: str, keep: str, recall: str, many: str) -> str:
    return CHEAT.replace("HELPERS", helpers).replace("KEEP", keep).replace("RECALL", recall).replace("MANY", many)


@pytest.mark.parametrize(
    ("helpers", "keep", "recall", "many"),
    [(LEAVE, "keep(X, y)", "recall()", "False"), (GATHER, "pass", "gather(params)", "True")],
    ids=["what fit leaves behind", "what parameters of other folds hold"],
)
def test_a_law_that_remembers_rows_predicts_hidden_ones_no_better(
    kind: str, helpers: str, keep: str, recall: str, many: str
) -> None:
    judge = noise()

    async def work(ready: Pool) -> list[Outcome]:
        texts = [cheat("", "pass", "{}", many), cheat(helpers, keep, recall, many)]
        return list(await asyncio.gather(*(judge_program(text, judge, ready, seconds=20) for text in texts)))

    plain, cheating = judged(kind, work)
    assert plain.status == cheating.status == "ok", (plain.reason, cheating.reason)
    assert cheating.cuts == plain.cuts
    assert cheating.dev == plain.dev


def test_a_table_of_rows_in_the_text_is_counted_or_not_there(kind: str) -> None:
    judge = noise()
    rows = dict(zip(judge.rows.columns["n"].tolist(), judge.rows.targets["loss"].tolist(), strict=True))
    table = repr(rows)
    free = {
        "in fit": (MEAN.replace("y)", f"y, known={table})", 1), "fit.__defaults__[0]"),
        "in a comment": (
            f"# {table}\nimport sys\nTEXT = sys._getframe(1).f_locals['text']\n{MEAN}",
            "eval(next(l[2:] for l in TEXT.splitlines() if l[:3] == '# {'))",
        ),
    }
    counted = TABLE.replace("DEF", f"T = {table!r}\n{MEAN}").replace("HOW", "eval(T)")
    honest = TABLE.replace("DEF", MEAN).replace("HOW", "{}")
    assert complexity(counted) > complexity(honest) + len(table) / 10

    async def work(ready: Pool) -> list[Outcome]:
        texts = [TABLE.replace("DEF", define).replace("HOW", how) for define, how in free.values()]
        return [await judge_program(text, judge, ready, seconds=20) for text in texts]

    for name, outcome in zip(free, judged(kind, work), strict=True):
        assert outcome.status == "rejected", name
        assert outcome.reason.startswith("program: law: "), name


def test_a_program_finds_nothing_of_the_one_before_it_or_beside_it(kind: str) -> None:
    judge = world()
    count = "sorted(f for p in ('/tmp', '/dev/shm', '.') for f in os.listdir(p) if f != 'mine')"
    first = SPY.replace("COUNT", "'left'")
    second = SPY.replace(
        "    for place",
        f"    seen = {count} + [p for p in ('/tmp/mine', '/dev/shm/mine') if os.path.exists(p)]\n    for place",
    )

    async def work(ready: Pool) -> list[Outcome]:
        before = await judge_program(first, judge, ready, seconds=20)
        beside = [judge_program(second.replace("COUNT", "seen"), judge, ready, seconds=20) for _ in range(2)]
        return [before, *await asyncio.gather(*beside)]

    told = [outcome.reason for outcome in judged(kind, work)]
    assert told[0].endswith("left []"), told
    assert [reason.split("ValueError")[1].split(":", 1)[1].strip() for reason in told[1:]] == ["[] []", "[] []"], told
