"""From runs of characters with their places to text as it is read: columns, paragraphs, words cut at line ends, running heads.

Nothing here knows PDF. Places are in points, y grows upwards.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median

_NUMBER = re.compile(
    r"\W*(?:page|seite|p\.|s\.)?\s*(?:\d{1,5}|[ivxlcdm]{1,8})(?:\s*(?:of|von|/|\|)\s*\d{1,5})?\W*", re.IGNORECASE
)
_DIGITS = re.compile(r"\d+")
_WORD_CUT = re.compile(r"(\w{2,})[-\u2010\u00ac]$")
_LEADERS = re.compile(r"(?:\. ?){4,}\s*(?:\d+|[ivxlc]+)$")
_ENDS = (".", "!", "?", ":", "。", "！", "？", "…", '"', "”", "»")
_EDGE_ROWS = 2  # rows at the top and bottom of a page among which running heads are looked for
_GUTTER = 8.0  # points, at least
_ITEM = re.compile(r"(?:[•◦▪‣–*-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s")


@dataclass(frozen=True)
class Run:
    """Characters that stand together on a line."""

    x0: float
    y0: float
    x1: float
    y1: float
    text: str

    @property
    def middle(self) -> float:
        return (self.y0 + self.y1) / 2


Row = list[Run]


def page_texts(pages: Sequence[Sequence[Run]]) -> Iterator[str]:
    """The text of each page; put together they are the document's.

    Args:
        pages: runs of each page.
    """
    rows = [rows_of(runs) for runs in pages]
    rows = drop_running(rows)
    columns = [line for page in rows for line in _lines(page)]
    words = Counter(re.findall(r"\w+(?:-\w+)*", " ".join(line.text.lower() for line in columns)))
    lines = [list(_lines(page)) for page in rows]
    for number, page in enumerate(lines):
        text = _join(page, words)
        after = next((following[0] for following in lines[number + 1 :] if following), None)
        if not text:
            yield ""
        elif after is None:
            yield text
        elif _runs_on(page[-1], after, page):
            # The paragraph goes on overleaf.
            cut = _WORD_CUT.search(text)
            yield text[:-1] if cut and _joins(cut[1], after.text, words) else text + ("" if cut else " ")
        else:
            yield text + "\n\n"


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """Runs that stand on one line, top to bottom; within a row left to right."""
    rows: list[Row] = []
    for run in sorted(runs, key=lambda run: (-run.middle, run.x0)):
        row = rows[-1] if rows else None
        if row is not None:
            low, high = min(one.y0 for one in row), max(one.y1 for one in row)
            overlap = min(high, run.y1) - max(low, run.y0)
            if overlap > 0.5 * min(high - low, run.y1 - run.y0) and low <= run.middle <= high:
                row.append(run)
                continue
        rows.append([run])
    return [sorted(row, key=lambda run: run.x0) for row in rows]


def drop_running(pages: list[list[Row]]) -> list[list[Row]]:
    """Pages without running heads and feet: what stands at the same edge of many pages, numbers aside, and page numbers."""
    seen: Counter[tuple[int, str]] = Counter()
    for page in pages:
        for edge in (1, -1):
            seen.update({(edge, _key(row)) for row in page[::edge][:_EDGE_ROWS]})
    filled = sum(bool(page) for page in pages)
    enough = max(3, 0.3 * filled)

    def running(row: Row, edge: int) -> bool:
        text = " ".join(run.text for run in row)
        if (
            filled >= 2
            and _NUMBER.fullmatch(text)
            and sum(n for (e, key), n in seen.items() if e == edge and _NUMBER.fullmatch(key.replace("#", "1")))
            >= min(enough, filled)
        ):
            return True
        return seen[(edge, _key(row))] >= enough and len(text) < 200

    kept: list[list[Row]] = []
    for page in pages:
        first, last = 0, len(page)
        while first < min(_EDGE_ROWS, last) and running(page[first], 1):
            first += 1
        while last > max(first, len(page) - _EDGE_ROWS) and running(page[last - 1], -1):
            last -= 1
        kept.append(page[first:last])
    return kept


def _key(row: Row) -> str:
    return _DIGITS.sub("#", " ".join(run.text for run in row)).lower()


@dataclass(frozen=True)
class _Line:
    text: str
    x0: float
    x1: float
    y0: float
    y1: float
    block: int  # lines of one column, or of what stands between columns
    left: float  # of the block
    right: float
    table: bool


def _lines(rows: list[Row]) -> Iterator[_Line]:
    """The lines of a page in reading order."""
    gutters = find_gutters(rows)
    block = 0
    for crossing, group in groupby(rows, key=lambda row: not gutters or _crosses(row, gutters)):
        band = list(group)
        if crossing:
            yield from _block(band, block)
            block += 1
            continue
        bounds = [float("-inf"), *[(a + b) / 2 for a, b in gutters], float("inf")]
        for low, high in pairwise(bounds):
            column = [[run for run in row if low <= (run.x0 + run.x1) / 2 < high] for row in band]
            yield from _block([row for row in column if row], block)
            block += 1


def _block(rows: list[Row], number: int) -> Iterator[_Line]:
    if not rows:
        return
    left, right = min(row[0].x0 for row in rows), max(run.x1 for row in rows for run in row)
    for row in rows:
        table = len(row) > 1 and not _item_mark(row)
        text = ("  " if table else " ").join(run.text for run in row)
        table = table or _LEADERS.search(text) is not None  # an entry of a table of contents
        yield _Line(
            text,
            row[0].x0,
            max(run.x1 for run in row),
            min(r.y0 for r in row),
            max(r.y1 for r in row),
            number,
            left,
            right,
            table,
        )


def _item_mark(row: Row) -> bool:
    return len(row) == 2 and len(row[0].text) <= 4


def find_gutters(rows: list[Row]) -> list[tuple[float, float]]:
    """The empty strips between columns of prose, left to right: (from, to).

    A strip counts when few rows cross it, and on both sides of it lines are long and many, as those of a table are not.
    """
    runs = [run for row in rows for run in row]
    if len(rows) < 6:
        return []
    left, right = min(run.x0 for run in runs), max(run.x1 for run in runs)
    width = int(right - left) + 1
    if not 100 < width < 20_000:
        return []
    crossed = [0] * (width + 2)
    for row in rows:
        for run in row:
            crossed[max(0, int(run.x0 - left))] += 1
            crossed[min(width, int(run.x1 - left) + 1)] -= 1
    found: list[tuple[float, float]] = []
    depth, start = 0, None
    for x in range(width):
        depth += crossed[x]
        free = depth <= 0.15 * len(rows)
        if free and start is None:
            start = x
        elif not free and start is not None:
            if x - start >= _GUTTER and start > 0.1 * width and x < 0.9 * width:
                found.append((left + start, left + x))
            start = None
    bounds = [left, *[(a + b) / 2 for a, b in found], right]
    for low, high in pairwise(bounds):
        own = [run for run in runs if low <= (run.x0 + run.x1) / 2 < high and run.x1 - run.x0 <= 1.1 * (high - low)]
        if len(own) < 4 or median(run.x1 - run.x0 for run in own) < 0.5 * (high - low):
            return []
    return found


def _crosses(row: Row, gutters: list[tuple[float, float]]) -> bool:
    return any(run.x0 < a + 1 and run.x1 > b - 1 for run in row for a, b in gutters)


def _join(lines: list[_Line], words: "Counter[str]") -> str:
    """Lines to paragraphs, which stand apart by a blank line."""
    if not lines:
        return ""
    pitches = [a.y0 - b.y0 for a, b in pairwise(lines) if a.block == b.block and a.y0 > b.y0]
    pitch = median(pitches) if pitches else 12.0
    out = [lines[0].text]
    for before, line in pairwise(lines):
        new = _breaks(before, line, pitch) if line.block == before.block else not _runs_on(before, line, lines)
        cut = _WORD_CUT.search(before.text)
        if new:
            out.append(
                "\n" if (line.table and before.table) or (_ITEM.match(line.text) and _ITEM.match(out[-1])) else "\n\n"
            )
        elif cut and _joins(cut[1], line.text, words):
            out[-1] = out[-1][:-1]
        elif not cut and not (_wide(before.text[-1:]) and _wide(line.text[:1])):
            out.append(" ")
        out.append(line.text)
    return "".join(out)


def _wide(char: str) -> bool:
    """Signs of scripts that put no spaces between words."""
    return "\u2e80" <= char <= "\u9fff" or "\uff00" <= char <= "\uffef" or "\u3000" <= char <= "\u30ff"


def _breaks(before: _Line, line: _Line, pitch: float) -> bool:
    """Whether a line of the same column begins a new paragraph."""
    height = max(line.y1 - line.y0, 1.0)
    if before.y0 - line.y0 > 1.4 * pitch or line.table or before.table:
        return True
    if _ITEM.match(line.text) and not _WORD_CUT.search(before.text):
        return True
    before_height = max(before.y1 - before.y0, 1.0)
    if max(height, before_height) > 1.35 * min(height, before_height) and before.text[-1:] not in (",", "-"):
        return True  # a heading's letters are larger
    room = (before.right - before.x1) / max(before.right - before.left, 1.0)
    short = room > 0.15
    if room > 0.4 and line.text[:1].isupper() and not _WORD_CUT.search(before.text):
        return True
    indented = line.x0 > line.left + 0.8 * height and before.x0 < line.left + 0.8 * height
    return (short and before.text.endswith(_ENDS)) or (indented and before.text.endswith(_ENDS))


def _runs_on(before: _Line, line: _Line, lines: list[_Line]) -> bool:
    """Whether a paragraph goes on in the next column or page."""
    if before.table or line.table or _ITEM.match(line.text):
        return False
    full = before.x1 >= before.right - 0.15 * (before.right - before.left)
    return (
        (full or bool(_WORD_CUT.search(before.text)))
        and not before.text.endswith(_ENDS)
        and not line.text[:1].isupper()
    )


def _joins(first: str, text: str, words: "Counter[str]") -> bool:
    """Whether a word that a line's end cuts is one without a hyphen. What stands elsewhere in the document decides."""
    second = re.match(r"\w+", text)
    if second is None or not second[0][:1].islower():
        return False
    whole, hyphened = (first + second[0]).lower(), f"{first}-{second[0]}".lower()
    return words[whole] >= words[hyphened]
