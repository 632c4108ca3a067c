"""The verbs `agentlab replay` and `agentlab report`: a run gone through again as a notebook, and told on one page."""

from __future__ import annotations

from typing import Annotated

import typer

from agentlab.cli_options import Json, print_json

replay_app = typer.Typer(rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="A run id or its folder.")]
Out = Annotated[str, typer.Option(help="Where to write; the run's own folder unless told.")]


@replay_app.command()
def replay(
    run: Name,
    out: Out = "",
    gen: Annotated[int | None, typer.Option(help="The generation to look into.")] = None,
    flops: Annotated[float | None, typer.Option(help="The compute of the allocation, in FLOPs.")] = None,
    entries: Annotated[int | None, typer.Option(min=1, help="Candidates to fit anew; all unless told.")] = None,
    compare: Annotated[list[str] | None, typer.Option(help="Another run; may be given again.")] = None,
    html: Annotated[bool, typer.Option("--html/--no-html", help="Also write the page.")] = True,
    as_json: Json = False,
) -> None:
    """Execute the notebook of a run: all that its trace records and that can be computed is computed anew."""
    from pathlib import Path

    from agentlab.replay import open_run
    from agentlab.replay_cells import Asked
    from agentlab.replay_notebook import write

    one = open_run(run)
    others = [str(open_run(other).folder.resolve()) for other in compare or []]
    asked = Asked("", gen, flops=flops, entries=entries, others=others)
    files = [str(p) for p in write(one, Path(out) if out else one.folder, asked, html=html)]
    if as_json:
        print_json({"run": one.id, "same": True, "files": files})
    else:
        print("\n".join([*(f"wrote     {f}" for f in files), "every recomputed value is the recorded one"]))
        print(f"\nnext: agentlab report {run}")


@replay_app.command()
def report(run: Name, out: Out = "", as_json: Json = False) -> None:
    """Write a run's report: report.md, and report.html as one file; every number says where it stands on record."""
    from pathlib import Path

    from agentlab.replay import open_run
    from agentlab.report import write

    one = open_run(run)
    files = [str(p) for p in write(one, Path(out) if out else one.folder)]
    if as_json:
        print_json({"run": one.id, "files": files})
    else:
        print("\n".join(f"wrote     {f}" for f in files))
        print(f"\nnext: agentlab replay {run}")
