"""Which sandbox to use: `auto` is the strongest that works here, and code that a model wrote never runs unconfined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentlab.envs import STRICT, Limits, Sandbox, SandboxError

from agentlab.catalog import find_sandbox, sandbox_names


@dataclass(frozen=True)
class Choice:
    """A sandbox by name, its class, and in words why it was chosen."""

    name: str
    kind: type[Sandbox]
    why: str

    def make(self, image: str = "law", limits: Limits = STRICT) -> Sandbox:
        """A new sandbox of that kind."""
        kind: Callable[[str, Limits], Sandbox] = self.kind
        return kind(image, limits)


def choose(name: str = "auto", *, image: str = "law", written_by_model: bool = True) -> Choice:
    """The sandbox that `name` means for programs of that image.

    Raises:
        SandboxError: it does not work here, or does not confine what a model wrote; the line says what to do.
        CatalogError: no sandbox has that name.
    """
    if name != "auto":
        kind: type[Sandbox] = find_sandbox(name)
        if written_by_model and not kind.confines:
            raise SandboxError(f"sandbox={name} confines nothing: programs that a model wrote run in {_confining()}")
        missing = kind.missing(image)
        if missing:
            raise SandboxError(f"sandbox={name}: {missing}")
        return Choice(name, kind, f"{name}, as asked")
    lacking: list[str] = []
    for other, kind in strongest(written_by_model=written_by_model):
        missing = kind.missing(image)
        if not missing:
            beside = f"; stronger, but not here: {'; '.join(lacking)}" if lacking else ""
            return Choice(other, kind, f"{other}, the strongest that works here{beside}")
        lacking.append(f"{other} ({missing})")
    raise SandboxError(f"no sandbox works here: {'; '.join(lacking)}")


def strongest(*, written_by_model: bool) -> Sequence[tuple[str, type[Sandbox]]]:
    """The sandboxes that `auto` may take, strongest first."""
    known: list[tuple[str, type[Sandbox]]] = [(name, find_sandbox(name)) for name in sandbox_names()]
    fit = [(n, k) for n, k in known if k.strength > 0 and (k.confines or not written_by_model)]
    return sorted(fit, key=lambda one: -one[1].strength)


def _confining() -> str:
    return " or ".join(name for name, _ in strongest(written_by_model=True))
