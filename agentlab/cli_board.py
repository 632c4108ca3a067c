"""The verb `agentlab leaderboard`: show the board, submit runs to it, verify, export, and serve it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentlab.cli_options import Json, print_json

if TYPE_CHECKING:
    from agentlab.leaderboard_board import Board

board_app = typer.Typer(help="Show the leaderboard, submit runs to it and verify them.", rich_markup_mode=None)

Where = Annotated[str, typer.Option("--board", help="A file, or postgresql://..; $AGENTLAB_BOARD unless told.")]
OfTask = Annotated[str, typer.Option("--task", help="Only this task.")]


@board_app.callback(invoke_without_command=True)
def leaderboard(ctx: typer.Context, task: OfTask = "", board: Where = "", as_json: Json = False) -> None:
    """Show the leaderboard, best first."""
    if ctx.invoked_subcommand is not None:
        return
    from agentlab.leaderboard_pages import table
    from agentlab.leaderboard_rows import board_rows

    rows = board_rows(board or None, task or None)
    if as_json:
        print_json(rows)
    else:
        print(table(rows))


@board_app.command("submit")
def leaderboard_submit(
    runs: Annotated[list[str], typer.Argument(metavar="RUN ...", help="Run ids or folders, of one task and method.")],
    to: Annotated[str, typer.Option(help="A board's http://.. address, file or database.")] = "",
    name: Annotated[str, typer.Option(help="In whose name; the user's unless told.")] = "",
    declared: Annotated[str, typer.Option(help="All seeds that were meant to be run: 0,1,2.")] = "",
    note: Annotated[str, typer.Option(help="A line to stand beside the row.")] = "",
    as_json: Json = False,
) -> None:
    """Submit finished runs: law, fit settings, traces and digests; the board refits and scores them itself."""
    import getpass

    from agentlab.leaderboard_submit import pack, seeds_of, send

    text = pack(runs, name or getpass.getuser(), seeds_of(declared), note)
    if to.startswith(("http://", "https://")):
        told: dict[str, Any] = send(text, to)
    else:
        from agentlab.leaderboard_records import read_submission
        from agentlab.leaderboard_tasks import task_of

        with _opened(to) as board:
            found, new = board.receive(text, task_of(read_submission(text)[1]).version)
        told = {"id": found, "level": "received", "new": new}
    if as_json:
        print_json(told)
        return
    print(f"{'received' if told.get('new') else 'was received before'}: {told.get('id')}")
    print(f"\nnext: agentlab leaderboard verify {told.get('id')}   (where the board is)")


@board_app.command("verify")
def leaderboard_verify(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID ...", help="All that are not verified, unless told.")
    ] = None,
    board: Where = "",
    seconds: Annotated[float, typer.Option(min=1, help="What one law or run may take.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Refit, score and rerun submissions, on the machine that has the board."""
    from dataclasses import asdict

    from agentlab.leaderboard_pages import verified
    from agentlab.leaderboard_verify import verify, waiting
    from agentlab.leaderboard_work import Worker

    with _opened(board) as opened, Worker(seconds, opened.home / "worker.log") as worker:
        found = [verify(opened, one, worker) for one in ids or waiting(opened)]
    if as_json:
        print_json([asdict(row) for row in found])
    else:
        print(verified(found))


@board_app.command("export")
def leaderboard_export(
    out: Annotated[Path, typer.Option(help="The file: .csv, .json or .md.")], task: OfTask = "", board: Where = ""
) -> None:
    """Write the leaderboard to a file; how is told by its name."""
    from agentlab.leaderboard_pages import exported
    from agentlab.leaderboard_rows import board_rows
    from agentlab.words import UsageError

    text = exported(board_rows(board or None, task or None), out)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}; give a file that can be written") from None
    print(f"wrote {out}")


@board_app.command("incidents")
def leaderboard_incidents(board: Where = "", as_json: Json = False) -> None:
    """Show the incident log: every submission that was rejected, and why."""
    with _opened(board) as opened:
        found = opened.incidents()
    if as_json:
        print_json(found)
        return
    for one in found:
        who = f"{one['task']:24s} {one['submitter']:16s} {one['submission'][:12]}"
        print(f"{one['date'][:19]}  {who}  {one['reason']}: {one['found']}")
    print(f"{len(found)} incident(s)\n\nnext: agentlab leaderboard")


@board_app.command("token")
def leaderboard_token(name: str, board: Where = "") -> None:
    """Make a token for a submitter, in place of the one before; it is shown once."""
    with _opened(board) as opened:
        print(opened.token(name))


@board_app.command("second")
def leaderboard_second(
    task: str,
    file: Annotated[Path | None, typer.Option(help="Rows that nobody has seen, where no truth is known.")] = None,
    board: Where = "",
) -> None:
    """Make the second hold-out of a task, once; submissions that are verified then are scored on it, too."""
    from agentlab.leaderboard_second import make_second

    with _opened(board) as opened:
        path = make_second(opened, task, file=file)
    print(f"sealed: {path}\n\nnext: agentlab leaderboard verify")


@board_app.command("serve")
def leaderboard_serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8321, board: Where = ""
) -> None:
    """Serve the leaderboard to this machine; the first line says where, and which file holds the token."""
    from agentlab.leaderboard_server import serve

    with _opened(board) as opened:
        serve(opened, port)


def _opened(board: str) -> Board:
    from agentlab.leaderboard_board import open_board

    return open_board(board or None)
