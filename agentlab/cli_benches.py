"""`agentlab bench`: the benchmarks that ship with agentlab, each a module *_bench.py with Setting, run and page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentlab.cli_options import Json, print_json


def bench(
    words: Annotated[list[str] | None, typer.Argument(metavar="NAME key=value ...", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Run a benchmark: agentlab bench hanoi disks=20 error=0.01 k=4; without a name, list them and their keys."""
    import importlib

    from agentlab.errors import nearest
    from agentlab.words import UsageError, keys, read_words

    names = sorted(path.stem.removesuffix("_bench") for path in Path(__file__).parent.glob("*_bench.py"))
    if not words:
        shown = [
            {"name": name, "keys": keys(importlib.import_module(f"agentlab.{name}_bench").Setting)} for name in names
        ]
        if as_json:
            print_json(shown)
            return
        for row in shown:
            print(f"{row['name']:10s} {' '.join(f'{key}=' for key in row['keys'])}")
        print(f"\nnext: agentlab bench {names[0]}")
        return
    name, *rest = words
    if name not in names:
        raise UsageError(f"agentlab bench: no benchmark {name!r}; {nearest(name, names)}")
    module = importlib.import_module(f"agentlab.{name}_bench")
    setting = read_words(rest, module.Setting, f"agentlab bench {name}")
    try:
        result = module.run(setting, _tell)
    except KeyboardInterrupt:
        kept = "; the same command goes on from the journal" if getattr(setting, "journal", None) else ""
        print(f"agentlab: stopped{kept}", file=sys.stderr)
        sys.exit(130)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if as_json:
        print_json(result)
    else:
        print(module.page(result))


def _tell(done: int, total: int) -> None:
    """Where it stands, on one line that is written over; nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,}", end="", file=sys.stderr, flush=True)
