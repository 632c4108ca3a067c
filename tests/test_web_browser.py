"""The page in a real browser, opened from disk: it fetches nothing, and what its readers do with it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import Watched, browsing, watching
from conftest import Need
from playwright.sync_api import Browser, expect
from web_runs import HOSTILE, write_run

from agentlab.law import parse
from agentlab.replay import open_run
from agentlab.web.bundle import page
from agentlab.web.page import page_run
from agentlab.web.words import mathml, tree

SOON = 2.0
"""Seconds in which a run of 10,000 candidates is open."""

PHONE = {"width": 375, "height": 700}
TABS = ("verdict", "search", "candidates", "family", "law", "fit", "decision", "training", "models")


def submission(number: int, task: str, method: str, error: float) -> dict[str, Any]:
    """A row of the board as leaderboard_rows tells it (made up)."""
    row: dict[str, Any] = {"id": str(number), "task": task, "task_version": "1", "law": "E + A/N**a", "method": method}
    row |= {"mathml": mathml("E + A"), "submitter": "lab", "holdout_are": error, "holdout_se": 0.001, "holdout_r2": 0.9}
    row |= {"reference_are": 0.02, "difference": error - 0.02, "coverage": 0.9, "regret": 1.2, "n_params": 3 + number}
    row |= {"complexity": 20 - number, "identifiable": True, "usd": 0.1 * number, "seconds": 30.0, "flops": 1e15}
    row |= {"looks": 1, "runs_declared": 5, "runs_finished": 4, "level": "rerun", "date": "2026-01-01"}
    return row | {"merged": [], "note": "", "key": "k", "latex": ""}


ROWS = [("moe", "mutate", 0.03), ("moe", "evolve", 0.01), ("dense", "mutate", 0.02), ("dense", "evolve", 0.04)]
BOARD: dict[str, Any] = {"rows": [submission(i, *row) for i, row in enumerate(ROWS)], "missing": ""}


@pytest.fixture(scope="module")
def browser(need: Need) -> Iterator[Browser]:
    """One browser for the module."""
    with browsing(need("chromium", "chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A finished run of 400 candidates and four short ones that go on (synthetic)."""
    root = tmp_path_factory.mktemp("runs")
    short = [write_run(root / f"short-{i}", 30 + i, done=False, seed=i + 1) for i in range(4)]
    return [write_run(root / "whole", 400, done=True), *short]


@pytest.fixture(scope="module")
def told(folders: list[Path]) -> list[dict[str, Any]]:
    """What the page is told of each."""
    return [page_run(open_run(folder)) for folder in folders]


@pytest.fixture(scope="module")
def index(told: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the page of all of them."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page(told, BOARD), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def at(browser: Browser, index: str) -> Iterator[Watched]:
    """The page, opened at its verdict."""
    with watching(browser, viewport={"width": 1200, "height": 800}) as it:
        it.page.goto(f"{index}#/run/whole/verdict")
        it.shows("#/run/whole/verdict")
        yield it


def test_from_disk_it_shows_the_verdict_and_asks_for_nothing_but_itself(
    at: Watched, told: list[dict[str, Any]]
) -> None:
    assert told[0]["result"]["verdict"][1:] in at.text("#verdict")
    assert at.text("#law-text") == told[0]["result"]["law"]["formula"]
    for tab in TABS:
        at.goes(f"#/run/whole/{tab}")
    for where in ("#/board", "#/compare"):
        at.goes(where)
    assert [a for a in at.asked if not a.startswith(("file:", "data:", "blob:"))] == []
    assert len([a for a in at.asked if a.startswith("file:")]) == 1


def test_a_run_of_ten_thousand_candidates_is_open_soon(
    browser: Browser, told: list[dict[str, Any]], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    long_run = page_run(open_run(write_run(tmp_path / "long", 10_000, done=True)))
    pages = {}
    for run in (told[0], long_run):
        pages[run["id"]] = tmp_path / f"{run['id']}.html"
        pages[run["id"]].write_text(page([run], BOARD), encoding="utf-8")

    def opened(name: str, said: str) -> float:
        with watching(browser) as it:
            start = time.perf_counter()
            it.page.goto(f"{pages[name].as_uri()}#/run/{name}/search")
            it.page.locator(".chart canvas").first.wait_for()
            took = time.perf_counter() - start
            assert said in it.text("#progress")
            it.goes(f"#/run/{name}/candidates")
            assert 10 < it.page.locator(".t-row").count() < 100
        return took

    short, long = [], []
    for _ in range(5):
        short.append(opened("whole", "400 candidates"))
        long.append(opened("long", "10,000 candidates"))
        if long[-1] < SOON:
            break
    record_property("seconds", min(long))
    # A machine that is slow with any page is given three times what it takes for a run of 400.
    assert min(long) < max(SOON, 3 * min(short))


def test_candidates_are_sorted_and_filtered(at: Watched) -> None:
    at.goes("#/run/whole/candidates")
    rows = at.page.locator(".t-row")
    best = [float(t) for t in at.page.locator(".t-row > div:nth-child(3)").all_inner_texts()[:20]]
    assert best == sorted(best)
    at.page.get_by_role("button", name="entry").click()
    assert rows.first.locator("div").first.inner_text() == "0"
    at.page.get_by_role("button", name="entry").click()
    assert rows.first.locator("div").first.inner_text() == "399"
    at.page.get_by_label("Reason").select_option("outclassed")
    assert set(at.page.locator(".t-row > div:nth-child(8)").all_inner_texts()) == {"outclassed"}
    at.page.get_by_label("Reason").select_option("")
    at.page.get_by_label("Filter formulas").fill("D**317")
    expect(at.page.get_by_role("status").first).to_have_text("1 row")
    assert "E + A/N**a + B/D**317" in rows.first.inner_text()


def test_the_keys_do_what_the_help_says(at: Watched) -> None:
    press = at.page.keyboard.press
    press("?")
    expect(at.page.get_by_role("dialog")).to_be_visible()
    press("Escape")
    expect(at.page.get_by_role("dialog")).to_be_hidden()
    for place, tab in enumerate(TABS, start=1):
        press(str(place))
        at.shows(f"#/run/whole/{tab}")
    press("3")
    at.shows("#/run/whole/candidates")
    press("/")
    expect(at.page.get_by_label("Filter formulas")).to_be_focused()
    press("Escape")
    at.page.get_by_role("grid", name="Candidates").focus()
    for _ in range(3):
        press("ArrowDown")
    assert at.page.locator(".t-row.at").get_attribute("aria-rowindex") == "5"
    number = at.page.locator(".t-row.at > div").first.inner_text()
    press("Enter")
    expect(at.page.get_by_role("heading", name=f"Entry {number}")).to_be_visible()
    press("End")
    assert at.page.locator(".t-row.at").get_attribute("aria-rowindex") == "401"
    press("b")
    at.shows("#/board")
    press("c")
    at.shows("#/compare")


def test_focus_is_seen_and_controls_have_names(at: Watched) -> None:
    at.page.keyboard.press("Tab")
    assert at.page.evaluate("document.activeElement.className") == "skip"
    at.goes("#/run/whole/law")
    at.page.keyboard.press("Tab")
    width = at.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(width.removesuffix("px")) >= 2
    for where in ("#/board", *(f"#/run/whole/{tab}" for tab in TABS)):
        at.goes(where)
        nameless = """[...document.querySelectorAll('button, input, select, a, [role=img], [role=grid], [tabindex]')]
            .filter((n) => n.tabIndex >= 0)
            .filter((n) => !(n.textContent.trim() || n.ariaLabel || n.closest('label')?.textContent.trim()))
            .map((n) => n.outerHTML)"""
        assert at.page.evaluate(nameless) == []


def test_sliders_move_the_law_which_agrees_with_python(at: Watched, folders: list[Path]) -> None:
    run = open_run(folders[0])
    at.goes("#/run/whole/law")
    place = int(np.argmax(run.rows.scale))  # type: ignore[arg-type]
    there = {n: c[place : place + 1] for n, c in run.rows.columns.items()}
    expected = float(run.law.predict(there)["loss"][0])
    value = at.page.locator("#value")
    assert float(str(value.get_attribute("data-value"))) == pytest.approx(expected, rel=1e-12)
    slider = at.page.get_by_role("slider", name="E", exact=True)
    slider.focus()
    for _ in range(5):
        at.page.keyboard.press("ArrowRight")
    moved = float(str(value.get_attribute("data-value")))
    law = run.law.params["all"]["loss"]
    assert moved == pytest.approx(expected + 0.01 * law["E"], rel=1e-3)
    assert moved != pytest.approx(expected, rel=1e-6)
    at.page.get_by_role("button", name="As on record").click()
    assert float(str(value.get_attribute("data-value"))) == pytest.approx(expected, rel=1e-12)


def test_every_operation_of_a_law_is_evaluated_as_python_does(at: Watched) -> None:
    rng = np.random.default_rng(5)
    columns = {"N": 10 ** rng.uniform(6, 11, 200), "D": 10 ** rng.uniform(8, 13, 200), "r": rng.uniform(0.1, 3.0, 200)}
    params = {"E": 1.7, "A": 406.4, "a": 0.34, "B": 1.2e3, "b": 0.28, "c": 0.7}
    for text in (
        "E + A/N**a + B/D**b",
        "E + (A/N**a + B/D**b)**c",
        "exp(-a*log(N)) + log2(D)/log10(N) + sqrt(r)",
        "(A + r)**(a + b*log(D))",
        "min(N, D)**a + max(r, c) + abs(a - r)",
        "tanh(r) + sigmoid(c - 2*r) + sigmoid(r)",
        "E + A*r**2 - -b + (0 - c)**2 + r**-1.5",
    ):
        law = parse(text, ("N", "D", "r"))
        expected = law.evaluate(columns, np.array([params[p] for p in law.params]))
        plain = {n: c.tolist() for n, c in columns.items()}
        said = at.page.evaluate("([t, c, p]) => evaluate(t, c, p)", [tree(law.tree), plain, params])
        assert np.allclose(said, expected, rtol=1e-12, atol=0.0), text


def test_a_family_shows_the_formulas_difference_above_the_programs(at: Watched) -> None:
    at.goes("#/run/whole/family?entry=6")
    at.page.locator('.node[data-id="6"]').focus()
    at.page.keyboard.press("Enter")
    detail = at.page.locator("#entry")
    expect(detail.get_by_role("heading", name="What changed from entry 5")).to_be_visible()
    shown = detail.locator(".difference")
    assert [shown.nth(i).evaluate("n => n.tagName") for i in range(2)] == ["CODE", "PRE"]
    assert shown.nth(0).locator("del").first.inner_text() == "0"
    assert shown.nth(0).locator("ins").first.inner_text() == "1"
    assert "+     return params[0] + params[1] * X[:, 1] ** -params[2]" in shown.nth(1).inner_text()


def test_training_runs_are_listed_with_their_losses_and_what_went_wrong(at: Watched) -> None:
    at.goes("#/run/whole/training")
    rows = at.page.locator(".t-row")
    assert rows.count() == 3
    assert "loss is not finite" in rows.nth(2).inner_text()
    assert "6e17" in at.text(".tiles")
    expect(at.page.get_by_role("img", name="Losses of the training runs by segment").locator("canvas")).to_be_visible()
    rows.first.click()
    expect(at.page.get_by_role("heading", name="Run 0")).to_be_visible()


def test_votes_and_prompts_are_folded_and_open(at: Watched) -> None:
    at.goes("#/run/whole/models")
    assert "parents for block 8: 3, 4" in at.text(".vote")
    assert at.page.locator(".vote-bar i.elected").count() == 2
    assert at.page.locator(".call pre").count() == 0
    at.page.locator(".call summary").click()
    expect(at.page.locator(".call pre").first).to_contain_text("Which law?")


def test_words_of_a_run_stay_words(at: Watched) -> None:
    at.goes("#/run/whole/models")
    at.page.locator(".call summary").click()
    expect(at.page.locator(".call pre").first).to_contain_text(HOSTILE)
    assert at.page.locator("img").count() == 0
    assert at.page.title() != "666"


def test_up_to_four_runs_stand_side_by_side(at: Watched) -> None:
    at.goes("#/compare?runs=whole,short-0")
    heads = at.page.locator("main table th")
    assert heads.all_inner_texts() == ["", "whole", "short-0"]
    for name in ("short-1", "short-2"):
        at.page.get_by_label(name).check()
        expect(at.page.get_by_label(name)).to_be_checked()
    expect(heads).to_have_count(5)
    expect(at.page.get_by_label("short-3")).to_be_disabled()
    assert "The runs are on the same rows" in at.text("main")


def test_the_board_is_sorted_filtered_and_opened(at: Watched) -> None:
    at.goes("#/board")
    errors = at.page.locator(".t-row > div:nth-child(4)")
    assert errors.all_inner_texts() == ["1%", "2%", "3%", "4%"]
    at.page.get_by_role("button", name="nodes").click()
    assert errors.all_inner_texts() == ["4%", "2%", "1%", "3%"]
    at.page.get_by_label("Task", exact=True).select_option("moe")
    expect(errors).to_have_text(["1%", "3%"])
    assert at.page.get_by_role("img").count() == 2
    at.page.locator(".t-row").first.click()
    expect(at.page.get_by_role("heading", name="Submission")).to_be_visible()
    assert at.page.evaluate("paretoFront([[3, 1], [1, 3], [2, 4], [4, 1]])") == [[1, 3], [3, 1]]


def test_an_empty_board_says_how_to_submit(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(page([], {"rows": [], "missing": ""}), encoding="utf-8")
    with watching(browser) as it:
        it.page.goto(path.as_uri())
        expect(it.page.locator("main")).to_contain_text("agentlab leaderboard submit RUN")


def test_it_is_dark_where_the_reader_wants_it_and_can_be_turned(browser: Browser, index: str) -> None:
    def light(it: Watched) -> float:
        colour = it.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return float(np.mean([int(c) for c in colour.removeprefix("rgb(").removesuffix(")").split(",")]))

    with watching(browser, color_scheme="dark") as it:
        it.page.goto(f"{index}#/run/whole/search")
        it.shows("#/run/whole/search")
        assert light(it) < 60
        it.page.get_by_role("button", name="Light or dark").click()
        assert light(it) > 200


def test_on_a_phone_nothing_runs_off_the_side(browser: Browser, index: str) -> None:
    with watching(browser, viewport=PHONE) as it:
        it.page.goto(f"{index}#/board")
        for where in ("#/board", "#/compare", *(f"#/run/whole/{tab}" for tab in TABS)):
            it.goes(where)
            it.page.locator("main h2, main h1").first.wait_for()
            assert it.page.evaluate("document.documentElement.scrollWidth") <= 375, where
