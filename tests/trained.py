"""Small models that tests train for real, by the trainer's own program."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from agentlab.envs._processes import environment

IMAGES = Path(str(files("agentlab.envs"))) / "images"
SHAPE: dict[str, Any] = {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64, "context": 64}
RUN: dict[str, Any] = {**SHAPE, "steps": 40, "batch_sequences": 8, "lr": 0.01, "valid_sequences": 64, "device": "cpu"}
MIXTURE: dict[str, Any] = {**RUN, "experts": 4, "top_k": 2, "split": 2, "shared": 1}

Line = dict[str, Any]


def write_corpus(folder: Path) -> Path:
    """A folder with a small text of words, enough to learn from."""
    words = ["def ", "return ", "x + 1\n", "import ", "self.", "(a, b)\n", "for i in ", "range(n):\n", "é → ü\n"]
    chance = random.Random(5)  # noqa: S311 - words, no secret
    for name, count in (("train.bin", 10_000), ("valid.bin", 2_000)):
        (folder / name).write_text("".join(chance.choices(words, k=count)), encoding="utf-8")
    return folder


def program(image: str, name: str, arguments: list[str], asked: Line | None = None, *, code: int = 0) -> Line:
    """The last JSON line of one of our programs; a traceback fails the test."""
    done = subprocess.run(
        [sys.executable, str(IMAGES / image / name), *arguments], input=json.dumps(asked), capture_output=True,
        text=True, env=environment({"HF_HUB_OFFLINE": "1"}), timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    last: Line = json.loads(done.stdout.splitlines()[-1])
    return last


def train(folder: Path, corpus: Path, config: Line) -> Line:
    """Trains into the folder; the result line, whose valid_loss is in nats per byte."""
    done = program("train", "main.py", [], {**config, "corpus": str(corpus), "out": str(folder)})
    assert done["status"] == "ok", done
    return done


def export(run: Path, out: Path) -> Line:
    """The folder in Hugging Face layout."""
    return program("train", "train_export.py", [str(run), str(out)])
