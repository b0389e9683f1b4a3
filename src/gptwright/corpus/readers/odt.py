"""OpenDocument texts: paragraphs, headings, lists, tables and notes in the document's order."""

from collections.abc import Iterator

from gptwright.corpus.readers.base import NotText, Reading, Record
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.xmlparts import Package, Prose, records_of, walk

_UNSEEN = frozenset(
    {
        "tracked-changes",
        "annotation",
        "table-of-content",
        "alphabetical-index",
        "bibliography",
        "sequence-decls",
        "forms",
        "note-citation",
    }
)
_MOST_SPACES = 100


def read_odt(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One document.

    Source: OASIS OpenDocument 1.3 part 3.
    """
    with Package(blob) as package:
        if "META-INF/manifest.xml" in package.names and b"encryption-data" in package.read("META-INF/manifest.xml"):
            raise NotText("encrypted: it needs a password. Save it without one")
        body = _Body()
        with package.open("content.xml") as file:
            walk(file, body.start, body.end, body.text)
        title = _title(package)
    yield from records_of([("", body.prose.text())], title=title)


class _Body:
    """Events of content.xml to prose."""

    def __init__(self) -> None:
        self.prose = Prose()
        self._unseen = self._lists = 0
        self._items: list[str] = []  # marks that wait for their paragraph
        self._notes: list[Prose] = []  # the document's prose while a note is read
        self._open = 0  # paragraphs that are open: text between them is layout

    def start(self, space: str, name: str, attributes: dict[str, str]) -> None:
        if self._unseen or name in _UNSEEN:
            self._unseen += 1
        elif name in ("p", "h"):
            self._open += 1
        elif name == "s":
            count = attributes.get("c", "1")
            self.prose.say(" " * min(int(count) if count.isdigit() else 1, _MOST_SPACES))
        elif name == "tab":
            self.prose.say("\t")
        elif name == "line-break":
            self.prose.say("\n")
        elif name == "list":
            self._lists += 1
        elif name == "list-item":
            self._items.append("  " * min(self._lists - 1, 8) + "- ")
        elif name == "table-row":
            self.prose.open_row()
        elif name in ("table-cell", "covered-table-cell"):
            self.prose.open_cell()
        elif name == "note-body":
            self.prose.say(f"[{len(self.prose.notes) + 1}]")
            self._notes.append(self.prose)
            self.prose = Prose()

    def end(self, space: str, name: str) -> None:
        if self._unseen:
            self._unseen -= 1
        elif name in ("p", "h"):
            self._open -= 1
            mark = self._items[-1] if self._items and not self._notes else ""
            if mark:
                self._items[-1] = " " * len(mark)  # the item's further paragraphs
            self.prose.paragraph("li" if mark else "p", mark)
        elif name == "list":
            self._lists -= 1
        elif name == "list-item" and self._items:
            self._items.pop()
        elif name in ("table-cell", "covered-table-cell"):
            self.prose.close_cell()
        elif name == "table-row":
            self.prose.close_row()
        elif name == "note-body" and self._notes:
            note = self.prose.text()
            self.prose = self._notes.pop()
            self.prose.notes.append(note)

    def text(self, text: str) -> None:
        if self._open and not self._unseen:
            self.prose.say(" ".join(text.split("\n")))


def _title(package: Package) -> str | None:
    if "meta.xml" not in package.names:
        return None
    pieces: list[str] = []
    inside = [False]

    def start(space: str, name: str, attributes: dict[str, str]) -> None:
        inside[0] = name == "title"

    try:
        with package.open("meta.xml") as file:
            walk(
                file,
                start,
                lambda *_: inside.__setitem__(0, False),
                lambda text: pieces.append(text) if inside[0] else None,
            )
    except NotText:
        return None
    return " ".join("".join(pieces).split()) or None
