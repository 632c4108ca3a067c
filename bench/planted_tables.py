"""The tables of bench/planted.py: how often laws extrapolate, are recovered, and are held by their intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from machine import RESULTS, about, save

Line = Mapping[str, Any]

GOOD = 0.9
"""Test R2 from which a law extrapolates."""


def good(value: float | None) -> bool:
    """Whether a test R2 is good; a law that broke down has none."""
    return value is not None and value >= GOOD


def figures(lines: Sequence[Line]) -> dict[str, Any]:
    """Counts over some sets: where the true form is good, where ours is too, recovered, failed, held by intervals."""
    reachable = [x for x in lines if good(x["true_r2"])]
    return {
        "sets": len(lines),
        "reachable": len(reachable),
        "good": sum(good(x["r2"]) for x in reachable),
        "recovered": sum(bool(x["recovered"]) for x in lines),
        "failed": sum("failure" in x for x in lines),
        "parameters": [sum(x["parameters"][i] for x in lines) for i in (0, 1)],
        "points": [sum(x["points"][i] for x in lines) for i in (0, 1)],
        "seconds": round(sum(x.get("seconds", 0.0) for x in lines) / max(len(lines), 1), 1),
    }


def show(lines: Sequence[Line], candidates: int, *, keep: bool) -> None:
    """Print the tables and a JSON line; with `keep` they also go to bench/results/planted.json and planted.md."""
    result: dict[str, Any] = {"bench": "planted", "candidates": candidates}
    page: list[str] = []
    for part in ("main", "recovery"):
        mine = [x for x in lines if x["part"] == part]
        if mine:
            result[part], text = _part(part, mine)
            page += text
    sets = sorted((x for x in lines if x["part"] == "chinchilla"), key=lambda x: int(x["seed"]))
    if sets:
        result["chinchilla"], text = _chinchilla(sets)
        page += text
    print("\n".join(page))
    if keep:
        save(result)
        shown = "\n".join(["```", *page, "```", "", _HEADINGS])
        (RESULTS / "planted.md").write_text(f"# Planted laws, {candidates} candidates a set\n\n{shown}\n")
    print(json.dumps(result | {"machine": about()}))


_HEADINGS = """Reachable: the true form, fitted, has a test R2 of .9 or more; R2>=.9: ours has too, of the reachable
ones; key: the law found is the true form; params, points: 90% intervals of the true form's fit that hold the true
parameters, and the noise-free target at test points; s: seconds a set on one core. `outside`: families whose structure
stands in no law that the search starts from, fixed before any tuning."""


def _part(part: str, lines: Sequence[Line]) -> tuple[dict[str, Any], list[str]]:
    inside = [x for x in lines if not x["outside"]]
    outside = [x for x in lines if x["outside"]]
    table = {name: figures([x for x in lines if x["family"] == name]) for name in _names([*inside, *outside])}
    totals = {"inside": figures(inside), "outside": figures(outside), "all": figures(lines)}
    page = ["", f"{part:20}{'sets':>6}{'reachable':>11}{'R2>=.9':>9}{'key':>7}{'params':>9}{'points':>9}{'s':>8}"]
    for name, row in (table | totals).items():
        page.append(
            f"{name:20}{row['sets']:6}{row['reachable']:11}{_share(row['good'], row['reachable']):>9}"
            f"{_share(row['recovered'], row['sets']):>7}{_share(*row['parameters']):>9}{_share(*row['points']):>9}"
            f"{row['seconds']:8.1f}"
        )
    return {"families": table} | totals, page


def _names(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(str(x["family"]) for x in lines))


def _share(some: int, of: int) -> str:
    return f"{100 * some / of:.0f}%" if of else "-"


def _chinchilla(lines: Sequence[Line]) -> tuple[dict[str, Any], list[str]]:
    columns = ("r2", "true_r2", "operon_r2")
    page = ["", f"{'planted_chinchilla':20}{'agentlab':>10}{'true form':>11}{'pyoperon':>10}"]
    for x in lines:
        shown = ["-inf" if x.get(c) is None else f"{x[c]:.3f}" for c in columns]
        page.append(f"{x['seed']:<20}{shown[0]:>10}{shown[1]:>11}{shown[2]:>10}")
    counts = {c: sum(good(x.get(c)) for x in lines) for c in columns}
    page.append(f"{'R2 >= .9':20}{counts['r2']:10}{counts['true_r2']:11}{counts['operon_r2']:10}  of {len(lines)}")
    versions = sorted({str(x.get("operon_version")) for x in lines})
    return counts | {"sets": len(lines), "operon_versions": versions}, page
