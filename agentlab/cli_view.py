"""The verb `agentlab view`: runs and the leaderboard as one HTML file, or live while a run goes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentlab.cli_options import Json, print_json


def view(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN ..]", help="Run ids or folders; without any, the latest four.")
    ] = None,
    out: Annotated[str, typer.Option(help="Folder for the page; ./view unless told, where nothing is served.")] = "",
    live: Annotated[
        bool | None, typer.Option("--live/--static", help="Serve it; by itself where a run is still going on.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the live view; 0 is any.")] = 0,
    board: Annotated[str, typer.Option(metavar="URL", help="The leaderboard's database; else AGENTLAB_BOARD's.")] = "",
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Show runs and the leaderboard as a page: agentlab view RUN .. --out DIR, or live while a run goes."""
    from agentlab.replay import open_run
    from agentlab.runs_files import find, list_runs
    from agentlab.web.bundle import MOST, board_told, write_bundle
    from agentlab.words import UsageError

    folders = [find(r) for r in runs or []] or list_runs()[-MOST:]
    opened = [open_run(folder) for folder in folders]
    if live is None:
        live = not out and any(not run.done for run in opened)
    if live and out:
        raise UsageError("agentlab view: --live serves the page and --out writes it; give one of them")
    if live and not folders:
        raise UsageError(
            "agentlab view --live: no run here; name one, or start one: agentlab discover task=moe_leverage"
        )
    told = board_told(board or None)
    if live:
        from agentlab.web.live import serve

        serve(folders, told, port, lambda address: _serving(address, folders[-1], as_json=as_json), browser=browser)
        return
    path = write_bundle(opened, Path(out or "view"), told).resolve()
    if browser:
        import webbrowser

        webbrowser.open(path.as_uri())
    size = path.stat().st_size
    if as_json:
        print_json({"page": str(path), "bytes": size, "runs": [run.id for run in opened]})
        return
    print(f"{path}: {size / 1e6:.1f} MB, one file to open or to send; it asks no network for anything")
    print(f"\nnext: {f'agentlab report {folders[-1]}' if folders else 'agentlab discover task=moe_leverage'}")


def _serving(address: str, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"address": address})
    else:
        print(f"live at {address} for this machine alone; Ctrl-C ends the view, not the run")
        print(f"\nnext: agentlab view {folder} --out DIR   (once the run is done: a file to send)")
    sys.stdout.flush()
