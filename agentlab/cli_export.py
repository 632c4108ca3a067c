"""The verb `agentlab runs export`: a run as spans for a collector, or as a run of an experiment tracker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentlab.cli_options import Json, print_json

if TYPE_CHECKING:
    from agentlab.trackers import Copied


def runs_export(
    run: Annotated[str, typer.Argument(help="A run id or its folder.")],
    otlp: Annotated[
        str, typer.Option(metavar="URL", help="The collector; else the one in OTEL_EXPORTER_OTLP_ENDPOINT.")
    ] = "",
    out: Annotated[str, typer.Option(metavar="FILE", help="Write OTLP JSON lines there, and send nothing.")] = "",
    mlflow: Annotated[str, typer.Option(metavar="URL", help="Copy it to this MLflow server instead.")] = "",
    wandb: Annotated[str, typer.Option(metavar="PROJECT", help="Copy it to Weights & Biases instead.")] = "",
    offline: Annotated[bool, typer.Option(help="With --wandb: write its files, and send nothing.")] = False,
    content: Annotated[bool, typer.Option(help="With prompts and replies.")] = True,
    as_json: Json = False,
) -> None:
    """Export a run: as spans with --otlp URL or --out FILE, or to a tracker with --mlflow URL or --wandb PROJECT."""
    from dataclasses import asdict

    from agentlab import runs
    from agentlab.otlp import send, write
    from agentlab.words import UsageError

    given = [name for name, value in (("otlp", otlp), ("out", out), ("mlflow", mlflow), ("wandb", wandb)) if value]
    if len(given) > 1:
        ways = " and ".join(f"--{name}" for name in given[:2])
        raise UsageError(f"agentlab runs export: {ways} are two ways; give one of them")
    folder = runs.find(run)
    if mlflow or wandb:
        copied = _copied(folder, mlflow, wandb, offline=offline)
        if as_json:
            print_json(asdict(copied))
            return
        print(f"{copied.figures} figures and {copied.points} points of {copied.run} are at {copied.where}: {copied.id}")
    else:
        done = write(folder, Path(out), content=content) if out else send(folder, otlp or None, content=content)
        if as_json:
            print_json({"run": folder.name} | asdict(done))
            return
        print(f"{done.spans} spans of {folder.name} are at {done.where}; their trace is {done.trace}")
    print(f"\nnext: agentlab runs show {run}")


def _copied(folder: Path, mlflow: str, wandb: str, *, offline: bool) -> Copied:
    from agentlab.trackers import to_mlflow, to_wandb

    return to_mlflow(folder, mlflow) if mlflow else to_wandb(folder, wandb, offline=offline)
