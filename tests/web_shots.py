"""Makes the pictures in docs/screenshots: `python tests/web_shots.py OUT RUN ..`; the first run is the one shown most.

With `--training RUN` also the tab of training runs, with `--models RUN` that of votes and prompts, with `--board URL`
the leaderboard; without it that has made-up rows, which say so.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from browsers import browsing, watching
from playwright.sync_api import Browser
from test_web_browser import submission

from agentlab.replay import Run, open_run
from agentlab.web.bundle import board_told, write_bundle
from agentlab.web.words import mathml

WIDE, PHONE = {"width": 1080, "height": 680}, {"width": 375, "height": 760}
MOST_BYTES = 150_000


def shots(runs: list[Run], training: Run | None, models: Run | None) -> list[tuple[str, str, bool, bool]]:
    """(name, address, dark, phone) of every picture."""
    first = runs[0]
    told = [(f"{tab}-light", f"#/run/{first.id}/{tab}", False, False) for tab in ("verdict", "search", "law", "fit")]
    told += [(f"{tab}-dark", f"#/run/{first.id}/{tab}", True, False) for tab in ("decision", "candidates")]
    told += [("family-dark", f"#/run/{first.id}/family?entry={lineage(first)}", True, False)]
    told += [(f"{tab}-phone", f"#/run/{first.id}/{tab}", False, True) for tab in ("verdict", "law")]
    told += [("compare-light", f"#/compare?runs={','.join(run.id for run in runs)}", False, False)]
    told += [] if training is None else [("training-light", f"#/run/{training.id}/training", False, False)]
    told += [] if models is None else [("models-light", f"#/run/{models.id}/models", False, False)]
    return [*told, ("board-light", "#/board", False, False)]


def lineage(run: Run) -> int:
    """The entry with the longest line of ancestors."""
    depth: dict[int, int] = {}
    for entry in run.entries:
        depth[entry.id] = 1 + max((depth.get(p, 0) for p in entry.parents), default=0)
    return max(depth, key=lambda i: depth[i])


def made_up(number: int, task: str, method: str, error: float) -> dict[str, Any]:
    """A row of the board that nobody submitted."""
    row = submission(number, task, method, error) | {"submitter": "made up", "note": "made up for a picture"}
    return row | {"law": "E + A/N**a + B/D**b", "mathml": mathml(r"E + \frac{A}{N^{a}} + \frac{B}{D^{b}}")}


METHODS = {"mutate": 0.012, "evolve": 0.009, "code": 0.015}
MADE_UP: dict[str, Any] = {
    "rows": [
        made_up(i, task, f"{method} (made up)", error * (1 + 0.7 * j))
        for j, task in enumerate(("planted_chinchilla", "moe_leverage", "sldbench_vocab"))
        for i, (method, error) in enumerate(METHODS.items())
    ],
    "missing": "",
}


def shoot(browser: Browser, index: Path, out: Path, shot: tuple[str, str, bool, bool]) -> None:
    """One picture; too large a one is an error."""
    name, where, dark, phone = shot
    with watching(browser, viewport=PHONE if phone else WIDE, color_scheme="dark" if dark else "light") as it:
        it.page.goto(f"{index.as_uri()}{where}")
        it.shows(where)
        it.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        if it.page.locator(".chart").count():
            it.page.locator(".chart canvas").first.wait_for()
        it.page.screenshot(path=str(out / f"{name}.png"))
    assert (out / f"{name}.png").stat().st_size < MOST_BYTES, f"{name}.png is too large"


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description="Pictures of the page.")
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--training")
    parser.add_argument("--models")
    parser.add_argument("--board")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    runs = [open_run(run) for run in given.runs]
    training, models = (open_run(run) if run else None for run in (given.training, given.models))
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, browsing(given.chromium) as browser:
        board = board_told(given.board) if given.board else MADE_UP
        index = write_bundle([*runs, *(r for r in (training, models) if r is not None)], Path(name), board)
        for shot in shots(runs, training, models):
            shoot(browser, index, given.out, shot)


if __name__ == "__main__":
    main()
