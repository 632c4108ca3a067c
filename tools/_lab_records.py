"""What the tools of `lab` take and give."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Detail = Annotated[
    Literal["brief", "full"], Field(description="brief: what a decision needs; full: all figures, still bounded.")
]
RunId = Annotated[str, Field(description="Id of a run, as discover_start gave it.")]
Formula = Annotated[
    str,
    Field(
        max_length=2_000,
        description='E.g. "E + A/N**a + B/D**b": names that are columns are variables, all others are parameters.',
    ),
]
Number = float | str | None
"""A figure; "inf", "-inf" and "nan" for what JSON has no word, None for what is not known."""


def slim(schema: dict[str, Any]) -> None:
    """Leave out of a schema what says nothing: it stands before the eyes of every client, once a tool."""
    for told in (schema, *schema.get("properties", {}).values()):
        told.pop("title", None)
        if told.get("default") in ("", 0, None):
            told.pop("default", None)


class Table(BaseModel):
    """Training runs, a row each: a task that ships, or a table (data or csv) with its target and features."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=slim)

    task: str = Field(default="", description="Name of a task.")
    data: str = Field(default="", description="Path of a CSV file below the server's root.")
    csv: str = Field(default="", description="The rows themselves: a header line, then a line a run; 1 MB.")
    target: str = Field(default="", description="Column to explain; several with commas.")
    features: str = Field(default="", description="Columns that explain it: N,D")
    group: str = Field(default="", description="Column whose values get parameters of their own.")
    weights: str = ""
    run: str = Field(default="", description="Column that numbers the training runs.")
    scale: str = Field(default="", description="What orders the runs: 6*N*D")
    where: str = Field(default="", description="Rows to keep: N > 1e8 and D < 1e12")
    train: str = Field(default="", description="Rows to fit.")
    residual: Literal["", "log", "plain"] = ""
    robust: Literal["", "none", "huber", "soft_l1"] = ""
    max_params: int = Field(default=0, ge=0, le=24)
    monotone: str = Field(default="", description="N:-,D:- where the target falls with both.")
    box: str = Field(default="", description="Where the law must behave: N:1e6..1e13,D:1e9..1e15")


class Answer(BaseModel):
    """An answer that may take longer than a call may: `state` running means that the same call again gets it."""

    state: Literal["done", "running"] = "done"
    note: str = ""


class TaskHead(BaseModel):
    """A task at a glance."""

    name: str
    title: str
    rows_here: bool


class TaskList(BaseModel):
    """The tasks that ship, and where tables of your own may lie."""

    tasks: list[TaskHead]
    tables_below: list[str] = Field(description="Folders whose CSV files may be named in data=.")
    runs: list[str] = Field(description="Ids of the newest runs.")


class FeatureAbout(BaseModel):
    """One feature of a task."""

    name: str
    unit: str = ""
    description: str = ""
    monotone: str = ""
    box: tuple[float, float] | None = None


class TaskAbout(BaseModel):
    """What is to be explained and by what; `reference` is a published law."""

    name: str
    title: str
    rows_here: bool
    features: list[FeatureAbout] = Field(default_factory=list)
    targets: list[str] = Field(default_factory=list)
    group: str | None = None
    scale: str | None = None
    residual: str = ""
    max_params: int = 0
    reference: str = ""
    source: str = ""
    note: str = ""


Params = dict[str, dict[str, dict[str, float]]]
Intervals = dict[str, dict[str, dict[str, tuple[Number, Number]]]]


class GroupFitted(BaseModel):
    """How well one (group, target) is fitted; `condition` above 1e5 means that single parameters mean little."""

    group: str
    target: str
    n: int
    residual_scale: Number
    converged: Number = Field(description="share of the starts that end at the best optimum")
    condition: Number


class Fit(Answer):
    """A law fitted to every row: parameters by group, target and name, with 90% intervals."""

    formula: str = ""
    latex: str = ""
    key: str = ""
    n_params: int = 0
    params: Params = Field(default_factory=dict)
    intervals: Intervals = Field(default_factory=dict)
    fits: list[GroupFitted] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class Audit(Answer):
    """What a law is worth: the verdict first. The whole card is the resource `card`."""

    formula: str = ""
    verdict: list[str] = Field(default_factory=list)
    parameters: list[dict[str, Any]] = Field(default_factory=list)
    decision: dict[str, Any] | None = None
    question: str = ""
    missing: list[str] = Field(default_factory=list, description="Facts that nobody says, and a reader must know.")
    card: str = Field(default="", description="URI of the whole card.")
    plots: list[str] = Field(default_factory=list, description="URIs of its plots.")
    full: dict[str, Any] = Field(default_factory=dict, description="With detail=full: the card's tables.")


class Predictions(Answer):
    """Values at points, in their order; `by` is "law", or the baseline that beats it."""

    by: str = ""
    formula: str = ""
    n: int = 0
    columns: dict[str, list[float | str]] = Field(default_factory=dict)


class Allocation(Answer):
    """The best configuration at a compute with 90% intervals; `regret` is (median, 95th percentile) in % of compute."""

    formula: str = ""
    group: str = ""
    target: str = ""
    question: str = ""
    compute: float = 0.0
    cost: str | None = None
    config: dict[str, float] = Field(default_factory=dict)
    intervals: dict[str, tuple[Number, Number]] = Field(default_factory=dict)
    ratio: Number = None
    ratio90: tuple[Number, Number] | None = None
    value: Number = None
    value90: tuple[Number, Number] | None = None
    regret: tuple[Number, Number] | None = None
    edge: list[str] = Field(default_factory=list, description="What ends at the limit of its range.")
    beyond: Number = Field(default=None, description="How many times the largest run's compute this is.")


class Comparison(Answer):
    """Laws on the same hidden rows, the best first, with a verdict in words."""

    verdict: str = ""
    laws: list[dict[str, Any]] = Field(default_factory=list)
    differences: list[dict[str, Any]] = Field(default_factory=list)


class Estimate(Answer):
    """What a run would do and cost; nothing was started."""

    task: str = ""
    rows: int = 0
    holdout: str = ""
    groups: int = 0
    candidates: int = 0
    choices: dict[str, Any] = Field(default_factory=dict)
    models: list[dict[str, Any]] = Field(default_factory=list, description="Calls, tokens and USD of models, if any.")
    seconds: float | None = Field(default=None, description="By the pace of earlier runs here; null: no run to go by.")


class Started(Answer):
    """A run that goes on by itself; follow it with run_get."""

    run: str = ""
    new: bool = Field(default=False, description="False: the key had started this run before.")
    idempotency_key: str = ""
    notes: list[str] = Field(default_factory=list)


class Best(BaseModel):
    """The best law so far, by inner extrapolation alone."""

    entry: int
    formula: str
    objective: Number
    dev_are: Number = Field(description="mean relative error on the hidden top quarter of the rows by scale")
    dev_r2: Number
    n_params: int


class RunState(BaseModel):
    """Where a run stands; `cursor` goes into the next call, `more` says that it has events already."""

    run: str
    state: Literal["starting", "running", "stopping", "done", "stopped", "failed", "open"]
    evaluated: int = 0
    rejected: int = 0
    limit: int | None = None
    best: Best | None = None
    law: dict[str, Any] | None = None
    score: dict[str, Any] | None = Field(default=None, description="Scores alone: no sealed row is ever told.")
    verdict: str = ""
    cost: dict[str, Any] = Field(default_factory=dict)
    simulated: bool = Field(default=False, description="True: its training runs were simulated, nothing was trained.")
    events: list[dict[str, Any]] = Field(default_factory=list)
    cursor: int = 0
    more: bool = False
    note: str = ""
    job: dict[str, Any] | None = Field(default=None, description="For a training job: its step, loss and FLOPs.")


class Stopped(BaseModel):
    """What was told to stop, and what it was doing."""

    run: str
    was: str
    note: str


class NextRun(BaseModel):
    """A run to make next: its config, its FLOPs, and what share of what is open about the decision it settles."""

    columns: dict[str, float]
    config: dict[str, JsonValue]
    flops: float
    closes: Number
    between_laws: Number
    tool: str


class Proposal(Answer):
    """The decision at a compute and the runs that would settle it; empty where the task cannot make runs."""

    question: str = ""
    config: dict[str, float] = Field(default_factory=dict)
    regret: tuple[Number, Number] | None = None
    next_runs: list[NextRun] = Field(default_factory=list)
    submit: dict[str, JsonValue] = Field(
        default_factory=dict, description="What train_submit takes for these runs beside config and max_flops."
    )
    flops: float = Field(default=0.0, description="Of the next runs together.")


class Submitted(BaseModel):
    """A training job; follow it with run_get(run=job)."""

    job: str
    state: str
    flops: float = Field(description="What it will cost, as counted before it was started.")
    max_flops: float
    simulated: bool = Field(description="True: no model is trained, the loss is of a planted law.")
    note: str = ""


class Board(Answer):
    """Rows of the leaderboard, the best first."""

    rows: list[dict[str, Any]] = Field(default_factory=list)
    total: int = 0
    cursor: int | None = Field(default=None, description="Ask on with this; null: these were the last.")
