"""The records of planted laws: a family of laws with ranges of constants, and one set of rows drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agentlab.types import AgentlabError, GroupParams, Rows, Task

Design = Literal["grid", "bands", "random", "sparse"]
"""How the runs lie: a grid, bands of equal compute, at random, or many small runs and a few large ones."""

DESIGNS: tuple[Design, ...] = ("grid", "bands", "random", "sparse")


class PlantedError(AgentlabError):
    """A planted set that cannot be drawn."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a planted set and the range (low, high) of its training rows.

    A feature that `grows` reaches beyond `high` in the hold-out; one with `choices` takes these values only.
    `monotone` is told to the search: it says what one knows before any run is made.
    """

    name: str
    low: float
    high: float
    log: bool = True
    grows: bool = False
    choices: tuple[float, ...] = ()
    monotone: Literal["", "+", "-"] = ""


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One parameter of a family: u is drawn between low and high (log-uniform with `log`), the parameter is `value`.

    `value` is an expression in u and in the parameters before this one, so that terms are of a realistic size whatever
    their exponents: A = u * 1e8**a makes A/N**a equal to u at N = 1e8.
    """

    name: str
    low: float
    high: float
    log: bool = False
    value: str = "u"


@dataclass(frozen=True, slots=True)
class Family:
    """A law with ranges of its constants around the published ones, and the columns it is measured at.

    `equal` are other writings of the same family of functions: a search that finds one has found the law. `scale`
    orders the hold-out. With `groups` > 1 every group has constants of its own. `outside` marks the families whose
    structure stands in no law that the search starts from; they were fixed before any tuning.
    """

    name: str
    formula: str
    features: tuple[Feature, ...]
    coefficients: tuple[Coefficient, ...]
    scale: str
    source: str
    target: str = "loss"
    residual: Literal["log", "plain"] = "log"
    rows: tuple[int, int] = (40, 200)
    groups: int = 1
    equal: tuple[str, ...] = ()
    outside: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features, in order."""
        return tuple(f.name for f in self.features)


@dataclass(frozen=True)
class Planted:
    """A synthetic set with known truth: noisy rows to search on, and rows without noise at 2 to 100 times the scale.

    `params` are the true constants by group, target and name. `noise` is relative to the target (for plain residuals:
    to its mean size), `outliers` the share of rows that went astray. `task` holds no reference, so that no search can
    read the truth from it.
    """

    family: str
    seed: int
    formula: str
    params: GroupParams
    task: Task
    rows: Rows
    holdout: Rows
    noise: float
    design: Design
    outliers: float
