"""Fitting: units, row order and names do not matter, and no data, however degenerate, make it crash, hang or warn."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentlab.fitting import Fit, FitOptions, bootstrap, fit, fit_rows
from agentlab.law import Law, parse
from agentlab.types import FloatArray, Rows

Columns = dict[str, FloatArray]

VARIABLES = ("N", "x")
PLANTED = {
    "A*x**b + c": (2.0, -0.4, 1.0),
    "E + A/N**a + B/x**b": (1.8, 480.0, 0.35, 30.0, 0.37),
    "c + A*tanh(k*log(x) + m)": (2.5, 2.0, 0.3, -1.5),
    "E + A*exp(-x/s)": (1.0, 3.0, 200.0),
    "E + A/(x + s)**b": (0.2, 10.0, 50.0, 0.5),
    "exp(p + q*log(N) + r*log(x) + s*log(N)*log(x))": (2.0, -0.1, -0.2, 0.005),
    "E + B/x**b + C*(log(N) - m)**2": (1.0, 3.0, 0.4, 0.02, 18.0),
}
"""Laws that stay laws of their family in any unit."""

LAWS = [
    *PLANTED,
    "E",
    "log(x)",
    "A*x",
    "(E + A/N**a + B/x**b)**k",
    "E + A/(N**a + B)",
    "E*exp(A*N**-a + B*x**-b)",
    "(x + s)**(a + g*log(N))",
    "c + A*abs(log(x) - m)**k",
    "min(A/x**a, B)",
    "E + A*sigmoid(b*(log(N) - m))",
]
QUICK = FitOptions(starts=10, tolerance=1e-4, max_steps=12)

few = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
many = settings(few, max_examples=120)

planted_laws = st.sampled_from(list(PLANTED))
seeds = st.integers(0, 10**6)
decades = st.integers(-9, 9)


def planted(text: str, seed: int, n: int = 60) -> tuple[Law, Columns, FloatArray]:
    rng = np.random.default_rng(seed)
    law = parse(text, VARIABLES)
    columns = {"N": np.exp(rng.uniform(14, 22, n)), "x": np.exp(rng.uniform(1, 9, n))}
    y = law.evaluate(columns, np.array(PLANTED[text]))
    return law, columns, y + 0.03 * np.std(y) * rng.normal(size=n)


# --- what does not matter


@few
@given(planted_laws, seeds, decades, decades)
def test_the_unit_of_a_feature_does_not_matter(text: str, seed: int, one: int, other: int) -> None:
    law, columns, y = planted(text, seed)
    scaled = {"N": columns["N"] * 10.0**one, "x": columns["x"] * 10.0**other}
    here, there = fit(law, columns, y), fit(law, scaled, y)
    assert there.cost == pytest.approx(here.cost, rel=1e-6)
    assert law.evaluate(scaled, there.params) == pytest.approx(law.evaluate(columns, here.params), rel=1e-3, abs=1e-4)


@few
@given(planted_laws, seeds, decades)
def test_the_unit_of_the_target_does_not_matter_where_residuals_are_plain(text: str, seed: int, decade: int) -> None:
    law, columns, y = planted(text, seed)
    unit = 10.0**decade
    here, there = fit(law, columns, y), fit(law, columns, y * unit)
    assert there.cost == pytest.approx(here.cost * unit**2, rel=1e-6)
    mine, other = law.evaluate(columns, here.params), law.evaluate(columns, there.params) / unit
    assert other == pytest.approx(mine, rel=1e-3, abs=1e-4)


@few
@given(planted_laws, seeds, st.sampled_from(["none", "huber"]))
def test_the_order_of_the_rows_does_not_matter(text: str, seed: int, robust: str) -> None:
    law, columns, y = planted(text, seed)
    order = np.random.default_rng(seed).permutation(len(y))
    options = FitOptions(robust=robust)  # type: ignore[arg-type]
    here = fit(law, columns, y, options=options)
    there = fit(law, {k: v[order] for k, v in columns.items()}, y[order], options=options)
    assert there.cost == pytest.approx(here.cost, rel=1e-6)
    assert law.evaluate(columns, there.params) == pytest.approx(law.evaluate(columns, here.params), rel=1e-3, abs=1e-4)


@few
@given(planted_laws, seeds)
def test_the_names_of_the_parameters_do_not_matter(text: str, seed: int) -> None:
    law, columns, y = planted(text, seed)
    renamed = text
    for i, name in enumerate(law.params):
        renamed = re.sub(rf"\b{name}\b", f"z{9 - i}", renamed)
    other = parse(renamed, VARIABLES)
    assert len(other.params) == len(law.params)
    assert fit(other, columns, y).params.tobytes() == fit(law, columns, y).params.tobytes()


@few
@given(planted_laws, seeds)
def test_a_quick_fit_of_many_groups_is_no_worse_than_a_tenth_of_a_nat_a_group(text: str, seed: int) -> None:
    law, columns, y = planted(text, seed, 240)
    rows = Rows(columns, {"y": y}, np.array([f"g{i % 12:02d}" for i in range(240)]), np.ones(240), None, np.arange(240))
    quick, slow = fit_rows(law, rows, QUICK), fit_rows(law, rows)
    behind = [
        0.5 * one.n * np.log(one.rss / slow.fits[key].rss) for key, one in quick.fits.items() if slow.fits[key].rss > 0
    ]
    assert np.median(behind) < 0.1


# --- degenerate data

COLUMNS = ["plain", "constant", "duplicates", "tiny", "huge", "zero", "negative", "nan", "inf", "wide"]
TARGETS = ["plain", "equal", "zero", "tiny", "huge", "negative", "nan", "inf"]


def odd(kind: str, n: int, rng: np.random.Generator) -> FloatArray:
    """A column or target (n,) of one kind of degeneracy."""
    values: FloatArray = np.exp(rng.uniform(0, 5, n))
    match kind:
        case "constant" | "equal":
            return np.full(n, 2.5)
        case "duplicates":
            return np.repeat(values, 7)[:n]
        case "tiny":
            return values * 1e-300
        case "huge":
            return np.asarray(values * (1e300 / np.max(values, initial=1.0)))
        case "wide":
            return np.exp(rng.uniform(-690, 690, n))
        case "zero":
            return np.zeros(n)
        case "negative":
            return -values
        case "nan" | "inf":
            values[: n // 3 + 1] = float(kind)
    return np.asarray(values)


def is_told(found: Fit) -> bool:
    """A fit that was made is finite; one that was not says why."""
    if found.ok:
        return bool(np.isfinite(found.params).all() and np.isfinite([found.cost, found.rss, found.sigma]).all())
    return bool(found.reason) and bool(np.isnan(found.params).all())


@many
@given(
    st.sampled_from(LAWS),
    st.tuples(st.sampled_from(COLUMNS), st.sampled_from(COLUMNS), st.sampled_from(TARGETS)),
    st.sampled_from([0, 1, 2, 3, 9, 40]),
    st.sampled_from(["plain", "log"]),
    st.sampled_from(["none", "huber", "soft_l1"]),
    st.sampled_from([QUICK, FitOptions(starts=4), FitOptions(starts=2, max_steps=20, thorough=True)]),
    seeds,
)
def test_degenerate_data_end_in_a_fit_or_a_reason(
    text: str, kinds: tuple[str, str, str], n: int, residual: str, robust: str, options: FitOptions, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    columns = {"N": odd(kinds[0], n, rng), "x": odd(kinds[1], n, rng)}
    options = replace(options, residual=residual, robust=robust)  # type: ignore[arg-type]
    assert is_told(fit(parse(text, VARIABLES), columns, odd(kinds[2], n, rng), options=options))


@settings(few, max_examples=30)
@given(st.sampled_from(LAWS), st.sampled_from(COLUMNS), st.sampled_from(TARGETS), seeds)
def test_a_group_of_degenerate_rows_does_not_spoil_the_others(text: str, kind: str, target: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = {"N": np.exp(rng.uniform(14, 22, 40)), "x": np.exp(rng.uniform(1, 9, 40))}
    y = 1 + 30 / columns["x"] ** 0.4 + 0.01 * rng.normal(size=40)
    for name in VARIABLES:
        columns[name][20:] = odd(kind, 20, rng)
    y[20:] = odd(target, 20, rng)
    label = np.repeat(["good", "odd"], 20)
    law, rows = parse(text, VARIABLES), Rows(columns, {"y": y}, label, np.ones(40), None, np.arange(40))
    found = fit_rows(law, rows, QUICK)
    assert is_told(found.fits["odd", "y"])
    assert found.fits["good", "y"].ok
    intervals = bootstrap(law, rows, found, draws=20)
    assert set(intervals) == {"good", "odd"}


@pytest.mark.parametrize("weight", [0.0, 1e-300, 1e300])
def test_odd_weights_end_in_a_fit_or_a_reason(weight: float) -> None:
    law, columns, y = planted("E + A/N**a + B/x**b", 0)
    assert is_told(fit(law, columns, y, weight=np.full(60, weight)))


def test_an_infinite_or_missing_weight_is_no_weight_of_a_fit() -> None:
    law, columns, y = planted("A*x**b + c", 0)
    for weight in (np.inf, np.nan):
        assert is_told(fit(law, columns, y, weight=np.where(np.arange(60) == 3, weight, 1.0)))


@pytest.mark.parametrize("robust", ["huber", "soft_l1"])
@pytest.mark.parametrize("n", [6, 7, 8, 12])
def test_a_law_that_is_exact_has_a_robust_fit(robust: str, n: int) -> None:
    x = np.geomspace(200, 4e5, 12)[:n]
    options = FitOptions(robust=robust, thorough=True)  # type: ignore[arg-type]
    found = fit(parse("E + A/(x**a + B)", VARIABLES), {"x": x}, 1.0 + 8.0 / (x**0.4 + 3.0), options=options)
    assert found.ok
    assert found.params == pytest.approx([1.0, 8.0, 0.4, 3.0])
