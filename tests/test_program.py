"""Laws that are programs: judged as formulas are, on numbers that are checked, with nothing told before it is asked."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest
from agentlab.envs._pool import Pool
from agentlab.envs.local import Local
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_selection import planted

from agentlab import selection
from agentlab.law import parse
from agentlab.program import (
    HELLO,
    Split,
    judge_program,
    named,
    programs,
    sessions,
)
from agentlab.program_answers import array_of, read_answer, sent
from agentlab.program_text import ProgramError, complexity
from agentlab.types import ALL, BoolArray, FloatArray, Outcome, Task

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


def judged(text: str, judge: selection.Problem, *, final: bool = False, seconds: float = 60) -> Outcome:
    """Judged in processes of this machine: these programs are our own."""

    async def inner() -> Outcome:
        async with Pool(Local, lambda box: [box.python, f"{box.programs}/main.py"], HELLO, size=2) as pool:
            return await judge_program(text, judge, pool, final=final, seconds=seconds)

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
    smallest = MEAN.replace("y.mean()", "X.min(axis=0)[0], X.min(axis=0)[1]")
    found = judged(smallest, selection.problem(plain(task), rows)).params[ALL]["loss"]
    assert list(found.values()) == pytest.approx([rows.columns[v.name].min() for v in task.features], rel=1e-9)


def test_a_program_runs_in_a_real_sandbox(bwrap: str) -> None:
    task, rows = planted()
    judge = selection.problem(plain(task), rows)

    async def inner() -> Outcome:
        async with programs("bubblewrap") as (pool, chosen):
            assert chosen.name == "bubblewrap"
            return await judge_program(LINEAR, judge, pool)

    assert asyncio.run(inner()) == judged(LINEAR, judge)


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
