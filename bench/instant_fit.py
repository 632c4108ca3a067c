"""A tool server whose `laws` answers at once, so that bench/overhead.py sees what the framework itself costs."""

from __future__ import annotations

import itertools
from typing import Any

from mcp.server import MCPServer
from mcp.types import ToolAnnotations
from pydantic import BaseModel

from agentlab.law import parse

server = MCPServer("fit")

READ = ToolAnnotations(read_only_hint=True)


class Judged(BaseModel):
    """As the real server's answer."""

    outcomes: list[dict[str, Any]]


@server.tool(annotations=READ)
def laws(formulas: list[str]) -> Judged:
    """Outcomes that depend on the formula or on its place; nothing is fitted, other arguments are ignored."""
    return Judged(outcomes=[_outcome(f) for f in formulas])


tried = itertools.count(1)


def _outcome(formula: str) -> dict[str, Any]:
    law = parse(formula, ("N", "D"))
    # A law of the instant model is better than all before it, so that the model earns all the fits that it can use.
    score = -float(next(tried)) if "log10" in formula else float(sum(map(ord, formula)) % 997)
    dev = {"r2": 0.5, "nmse": 0.5, "nmae": 0.5, "mae": 0.5, "are": 0.5, "n": 10}
    shape = {"n_params": law.n_params, "complexity": law.complexity, "structure": law.structure}
    params = {"all": {"loss": dict.fromkeys(law.params, 1.0)}}
    return {"status": "ok", "objective": score, "mdl": score, "dev": dev, "cuts": [0.1, 0.2], "params": params} | shape


@server.tool(annotations=READ)
def refit() -> dict[str, Any]:
    """The parameters of the last fit, made up."""
    return {"params": {}, "intervals": {}}


@server.tool(annotations=READ)
def choose() -> dict[str, Any]:
    """The first finalist."""
    return {"position": 0}


@server.tool(annotations=READ)
def baselines() -> dict[str, Any]:
    """No baselines."""
    return {"beaten_by": "", "rows": []}


@server.tool(annotations=READ)
def luck() -> dict[str, Any]:
    """No luck."""
    return {"candidates": 0, "gain": 0.0, "law_gain": 0.0, "r2": 0.0}


if __name__ == "__main__":
    server.run("stdio")
