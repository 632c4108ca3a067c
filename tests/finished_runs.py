"""Five small finished runs of different kinds, each made once for all tests that ask for it, by the command line."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scripted_model import Asked, serving
from test_agent import WAVE, writes
from test_discover_model import agentlab, words
from test_experiments import TOML, rows

KINDS = ("plain", "grouped", "models", "programs", "training")


def finished(kind: str, factory: pytest.TempPathFactory) -> Path:
    """The folder of the run of a kind; test processes that run side by side share it."""
    shared = factory.getbasetemp()
    if shared.name.startswith("popen-"):
        shared = shared.parent
    place = shared / f"finished-{kind}"
    with (shared / f"finished-{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            MAKERS[kind](place)
            (place / "done").touch()
    (folder,) = (p.parent for p in place.glob("*/config.json"))
    return folder


def discover(place: Path, *given: str) -> None:
    done = agentlab("discover", *given, "workers=1", f"out={place}", "--json")
    assert done.code == 0, done.err


def plain(place: Path) -> None:
    """No model: a power law with a floor, and a sealed hold-out."""
    sizes = np.geomspace(1e6, 1e9, 12)
    noise = 1 + 0.01 * np.sin(9 * np.arange(12))
    lines = [f"{n},{(1.7 + 400 / n**0.34) * e}" for n, e in zip(sizes, noise, strict=True)]
    (place / "plain.csv").write_text("\n".join(["N,loss", *lines, ""]))
    given = ["target=loss", "features=N", "scale=6*N", "holdout=N > 4e8", "max_params=3", "window=4"]
    discover(place, f"data={place / 'plain.csv'}", *given, "budget.candidates=12")


def grouped(place: Path) -> None:
    """No model, two groups."""
    laws = (("web", 1.7, 300), ("code", 1.1, 200))
    lines = [f"{g},{n},{e + a / n**0.3}" for g, e, a in laws for n in np.geomspace(1e6, 1e8, 8)]
    (place / "two.csv").write_text("\n".join(["corpus,N,loss", *lines, ""]))
    given = ["target=loss", "features=N", "group=corpus", "max_params=3", "budget.candidates=6"]
    discover(place, f"data={place / 'two.csv'}", *given)


def models(place: Path) -> None:
    """A scripted model that writes formulas."""
    with serving(writes) as server:
        given = words(place, server.url, "proposer=evolve", "budget.candidates=16")
        done = agentlab(*given, "--json")
    assert done.code == 0, done.err


def programs(place: Path) -> None:
    """A scripted model that writes a program, which is believed."""

    def writes_a_wave(asked: Asked) -> str:
        return json.dumps({"proposals": [{"program": WAVE, "idea": "a wave"}]})

    lines = [f"{n},{2 + 0.3 * np.sin(4 * np.log(n))}" for n in np.geomspace(1e3, 1e6, 48)]
    (place / "wave.csv").write_text("\n".join(["n,y", *lines, ""]))
    with serving(writes_a_wave) as server:
        given = ["model=scripted", f"base_url={server.url}", "proposer=code", "sandbox=bubblewrap"]
        given += ["residual=plain", "max_params=3", "window=8", "budget.candidates=6"]
        discover(place, f"data={place / 'wave.csv'}", "target=y", "features=n", *given)


def training(place: Path) -> None:
    """A loop over experiments that the simulator plays."""
    (place / "toy").mkdir()
    (place / "toy" / "task.toml").write_text(TOML.replace("max_params = 5", "max_params = 3"))
    (place / "toy" / "rows.csv").write_text(rows())
    discover(place, f"task={place / 'toy'}", "experiments=1", "budget.flops=1e20", "budget.candidates=12")


MAKERS: dict[str, Callable[[Path], None]] = {
    "plain": plain, "grouped": grouped, "models": models, "programs": programs, "training": training,
}  # fmt: skip
