"""Numbers over the steps, drawn twice: as text for a terminal, as SVG for pages. No plotting library."""

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
_LEVELS = " ▁▂▃▄▅▆▇█"
_SIGNS = "oxv*"
_COLOURS = ("#1f6feb", "#d1592f", "#2e8b57", "#8250df")


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


def text_overlay(series: Mapping[str, Points], width: int = 64, height: int = 12, label: str = "loss") -> str:
    """Up to four curves on one pair of axes, each in a sign of its own; where they meet, the later one is seen.

    Args:
        series: name -> (step, value) pairs in order.
        width: columns of the chart.
        height: lines of the chart.
        label: what the values are.
    """
    curves = {name: smooth(points, width) for name, points in series.items()}
    every = [point for curve in curves.values() for point in curve]
    if not every:
        return f"{label}: nothing to draw yet"
    x0, x1 = min(x for x, _ in every), max(x for x, _ in every)
    y0, y1 = min(y for _, y in every), max(y for _, y in every)
    cells = [[" "] * width for _ in range(height)]
    for sign, curve in zip(_SIGNS, curves.values(), strict=False):
        for x, y in curve:
            column = round((x - x0) / ((x1 - x0) or 1.0) * (width - 1))
            cells[round((y1 - y) / ((y1 - y0) or 1.0) * (height - 1))][column] = sign
    lines = []
    for row, line in enumerate(cells):
        edge = f"{y1:8.3f}" if row == 0 else f"{y0:8.3f}" if row == height - 1 else " " * 8
        lines.append(f"{edge} |{''.join(line)}".rstrip())
    first, last = f"{x0:.0f}", f"{x1:.0f}"
    legend = ", ".join(f"{sign} {name}" for sign, name in zip(_SIGNS, curves, strict=False))
    lines.append(" " * 10 + f"{first}{' ' * max(1, width - len(first) - len(last))}{last}")
    return "\n".join([*lines, f"{' ' * 10}{label} by step: {legend}"])


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The way of some numbers, in one line of blocks."""
    curve = [y for _, y in smooth(list(enumerate(values)), width)]
    if not curve:
        return ""
    low, span = min(curve), (max(curve) - min(curve)) or 1.0
    return "".join(_LEVELS[1 + min(7, int((y - low) / span * 8))] for y in curve)


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
        colour = _colour(number, len(curves))
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in curve)
        if len(curve) == 1:
            parts.append(f'<circle cx="{px(curve[0][0]):.1f}" cy="{py(curve[0][1]):.1f}" r="3" fill="{colour}"/>')
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"><title>{escape(name)}</title></polyline>'
        )
        parts.append(
            f'<text x="{width - right}" y="{top + 14 * (number + 1)}" text-anchor="end" fill="{colour}">{escape(name)}</text>'
        )
    return "".join([*parts, "</svg>\n"])


def _colour(number: int, count: int) -> str:
    """Colours that are easily told apart for a few curves, shades from blue to red for many, such as layers."""
    if count <= len(_COLOURS):
        return _COLOURS[number]
    return f"hsl({220 - round(220 * number / (count - 1))},65%,42%)"
