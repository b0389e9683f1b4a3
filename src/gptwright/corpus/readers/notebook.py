"""Jupyter notebooks: Markdown and code cells in their order, code in fences; outputs are results of running and no text of the author's."""

import json
from collections.abc import Iterator
from typing import Any

from gptwright.corpus import text as t
from gptwright.corpus.readers.base import NotText, Reading, Record
from gptwright.corpus.readers.blob import Blob

MOST_CHARS = 64 << 20  # with its outputs, which may hold pictures


def read_notebook(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One document: the notebook as Markdown.

    Source: nbformat 4; format 3 keeps its cells in worksheets.
    """
    with t.open_text(blob, reading.charset_found) as file:
        text = file.read(MOST_CHARS + 1)
    if len(text) > MOST_CHARS:
        raise NotText(f"larger than {MOST_CHARS >> 20} M characters. Clear its outputs")
    try:
        book = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotText(f"not valid JSON, as a notebook must be ({error})") from error
    if not isinstance(book, dict):
        raise NotText("not a notebook: its JSON is no object")
    cells = book.get("cells")
    if not isinstance(cells, list):
        sheets = book.get("worksheets")
        cells = (
            [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells") or []]
            if isinstance(sheets, list)
            else None
        )
    if cells is None:
        raise NotText("not a notebook: it has no cells")
    stated = book.get("metadata")
    about: dict[str, Any] = stated if isinstance(stated, dict) else {}
    language = _language(about)
    pieces = [piece for cell in cells if isinstance(cell, dict) and (piece := _cell(cell, language))]
    title = about.get("title") if isinstance(about.get("title"), str) else None
    yield Record("", t.normalise("\n\n".join(pieces)), title=title or _heading(cells))


def _language(about: Any) -> str:
    for key in ("language_info", "kernelspec"):
        inner = about.get(key)
        name = inner.get("name" if key == "language_info" else "language") if isinstance(inner, dict) else None
        if isinstance(name, str):
            return name
    return "python"


def _cell(cell: dict[str, Any], language: str) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = "".join(map(str, source)) if isinstance(source, list) else source if isinstance(source, str) else ""
    if not text.strip():
        return ""
    if cell.get("cell_type") == "code":
        return f"```{language}\n{text.strip(chr(10))}\n```"
    if cell.get("cell_type") == "heading" and isinstance(cell.get("level"), int):
        return f"{'#' * cell['level']} {text}"
    return text.strip("\n")


def _heading(cells: list[Any]) -> str | None:
    first = next((cell for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "markdown"), None)
    lines = (_cell(first, "").splitlines() or [""]) if first else [""]
    return lines[0].lstrip("# ").strip() or None if lines[0].startswith("#") else None
