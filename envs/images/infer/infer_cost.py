"""What one batch costs on a dense model of our architecture: parameters, FLOPs, bytes and memory, without torch."""

from infer_lines import InferError
from infer_plan import Cost

VOCAB = 256
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CONVENTION = (
    "matrix_params: all matrices with the head, without the embedding table; FLOPs: 2 a matrix parameter and token, "
    "the head for the last position of a prompt alone, attention scores and values over the positions a token sees; "
    "bytes: every weight once a forward pass, keys and values written once and, in decoding, read once; activations, "
    "normalisation, softmax and look-up are free; decode is one step of the whole batch, at the mean length"
)


def told(request: Cost) -> dict[str, object]:
    """Parameters, FLOPs and bytes of prefill and of one decoding step. Raises InferError where memory does not do."""
    n, d, batch, length = request.n_layers, request.d_model, request.batch, request.length
    size, head = BYTES[request.dtype], VOCAB * d
    blocks = n * (4 * d * d + 3 * d * request.d_ff)
    seen = length + (request.new_tokens + 1) / 2  # positions that a decoding step attends to, on average
    cached = 2 * n * d * batch * size  # bytes of keys and values of one position
    matrix_params = blocks + head
    found: dict[str, object] = {
        "params": matrix_params + head + (2 * n + 1) * d,
        "matrix_params": matrix_params,
        "flops": {
            "prefill": 2 * batch * (blocks * length + head) + 2 * n * d * batch * length * (length + 1),
            "decode": batch * (2 * matrix_params + 4 * n * d * seen),
        },
        "bytes": {
            "prefill": matrix_params * size + cached * length,
            "decode": matrix_params * size + cached * (seen + 1),
        },
        "memory_bytes": memory(request),
        "convention": CONVENTION,
    }
    _refuse_memory(request)
    return found


def memory(request: Cost) -> int:
    """Bytes at the peak, roughly: weights, the cache and its copy as it grows, activations of the prompt."""
    n, d, f = request.n_layers, request.d_model, request.d_ff
    weights = n * (4 * d * d + 3 * d * f) + 2 * VOCAB * d
    cache = 2 * n * d * request.batch * (request.length + request.new_tokens) + 2 * d * request.batch * request.length
    activations = request.batch * request.length * (8 * d + 3 * f)
    return BYTES[request.dtype] * (weights + cache + activations)


def _refuse_memory(request: Cost) -> None:
    """Raises InferError where this machine has too little free memory; a CUDA device tells that itself."""
    free = free_memory()
    if request.device != "cuda" and free is not None and memory(request) > free:
        what = f"about {memory(request) / 2**30:.3g} GiB are needed and {free / 2**30:.3g} GiB are free"
        raise InferError(what, "batch", "write a smaller batch, length or model")


def free_memory() -> int | None:
    """Bytes that a program can still take, None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes longer than the rest
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
