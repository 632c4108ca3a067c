"""The tool server `data`: describes tables of training runs, and makes new tables of them that laws are fitted to."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from agentlab.tools._describe import Described, described
from agentlab.tools._leverage import NEEDED, Leverage, leverage_of, read_runs, write_leverage
from agentlab.tools._refusals import refusals
from agentlab.tools._sealed import readable
from agentlab.tools._server import hints, serve, tool_server
from agentlab.tools._tables import as_cells, cells_of, computed, new_file, rows_kept, write_table
from mcp.server import MCPServer
from pydantic import BaseModel, Field

server: MCPServer[Any] = tool_server(
    "data", "Look at tables of training runs, and turn them into the tables that laws are fitted to."
)

File = Annotated[str, Field(description="A CSV file, by its path or its path inside a data folder.")]
New = Annotated[str, Field(description="The new CSV file to write; one that exists is never written over.")]


class Kept(BaseModel):
    """The new table, and how many rows it keeps of those there were."""

    out: str
    rows: int
    of: int


class NewColumn(BaseModel):
    """A computed column; `blank` rows have no finite number."""

    name: str
    low: float | None
    high: float | None
    blank: int


class Extended(BaseModel):
    """The new table and its computed columns."""

    out: str
    rows: int
    columns: list[NewColumn]


@server.tool(annotations=hints(reads=True))
def describe(
    data: File,
    target: Annotated[str | None, Field(description="The column to be explained.")] = None,
    features: Annotated[list[str] | None, Field(max_length=32, description="The columns that explain it.")] = None,
) -> Described:
    """Columns, types, ranges, gaps and groups of a table, features that move together, and what could be the scale."""
    with refusals():
        return described(readable(data), target, features or [])


@server.tool(name="filter", annotations=hints())
def filter_rows(
    data: File,
    where: Annotated[str, Field(description="Such as n_params >= 1e8 and family in ('a', 'b').")],
    out: New,
) -> Kept:
    """The rows of a table that meet a condition, cell for cell, as a new CSV file."""
    with refusals():
        path, new = readable(data), new_file(out)
        keep = np.flatnonzero(rows_kept(path, where))
        read = cells_of(path)
        write_table(new, {name: read.values[name][keep] for name in read.header})
    return Kept(out=str(new), rows=len(keep), of=len(read.lines))


@server.tool(annotations=hints())
def derive(
    data: File,
    columns: Annotated[
        dict[str, str],
        Field(min_length=1, max_length=32, description='Such as {"C": "6*n*d"}; a later one may use an earlier one.'),
    ],
    out: New,
) -> Extended:
    """A table with columns computed from its others, as a new CSV file."""
    with refusals():
        path, new = readable(data), new_file(out)
        made = computed(path, columns)
        read = cells_of(path)
        write_table(new, {**{n: read.values[n] for n in read.header}, **{m.name: as_cells(m.values) for m in made}})
    shown = []
    for m in made:
        known = m.values[~np.isnan(m.values)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (None, None)
        shown.append(NewColumn(name=m.name, low=low, high=high, blank=m.blank))
    return Extended(out=str(new), rows=len(read.lines), columns=shown)


@server.tool(annotations=hints())
def leverage(
    runs: Annotated[str, Field(description="CSV of runs with the columns " + ", ".join(NEEDED) + ".")],
    out: Annotated[str | None, Field(description="Also write the rows to this new CSV.")] = None,
    max_dense_flops: Annotated[float, Field(gt=0, description="Use dense runs up to this budget only.")] = math.inf,
    resamples: Annotated[int, Field(ge=20, le=2000, description="Resamples behind el_se.")] = 200,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Leverage:
    """Efficiency leverage of the MoE runs of a table against its dense frontier, each at its best size, with errors."""
    with refusals():
        path = readable(runs)
        new = None if out is None else new_file(out)
        found = read_runs(path)
        dense = [r for r in found if r.dense and r.budget <= max_dense_flops]
        table = leverage_of([r for r in found if not r.dense], dense, resamples, seed)
        if new is not None:
            write_leverage(new, table)
    return table


if __name__ == "__main__":
    serve(server)
