"""Laws that are programs: judged as formulas are, on numbers that are checked, with nothing told before it is asked."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import numpy as np
import pytest
from agentlab.envs import Reply, Talk
from agentlab.envs._pool import Pool
from agentlab.envs.local import Local
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_selection import planted
from toolboxes import children

from agentlab import selection
from agentlab.files import write_json
from agentlab.law import parse
from agentlab.predict import predict
from agentlab.program import (
    HELLO,
    Split,
    judge_program,
    named,
    predict_rows,
    programs,
    sessions,
)
from agentlab.program_answers import array_of, read_answer, sent
from agentlab.program_text import ProgramError, complexity, without_fit, written
from agentlab.run_rows import Intake, write_rows
from agentlab.runs_asked import asked
from agentlab.trace import Trace, outcome_record
from agentlab.types import ALL, BoolArray, FloatArray, GroupParams, Outcome, Rows, RunConfig, Task
from agentlab.words import UsageError

LINES = "E + A*log(N) + B*log(D)"
LINEAR = """
import numpy as np

def basis(X):
    return np.stack([np.ones(len(X)), np.log(X[:, 0]), np.log(X[:, 1])], axis=1)

def law(X, params):
    return basis(X) @ params

def fit(X, y):
    return np.linalg.lstsq(basis(X), y, rcond=None)[0]
"""
MEAN = """
def law(X, params):
    return params[0] + 0 * X[:, 0]

def fit(X, y):
    return [y.mean()]
"""


def plain(task: Task) -> Task:
    """The task with least squares of plain residuals, which a linear program minimises exactly."""
    return replace(task, residual="plain", robust="none")


def ours() -> Pool:
    """Processes of this machine: these programs are our own."""
    return Pool(Local, lambda box: [box.python, f"{box.programs}/main.py"], HELLO, size=2)


def judged(text: str, judge: selection.Problem, *, final: bool = False, seconds: float = 60) -> Outcome:
    async def inner() -> Outcome:
        async with ours() as pool:
            return await judge_program(text, judge, pool, final=final, seconds=seconds)

    return asyncio.run(inner())


def all_judged(texts: Sequence[str], judge: selection.Problem) -> list[Outcome]:
    async def inner() -> list[Outcome]:
        async with ours() as pool:
            return [await judge_program(text, judge, pool, seconds=60) for text in texts]

    return asyncio.run(inner())


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_program_is_judged_as_the_formula_that_it_computes(groups: int, final: bool) -> None:
    task, rows = planted(90, group=groups)
    judge = selection.problem(plain(task), rows)
    program = judged(LINEAR, judge, final=final)
    law = parse(LINES, task.names)
    formula = selection.evaluate(law, judge, selection.fit_options(judge.task, 12), final=final)
    assert program.status == formula.status == "ok", program.reason
    assert program.cuts == pytest.approx(formula.cuts, abs=1e-4)
    assert program.dev is not None
    assert formula.dev is not None
    assert program.dev.mae == pytest.approx(formula.dev.mae, rel=1e-4)
    assert program.n_params == law.n_params * groups
    assert program.violations == formula.violations
    for group, byname in formula.params.items():
        assert list(program.params[group]["loss"].values()) == pytest.approx(
            [byname["loss"][name] for name in ("E", "A", "B")], rel=1e-4
        )


def test_what_fits_better_beyond_the_cuts_has_the_lower_objective() -> None:
    task, rows = planted()
    judge = selection.problem(plain(task), rows)
    assert judged(LINEAR, judge).objective < judged(MEAN, judge).objective


def test_finalists_are_judged_by_more_cuts() -> None:
    task, rows = planted()
    judge = selection.problem(plain(task), rows)
    searching, final = judged(MEAN, judge), judged(MEAN, judge, final=True)
    assert len(searching.cuts) == len(judge.cuts)
    assert len(final.cuts) == len(judge.final_cuts) > len(searching.cuts)


def test_a_constant_is_fitted_for_every_group_and_target() -> None:
    task, rows = planted(60, group=2)
    rows = replace(rows, targets={**rows.targets, "time": 3 * rows.targets["loss"]})
    judge = selection.problem(replace(plain(task), targets=("loss", "time")), rows)
    found = judged(MEAN, judge)
    assert found.status == "ok", found.reason
    assert found.n_params == 4
    for group in rows.groups:
        mean = float(rows.targets["loss"][rows.group == group].mean())
        assert found.params[group]["loss"]["p0"] == pytest.approx(mean)
        assert found.params[group]["time"]["p0"] == pytest.approx(3 * mean)


def test_without_a_scale_every_fold_is_predicted_by_a_fit_that_never_saw_it() -> None:
    task, rows = planted(40)
    judge = selection.problem(replace(plain(task), scale=None), replace(rows, scale=None))
    found = judged(MEAN, judge)
    loss = rows.targets["loss"]
    error = np.concatenate([np.abs(loss[c.test] - loss[c.train].mean()) for c in judge.cuts])
    assert len(error) == 40
    assert found.dev is not None
    assert found.dev.mae == pytest.approx(float(error.mean()))


def test_the_columns_of_x_are_the_features_in_the_tasks_order() -> None:
    task, rows = planted()
    smallest = MEAN.replace("y.mean()", "X.min(axis=0)[0], X.min(axis=0)[1], y.mean()")
    found = judged(smallest, selection.problem(plain(task), rows)).params[ALL]["loss"]
    assert list(found.values())[:2] == pytest.approx([rows.columns[v.name].min() for v in task.features], rel=1e-9)


def test_a_program_runs_in_a_real_sandbox(bwrap: str) -> None:
    task, rows = planted()
    judge = selection.problem(plain(task), rows)

    async def inner() -> Outcome:
        async with programs("bubblewrap") as (pool, chosen):
            assert chosen.name == "bubblewrap"
            return await judge_program(LINEAR, judge, pool)

    assert asyncio.run(inner()) == judged(LINEAR, judge)


async def settled() -> None:
    """Waits for what goes on in the background."""
    async with asyncio.timeout(60):
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


def test_a_pool_that_is_cancelled_while_it_fills_leaves_no_sandbox(bwrap: str) -> None:
    async def work(scope: anyio.CancelScope) -> None:
        with scope:
            async with programs("bubblewrap") as (pool, _):
                await pool.filled()
                async with pool.take():
                    assert children("bwrap")
                    scope.cancel()
                    await asyncio.Event().wait()

    async def inner() -> set[int]:
        before = set(children("bwrap"))
        await work(anyio.CancelScope())
        await settled()
        for _ in range(300):  # a killed one is collected a moment later
            if not set(children("bwrap")) - before:
                break
            await asyncio.sleep(0.05)
        return set(children("bwrap")) - before

    assert asyncio.run(inner()) == set()


WRONG = {
    "def law(X, params): return (": "program: the program is no Python: ",
    "def law(X, params): return X[:, 0]": "program: load: TypeError: the program defines no function 'fit'",
    MEAN.replace("[y.mean()]", "[1.0] * 9"): "program: fit returned shape (9,); return 1 to 6 parameters",
    MEAN.replace("[y.mean()]", "[]"): "program: fit returned shape (0,); return 1 to 6 parameters",
    MEAN.replace("[y.mean()]", "[[1.0]]"): "program: fit returned shape (1, 1); return 1 to 6 parameters",
    MEAN.replace("[y.mean()]", "['a']"): "program: fit: ValueError",
    MEAN.replace("[y.mean()]", "[float('nan')]"): "program: params is not finite in 1 of 1 places",
    MEAN.replace("0 * X[:, 0]", "0 * X[:, :1]"): "program: law returned shape (",
    MEAN.replace("0 * X[:, 0]", "0"): "program: law returned shape (1,) for",
    MEAN.replace("0 * X[:, 0]", "0 * X[:, 7]"): "program: law: IndexError in line 2: ",
    MEAN.replace("y.mean()", "1 / 0"): "program: fit: ZeroDivisionError in line 6: division by zero",
    "import os\nos._exit(3)": "program: load: the process ended",
    "while True: pass": "program: load: no answer within 2 s",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_program_that_does_wrong_is_rejected_with_its_reason(text: str) -> None:
    task, rows = planted()
    found = judged(text, selection.problem(plain(task), rows), seconds=2 if "while True" in text else 60)
    assert found.status == "rejected"
    assert found.reason.startswith(WRONG[text])
    assert "\n" not in found.reason


def one_law(body: str, fit: str = "[y.mean(), X[:, 0].max()]") -> str:
    return f"""
import numpy as np
CALLS = []
def law(X, params):
    x = np.log(X[:, 0])
    {body}
def fit(X, y):
    return {fit}
"""


OTHERS = "program: law's answer at a row depends on the other rows"
TWICE = "program: law gives two answers to one question; it has no randomness and no state"
NO_LAWS = {
    "means": ("return params[0] + 1e-3 * (x - x.mean())", OTHERS),
    "the largest, beyond the rows of the fit only": (
        "return params[0] + (0 * x if X[:, 0].min() < params[1] else x - x.max())",
        OTHERS,
    ),
    "ranks": ("return params[0] + 1e-3 * np.argsort(np.argsort(x))", OTHERS),
    "how many there are": ("return params[0] + 0 * x + 1 / len(x)", OTHERS),
    "chance": ("return params[0] + 1e-3 * np.random.default_rng().normal(size=len(x))", TWICE),
    "state": ("CALLS.append(0); return params[0] + 0 * x + len(CALLS)", TWICE),
}


def test_a_law_whose_answer_is_not_the_rows_own_is_rejected_by_name() -> None:
    task, rows = planted(40)
    rows = replace(rows, scale=rows.columns["N"])
    found = all_judged([one_law(body) for body, _ in NO_LAWS.values()], selection.problem(plain(task), rows))
    told = dict(zip(NO_LAWS, ((o.status, o.reason) for o in found), strict=True))
    assert told == {name: ("rejected", reason) for name, (_, reason) in NO_LAWS.items()}


IMPLICIT = """
import numpy as np

def law(X, params):
    x, low, high = np.log(X[:, 0]), np.full(len(X), -9.0), np.full(len(X), 9.0)
    while np.max(high - low) > 1e-12:
        middle = (low + high) / 2
        above = middle ** 3 + middle > params[0] * x
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return params[1] + low

def fit(X, y):
    return [0.1, y.mean()]
"""


def test_a_law_that_is_solved_for_all_rows_together_is_one() -> None:
    task, rows = planted(40)
    found = judged(IMPLICIT, selection.problem(plain(task), rows))
    assert found.status == "ok", found.reason


def test_constants_that_fit_only_repeats_are_refused_and_exact_fits_are_not() -> None:
    task, rows = planted(40)
    exact = replace(rows, targets={"loss": 3.0 - 0.125 * np.log(rows.columns["N"])})
    constants = MEAN.replace("y.mean()", "1.69 + 0 * y.mean()")
    said, found = all_judged([constants, LINEAR], selection.problem(plain(task), exact))
    assert said.reason == "program: fit gives the same numbers whatever y is; constants are fitted, not written"
    assert found.status == "ok", found.reason
    assert list(found.params[ALL]["loss"].values()) == pytest.approx([3.0, -0.125, 0.0], abs=1e-6)


def test_a_program_breaks_the_constraints_of_the_box_as_a_formula_does() -> None:
    task, rows = planted()
    judge = selection.problem(plain(task), rows)
    top = f"{float(rows.columns['N'].max())!r}"
    wild = one_law(f"return params[0] + np.sqrt({top} - X[:, 0] + 1.0) * 1e-9")
    rising = one_law("return params[0] + 1e-3 * x - 1e-3 * np.log(X[:, 1])")
    one, other = all_judged([wild, rising], judge)
    assert (one.status, one.violations) == ("ok", ("finite", "monotone D", "monotone N"))
    assert (other.status, other.violations) == ("ok", ("monotone N",))
    free = replace(plain(task), features=tuple(replace(v, monotone="") for v in task.features))
    allowed = judged(rising, selection.problem(free, rows))
    assert allowed.violations == ()
    assert other.objective == pytest.approx(allowed.objective + selection.VIOLATION_COST * len(rows))


@dataclass
class Tapped:
    """A pool whose conversations are written down."""

    pool: Pool
    lines: list[bytes]

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Talk]:
        async with self.pool.take() as talk:
            yield _Tap(talk, self.lines)


@dataclass
class _Tap:
    talk: Talk
    lines: list[bytes]

    async def ask(self, line: bytes, timeout: float) -> Reply:  # noqa: ASYNC109 - as it is asked
        self.lines.append(line)
        return await self.talk.ask(line, timeout)

    async def close(self) -> None:
        await self.talk.close()


def predicted(rows: Rows, task: Task, params: GroupParams) -> tuple[dict[str, FloatArray], list[bytes]]:
    async def inner() -> tuple[dict[str, FloatArray], list[bytes]]:
        async with ours() as pool:
            tapped = Tapped(pool, [])
            return await predict_rows(LINEAR, task, rows, params, tapped, 60), tapped.lines

    return asyncio.run(inner())


def test_rows_are_predicted_by_the_law_alone_from_features_and_parameters() -> None:
    task, rows = planted(90, group=3)
    params = {g: {"loss": {"p0": 4.0 + i, "p1": -0.1, "p2": -0.01}} for i, g in enumerate(["g0", "g2"])}
    values, lines = predicted(rows, task, params)
    law = parse(LINES, task.names)
    formula = {g: {"loss": dict(zip(("E", "A", "B"), t["loss"].values(), strict=True))} for g, t in params.items()}
    assert values["loss"] == pytest.approx(law.predict(rows.columns, rows.group, formula)["loss"], nan_ok=True)
    assert np.isnan(values["loss"]).sum() == 30  # of the group without parameters
    asked = [json.loads(line) for line in lines]
    assert [a["do"] for a in asked] == ["load", "law", "law"]
    assert "lstsq" not in asked[0]["program"]
    assert all(set(a) == {"id", "do", "X", "params"} for a in asked[1:])


def test_many_rows_are_predicted_in_parts() -> None:
    task, rows = planted(70_000)
    values, lines = predicted(rows, task, {ALL: {"loss": {"p0": 4.0, "p1": -0.1, "p2": 0.0}}})
    assert len(lines) == 3
    assert values["loss"] == pytest.approx(4.0 - 0.1 * np.log(rows.columns["N"]))


FREE = """
\"\"\"What it is.\"\"\"
from scipy.optimize import least_squares
import numpy as np

STARTS: np.ndarray = np.array([0.28, 0.34, 406.4])
LOW, HIGH = -12.5, 12.5
LOW -= 0.25

def basis(X: np.ndarray) -> np.ndarray:
    \"\"\"The columns.\"\"\"
    return np.stack([np.ones(len(X)), np.log(X[:, 0]), np.log(X[:, 1])], axis=1)

def law(X: np.ndarray, params: np.ndarray) -> np.ndarray:
    \"\"\"The law.\"\"\"
    return basis(X) @ params

def misfit(p, X, y):
    return law(X, p) - y

def fit(X, y):
    return least_squares(misfit, STARTS, bounds=(LOW, HIGH), args=(X, y)).x
"""


def test_only_what_the_law_needs_counts_and_is_sent_to_its_sandbox() -> None:
    sent_text = written(without_fit(FREE))
    assert sent_text == written(without_fit(LINEAR))
    assert complexity(FREE) == complexity(LINEAR)
    assert "basis" in sent_text
    for word in ("least_squares", "STARTS", "LOW", "misfit", "What", "The", "->"):
        assert word not in sent_text


def test_the_length_of_a_program_counts_neither_its_fit_nor_its_imports_nor_its_comments() -> None:
    law_alone = LINEAR.partition("def fit")[0]
    assert complexity(law_alone) == complexity(LINEAR)
    assert complexity("import math\n" + LINEAR + "    # a remark of some length\n") == complexity(LINEAR)


@given(st.integers(1, 30))
def test_every_further_term_of_a_law_makes_it_longer(terms: int) -> None:
    def law(n: int) -> str:
        return "def law(X, params):\n    return " + " + ".join(f"params[{i}] * X[:, 0]" for i in range(n))

    assert complexity(law(terms + 1)) > complexity(law(terms))


def test_numbers_cannot_be_hidden_in_a_long_constant() -> None:
    table = "x" * 4000
    assert complexity(f"def law(X, params):\n    return {table!r}") >= 500
    assert complexity(f"def law(X, {table}):\n    return {table}") >= 500


@st.composite
def splits(draw: st.DrawFn) -> list[Split]:
    """Splits of up to eight rows, in any overlap; some hide nothing."""
    rows = draw(st.integers(2, 8))
    found = []
    for _ in range(draw(st.integers(1, 7))):
        role = np.array(draw(st.lists(st.sampled_from("tho"), min_size=rows, max_size=rows)))  # train, hidden, other
        hides = draw(st.booleans())
        found.append(Split(role == "t", role == "h" if hides else None))
    return found


@given(splits())
def test_no_fit_is_asked_for_where_its_hidden_targets_were_told(given_splits: list[Split]) -> None:
    groups = sessions(given_splits)
    assert sorted(i for group in groups for i in group) == list(range(len(given_splits)))
    for group in groups:
        told: BoolArray = np.zeros_like(given_splits[0].train)
        for index in group:
            hidden = given_splits[index].test
            assert hidden is None or not np.any(told & hidden)
            told = told | given_splits[index].train


def test_nested_cuts_need_one_sandbox_and_folds_one_each() -> None:
    task, rows = planted(40)
    nested = selection.problem(task, rows)
    assert len(sessions([Split(c.train, c.test) for c in nested.cuts])) == 1
    folds = selection.problem(replace(task, scale=None), replace(rows, scale=None))
    assert len(sessions([Split(c.train, c.test) for c in folds.cuts])) == len(folds.cuts)


FINITE = arrays.arrays(
    np.float64, arrays.array_shapes(min_dims=1, max_dims=2, min_side=0),
    elements=st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip


@given(FINITE)
def test_an_array_comes_back_bit_for_bit(array: FloatArray) -> None:
    line = json.dumps({"y": sent(array)}).encode()
    back = array_of(read_answer(line)["y"], "y")
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(FINITE, st.data())
def test_an_array_whose_shape_does_not_fit_its_bytes_is_refused(array: FloatArray, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 20), max_size=2))
    assume(int(np.prod(shape)) != array.size)
    with pytest.raises(ProgramError, match="bytes for shape"):
        array_of([shape, sent(array)[1]], "y")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_whatever_comes_instead_of_an_array_is_refused_or_is_one(told: object) -> None:
    try:
        found = array_of(told, "y")
    except ProgramError:
        return
    assert type(found) is np.ndarray
    assert np.all(np.isfinite(found))


@pytest.mark.parametrize("shape", [[True], [1.0], ["1"], [-1], [1, 1, 1], [[1]], None, {}, "1", 1], ids=str)
def test_a_shape_is_a_short_list_of_whole_numbers(shape: object) -> None:
    one = sent(np.ones(1))[1]
    with pytest.raises(ProgramError, match=r"shape|no array"):
        array_of([shape, one], "y")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ProgramError, match="not finite in 1 of 2 places"):
        array_of(sent(np.array([1.0, value])), "y")


@given(st.binary(max_size=200))
def test_a_line_that_is_no_json_object_is_refused(line: bytes) -> None:
    try:
        found = read_answer(line)
    except ProgramError:
        return
    assert isinstance(found, dict)


LINES_REFUSED = [
    b"",
    b"[]",
    b"1",
    b"NaN",
    b'{"id": Infinity}',
    b'{"id": 12345678901}',
    b'{"id": 1.5e3}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("line", LINES_REFUSED, ids=lambda line: line[:20].decode())
def test_deep_long_and_undefined_json_is_refused(line: bytes) -> None:
    with pytest.raises(ProgramError, match="no JSON"):
        read_answer(line)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=6))
def test_parameters_are_named_in_order(values: list[float]) -> None:
    found = named({("g", "loss"): np.array(values)})["g"]["loss"]
    assert list(found) == [f"p{i}" for i in range(len(values))]
    assert list(found.values()) == pytest.approx(values, rel=1e-9)


def store_run(folder: Path, law: dict[str, object], outcome: Outcome) -> None:
    """A finished run that found one law."""
    folder.mkdir()
    task, rows = planted(40)
    write_rows(folder, Intake(task, rows))
    write_json(folder / "config.json", dataclasses.asdict(RunConfig(task="planted")))
    found = {"kind": "law", "entry": 0, "key": "", "intervals": {}, **outcome_record(outcome), **law}
    with Trace(folder / "trace.jsonl") as trace:
        trace.append([{"kind": "run", "task": "planted", "proposer": "code"}, found])


def test_verbs_that_read_formulas_refuse_a_run_whose_law_is_a_program(tmp_path: Path) -> None:
    task, rows = planted(40)
    judge = selection.problem(task, rows)
    outcome = selection.evaluate(parse("E + A/N**a", task.names), judge, selection.fit_options(task, 4))
    store_run(tmp_path / "program", {"formula": MEAN, "program": True}, outcome)
    store_run(tmp_path / "formula", {"formula": "E + A/N**a"}, outcome)
    points = tmp_path / "points.csv"
    points.write_text("N,D\n1e9,1e11\n")
    for verb, ask in (
        ("audit", lambda run: asked("audit", [run], "")),
        ("plan", lambda run: asked("plan", [run], "")),
        ("predict", lambda run: predict(run, [f"data={points}"])),
    ):
        assert ask(str(tmp_path / "formula"))
        with pytest.raises(UsageError, match=f"agentlab {verb}: the law of program is a program, and ") as told:
            ask(str(tmp_path / "program"))
        assert "\n" not in str(told.value)
    assert asked("audit", [str(tmp_path / "program")], "E + A/N**a").law.text == "E + A/N**a"
