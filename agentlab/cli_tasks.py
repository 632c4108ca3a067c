"""The verbs `agentlab tasks` and `agentlab data`: which problems there are, and where their rows come from."""

from __future__ import annotations

from typing import Annotated

import typer

from agentlab.cli_options import Json, print_json

__all__ = ["data", "tasks"]


def tasks(
    words: Annotated[list[str] | None, typer.Argument(metavar="[show NAME]")] = None, as_json: Json = False
) -> None:
    """List the tasks, or show one: agentlab tasks show NAME."""
    from agentlab.catalog import load_task, task_heads
    from agentlab.display import task_page
    from agentlab.words import UsageError

    match words or []:
        case []:
            rows = [{"name": t.name, "title": t.title, "data": "here" if t.here else "missing"} for t in task_heads()]
            if as_json:
                print_json(rows)
                return
            for row in rows:
                print(f"{row['name']:26s} {row['title']}{'' if row['data'] == 'here' else '   (no data here)'}")
            if rows:
                print(f"\nnext: agentlab tasks show {rows[0]['name']}")
        case ["show", name]:
            print(task_page(load_task(name), as_json=as_json))
        case other:
            raise UsageError(f"agentlab tasks: {' '.join(other)!r} is not `show NAME`")


def data(
    words: Annotated[list[str] | None, typer.Argument(metavar="[get TASK]")] = None, as_json: Json = False
) -> None:
    """List the tasks whose rows are elsewhere, or fetch them: agentlab data get TASK."""
    from agentlab.catalog import data_folders, task_head, task_heads
    from agentlab.words import UsageError

    match words or []:
        case []:
            rows = [{"task": t.name, "file": t.file, "here": t.here} for t in task_heads() if t.source]
            if as_json:
                print_json(rows)
                return
            for row in rows:
                print(f"{row['task']:26s} {row['file']:36s} {'here' if row['here'] else 'missing'}")
            missing = next((row["task"] for row in rows if not row["here"]), None)
            print(f"\nnext: agentlab data get {missing}" if missing else "\nnext: agentlab tasks")
        case ["get", name]:
            from agentlab.hub import fetch

            head = task_head(name)
            if head.source is None:
                raise UsageError(f"agentlab data get: {name} brings its own rows; there is nothing to get")
            written = fetch(head.source, head.columns, (data_folders()[0] / head.file).parent)
            if as_json:
                print_json([str(path) for path in written])
                return
            print("\n".join(str(path) for path in written))
            print(f"\nnext: agentlab discover task={name}")
        case other:
            raise UsageError(f"agentlab data: {' '.join(other)!r} is not `get TASK`")
