"""Tables for a notebook: rows of values as text and as escaped HTML, and checks in the order a reader asks for them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from agentlab.replay import Run
from agentlab.replay_checks import Check
from agentlab.replay_law import FoundLaw
from agentlab.trace import number

WORST_ROWS = 12


class Table:
    """Rows, a mapping each, shown as a table; the columns are those of the first row."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
        self.rows, self.title = list(rows), title
        self.names = list(rows[0]) if rows else []

    def _repr_html_(self) -> str:
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        head = "".join(f"<th>{escape(str(n))}</th>" for n in self.names)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(row.get(n)))}</td>" for n in self.names) + "</tr>" for row in self.rows
        )
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        lines = [[str(n) for n in self.names], *([_cell(row.get(n)) for n in self.names] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.names))]
        told = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*([self.title] if self.title else []), *told])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def parameters(law: FoundLaw) -> Table:
    """Every parameter with its 90% interval."""
    rows = []
    for group, targets in law.params.items():
        for target, named in targets.items():
            for name, value in named.items():
                low, high = law.intervals.get(group, {}).get(target, {}).get(name, (math.nan, math.nan))
                row = {"group": group, "target": target, "parameter": name, "value": float(value)}
                rows.append(row | ({} if law.program else {"90% low": low, "90% high": high}))
    return Table(rows, f"entry {law.entry}: parameters on record, intervals by resampled training runs")


def laws(run: Run, most: int = 12) -> Table:
    """The believed law and the other finalists, as they are on record."""
    told = {r["entry"]: r for r in run.of("finalist")}
    rows = []
    for law in run.laws[:most]:
        r = told[law.entry]
        text = law.formula if not law.program else f"program, {len(law.formula.splitlines())} lines"
        row = {"entry": law.entry, "line": r["trace_line"], "believed": "yes" if law.made == "law" else ""}
        row |= {"objective": number(r["objective"]), "n_params": r["n_params"], "law": text}
        rows.append(row | {"dev ARE": number(r["dev"]["are"]), "violations": ", ".join(r.get("violations", ()))})
    return Table(rows, "finalists: objectives in nats, the errors of the inner extrapolation (dev)")


def generations(run: Run) -> Table:
    """What each generation brought."""
    rows = []
    for g in run.generations:
        best = "" if g.best is None else _short(g.best.formula)
        row: dict[str, Any] = {"generation": g.number, "entries": f"{g.entries[0].id} .. {g.entries[-1].id}"}
        row |= {"best so far": "" if g.best is None else g.best.id, "law": best}
        row |= {"objective": None if g.best is None else g.best.objective, "new kinds of laws": len(g.structures)}
        rows.append(row | {"rejected": sum(g.rejected.values())})
    return Table(rows, f"generations of up to {run.window} entries")


def entries(run: Run, generation: int, most: int = 16) -> Table:
    """The entries of a generation, the best first."""
    block = sorted(run.generations[generation].entries, key=lambda e: (e.objective, e.id))
    rows = [
        {
            "entry": e.id, "line": e.line, "by": e.operator, "parents": ", ".join(map(str, e.parents)),
            "status": e.reason or e.status, "objective": e.objective, "law": _short(e.formula),
        }
        for e in block[:most]
    ]  # fmt: skip
    return Table(rows, f"generation {generation}: the best {len(rows)} of {len(block)} entries")


def _short(formula: str) -> str:
    """The first line of a law, as far as it fits a table."""
    return formula.splitlines()[0][:70] if formula else ""


def summary(checks: Sequence[Check]) -> Table:
    """How many values of each kind there are, how many differ, and by how much at most."""
    counts = Counter(c.kind for c in checks)
    wrong = Counter(c.kind for c in checks if not c.holds)
    rows = []
    for kind, count in counts.items():
        worst = max(c.difference for c in checks if c.kind == kind)
        told = {"kind": kind, "values": count, "differ": wrong[kind]}
        rows.append(told | {"largest relative difference": worst if kind == "recomputed" else None})
    return Table(rows, "what the trace records")


def side_by_side(checks: Sequence[Check], what: str = "law") -> Table:
    """The checks of a kind of record (law, finalist, baselines, luck, round, experiment), recorded and recomputed."""
    kept = [c for c in checks if c.name.split()[0] == what and isinstance(c.recorded, float)]
    return Table([_row(c) for c in kept], f"{what}: recorded and recomputed")


def by_entry(checks: Sequence[Check], most: int = 60) -> Table:
    """One row a candidate: its objective recorded and recomputed, and the largest difference of all its values."""
    of: dict[tuple[str, int | None], list[Check]] = {}
    for c in checks:
        if c.name.split()[0] == "entry":
            of.setdefault((c.trace, c.entry), []).append(c)
    rows = []
    for (trace, entry), mine in of.items():
        at = next((c for c in mine if c.name in ("entry objective", "entry mdl")), mine[0])
        row = {"trace": trace, "line": at.line, "entry": entry, "values": len(mine), "value": at.name.split()[1]}
        row |= {"recorded": at.recorded, "recomputed": at.recomputed}
        rows.append(row | {"largest difference": max(c.difference for c in mine)})
    step = max(math.ceil(len(rows) / most), 1)
    return Table(rows[::step], f"{len(rows)} candidates" + (f", every {step}th is shown" if step > 1 else ""))


def read(checks: Sequence[Check], kind: str) -> Table:
    """Values that are read or copied, not computed."""
    kept = [c for c in checks if c.kind == kind]
    return Table(
        [{"value": c.name, "recorded": c.recorded, "where": f"{c.trace}, line {c.line}"} for c in kept[:200]],
        f"{kind}: {len(kept)} values",
    )


def wrong(checks: Sequence[Check]) -> list[str]:
    """A line for every recomputed value that is another than the recorded one, at most WORST_ROWS."""
    return [
        f"{c.trace} line {c.line}: {c.name} is {c.recorded} on record and {c.recomputed} now"
        for c in checks
        if not c.holds
    ][:WORST_ROWS]


def _row(check: Check) -> dict[str, Any]:
    row = {"line": check.line, "entry": check.entry, "value": check.name, "recorded": check.recorded}
    return row | {"recomputed": check.recomputed, "relative difference": check.difference}
