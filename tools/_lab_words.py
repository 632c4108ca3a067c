"""What callers ask as the words of the command line: each stays one word, whatever stands in it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from agentlab.tools._lab_places import expression, run_folder, runs_folder, table, task_name
from agentlab.tools._lab_records import Table, slim
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, ConfigDict, Field

MODEL = "AGENTLAB_MCP_MODEL"
"""Variable with the models that runs may ask, as model= takes them; who starts the server sets it, no caller can."""
BASE_URL = "AGENTLAB_MCP_BASE_URL"
"""Variable with the address of their server, as base_url= takes it."""


class Search(BaseModel):
    """How to search: everything has a default that asks no model and trains nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=slim)

    candidates: int | None = Field(default=None, ge=1, le=1_000_000, description="Formulas to try; 1000 unless told.")
    max_minutes: float | None = Field(default=None, gt=0, le=10_080, description="Stop by the clock; null: never.")
    max_usd: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="What models may cost; needed for evolve and code."
    )
    max_tokens: int | None = Field(default=None, ge=1, description="Tokens that models may take, in place of max_usd.")
    max_flops: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="FLOPs of training runs; needed for experiments."
    )
    proposer: Literal["mutate", "evolve", "code"] = Field(
        default="mutate",
        description="mutate asks no model; evolve and code ask those that the server was started with.",
    )
    experiments: int = Field(default=0, ge=0, le=10_000, description="Training runs to make, for tasks that can.")
    holdout: str | None = Field(
        default=None,
        description='Rows to seal, an expression: "N*D > 1e21". The law is scored on them once, at the end.',
    )
    seed: int = Field(default=0, ge=0)
    workers: int | None = Field(default=None, ge=1, le=256, description="Fits side by side; the result is the same.")


def table_words(rows: Table) -> list[str]:
    """The words that name a table and its columns. Raises ToolError as _lab_places does."""
    given: dict[str, Any] = {k: v for k, v in rows.model_dump(exclude={"data", "csv"}).items() if v}
    for key in ("where", "train", "scale"):
        expression(key, given.get(key))
    if rows.task:
        if rows.data or rows.csv:
            raise ToolError("rows: a task brings its own rows; leave data and csv away, or the task")
        given["task"] = task_name(rows.task)
    else:
        if not (rows.target and rows.features):
            raise ToolError('rows: say what the columns are, e.g. target="loss", features="N,D"')
        given["data"] = str(table(rows.data, rows.csv))
    return words(given)


def words(given: Mapping[str, Any]) -> list[str]:
    """`key=value` for every value that is not None."""
    return [f"{k}={_text(v)}" for k, v in given.items() if v is not None]


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def search_words(rows: Table, how: Search) -> list[str]:
    """The words of `agentlab discover`. Raises ToolError for spending that has no limit."""
    expression("holdout", how.holdout)
    asks = how.proposer != "mutate"
    model = os.environ.get(MODEL)
    if asks and not model:
        raise ToolError(f"proposer={how.proposer}: this server has no model; start it with agentlab mcp --model NAME")
    if asks and how.max_usd is None and how.max_tokens is None:
        raise ToolError(
            f"proposer={how.proposer}: say what it may spend: max_usd=, or max_tokens= where models are free"
        )
    if how.experiments and how.max_flops is None:
        raise ToolError("experiments: say what training may take: max_flops=")
    budget = {
        "candidates": how.candidates,
        "seconds": None if how.max_minutes is None else 60 * how.max_minutes,
        "usd": how.max_usd if asks else None,
        "tokens": how.max_tokens if asks else None,
        "flops": how.max_flops if how.experiments else None,
    }
    told: dict[str, Any] = {"proposer": how.proposer, "holdout": how.holdout, "seed": how.seed, "workers": how.workers}
    told |= {"experiments": how.experiments} if how.experiments else {}
    told |= {"model": model, "base_url": os.environ.get(BASE_URL)} if asks else {}
    told |= {f"budget.{k}": v for k, v in budget.items()} | {"approve.otherwise": "no", "out": str(runs_folder())}
    return [*table_words(rows), *words(told)]


def new_key() -> str:
    """A key for a start that came without one."""
    return f"lab-{uuid.uuid4().hex}"


class Work(BaseModel):
    """What `_lab_work` is asked; `stamp` changes with the rows, so that an old answer is not given for new ones."""

    verb: str
    words: list[str] = Field(default_factory=list)
    folder: str = ""
    laws: list[str] = Field(default_factory=list)
    out: str = ""
    points: dict[str, list[float | str]] | None = None
    table: str = ""


def work(verb: str, run: str | None, rows: Table | None, laws: list[str], further: Mapping[str, Any]) -> Work:
    """A request about a run or a table. Raises ToolError unless exactly one is given."""
    if (run is None) == (rows is None):
        raise ToolError("say what it is about: run= with the id of a finished run, or rows= with a table or a task")
    told = words(further)
    if run is not None:
        return Work(verb=verb, words=told, folder=str(run_folder(run)), laws=laws)
    if not laws and rows is not None and not rows.task:
        raise ToolError('law: no formula; write one, such as "E + A/N**a"')
    return Work(verb=verb, words=[*table_words(rows or Table()), *told], laws=laws)


def stamp(asked: Work) -> list[Any]:
    """Size and time of the files that an answer depends on."""
    named = [Path(w.partition("=")[2]) for w in asked.words if w.startswith("data=")]
    named += [Path(asked.folder) / "trace.jsonl"] if asked.folder else []
    named += [Path(asked.table)] if asked.table else []
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in named if p.is_file()]
