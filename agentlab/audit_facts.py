"""The checklist of what a reader must know, blank where nobody says it, and the verdict of an audit in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from agentlab.audit_records import Card, Case, Decision, Fact, Rival, measure_of

CHECKLIST: Mapping[str, str] = {
    "what N counts": r"parameter",
    "embeddings": r"embed",
    "what D counts": r"token",
    "what the FLOPs count": r"flop|compute",
    "unit and data of the target": r"nats|bits|perplex|validation|loss on",
    "tokenizer": r"tokeni[sz]er|vocabular",
    "architecture": r"transformer|architect|decoder|expert|dense model",
    "optimiser": r"adam|sgd|muon|lion|optimi[sz]er",
    "schedule": r"schedul|cosine|anneal|warm-?up|wsd|decay",
    "learning rate tuned": r"learning rate|\blr\b",
    "batch size": r"batch",
    "repetition of data": r"epoch|repeat|repetition|unique",
    "seeds": r"seed|replicate",
    "checkpoints": r"checkpoint|last step|final",
}
"""What must be known, and what a description that says it mentions."""

MOVES = 1.5
"""Ratio between the largest and the smallest decision over cuts or variants from which it is not settled."""

COSTLY = 5.0
"""Regret, in % of compute, from which following another defensible choice matters."""

COMPARABLE = 2.0
"""A variant whose error is within this factor of the audited one would have been defended by its figures."""

ENOUGH = 10
"""Rows beyond a cut from which a coverage is quoted."""

COVERED = (0.8, 0.98)
"""Coverage of 90% intervals outside which they are called wrong."""


def facts(case: Case, told: Mapping[str, str], filters: Mapping[str, str]) -> tuple[Fact, ...]:
    """The checklist; `told` is what the user says by name, `filters` the words that left rows out."""
    said = {k.lower(): v for k, v in told.items()}
    known = _from_rows(case, filters)
    out = []
    for name, pattern in CHECKLIST.items():
        if name.lower() in said:
            out.append(Fact(name, said.pop(name.lower()), "told"))
        elif name in known:
            out.append(Fact(name, known[name], "rows"))
        else:
            out.append(Fact(name, _described(case, name, pattern), "task"))
    out += [Fact(k, v, "told") for k, v in said.items()]
    return (
        *(f if f.value else Fact(f.name, "") for f in out),
        *(Fact(k, v, "rows") for k, v in known.items() if k not in CHECKLIST),
    )


def _described(case: Case, name: str, pattern: str) -> str:
    """What the task's own words say on it: the description of a variable, its unit, or the title."""
    lines = [(v.name, v.description) for v in case.task.features if v.description]
    if name == "what N counts":
        lines = [x for x in lines if x[0] == case.question.params]
    if name == "what D counts":
        lines = [x for x in lines if x[0] == case.question.tokens]
    found = [f"{n}: {text}" for n, text in lines if re.search(pattern, text, re.IGNORECASE)]
    return "; ".join(found)


def _from_rows(case: Case, filters: Mapping[str, str]) -> dict[str, str]:
    """What the rows themselves tell."""
    rows, known = case.rows, {}
    runs = len(np.unique(rows.run))
    if runs < len(rows):
        known["checkpoints"] = f"{len(rows)} rows of {runs} runs: checkpoints of one run are not independent"
    inputs = np.column_stack([np.unique(rows.group, return_inverse=True)[1], *rows.columns.values()])
    most = int(np.unique(inputs, axis=0, return_counts=True)[1].max())
    if "seed" in case.beside:
        known["seeds"] = f"{len(np.unique(case.beside['seed']))} seeds in column seed"
    elif most > 1 and runs == len(rows):
        known["seeds"] = f"up to {most} runs of one configuration"
    if case.question.cost is not None:
        known["cost of a run, as decided here"] = f"{case.question.cost} FLOP"
    known["rows left out"] = "; ".join(f"{k}={v}" for k, v in filters.items()) or "none by agentlab"
    for name, column in rows.columns.items():
        known[f"range of {name}"] = f"{column.min():.4g} .. {column.max():.4g}"
    if case.question.params and case.question.tokens:
        ratio = rows.columns[case.question.tokens] / rows.columns[case.question.params]
        known["range of D/N"] = f"{ratio.min():.3g} .. {ratio.max():.3g}"
    return known


def verdict(card: Card) -> tuple[str, ...]:
    """The card in sentences, the answer first."""
    said = [*_identified(card), *_converged(card), *_beaten(card.rivals), *_beyond(card), *_patterns(card)]
    said += [*_moved_by_cuts(card), *_moved_by_choices(card), *_missing(card)]
    wrong = [text for bad, text in said if bad]
    head = "Nothing found against this law within the range of its rows." if not wrong else _head(card, len(wrong))
    return (head, *(text for _, text in said))


def _head(card: Card, count: int) -> str:
    follow = measure_of(card.decision)
    moved = follow is not None and _span(follow.of(c.decision) for c in card.cuts) > MOVES
    what = "Do not spend on its decision yet" if moved else "Use with care"
    return f"{what}: {count} finding{'s' * (count > 1)} against relying on this law."


Finding = tuple[bool, str]
"""Whether it speaks against the law, and the sentence."""


def _identified(card: Card) -> Iterable[Finding]:
    loose = [p for p in card.parameters if p.unidentified]
    if not loose:
        yield False, "Every parameter is identified."
        return
    names = ", ".join(dict.fromkeys(p.name for p in loose))
    pairs = sorted((-abs(c.bootstrap), c.a, c.b, c.bootstrap) for c in card.correlations if math.isfinite(c.bootstrap))
    tied = f" (the most tied: {pairs[0][1]} with {pairs[0][2]}, correlation {pairs[0][3]:.3f})" if pairs else ""
    yield True, f"Not identified one by one: {names}{tied}. Quote predictions, not these values."


def _converged(card: Card) -> Iterable[Finding]:
    share = min(c.share_at_best for c in card.convergence)
    near = sum(c.near for c in card.convergence)
    text = f"{share:.0%} of single starts end at the best optimum"
    if near:
        text += f", and {near} other optim{'um' if near == 1 else 'a'} fit as well within the noise"
    yield near > 0 or share < 0.1, text + "."


def _beaten(rivals: Sequence[Rival]) -> Iterable[Finding]:
    law = rivals[0]
    others = [r for r in rivals[1:] if r.are is not None]
    if law.are is None or not others:
        return
    best = min(others, key=lambda r: r.are if r.are is not None else math.inf)
    assert best.are is not None  # noqa: S101 - others have an error
    better = law.are <= best.are
    text = f"On the top quarter by scale it errs by {law.are:.2%}; the best rival ({best.name}) by {best.are:.2%}."
    yield not better, text


def _beyond(card: Card) -> Iterable[Finding]:
    seen = [f for f in card.factors if f.are is not None and f.coverage90 is not None and f.test >= ENOUGH]
    if not seen:
        yield True, "How it extrapolates cannot be told: too few rows, or no scale."
        return
    far = seen[-1]
    low = min(seen, key=lambda f: f.coverage90 if f.coverage90 is not None else math.inf)
    wrong = not COVERED[0] <= (low.coverage90 or 0.0) <= COVERED[1]
    text = f"Fitted below 1/{far.factor:g} of the largest scale it errs by {_percent(100 * (far.are or 0.0))} beyond"
    text += f"; its 90% intervals cover {low.coverage90:.0%} at their worst (factor {low.factor:g})"
    text += f" where {ENOUGH} rows or more lie beyond."
    yield wrong, text


def _patterns(card: Card) -> Iterable[Finding]:
    names = [r.name for r in card.residuals if r.trend]
    if names:
        yield True, f"Residuals still depend on {', '.join(names)}: the form misses something there."


def _span(values: Iterable[float | None]) -> float:
    known = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    return max(known) / min(known) if known else 1.0


def _moved_by_cuts(card: Card) -> Iterable[Finding]:
    follow = measure_of(card.decision)
    if card.decision is not None and (follow is None or follow.of(card.decision) is None):
        yield True, f"The law has no best configuration inside: {', '.join(card.decision.edge)} runs to the edge."
        return
    told = [] if follow is None else [(c, m) for c in card.cuts if (m := follow.of(c.decision)) is not None]
    if follow is None or len(told) < 2:
        return
    errors = [c.error_beyond for c, _ in told if c.error_beyond is not None]
    moved = _span(r for _, r in told) > MOVES
    steps = ", ".join(f"{r:.3g}" for _, r in told)
    text = f"The decision ({follow.name}) is {steps} as the fit uses the lowest "
    text += "/".join(f"{100 * c.share:.0f}" for c, _ in told) + "% of the rows by scale"
    if errors:
        text += f", while the error beyond each cut is {min(errors):.2%} to {max(errors):.2%}"
    yield moved, text + (": a small error does not settle the decision." if moved else ".")


def _moved_by_choices(card: Card) -> Iterable[Finding]:
    base, follow = next((v.error for v in card.battery if v.base), None), measure_of(card.decision)
    told = [v for v in card.battery if v.decision is not None and not v.base and v.error is not None]
    fair = [v for v in told if base is not None and v.error is not None and v.error <= COMPARABLE * base]
    inside = [v for v in fair if follow is not None and follow.of(v.decision) is not None]
    losses = [(lost, v) for v in inside if v.decision and (lost := _loss(v.decision)) is not None]
    if not losses or base is None or follow is None:
        return
    (most, unit), worst = max(losses, key=lambda pair: pair[0][0])
    ratios = [m for v in inside if (m := follow.of(v.decision)) is not None]
    text = f"Of {len(told)} choices made otherwise {len(fair)} err at most twice as much; among these the costliest is "
    text += f"{worst.axis}, {worst.name} (regret {_percent(most)} of {unit})"
    if ratios:
        text += f", and {follow.name} ranges from {min(ratios):.3g} to {max(ratios):.3g}"
    if len(inside) < len(fair):
        text += f"; {len(fair) - len(inside)} of the {len(fair)} give no optimum inside"
    yield most > COSTLY or _span(ratios) > MOVES, text + "."


def _loss(decision: Decision) -> tuple[float, str] | None:
    """What a decision costs by the audited law, in % of what."""
    if decision.regret is not None:
        return decision.regret, "compute"
    return None if decision.shortfall is None else (decision.shortfall, "the target")


def _percent(value: float) -> str:
    return f"{value:.3g}%" if value < 1000 else "more than 1000%"


def _missing(card: Card) -> Iterable[Finding]:
    blank = [f.name for f in card.facts if not f.value]
    varied = {v.axis for v in card.battery if not v.blank}
    axes = [v.axis for v in card.battery if v.axis not in varied]
    if blank:
        yield False, f"Nobody says: {', '.join(blank)}."
    if axes:
        yield False, f"Could not be varied: {', '.join(dict.fromkeys(axes))}."
