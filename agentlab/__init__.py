"""agentlab discovers scaling laws that extrapolate, and plans the training runs that would test them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentlab.estimator import ScalingLaw
    from agentlab.replay import compare, open_run

__all__ = ["ScalingLaw", "__version__", "compare", "open_run"]

__version__ = "0.1.0"

_PLACES = {"ScalingLaw": "agentlab.estimator", "compare": "agentlab.replay", "open_run": "agentlab.replay"}
"""What is offered here is loaded when it is asked for: the command line starts without it."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attributes have no common type
    if name not in _PLACES:
        raise AttributeError(f"module 'agentlab' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
