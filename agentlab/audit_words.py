"""What an audit is asked: its words on the command line, and the columns of the file that stand beside the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from agentlab.allocation import LEARNING_RATE, PARAMS
from agentlab.audit import Beside, Settings
from agentlab.catalog import find_data
from agentlab.csv_columns import Columns, read_columns
from agentlab.csv_header import Kind, read_header
from agentlab.errors import AgentlabError
from agentlab.table_rows import mask_of, mentioned
from agentlab.types import FloatArray, Reference, RunConfig, StrArray, Task
from agentlab.words import UsageError, data_first, read_words

OF_A_RUN = ("delta", "draws", "flops", "flops_per", "params", "tokens", "reference", "facts", "seed", "out")
"""The words that go with a run, which brings its data and its law."""


@dataclass(frozen=True, slots=True)
class AuditWords(RunConfig):
    """The words of `agentlab fit`, and what an audit asks further.

    `delta` is where Huber's loss bends, in the unit of the residuals; `flops` the compute of the decision and
    `flops_per` what a run costs; `params` and `tokens` name features; `reference` is a published formula; `facts` are
    what the file does not say, "tokenizer: GPT-2; schedule: cosine"; `out` is the folder of the card.
    """

    delta: float | None = None
    draws: int = 1000
    flops: float | None = None
    flops_per: str | None = None
    params: str | None = None
    tokens: str | None = None
    reference: str | None = None
    facts: str | None = None
    out: str = ""


def audit_words(words: Sequence[str], verb: str) -> AuditWords:
    """The words of `agentlab audit DATA ..` or `agentlab plan DATA ..`, the file first or as data=."""
    return read_words(data_first(words), AuditWords, f"agentlab {verb}")


def run_words(words: Sequence[str], verb: str, config: RunConfig) -> AuditWords:
    """The words that follow a run, over the settings `config` that it was made with.

    Raises:
        UsageError: a word that the run has answered already.
    """
    for word in words:
        key = word.partition("=")[0]
        if key not in OF_A_RUN:
            raise UsageError(f"agentlab {verb} RUN: {key}= does not go with a run; there is: {', '.join(OF_A_RUN)}")
    given = read_words(list(words), AuditWords, f"agentlab {verb}")
    kept = {f.name: getattr(config, f.name) for f in fields(RunConfig) if f.name not in OF_A_RUN}
    return replace(given, **kept)


def settings_of(words: AuditWords) -> Settings:
    """What the audit itself needs of the words. Raises UsageError for facts that are not NAME: VALUE."""
    told = {}
    for part in (words.facts or "").split(";"):
        name, colon, value = part.partition(":")
        if part.strip() and not (colon and name.strip() and value.strip()):
            raise UsageError(
                f'facts={words.facts!r}: {part.strip()!r} is not NAME: VALUE; write facts="tokenizer: GPT-2"'
            )
        if part.strip():
            told[name.strip()] = value.strip()
    return Settings(
        draws=words.draws,
        seed=words.seed,
        delta=words.delta,
        flops=words.flops,
        flops_per=words.flops_per,
        params=words.params,
        tokens=words.tokens,
        told=told,
        filters={k: v for k in ("where", "train", "holdout") if (v := getattr(words, k))},
    )


def with_reference(task: Task, formula: str | None) -> Task:
    """The task with another reference law, where one is given."""
    return task if formula is None else replace(task, reference=Reference(formula))


def beside(config: RunConfig, task: Task, n: int) -> Beside:
    """Columns of the file that an audit can use and the n rows do not hold, in the order of the rows; else nothing.

    A file that is gone or has changed since its run was made gives nothing: the card then says what it lacks.
    """
    path = (find_data(config.data) or Path(config.data)) if config.data else Path(task.train_file)
    try:
        _, header = read_header(path)
        read, index = _read(config, task, path, header)
    except (AgentlabError, OSError):
        return Beside()
    if len(index) != n:
        return Beside()
    labels = None if task.run is None else read.values[task.run][index].astype(np.str_)
    columns = {k: read.values[k][index] for k in read.values if k not in task.names and k != task.run}
    return Beside({k: v for k, v in columns.items() if _usable(k)}, labels)


def _usable(name: str) -> bool:
    return bool(PARAMS.fullmatch(name) or LEARNING_RATE.fullmatch(name) or name.lower() == "seed")


def _read(config: RunConfig, task: Task, path: Path, header: Sequence[str]) -> tuple[Columns, np.ndarray]:
    """The columns and the positions of the rows that are searched, as intake chooses them."""
    inside = {k: v for k in ("where", "train", "holdout") if (v := getattr(config, k)) and not Path(v).is_file()}
    inside = {} if config.task else inside
    kinds: dict[str, Kind] = {name: "either" for text in inside.values() for name in mentioned(text, header, path)}
    kinds |= {name: "number" for name in header if _usable(name)}
    if task.run:
        kinds[task.run] = "text"
    kinds.setdefault(task.names[0], "number")
    read = read_columns(path, kinds)
    keep = np.ones(len(read.lines), dtype=bool)
    for key, text in inside.items():
        mask = mask_of(read, key, text)
        keep &= ~mask if key == "holdout" else mask
    return read, np.flatnonzero(keep)


Column = FloatArray | StrArray
Given = Mapping[str, Column]
