"""The verbs `agentlab runs ...`: list, show, resume, replay and export runs; and what follows a search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentlab.cli_detach import runs_stop
from agentlab.cli_export import runs_export
from agentlab.cli_options import Json, Plain, print_json

__all__ = ["carry_out", "runs_app"]

runs_app = typer.Typer(help="List, show and resume runs.", rich_markup_mode=None)
runs_app.command("export")(runs_export)
runs_app.command("stop")(runs_stop)


def carry_out(folder: Path, *, as_json: bool, plain: bool, approve: bool | None = None) -> None:
    """Run or resume what a folder asks for, tell how it goes, and print what it found."""
    from agentlab import runs
    from agentlab.display import approver, watch

    plain = plain or as_json or not sys.stdout.isatty()
    with watch(folder, plain=plain) as tell:
        runs.carry_out(folder, tell, approver(approve))
    _print_result(folder, as_json=as_json)


def _print_result(folder: Path, *, as_json: bool) -> None:
    from agentlab.display import summary
    from agentlab.runs_result import result as result_of

    result = result_of(folder)
    if as_json:
        print_json(result)
    else:
        print(summary(result))


@runs_app.callback(invoke_without_command=True)
def runs_top(ctx: typer.Context) -> None:
    """List, show and resume runs."""
    if ctx.invoked_subcommand is None:
        runs_list()


@runs_app.command("list")
def runs_list(out: str = "runs", as_json: Json = False) -> None:
    """List the runs of a folder."""
    from agentlab.runs_files import list_runs
    from agentlab.runs_result import status

    rows = [status(folder) for folder in list_runs(out)]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['run']:32s} {row['state']:12s} {row['evaluated']:>6} candidates  {row['formula']}")
    print(
        f"\nnext: agentlab runs show {rows[-1]['run']}"
        if rows
        else "no runs yet; next: agentlab discover task=moe_leverage"
    )


@runs_app.command("show")
def runs_show(run: str, out: str = "runs", as_json: Json = False) -> None:
    """Show what a run found."""
    from agentlab.runs_files import find

    _print_result(find(run, out), as_json=as_json)


@runs_app.command("resume")
def runs_resume(
    run: str,
    out: str = "runs",
    as_json: Json = False,
    plain: Plain = False,
    approve: Annotated[
        bool | None, typer.Option("--approve/--deny", help="Say in advance whether calls above approve.* may be made.")
    ] = None,
) -> None:
    """Continue a run that was stopped or killed; without a model its trace becomes the one it would have been."""
    from agentlab import runs

    carry_out(runs.find(run, out), as_json=as_json, plain=plain, approve=approve)


@runs_app.command("replay")
def runs_replay(run: str, out: str = "runs", as_json: Json = False, plain: Plain = False) -> None:
    """Go through a finished run again without its models; candidates are fitted anew, the trace must be the same."""
    from agentlab import runs
    from agentlab.display import watch

    folder = runs.find(run, out)
    with watch(folder, plain=plain or as_json or not sys.stdout.isatty()) as tell:
        made = runs.replay(folder, Path(out), tell)
    if as_json:
        print_json({"run": made.name, "dir": str(made), "same": True})
    else:
        print(f"the same {(made / 'trace.jsonl').stat().st_size:,} bytes: {made}\n\nnext: agentlab runs show {made}")
