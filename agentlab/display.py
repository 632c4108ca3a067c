"""What a person sees: live progress with the best law so far, and pages of plain text for results."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from agentlab.experiments_dear import DearRuns
from agentlab.trace import dump
from agentlab.types import Task

if TYPE_CHECKING:
    from agentlab.discover import Dear, Progress

PLAIN_EVERY = 2.0
"""Seconds between progress lines where the output is no terminal."""

SHOWN_GROUPS = 6
"""Groups whose parameters are printed; the rest are counted."""


@contextmanager
def watch(folder: Path, *, plain: bool) -> Iterator[Callable[[Progress], None]]:
    """A function to tell progress to: one live line on a terminal, else a line now and then on stderr."""
    if plain:
        yield _plain_teller()
        return
    with Live(Text(f"{folder}: starting the tool servers ..."), console=Console(), refresh_per_second=8) as live:

        def tell(progress: Progress) -> None:
            for note in progress.notes:
                live.console.print(Text(f"note: {note}"))
            live.update(Text(_line(progress)))

        yield tell


def approver(answer: bool | None) -> Callable[[Dear | DearRuns], bool | None]:
    """Says whether dear calls and runs may be made: as was said in advance, else a person at the terminal is asked."""

    def approve(dear: Dear | DearRuns) -> bool | None:
        if answer is not None or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return answer
        sys.stderr.write(f"\n{_question(dear)} [y/N] ")
        sys.stderr.flush()
        said = sys.stdin.readline()
        return said.strip().lower() in ("y", "yes") if said else None

    return approve


def _question(dear: Dear | DearRuns) -> str:
    if isinstance(dear, DearRuns):
        return f"{dear.runs} run(s) take {dear.flops:.3g} FLOPs together. Make them?"
    each = f"{dear.most_tokens:,} tokens" + (f" or ${dear.most_usd:.4f}" if dear.most_usd else "")
    return f"{dear.calls} call(s) to a model may each take up to {each}. Make them?"


def _plain_teller() -> Callable[[Progress], None]:
    last = [0.0]

    def tell(progress: Progress) -> None:
        for note in progress.notes:
            sys.stderr.write(f"note: {note}\n")
        if time.monotonic() - last[0] >= PLAIN_EVERY or progress.phase != "search":
            last[0] = time.monotonic()
            sys.stderr.write(_line(progress).replace("\n", "   ") + "\n")
            sys.stderr.flush()

    return tell


def _line(progress: Progress) -> str:
    """E.g. "640/1500 candidates, 210 rejected, 8 s" and the best law so far below it."""
    if progress.phase not in ("search", "finalists"):
        return f"{progress.phase}, {progress.seconds:.0f} s"
    limit = f"/{progress.limit}" if progress.limit else ""
    what = f"{progress.committed}{limit} candidates, {progress.rejected} rejected, {progress.seconds:.0f} s"
    if progress.calls:
        what += f"; {progress.calls} calls, {progress.tokens:,} tokens"
        what += f", ${progress.usd:.4f}" if progress.usd else ""
    if progress.phase != "search":
        what += f"; {progress.phase}: many starts, more cuts"
    if progress.best is None or progress.best.outcome.dev is None:
        return f"{what}\nno law yet"
    dev = progress.best.outcome.dev
    quality = f"inner extrapolation: error {dev.are:.2%}, R2 {dev.r2:.4f}"
    return f"{what}\nbest so far: {progress.best.proposal.formula}   ({quality})"


def summary(result: Mapping[str, Any]) -> str:
    """A run's result as a page: the law, its parameters with intervals, its errors beside the published law's."""
    law, score = result["law"], result["score"]
    text = f"a program, in {result['dir']}/law.py" if law["program"] else law["formula"]
    lines = [
        f"law       {text}",
        f"          {law['n_params']} parameters; entry {law['entry']} of {_place_of(result)}/trace.jsonl",
        "",
    ]
    lines += _parameters(law["params"], law["intervals"])
    lines += ["", f"{'errors':38s} {'R2':>8s} {'MAE':>9s} {'ARE':>8s} {'rows':>6s}"]
    for title, key in _SCORES:
        if score.get(key) is not None:
            lines.append(_score_line(title, score[key]))
    for name, dev in result["baselines"]["dev"].items():
        lines.append(_score_line(f"inner extrapolation, {name}", dev))
    if score.get("holdout") is None:
        lines.append('no hold-out: give one with holdout=FILE.csv or holdout="expression"')
    counts = result["counts"]
    reasons = ", ".join(f"{v} {k}" for k, v in counts["rejected"].items()) or "none"
    lines += ["", f"tried     {counts['evaluated']} candidates kept; rejected: {reasons}"]
    if (luck := result["luck"]) is not None:
        lines.append(
            f"luck      shuffled targets: the best of {luck['candidates']} saves {float(luck['gain']):.3f} nats a row "
            f"over a constant; the law saves {float(luck['law_gain']):.3f}"
        )
    lines += _made(result)
    lines += _voted(result)
    lines += _written(result)
    lines += [f"cost      {result['cost']['seconds']:.1f} s", f"verdict   {result['verdict']}"]
    lines += ["", f"next: agentlab predict {result['dir']} data=POINTS.csv"]
    return "\n".join(lines)


def _place_of(result: Mapping[str, Any]) -> str:
    """The folder whose trace holds the entry of the law."""
    number = result["law"].get("round")
    return str(result["dir"]) if number is None else f"{result['dir']}/rounds/{number:02d}"


def _made(result: Mapping[str, Any]) -> list[str]:
    """The runs that were made for the law; nothing where none were asked for."""
    found = result["counts"].get("experiments")
    if found is None:
        return []
    rejected = ", ".join(f"{v} {k}" for k, v in found["rejected"].items())
    made = f"{found['made']} runs in {found['rounds']} rounds" + (f"; rejected: {rejected}" if rejected else "")
    label = " (simulated: nothing was trained)" if found["simulated"] else ""
    lines = [f"runs      {made}; {result['cost']['flops']:.4g} FLOPs{label}; ended: {found['ended']}"]
    if found["regret"]:
        lines.append(f"decision  {_path(found['regret'])}: % of its compute that it is expected to waste, by round")
    return lines


def _path(values: Sequence[float]) -> str:
    return " -> ".join(f"{float(v):.2g}" for v in values)


def _voted(result: Mapping[str, Any]) -> list[str]:
    """What the models of a run decided and took; nothing where there were none."""
    found = result["counts"].get("decisions")
    if found is None:
        return []
    decided, asked = found["decided"], found["decided"] + found["undecided"]
    took = f"{found['calls']} calls, {found['tokens']:,} tokens"
    return [f"votes     parents elected for {decided} of {asked} blocks that were voted on; {took}"]


def _written(result: Mapping[str, Any]) -> list[str]:
    """What the models of a run wrote and took, and what they were shown."""
    found = result["counts"].get("replies")
    if found is None:
        return []
    shown = "names and description hidden (blind)" if result["blind"] else "names and description shown"
    cost = result["cost"]
    failed = f", {found['failed']} of them failed" if found["failed"] else ""
    calls = f"{found['calls']} calls{failed}: {found['tried']} proposals tried, {found['rejected']} refused before"
    money = f", ${cost['usd']:.4f}" if cost["usd"] else ""
    spent = f"{cost['tokens']:,} tokens{money} in all, lost calls at their worst"
    return [f"models    {calls}; {shown}", f"spent     {spent}"]


_SCORES = (
    ("inner extrapolation (top quarter)", "dev"),
    ("hold-out", "holdout"),
    ("hold-out, published law", "reference_holdout"),
    ("hold-out, published form refitted", "refitted_reference_holdout"),
)


def _score_line(title: str, score: Mapping[str, Any]) -> str:
    s = {k: float(v) for k, v in score.items()}
    return f"{title:38s} {s['r2']:8.4f} {s['mae']:9.4g} {s['are']:8.2%} {s['n']:6.0f}"


def _parameters(params: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[str]:
    lines = [f"{'parameter':14s} {'value':>12s}   90% interval (resampled training runs)"]
    for group in list(params)[:SHOWN_GROUPS]:
        for target, values in params[group].items():
            if len(params) > 1 or len(params[group]) > 1:
                lines.append(f"  {group} / {target}")
            for name, value in values.items():
                span = intervals.get(group, {}).get(target, {}).get(name)
                told = f"[{span[0]:.5g}, {span[1]:.5g}]" if span else "none: it is a program's"
                lines.append(f"{name:14s} {value:12.5g}   {told}")
    if len(params) > SHOWN_GROUPS:
        lines.append(f"  ... and {len(params) - SHOWN_GROUPS} more groups: --json prints all")
    return lines


def fitted(answer: Mapping[str, Any]) -> str:
    """The page of `agentlab fit`."""
    lines = [f"law       {answer['formula']}", "", *_parameters(answer["params"], answer["intervals"]), ""]
    lines += [_fit_line(f) for f in answer["fits"][:SHOWN_GROUPS]]
    weak = [f for f in answer["fits"] if f["condition"] > POORLY_IDENTIFIED]
    if weak:
        lines.append(f"{len(weak)} fit(s) with a condition number above {POORLY_IDENTIFIED:.0e}: poorly identified")
    return "\n".join(lines)


def _fit_line(f: Mapping[str, Any]) -> str:
    return (
        f"{f['group']} / {f['target']}: {f['n']} rows, residual scale {f['residual_scale']:.4g}, "
        f"{f['converged']:.0%} of the starts at the best, condition {f['condition']:.3g}"
    )


POORLY_IDENTIFIED = 1e5
"""Condition number of the scaled Jacobian above which single parameters mean little (FACTS section 4)."""


def predictions(answer: Mapping[str, Any]) -> str:
    """The page of `agentlab predict`: CSV on stdout."""
    columns = answer["columns"]
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(names), *(",".join(_cell(v) for v in row) for row in rows)])


def _cell(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def task_page(task: Task, *, as_json: bool) -> str:
    """What a task is about."""
    reference = task.reference
    page: dict[str, Any] = {
        "name": task.name,
        "title": task.title,
        "features": {
            v.name: {"unit": v.unit, "description": v.description, "monotone": v.monotone} for v in task.features
        },
        "targets": list(task.targets),
        "group": task.group,
        "scale": task.scale,
        "residual": task.residual,
        "max_params": task.max_params,
        "reference": None if reference is None else {"formula": reference.formula, "source": reference.source},
    }
    if as_json:
        return dump(page).decode().strip()
    lines = [f"{task.name}: {task.title}", ""]
    lines += [f"  {v.name:16s} {v.unit:12s} {v.description}" for v in task.features]
    lines += [f"  -> {', '.join(task.targets)}   (scale {task.scale}, at most {task.max_params} parameters)"]
    if reference is not None:
        lines += [f"  published law: {reference.formula}", f"  {reference.source}"]
    return "\n".join([*lines, "", f"next: agentlab discover task={task.name}"])
