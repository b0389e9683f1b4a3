"""Runs of characters of a PDF's pages with their places, by PDFium; and the verdicts on files that have none."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gptwright.corpus.readers.base import NotText
from gptwright.corpus.readers.pdflayout import Run, page_texts

MOST_PAGES = 20_000
MOST_CHARS = 64 << 20  # of a document
MOST_PAGE_CHARS = 400_000
_LINE_END_HYPHENS = ("\x02", "\ufffe", "\xad")  # what PDFium makes of a hyphen that a line ends with
_GAP = 1.0  # times the height of the letters: wider gaps within a line part cells or columns


def read(path: Path, step: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Answers about a file: notes, its title, and its pages' texts.

    Args:
        step: called before each page, so that whoever watches knows that it goes on.

    Raises:
        NotText: it is damaged, locked, or holds no text that can be taken.
    """
    import pypdfium2 as pdfium

    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        said = str(error).lower()
        if "password" in said or "security" in said:
            raise NotText("encrypted: it needs a password. Save it without one") from error
        raise NotText("a damaged PDF, or one that was cut off") from error
    try:
        yield from _read(document, step, pdfium.PdfiumError)
    finally:
        document.close()


def _read(document: Any, step: Callable[[], None], fault: type[Exception]) -> Iterator[dict[str, Any]]:
    pages: list[list[Run]] = []
    empty = broken = total = odd = 0
    count = len(document)
    for number in range(min(count, MOST_PAGES)):
        step()
        try:
            runs, strange = _runs(document[number])
        except fault:
            runs, strange, broken = [], 0, broken + 1
        size = sum(len(run.text) for run in runs)
        total, odd, empty = total + size, odd + strange, empty + (not size)
        pages.append(runs)
        if total > MOST_CHARS:
            yield {
                "note": f"only the first {number + 1} of {count} pages were read: more than {MOST_CHARS >> 20} M characters"
            }
            break
    if count > MOST_PAGES:
        yield {"note": f"only the first {MOST_PAGES:,} of {count:,} pages were read"}
    many = f"{count} page{'s' * (count != 1)}"
    if not count:
        raise NotText("a PDF without pages")
    if broken == len(pages):
        raise NotText(f"a damaged PDF: none of its {many} can be read")
    if not total:
        raise NotText(f"no text layer ({many} of images). Run OCR first, or remove the file")
    if odd > 0.3 * total:
        raise NotText(
            f"its text layer ({many}) gives no letters: the fonts do not say what their signs mean. Run OCR first"
        )
    if broken:
        yield {"note": f"{broken} of {many} could not be read"}
    if empty > broken:
        yield {"note": f"{empty - broken} of {many} without a text layer"}
    title = document.get_metadata_value("Title").strip("\0 \t\n")
    if title and not title.lower().endswith((".doc", ".docx", ".dvi", ".tex", ".indd")) and title.lower() != "untitled":
        yield {"title": " ".join(title.split())[:300]}
    step()
    for number, text in enumerate(page_texts(pages), 1):
        if text:
            yield {"page": number, "text": text}


def _runs(page: Any) -> tuple[list[Run], int]:
    """The runs of a page, in the order of its content; and how many of its characters have no meaning."""
    import pypdfium2.raw as raw

    width, height = page.get_size()
    turn = page.get_rotation()
    text_page = page.get_textpage()
    handle = text_page.raw
    count = min(raw.FPDFText_CountChars(handle), MOST_PAGE_CHARS)
    box = [ctypes.c_double() for _ in range(4)]
    places = [ctypes.byref(one) for one in box]
    left, right, bottom, top = box
    unicode_of, box_of, generated = raw.FPDFText_GetUnicode, raw.FPDFText_GetCharBox, raw.FPDFText_IsGenerated
    runs: list[Run] = []
    now: list[str] = []
    edge = [0.0, 0.0, 0.0, 0.0]
    strange = 0

    def close() -> None:
        text = "".join(now).strip()
        if text:
            runs.append(Run(edge[0], edge[1], edge[2], edge[3], text))
        now.clear()

    high = 0
    for index in range(count):
        code = unicode_of(handle, index)
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if 0xDC00 <= code < 0xE000:
            code, high = (0x10000 + ((high - 0xD800) << 10) + code - 0xDC00, 0) if high else (0xFFFD, 0)
        char = chr(code)
        if char in "\r\n":
            close()
            continue
        if generated(handle, index) == 1 and char == " ":
            now.append(" ")
            continue
        if char in _LINE_END_HYPHENS:
            now.append("-")
            close()
            continue
        if code < 32:
            continue
        strange += code == 0xFFFD or 0xE000 <= code < 0xF900
        if char.isspace():
            now.append(" ")
            continue
        if not box_of(handle, index, *places):
            continue
        x0, x1, y0, y1 = left.value, right.value, bottom.value, top.value
        if turn == 90:
            x0, x1, y0, y1 = y0, y1, width - x1, width - x0
        elif turn == 180:
            x0, x1, y0, y1 = width - x1, width - x0, height - y1, height - y0
        elif turn == 270:
            x0, x1, y0, y1 = height - y1, height - y0, x0, x1
        if any(piece != " " for piece in now[-1:]) or len(now) > 1:
            size = max(edge[3] - edge[1], 4.0)
            middle = (y0 + y1) / 2
            if (
                x0 - edge[2] > _GAP * size
                or x1 < edge[0] - size
                or not edge[1] - 0.6 * size < middle < edge[3] + 0.6 * size
            ):
                close()
        if not now or not "".join(now).strip():
            now.clear()
            edge = [x0, y0, x1, y1]
        else:
            edge = [min(edge[0], x0), min(edge[1], y0), max(edge[2], x1), max(edge[3], y1)]
        now.append(char)
    close()
    text_page.close()
    page.close()
    return runs, strange
