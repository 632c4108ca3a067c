"""The task serving_latency, its experiments through the tool `infer.measure`, and the goodput that its laws allow."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trained
from conftest import CHECKOUT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_infer import call

from agentlab.catalog import load_task
from agentlab.fitting import FitOptions, fit_rows
from agentlab.goodput import GoodputError, Names, Service, Timing, crossover, goodput
from agentlab.law import parse
from agentlab.table import file_rows

sys.path[:0] = [str(CHECKOUT / "bench"), str(trained.IMAGES / "infer"), str(trained.IMAGES / "train")]

import infer_main  # noqa: E402 - lies in the image's folder
import serving_sweep  # noqa: E402 - benchmarks are scripts beside the package
import train_plan  # noqa: E402

VARIABLES = ("N", "B", "L")
MODEL: dict[str, Any] = {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64, "batch": 4, "length": 24}
FIRST = Timing(parse("a + f*B*L", VARIABLES), np.array([5.0, 0.05]))
EACH = Timing(parse("m + f*B + k*B*L", VARIABLES), np.array([8.0, 0.5, 0.002]))


def seconds_of(batch: int, service: Service) -> float:
    """A batch from its first prompt to its last token, every token timed at the context that it has."""
    a, f = FIRST.params
    m, g, k = EACH.params
    later = [m + g * batch + k * batch * (service.prompt + i) for i in range(1, int(service.output))]
    first = a + f * batch * service.prompt
    return float(first + sum(later)) / 1e3


def waiting(rate: float, batch: int, service: Service, requests: int) -> int:
    """How many requests wait in the end, when one arrives every 1/rate seconds and batches are served one by one."""
    clock, served = 0.0, 0
    while served < requests:
        clock = max(clock, (served + batch - 1) / rate)  # until the batch is full
        clock += seconds_of(batch, service)
        served += batch
    return math.floor(clock * rate) - served


# ---- goodput ----


def test_a_server_keeps_up_with_its_goodput_and_with_no_more() -> None:
    service = Service(prompt=64, output=33, ttft=100.0, tpot=20.0)
    found = goodput(FIRST, EACH, {}, service)
    assert found.reason == ""
    assert found.ttft <= 100.0
    assert found.tpot <= 20.0
    exact = found.batch / seconds_of(found.batch, service)
    assert found.rate == pytest.approx(exact, rel=2e-3)  # tokens see on average half a position more than the middle
    assert waiting(0.98 * found.rate, found.batch, service, 4000) <= 2 * found.batch
    assert waiting(1.05 * found.rate, found.batch, service, 4000) > 100


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1.0, 500.0), st.floats(0.5, 60.0), st.integers(1, 512), st.integers(1, 200)
)  # fmt: skip
def test_no_batch_that_keeps_the_targets_serves_more(ttft: float, tpot: float, prompt: int, output: int) -> None:
    service = Service(prompt, output, ttft, tpot)
    found = goodput(FIRST, EACH, {}, service, most=200)
    rates = [0.0]
    for b in range(1, 201):
        first = 5.0 + 0.05 * b * prompt
        each = 8.0 + 0.5 * b + 0.002 * b * (prompt + (output - 1) / 2)
        if first <= ttft and (each <= tpot or output == 1):
            rates.append(1e3 * b / (first + (output - 1) * each))
    assert found.rate == pytest.approx(max(rates))
    assert (found.rate == 0.0) == (found.batch == 0) == bool(found.reason)


def test_a_looser_target_never_lowers_the_rate_and_no_target_ends_at_the_largest_batch() -> None:
    rates = [goodput(FIRST, EACH, {}, Service(64, 32, tpot=tpot)).rate for tpot in (5, 9, 12, 20, 50, math.inf)]
    assert rates == sorted(rates)
    assert rates[0] == 0.0
    free = goodput(FIRST, EACH, {}, Service(64, 32), most=50)
    assert (free.batch, free.edge) == (50, True)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (Service(64, 32, ttft=8.0), "no batch keeps ttft <= 8 ms: the least is 8.2 ms"),
        (Service(64, 32, tpot=8.0), "no batch keeps tpot <= 8 ms: the least is 8.659 ms"),
    ],
)
def test_targets_that_no_batch_keeps_give_no_rate_and_the_reason(service: Service, said: str) -> None:
    found = goodput(FIRST, EACH, {}, service)
    assert (found.rate, found.batch, found.reason) == (0.0, 0, said)


def test_draws_give_intervals_around_the_rate_and_the_batch() -> None:
    chance = np.random.default_rng(0)
    first, each = (
        Timing(t.law, t.params, t.params * chance.lognormal(0.0, 0.05, (300, len(t.params)))) for t in (FIRST, EACH)
    )
    service = Service(64, 32, tpot=12.0)
    found = goodput(first, each, {}, service)
    assert found.rate_interval is not None
    assert found.batch_interval is not None
    assert found.rate == goodput(FIRST, EACH, {}, service).rate
    assert found.rate_interval[0] < found.rate < found.rate_interval[1]
    assert found.batch_interval[0] <= found.batch <= found.batch_interval[1]
    alone = goodput(first, EACH, {}, service)  # a law without draws has none to pair with
    assert alone.rate_interval is None


@pytest.mark.parametrize(
    ("service", "most", "said"),
    [
        (Service(0, 32), 8, "prompt=0: write a number of at least 1"),
        (Service(64, math.nan), 8, "output=nan: write a number of at least 1"),
        (Service(64, 32), 0, "most=0: write a number of at least 1"),
        (Service(64, 32, ttft=-1.0), 8, "ttft=-1: write milliseconds above 0, or leave the target away"),
        (Service(64, 32, tpot=math.nan), 8, "tpot=nan: write milliseconds above 0, or leave the target away"),
    ],
)
def test_a_service_that_is_none_is_refused_in_one_line(service: Service, most: int, said: str) -> None:
    with pytest.raises(GoodputError) as error:
        goodput(FIRST, EACH, {}, service, most=most)
    assert str(error.value) == said


def test_a_feature_without_a_value_is_named() -> None:
    sized = Timing(parse("a + f*N*B*L", VARIABLES), np.array([5.0, 0.05]))
    with pytest.raises(GoodputError, match="ttft: the law needs a value of N"):
        goodput(sized, EACH, {}, Service(64, 32))
    assert goodput(sized, EACH, {"N": 1.0}, Service(64, 32, ttft=50.0)).batch == 14


def test_columns_may_have_other_names_and_laws_that_give_no_time_say_so() -> None:
    named = ("batch", "tokens")
    first, each = (Timing(parse(text, named), np.array([1.0, 2.0])) for text in ("a + b*batch*tokens", "a + b*batch"))
    found = goodput(first, each, {}, Service(10, 2, ttft=101.0), names=Names("batch", "tokens"))
    assert (found.batch, found.ttft, found.tpot) == (5, 101.0, 11.0)
    still = Timing(parse("a", named), np.array([3.0]))
    assert goodput(first, still, {}, Service(10, 2, ttft=101.0), names=Names(*named)).tpot == 3.0
    bad = Timing(parse("a*log(0 - batch) + b", named), np.array([1.0, 2.0]))
    assert "the law of tpot gives no time" in goodput(first, bad, {}, Service(10, 2), names=Names(*named)).reason


# ---- crossover ----


@given(
    st.floats(0.1, 100.0), st.floats(0.01, 1.0), st.sampled_from(["m + c*B", "(m**4 + (c*B)**4)**0.25", "max(m, c*B)"])
)
@settings(max_examples=60, deadline=None)
def test_the_crossover_is_where_both_terms_are_equal(m: float, c: float, formula: str) -> None:
    timing = Timing(parse(formula, VARIABLES), np.array([m, c]))
    found = crossover(timing, {}, low=1e-3, high=1e6)
    assert found.value is not None
    assert found.value == pytest.approx(m / c, rel=6e-3)  # of max, where the slope jumps, one step of the grid


def test_a_time_that_does_not_change_its_regime_has_no_crossover() -> None:
    flat = crossover(EACH, {"L": 64.0}, high=4.0)
    steep = crossover(EACH, {"L": 64.0}, low=100.0)
    assert flat.value is None
    assert steep.value is None
    assert flat.reason == "no crossover: from B = 1 to 4 more is shared than grows"
    assert steep.reason == "no crossover: from B = 100 to 4096 more grows than is shared"
    with pytest.raises(GoodputError, match="lever=N: the law does not change with it"):
        crossover(EACH, {"L": 64.0}, lever="N")


def test_the_crossover_of_draws_is_an_interval() -> None:
    draws = EACH.params * np.random.default_rng(1).lognormal(0.0, 0.1, (400, 3))
    found = crossover(Timing(EACH.law, EACH.params, draws), {"L": 64.0})
    assert found.value == pytest.approx(8.0 / (0.5 + 0.002 * 64.0), rel=1e-4)
    assert found.interval is not None
    exact = np.percentile(draws[:, 0] / (draws[:, 1] + 64.0 * draws[:, 2]), [5, 95])
    assert found.interval == pytest.approx(tuple(exact), rel=1e-3)


# ---- experiments ----


def test_an_experiment_answers_with_times_cost_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="needs agentlab-discovery[infer]")
    monkeypatch.setenv("AGENTLAB_JOBS", str(tmp_path))
    monkeypatch.setenv("AGENTLAB_MAX_JOBS", "8")
    asked: dict[str, Any] = {"config": MODEL, "new_tokens": 4, "repeats": 3, "name": "one"}
    job = call("measure", **asked, wait=0)
    assert job["state"] in ("starting", "running")
    assert job["measured"] is None
    for _ in range(8):
        if job["state"] not in ("starting", "running"):
            break
        job = call("status", job="one", wait=15)
    assert job["state"] == "done", job
    found = job["measured"]
    for name in ("ttft_ms", "tpot_ms"):
        low, high = found[f"{name}_quartiles"]
        assert 0 < low <= found[name] <= high
        low, high = found[f"{name.removesuffix('_ms')}_busy_ms_quartiles"]
        assert 0 < low <= found[f"{name.removesuffix('_ms')}_busy_ms"] <= high
    assert found["machine"].keys() == {"cores", "load_before", "load_after"}
    shape = {k: v for k, v in MODEL.items() if k not in ("batch", "length")}
    plan = train_plan.plan(train_plan.Config(**shape, context=24, steps=1))
    assert found["params"] == plan.params  # as the trainer counts them
    assert found["matrix_params"] == plan.matmul_params_active
    assert call("measure", **asked)["measured"] == found, "the same request is the same job"
    assert "exists with another config" in call("measure", **{**asked, "repeats": 4}, error=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 0}, "config.batch; 0 is out of range; write a number from 1 to 4096"),
        ({"n_heads": 3}, "config.n_heads; d_model 32 does not give 3 heads of even width; write a divisor of d_model"),
        ({"d_model": 16384, "n_layers": 256, "batch": 4096}, "GiB are free; write a smaller batch, length or model"),
        ({"lenght": 24}, "config.lenght; unknown key; did you mean 'length'?"),
        ({"out": "somewhere"}, "config.out; unknown key"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused_in_one_line(
    change: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLAB_JOBS", str(tmp_path / "jobs"))
    text = call("measure", config={**MODEL, **change}, error=True)
    assert said in text
    assert "\n" not in text
    assert not list(tmp_path.glob("jobs/*")), "nothing was started"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"n_layers": 0}, "n_layers"),
        ({"d_ff": 64.5}, "d_ff"),
        ({"length": -1}, "length"),
        ({"batch": True}, "batch"),
        ({"length": None}, "length"),
        ({"dtype": "int8"}, "dtype"),
        ({"new_tokens": 0}, "new_tokens"),
    ],
)
def test_a_bad_shape_is_one_line_of_the_program(
    change: dict[str, Any], where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"task": "cost", **MODEL, **change}))
    assert infer_main.main([str(path)]) == 2
    line = json.loads(capsys.readouterr().out)
    assert (line["event"], line["where"]) == ("error", where)
    assert line["instead"]


def test_the_cost_counts_every_matrix_product(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against a sum over all products of the two phases, token by token."""
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"task": "cost", **MODEL, "new_tokens": 5}))
    assert infer_main.main([str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    d, n, f, b, length = (MODEL[k] for k in ("d_model", "n_layers", "d_ff", "batch", "length"))
    block, head = 2 * (4 * d * d + 3 * d * f), 2 * 256 * d
    prompt = sum(n * (block + 4 * d * seen) for seen in range(1, length + 1)) + head
    steps = [n * (block + 4 * d * seen) + head for seen in range(length + 1, length + 6)]
    assert told["flops"] == {"prefill": b * prompt, "decode": pytest.approx(b * sum(steps) / 5)}
    kept = 2 * n * d * b * 4
    reads = [told["matrix_params"] * 4 + kept * (seen + 1) for seen in range(length + 1, length + 6)]
    assert told["bytes"]["decode"] == pytest.approx(sum(reads) / 5)
    assert told["bytes"]["prefill"] == told["matrix_params"] * 4 + kept * length


# ---- the task ----


def test_every_row_is_one_of_the_sweep_and_the_hold_out_lies_beyond_the_others() -> None:
    kept = {}
    for file in ("latency.csv", "holdout.csv"):
        with (CHECKOUT / "tasks" / "serving_latency" / "data" / file).open(newline="", encoding="utf-8") as lines:
            kept[file] = list(csv.DictReader(lines))
    cells = {cell.name: cell for cell in serving_sweep.cells()}
    rows = [row for of_file in kept.values() for row in of_file]
    assert {row["name"] for row in rows} == set(cells)
    assert len(rows) == len(cells)
    for row in rows:
        d, layers, _, wide = cells[row["name"]].shape
        assert int(row["N"]) == layers * (4 * d * d + 3 * d * wide) + 256 * d
        assert int(row["K"]) == 2 * layers * d
        assert all(float(row[f"{t}_low"]) <= float(row[t]) <= float(row[f"{t}_high"]) for t in ("ttft", "tpot"))
    most = {name: max(float(row[name]) for row in kept["latency.csv"]) for name in ("N", "B", "L")}
    assert all(any(float(row[name]) > top for name, top in most.items()) for row in kept["holdout.csv"])


def test_the_roofline_fitted_to_the_rows_has_the_exponents_of_the_textbook() -> None:
    """Computation grows with the tokens of a pass: B L of them in a prompt, B in a decoding step."""
    task = load_task("serving_latency")
    assert task.reference is not None
    rows = file_rows(task, Path(task.train_file))
    found = fit_rows(parse(task.reference.formula, task.names), rows, FitOptions(residual="log", robust="huber"))
    first, each = (found.fits["all", target].named for target in ("ttft", "tpot"))
    assert first["e"] == pytest.approx(1.0, abs=0.1)
    assert each["e"] == pytest.approx(0.0, abs=0.2)
    assert first["f"] == pytest.approx(each["f"], rel=0.6)  # the same processor computes both


def test_a_sweep_goes_on_after_a_line_that_a_kill_tore(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert serving_sweep.lines(path) == []
    line = {"round": 0, "cell": "d32-l2-f128-b1-t16", "load": 0.5, "ttft": [0.002, 0.004, 0.003], "tpot": [0.001] * 3}
    path.write_text(json.dumps(line) + "\n" + json.dumps(line)[:20])
    assert serving_sweep.lines(path) == [line]
    assert path.read_text() == json.dumps(line) + "\n"
    cell = next(c for c in serving_sweep.cells() if c.name == line["cell"])
    row = serving_sweep.row(cell, [line, {**line, "ttft": [0.005]}])
    assert (row["ttft"], row["tpot"], row["runs"]) == ("4", "1", 4)
