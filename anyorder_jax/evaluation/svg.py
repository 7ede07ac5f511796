"""SVG: line charts and reliability diagrams as text that follows the page's colors."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 360, 230, 44, 30, 26, 22
NUM_COLORS = 8
Point = tuple[float, float, float, float]
"""x, y and the interval of y."""


def color(number: int) -> str:
    """The page's color of series number `number`."""
    return f"var(--s{number % NUM_COLORS})"


def key(names: Sequence[str]) -> str:
    """The legend, as HTML."""
    parts = [f'<span><i style="background:{color(i)}"></i>{html.escape(name)}</span>' for i, name in enumerate(names)]
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


def _svg(title: str, parts: Sequence[str]) -> str:
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(parts)}</svg></figure>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def line_chart(
    title: str, series: Mapping[str, Sequence[Point]], x_label: str, y_range: tuple[float, float] | None = None
) -> str:
    """Lines with bands, which end at `y_range` where it is given; the n-th series has the n-th color. Empty series keep
    their color and draw nothing."""
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    xs = [x for x, *_ in points]
    low, high = min(point[2] for point in points), max(point[3] for point in points)
    pad = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    frame = _Frame((min(xs), max(xs)), y_range or (low - pad, high + pad))
    parts = frame.axes(title, x_label)
    floor, ceiling = y_range or (-math.inf, math.inf)
    for number, line in enumerate(series.values()):
        if line:
            band = [frame.at(x, min(top, ceiling)) for x, _, _, top in line]
            band += [frame.at(x, max(bottom, floor)) for x, _, bottom, _ in reversed(line)]
            parts.append(f'<polygon class="band" points="{_path(band)}" style="fill:{color(number)}"/>')
            drawn = _path([frame.at(x, y) for x, y, _, _ in line])
            parts.append(f'<polyline class="series" points="{drawn}" style="stroke:{color(number)}"/>')
            for x, y, _, _ in line:
                px, py = frame.at(x, y)
                parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5" style="fill:{color(number)}"/>')
    return _svg(title, parts)


def reliability_diagram(title: str, series: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Accuracy over confidence; the area of a dot grows with the tokens in its bin. A calibrated model is on the
    diagonal."""
    if not any(series.values()):
        return ""
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    (x0, y0), (x1, y1) = frame.at(0, 0), frame.at(1, 1)
    parts = frame.axes(title, "confidence")
    parts.append(f'<line class="axis" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke-dasharray="4 3"/>')
    for number, bins in enumerate(series.values()):
        total = sum(one["count"] for one in bins)
        places = [frame.at(one["confidence"], one["accuracy"]) for one in bins]
        parts.append(f'<polyline class="series" points="{_path(places)}" style="stroke:{color(number)}"/>')
        for (x, y), one in zip(places, bins, strict=True):
            radius = 2 + 8 * math.sqrt(one["count"] / total)
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" '
                f'style="fill:{color(number)};opacity:.55"><title>{one["count"]} tokens</title></circle>'
            )
    return _svg(title, parts)
