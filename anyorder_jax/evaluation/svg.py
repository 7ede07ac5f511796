"""SVG: line charts and reliability diagrams as text that follows the page's colors."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 360, 230, 44, 30, 26, 22
NUM_COLORS = 8
DASHES = ("", "6 3", "2 3")
"""Of series 0..7, 8..15, 16..23: the same colors again, told apart by their lines."""
DOT, RING = 2.5, 1.5
"""Radius of a dot, and how much it grows for every later series with a dot at the same place: a curve that lies below
others is seen as rings around their dots."""
NO_CURVE = "no curve, "
Point = tuple[float, float, float, float]
"""x, y and the interval of y."""


def color(number: int) -> str:
    """The page's color of series number `number`."""
    return f"var(--s{number % NUM_COLORS})"


def _stroke(number: int) -> str:
    """Color and dashes of series number `number`, as attributes."""
    dashes = DASHES[number // NUM_COLORS % len(DASHES)]
    return f'style="stroke:{color(number)}"' + (f' stroke-dasharray="{dashes}"' if dashes else "")


def key(names: Sequence[str]) -> str:
    """The legend, as HTML."""
    parts = [
        f'<span><svg width="22" height="8"><line class="series" x1="0" y1="4" x2="22" y2="4" {_stroke(i)}/></svg>'
        f"{html.escape(name)}</span>"
        for i, name in enumerate(names)
    ]
    return f'<div class="key">{"".join(parts)}</div>'


def ticks(low: float, high: float, num: int = 4) -> list[float]:
    """Round numbers that cover [low, high]."""
    if high <= low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / num))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= num)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


class _Frame:
    """Axes of one chart: from data to pixels."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        return (
            LEFT + (x - x0) / ((x1 - x0) or 1) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y0) / ((y1 - y0) or 1) * (HEIGHT - BOTTOM - TOP),
        )

    def axes(self, title: str, x_label: str) -> list[str]:
        drawn = [f'<text class="title" x="{LEFT}" y="14">{html.escape(title)}</text>']
        for y in ticks(*self.y):
            px, py = self.at(self.x[0], y)
            drawn.append(f'<line class="axis" x1="{px:.1f}" y1="{py:.1f}" x2="{WIDTH - RIGHT}" y2="{py:.1f}"/>')
            drawn.append(f'<text x="{px - 6:.1f}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>')
        for x in ticks(*self.x):
            px, _ = self.at(x, self.y[0])
            drawn.append(f'<text x="{px:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{x:g}</text>')
        drawn.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{html.escape(x_label)}</text>')
        return drawn


def _svg(title: str, parts: Sequence[str], notes: Mapping[str, str]) -> str:
    """The figure; below it what is to be said of a series."""
    said = "; ".join(f"{name}: {note}" for name, note in notes.items())
    note = f"<figcaption>{html.escape(said)}.</figcaption>" if said else ""
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(parts)}</svg>{note}</figure>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def line_chart(
    title: str,
    series: Mapping[str, Sequence[Point]],
    x_label: str,
    y_range: tuple[float, float] | None = None,
    missing: Mapping[str, str] | None = None,
) -> str:
    """Lines with bands; the n-th series has the n-th color. A series without a point keeps its color and is named
    below.

    Args:
      title: above the chart.
      series: points of each name; those that are not finite are left out.
      x_label: of the x axis.
      y_range: where the axis ends, and bands with it; None: as the points need.
      missing: why a series has no point, where that is known.

    Returns:
      HTML; "" without any point.
    """
    finite = {name: [p for p in line if all(map(math.isfinite, p))] for name, line in series.items()}
    points = [point for line in finite.values() for point in line]
    if not points:
        return ""
    xs = [x for x, *_ in points]
    low, high = min(point[2] for point in points), max(point[3] for point in points)
    pad = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    frame = _Frame((min(xs), max(xs)), y_range or (low - pad, high + pad))
    parts = frame.axes(title, x_label)
    for number, line in enumerate(finite.values()):
        parts += _line(frame, line, number, y_range or (-math.inf, math.inf))
    parts += _dots([[frame.at(x, y) for x, y, _, _ in line] for line in finite.values()])
    return _svg(title, parts, _notes(series, finite, missing or {}))


def _notes(
    series: Mapping[str, Sequence[Point]], finite: Mapping[str, Sequence[Point]], missing: Mapping[str, str]
) -> dict[str, str]:
    """What has to be said of series that are not seen as a curve of their own."""
    notes: dict[str, str] = {}
    seen: dict[tuple[Point, ...], str] = {}
    for name, line in finite.items():
        num_lost = len(series[name]) - len(line)
        if num_lost:
            notes[name] = f"{num_lost} of {len(series[name])} points are not finite"
        elif not line:
            notes[name] = NO_CURVE + missing.get(name, "nothing was measured")
        elif tuple(line) in seen:
            notes[name] = f"the same as {seen[tuple(line)]}"
        seen.setdefault(tuple(line), name)
    return notes


def _line(frame: _Frame, line: Sequence[Point], number: int, limits: tuple[float, float]) -> list[str]:
    """Band and line of series number `number`."""
    floor, ceiling = limits
    band = [frame.at(x, min(top, ceiling)) for x, _, _, top in line]
    band += [frame.at(x, max(bottom, floor)) for x, _, bottom, _ in reversed(line)]
    places = [frame.at(x, y) for x, y, _, _ in line]
    return [
        f'<polygon class="band" points="{_path(band)}" style="fill:{color(number)}"/>',
        f'<polyline class="series" points="{_path(places)}" {_stroke(number)}/>',
    ] * bool(line)


def _dots(places: Sequence[Sequence[tuple[float, float]]]) -> list[str]:
    """The dots of all series, larger below others."""
    later = Counter((round(x), round(y)) for line in places for x, y in line)
    drawn = []
    for number, line in enumerate(places):
        later.subtract((round(x), round(y)) for x, y in line)
        for x, y in line:
            radius = DOT + RING * later[round(x), round(y)]
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" style="fill:{color(number)}"/>')
    return drawn


def reliability_diagram(title: str, series: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Accuracy over confidence; the area of a dot grows with the tokens in its bin. A calibrated model is on the
    dashed diagonal."""
    if not any(series.values()):
        return ""
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    (x0, y0), (x1, y1) = frame.at(0, 0), frame.at(1, 1)
    parts = frame.axes(title, "confidence")
    parts.append(f'<line class="ideal" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>')
    for number, bins in enumerate(series.values()):
        if not bins:
            continue
        total = sum(one["count"] for one in bins)
        places = [frame.at(one["confidence"], one["accuracy"]) for one in bins]
        parts.append(f'<polyline class="series" points="{_path(places)}" {_stroke(number)}/>')
        for (x, y), one in zip(places, bins, strict=True):
            radius = 2 + 8 * math.sqrt(one["count"] / total)
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" '
                f'style="fill:{color(number)};opacity:.55"><title>{one["count"]} tokens</title></circle>'
            )
    return _svg(title, parts, {name: NO_CURVE + "no such token was asked" for name, bins in series.items() if not bins})
