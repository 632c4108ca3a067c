"""Bytes to train on and to validate on."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from train_plan import Config, ConfigError

Bytes = NDArray[np.uint8]
Tokens = NDArray[np.int64]


class Corpus:
    """A folder with train.bin and valid.bin; a batch depends on (seed, step) alone, so a resumed run sees the same."""

    def __init__(self, c: Config) -> None:
        self.c = c
        self.train = self._load(Path(c.corpus) / "train.bin")
        self.valid = self._load(Path(c.corpus) / "valid.bin")

    def batch(self, step: int, count: int) -> Tokens:
        """Windows [count, context + 1] at random starts."""
        chance = np.random.Generator(np.random.Philox(key=[self.c.seed, step]))
        return self._windows(self.train, chance.integers(0, len(self.train) - self.c.context, count))

    def validation(self) -> Tokens:
        """Windows [valid_sequences, context + 1], evenly spaced: the same for every run of one context."""
        starts = np.linspace(0, len(self.valid) - self.c.context - 1, self.c.valid_sequences).astype(np.int64)
        return self._windows(self.valid, starts)

    def _load(self, path: Path) -> Bytes:
        if not path.is_file():
            what = f"{path.name} is not in {path.parent}"
            raise ConfigError(what, "corpus", "build the corpus first: tool `corpus` of the server `train`")
        data = np.memmap(path, dtype=np.uint8, mode="r")
        if len(data) < self.c.context + 2:
            what = f"{path.name} has only {len(data)} bytes"
            raise ConfigError(what, "corpus", f"give at least {self.c.context + 2}")
        return data

    def _windows(self, data: Bytes, starts: Tokens) -> Tokens:
        windows: Tokens = data[starts[:, None] + np.arange(self.c.context + 1)].astype(np.int64)
        return windows
