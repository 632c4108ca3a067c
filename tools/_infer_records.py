"""What the tools of `infer` take and give: jobs with their results, exports, pass rates."""

from __future__ import annotations

from typing import Annotated, Literal

from agentlab.tools._jobs import Job, State
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

MOST_TEXT = 20_000
"""Characters of generated text in one answer; the whole is in result.json of the job's folder."""

Checkpoint = Annotated[
    str,
    Field(description="Id of a finished training job, its folder, or a folder in Hugging Face layout."),
]
Wait = Annotated[float, Field(ge=0, le=18, description="Seconds to wait for the result; after that poll `status`.")]
MODEL_KEYS = ("d_model", "n_layers", "n_heads", "d_ff", "batch", "length")
"""What a config of `measure` says, each a whole number."""
Shape = Annotated[
    dict[str, JsonValue],
    Field(
        description="The model: d_model (a multiple of 2 n_heads), n_layers, n_heads, d_ff; sequences at once: batch; "
        "tokens of the prompt: length. All six, whole numbers."
    ),
]
Sizes = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=16)]


class Place(BaseModel):
    """Where a checkpoint is computed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: int = Field(default=1, ge=1, le=1024)


class Source(BaseModel):
    """The model that answers: a checkpoint, computed at `place`, or an OpenAI-compatible server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Checkpoint | None = None
    place: Place = Place()
    base_url: str | None = Field(
        default=None, description="http://HOST:PORT/v1 on this machine, in place of a checkpoint."
    )
    model: str = Field(default="", description="What the server calls its model; `serve` tells it.")
    api: Literal["completions", "chat"] = "completions"
    key_variable: str = Field(
        default="", description="NAME of the variable that holds the server's key, ending in API_KEY."
    )


class Perplexity(BaseModel):
    """Loss on a text, in nats per byte: mean and standard error over windows."""

    nats_per_byte: float
    standard_error: float
    bits_per_byte: float
    perplexity_per_byte: float
    windows: int
    context: int
    bytes_scored: int
    tokens_scored: int
    byte_tokens: bool


class Generated(BaseModel):
    """Continuations of a prompt; numbers of tokens are null where a server does not tell."""

    texts: list[str]
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    cut: bool = Field(default=False, description="True: texts were cut; result.json has the whole.")


class Cell(BaseModel):
    """Medians and quartiles for one batch and length; seconds, and tokens per second of the whole batch."""

    batch: int
    length: int
    ttft_seconds: float
    ttft_seconds_quartiles: list[float]
    seconds_per_token: float
    seconds_per_token_quartiles: list[float]
    tokens_per_second: float
    tokens_per_second_quartiles: list[float]
    prompt_tokens: int | None = None
    new_tokens_counted: int | None = None
    counted_by_server: bool | None = Field(default=None, description="False: pieces of the stream were counted.")


class Machine(BaseModel):
    """Cores, and the mean number of waiting processes before and after: times under load are upper bounds."""

    cores: int
    load_before: float
    load_after: float


class Latency(BaseModel):
    """Time to the first token, time of each later one and throughput, for every pair of batch and length."""

    cells: list[Cell]
    new_tokens: int
    repeats: int
    warmup: int
    machine: Machine
    memory_bytes: dict[str, int] | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None


class Phases(BaseModel):
    """One number for the prefill of a batch and one for a decoding step of it."""

    prefill: float
    decode: float


class Measured(BaseModel):
    """Medians and quartiles for one model, batch and length, in milliseconds, and what the convention counts.

    The busy times are those of the processor, all threads together: with one thread what it would need on a core of its
    own, however many wait for it. They are null on CUDA.
    """

    ttft_ms: float
    ttft_ms_quartiles: list[float]
    tpot_ms: float
    tpot_ms_quartiles: list[float]
    ttft_busy_ms: float | None = None
    ttft_busy_ms_quartiles: list[float] | None = None
    tpot_busy_ms: float | None = None
    tpot_busy_ms_quartiles: list[float] | None = None
    tokens_per_second: float
    params: int
    matrix_params: int
    flops: Phases
    bytes: Phases
    memory_bytes: int
    convention: str
    new_tokens: int
    repeats: int
    warmup: int
    machine: Machine
    device: str
    dtype: str
    threads: int


class Served(BaseModel):
    """A server that answers while its job runs; `cancel` stops it."""

    base_url: str
    model: str


class InferJob(BaseModel):
    """Where a job stands, and its result once it is done; the one that belongs to its kind is set."""

    job: str
    kind: str
    folder: str
    state: State
    step: int = 0
    steps: int = 0
    message: str = ""
    perplexity: Perplexity | None = None
    generated: Generated | None = None
    latency: Latency | None = None
    measured: Measured | None = None
    served: Served | None = None


class InferJobs(BaseModel):
    """The jobs of this server in this jobs folder, newest first."""

    folder: str
    jobs: list[InferJob]


class Export(BaseModel):
    """A folder in Hugging Face layout, with the sha256 of every file in it."""

    folder: str
    architecture: str
    tensors: int
    params: int
    stored_params: int
    sha256: dict[str, str]


class Counts(BaseModel):
    """Samples drawn for one problem, and how many of them passed."""

    n: int = Field(ge=1)
    c: int = Field(ge=0)


class Rate(BaseModel):
    """pass@k over all problems, and its standard error over problems (null for a single one)."""

    k: int
    mean: float
    standard_error: float | None


class Rates(BaseModel):
    """One rate for each k asked for."""

    problems: int
    rates: list[Rate]


def view(job: Job) -> InferJob:
    """A job as these tools show it; raises ToolError where its result is damaged."""
    told = {k: job.seen[k] for k in ("step", "steps") if isinstance(job.seen.get(k), int)}
    parts: dict[str, object] = {}
    if job.result is not None and job.kind in RESULTS:
        parts[RESULTS[job.kind]] = job.result
    if job.kind == "serve" and job.going and job.seen.get("ready"):
        parts["served"] = {k: job.seen.get(k) for k in ("base_url", "model")}
    fields = {"job": job.id, "kind": job.kind, "folder": str(job.folder), "state": job.state, "message": job.message}
    try:
        seen = InferJob.model_validate({**told, **fields, **parts})
    except ValidationError as error:
        what = f"job {job.id}: its result.json is damaged in {error.error_count()} fields"
        raise ToolError(f"{what}; delete its folder {job.folder} and ask again") from error
    return seen if seen.generated is None else seen.model_copy(update={"generated": _cut(seen.generated)})


def listed(job: Job) -> InferJob:
    """The same for a list, which one damaged job must not break."""
    try:
        return view(job)
    except ToolError as error:
        return InferJob(job=job.id, kind=job.kind, folder=str(job.folder), state="failed", message=str(error))


RESULTS = {"perplexity": "perplexity", "generate": "generated", "latency": "latency", "measure": "measured"}
"""The field that holds the result of a job of each kind."""


def _cut(generated: Generated) -> Generated:
    left, texts = MOST_TEXT, []
    for text in generated.texts:
        texts.append(text[:left])
        left -= len(texts[-1])
    return generated if texts == generated.texts else generated.model_copy(update={"texts": texts, "cut": True})
