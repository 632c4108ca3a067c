"""The verb `agentlab tools`: list the tools of all servers, find one for a purpose, call one."""

from __future__ import annotations

from typing import Annotated

import typer

from agentlab.cli_options import Json, Words, print_json

tools_app = typer.Typer(help="List tool servers' tools, find one and call one.", rich_markup_mode=None)


@tools_app.callback(invoke_without_command=True)
def tools_top(ctx: typer.Context) -> None:
    """List tool servers' tools and call one."""
    if ctx.invoked_subcommand is None:
        tools_list()


@tools_app.command("list")
def tools_list(as_json: Json = False) -> None:
    """List every tool of every server."""
    from agentlab.toolbox import list_tools

    found = list_tools()
    if as_json:
        print_json(found)
        return
    width = max(len(tool["name"]) for tool in found)
    for tool in found:
        print(f"{tool['name']:{width}s}  {tool['description'].splitlines()[0]}")
    print("\nnext: agentlab tools call fit.law data=RUN_FOLDER 'formula=E + A/N**a'")


@tools_app.command("find")
def tools_find(query: str, k: Annotated[int, typer.Option(help="How many.")] = 5, as_json: Json = False) -> None:
    """Find tools by what they do: agentlab tools find "how well does a law extrapolate"."""
    from agentlab.toolbox import find_tools

    found = find_tools(query, k)
    if as_json:
        print_json(found)
        return
    width = max(len(tool["name"]) for tool in found)
    for tool in found:
        print(f"{tool['name']:{width}s}  {tool['brief']}")
    print(f"\nnext: agentlab tools call {found[0]['name']} key=value ...")


@tools_app.command("call")
def tools_call(
    tool: Annotated[str, typer.Argument(metavar="SERVER.TOOL")], words: Words = None, _json: Json = True
) -> None:
    """Call one tool: values are read as JSON where they are JSON, else as text; the answer is JSON."""
    from agentlab.toolbox import call_once
    from agentlab.words import tool_arguments

    print_json(call_once(tool, tool_arguments(words or [])))
