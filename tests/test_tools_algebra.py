"""What formulas say before any data: algebra checked by values, bounds that hold, answers in bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import anyio
import numpy as np
import pytest
from agentlab.tools import algebra
from agentlab.tools._intervals import Interval, bounds, slope_bounds
from agentlab.tools._monotone import direction_of
from agentlab.tools._points import drawn, slopes, values
from agentlab.tools._symbolic import WORKER
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mcp import Client
from test_law import trees

from agentlab import library
from agentlab.law import Law, LawError, from_tree, parse
from agentlab.library_naming import named
from agentlab.types import Variable

Ask = Callable[..., Awaitable[Any]]

CHINCHILLA = "E + A/N**a + B/D**b"
SLOW = "1.000001**100000000*x"
"""SymPy takes this power exactly: a number of 200 million digits."""


def use(work: Callable[[Ask], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with Client(algebra.server) as client:

            async def ask(tool: str, **arguments: Any) -> Any:
                reply = await client.call_tool(tool, arguments)
                return getattr(reply.content[0], "text", "") if reply.is_error else reply.structured_content

            return await work(ask)

    return asyncio.run(main())


def ask(tool: str, **arguments: Any) -> Any:
    return use(lambda one: one(tool, **arguments))


def every_name(law: Law) -> tuple[str, ...]:
    return (*law.used, *law.params)


def laws_of(count: int, *names: str) -> list[Law]:
    variables = tuple(Variable(n, box=(1e3, 1e9)) for n in names)
    return [from_tree(named(node, names), names) for node in islice(library.sweep(variables), count)]


def small(depth: int = 2) -> st.SearchStrategy[Law]:
    """Random laws over x and N with parameters, defined at some drawn point."""

    def law(node: Any) -> Law | None:
        try:
            return from_tree(node, ("x", "N"))
        except LawError:
            return None

    def told(one: Law | None) -> bool:
        if one is None or not every_name(one):
            return False
        return bool(np.isfinite(values(one, drawn(every_name(one), {}))).any())

    return trees(depth).map(law).filter(told)  # type: ignore[return-value]


# ---- rewriting ----


@given(small())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_simplifying_keeps_the_values_and_never_lengthens(law: Law) -> None:
    told = ask("simplify", formula=law.text, variables=["x", "N"], seconds=3)
    assume(isinstance(told, dict))
    shorter = parse(told["formula"], ("x", "N"))
    assert shorter.complexity <= law.complexity
    points = drawn(every_name(law), {}, seed=7)
    before, after = values(law, points), values(shorter, points)
    known = np.isfinite(before) & (np.abs(before) < 1e100)
    np.testing.assert_allclose(after[known], before[known], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("formula", "simpler"),
    [
        ("x*x/(x*y) + sqrt(x**2)/y", "2*x/y"),
        ("exp(a*log(x))*x", "x**(a + 1)"),
        ("log(exp(x)) + 0*y", "x"),
        ("0.5*x + 0.25*x", "0.75*x"),
    ],
)
def test_what_is_said_twice_is_said_once(formula: str, simpler: str) -> None:
    told = ask("simplify", formula=formula, variables=["x", "y"])
    assert told["formula"] == simpler
    assert told["checked"] > 0


def test_signs_decide_what_may_be_simplified() -> None:
    assert ask("simplify", formula="sqrt(x**2)", variables=["x"])["formula"] == "x"
    told = ask("simplify", formula="sqrt(x**2)", variables=["x"], signs={"x": "any"})
    assert told["formula"] == "abs(x)"
    assert "x of any sign" in told["assumed"]
    assert ask("simplify", formula="abs(x)", variables=["x"], signs={"x": "-"})["formula"] in ("-x", "abs(x)")


@given(small(), st.integers(0, 5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_a_derivative_is_the_slope_that_differences_show(law: Law, which: int) -> None:
    by = every_name(law)[which % len(every_name(law))]
    told = ask("derivative", formula=law.text, variables=["x", "N"], by=by, seconds=3)
    assume(isinstance(told, dict))
    slope = parse(told["formula"], ("x", "N"))
    points = drawn({*every_name(law)}, {}, seed=3)
    step = 1e-6 * points[by]
    up, down = ({**points, by: points[by] + s} for s in (step, -step))
    with np.errstate(all="ignore"):
        rough = (values(law, up) - values(law, down)) / (2 * step)
        second = (values(law, up) - 2 * values(law, points) + values(law, down)) / step**2
    sized = 1 + np.abs(values(law, points)) / points[by]
    smooth = np.isfinite(rough) & (sized < 1e3) & (np.abs(second) < 1e3) & (np.abs(rough) < 1e3)
    np.testing.assert_allclose(values(slope, points)[smooth], rough[smooth], atol=2e-3, rtol=2e-3)


def test_the_derivative_of_a_law_reads_back_as_a_law() -> None:
    told = ask("derivative", formula=CHINCHILLA, variables=["N", "D"], by="N")
    assert told["formula"] == "-A*a/N**(a + 1)"
    assert told["latex"] == parse(told["formula"], ("N", "D")).latex()
    assert ask("derivative", formula="x*min(x, k)", variables=["x"], by="k")["checked"] > 0


# ---- limits ----


def test_limits_of_a_law_are_formulas() -> None:
    told = ask("limits", formula=CHINCHILLA, variables=["N", "D"])["limits"]
    assert {(r["variable"], r["to"]): r["limit"] for r in told} == {
        ("N", "0"): "inf",
        ("N", "inf"): "B/D**b + E",
        ("D", "0"): "inf",
        ("D", "inf"): "A/N**a + E",
    }
    assert {r["how"] for r in told} == {"symbolic"}


def test_a_limit_that_hangs_on_parameters_is_not_claimed() -> None:
    """SymPy answers -inf for the first, whichever exponent is larger."""
    told = ask("limits", formula="A*x**a - B*x**b", variables=["x"])["limits"]
    assert [(r["limit"], r["how"]) for r in told] == [("0", "symbolic"), ("", "open")]
    assert "inf" in told[1]["note"]
    told = ask("limits", formula="A*x**(a + b*log(y))", variables=["x", "y"], of=["x"])["limits"]
    assert [r["how"] for r in told] == ["open", "open"]
    assert "depends on the sign of a + b*log(y)" in told[0]["note"]


def test_declared_signs_turn_a_limit() -> None:
    told = ask("limits", formula="A*x**a", variables=["x"], signs={"a": "-"})["limits"]
    assert [r["limit"] for r in told] == ["inf", "0"]


@pytest.fixture(scope="module")
def library_limits() -> list[tuple[Law, dict[str, Any]]]:
    chosen = [law for law in laws_of(24, "x", "y") if "x" in law.used][:16]

    async def work(one: Ask) -> Any:
        return [(law, await one("limits", formula=law.text, variables=["x", "y"], of=["x"])) for law in chosen]

    return [(law, row) for law, told in use(work) for row in told["limits"]]


def test_most_limits_of_known_laws_are_found_by_algebra(library_limits: list[tuple[Law, dict[str, Any]]]) -> None:
    assert sum(row["how"] == "symbolic" for _, row in library_limits) >= 0.7 * len(library_limits)


def test_limits_of_known_laws_agree_with_values_far_out(library_limits: list[tuple[Law, dict[str, Any]]]) -> None:
    for law, row in library_limits:
        if row["how"] == "open":
            continue
        points = drawn(every_name(law), {}, seed=11)
        far = 1e120 if row["to"] == "inf" else 1e-120
        seen = values(law, {**points, "x": np.full(len(points["x"]), far)})
        if row["limit"] in ("inf", "-inf"):
            agree = seen * float(row["limit"].replace("inf", "1")) > 10  # a logarithm grows slowly
        else:
            limit = values(parse(row["limit"], law.variables), points)
            agree = np.abs(seen - limit) <= 1e-3 * (1 + np.abs(limit))
        assert np.mean(agree[~np.isnan(seen)]) > 0.9, (law.text, row)


# ---- directions ----


def at_random(box: dict[str, Interval], n: int, seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {name: np.exp(chance.uniform(np.log(r.low), np.log(r.high), n)) for name, r in box.items()}


@given(small(3), st.integers(0, 999))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_bounds_hold_at_every_point_of_the_box(law: Law, seed: int) -> None:
    chance = np.random.default_rng(seed)
    low = np.exp(chance.uniform(-3, 3, len(every_name(law))))
    box = {
        n: Interval(float(x), float(x * np.exp(chance.uniform(0, 2))))
        for n, x in zip(every_name(law), low, strict=True)
    }
    points = at_random(box, 40, seed)
    for found, seen in (
        (bounds(law.tree, box), values(law, points)),
        (slope_bounds(law.tree, box, every_name(law)[0]), slopes(law, points, every_name(law)[0])),
    ):
        known = seen[np.isfinite(seen)]
        slack = 1e-9 * np.abs(known)
        assert (known >= found.low - slack).all()
        assert (known <= found.high + slack).all()


@given(small(3), st.integers(0, 999))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_a_proven_direction_is_never_contradicted(law: Law, seed: int) -> None:
    by = every_name(law)[0]
    box = {n: Interval(0.5, 4.0) for n in every_name(law)}
    found = direction_of(law, None, box, by)
    assume(found.proven)
    seen = slopes(law, at_random(box, 200, seed), by)
    seen = seen[np.isfinite(seen)]
    slack = 1e-9 * (1 + np.abs(seen).max(initial=0))
    assert found.direction in ("rises", "falls", "constant")
    assert found.direction == "rises" or (seen <= slack).all()
    assert found.direction == "falls" or (seen >= -slack).all()


def test_directions_are_proven_where_signs_or_the_box_decide() -> None:
    told = ask("monotonicity", formula=CHINCHILLA, variables=["N", "D"])["trends"]
    assert [(t["direction"], t["how"]) for t in told] == [("falls", "proven")] * 2
    told = ask("monotonicity", formula="x**2 - 4*x", variables=["x"], box={"x": [2.5, 9]})["trends"][0]
    assert (told["direction"], told["how"]) == ("rises", "proven")
    told = ask("monotonicity", formula="E + tanh(x) - 0.1*x", variables=["x"], box={"x": [0.01, 1], "E": [0, 1]})
    assert (told["trends"][0]["direction"], told["trends"][0]["how"]) == ("rises", "proven")
    told = ask("monotonicity", formula="E + 0*x", variables=["x"])["trends"][0]
    assert (told["direction"], told["how"]) == ("constant", "proven")


def test_a_law_that_turns_is_shown_to_turn() -> None:
    formula = "E + A*(log(x) - c)**2"
    told = ask("monotonicity", formula=formula, variables=["x"], box={"x": [0.1, 100], "c": [1, 2]})["trends"][0]
    assert (told["direction"], told["how"]) == ("turns", "sampled")
    law = parse(formula, ("x",))
    for where, sign in ((told["rising_at"], 1), (told["falling_at"], -1)):
        assert sign * slopes(law, {k: np.array([v]) for k, v in where.items()}, "x")[0] > 0


def test_a_task_lends_its_box() -> None:
    told = ask("monotonicity", formula="(A + k)**a", variables=["A"], task="moe_leverage")
    assert told["box"]["A"] == [0.004, 0.6]


# ---- units ----


def test_plain_numbers_have_units_that_agree_in_every_known_law() -> None:
    async def work(one: Ask) -> Any:
        return [await one("units", formula=law.text, variables=["x", "y"]) for law in laws_of(120, "x", "y")]

    assert all(told["ok"] for told in use(work))


def test_a_law_keeps_its_value_when_units_change_as_the_check_says() -> None:
    """x counts in halves, y in thirds, the target in fifths: parameters rescale by their units, and the law holds."""
    scale = {"m": 2.0, "s": 3.0, "nats": 5.0}
    units = {"x": "m", "y": "s"}

    async def work(one: Ask) -> Any:
        chosen = [law for law in laws_of(120, "x", "y") if {"x", "y"} <= set(law.used)]
        return [(x, await one("units", formula=x.text, units=units, target="nats")) for x in chosen]

    agreeing = [(law, told) for law, told in use(work) if told["ok"]]
    assert len(agreeing) > 15
    for law, told in agreeing:
        points = drawn(every_name(law), {}, seed=5)
        moved = {"x": points["x"] * 2.0, "y": points["y"] * 3.0}
        known = {**points, **{k: np.full(len(points["x"]), v) for k, v in scale.items()}}
        for name, unit in told["parameters"].items():
            factor = parse(unit, ())
            free = {p: np.ones(len(points["x"])) for p in factor.params if p.startswith("unit_of_")}
            moved[name] = points[name] * values(factor, {**known, **free})
        before, after = values(law, points), values(law, moved)
        tame = np.isfinite(before) & (np.abs(before) < 1e6)
        np.testing.assert_allclose(after[tame], 5.0 * before[tame], rtol=1e-6, err_msg=f"{law.text} {told}")


def test_the_term_that_breaks_is_named() -> None:
    told = ask("units", formula="6*N*D + C", units={"N": "parameters", "D": "tokens", "C": "FLOPs"})
    assert [(b["term"], b["unit"], b["needed"]) for b in told["breaks"]] == [("C", "FLOPs", "parameters*tokens")]
    told = ask("units", formula="E + A*x**N", units={"N": "parameters", "x": "1"})
    assert [(b["term"], b["advice"]) for b in told["breaks"]] == [("N", "an exponent carries no unit")] * 1
    told = ask("units", formula="x**a", units={"x": "m"}, target="1")
    assert told["breaks"][0]["unit"] == "m**a"
    told = ask("units", formula="E + B*log(C)", task="moe_leverage")
    assert told["breaks"][0]["inside"] == "log(C)"
    assert ask("units", formula="E + B*log(C/C0)", task="moe_leverage", target="1") == {
        "ok": True,
        "unit": "1",
        "parameters": {"E": "1", "B": "1", "C0": "FLOPs"},
        "breaks": [],
        "undeclared": [],
    }


def test_a_bad_unit_or_name_is_told_in_one_line() -> None:
    assert "unit 'nats per byte'" in ask("units", formula="A*x", units={"x": "nats per byte"})
    told = ask("units", formula="A*x", units={"y": "m"}, variables=["x"])
    assert "no name 'y'" in told
    assert "\n" not in told


# ---- sameness ----


@pytest.mark.parametrize(
    ("left", "right", "verdict", "how"),
    [
        (CHINCHILLA, "E2 + (K/N)**a + B*D**-b", "same law", "key"),
        ("A*x**2 + A", "A*(1 + x*x)", "same function", "points"),
        ("A*x**a", "E + A*x**a", "right fits left", "fit"),
        ("E + A*x**a", "A*x**a", "left fits right", "fit"),
        ("A*log(x)", "A*x**a", "different", "fit"),
    ],
)
def test_two_formulas_are_told_apart_and_how_is_said(left: str, right: str, verdict: str, how: str) -> None:
    told = ask("equivalent", left=left, right=right, variables=["N", "D", "x"])
    assert (told["verdict"], told["how"]) == (verdict, how)


def test_keys_latex_and_python_come_from_the_law() -> None:
    law = parse(CHINCHILLA, ("N", "D"))
    told = ask("key", formula=CHINCHILLA, variables=["N", "D"])
    assert told["key"] == law.key
    assert told["parameters"] == list(law.params)
    assert ask("latex", formula=CHINCHILLA, variables=["N", "D"])["text"] == law.latex()
    source = ask("python", formula=CHINCHILLA, variables=["N", "D"], name="chinchilla")["text"]
    assert "def chinchilla(columns, params)" in source


# ---- bounded time, bad input ----


def test_a_formula_that_hangs_the_algebra_is_refused_and_the_next_call_works() -> None:
    async def work(one: Ask) -> Any:
        slow = await one("simplify", formula=SLOW, variables=["x"], seconds=0.5)
        return slow, await one("simplify", formula="x + x + x", variables=["x"])

    slow, fast = use(work)
    assert "no answer in 0.5 s" in slow
    assert "\n" not in slow
    assert fast["formula"] == "3*x"


def test_limits_that_hang_are_read_from_values() -> None:
    told = ask("limits", formula=f"{SLOW} + 1/x", variables=["x"], seconds=0.3)["limits"]
    assert [(r["limit"], r["how"]) for r in told] == [("inf", "points")] * 2
    assert "no answer" in told[0]["note"]


def test_a_cancelled_call_does_not_keep_the_next_one_waiting_for_ever() -> None:
    async def work(one: Ask) -> Any:
        with anyio.move_on_after(0.3) as scope:
            await one("simplify", formula=SLOW, variables=["x"], seconds=1.5)
        return scope.cancelled_caught, await one("simplify", formula="x + x + x", variables=["x"])

    cancelled, told = use(work)
    assert cancelled
    assert told["formula"] == "3*x"


def test_a_symbolic_process_that_died_is_replaced() -> None:
    WORKER.start()
    process = WORKER._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert ask("simplify", formula="x + x + x", variables=["x"])["formula"] == "3*x"
    assert WORKER._process is not process


def test_many_callers_share_the_one_symbolic_process() -> None:
    async def work(one: Ask) -> Any:
        calls = [one("derivative", formula=f"x**{k}", variables=["x"], by="x") for k in range(2, 12)]
        return await asyncio.gather(*calls)

    assert [t["formula"] for t in use(work)] == ["2*x", *(f"{k}*x**{k - 1}" for k in range(3, 12))]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("simplify", {"formula": "__import__('os')"}, "not allowed"),
        ("derivative", {"formula": "A*x", "by": "z"}, "no name 'z'"),
        ("limits", {"formula": "A*x", "signs": {"q": "+"}}, "no name 'q'"),
        ("monotonicity", {"formula": "A*x", "box": {"x": [3, 1]}}, "write (low, high)"),
        ("key", {"formula": "A*x +"}, "cannot be read"),
        ("monotonicity", {"formula": "A*x", "task": "no_such_task"}, "no such task"),
    ],
)
def test_a_mistake_is_told_in_one_line(tool: str, arguments: dict[str, Any], words: str) -> None:
    told = ask(tool, **{"variables": ["x"], **arguments})
    assert words in told
    assert "\n" not in told


def test_every_tool_says_what_it_does_and_what_it_gives() -> None:
    async def inner() -> Any:
        async with Client(algebra.server) as client:
            return (await client.list_tools()).tools

    tools = asyncio.run(inner())
    wanted = {"simplify", "limits", "derivative", "monotonicity", "units", "key", "equivalent", "latex", "python"}
    assert {t.name for t in tools} == wanted
    for tool in tools:
        assert tool.description
        assert tool.output_schema
        assert tool.annotations.read_only_hint is True
        hints = (tool.annotations.destructive_hint, tool.annotations.idempotent_hint, tool.annotations.open_world_hint)
        assert hints == (False, True, False)
