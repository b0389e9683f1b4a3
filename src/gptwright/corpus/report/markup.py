"""Pieces of the page: escaped text, tables, bars and histograms. Whatever comes from a corpus goes through ``esc``."""

import html
import re
from collections.abc import Sequence

from gptwright.corpus.report.collect import Measure
from gptwright.corpus.report.histogram import BINS

# Control characters, and the ones that turn the direction of writing: they could make a text look like another.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_WIDTH, _HEIGHT, _TOP = 320, 84, 16  # of a histogram's drawing, and the room above it for the threshold


SIGNS = {"<": "<", "<=": "≤", ">": ">", ">=": "≥", "==": "=", "!=": "≠"}


class Markup(str):
    """Text that is markup already and must not be escaped again."""

    __slots__ = ()


def esc(value: object) -> Markup:
    """Any value as text of a page: markup stays what it is, all else is escaped and holds no unseen characters."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True))


def join(parts: Sequence[object]) -> Markup:
    """Pieces one after the other."""
    return Markup("".join(esc(part) for part in parts))


def size(n_bytes: float) -> str:
    """Bytes for a person: three digits that count."""
    for unit, step in (("B", 1), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)):
        if abs(n_bytes) < 999.5 * step or unit == "TB":
            value = n_bytes / step
            return (
                f"{value:.0f} {unit}"
                if unit == "B" or value >= 100
                else f"{value:.1f} {unit}"
                if value >= 10
                else f"{value:.2f} {unit}"
            )
    raise AssertionError


def amount(n_bytes: float, bytes_per_token: float, sign: str = "") -> Markup:
    """Text as bytes, and as about so many tokens."""
    tokens = n_bytes / bytes_per_token
    step = next(
        ((unit, by) for unit, by in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)) if tokens >= by), ("", 1.0)
    )
    shown = f"{tokens / step[1]:.3g} {step[0]}".strip()
    return Markup(f'{esc(sign + size(n_bytes))}<span class="sub">{esc(shown)} tokens</span>')


def share(part: float, whole: float) -> str:
    """A percentage; little is not nothing."""
    value = part / whole if whole else 0.0
    return "0 %" if value == 0 else "< 0.1 %" if value < 0.001 else f"{value:.1%}".replace("%", " %")


def number(value: float) -> str:
    """A measured value: whole numbers whole, others with four digits that count."""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 10_000 else f"{value:.4g}"


def count(n: int, one: str, many: str | None = None) -> str:
    """A number of things: "1 copy", "2 copies"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def name(text: object) -> Markup:
    """A name of a rule, a source or a place, in the type of names; foreign directions of writing stay inside."""
    return Markup(f'<bdi class="id">{esc(text)}</bdi>')


def table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numeric: Sequence[int] = (),
    total: bool = False,
) -> Markup:
    """A table that can be read aloud: a caption, headings of columns and of rows; wide ones scroll by themselves.

    Args:
        caption: what it shows.
        head: names of the columns.
        rows: cells; the first of a row names it.
        numeric: columns of numbers.
        total: the last row adds up the others.
    """
    right = dict.fromkeys(numeric, ' class="n"')
    lines = []
    for at, row in enumerate(rows):
        cells = [
            f'<th scope="row">{esc(row[0])}</th>',
            *(f"<td{right.get(i, '')}>{esc(cell)}</td>" for i, cell in enumerate(row[1:], 1)),
        ]
        lines.append(f"<tr{' class=sum' if total and at == len(rows) - 1 else ''}>{''.join(cells)}</tr>")
    columns = "".join(f'<th scope="col"{right.get(i, "")}>{esc(one)}</th>' for i, one in enumerate(head))
    return Markup(
        f'<div class="card scroll" tabindex="0" role="region" aria-label="{esc(caption)}"><table><caption>{esc(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def bar(*segments: tuple[str, float]) -> Markup:
    """A bar of segments, left to right; the numbers beside it say the same.

    Args:
        segments: kind ("k" kept, "r" remaining, "d" dropped, "" empty) and share of the width.
    """
    at, drawn = 0.0, []
    for kind, width in segments:
        if kind and width > 0:
            drawn.append(
                f'<rect class="{kind}" x="{100 * at:.3f}%" width="{100 * max(width, 0.004):.3f}%" height="100%"/>'
            )
        at += width
    return Markup(f'<svg class="bar" aria-hidden="true" focusable="false">{"".join(drawn)}</svg>')


def histogram(measure: Measure) -> Markup:
    """A signal's histogram with the rule's threshold; what fails is in the colour of what is dropped. Heights go by square roots."""
    rule, axis, most = measure.rule, measure.axis, max(measure.bins)
    step = _WIDTH / BINS
    bars = []
    for at, documents in enumerate(measure.bins):
        if documents:
            tall = max(1.0, (documents / most) ** 0.5 * _HEIGHT)
            kind = "d" if _fails(rule.op, axis.value((at + 0.5) / BINS), rule.threshold) else "k"
            bars.append(
                f'<rect class="{kind}" x="{at * step:.2f}" y="{_TOP + _HEIGHT - tall:.2f}" width="{step - 0.8:.2f}" height="{tall:.2f}"/>'
            )
    place = float(axis.place(rule.threshold)) * _WIDTH
    anchor, shift = ("start", 4) if place < _WIDTH / 2 else ("end", -4)
    whole = float(measure.low).is_integer() and float(measure.high).is_integer()
    ticks = []
    for to, along in (("start", 0.0), ("middle", 0.5), ("end", 1.0)):
        value = max(axis.value(along), 0.0) if measure.low >= 0 else axis.value(along)
        told = number(float(round(value)) if whole else round(value, 2) if axis.high - axis.low < 3 else _round(value))
        ticks.append(f'<text x="{_WIDTH * along:.0f}" y="{_TOP + _HEIGHT + 14}" text-anchor="{to}">{esc(told)}</text>')
    limit = f"{SIGNS[rule.op]} {number(rule.threshold)}"
    label = (
        f"Histogram of {rule.signal} over {measure.n:,} documents, from {number(measure.low)} to {number(measure.high)}, median"
        f" {number(measure.median)}. Threshold: dropped when {limit}."
    )
    return Markup(
        f'<svg class="hist" role="img" aria-label="{esc(label)}" viewBox="0 0 {_WIDTH} {_TOP + _HEIGHT + 18}">{"".join(bars)}'
        f'<line class="base" x1="0" x2="{_WIDTH}" y1="{_TOP + _HEIGHT + 0.5}" y2="{_TOP + _HEIGHT + 0.5}"/>'
        f'<line class="mark" x1="{place:.2f}" x2="{place:.2f}" y1="2" y2="{_TOP + _HEIGHT}"/>'
        f'<text class="limit" x="{place + shift:.2f}" y="11" text-anchor="{anchor}">{esc(limit)}</text>{"".join(ticks)}</svg>'
    )


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def _fails(op: str, value: float, threshold: float) -> bool:
    return {
        "<": value < threshold,
        "<=": value <= threshold,
        ">": value > threshold,
        ">=": value >= threshold,
        "==": value == threshold,
        "!=": value != threshold,
    }[op]
