"""Our client under the conformance package: a toolbox that calls every tool of the server at the URL it is given.

The package says in MCP_CONFORMANCE_CONTEXT which calls a scenario wants; where it says nothing, every tool is called
with arguments that its schema admits.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from agentlab.toolbox import ServerSpec, Toolbox
from agentlab.types import EvaluationError

PLAIN = {"integer": 2, "number": 2.0, "string": "text", "boolean": True}
FOCAL = "json_schema_2020_12_tool"


def admitted(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a tool; one that wants a schema is given that of the tool which the scenario looks at."""
    wanted = {name: kind for name, kind in schema.get("properties", {}).items() if isinstance(kind, dict)}
    return {
        name: schemas[FOCAL] if name == "schema" and FOCAL in schemas else PLAIN[kind["type"]]
        for name, kind in wanted.items()
        if kind.get("type") in PLAIN or name == "schema"
    }


async def main(url: str) -> None:
    """Call the tools of one server."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    async with Toolbox([ServerSpec("scenario", url=url)], timeout=20) as toolbox:
        schemas = {tool.name: tool.schema for tool in await toolbox._copies["scenario"][0].tools()}
        calls = context.get("toolCalls") or [
            {"name": name, "arguments": admitted(schema, schemas)} for name, schema in schemas.items()
        ]
        for call in calls:
            try:
                await toolbox.call(f"scenario.{call['name']}", call.get("arguments") or {})
            except EvaluationError as refusal:
                sys.stderr.write(f"{refusal}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1]))
