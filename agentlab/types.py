"""The frozen records that pass between the parts of agentlab: tasks, rows, proposals, outcomes, entries, scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentlab.errors import AgentlabError, BackendError, EvaluationError

__all__ = [
    "ALL",
    "DEFAULT_CANDIDATES",
    "AgentlabError",
    "Approve",
    "BackendError",
    "BoolArray",
    "Budget",
    "Entry",
    "EvaluationError",
    "FloatArray",
    "GroupParams",
    "Head",
    "IntArray",
    "Outcome",
    "Proposal",
    "Reference",
    "Rows",
    "RunConfig",
    "Score",
    "Source",
    "StrArray",
    "Task",
    "Variable",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
StrArray = NDArray[np.str_]

GroupParams = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Parameters by group, target and name."""

ALL = "all"
"""The name of the only group of a data set that has no group column."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One input column of a law.

    `box` is the range (lo, hi) in which laws must behave, in the column's unit; None takes it from the data.
    `monotone` is "+" or "-" where the target is known to rise or fall with the variable, "" where it is not.
    `log` says that the variable spans orders of magnitude.
    """

    name: str
    unit: str = ""
    description: str = ""
    box: tuple[float, float] | None = None
    monotone: Literal["", "+", "-"] = ""
    log: bool = True


@dataclass(frozen=True, slots=True)
class Reference:
    """A published law: its formula, its published constants (empty when none are given) and where it stands."""

    formula: str
    params: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a task's rows are on the hub: a data set, a configuration of it, and what its rows must be.

    `train` and `test` count rows, 0 where the count is not known; `digest` is that of the training rows (hub.digest),
    "" where it is not known.
    """

    dataset: str
    config: str
    train: int = 0
    test: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """What can be said of a task without its rows; `columns` are those of its files, `file` its training rows.

    `here` says whether the rows are at hand, `source` where they can be fetched from.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    file: str
    here: bool
    source: Source | None


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be explained: features -> targets, per group, ordered by a scale; no rows and no code.

    `scale` is an expression over columns (usually training FLOPs) that orders the hold-outs, or None.
    `residual` is "log" (errors are relative; target > 0) or "plain"; `robust` is the loss of the fits: published runs
    hold outliers, and Huber's loss gives up 5% of efficiency where there are none.
    `bounds` holds (lo, hi) for parameters by name, where a formula uses the name; `limits` the (lo, hi) that a target
    can take at all, such as a score between -1 and 0.
    `max_params` counts parameters per (group, target).
    """

    name: str
    features: tuple[Variable, ...]
    targets: tuple[str, ...]
    title: str = ""
    group: str | None = None
    weights: str | None = None
    run: str | None = None
    scale: str | None = None
    residual: Literal["log", "plain"] = "plain"
    robust: Literal["none", "huber", "soft_l1"] = "huber"
    max_params: int = 6
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    reference: Reference | None = None
    train_file: str = ""
    holdout_file: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features, in order."""
        return tuple(v.name for v in self.features)


@dataclass(frozen=True)
class Rows:
    """n rows of numbers, checked at intake: every value is finite.

    `columns` holds one (n,) array a feature, `targets` one (n,) array a target; `group`, `weight`, `scale` and `run`
    are (n,). `scale` is None where the task has none. `run` numbers the training run a row came from: rows of one run
    are not independent and are resampled together.
    """

    columns: Mapping[str, FloatArray]
    targets: Mapping[str, FloatArray]
    group: StrArray
    weight: FloatArray
    scale: FloatArray | None
    run: IntArray

    def __len__(self) -> int:
        return len(self.group)

    def take(self, index: IntArray | BoolArray) -> Rows:
        """The rows at `index` (positions or a mask), in that order."""
        return Rows(
            {k: v[index] for k, v in self.columns.items()},
            {k: v[index] for k, v in self.targets.items()},
            self.group[index],
            self.weight[index],
            None if self.scale is None else self.scale[index],
            self.run[index],
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """The distinct group labels, sorted."""
        return tuple(str(g) for g in np.unique(self.group))


@dataclass(frozen=True, slots=True)
class Score:
    """Pooled errors of predictions: R2 = 1 - NMSE is not clipped; ARE = mean |prediction - y| / |y|."""

    r2: float
    nmse: float
    nmae: float
    mae: float
    are: float
    n: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A tool call that a proposer asks for: ask number `index`, e.g. tool "fit.laws" with arguments {"formula": ...}.

    `operator` and `parents` (entry ids) say how it came about, `island` where it lives; `key` is the canonical key of
    the formula. `call` numbers the model's reply that it stands in, if any. For a law that is a program, `formula` is
    its text.
    """

    index: int
    tool: str
    formula: str
    key: str
    proposer: str
    operator: str
    parents: tuple[int, ...] = ()
    island: int = 0
    call: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tool returned for one proposal.

    `status` is "ok" or "rejected"; `reason` is a short fixed phrase for a rejected one. `objective` is what selection
    minimises (nats; see selection.py), `mdl` the description length (nats), `dev` the inner extrapolation.
    `complexity` counts nodes. `cuts` are the errors of the nested hold-outs, `hints` blocks that the residuals ask for.
    """

    status: Literal["ok", "rejected"]
    reason: str = ""
    objective: float = float("inf")
    mdl: float = float("inf")
    n_params: int = 0
    complexity: int = 0
    structure: str = ""
    dev: Score | None = None
    cuts: tuple[float, ...] = ()
    violations: tuple[str, ...] = ()
    params: GroupParams = field(default_factory=dict)
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a trace: a proposal and its outcome. `id` equals the proposal's ask index."""

    id: int
    proposal: Proposal
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run may spend; None is no limit. A run without any limit stops after DEFAULT_CANDIDATES candidates."""

    candidates: int | None = None
    seconds: float | None = None
    usd: float | None = None
    tokens: int | None = None
    flops: float | None = None


@dataclass(frozen=True, slots=True)
class Approve:
    """What one call to a model may cost at worst, and one batch of runs in FLOPs, before it is approved; None: any.

    `otherwise` says who approves more: "ask" a person, or "no" for nobody.
    """

    usd: float | None = None
    tokens: int | None = None
    flops: float | None = None
    otherwise: Literal["ask", "no"] = "ask"


DEFAULT_CANDIDATES = 1000


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The settings of one run, as `agentlab discover key=value ...` gives them (DESIGN section 4)."""

    task: str | None = None
    data: str | None = None
    target: str | None = None
    features: str | None = None
    group: str | None = None
    weights: str | None = None
    run: str | None = None
    scale: str | None = None
    residual: Literal["log", "plain"] | None = None
    robust: Literal["none", "huber", "soft_l1"] | None = None
    where: str | None = None
    train: str | None = None
    holdout: str | None = None
    max_params: int | None = None
    monotone: str | None = None
    box: str | None = None
    proposer: str | None = None
    model: str | None = None
    base_url: str | None = None
    model_seconds: float = 600.0
    reply_tokens: int | None = None
    program_seconds: float = 30.0
    blind: bool = False
    experiments: int = 0
    design: Literal["design", "grid", "random", "isoflop", "d_optimal"] = "design"
    replicas: int = 1
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    approve: Approve = field(default_factory=Approve)
    sandbox: Literal["auto", "docker", "bubblewrap", "local"] = "auto"
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    window: int | None = None
    patience: int = 500
    workers: int | None = None
    out: str = "runs"
