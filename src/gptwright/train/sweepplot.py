"""A sweep's curve, drawn twice: as text for a terminal, one line a value, and as SVG. No plotting library."""

import math
from collections.abc import Sequence
from html import escape

from gptwright.train.sweep import Trial, Value, Verdict


def shown(value: Value) -> str:
    """A value as it stands in a table and in the configuration."""
    return value if isinstance(value, str) else f"{value:g}"


def text_curve(verdict: Verdict, trials: Sequence[Trial], width: int = 50) -> str:
    """One line a value: its mean, and where it and its runs lie between the lowest and the highest loss.

    Args:
        verdict: of the sweep.
        trials: all runs.
        width: columns of the chart.
    """
    means = {value: mean for value, mean in verdict.means.items() if math.isfinite(mean)}
    every = [*means.values(), *(t.loss for t in trials if t.loss is not None and t.value in means)]
    low, high = min(every), max(every)
    names = {value: shown(value) for value in verdict.means}
    wide = max(map(len, names.values()))

    def column(loss: float) -> int:
        return round((loss - low) / ((high - low) or 1.0) * (width - 1))

    lines = []
    for value, mean in verdict.means.items():
        mark = "*" if value == verdict.tried else "~" if verdict.within(value) else " "
        if value not in means:
            lines.append(f"{mark} {names[value]:>{wide}}  diverged")
            continue
        cells = [" "] * width
        for trial in trials:
            if trial.value == value and trial.loss is not None:
                cells[column(trial.loss)] = "·"
        cells[column(mean)] = "●"
        lines.append(f"{mark} {names[value]:>{wide}}  {mean:.4f} |{''.join(cells).rstrip()}")
    legend = "bits/byte; ● mean, · one run, * lowest mean"
    if any(v != verdict.tried and verdict.within(v) for v in means):
        legend += ", ~ within noise of it"
    return "\n".join([*lines, f"  {legend}"])


def svg_curve(
    verdict: Verdict, trials: Sequence[Trial], key: str, title: str, width: int = 720, height: int = 360
) -> str:
    """Runs as dots, means as a line over the values (by logarithm when all are above 0), the interval within noise shaded.

    Args:
        verdict: of the sweep.
        trials: all runs.
        key: the setting, under the axis.
        title: stands above; also the accessible name.
        width: of the picture. Pixels.
        height: of the picture. Pixels.
    """
    values = list(verdict.means)
    place = _Places(values)
    means = [(place(value), mean) for value, mean in verdict.means.items() if math.isfinite(mean)]
    dots = [(place(t.value), t.loss) for t in trials if t.loss is not None and t.value in verdict.means]
    ys = [y for _, y in [*means, *dots]]
    y0, y1 = min(ys), max(ys)
    y1 = y1 if y1 > y0 else y0 + 0.01
    left, right, top, bottom = 64, 20, 40, 48

    def px(x: float) -> float:
        return left + 16 + x * (width - left - right - 32)

    def py(y: float) -> float:
        return height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}" '
        f'font-family="sans-serif" font-size="12"><rect width="{width}" height="{height}" fill="#fff"/>'
        f'<text x="{left}" y="22" font-size="14" fill="#222">{escape(title)}</text>'
    ]
    if verdict.low is not None and verdict.high is not None:
        a, b = px(place(verdict.low)), px(place(verdict.high))
        parts.append(
            f'<rect x="{a:.1f}" y="{top}" width="{max(b - a, 1):.1f}" height="{height - top - bottom}" fill="#2e8b57" opacity="0.12"/>'
        )
    for i in range(5):
        y = y0 + i * (y1 - y0) / 4
        parts.append(f'<path d="M{left} {py(y):.1f}H{width - right}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{left - 6}" y="{py(y) + 4:.1f}" text-anchor="end" fill="#666">{y:.3f}</text>')
    for value in values:
        parts.append(
            f'<text x="{px(place(value)):.1f}" y="{height - bottom + 18}" text-anchor="middle" fill="#666">{escape(shown(value))}</text>'
        )
    line = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in means)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="1.6"/>')
    parts += [f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.5" fill="#1f6feb" opacity="0.5"/>' for x, y in dots]
    best = px(place(verdict.best))
    parts.append(f'<path d="M{best:.1f} {top}V{height - bottom}" stroke="#d1592f" stroke-dasharray="4 3"/>')
    parts.append(
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 10}" text-anchor="middle" fill="#222">'
        f"{escape(key)}; held-out bits per byte; best {escape(shown(verdict.best))}; shaded: within noise</text>"
    )
    return "".join([*parts, "</svg>\n"])


class _Places:
    """Values to [0, 1]: by logarithm, by size, or words side by side."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.words = {value: i / max(len(values) - 1, 1) for i, value in enumerate(values)}
        numbers = [float(value) for value in values if not isinstance(value, str)]
        self.numbers = len(numbers) == len(values)
        self.logs = self.numbers and min(numbers) > 0
        if self.numbers:
            self.low, self.high = self._at(min(numbers)), self._at(max(numbers))

    def _at(self, value: float) -> float:
        return math.log(value) if self.logs else value

    def __call__(self, value: Value) -> float:
        if not self.numbers or isinstance(value, str):
            return self.words[value]
        return (self._at(float(value)) - self.low) / ((self.high - self.low) or 1.0)
