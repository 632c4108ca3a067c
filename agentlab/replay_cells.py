"""The cells of a replay notebook: what is shown of a run, as text and as code that works from its folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentlab import allocation
from agentlab.errors import AgentlabError
from agentlab.replay import Run


@dataclass(frozen=True)
class Cell:
    """One cell: Markdown, or code with tags that papermill and nbclient know."""

    text: str
    code: bool = False
    tags: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Asked:
    """The parameters of a notebook: the run as a path from the notebook, what to show of it, and what to compare with.

    `entries` limits the candidates that are fitted anew; None fits all.
    """

    run: str
    generation: int | None = None
    ci: float = 0.9
    flops: float | None = None
    entries: int | None = None
    others: Sequence[str] = ()


def cells_of(run: Run, asked: Asked) -> list[Cell]:
    """The cells for a finished run. Raises UsageError, NoLawError where it has no law."""
    law = run.law
    found = [*_opening(run, asked), *_laws(), *_law(run)]
    found += [] if law.program else _beyond(run, asked)
    found += [*_measured(run), *_checked(), *_sealed(run), *_after()]
    return found


def _opening(run: Run, asked: Asked) -> list[Cell]:
    known = {
        "RUN": asked.run,
        "GENERATION": asked.generation,
        "CI": asked.ci,
        "FLOPS": asked.flops if asked.flops is not None else _flops(run),
        "ENTRIES": asked.entries,
        "COMPARE_WITH": list(asked.others),
        "FORK_AFTER": None,
    }
    notes = {
        "GENERATION": "the generation to look into; None takes the last that found something",
        "CI": "share of the bootstrap's laws between the ends of an interval",
        "FLOPS": "the compute of the allocation",
        "ENTRIES": "candidates that are fitted anew; None fits all",
        "COMPARE_WITH": "folders of other runs",
        "FORK_AFTER": "a generation after which a new run is made; None makes none",
    }
    lines = [f"{k} = {v!r}" + (f"  # {notes[k]}" if k in notes else "") for k, v in known.items()]
    return [
        Cell(
            f"# Replay of run {_plain(run.id)}\n\nEverything below is read from the run's folder, or computed anew "
            "from the rows in it. No network and no model is needed. Change the parameters and run all cells again."
        ),
        Cell("\n".join(lines), code=True, tags=("parameters",)),
        Cell(
            "from agentlab.replay import compare, open_run\n"
            "from agentlab.replay_recompute import recompute\n"
            "from agentlab import replay_figures as figures, replay_show as show\n\n"
            "run = open_run(RUN)\nprint(run.result['verdict'])\n"
            "show.Table([{'setting': k, 'value': v} for k, v in run.records[0].items() if k != 'kind'], "
            "'the run, as line 1 of its trace tells it')",
            code=True,
        ),
    ]


def _laws() -> list[Cell]:
    return [
        Cell("## Laws\n\nThe believed law first, then the other finalists. `run.laws[1]` is a law like `run.law`."),
        Cell("show.laws(run)", code=True),
        Cell("## The search, generation by generation"),
        Cell("figures.progress(run)", code=True),
        Cell("show.generations(run)", code=True),
        Cell(
            "found = [g.number for g in run.generations if g.improved]\n"
            "generation = GENERATION if GENERATION is not None else (found or [0])[-1]\n"
            "show.entries(run, generation)",
            code=True,
        ),
        Cell("best = run.best\nbest.id, best.operator, best.parents, best.objective, best.line", code=True),
    ]


def _law(run: Run) -> list[Cell]:
    law, points = run.law, _points(run)
    found = [Cell("## The law"), Cell("law = run.law\nlaw", code=True)]
    if law.program:
        found.append(Cell("print(law.formula)", code=True))
    else:
        found.append(Cell("print(law.latex())", code=True))
    found.append(Cell("show.parameters(law)", code=True))
    ends = "" if law.program else ", ci=CI"
    found += [
        Cell(
            "## Predictions\n\nThe largest row of the run, and ten times as large. "
            + ("A program has no bootstrap." if law.program else "Intervals say where the law runs, not single runs.")
        ),
        Cell(f"points = {points!r}\nlaw.predict(points{ends})", code=True),
        Cell("figures.fit(law)", code=True),
        Cell("figures.residuals(law)", code=True),
        Cell("print(law.to_python())", code=True),
    ]
    return found


def _beyond(run: Run, asked: Asked) -> list[Cell]:
    found = [
        Cell("## Beyond the fit\n\nThe law, refitted below each inner cut, on the rows above it."),
        Cell("hidden = law.extrapolation()\nfigures.extrapolation(law, hidden)", code=True),
        Cell(
            "show.Table([{'cut along': h.axis, 'share below': h.share, 'rows': h.train, 'hidden': h.test, "
            "'ARE': h.score.are, 'R2': h.score.r2, 'dev': 'yes' if h.shown else ''} for h in hidden])",
            code=True,
        ),
    ]
    if asked.flops is None and _flops(run) is None:
        return found
    return [
        *found,
        Cell("## What to do with more compute"),
        Cell(
            "plan = law.allocate(FLOPS)\nprint(plan.question)\n"
            "show.Table([{'choose': k, 'value': v, '90% low': plan.intervals[k][0], '90% high': plan.intervals[k][1], "
            "'at the edge': 'yes' if k in plan.edge else ''} for k, v in plan.config.items()], "
            "f'by {plan.formula}; predicted {plan.target} {plan.value:.6g}')",
            code=True,
        ),
    ]


def _measured(run: Run) -> list[Cell]:
    found = []
    if run.experiments():
        found += [
            Cell("## Training runs\n\nLosses and FLOPs were measured, by a simulator where it says so: they are read."),
            Cell(
                "show.Table([{'run': e['id'], 'round': e['round'], **e['columns'], **e.get('targets', {}), "
                "'FLOPs': e['flops'], 'simulated': e.get('simulated', False), 'line': e['trace_line']} "
                "for e in run.experiments()], 'measured (read)')",
                code=True,
            ),
        ]
    if run.votes() or run.prompts():
        found += [
            Cell("## What models were asked\n\nReplies and votes are read from the record; nothing is asked again."),
            Cell(
                "calls = run.prompts()\n"
                "print(len(calls), 'calls,', len(run.votes()), 'votes')\n"
                "show.Table([{'line': c['trace_line'], 'call': c.get('call'), 'kind': c['kind'], "
                "'input tokens': c.get('gen_ai.usage.input_tokens'), "
                "'output tokens': c.get('gen_ai.usage.output_tokens'), "
                "'drafts': len(c.get('drafts', ())), 'refused': len(c.get('rejects', ()))} for c in calls], "
                "'measured (read)')",
                code=True,
            ),
        ]
    return found


def _checked() -> list[Cell]:
    return [
        Cell(
            "## Recorded and recomputed\n\nEvery number of the trace that follows from the rows is computed again; the "
            "cell fails where one differs by more than 1e-9, relative. What was measured is read, and labelled so."
        ),
        Cell("checks = recompute(run, ENTRIES)\nshow.summary(checks)", code=True),
        Cell("show.side_by_side(checks, 'law')", code=True),
        Cell("show.side_by_side(checks, 'baselines')", code=True),
        Cell("show.by_entry(checks)", code=True),
        Cell("show.side_by_side(checks, 'round' if run.rounds else 'luck')", code=True),
        Cell("show.read(checks, 'measured (read)')", code=True),
        Cell("wrong = show.wrong(checks)\nassert not wrong, '\\n'.join(wrong)", code=True, tags=("checks",)),
    ]


def _sealed(run: Run) -> list[Cell]:
    if not run.of("holdout"):
        return [Cell("## Hold-out\n\nThe run has none on record.")]
    return [
        Cell("## Hold-out\n\nScored once, by a process of its own. Figures are copied from the trace, never computed."),
        Cell("show.read(checks, 'hold-out (copied)')", code=True),
    ]


def _after() -> list[Cell]:
    return [
        Cell("## Beside other runs\n\nName their folders in COMPARE_WITH."),
        Cell("show.Table(compare(run, *[open_run(other) for other in COMPARE_WITH]))", code=True),
        Cell(
            "## Another way from here\n\nA fork keeps the trace up to a generation and searches on from there, once "
            "it is resumed with `agentlab runs resume`. Nothing is made unless FORK_AFTER is a generation."
        ),
        Cell(
            "if FORK_AFTER is not None:\n    fork = run.fork(gen=FORK_AFTER, budget__candidates=2 * len(run))\n"
            "    print('agentlab runs resume', fork.folder)",
            code=True,
        ),
    ]


def _points(run: Run) -> dict[str, Any]:
    """The row of the largest scale (the last row where there is none), and ten times as large where it counts."""
    rows, task = run.rows, run.task
    at = len(rows) - 1 if rows.scale is None else int(np.argmax(rows.scale))
    points: dict[str, Any] = {}
    for variable in task.features:
        value = float(rows.columns[variable.name][at])
        points[variable.name] = [value, 10 * value if variable.log and value > 0 else value]
    return points | ({} if task.group is None else {task.group: [str(rows.group[at])] * 2})


def _flops(run: Run) -> float | None:
    """Ten times the largest compute among the rows, where the task asks for a decision; else None."""
    with suppress(AgentlabError):
        if not run.law.program:
            question = allocation.asked(run.task, run.rows)
            if question.cost is not None and allocation.active(run.law.law, question):
                return float(f"{question.compute:.3g}")
    return None


def _plain(text: str) -> str:
    """A name without what Markdown or HTML would read as its own."""
    return "".join(c if c.isalnum() or c in " .-_+" else "?" for c in text)
