"""The verb `agentlab runs export`: a run's spans, sent to a collector or written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentlab.cli_options import Json, print_json


def runs_export(
    run: Annotated[str, typer.Argument(help="A run id or its folder.")],
    otlp: Annotated[
        str, typer.Option(metavar="URL", help="The collector; else the one in OTEL_EXPORTER_OTLP_ENDPOINT.")
    ] = "",
    out: Annotated[str, typer.Option(metavar="FILE", help="Write OTLP JSON lines there, and send nothing.")] = "",
    content: Annotated[bool, typer.Option(help="With prompts and replies.")] = True,
    as_json: Json = False,
) -> None:
    """Export a run as OpenTelemetry spans: agentlab runs export RUN --otlp http://localhost:4318."""
    from dataclasses import asdict

    from agentlab import runs
    from agentlab.otlp import send, write
    from agentlab.words import UsageError

    if otlp and out:
        raise UsageError("agentlab runs export: --otlp and --out are two ways; give one of them")
    folder = runs.find(run)
    done = write(folder, Path(out), content=content) if out else send(folder, otlp or None, content=content)
    if as_json:
        print_json({"run": folder.name} | asdict(done))
        return
    print(f"{done.spans} spans of {folder.name} are at {done.where}; their trace is {done.trace}")
    print(f"\nnext: agentlab runs show {run}")
