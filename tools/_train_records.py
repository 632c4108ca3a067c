"""What the tools of `train` take and give: configs, estimates, jobs, segments, curves."""

from __future__ import annotations

from typing import Annotated

from agentlab.tools._jobs import NAME, Job, State
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

Config = Annotated[
    dict[str, JsonValue],
    Field(
        description="For backend torch. Model: d_model, n_layers, n_heads, d_ff, ffn (swiglu|gelu), positions "
        "(rope|learned), context. Mixture of experts: experts (0 = dense), top_k, split, shared, normalise_gates, "
        "balance_coef, z_coef. Optimisation: batch_sequences, lr, schedule (cosine|wsd), warmup_share, weight_decay, "
        "clip. Width: parametrisation (standard|mup: lr and weight_decay carry over from base_width, the d_model they "
        "were found at), base_width, base_head_width, base_d_ff. Length: flops or steps. Run: seed, segments, threads, "
        "device, dtype, expert_products (auto|buckets|groups), compile. Simulator: these, or any numbers "
        "that its law names. Other backends: the keys that `backends` lists. An unknown key is refused with the "
        "nearest known one.",
    ),
]
Backend = Annotated[
    str,
    Field(pattern=NAME, description="torch, simulator (planted truth, no training), or a template: see `backends`."),
]


class Truth(BaseModel):
    """The law that the simulator plants, and how runs scatter around it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    law: str = Field(description="Formula of the final loss, e.g. E + A/params**a + B/tokens**b.")
    params: dict[str, float] = Field(description="A value for every parameter; the other names are variables.")
    noise: float = Field(0.0, ge=0, le=1, description="Relative standard deviation of the final loss over seeds.")
    seconds: float = Field(0.0, ge=0, le=86_400, description="Time that a run takes.")


class Estimate(BaseModel):
    """What a config costs: counts, training FLOPs, bytes of memory, seconds at a stated speed; null is not known."""

    backend: str
    simulated: bool
    params: int | None = None
    params_active: int | None = None
    flops: float | None = None
    flops_per_token_train: int | None = None
    steps: int | None = None
    tokens: int | None = None
    activation_ratio: float | None = None
    granularity: float | None = None
    memory_bytes: int | None = None
    seconds: float | None = None
    convention: str


class Run(BaseModel):
    """Where a job stands; losses of backend torch are nats per byte, flops are training FLOPs done so far."""

    job: str
    folder: str
    state: State
    backend: str = "torch"
    simulated: bool = Field(default=False, description="True: no model was trained, the loss is of a planted law.")
    step: int = 0
    steps: int = 0
    flops: float = 0
    flops_spent: float | None = Field(default=None, description="By all replicas up to the last agreed segment.")
    loss: float | None = None
    valid_loss: float | None = None
    tokens_per_second: float | None = None
    digest: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict, description="Other numbers that the run reported last.")
    message: str = ""


class Runs(BaseModel):
    """The jobs of this jobs folder, newest first."""

    folder: str
    jobs: list[Run]


class Segment(BaseModel):
    """One finished segment: where it ended, the digest of the model's state there, and the newest losses."""

    segment: int
    step: int = 0
    flops: float = 0
    digest: str | None = None
    spikes: int = 0
    loss: float | None = None
    valid_loss: float | None = None
    state_digest: str | None = Field(default=None, description="Of the whole state that the replicas agreed on.")
    votes: list[int] = Field(default_factory=list, description="Replicas for each answer, the elected one first.")
    flags: dict[str, int] = Field(default_factory=dict, description="Runs that were discarded, by reason.")
    draws: int | None = Field(default=None, description="Runs of the segment: replicas and those done again.")
    flops_spent: float | None = Field(default=None, description="FLOPs of all runs up to here.")


class Segments(BaseModel):
    """The segments that a job has finished, in order."""

    job: str
    state: State
    simulated: bool
    asked: int = Field(description="How many segments the config asks for.")
    segments: list[Segment]


class Point(BaseModel):
    """Losses at one step."""

    step: int
    flops: float | None = None
    loss: float | None = None
    valid_loss: float | None = None


class Curve(BaseModel):
    """Losses by step, thinned evenly; the last point is always there."""

    job: str
    state: State
    simulated: bool
    points: list[Point]


class BackendAbout(BaseModel):
    """A backend: what it is and which keys its config may have."""

    name: str
    about: str
    required: list[str] = Field(default_factory=list, description="Keys that a config must have.")
    defaults: dict[str, JsonValue] = Field(default_factory=dict, description="Keys that it may have.")


class BackendList(BaseModel):
    """What `start` can hand a config to."""

    backends: list[BackendAbout]


class Corpus(BaseModel):
    """A corpus folder, ready to be named in a config once its state is done."""

    folder: str
    state: State
    train_bytes: int = 0
    valid_bytes: int = 0


def run_of(job: Job) -> Run:
    """What `train` says about a job.

    Raises:
        ToolError: a field of the log or the result has a value of another kind.
    """
    seen = {**job.seen, **(job.result or {})}
    values = {k: v for k, v in seen.items() if k in Run.model_fields and v is not None}
    values |= {
        "job": job.id,
        "folder": str(job.folder),
        "state": job.state,
        "message": job.message,
        "backend": job.config.get("backend", "torch"),
        "simulated": simulated(job),
        "metrics": {
            k: v
            for k, v in seen.items()
            if k not in Run.model_fields and isinstance(v, int | float) and not isinstance(v, bool)
        },
    }
    try:
        return Run.model_validate(values)
    except ValidationError as error:
        what = f"job {job.id}: its log is damaged in {error.error_count()} fields"
        raise ToolError(f"{what}; delete its folder and start it anew") from error


def simulated(job: Job) -> bool:
    """Whether the job's loss is of a planted law; told by what was asked, so that no log can hide it."""
    return bool(job.config.get("backend") == "simulator")
