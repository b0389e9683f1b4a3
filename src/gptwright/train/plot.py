"""The loss over the steps, drawn twice: as text for a terminal, as SVG for the run's folder. No plotting library."""

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
_LEVELS = " ▁▂▃▄▅▆▇█"


def smooth(points: Points, width: int) -> list[tuple[float, float]]:
    """Means over at most ``width`` equal stretches of the points; non-finite values are left out."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return []
    count = min(width, len(finite))
    edges = [round(i * len(finite) / count) for i in range(count + 1)]
    chunks = [finite[a:b] for a, b in itertools.pairwise(edges)]
    return [(sum(x for x, _ in c) / len(c), sum(y for _, y in c) / len(c)) for c in chunks]


def text_plot(points: Points, width: int = 64, height: int = 8, label: str = "loss") -> str:
    """A column chart in block characters, with the range at its left.

    Args:
        points: (step, value) pairs in order.
        width: columns of the chart.
        height: lines of the chart.
    """
    curve = smooth(points, width)
    if not curve:
        return f"{label}: nothing to draw yet"
    low, high = min(y for _, y in curve), max(y for _, y in curve)
    span = (high - low) or 1.0
    filled = [1 + (y - low) / span * (height * 8 - 1) for _, y in curve]
    lines = []
    for row in reversed(range(height)):
        cells = "".join(_LEVELS[max(0, min(8, round(f) - row * 8))] for f in filled)
        edge = f"{high:8.3f}" if row == height - 1 else f"{low:8.3f}" if row == 0 else " " * 8
        lines.append(f"{edge} |{cells}")
    first, last = f"{curve[0][0]:.0f}", f"{curve[-1][0]:.0f}"
    return "\n".join(
        [*lines, " " * 10 + f"{first}{' ' * max(1, len(curve) - len(first) - len(last))}{last}  {label} by step"]
    )


def svg_plot(series: Mapping[str, Points], title: str, width: int = 720, height: int = 360) -> str:
    """Lines on one pair of axes as a standalone SVG, readable in dark and light.

    Args:
        series: name -> (step, value) pairs, drawn in the order given.
        title: stands above; also the accessible name.
    """
    curves = {name: smooth(points, 400) for name, points in series.items()}
    every = [point for curve in curves.values() for point in curve]
    left, right, top, bottom = 56, 16, 36, 36
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}" '
        f'font-family="sans-serif" font-size="12"><rect width="{width}" height="{height}" fill="#fff"/>'
        f'<text x="{left}" y="22" font-size="14" fill="#222">{escape(title)}</text>'
    )
    if not every:
        return head + f'<text x="{left}" y="{height // 2}" fill="#666">nothing to draw yet</text></svg>\n'
    x0, x1 = min(x for x, _ in every), max(x for x, _ in every)
    y0, y1 = min(y for _, y in every), max(y for _, y in every)
    x1, y1 = x1 if x1 > x0 else x0 + 1, y1 if y1 > y0 else y0 + 1

    def px(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (width - left - right)

    def py(y: float) -> float:
        return height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom)

    parts = [head]
    for i in range(5):
        y, x = y0 + i * (y1 - y0) / 4, x0 + i * (x1 - x0) / 4
        parts.append(f'<path d="M{left} {py(y):.1f}H{width - right}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{left - 6}" y="{py(y) + 4:.1f}" text-anchor="end" fill="#666">{y:.3g}</text>')
        parts.append(
            f'<text x="{px(x):.1f}" y="{height - bottom + 18}" text-anchor="middle" fill="#666">{x:.0f}</text>'
        )
    for number, (name, curve) in enumerate(curves.items()):
        colour = ("#1f6feb", "#d1592f", "#2e8b57", "#8250df")[number % 4]
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in curve)
        if len(curve) == 1:
            parts.append(f'<circle cx="{px(curve[0][0]):.1f}" cy="{py(curve[0][1]):.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(
            f'<text x="{width - right}" y="{top + 14 * (number + 1)}" text-anchor="end" fill="{colour}">{escape(name)}</text>'
        )
    return "".join([*parts, "</svg>\n"])
