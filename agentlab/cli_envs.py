"""The verb `agentlab envs`: the sandboxes, their images, their checks, and one command in one of them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agentlab.cli_options import Json, print_json

envs_app = typer.Typer(help="The sandboxes: which work here, build their images, check and run.", rich_markup_mode=None)


@envs_app.callback(invoke_without_command=True)
def envs_top(ctx: typer.Context) -> None:
    """The sandboxes: which work here, build their images, check and run."""
    if ctx.invoked_subcommand is None:
        envs_list()


@envs_app.command("list")
def envs_list(as_json: Json = False) -> None:
    """List the sandboxes, what each is good for and whether it works here."""
    from agentlab.doctor import sandboxes

    rows = sandboxes()
    if as_json:
        print_json(rows)
        return
    for row in rows:
        kind = "confines" if row["confines"] else "trusted programs only"
        print(f"{row['sandbox']:12s} {kind:22s} {row['missing'] or 'works here'}")
    print("\nnext: agentlab envs run auto -- python3 -c 'print(1)'")


@envs_app.command("build")
def envs_build(
    words: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE ...] [base=IMAGE]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even what is there already.")] = False,
    as_json: Json = False,
) -> None:
    """Build the images of the Docker sandbox: agentlab envs build [law] [train] [infer] [base=python:3.11-slim]."""
    from dataclasses import asdict

    from agentlab.envs._build import build, image_names
    from agentlab.words import UsageError

    given = words or []
    base = next((w.removeprefix("base=") for w in given if w.startswith("base=")), "")
    names = [w for w in given if not w.startswith("base=")]
    wrong = next((w for w in names if "=" in w), None)
    if wrong:
        raise UsageError(f"agentlab envs build: unknown key {wrong.partition('=')[0]!r}; did you mean 'base'?")
    built = [
        build(n, lambda line: print(line, file=sys.stderr), base=base, force=force) for n in names or image_names()
    ]
    if as_json:
        print_json([asdict(b) for b in built])
        return
    for one in built:
        print(f"{one.image:18s} {one.bytes / 1e6:6.0f} MB on {one.base}{' (was there already)' if one.kept else ''}")
    print("\nnext: agentlab envs check docker")


@envs_app.command("check")
def envs_check(
    name: Annotated[str, typer.Argument(metavar="NAME")] = "auto",
    image: Annotated[str, typer.Option(help="The image to check it with.")] = "law",
    as_json: Json = False,
) -> None:
    """Run the checks that any sandbox must pass, for real."""
    import asyncio

    from agentlab.envs._choose import choose
    from agentlab.testing import check_sandbox
    from agentlab.types import EvaluationError

    chosen = choose(name, image=image, written_by_model=False)
    try:
        passed = asyncio.run(check_sandbox(lambda: chosen.make(image)))
    except AssertionError as breach:
        raise EvaluationError(f"sandbox {chosen.name}: {breach}") from breach
    if as_json:
        print_json({"sandbox": chosen.name, "why": chosen.why, "passed": passed})
        return
    print(f"{chosen.why}\n" + "\n".join(f"  ok  {sentence}" for sentence in passed))
    print("\nnext: agentlab doctor")


@envs_app.command("run")
def envs_run(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    argv: Annotated[list[str], typer.Argument(metavar="-- ARGV")],
    timeout: Annotated[float, typer.Option(help="Seconds until it is killed.")] = 60.0,
    image: Annotated[str, typer.Option(help="The image whose programs are there.")] = "law",
    as_json: Json = False,
) -> None:
    """Run one command in a sandbox: agentlab envs run auto -- python3 -c 'print(1)'."""
    import asyncio
    from dataclasses import asdict

    from agentlab.envs import Executed
    from agentlab.envs._choose import choose

    chosen = choose(name, image=image, written_by_model=name != "local")

    async def once() -> Executed:
        async with chosen.make(image) as box:
            command = [box.python if argv[0] in ("python", "python3") else argv[0], *argv[1:]]
            return await box.exec(command, timeout=timeout)

    done = asyncio.run(once())
    if as_json:
        print_json(asdict(done) | {"sandbox": chosen.name})
    else:
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        for told, words in ((done.timed_out, f"killed after {timeout:g} s"), (done.out_of_memory, "out of memory")):
            if told:
                print(f"agentlab: {chosen.name}: {words}", file=sys.stderr)
    if done.returncode:
        raise typer.Exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
