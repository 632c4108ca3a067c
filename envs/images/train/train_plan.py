"""The config of one training run, and its exact cost: parameters, FLOPs and steps, without importing torch.

FLOP convention, used in every line and table of this trainer:
- training FLOPs = 3 x forward FLOPs (backward counted as twice the forward);
- forward FLOPs per token = 2 x active matrix parameters, with router and output head, plus attention scores and values:
  2 * 2 * d_model * (context + 1) / 2 per layer, the mean number of positions a causal position sees;
- embedding look-up, normalisation, activation, softmax and optimizer are free; padding inside a batch of experts is not
  counted, for it is waste of the implementation and not of the model.
"""

import difflib
from dataclasses import dataclass, fields
from typing import get_type_hints


class ConfigError(ValueError):
    """A config that cannot be run: what is wrong, in which key, and what to write instead."""

    def __init__(self, what: str, where: str, instead: str) -> None:
        super().__init__(f"{where}: {what}; {instead}")
        self.what, self.where, self.instead = what, where, instead


CONVENTION = (
    "training FLOPs = 3 x forward; forward per token = 2 x active matrix parameters (router and head included) "
    "+ attention scores and values over the positions seen; embedding look-up free; padding of experts not counted"
)


@dataclass(frozen=True)
class Config:
    """One training run. `corpus` is a folder with train.bin and valid.bin; `out` is where checkpoints go."""

    corpus: str = ""
    out: str = ""
    # model
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 2
    d_ff: int = 256  # width of the dense FFN, or of one expert before it is split
    ffn: str = "swiglu"
    positions: str = "rope"
    context: int = 128
    # mixture of experts; experts = 0 means dense
    experts: int = 0
    top_k: int = 1
    split: int = 1  # experts*split experts of width d_ff/split, top_k*split of them active
    shared: int = 0  # always active experts of width d_ff/split
    normalise_gates: bool = True
    gate_scale: float = 0.0  # 0 means: number of active experts if normalised, else 1
    balance_coef: float = 0.01
    z_coef: float = 0.001
    # optimisation
    batch_sequences: int = 8
    lr: float = 0.003
    final_lr_ratio: float = 0.0
    schedule: str = "cosine"
    warmup_share: float = 0.05
    decay_share: float = 0.3  # of the steps, for schedule = wsd
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    # width; see train_mup.py
    parametrisation: str = "standard"
    base_width: int = 0  # d_model of the base model, where both parametrisations agree; mup alone has one
    base_head_width: int = 0  # width of its heads
    base_d_ff: int = 0  # its d_ff; 0 means in proportion to d_model
    # length: exactly one of the two is above 0
    flops: float = 0.0
    steps: int = 0
    # run
    seed: int = 0
    segments: int = 1
    report_every: int = 50
    valid_sequences: int = 512
    valid_every_segment: bool = False
    device: str = "auto"
    dtype: str = "float32"
    threads: int = 1
    compile: bool = False  # torch.compile of the model
    expert_products: str = "auto"  # buckets, groups (where widths allow), or auto: groups on CUDA in bfloat16
    save_model: bool = True
    spike: float = 1.5  # a loss this much (nats) above its running mean is a red flag


@dataclass(frozen=True)
class Plan:
    """What a config costs, before anything is run."""

    params: int  # all trained parameters
    params_active: int  # used for one token, embedding included
    matmul_params_active: int  # matrices that one token is multiplied with: the count behind the FLOPs
    flops_per_token_forward: int
    flops_per_token_train: int
    router_flops_per_token_train: int
    experts: int
    active_experts: int
    d_expert: int
    activation_ratio: float  # active / total routed experts, 1 when dense
    granularity: float  # 2 d_model / d_expert
    steps: int
    sequences: int
    tokens: int
    flops: int
    memory_bytes: int  # parameters, gradients, two moments, rough activations


def parse(raw: object) -> Config:
    """A checked Config from decoded JSON; raises ConfigError."""
    if not isinstance(raw, dict):
        what = f"a config is a JSON object, not {type(raw).__name__}"
        raise ConfigError(what, "config", 'write {"d_model": 64, ...}')
    kinds = get_type_hints(Config)
    values: dict[str, object] = {}
    for key, value in raw.items():
        if key not in kinds:
            near = difflib.get_close_matches(str(key), kinds, 1)
            hint = f"did you mean {near[0]}?" if near else "known keys: " + ", ".join(sorted(kinds))
            raise ConfigError("unknown key", str(key), hint)
        values[key] = _typed(key, value, kinds[key])
    config = Config(**values)  # type: ignore[arg-type]
    _check(config)
    return config


MAY_DIFFER = (
    "seed", "lr", "final_lr_ratio", "schedule", "warmup_share", "decay_share", "weight_decay", "beta1", "beta2", "clip",
    "balance_coef", "z_coef", "spike",
)  # fmt: skip
"""Keys in which runs that are packed on one device may differ: all that leaves shapes and steps as they are."""


def parse_runs(raw: dict[str, object]) -> list[Config]:
    """The configs of packed runs: `runs` lists what each has of its own, and run i leaves its files in out/i."""
    shared, own = {k: v for k, v in raw.items() if k != "runs"}, raw["runs"]
    if not isinstance(own, list) or len(own) < 2 or not all(isinstance(run, dict) for run in own):
        raise ConfigError("not a list of two or more runs", "runs", 'write [{"seed": 0}, {"seed": 1}]')
    first = parse(shared)
    found = []
    for i, run in enumerate(own):
        for key in run:
            if key not in MAY_DIFFER:
                what = "packed runs may differ in " + ", ".join(MAY_DIFFER)
                raise ConfigError(what, f"runs[{i}].{key}", "write it once, beside runs")
        found.append(parse({**shared, **run, "out": f"{first.out}/{i}"}))
    return found


def _typed(key: str, value: object, kind: type) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{value!r} is not {kind.__name__}", key, f"write a value like {getattr(Config, key)!r}")
    return value


_RANGES: dict[str, tuple[float, float]] = {
    "d_model": (4, 16384), "n_layers": (1, 256), "n_heads": (1, 256), "d_ff": (1, 1 << 20),
    "context": (2, 1 << 17),
    "experts": (0, 4096), "top_k": (1, 4096), "split": (1, 256), "shared": (0, 64), "gate_scale": (0, 1e4),
    "balance_coef": (0, 100), "z_coef": (0, 100), "batch_sequences": (1, 1 << 20), "lr": (0, 10),
    "final_lr_ratio": (0, 1), "warmup_share": (0, 1), "decay_share": (0, 1), "weight_decay": (0, 10),
    "beta1": (0, 0.9999), "beta2": (0, 0.99999), "clip": (0, 1e9), "flops": (0, 1e24),
    "steps": (0, 10**9), "seed": (0, 2**31 - 1), "segments": (1, 10**6), "report_every": (1, 10**9),
    "valid_sequences": (1, 1 << 20), "threads": (1, 1024),
    "spike": (0, 1e9), "base_width": (0, 16384), "base_head_width": (0, 16384), "base_d_ff": (0, 1 << 20),
}  # fmt: skip
_CHOICES: dict[str, tuple[str, ...]] = {
    "ffn": ("swiglu", "gelu"),
    "positions": ("rope", "learned"),
    "schedule": ("cosine", "wsd"),
    "device": ("auto", "cpu", "cuda"),
    "dtype": ("float32", "bfloat16"),
    "parametrisation": ("standard", "mup"),
    "expert_products": ("auto", "buckets", "groups"),
}


def _check(c: Config) -> None:
    for key, (low, high) in _RANGES.items():
        value = getattr(c, key)
        if not low <= value <= high:  # also catches nan
            raise ConfigError(f"{value!r} is out of range", key, f"write a number from {low:g} to {high:g}")
    for key, choices in _CHOICES.items():
        if getattr(c, key) not in choices:
            raise ConfigError(f"{getattr(c, key)!r} is not known", key, "write one of " + ", ".join(choices))
    for key in ("corpus", "out"):
        if not getattr(c, key):
            raise ConfigError("missing", key, "write the path of a folder")
    _check_shape(c)
    _check_base(c)
    if (c.flops > 0) == (c.steps > 0):
        raise ConfigError("the length must be given once", "flops", "write either flops or steps above 0")
    if plan(c).sequences < 1:
        raise ConfigError("the budget is less than one sequence", "flops", f"write at least {sequence_flops(c):.3g}")


def _check_shape(c: Config) -> None:
    if c.d_model % (2 * c.n_heads):
        what = f"d_model {c.d_model} does not give {c.n_heads} heads of even width"
        raise ConfigError(what, "n_heads", "write a divisor of d_model / 2")
    if c.experts == 0:
        if c.split != 1 or c.top_k != 1 or c.shared != 0:
            raise ConfigError("a dense model has no experts to split or share", "experts", "write experts above 0")
        return
    if c.top_k > c.experts:
        raise ConfigError(f"top_k {c.top_k} is above experts {c.experts}", "top_k", f"write at most {c.experts}")
    if c.d_ff % c.split:
        raise ConfigError(f"d_ff {c.d_ff} is not a multiple of split {c.split}", "split", "write a divisor of d_ff")
    if c.normalise_gates and c.top_k * c.split == 1:
        what = "the one normalised gate is always 1, so the loss would never reach the router"
        raise ConfigError(what, "normalise_gates", "write false")


def _check_base(c: Config) -> None:
    for key in ("base_width", "base_head_width", "base_d_ff"):
        if getattr(c, key) and c.parametrisation == "standard":
            raise ConfigError(
                "the standard parametrisation has no base", key, "write parametrisation mup, or leave it away"
            )
    if c.parametrisation == "standard":
        return
    if not c.base_width:
        raise ConfigError("missing under mup", "base_width", "write the d_model for which lr was found")
    if not c.base_head_width:
        write = f"write {c.d_model // c.n_heads} if heads keep their width and grow in number, else that of the base"
        raise ConfigError("missing under mup", "base_head_width", write)


def sequence_flops(c: Config) -> int:
    """Training FLOPs of one sequence of `context` tokens."""
    return 3 * forward_flops(c) * c.context


def matrices(c: Config, experts: int) -> int:
    """Parameters of all matrices, with `experts` routed experts in each layer (1 unsplit FFN when dense)."""
    per_width = (3 if c.ffn == "swiglu" else 2) * c.d_model
    ffn = per_width * (c.d_ff // c.split) * (experts + c.shared)
    return c.n_layers * (4 * c.d_model**2 + ffn + router_params(c)) + 256 * c.d_model


def router_params(c: Config) -> int:
    """Router parameters of one layer."""
    return c.d_model * c.experts * c.split


def forward_flops(c: Config) -> int:
    """Forward FLOPs per token, by the convention of this module; attention is exactly its mean over positions."""
    attention = c.n_layers * 2 * c.d_model * (c.context + 1)
    return 2 * matrices(c, max(1, c.top_k * c.split)) + attention


def plan(c: Config) -> Plan:
    """Cost and length of the run: whole sequences up to the budget, never above it, the last batch cut short."""
    total, active = max(1, c.experts * c.split), c.top_k * c.split
    forward = forward_flops(c)
    sequences = int(c.flops // sequence_flops(c)) if c.flops else c.steps * c.batch_sequences
    vectors = (2 * c.n_layers + 1) * c.d_model
    tables = 256 * c.d_model + (c.context * c.d_model if c.positions == "learned" else 0)
    params = matrices(c, total) + vectors + tables
    d_expert = c.d_ff // c.split
    batch = c.batch_sequences * c.context
    widths = 14 * c.d_model + 4 * d_expert * (active + c.shared) * (2 if c.experts else 1)
    return Plan(
        params=params,
        params_active=matrices(c, active) + vectors + tables,
        matmul_params_active=matrices(c, active),
        flops_per_token_forward=forward,
        flops_per_token_train=3 * forward,
        router_flops_per_token_train=6 * c.n_layers * router_params(c),
        experts=total if c.experts else 0,
        active_experts=active if c.experts else 0,
        d_expert=d_expert,
        activation_ratio=active / total,
        granularity=2 * c.d_model / d_expert,
        steps=-(-sequences // c.batch_sequences),
        sequences=sequences,
        tokens=sequences * c.context,
        flops=sequences * sequence_flops(c),
        memory_bytes=16 * params + 4 * batch * (c.n_layers * widths + 3 * 256),
    )


def known_keys() -> list[str]:
    """Names of all config keys, in order."""
    return [f.name for f in fields(Config)]
