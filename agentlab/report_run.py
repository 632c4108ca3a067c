"""The sections of a report that the trace tells: verdict, law, errors, what was tried, what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agentlab import replay_figures
from agentlab.replay import Run
from agentlab.report_parts import (
    Block,
    Bullets,
    Code,
    Grid,
    Heading,
    Math,
    Para,
    Part,
    Picture,
    Pre,
    Row,
    Source,
    Sourced,
)
from agentlab.runs_files import seconds_of
from agentlab.trace import Record, number

MOST_GROUPS = 24
MOST_RUNS = 60


def line_of(record: Record) -> str:
    """The reference of a record of the run's trace."""
    return f"t{record['trace_line']}"


def span_of(lines: Sequence[int]) -> str:
    """The reference of what was counted over several lines."""
    return f"t{min(lines)}-{max(lines)}" if len(lines) > 1 else f"t{lines[0]}"


def the(run: Run, kind: str) -> Record | None:
    """The first record of a kind."""
    return next(iter(run.of(kind)), None)


def verdict(run: Run) -> list[Part]:
    """The run in a sentence."""
    law, beside, sealed = the(run, "law"), the(run, "baselines"), the(run, "holdout")
    assert law is not None  # noqa: S101 - the caller has asked for run.law
    told = Source(law, line_of(law))
    parts: list[Part] = []
    if beside is not None and beside["beaten_by"]:
        parts += ["No law beats the baseline ", Code(beside["beaten_by"]), "; the best formula "]
    else:
        parts.append("The law ")
    parts += [
        "predicts the top quarter by scale, hidden from its fit, with a mean error of ",
        _percent(told, "dev.are"),
    ]
    if sealed is not None and sealed.get("holdout") is not None:
        hidden = Source(sealed, "h")
        parts += [" and the sealed hold-out with ", _percent(hidden, "holdout.are")]
        name = "reference_refitted" if sealed.get("reference_refitted") else "reference"
        if sealed.get(name) is not None:
            better = number(sealed["holdout"]["nmse"]) < number(sealed[name]["nmse"])
            parts += [", better than " if better else ", no better than ", "the published form ("]
            parts += [_percent(hidden, f"{name}.are"), ")"]
    if law.get("violations"):
        parts += ["; it breaks in the extrapolation box: ", ", ".join(law["violations"])]
    if any(e.get("simulated") for e in run.experiments()):
        parts.append("; its runs were simulated, nothing was trained")
    return [*parts, "."]


def _percent(source: Source, path: str) -> Part:
    return source.of(path, percent=True) or "an unknown error"


def law(run: Run) -> list[Block]:
    """The law, its parameters with intervals, and its code."""
    found, record = run.law, the(run, "law")
    assert record is not None  # noqa: S101 - as above
    ref = line_of(record)
    size = Sourced(str(record["n_params"]), ref)
    blocks: list[Block] = [Heading(["The law"])]
    if found.program:
        blocks += [Para(["The law is a program with ", size, " parameters in all."]), Pre(found.formula)]
    else:
        blocks.append(Math(found.latex(), found.formula))
        where: list[Part] = [Sourced(f"entry {found.entry}", ref)]
        if "round" in record:
            where += [" of ", Sourced(f"round {record['round']}", ref)]
        blocks.append(Para([size, " parameters for every group and target; ", *where, " of the search."]))
    blocks.append(_parameters(run, ref))
    if not found.program:
        blocks.append(Pre(found.to_python(), "The law as Python that needs NumPy alone"))
    return blocks


def _parameters(run: Run, ref: str) -> Grid:
    law, rows = run.law, []
    for group in list(law.params)[:MOST_GROUPS]:
        for target, named in law.params[group].items():
            for name, value in named.items():
                ends = law.recorded.get(group, {}).get(target, {}).get(name)
                cells: list[Part | None] = [Code(group), Code(target), Code(name), Sourced(f"{value:.6g}", ref)]
                cells += [] if law.program else [Sourced(f"{e:.5g}", ref) for e in ends or ()] or [None, None]
                rows.append(Row(cells, ref))
    head = ["group", "target", "parameter", "value"]
    return Grid(head if law.program else [*head, "ninety-percent interval: low", "high"], rows)


def figures(run: Run) -> list[Block]:
    """How it fits, what is left, how it does beyond the fit."""
    record = the(run, "law")
    assert record is not None  # noqa: S101 - as above
    ref = line_of(record)
    blocks: list[Block] = [
        Heading(["Fit, residuals and extrapolation"]),
        Picture(replay_figures.fit(run.law), ["Every row that is not sealed, and the law with its parameters."], ref),
        Picture(replay_figures.residuals(run.law), ["What the law leaves of every row that is not sealed."], ref),
    ]
    if not run.law.program:
        caption = [
            "The law refitted below each inner cut, on the rows beyond it. The errors of one cut are those of dev."
        ]
        blocks.append(Picture(replay_figures.extrapolation(run.law), caption, ref))
    return blocks


def errors(run: Run) -> list[Block]:
    """Errors beside those of the published law and of predictions without a fit."""
    record, beside, sealed = the(run, "law"), the(run, "baselines"), the(run, "holdout")
    assert record is not None  # noqa: S101 - as above
    rows = [_score("inner extrapolation, the law", record["dev"], line_of(record))]
    if beside is not None:
        others = [r for r in beside["rows"] if r["name"] != "law"]
        rows += [_score(f"inner extrapolation, {r['name']}", r["dev"], line_of(beside)) for r in others]
    names = {"holdout": "the law", "reference": "published law", "reference_refitted": "published form, refitted"}
    for key, name in names.items():
        if sealed is not None and sealed.get(key) is not None:
            rows.append(_score(f"sealed hold-out, {name}", sealed[key], "h"))
    blocks: list[Block] = [
        Heading(["Errors"]),
        Grid(["rows", "mean relative error", "R²", "mean error", "rows in it"], rows),
    ]
    if sealed is None or sealed.get("holdout") is None:
        blocks.append(
            Para(["There is no sealed hold-out: nothing here was measured on rows that the search never saw."])
        )
    if (lucky := the(run, "luck")) is not None:
        told = Source(lucky, line_of(lucky))
        blocks.append(
            Para([
                "On shuffled targets the best of ", _known(told, "candidates"), " laws saves ", _known(told, "gain"),
                " nats a row over a constant; the law saves ", _known(told, "law_gain"), " on the targets as they are.",
            ])
        )  # fmt: skip
    return blocks


def _known(source: Source, path: str) -> Part:
    return source.of(path, ".4g") or "____"


def _score(name: str, score: Record, ref: str) -> Row:
    told = Source(score, ref)
    return Row(
        [name, told.of("are", percent=True), told.of("r2", ".4f"), told.of("mae", ".4g"), told.of("n", ".0f")], ref
    )


def tried(run: Run) -> list[Block]:
    """What was tried and what was rejected, with reasons, and the finalists."""
    blocks: list[Block] = [Heading(["What was tried"])]
    if run.rounds:
        blocks.append(Para(["The candidates are those of the last round's search."]))
    prefix = f"r{run.rounds[-1].id}:" if run.rounds else "t"
    entries = run.entries
    if entries:
        span = f"{prefix}{entries[0].line}-{entries[-1].line}"
        kept = sum(e.status == "ok" for e in entries)
        blocks.append(
            Para(
                [
                    Sourced(str(len(entries)), span),
                    " candidates were tried, ",
                    Sourced(str(kept), span),
                    " were judged.",
                ]
            )
        )
        if (figure := replay_figures.progress(run)) is not None:
            blocks.append(Picture(figure, ["The objective of the best law so far, by candidate."], span))
    rows = []
    for reason in dict.fromkeys(e.reason.split(":")[0] for e in entries if e.status == "rejected"):
        mine = [e for e in entries if e.status == "rejected" and e.reason.split(":")[0] == reason]
        ref = f"{prefix}{mine[0].line}" + (f"-{mine[-1].line}" if len(mine) > 1 else "")
        rows.append(
            Row([_worded(reason, ref), Sourced(str(len(mine)), ref), Code(mine[0].formula[:80] or "none")], ref)
        )
    if rows:
        blocks += [Heading(["Rejected"], 3), Grid(["reason", "candidates", "the first of them"], rows)]
    finalists = [_finalist(r) for r in run.of("finalist")]
    head = ["law", "objective (nats)", "mean relative error beyond", "parameters", "breaks"]
    return [*blocks, Heading(["Finalists"], 3), Grid(head, finalists)]


def _worded(text: str, ref: str) -> Part:
    """Words of the record, which may hold figures."""
    return Sourced(text, ref) if any(c.isdigit() for c in text) else text


def _finalist(record: Record) -> Row:
    ref = line_of(record)
    told = Source(record, ref)
    text = record["formula"] if "\n" not in record["formula"] else "a program"
    if record["status"] != "ok":
        return Row([Code(text), _worded(record.get("reason", ""), ref), None, None, None], ref)
    broken = ", ".join(record.get("violations", ())) or "nothing"
    return Row(
        [Code(text), told.of("objective", ".2f"), told.of("dev.are", percent=True), told.of("n_params", ".0f"), broken],
        ref,
    )


def cost(run: Run) -> list[Block]:
    """The training runs that were made, the models that were asked, and what it took."""
    blocks: list[Block] = [Heading(["Training runs and cost"])]
    made = run.experiments()
    if made:
        names = [Code(n) for n in run.task.names]
        head: list[Part] = ["run", "round", *names, *(Code(t) for t in run.task.targets), "FLOPs", "what became of it"]
        span = span_of([e["trace_line"] for e in made])
        total = math.fsum(number(e["flops"]) for e in made)
        simulated = " The runs were simulated: nothing was trained." if any(e.get("simulated") for e in made) else ""
        blocks += [
            Para(
                [
                    Sourced(str(len(made)), span),
                    " runs of together ",
                    Sourced(f"{total:.4g}", span),
                    " FLOPs.",
                    simulated,
                ]
            ),
            Grid(head, [_made(run, e) for e in made[:MOST_RUNS]]),
        ]
    else:
        blocks.append(Para(["The run made no training runs: it was given its rows."]))
    return [*blocks, *_spent(run)]


def _made(run: Run, record: dict[str, Any]) -> Row:
    ref, told = line_of(record), record.get("targets", {})
    cells: list[Part | None] = [Sourced(str(record["id"]), ref), Sourced(str(record["round"]), ref)]
    cells += [Sourced(f"{record['columns'][n]:.5g}", ref) for n in run.task.names]
    cells += [Sourced(f"{told[t]:.6g}", ref) if t in told else None for t in run.task.targets]
    return Row(
        [*cells, Sourced(f"{number(record['flops']):.4g}", ref), _worded(record.get("reason", "measured"), ref)], ref
    )


def _spent(run: Run) -> list[Block]:
    items: list[list[Part]] = [["Wall time of the run: ", Sourced(f"{seconds_of(run.folder):.1f} s", "m"), "."]]
    told = [run, *run.rounds]
    calls = [r for one in told for r in one.of("reply", "lost", "decision")]
    if calls:
        cost = run.result["cost"]
        lines = [r["trace_line"] for r in calls]
        ref = span_of(lines) if not run.rounds else "t1"
        items.append([
            "Models: ", Sourced(str(len(calls)), ref), " calls and votes, ", Sourced(str(cost["tokens"]), ref),
            " tokens, ", Sourced(f"{cost['usd']:.4f} USD", ref), "; calls that were lost count at their worst.",
        ])  # fmt: skip
    else:
        items.append(["No model was asked."])
    return [Bullets(items)]
