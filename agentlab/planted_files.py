"""Writes a planted set as a task's folder: task.toml, the truth as reference.toml, and both splits as CSV."""

from __future__ import annotations

import json
from pathlib import Path

from agentlab.planted_records import Family, Planted
from agentlab.types import Rows, Variable

TRAIN, HOLDOUT = "data/train.csv", "data/holdout.csv"


def write_task(one: Planted, kind: Family, folder: Path) -> None:
    """Write the set `one` of the family `kind` into `folder`, which is made; numbers have ten significant digits."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    _write(folder / "task.toml", _task_text(one, kind))
    _write(folder / "reference.toml", _reference_text(one, kind))
    _write(folder / TRAIN, _csv(one.rows, one))
    _write(folder / HOLDOUT, _csv(one.holdout, one))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _task_text(one: Planted, kind: Family) -> str:
    task = one.task
    lines = [
        "# Synthetic: no model was trained. The rows were drawn from the law in reference.toml",
        f'# by agentlab.planted.plant("{one.family}", seed={one.seed}): {len(one.rows)} rows, design {one.design},',
        f"# noise {100 * one.noise:.2g}%, {100 * one.outliers:g}% of rows astray; the hold-out has no noise.",
        "",
        "[task]",
        f"title = {json.dumps(task.title)}",
        f"scale = {json.dumps(task.scale)}",
    ]
    lines += [f"group = {json.dumps(task.group)}"] if task.group else []
    for feature in task.features:
        lines += ["", *_feature_lines(feature)]
    lines += ["", "[target]", f"columns = [{json.dumps(kind.target)}]", ""]
    lines += ["[law]", f"max_params = {task.max_params}", f'residual = "{task.residual}"', ""]
    lines += ["[data]", f'train = "{TRAIN}"', f'holdout = "{HOLDOUT}"']
    return "\n".join(lines) + "\n"


def _feature_lines(feature: Variable) -> list[str]:
    lines = ["[[feature]]", f'name = "{feature.name}"']
    if feature.box is not None:
        lines.append(f"box = [{_number(feature.box[0])}, {_number(feature.box[1])}]")
    if feature.monotone:
        lines.append(f'monotone = "{feature.monotone}"')
    return [*lines, f"log = {'true' if feature.log else 'false'}"]


def _reference_text(one: Planted, kind: Family) -> str:
    lines = [
        "# The truth that the rows were drawn from (synthetic).",
        f"formula = {json.dumps(one.formula)}",
        f"source = {json.dumps(kind.source)}",
    ]
    if len(one.params) == 1:
        (targets,) = one.params.values()
        lines += ["", "[params]", *(f"{name} = {_number(v)}" for name, v in targets[kind.target].items())]
    else:
        lines += ["# Every group has constants of its own:"]
        for group, targets in one.params.items():
            told = ", ".join(f"{name} {v:.6g}" for name, v in targets[kind.target].items())
            lines.append(f"#   {group}: {told}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    text = f"{value:.10g}"
    return text if any(c in text for c in ".e") else f"{text}.0"


def _csv(rows: Rows, one: Planted) -> str:
    columns = {**rows.columns, **rows.targets}
    table = {name: [f"{v:.10g}" for v in values] for name, values in columns.items()}
    if one.task.group:
        table = {one.task.group: [str(g) for g in rows.group], **table}
    return "\n".join(",".join(row) for row in [tuple(table), *zip(*table.values(), strict=True)]) + "\n"
