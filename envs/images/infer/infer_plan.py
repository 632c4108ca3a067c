"""The requests that the inference programs answer, as checked records, without importing torch."""

import difflib
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from infer_lines import InferError


@dataclass(frozen=True)
class Place:
    """Where a checkpoint is computed, and where result.json goes."""

    checkpoint: str = ""  # a folder of the trainer, or one in Hugging Face layout
    device: str = "auto"
    dtype: str = "float32"
    threads: int = 1
    out: str = ""


@dataclass(frozen=True)
class Perplexity(Place):
    """Loss on evenly spaced windows of a file, the windows of the trainer's own validation."""

    data: str = ""
    context: int = 0  # bytes predicted in a window; 0 takes what the model was made for
    windows: int = 512


@dataclass(frozen=True)
class Generate(Place):
    """Continuations of one prompt, drawn with temperature (0 = the likeliest token each time)."""

    prompt: str = ""
    new_tokens: int = 64
    temperature: float = 1.0
    count: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Speed(Place):
    """Times of prefill and decode for every pair of batch and length, all pairs once in every repetition."""

    batches: tuple[int, ...] = (1,)
    lengths: tuple[int, ...] = (64,)  # tokens of the prompt
    new_tokens: int = 16
    warmup: int = 1
    repeats: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Cost:
    """What one batch costs on a dense model of our architecture with random weights; nothing is computed."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    batch: int
    length: int  # tokens of the prompt
    new_tokens: int = 16
    device: str = "auto"
    dtype: str = "float32"
    out: str = ""


@dataclass(frozen=True)
class Measure(Cost):
    """Times of prefill and decode of that batch on that model."""

    threads: int = 1
    warmup: int = 1
    repeats: int = 7
    seed: int = 0


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server; the key is read from the environment and never told."""

    base_url: str = ""
    model: str = ""
    api: str = "completions"  # or chat
    key_variable: str = ""
    request_seconds: float = 60.0
    out: str = ""


@dataclass(frozen=True)
class Ask(Endpoint):
    """Continuations of one prompt, by a server."""

    prompt: str = ""
    new_tokens: int = 64
    temperature: float = 1.0
    count: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Stream(Endpoint):
    """Times of streamed answers for every pair of batch (requests at once) and length."""

    batches: tuple[int, ...] = (1,)
    lengths: tuple[int, ...] = (64,)  # characters of the prompt
    new_tokens: int = 16
    warmup: int = 1
    repeats: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Serve(Place):
    """`transformers serve` on a checkpoint, on loopback, for a bounded time."""

    port: int = 0  # 0 takes a free one
    seconds: float = 3600.0
    start_seconds: float = 300.0


Request: TypeAlias = Perplexity | Generate | Speed | Cost | Measure | Ask | Stream | Serve

TASKS: dict[str, type[Request]] = {
    "perplexity": Perplexity,
    "generate": Generate,
    "speed": Speed,
    "cost": Cost,
    "measure": Measure,
    "ask": Ask,
    "stream": Stream,
    "serve": Serve,
}
_RANGES: dict[str, tuple[float, float]] = {
    "threads": (1, 1024), "context": (0, 1 << 20), "windows": (2, 1 << 20), "new_tokens": (1, 1 << 16),
    "temperature": (0, 100), "count": (1, 256), "seed": (0, 2**31 - 1), "warmup": (0, 100), "repeats": (1, 1000),
    "batches": (1, 4096), "lengths": (1, 1 << 20), "port": (0, 65535), "seconds": (1, 7 * 86400),
    "start_seconds": (1, 3600), "request_seconds": (0.1, 3600), "d_model": (4, 16384), "n_layers": (1, 256),
    "n_heads": (1, 256), "d_ff": (1, 1 << 20), "batch": (1, 4096), "length": (1, 1 << 20),
}  # fmt: skip
_CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "dtype": ("float32", "bfloat16", "float16"),
    "api": ("completions", "chat"),
}
_NEEDED = {
    "checkpoint": "write the path of a folder",
    "data": "write the path of a file",
    "prompt": "write at least one character",
    "base_url": "write http://HOST:PORT/v1",
    "model": "write the name that the server gives its model",
}
MOST_CELLS = 64


def parse(raw: object) -> Request:
    """A checked request from decoded JSON, told apart by its `task`; raises InferError."""
    if not isinstance(raw, dict):
        raise InferError(f"a request is a JSON object, not {type(raw).__name__}", "request", 'write {"task": ..}')
    task = raw.get("task")
    if task not in TASKS:
        raise InferError(f"{task!r} is not known", "task", "write one of " + ", ".join(TASKS))
    kind = TASKS[task]
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key == "task":
            continue
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, 1)
            hint = f"did you mean {near[0]}?" if near else "known keys: " + ", ".join(sorted(hints))
            raise InferError("unknown key", str(key), hint)
        values[key] = _typed(key, value, hints[key])
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in values]
    if missing:
        raise InferError("missing", missing[0], "write a whole number")
    request = kind(**values)
    _check(request)
    return request


def cells(request: Speed | Measure | Stream) -> list[tuple[int, int]]:
    """All pairs (batch, length) of a measurement."""
    if isinstance(request, Measure):
        return [(request.batch, request.length)]
    return [(batch, length) for batch in request.batches for length in request.lengths]


def _typed(key: str, value: object, kind: Any) -> object:  # noqa: ANN401
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not value:
            raise InferError(f"{value!r} is not a list of numbers", key, "write a list like [1, 8]")
        return tuple(_typed(key, item, get_args(kind)[0]) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InferError(f"{value!r} is not {kind.__name__}", key, f"write a value of type {kind.__name__}")
    return value


def _check(request: Request) -> None:
    for field in fields(request):
        value = getattr(request, field.name)
        if field.name in _RANGES:
            low, high = _RANGES[field.name]
            for number in value if isinstance(value, tuple) else (value,):
                if not low <= number <= high:  # also catches nan
                    what = f"{number!r} is out of range"
                    raise InferError(what, field.name, f"write a number from {low:g} to {high:g}")
        if field.name in _CHOICES and value not in _CHOICES[field.name]:
            what, choices = f"{value!r} is not known", ", ".join(_CHOICES[field.name])
            raise InferError(what, field.name, f"write one of {choices}")
        if field.name in _NEEDED and not value:
            raise InferError("missing", field.name, _NEEDED[field.name])
    if isinstance(request, Speed | Stream) and len(cells(request)) > MOST_CELLS:
        what = f"{len(cells(request))} pairs of batch and length"
        raise InferError(what, "batches", f"ask for at most {MOST_CELLS}")
    if isinstance(request, Cost) and request.d_model % (2 * request.n_heads):
        what = f"d_model {request.d_model} does not give {request.n_heads} heads of even width"
        raise InferError(what, "n_heads", "write a divisor of d_model / 2")
