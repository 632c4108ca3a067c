"""The pages of the lab: its resources (guide, board, law cards, plots, events) and its prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import anyio.to_thread
from agentlab.tools._lab_places import CARDS, roots, run_folder, runs_folder
from agentlab.tools._lab_runs import Runs
from agentlab.tools._lab_short import LONGEST, length
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError

from agentlab.trace import dump

_CARD = re.compile(r"card-[0-9a-f]{12}")
_PLOT = re.compile(r"[a-z][a-z-]{0,60}\.svg")


def text_of(name: str, values: Mapping[str, str] | None = None) -> str:
    """A file of tools/prompts with its $names filled."""
    text = (Path(str(files("agentlab.tools"))) / "prompts" / f"{name}.md").read_text(encoding="utf-8")
    return Template(text).safe_substitute(values or {})


def card_folder(name: str) -> Path:
    """The folder of a run or of the card of an audit. Raises ToolError where there is none of that id."""
    folder: Path = runs_folder() / CARDS / name if _CARD.fullmatch(name) else run_folder(name)
    return folder


def card(name: str) -> str:
    """A Law Card as Markdown. Raises ResourceNotFoundError where no audit was made."""
    page = known(name) / "audit.md"
    if not page.is_file():
        raise ResourceNotFoundError(f"{name} has no card yet; make one with law_audit(run={name})")
    return page.read_text(encoding="utf-8")[:LONGEST]


def plot(name: str, file: str) -> str:
    """A plot of a card, as SVG. Raises ResourceNotFoundError where the card has none of that name."""
    path = known(name) / file
    if not _PLOT.fullmatch(file) or path.is_symlink() or not path.is_file():
        raise ResourceNotFoundError(f"{name} has no plot {file[:60]!r}; law_audit lists those there are")
    return path.read_text(encoding="utf-8")


def known(name: str) -> Path:
    """The folder behind a URI. Raises ResourceNotFoundError where there is none."""
    try:
        return card_folder(name)
    except ToolError as error:
        raise ResourceNotFoundError(str(error)) from error


def plots_of(folder: Path) -> list[str]:
    """The names of a card's plots."""
    found = json.loads((folder / "audit.json").read_text(encoding="utf-8")).get("plots", {})
    return [str(name) for name in found.values()]


def newest(events: Sequence[Any]) -> list[Any]:
    """The last events, as many as an answer may hold, in their order."""
    page: list[Any] = []
    room = LONGEST - 2_000
    for event in reversed(events):
        room -= length(event)
        if room < 0:
            break
        page.append(event)
    return page[::-1]


def add_to(server: MCPServer[Any], runs: Runs) -> None:
    """Give a server the resources that are files, and the prompts."""

    @server.resource("agentlab://guide", title="How to use this server", mime_type="text/markdown")
    def guide() -> str:
        """How a law is discovered, judged and used with these tools, step by step."""
        return text_of("guide", {"roots": ", ".join(map(str, roots())), "runs": str(runs_folder())})

    @server.resource("agentlab://law/{run}", title="Law Card", mime_type="text/markdown")
    def law_card(run: str) -> str:
        """The card of a run's law, or of an audit, as law_audit wrote it."""
        return card(run)

    @server.resource("agentlab://law/{run}/plots/{file}", title="Plot of a Law Card", mime_type="image/svg+xml")
    def law_plot(run: str, file: str) -> str:
        """One plot of a card."""
        return plot(run, file)

    @server.resource("agentlab://run/{run}/events", title="Events of a run", mime_type="application/json")
    async def run_events(run: str) -> str:
        """The newest events of a run: better laws, decisions, the law that was chosen and its scores."""
        found = await anyio.to_thread.run_sync(runs.tally, known(run))
        return dump(newest([event for _, event in found.events])).decode()

    @server.prompt()
    def discover_scaling_law(data: str, target: str, features: str) -> str:
        """Discover a scaling law on a table of training runs and say how far it can be trusted."""
        return text_of("discover_scaling_law", {"data": data, "target": target, "features": features})

    @server.prompt()
    def audit_my_fit(law: str, data: str, target: str, features: str) -> str:
        """Audit a law that somebody fitted, before money is spent on it."""
        return text_of("audit_my_fit", {"law": law, "data": data, "target": target, "features": features})

    @server.prompt()
    def plan_next_runs(run: str, flops: str) -> str:
        """Plan the training runs that would settle the decision at a compute."""
        return text_of("plan_next_runs", {"run": run, "flops": flops})

    @server.prompt()
    def write_methods_section(run: str) -> str:
        """Write the methods section of a paper about a run: what was done, with figures that are on record."""
        return text_of("write_methods_section", {"run": run})
