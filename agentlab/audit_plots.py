"""The plots of a Law Card, as SVG beside its Markdown; needs matplotlib, the extra `plot`."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentlab.audit_extrapolate import residual_of
from agentlab.audit_records import Card, Case, Measure, Variant, measure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, GREEN = "#2f6db3", "#d9730d", "#8a8f98", "#3a8f5c"
STYLE: Mapping[Any, Any] = {
    "svg.hashsalt": "agentlab",  # so that the same card is the same bytes
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}
MAX_DRAWN = 4000
"""Points of a scatter; more make a file that nobody can open."""

MAX_PANELS = 6


def installed() -> bool:
    """Whether matplotlib is here."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(card: Card, case: Case, folder: Path, kind: str = "svg") -> dict[str, str]:
    """Draw the card into `folder`; file names by the section they belong to."""
    import matplotlib as mpl  # noqa: PLC0415 - optional, and slow to import

    made = {}
    with mpl.rc_context(dict(STYLE)):
        for section, name, figure in (
            ("Parameters", "audit-parameters", _parameters(card, case)),
            ("Residuals", "audit-residuals", _residuals(card, case)),
            ("Extrapolation", "audit-extrapolation", _factors(card)),
            ("Cuts and the decision", "audit-cuts", _cuts(card)),
            ("Battery", "audit-battery", _battery(card)),
        ):
            if figure is not None:
                made[section] = f"{name}.{kind}"
                figure.savefig(folder / made[section], metadata={"Date": None} if kind == "svg" else None, dpi=110)
    return made


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure as Drawn  # noqa: PLC0415 - optional, and slow to import

    return Drawn(figsize=(width, height), layout="constrained")


def _parameters(card: Card, case: Case) -> Figure | None:
    """Left, every parameter's interval relative to its value; right, the draws of the two that are most tied."""
    mine = [p for p in card.parameters if (p.group, p.target) == case.focus]
    draws = case.draws[case.focus]
    tied = [c for c in card.correlations if (c.group, c.target) == case.focus and math.isfinite(c.bootstrap)]
    if not mine or not len(draws):
        return None
    figure = _figure(8.5, 0.9 + 0.34 * max(len(mine), 6))
    left, right = figure.subplots(1, 2)
    for i, p in enumerate(mine):
        colour = ORANGE if p.unidentified else BLUE
        if p.value and all(math.isfinite(v) for v in p.interval95):
            left.plot([v / p.value for v in p.interval95], [i, i], color=colour, lw=1)
            left.plot([v / p.value for v in p.interval90], [i, i], color=colour, lw=4, solid_capstyle="butt")
        left.plot([1], [i], "o", color=colour, ms=5)
    low, high = left.get_xlim()
    left.set_xlim(max(low, -2.0), min(high, 4.0))
    left.set_yticks(range(len(mine)), [p.name for p in mine])
    left.invert_yaxis()
    left.axvline(1, color=GREY, lw=0.6)
    left.set_xlabel("interval / value (thick 90%, thin 95%; orange: not identified)")
    left.set_title("Parameters")
    if tied:
        most = max(tied, key=lambda c: abs(c.bootstrap))
        names = [most.a, most.b]
        x, y = (draws[:, case.law.params.index(n.removeprefix("log "))] for n in names)
        right.plot(x, y, ".", ms=2, color=BLUE, alpha=0.5)
        right.set_xscale("log" if names[0].startswith("log ") and x.min() > 0 else "linear")
        right.set_yscale("log" if names[1].startswith("log ") and y.min() > 0 else "linear")
        right.set_xlabel(names[0].removeprefix("log "))
        right.set_ylabel(names[1].removeprefix("log "))
        right.set_title(f"Most tied: correlation of {most.a} and {most.b} {most.bootstrap:.4f}")
    return figure


def _residuals(card: Card, case: Case) -> Figure | None:
    found = case.fit.predict(case.law, case.rows)[case.focus[1]]
    z = residual_of(case, found, case.rows.targets[case.focus[1]])
    inputs = dict(case.rows.columns)
    if case.rows.scale is not None and case.task.scale not in inputs:
        inputs[f"scale {case.task.scale}"] = case.rows.scale
    panels = [(r, inputs[r.name]) for r in card.residuals if r.name in inputs][:MAX_PANELS]
    if not panels:
        return None
    figure = _figure(3.1 * len(panels), 2.9)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    step = max(1, len(z) // MAX_DRAWN)
    for axis, (one, x) in zip(axes, panels, strict=True):
        axis.plot(x[::step], z[::step], ".", ms=3, color=GREY, alpha=0.6)
        log = bool(x.min() > 0 and x.max() > 20 * x.min())
        middle = [math.sqrt(b.low * b.high) if log else 0.5 * (b.low + b.high) for b in one.bins]
        error = [3 * b.error if math.isfinite(b.error) else 0.0 for b in one.bins]
        axis.errorbar(
            middle, [b.mean for b in one.bins], error, fmt="o", color=ORANGE if one.trend else BLUE, ms=4, lw=1.5
        )
        axis.axhline(0, color="black", lw=0.6)
        axis.set_xscale("log" if log else "linear")
        axis.set_xlabel(one.name)
    axes[0].set_ylabel(
        "log prediction - log observation" if case.options.residual == "log" else "prediction - observation"
    )
    figure.suptitle("Residuals, with means by fifths (bars: 3 errors)", x=0.01, ha="left", fontsize=10)
    return figure


def _factors(card: Card) -> Figure | None:
    seen = [f for f in card.factors if f.are is not None and math.isfinite(f.are)]
    if not seen:
        return None
    figure = _figure(8.5, 2.9)
    left, right = figure.subplots(1, 2)
    x = [f.factor for f in seen]
    left.plot(x, [100 * (f.are or 0.0) for f in seen], "o-", color=BLUE)
    left.set_ylabel("error (ARE), %")
    left.set_ylim(bottom=0)
    right.plot(x, [100 * f.coverage90 if f.coverage90 is not None else math.nan for f in seen], "o-", color=BLUE)
    right.axhline(90, color=GREY, lw=0.8, ls="--")
    right.set_ylabel("rows in their 90% interval, %")
    right.set_ylim(-3, 103)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xlabel("fitted below the largest scale /")
        axis.set_xticks(x, [f"{v:g}" for v in x])
        axis.minorticks_off()
    for f in seen:
        right.annotate(
            f"{f.test}",
            (f.factor, 100 * (f.coverage90 or 0.0)),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    left.set_title("Extrapolation error by factor")
    right.set_title("Coverage (figures: rows beyond)")
    return figure


def _cuts(card: Card) -> Figure | None:
    follow = measure_of(card.decision)
    told = [] if follow is None else [(c, m) for c in card.cuts if (m := follow.of(c.decision)) is not None and m > 0]
    if not told or follow is None:
        return None
    figure = _figure(8.5, 2.9)
    left, right = figure.subplots(1, 2)
    x = [100 * c.share for c, _ in told]
    left.plot(x, [m for _, m in told], "o-", color=ORANGE)
    for (c, m), at in zip(told, x, strict=True):
        if c.decision is not None and c.decision.ratio90 is not None:
            left.plot([at, at], c.decision.ratio90, color=ORANGE, lw=1)
        left.annotate(f"{m:.3g}", (at, m), (7, -3), textcoords="offset points", fontsize=8)
    left.set_yscale("log")
    low, high = left.get_ylim()
    left.set_ylim(min(low, told[-1][1] / 2), max(high, told[-1][1] * 2))  # so that a small move looks small
    _plain(left, "y")
    left.set_ylabel(follow.name)
    left.set_title("The decision by cut" + (f", at {card.compute:.3g} FLOP" if card.compute else ""))
    beyond = [(c.share, c.error_beyond) for c in card.cuts if c.error_beyond is not None]
    right.plot([100 * s for s, _ in beyond], [100 * e for _, e in beyond], "o-", color=BLUE)
    right.set_ylim(0, 120 * max((e for _, e in beyond), default=1.0))
    right.set_ylabel("error beyond the cut (ARE), %")
    right.set_title("The error on the rows beyond")
    for axis in (left, right):
        axis.set_xlabel("lowest % of the rows by scale that are fitted")
        axis.set_xlim(40, 110)
    return figure


def _battery(card: Card) -> Figure | None:
    """Every variant a line: left its error, right its decision."""
    told = [v for v in card.battery if not v.blank]
    if not told:
        return None
    figure = _figure(10.0, 0.8 + 0.21 * len(told))
    left, right = figure.subplots(1, 2, sharey=True)
    axes_of = list(dict.fromkeys(v.axis for v in told))
    follow = measure_of(card.decision) or Measure("tokens per parameter")
    base = next((v for v in told if v.base), None)
    at_base = follow.of(base.decision) if base else None
    for i, v in enumerate(told):
        colour = "black" if v.base else (BLUE, ORANGE, GREEN)[axes_of.index(v.axis) % 3]
        if v.error is not None and math.isfinite(v.error):
            left.plot([100 * v.error], [i], "o", color=colour, ms=5)
        _decided(right, i, follow, v, at_base, colour)
    if base and base.error:
        left.axvline(100 * base.error, color=GREY, lw=0.6)
    if at_base is not None:
        right.axvline(at_base, color=GREY, lw=0.6)
    _battery_axes(left, right, [_label(v.axis, v.name) for v in told], follow.name)
    return figure


AROUND = 12.0
"""Decisions more than this factor from the audited one are drawn at the edge, with their value."""


def _decided(axis: Axes, i: int, follow: Measure, variant: Variant, base: float | None, colour: str) -> None:
    """One decision and its regret."""
    measure = follow.of(variant.decision)
    if measure is None or measure <= 0 or variant.decision is None:
        place = ("axes fraction", "data")
        axis.annotate("none inside", (0.02, i), xycoords=place, va="center", fontsize=7, color=GREY)
        return
    lost = variant.decision.regret if variant.decision.regret is not None else variant.decision.shortfall
    text = "" if lost is None else f"{lost:.2g}%" if lost < 1000 else "> 1000%"
    if base is not None and not base / AROUND < measure < base * AROUND:
        at, marker = (base * AROUND, ">") if measure > base else (base / AROUND, "<")
        axis.plot([at], [i], marker, color=colour, ms=5)
        _note(axis, f"{measure:.2g} ({text})", (at, i), left=measure > base)
        return
    axis.plot([measure], [i], "o", color=colour, ms=5)
    _note(axis, text, (measure, i))


def _note(axis: Axes, text: str, at: tuple[float, float], *, left: bool = False) -> None:
    """A grey note to the right of a point, or to its left."""
    shift = (-6, -3) if left else (6, -3)
    axis.annotate(text, at, shift, textcoords="offset points", fontsize=7, color=GREY, ha="right" if left else "left")


def _plain(axis: Axes, which: str) -> None:
    """Logarithmic ticks as plain numbers, few enough not to overlap."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - optional, slow to import

    side = axis.xaxis if which == "x" else axis.yaxis
    side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_formatter(NullFormatter())


def _label(axis: str, name: str) -> str:
    text = f"{axis}: {name}"
    return text if len(text) <= 62 else text[:59] + "..."


def _battery_axes(left: Axes, right: Axes, labels: list[str], followed: str) -> None:
    left.set_yticks(range(len(labels)), labels, fontsize=7)
    left.invert_yaxis()
    if left.lines:
        left.set_xscale("log")
        _plain(left, "x")
    left.set_xlabel("error beyond the inner cut (ARE), %")
    left.set_title("One choice made otherwise: the error")
    if right.lines:
        right.set_xscale("log")
        _plain(right, "x")
        right.margins(x=0.15)
    else:
        right.set_xticks([])
    right.set_xlabel(followed)
    right.set_title("the decision (grey: what it loses)")
    for axis in (left, right):
        axis.set_axisbelow(True)
        axis.yaxis.grid(visible=True, lw=0.3, color="#dddddd")
