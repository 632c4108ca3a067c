"""The Law Card as a page: Markdown for a file, and a shorter one for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from agentlab.audit import Plan
from agentlab.audit_records import Card, Decision
from agentlab.types import ALL

BLANK = "____"
"""What stands where nobody says it, or nothing could be varied."""

SHOWN_CORRELATION = 0.9
MAX_LINES = 60
"""Lines of a table in the Markdown; the JSON has all."""

Cell = str | float | int | None


def markdown(card: Card, plots: Mapping[str, str]) -> str:
    """The card as Markdown; `plots` are file names by section."""
    parts = [
        f"# Law Card: {card.task}",
        *(f"- {text}" if i else f"**{text}**\n" for i, text in enumerate(card.verdict)),
        "",
        *_law(card),
        *_section("Parameters", plots, _parameters(card)),
        *_section("Convergence", plots, _convergence(card)),
        *_section("Residuals", plots, _residuals(card)),
        *_section("Extrapolation", plots, _factors(card)),
        *_section("Rivals on the same rows", plots, _rivals(card)),
        *_section("Cuts and the decision", plots, _cuts(card)),
        *_section("Battery", plots, _battery(card)),
        *_section("What a reader must know", plots, _facts(card)),
    ]
    return "\n".join(parts) + "\n"


def _section(title: str, plots: Mapping[str, str], lines: Iterable[str]) -> list[str]:
    picture = [f"![{title}]({plots[title]})", ""] if title in plots else []
    return [f"## {title}", "", *lines, "", *picture]


def _table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[str]:
    listed = list(rows)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(c) for c in row) + " |" for row in listed[:MAX_LINES]]
    return lines + (["", f"{len(listed) - MAX_LINES} more lines are in audit.json."] if len(listed) > MAX_LINES else [])


def _row(*cells: Cell) -> Sequence[Cell]:
    return cells


def _cell(value: Cell) -> str:
    if value is None or value == "":
        return BLANK
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|")


def _law(card: Card) -> list[str]:
    settings = ", ".join(f"{k} {v}" for k, v in card.settings.items())
    return [
        f"`{card.formula}`",
        "",
        f"$${card.latex}$$",
        "",
        f"{card.n_params} parameters a (group, target), {card.rows} rows; {settings}.",
        *(f"{note[0].upper()}{note[1:]}." for note in card.notes),
        *([f"In the extrapolation box it breaks: {', '.join(card.violations)}."] if card.violations else []),
        "",
    ]


def _parameters(card: Card) -> list[str]:
    several = len({(p.group, p.target) for p in card.parameters}) > 1
    head = ["group / target"] * several + ["parameter", "value", "90% interval", "95% interval"]
    head += ["deviance at half", "at twice", "not identified because"]
    rows = [
        [f"{p.group} / {p.target}"] * several
        + [p.name, p.value, _range(p.interval90), _range(p.interval95), p.halved, p.doubled]
        + ["; ".join(p.unidentified) or "-"]
        for p in card.parameters
    ]
    tied = [c for c in card.correlations if abs(c.bootstrap) > SHOWN_CORRELATION]
    lines = [
        "Intervals by resampling training runs. A deviance below 2.71 leaves the value open at 90%.",
        "",
        *_table(head, rows),
    ]
    if tied:
        lines += ["", f"Correlations above {SHOWN_CORRELATION}:", ""]
        where = [[f"{c.group} / {c.target}"] * several for c in tied]
        lines += _table(
            ["group / target"] * several + ["pair", "bootstrap", "Jacobian"],
            [
                [*w, f"{c.a}, {c.b}", f"{c.bootstrap:.4f}", f"{c.jacobian:.4f}"]
                for w, c in zip(where, tied, strict=True)
            ],
        )
    return lines


def _range(ends: tuple[float, float] | None) -> str | None:
    return None if ends is None or not math.isfinite(ends[0] + ends[1]) else f"{ends[0]:.4g} .. {ends[1]:.4g}"


def _convergence(card: Card) -> list[str]:
    head = [
        "group / target",
        "rows",
        "residual scale",
        "condition",
        "single starts at the best",
        "distinct optima",
        "near",
    ]
    return _table(
        head,
        (
            _row(
                *(f"{c.group} / {c.target}", c.rows, c.residual_scale, c.condition),
                *(f"{c.share_at_best:.0%} of {c.starts}", c.distinct, c.near),
            )
            for c in card.convergence
        ),
    )


def _residuals(card: Card) -> list[str]:
    lines = _table(
        ["input", "rank correlation", "chance", "mean by fifths", "trend"],
        (
            [r.name, r.correlation, r.p, ", ".join(f"{b.mean:.2g}" for b in r.bins), "yes" if r.trend else "no"]
            for r in card.residuals
        ),
    )
    lines += ["", "Runs it misses most:", ""]
    rows = (
        _row(
            *(w.run, w.group, w.target, ", ".join(f"{k} {v:.4g}" for k, v in w.inputs.items())),
            *(w.observed, w.predicted, f"{w.scales:+.1f}"),
        )
        for w in card.worst
    )
    return lines + _table(["run", "group", "target", "inputs", "observed", "predicted", "residual scales"], rows)


def _factors(card: Card) -> list[str]:
    rows = (
        [f"{f.factor:g}", f.train, f.test, _percent(f.are), _percent(f.coverage90), f.bias, f.blank or "-"]
        for f in card.factors
    )
    head = [
        "fitted below C /",
        "rows",
        "rows beyond",
        "error (ARE)",
        "coverage of 90% intervals",
        "mean residual",
        "note",
    ]
    return _table(head, rows)


def _percent(share: float | None) -> str | None:
    return None if share is None or not math.isfinite(share) else f"{share:.2%}"


def _rivals(card: Card) -> list[str]:
    rows = ([r.name, _percent(r.are), r.r2, r.n or None, r.blank or "-"] for r in card.rivals)
    head = ["predicts the top quarter by scale from the rows below", "error (ARE)", "R2", "rows", "note"]
    return _table(head, rows)


def _cuts(card: Card) -> list[str]:
    lines = [f"Decision: {card.question}.", ""]
    if card.decision is not None:
        lines += [_chosen(card.decision, card.decision_regret90), ""]
    names = list(card.cuts[-1].params) if card.cuts else []
    head = [
        "lowest rows by scale",
        "rows",
        *names,
        "error inside",
        "error beyond",
        "decision",
        "90%",
        "regret (of compute)",
    ]
    rows = (
        _row(
            *(f"{c.share:.0%}", c.n, *(c.params.get(k) for k in names), _percent(c.error_inside)),
            *(_percent(c.error_beyond) or ("-" if c.share == 1.0 else None), *_decided(c.decision)),
        )
        for c in card.cuts
    )
    return lines + _table(head, rows) + [f"\n{c.share:.0%}: {c.blank}." for c in card.cuts if c.blank]


def _chosen(decision: Decision, lost: tuple[float, float] | None) -> str:
    text = "By all rows: " + ", ".join(f"{k} {v:.4g}" for k, v in decision.config.items())
    text += f", predicted {decision.value:.4g}"
    if decision.edge:
        text += f"; at the edge of what may be chosen: {', '.join(decision.edge)}"
    if lost is not None:
        text += f". If a law of the bootstrap is the true one, this costs {lost[0]:.3g}% of compute (median), "
        text += f"{lost[1]:.3g}% (95th percentile)"
    return text + "."


def _decided(decision: Decision | None) -> list[Cell]:
    if decision is None:
        return [None, None, None]
    what: Cell = decision.ratio
    if what is None:
        marks = {k: " (edge)" if k in decision.edge else "" for k in decision.config}
        what = ", ".join(f"{k} {v:.4g}{marks[k]}" for k, v in decision.config.items())
    elif decision.loose:
        what = "none inside: runs to the edge"
    lost = decision.shortfall if decision.regret is None else decision.regret
    unit = " of the target" if decision.regret is None else ""
    return [what, _range(decision.ratio90), None if lost is None else f"{_regret(lost)}{unit}"]


def _regret(value: float) -> str:
    return f"{value:.3g}%" if value < 1000 else "> 1000%"


def _battery(card: Card) -> list[str]:
    rows = []
    for v in card.battery:
        note = v.blank or ("as audited" if v.base else "-")
        what, _, lost = _decided(v.decision)
        rows.append([v.axis, v.name, v.n or None, _percent(v.error), what, lost, note])
    head = ["choice", "made otherwise", "rows", "error beyond the inner cut", "decision", "regret (of compute)", "note"]
    return [
        "Fitted below the top quarter by scale and judged on it; the decision uses all rows kept.",
        "",
        *_table(head, rows),
    ]


def _facts(card: Card) -> list[str]:
    return _table(["fact", "value", "from"], ([f.name, f.value, f.source or "-"] for f in card.facts))


def summary(card: Card, files: Sequence[str], after: str) -> str:
    """What the terminal shows: the law, its parameters, the verdict, and where the rest is."""
    lines = [f"law       {card.formula}", f"          {card.n_params} parameters, {card.rows} rows", ""]
    lines.append(f"{'parameter':14s} {'value':>12s}   90% interval (resampled training runs)")
    for p in card.parameters[:20]:
        mark = "   not identified" if p.unidentified else ""
        where = f"{p.group}/{p.target} " if len(card.convergence) > 1 else ""
        lines.append(f"{where + p.name:14s} {p.value:12.5g}   [{p.interval90[0]:.5g}, {p.interval90[1]:.5g}]{mark}")
    if len(card.parameters) > 20:
        lines.append(f"  ... and {len(card.parameters) - 20} more: --json prints all")
    lines += ["", card.verdict[0], *(f"- {text}" for text in card.verdict[1:]), *card.notes, ""]
    return "\n".join([*lines, *(f"wrote     {name}" for name in files), "", f"next: {after}"])


def plan_page(plan: Plan, after: str) -> str:
    """The page of `agentlab plan`."""
    lines = [f"law       {plan.formula}", f"question  {plan.question}"]
    if plan.group != ALL:
        lines.append(f"group     {plan.group} alone: every group has its own law")
    lines.append("")
    lines.append(f"{'choose':14s} {'value':>12s}   90% interval (resampled training runs)")
    for name, value in plan.config.items():
        low, high = plan.intervals[name]
        edge = "   at the edge of what may be chosen" if name in plan.edge else ""
        lines.append(f"{name:14s} {value:12.4g}   [{low:.4g}, {high:.4g}]{edge}")
    if plan.ratio is not None and plan.ratio90 is not None:
        lines.append(f"{'tokens / param':14s} {plan.ratio:12.4g}   [{plan.ratio90[0]:.4g}, {plan.ratio90[1]:.4g}]")
    lines.append(f"{plan.target:14s} {plan.value:12.4g}   [{plan.value90[0]:.4g}, {plan.value90[1]:.4g}]")
    if math.isfinite(plan.regret[0]):
        lines += [
            "",
            f"if it is wrong: {plan.regret[0]:.3g}% of the compute (median), {plan.regret[1]:.3g}% (95th percentile)",
        ]
    if plan.beyond is not None:
        lines.append(f"the compute is {plan.beyond:.3g} times the largest among the rows")
    return "\n".join([*lines, "", f"next: {after}"])
