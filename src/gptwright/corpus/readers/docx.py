"""Word documents: paragraphs, lists, tables and notes in the document's order. What was deleted under change tracking is gone."""

from collections import Counter
from collections.abc import Iterator

from gptwright.corpus.readers.base import NotText, Reading, Record
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.xmlparts import Package, Prose, records_of, walk

_WORD = ("http://schemas.openxmlformats.org/wordprocessingml", "http://purl.oclc.org/ooxml/wordprocessingml")
_UNSEEN = frozenset({"del", "moveFrom", "instrText", "delText", "Fallback", "rPrChange", "pPrChange"})


def read_docx(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One document.

    Source: ECMA-376 part 1, section 17 (WordprocessingML).
    """
    with Package(blob) as package:
        numbered = _numbering(package)
        body = _Body(numbered)
        with package.open("word/document.xml") as file:
            walk(file, body.start, body.end, body.text)
        notes = {kind: _notes(package, kind) for kind in ("footnote", "endnote") if body.wanted[kind]}
        prose = body.prose
        prose.notes = [notes[kind].get(key, "") for kind, key in body.order]
        title = _title(package)
    yield from records_of([("", prose.text())], title=title)


class _Body:
    """Events of a document's body to prose."""

    def __init__(self, numbered: dict[tuple[str, str], bool]) -> None:
        self.prose = Prose()
        self.order: list[tuple[str, str]] = []  # notes as they are referred to
        self.wanted: Counter[str] = Counter()
        self._numbered = numbered
        self._counts: Counter[tuple[str, int]] = Counter()
        self._unseen = 0
        self._in_text = 0
        self._list: dict[str, str] | None = None
        self._properties = False
        self._style = ""

    def start(self, space: str, name: str, attributes: dict[str, str]) -> None:
        if self._unseen or name in _UNSEEN:
            self._unseen += 1
            return
        if not space.startswith(_WORD):
            return
        if name == "t":
            self._in_text += 1
        elif name in ("tab", "ptab") and not self._properties:
            self.prose.say("\t")
        elif name in ("br", "cr"):
            self.prose.say("\n")
        elif name == "noBreakHyphen":
            self.prose.say("-")
        elif name == "pPr":
            self._properties = True
        elif name == "p":
            self._list = None
        elif name == "numPr":
            self._list = {}
        elif name in ("ilvl", "numId") and self._list is not None and self._properties:
            self._list[name] = attributes.get("val", "0")
        elif name == "tr":
            self.prose.open_row()
        elif name == "tc":
            self.prose.open_cell()
        elif name in ("footnoteReference", "endnoteReference"):
            kind = name.removesuffix("Reference")
            self.order.append((kind, attributes.get("id", "")))
            self.wanted[kind] += 1
            self.prose.say(f"[{len(self.order)}]")

    def end(self, space: str, name: str) -> None:
        if self._unseen:
            self._unseen -= 1
            return
        if not space.startswith(_WORD):
            return
        if name == "t":
            self._in_text -= 1
        elif name == "pPr":
            self._properties = False
        elif name == "p":
            mark = self._mark()
            self.prose.paragraph("li" if mark else "p", mark)
            self._list = None
        elif name == "tc":
            self.prose.close_cell()
        elif name == "tr":
            self.prose.close_row()

    def text(self, text: str) -> None:
        if self._in_text and not self._unseen:
            self.prose.say(text)

    def _mark(self) -> str:
        """The sign before an item of a list: its number, counted for each list and level, or a dash."""
        if self._list is None or self._list.get("numId", "0") == "0":
            return ""
        number, level = self._list["numId"], self._list.get("ilvl", "0")
        depth = int(level) if level.isdigit() else 0
        if not self._numbered.get((number, level), False):
            return "  " * min(depth, 8) + "- "
        self._counts[(number, depth)] += 1
        for other in list(self._counts):
            if other[0] == number and other[1] > depth:
                del self._counts[other]
        return "  " * min(depth, 8) + f"{self._counts[(number, depth)]}. "


def _numbering(package: Package) -> dict[tuple[str, str], bool]:
    """(list, level) -> whether its items have numbers."""
    if "word/numbering.xml" not in package.names:
        return {}
    formats: dict[tuple[str, str], bool] = {}
    kinds: dict[str, str] = {}
    now = {"abstract": "", "level": "", "num": ""}

    def start(space: str, name: str, attributes: dict[str, str]) -> None:
        if name == "abstractNum":
            now["abstract"] = attributes.get("abstractNumId", "")
        elif name == "lvl":
            now["level"] = attributes.get("ilvl", "")
        elif name == "numFmt":
            formats[(now["abstract"], now["level"])] = attributes.get("val") not in ("bullet", "none")
        elif name == "num":
            now["num"] = attributes.get("numId", "")
        elif name == "abstractNumId" and now["num"]:
            kinds[now["num"]] = attributes.get("val", "")

    try:
        with package.open("word/numbering.xml") as file:
            walk(file, start, lambda *_: None, lambda *_: None)
    except NotText:
        return {}
    return {
        (num, level): yes
        for num, abstract in kinds.items()
        for (kind, level), yes in formats.items()
        if kind == abstract
    }


def _notes(package: Package, kind: str) -> dict[str, str]:
    name = f"word/{kind}s.xml"
    if name not in package.names:
        return {}
    found: dict[str, list[str]] = {}
    now = {"id": "", "text": ""}

    def start(space: str, tag: str, attributes: dict[str, str]) -> None:
        if tag == kind:
            now["id"] = attributes.get("id", "")
        now["text"] = "yes" if tag == "t" else now["text"]

    def end(space: str, tag: str) -> None:
        now["text"] = "" if tag == "t" else now["text"]
        if tag == "p":
            found.setdefault(now["id"], []).append(" ")

    with package.open(name) as file:
        walk(file, start, end, lambda text: found.setdefault(now["id"], []).append(text) if now["text"] else None)
    return {key: "".join(pieces).strip() for key, pieces in found.items()}


def _title(package: Package) -> str | None:
    if "docProps/core.xml" not in package.names:
        return None
    pieces: list[str] = []
    inside = [False]

    def start(space: str, name: str, attributes: dict[str, str]) -> None:
        inside[0] = name == "title"

    try:
        with package.open("docProps/core.xml") as file:
            walk(
                file,
                start,
                lambda *_: inside.__setitem__(0, False),
                lambda text: pieces.append(text) if inside[0] else None,
            )
    except NotText:
        return None
    return " ".join("".join(pieces).split()) or None
