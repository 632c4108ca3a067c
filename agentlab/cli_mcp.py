"""The verb `agentlab mcp`: serve the lab to other agents over stdio or HTTP, and put it into a client's settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from agentlab.cli_options import Json, print_json

mcp_app = typer.Typer(
    help="Serve the lab to other agents, or install it in a client.",
    rich_markup_mode=None,
)
Roots = Annotated[
    list[str] | None,
    typer.Option("--root", help="A folder whose tables may be read; may be given again. The current one unless told."),
]
Runs = Annotated[str, typer.Option("--runs", help="The folder of the runs; `runs` below the first root unless told.")]


@mcp_app.callback(invoke_without_command=True)
def mcp_top(
    ctx: typer.Context,
    http: Annotated[int | None, typer.Option(min=0, max=65535, help="Streamable HTTP; 0 takes a free port.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on: this machine only unless told.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that clients call the server by; may be given again.")
    ] = None,
    root: Roots = None,
    runs: Runs = "",
    model: Annotated[str, typer.Option(help="Models that searches may ask; none unless told.")] = "",
    base_url: Annotated[str, typer.Option(help="The address of their server.")] = "",
) -> None:
    """Serve the lab to other agents: over stdio, or with --http PORT behind a bearer token."""
    if ctx.invoked_subcommand is not None:
        return
    from agentlab.words import UsageError

    if http is None and (host != "127.0.0.1" or allow_host):
        raise UsageError("agentlab mcp: --host and --allow-host go with --http PORT")
    folders = [str(one) for one in _folders(root or [])]
    from agentlab.tools import lab
    from agentlab.tools._lab_places import ROOTS, RUNS
    from agentlab.tools._lab_words import BASE_URL, MODEL
    from agentlab.tools._server import serve

    told = {ROOTS: os.pathsep.join(folders), RUNS: runs, MODEL: model, BASE_URL: base_url}
    os.environ.update({k: v for k, v in told.items() if v})
    names = [word for name in allow_host or [] for word in ("--allow-host", name)]
    serve(lab.server, [] if http is None else ["--http", str(http), "--host", host, *names])


@mcp_app.command("install")
def mcp_install(
    client: Annotated[str, typer.Argument(metavar="claude|cursor|codex")],
    project: Annotated[bool, typer.Option("--project", help="Into the current folder's settings, not yours.")] = False,
    root: Roots = None,
    runs: Runs = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the file as it would be; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put the server into a client's settings; everything else in its file stays, and a copy is kept."""
    from agentlab import cli_mcp_clients as clients

    known = clients.find(client)
    # A project's file is shared: it serves the folder that the client works in, wherever that lies.
    roots = _folders(root or ([] if project else ["."]))
    made = clients.change(
        known, Path.cwd() if project else Path.home(), clients.entry_of(known, roots, runs), project=project
    )
    if dry_run and not as_json:
        print(f"{made.path} would be:\n\n{made.text}")
        return
    backup = None if dry_run or not made.changed else clients.apply(made)
    if as_json:
        told = {"client": client, "file": str(made.path), "changed": made.changed, "dry_run": dry_run}
        print_json(told | {"backup": str(backup) if backup else None} | ({"text": made.text} if dry_run else {}))
        return
    print(f"{made.path}: {'written' if made.changed else 'our server stands there already'}")
    if backup is not None:
        print(f"what was there is kept in {backup}")
    print(f'\nnext: start {client} anew and ask it to "read agentlab://guide"')


def _folders(names: list[str]) -> list[Path]:
    """The folders by their whole paths. Raises UsageError for one that is not there, and for /."""
    from agentlab.words import UsageError

    found = [Path(name).expanduser().resolve() for name in names]
    for name, folder in zip(names, found, strict=True):
        if not folder.is_dir():
            raise UsageError(f"--root {name}: there is no such folder; make it first")
        if folder == Path("/"):
            raise UsageError(f"--root {name}: that is everything on this machine; name the folder of your tables")
    return found
