"""Small figures as SVG text: points, lines and bands over plain or logarithmic axes, in the colours of their page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from agentlab.types import FloatArray

WIDTH, HEIGHT, LEGEND = 560, 330, 180
LEFT, RIGHT, TOP, BOTTOM = 70, 14, 30, 46

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours that the colour-blind tell apart (Okabe and Ito 2008), in lightness as well."""

MARKS = ("circle", "square", "triangle", "diamond", "cross", "ring")
"""Shapes, so that no series is told by its colour alone."""

MOST_POINTS = 1500
"""Points of a series that are drawn: every k-th of longer ones."""

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Series:
    """Points (n,), or a line through them where `line` is set; `low` and `high` (n,) make a band."""

    label: str
    x: FloatArray
    y: FloatArray
    line: bool = False
    step: bool = False
    low: FloatArray | None = None
    high: FloatArray | None = None


@dataclass(frozen=True)
class Axis:
    """One axis: its label, whether it is logarithmic, and its range in its unit."""

    label: str
    log: bool
    low: float
    high: float

    @classmethod
    def over(cls, label: str, values: Sequence[FloatArray], *, log: bool) -> Axis:
        """An axis that holds all finite values, with a little room on both sides."""
        every = np.concatenate([np.asarray(v, dtype=np.float64).ravel() for v in values]) if values else np.zeros(0)
        every = every[np.isfinite(every)]
        log = log and len(every) > 0 and float(every.min()) > 0
        low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
        if log:
            room = max(0.04 * math.log(high / low), 0.02)
            return cls(label, log, low * math.exp(-room), high * math.exp(room))
        room = 0.05 * (high - low) or max(abs(high) * 0.05, 1e-12)
        return cls(label, log, low - room, high + room)

    def place(self, values: FloatArray) -> FloatArray:
        """Where values lie between the ends, 0 to 1."""
        values = np.asarray(values, dtype=np.float64)
        with np.errstate(all="ignore"):
            if self.log:
                return np.log(values / self.low) / math.log(self.high / self.low)
            return (values - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values with what is written beside them."""
        return _log_ticks(self.low, self.high) if self.log else _plain_ticks(self.low, self.high)


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first >= 2:
        step = max(1, math.ceil((last - first + 1) / 7))
        return [(10.0**e, f"10{str(e).translate(SUPERSCRIPT)}") for e in range(first, last + 1, step)]
    values = [m * 10.0**e for e in range(first - 1, last + 2) for m in (1, 2, 3, 5)]
    inside = [v for v in values if low <= v <= high]
    return [(v, _power(v)) for v in inside] if len(inside) > 1 else _plain_ticks(low, high)


def _power(value: float) -> str:
    """A value as 300 or as 3·10¹⁷."""
    power = math.floor(math.log10(value) + 1e-9)
    if -3 <= power < 4:
        return f"{value:.3g}"
    return f"{value / 10.0**power:.0f}·10{str(power).translate(SUPERSCRIPT)}"


def _plain_ticks(low: float, high: float) -> list[tuple[float, str]]:
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= raw * 0.999)
    first = math.ceil(low / step)
    values = [k * step for k in range(first, math.floor(high / step) + 1)]
    return [(v, f"{v:.6g}" if v else "0") for v in values]


@dataclass(frozen=True)
class Figure:
    """A figure: a title, two axes, series, and lines across at `level`; `text` says in words what it shows."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    level: float | None = None
    diagonal: bool = False
    text: str = ""

    @property
    def _wide(self) -> int:
        """The width of the figure: series that are named are named beside the axes."""
        return WIDTH + (LEGEND if len(self._named) > 1 else 0)

    @property
    def _named(self) -> list[tuple[int, Series]]:
        return [(i, s) for i, s in enumerate(self.series) if s.label]

    def svg(self) -> str:
        """The figure as an SVG element whose lines and letters take the colour of the page."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self._wide} {HEIGHT}" role="img" class="figure" '
            f'style="max-width:{self._wide}px;width:100%;height:auto" font-family="system-ui,sans-serif" '
            f'font-size="11" fill="currentColor"><title>{escape(self.title)}</title><desc>{escape(self.text)}</desc>'
        )
        parts = [
            head,
            f'<text x="{LEFT}" y="18" font-size="13" font-weight="600">{escape(self.title)}</text>',
            *self._frame(),
        ]
        if self.level is not None:
            y = self._y(np.array([self.level]))[0]
            parts.append(_dashed(LEFT, y, WIDTH - RIGHT, y))
        if self.diagonal:
            ends = np.array([max(self.x.low, self.y.low), min(self.x.high, self.y.high)])
            (x1, x2), (y1, y2) = self._x(ends), self._y(ends)
            parts.append(_dashed(x1, y1, x2, y2))
        parts += [_drawn(self, s, i) for i, s in enumerate(self.series)]
        return "".join([*parts, *self._legend(), "</svg>"])

    def _repr_html_(self) -> str:
        return self.svg()

    def _x(self, values: FloatArray) -> FloatArray:
        return LEFT + self.x.place(values) * (WIDTH - LEFT - RIGHT)

    def _y(self, values: FloatArray) -> FloatArray:
        return HEIGHT - BOTTOM - self.y.place(values) * (HEIGHT - TOP - BOTTOM)

    def _frame(self) -> list[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        turned = f"translate(14 {(TOP + bottom) / 2:.0f}) rotate(-90)"
        parts = [
            f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor" stroke-opacity=".6"/>',
            f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(self.x.label)}</text>',
            f'<text transform="{turned}" text-anchor="middle">{escape(self.y.label)}</text>',
        ]
        for value, text in self.x.ticks():
            x = self._x(np.array([value]))[0]
            parts.append(f'<path d="M{x:.1f} {bottom}v4" stroke="currentColor" stroke-opacity=".6"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
        for value, text in self.y.ticks():
            y = self._y(np.array([value]))[0]
            parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="currentColor" stroke-opacity=".12"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        return parts

    def _legend(self) -> list[str]:
        parts = []
        for row, (i, s) in enumerate(self._named if len(self._named) > 1 else []):
            x, y = WIDTH + 6, TOP + 12 + 17 * row
            shape = _line(f"M{x - 6} {y}h12", i) if s.line else _mark(x, y, i)
            parts.append(f'{shape}<text x="{x + 12}" y="{y + 4}">{escape(s.label[:26])}</text>')
        return parts


def _dashed(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="currentColor" stroke-opacity=".55" stroke-dasharray="5 4"/>'


def _drawn(figure: Figure, series: Series, number: int) -> str:
    every = max(len(series.x) // MOST_POINTS, 1)
    x, y = figure._x(series.x[::every]), figure._y(series.y[::every])  # noqa: SLF001 - of one module
    parts = []
    if series.low is not None and series.high is not None:
        low, high = figure._y(series.low[::every]), figure._y(series.high[::every])  # noqa: SLF001 - of one module
        ends = [*zip(x, low, strict=True), *list(zip(x, high, strict=True))[::-1]]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in ends)
        parts.append(f'<path d="M{path}Z" fill="{_colour(number)}" fill-opacity=".2"/>')
    good = np.isfinite(x) & np.isfinite(y)
    if series.line and good.any():
        points = [f"{a:.1f} {b:.1f}" for a, b in zip(x[good], y[good], strict=True)]
        parts.append(_line("M" + _joined(points, step=series.step), number))
    elif not series.line:
        parts += [_mark(a, b, number) for a, b in zip(x[good], y[good], strict=True)]
    return "".join(parts)


def _joined(points: Sequence[str], *, step: bool) -> str:
    if not step:
        return "L".join(points)
    return points[0] + "".join(f"H{p.split()[0]}V{p.split()[1]}" for p in points[1:])


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _line(path: str, number: int) -> str:
    return f'<path d="{path}" fill="none" stroke="{_colour(number)}" stroke-width="2"/>'


def _mark(x: float, y: float, number: int) -> str:
    colour, kind = _colour(number), MARKS[number % len(MARKS)]
    match kind:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}" fill-opacity=".8"/>'
        case "ring":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        case "square":
            return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{colour}" fill-opacity=".8"/>'
        case "cross":
            path = f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6"
            return f'<path d="{path}" stroke="{colour}" stroke-width="1.7"/>'
    path = "l4 7h-8z" if kind == "triangle" else "l4 4l-4 4l-4 -4z"
    return f'<path d="M{x:.1f} {y - 4:.1f}{path}" fill="{colour}" fill-opacity=".8"/>'
