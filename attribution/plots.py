"""Charts as inline SVG: values in, text out. They need no script and follow the page's colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
_LABEL, _RIGHT, _ROW, _HEAD = 230, 24, 26, 30
_PLOT_HEIGHT = 220


@dataclass(frozen=True, slots=True)
class Interval:
    """One row of an interval plot: an estimate between its ends, and what became of it.

    ``tone`` is ``good``, ``bad`` or ``open``, and shows as a shape too, not as a colour alone.
    """

    label: str
    value: float
    low: float
    high: float
    tone: str = "open"


@dataclass(frozen=True, slots=True)
class Point:
    """One place on a line with a band around it."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a label and a length from 0 up."""

    label: str
    value: float


Format = Callable[[float], str]


def interval_plot(title: str, rows: Sequence[Interval], show: Format, *, zero: bool = True) -> str:
    """Estimates with their intervals on one axis, with a line at ``zero``; an SVG element.

    Ends beyond four times the median half-width are cut at the plot's edge and drawn as arrows,
    so that one wide interval does not flatten the others.
    """
    if not rows:
        return ""
    low, high = _range(rows, zero=zero)
    height = _HEAD + _ROW * len(rows) + 28
    at = _scale(low, high, _LABEL, WIDTH - _RIGHT)
    parts = [_axis(at, low, high, _HEAD - 8, height - 24, show)]
    if zero:
        parts.append(_line(at(0), _HEAD - 8, height))
    for number, row in enumerate(rows):
        y = _HEAD + _ROW * number + _ROW / 2
        ends = [min(max(end, low), high) for end in (row.low, row.high)]
        told = f"{row.label}: {show(row.value)} [{show(row.low)}, {show(row.high)}]"
        marks = [f'<line x1="{at(ends[0]):.1f}" x2="{at(ends[1]):.1f}" y1="{y}" y2="{y}"/>']
        for end, cut, way in ((row.low, low, -1), (row.high, high, 1)):
            x = at(cut)
            if (end - cut) * way > 0:
                marks.append(f'<path d="M{x:.1f} {y}l{-7 * way} -5v10z"/>')
        if low <= row.value <= high:
            marks.append(_shape(row.tone, at(row.value), y))
        parts.append(
            f'<text x="{_LABEL - 12}" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>'
            f'<g class="{row.tone}"><title>{escape(told)}</title>{"".join(marks)}</g>'
        )
    said = f"{len(rows)} estimates with intervals{' and a line at zero' if zero else ''}."
    return _svg(title, height, parts, said)


def band_plot(title: str, points: Sequence[Point], show: Format) -> str:
    """A line through the points with a band from low to high, a line at zero; an SVG element."""
    known = [point for point in points if math.isfinite(point.low) and math.isfinite(point.high)]
    if not known:
        return ""
    low = min(0.0, *(point.low for point in known))
    high = max(0.0, *(point.high for point in known))
    bottom = _HEAD + _PLOT_HEIGHT
    across = _scale(0, max(len(known) - 1, 1), 90, WIDTH - _RIGHT)
    up = _scale(low, high, bottom, _HEAD)
    places = [across(number) for number in range(len(known))]
    upper = [f"{x:.1f},{up(p.high):.1f}" for x, p in zip(places, known, strict=True)]
    lower = [f"{x:.1f},{up(p.low):.1f}" for x, p in zip(places, known, strict=True)]
    middle = [f"{x:.1f},{up(p.value):.1f}" for x, p in zip(places, known, strict=True)]
    parts = [f'<polygon class="band" points="{" ".join([*upper, *reversed(lower)])}"/>']
    parts.append(f'<polyline class="mid" points="{" ".join(middle)}"/>')
    for tick in _ticks(low, high):
        y = up(tick)
        kind = "zero" if tick == 0 else "grid"
        parts.append(
            f'<line class="{kind}" x1="90" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="82" y="{y + 4:.1f}" text-anchor="end">{escape(show(tick))}</text>'
        )
    step = math.ceil(len(known) / 8)
    for number, (x, point) in enumerate(zip(places, known, strict=True)):
        told = f"{point.label}: {show(point.value)} [{show(point.low)}, {show(point.high)}]"
        parts.append(
            f'<circle class="mid" cx="{x:.1f}" cy="{up(point.value):.1f}" r="3">'
            f"<title>{escape(told)}</title></circle>"
        )
        if number % step == 0:
            parts.append(
                f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">'
                f"{escape(point.label)}</text>"
            )
    return _svg(title, bottom + 32, parts, f"{len(known)} points with a band, and a line at zero.")


def bar_plot(title: str, bars: Sequence[Bar], show: Format) -> str:
    """Horizontal bars from zero, each with its value beside it; an SVG element."""
    if not bars:
        return ""
    most = max(bar.value for bar in bars) or 1.0
    at = _scale(0, most, _LABEL, WIDTH - 110)
    parts = []
    for number, bar in enumerate(bars):
        y = _HEAD + _ROW * number
        parts.append(
            f'<text x="{_LABEL - 12}" y="{y + 17}" text-anchor="end">{escape(bar.label)}</text>'
            f'<rect class="bar" x="{_LABEL}" y="{y + 5}" height="{_ROW - 10}" '
            f'width="{max(at(bar.value) - _LABEL, 0):.1f}"/>'
            f'<text x="{at(bar.value) + 8:.1f}" y="{y + 17}">{escape(show(bar.value))}</text>'
        )
    return _svg(title, _HEAD + _ROW * len(bars) + 8, parts, f"{len(bars)} bars from zero.")


def _range(rows: Sequence[Interval], *, zero: bool) -> tuple[float, float]:
    """The axis: all estimates, ``zero`` if it is asked for, and the intervals up to a limit."""
    halves = sorted((row.high - row.low) / 2 for row in rows)
    limit = 4 * halves[len(halves) // 2]
    held = [0.0] if zero else []
    low = min([*held, *(max(row.low, row.value - limit) for row in rows)])
    high = max([*held, *(min(row.high, row.value + limit) for row in rows)])
    room = 0.04 * (high - low) or 1.0
    return low - room, high + room


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends, about five; zero is one of them if it lies there."""
    raw = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _axis(
    at: Callable[[float], float], low: float, high: float, top: float, bottom: float, show: Format
) -> str:
    return "".join(
        f'<line class="grid" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text x="{at(tick):.1f}" y="{bottom + 18}" text-anchor="middle">'
        f"{escape(show(tick))}</text>"
        for tick in _ticks(low, high)
    )


def _line(x: float, top: float, height: float) -> str:
    return f'<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - 24}"/>'


def _shape(tone: str, x: float, y: float) -> str:
    if tone == "good":
        return f'<circle cx="{x:.1f}" cy="{y}" r="5"/>'
    if tone == "bad":
        return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5}" width="9" height="9"/>'
    return f'<circle class="hollow" cx="{x:.1f}" cy="{y}" r="4.5"/>'


def _svg(title: str, height: float, parts: Sequence[str], said: str) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(said)}</desc>{''.join(parts)}</svg>"
    )
