"""Writes a planted set as a task's folder: task.toml, the truth as reference.toml, and both splits as CSV."""

from __future__ import annotations

import json
from pathlib import Path

from agentlab.planted_records import Family, Planted
from agentlab.planted_worlds import BEYOND, KINDS, LEVELS, NINE
from agentlab.types import ALL, Rows, Variable

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
    lines += design_lines(one, kind)
    return "\n".join(lines) + "\n"


def design_lines(one: Planted, kind: Family) -> list[str]:
    """The table [design] of a family that is a world: its runs are simulated, and cost what real ones would."""
    told = next((k for k in KINDS if k.name == one.family), None)
    if told is None or len(one.params) != 1:
        return []
    params = one.params[ALL][kind.target]
    lines = [
        "",
        "# Runs that can be asked for: synthetic, played by the simulator of the tool server `train`.",
        "[design]",
        'tool = "train.start"',
        'poll = "train.status"',
        'cancel = "train.cancel"',
        f"cost = {json.dumps(told.cost)}",
        f"noise = {_number(one.noise)}",
        'seed = "seed"',
        "",
        "[design.arguments]",
        'backend = "simulator"',
        "",
        "[design.arguments.truth]",
        f"law = {json.dumps(one.formula)}",
        f"noise = {_number(one.noise)}",
        f"params = {{ {', '.join(f'{n} = {_number(v)}' for n, v in params.items())} }}",
    ]
    for feature in kind.features:
        lines += ["", "[[design.knob]]", f'name = "{feature.name}"']
        if feature.choices:
            lines.append(f"values = [{', '.join(_number(c) for c in sorted(feature.choices))}]")
        else:
            high = feature.high * (BEYOND if feature.grows else 1.0)
            lines += [f"low = {_number(feature.low)}", f"high = {_number(high)}"]
            lines += [f"levels = {LEVELS if feature.grows else NINE}", f"log = {'true' if feature.log else 'false'}"]
    config = [f'{f.name} = "= {f.name}"' for f in kind.features]
    return [*lines, "", "[design.config]", *config, f"flops = {json.dumps('= ' + told.cost)}", "", "[design.targets]",
            f'{kind.target} = "valid_loss"']  # fmt: skip


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
