"""The records of a Law Card: what was audited, and everything that was found, with None where it could not be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from agentlab.allocation import Question
from agentlab.allocation_regret import Yardstick
from agentlab.fitting import FitOptions, GroupFit
from agentlab.law import Law
from agentlab.types import FloatArray, Rows, StrArray, Task

Pair = tuple[str, str]
"""A (group, target)."""


@dataclass(frozen=True)
class Case:
    """A law fitted to rows, as all rooms of the audit see it.

    `draws` holds the bootstrap's parameters (B, P) by (group, target); `focus` is the (group, target) that decisions
    are told for. `beside` holds further columns of the file, (n,) in the order of the rows, and `labels` the names of
    the training runs (n,).
    """

    law: Law
    task: Task
    rows: Rows
    options: FitOptions
    fit: GroupFit
    draws: Mapping[Pair, FloatArray]
    focus: Pair
    question: Question
    seed: int = 0
    beside: Mapping[str, FloatArray | StrArray] = field(default_factory=dict)
    labels: StrArray | None = None

    @property
    def at(self) -> FloatArray:
        """The fitted parameters (P,) of the focus."""
        return self.fit.fits[self.focus].params

    @cached_property
    def yardstick(self) -> Yardstick:
        """What compute is worth under the audited law and fit."""
        return Yardstick.of(self.law, self.at, self.question)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One fitted parameter with its 90% and 95% bootstrap intervals and why it is not identified (empty: it is).

    `halved` and `doubled` are the profile deviances (chi-square, 1 degree of freedom) at half and at twice its value.
    """

    group: str
    target: str
    name: str
    value: float
    interval90: tuple[float, float]
    interval95: tuple[float, float]
    halved: float | None = None
    doubled: float | None = None
    unidentified: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Correlation:
    """How two parameters move together, by the bootstrap and by the Jacobian; "log A" is that of the logarithm."""

    group: str
    target: str
    a: str
    b: str
    bootstrap: float
    jacobian: float


@dataclass(frozen=True, slots=True)
class Convergence:
    """What single starts find: the share that ends at the best optimum and how many others lie near it.

    An optimum is `near` where its deviance from the best is below 2.71: the data do not tell the two apart.
    """

    group: str
    target: str
    rows: int
    residual_scale: float
    condition: float
    share_at_best: float
    starts: int
    distinct: int
    near: int


@dataclass(frozen=True, slots=True)
class Bin:
    """The mean residual of the rows with an input from `low` to `high`, in the space of the fit, +- `error`."""

    low: float
    high: float
    n: int
    mean: float
    error: float


@dataclass(frozen=True, slots=True)
class Residuals:
    """Residuals (prediction - observation, log where the fit is) against one input, with their rank correlation."""

    name: str
    correlation: float | None
    p: float | None
    bins: tuple[Bin, ...]
    trend: bool


@dataclass(frozen=True, slots=True)
class Worst:
    """One of the runs that the law misses most: how many residual scales."""

    run: str
    group: str
    target: str
    inputs: Mapping[str, float]
    observed: float
    predicted: float
    scales: float


@dataclass(frozen=True, slots=True)
class Decision:
    """A best configuration, its tokens per parameter, and the value that the law which chose it promises there.

    `edge` names what ends at the limit of its range, `loose` says that the ratio does. By the audited law, following it
    costs `regret` % of the compute (None where compute orders nothing) and is `shortfall` % worse in the target than
    the best choice.
    """

    config: Mapping[str, float]
    ratio: float | None
    value: float
    edge: tuple[str, ...]
    ratio90: tuple[float, float] | None = None
    regret: float | None = None
    shortfall: float | None = None
    loose: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """The one number of a decision that is followed over cuts and variants: tokens per parameter, else one input."""

    name: str
    lever: str | None = None

    def of(self, decision: Decision | None) -> float | None:
        """The number, or None where the decision has no optimum inside what may be chosen."""
        if decision is None or (decision.loose if self.lever is None else self.lever in decision.edge):
            return None
        return decision.ratio if self.lever is None else decision.config.get(self.lever)


def measure_of(decision: Decision | None) -> Measure | None:
    """What to follow: tokens per parameter where there are any, else the first input with an optimum inside."""
    if decision is None:
        return None
    if decision.ratio is not None:
        return Measure("tokens per parameter")
    inside = next((name for name in decision.config if name not in decision.edge), None)
    return None if inside is None else Measure(f"best {inside}", inside)


@dataclass(frozen=True, slots=True)
class Factor:
    """Extrapolation by a factor: fitted on rows of scale up to C / factor, judged on those beyond, up to C."""

    factor: float
    train: int
    test: int
    are: float | None = None
    coverage90: float | None = None
    bias: float | None = None
    blank: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """The law fitted to the lowest `share` of the runs by scale: parameters, error beyond (None at 1) and decision."""

    share: float
    n: int
    params: Mapping[str, float]
    error_beyond: float | None
    error_inside: float | None
    decision: Decision | None
    blank: str = ""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another way to predict the top quarter by scale from the rows below: a baseline, or the reference law."""

    name: str
    are: float | None
    r2: float | None
    n: int
    blank: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One choice made otherwise: its error beyond the inner cut, and where it would send the next training run."""

    axis: str
    name: str
    n: int = 0
    error: float | None = None
    decision: Decision | None = None
    base: bool = False
    blank: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something a reader must know to use the law; `value` is "" where nobody says it."""

    name: str
    value: str
    source: str = ""


@dataclass(frozen=True)
class Card:
    """The Law Card: everything an audit found, in the order it is printed."""

    task: str
    formula: str
    latex: str
    key: str
    n_params: int
    rows: int
    focus: Pair
    question: str
    compute: float | None
    cost: str | None
    settings: Mapping[str, str | float | int]
    parameters: tuple[Parameter, ...]
    correlations: tuple[Correlation, ...]
    convergence: tuple[Convergence, ...]
    residuals: tuple[Residuals, ...]
    worst: tuple[Worst, ...]
    factors: tuple[Factor, ...]
    cuts: tuple[Cut, ...]
    rivals: tuple[Rival, ...]
    battery: tuple[Variant, ...]
    decision: Decision | None
    decision_regret90: tuple[float, float] | None
    violations: tuple[str, ...]
    facts: tuple[Fact, ...]
    verdict: tuple[str, ...]
    notes: tuple[str, ...] = ()
