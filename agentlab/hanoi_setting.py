"""What `agentlab bench hanoi` can be told, and what of it makes no sense together."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from agentlab.errors import AgentlabError
from agentlab.vote import LADDER, Rules

SIMULATED = ("error", "malformed", "repeat", "correlation", "hard", "latency")
ASKED = ("base_url", "tokens", "max_tokens")
"""Keys of the simulated model, and of real ones."""
MOST = {"k": 1000, "chains": 4096, "latency": 60}


@dataclass(frozen=True, slots=True)
class Setting:
    """What `agentlab bench hanoi` is told.

    `error`, `malformed`, `repeat`, `correlation`, `hard` and `latency` (seconds an answer takes) are the simulated
    model's; `model`, a name or two with a comma, asks real ones at `base_url` instead. Without `k` it is measured on
    the fly, so that all steps are right with probability `target`. `escalate=dissent` is the default where errors are
    correlated or steps are hard. `calls` and `tokens` are caps; `fsync` steps reach the disk together.
    """

    disks: int = 20
    error: float = 0.01
    k: int | None = None
    malformed: float = 0.0
    repeat: float = 0.0
    correlation: float = 0.0
    hard: int = 0
    escalate: Literal["undecided", "dissent"] | None = None
    chains: int = 1
    latency: float | None = None
    target: float = 0.95
    calls: int | None = None
    tokens: int | None = None
    journal: str | None = None
    fsync: int = 10_000
    model: str | None = None
    base_url: str | None = None
    max_tokens: int = 2000
    seed: int = 0

    @property
    def rules(self) -> Rules:
        """The rules of the votes; a ladder where dissent escalates, as long as there are models for it."""
        dissent = bool(self.hard or self.correlation) if self.escalate is None else self.escalate == "dissent"
        models = 2 if self.model is None else len(self.model.split(","))
        ladder = tuple(rung for rung in LADDER if rung.model < models)
        most = max(100, 20 * (self.k or 0))
        return Rules(most, most, ladder, "dissent") if dissent else Rules(most, most)

    @property
    def job(self) -> bytes:
        """What a journal is bound to: the same towers, cut the same way, and the same answers.

        How the answers are voted on may change: a step that stays undecided is taken up with another k or ladder.
        """
        told = ("disks", "chains", "seed", "model", "error", "malformed", "repeat", "correlation", "hard")
        return repr([(name, getattr(self, name)) for name in told]).encode()

    def __post_init__(self) -> None:
        default = {field.name: field.default for field in fields(self)}
        given = [name for name in default if getattr(self, name) != default[name]]
        idle = SIMULATED if self.model is not None else ASKED
        for name in given:
            if name in idle:
                what = "is of the simulated model; leave it or model= out" if self.model else "needs model=NAME"
                raise AgentlabError(f"hanoi: {name}={getattr(self, name)} {what}")
        if self.k is not None and "target" in given:
            raise AgentlabError("hanoi: target= chooses k where none is given; leave one of the two out")
        if self.journal is None and "fsync" in given:
            raise AgentlabError("hanoi: fsync= is of a journal; name its file with journal=")
        for name, most in MOST.items():
            if (getattr(self, name) or 0) > most:
                raise AgentlabError(f"hanoi: {name}={getattr(self, name):g} is too large; write {most} at most")
        if self.model is not None and not all(self.model.split(",")):
            raise AgentlabError(f"hanoi: model={self.model} has an empty name; write model=NAME or model=NAME,SECOND")
