"""Runs that outlive their command on the command line: `agentlab discover .. --detach` and `agentlab runs stop RUN`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agentlab.cli_options import Json, print_json

if TYPE_CHECKING:
    from agentlab.types import RunConfig


def begin(config: RunConfig, key: str = "", *, as_json: bool = False) -> None:
    """Start the run in a session of its own and say at once where it is; wrong words are refused before that."""
    from agentlab.runs_detach import start

    found = start(config, key)
    if as_json:
        print_json(found.record())
        return
    print("\n".join(found.notes), file=sys.stderr)
    print(f"run {found.folder} {'goes on by itself' if found.new else 'was started with this key before'}")
    print(f"its output goes to {found.folder}/output.txt; stop it with: agentlab runs stop {found.folder}")
    print(f"\nnext: agentlab runs show {found.folder}")


def runs_stop(
    run: str,
    out: str = "runs",
    now: Annotated[bool, typer.Option("--now", help="Kill it; agentlab runs resume continues it.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a run that was started with --detach to finish its step and report, as Ctrl-C does."""
    from agentlab import detach
    from agentlab.runs_files import find

    folder = find(run, out)
    was = detach.stop(folder, now=now)
    if as_json:
        print_json({"run": folder.name, "dir": str(folder), "was": was, "state": detach.life(folder)})
        return
    told = {"ended": "nothing was at it", "stopping": "it was told already"}.get(
        was, "it finishes its step and reports"
    )
    print(f"{folder.name}: {'killed' if now and was != 'ended' else told}")
    print(f"\nnext: agentlab runs {'resume' if now else 'show'} {folder}")
