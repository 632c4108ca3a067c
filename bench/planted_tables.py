"""The tables of bench/planted.py: how often laws extrapolate, are recovered, and are held by their intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from machine import about, save

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
    """Print the tables and a JSON line; with `keep` the summary also goes to bench/results/planted.json."""
    result: dict[str, Any] = {"bench": "planted", "candidates": candidates}
    for part in ("main", "recovery"):
        mine = [x for x in lines if x["part"] == part]
        if mine:
            result[part] = _part(part, mine)
    sets = sorted((x for x in lines if x["part"] == "chinchilla"), key=lambda x: int(x["seed"]))
    if sets:
        result["chinchilla"] = _chinchilla(sets)
    if keep:
        save(result)
    print(json.dumps(result | {"machine": about()}))


def _part(part: str, lines: Sequence[Line]) -> dict[str, Any]:
    inside = [x for x in lines if not x["outside"]]
    outside = [x for x in lines if x["outside"]]
    table = {name: figures([x for x in lines if x["family"] == name]) for name in _names([*inside, *outside])}
    totals = {"inside": figures(inside), "outside": figures(outside), "all": figures(lines)}
    print(f"\n{part:20}{'sets':>6}{'reachable':>11}{'R2>=.9':>9}{'key':>7}{'params':>9}{'points':>9}{'s':>8}")
    for name, row in (table | totals).items():
        print(
            f"{name:20}{row['sets']:6}{row['reachable']:11}{_share(row['good'], row['reachable']):>9}"
            f"{_share(row['recovered'], row['sets']):>7}{_share(*row['parameters']):>9}{_share(*row['points']):>9}"
            f"{row['seconds']:8.1f}"
        )
    return {"families": table} | totals


def _names(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(str(x["family"]) for x in lines))


def _share(some: int, of: int) -> str:
    return f"{100 * some / of:.0f}%" if of else "-"


def _chinchilla(lines: Sequence[Line]) -> dict[str, Any]:
    columns = ("r2", "true_r2", "operon_r2")
    print(f"\n{'planted_chinchilla':20}{'agentlab':>10}{'true form':>11}{'pyoperon':>10}")
    for x in lines:
        shown = ["-inf" if x.get(c) is None else f"{x[c]:.3f}" for c in columns]
        print(f"{x['seed']:<20}{shown[0]:>10}{shown[1]:>11}{shown[2]:>10}")
    counts = {c: sum(good(x.get(c)) for x in lines) for c in columns}
    print(f"{'R2 >= .9':20}{counts['r2']:10}{counts['true_r2']:11}{counts['operon_r2']:10}  of {len(lines)}")
    return counts | {"sets": len(lines), "operon_versions": sorted({str(x.get("operon_version")) for x in lines})}
