"""Rich Text Format: the text of a document, without its fonts, styles, pictures, headers and footers."""

import codecs
import re
from collections.abc import Iterator

from gptwright.corpus.readers.base import NotText, Reading, Record
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.xmlparts import Prose, records_of

MOST_BYTES = 64 << 20
_DEEPEST = 10_000
_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+|([^\\{}\r\n]+)|\\"
)
_HIDDEN = frozenset(
    b"fonttbl colortbl stylesheet listtable listoverridetable revtbl rsidtbl generator info pict object header headerl headerr headerf footer "
    b"footerl footerr footerf themedata colorschememapping datastore latentstyles xmlnstbl fldinst pntext listtext bkmkstart bkmkend shppict "
    b"nonshppict filetbl comment annotation atnid atnauthor mmathPr userprops operator author company docvar falt panose template".split()
)
_SIGNS = {
    b"tab": "\t", b"line": "\n", b"emdash": "\u2014", b"endash": "\u2013", b"lquote": "\u2018", b"rquote": "\u2019", b"ldblquote": "\u201c",
    b"rdblquote": "\u201d", b"bullet": "\u2022", b"emspace": " ", b"enspace": " ", b"softline": "\n",
}  # fmt: skip
_CHARSETS = {
    0: "cp1252", 77: "mac_roman", 128: "cp932", 129: "cp949", 134: "gb18030", 136: "big5", 161: "cp1253", 162: "cp1254", 163: "cp1258",
    177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250",
}  # fmt: skip


def read_rtf(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One document.

    Source: Rich Text Format specification 1.9.1.
    """
    data = blob.whole(MOST_BYTES, "RTF file")
    parser = _Parser()
    parser.run(data)
    if parser.depth > 0:
        reading.notes.append("cut off: not all of its groups are closed")
    yield from records_of([("", parser.prose.text())], title=parser.title())


class _Parser:
    """State of a group: (hidden, font, characters to skip after \\u, in the font table, in the title, in a table)."""

    def __init__(self) -> None:
        self.prose = Prose()
        self.depth = 0
        self._codec = "cp1252"
        self._fonts: dict[int, str] = {}
        self._hidden, self._font, self._uc, self._kind = False, -1, 1, ""
        self._stack: list[tuple[bool, int, int, str]] = []
        self._bytes = bytearray()
        self._skip = 0
        self._title = ""
        self._row = False
        self._high = 0  # the first half of a surrogate pair
        self._note: Prose | None = None
        self._note_depth = 0

    def title(self) -> str | None:
        return " ".join(self._title.split()) or None

    def run(self, data: bytes) -> None:
        """Read all tokens."""
        end, at = len(data), 0
        for found in _TOKEN.finditer(data):
            if found.end() <= at:
                continue
            word, number, code, symbol, brace, text = found.groups()
            if text is not None:
                taken = min(self._skip, len(text))
                self._skip -= taken
                self._raw(text[taken:])
            elif code is not None:
                if self._skip:
                    self._skip -= 1
                else:
                    self._raw(bytes([int(code, 16)]))
            elif brace is not None:
                self._flush()
                self._open() if brace == b"{" else self._close()
            elif word is not None:
                if word == b"bin":  # raw bytes follow, which may look like anything
                    at = min(end, found.end() + max(0, int(number or 0)))
                    continue
                self._word(word, int(number) if number is not None else None)
            elif symbol is not None:
                self._symbol(symbol)
        self._flush()
        self.prose.paragraph()

    def _open(self) -> None:
        if self.depth >= _DEEPEST:
            raise NotText(f"its groups are more than {_DEEPEST:,} deep, as those of no honest document are")
        self.depth += 1
        self._skip = 0
        self._stack.append((self._hidden, self._font, self._uc, self._kind))

    def _close(self) -> None:
        self._skip = 0
        if not self._stack:
            return
        if self._note is not None and self.depth == self._note_depth:
            self.prose.paragraph()
            note, self.prose, self._note = self.prose.text(), self._note, None
            self.prose.notes.append(note)
        self.depth -= 1
        self._hidden, self._font, self._uc, self._kind = self._stack.pop()

    def _raw(self, data: bytes) -> None:
        if data and (not self._hidden or self._kind == "title"):
            self._bytes += data

    def _flush(self) -> None:
        if self._bytes:
            codec = self._fonts.get(self._font, self._codec)
            self._say(bytes(self._bytes).decode(codec, "replace"))
            self._bytes.clear()

    def _say(self, text: str) -> None:
        if self._kind == "title":
            self._title += text
        elif not self._hidden:
            self.prose.say(text)

    def _symbol(self, symbol: bytes) -> None:
        self._flush()
        if symbol == b"*":
            self._hidden, self._kind = True, "*"
        elif symbol in (b"\r", b"\n"):
            self._paragraph()
        elif symbol == b"~":
            self._say("\u00a0")
        elif symbol == b"_":
            self._say("-")
        elif symbol in (b"\\", b"{", b"}"):
            self._say(symbol.decode())

    def _word(self, word: bytes, number: int | None) -> None:
        if word == b"u" and number is not None:
            self._flush()
            self._unicode(number & 0xFFFF)
            self._skip = self._uc
            return
        self._flush()
        if word == b"uc":
            self._uc = max(0, min(number or 0, 16))
        elif word == b"ansicpg" and number:
            self._codec = _codec(f"cp{number}") or self._codec
        elif word == b"mac":
            self._codec = "mac_roman"
        elif word == b"fonttbl":
            self._hidden, self._kind = True, "fonts"
        elif word == b"f" and number is not None:
            self._font = number
        elif word == b"fcharset" and self._kind == "fonts" and self._font >= 0:
            if number in _CHARSETS and number:
                self._fonts[self._font] = _CHARSETS[number]
        elif word == b"title" and self._stack:
            self._kind = "title"
        elif word in (b"footnote", b"endnote") and not self._hidden and self._note is None:
            self.prose.say(f"[{len(self.prose.notes) + 1}]")
            self._note, self._note_depth, self.prose = self.prose, self.depth, Prose()
        elif word in _HIDDEN:
            self._hidden, self._kind = True, ""
        elif self._hidden:
            return
        elif word in (b"par", b"sect", b"page"):
            self._paragraph()
        elif word == b"intbl" and not self._row and self._note is None:
            self._row = True
            self.prose.open_row()
            self.prose.open_cell()
        elif word == b"cell" and self._row:
            self.prose.close_cell()
            self.prose.open_cell()
        elif word == b"row" and self._row:
            self._row = False
            self.prose.drop_cell()
            self.prose.close_row()
        elif word in _SIGNS:
            self._say(_SIGNS[word])

    def _paragraph(self) -> None:
        if not self._hidden:
            if self._row and self._note is None:
                self.prose.say(" ")
            else:
                self.prose.paragraph()

    def _unicode(self, code: int) -> None:
        if 0xD800 <= code < 0xDC00:
            self._high = code
        elif 0xDC00 <= code < 0xE000:
            if self._high:
                self._say(chr(0x10000 + ((self._high - 0xD800) << 10) + code - 0xDC00))
            self._high = 0
        else:
            self._say(chr(code))


def _codec(name: str) -> str | None:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return {"cp10000": "mac_roman", "cp65001": "utf-8", "cp936": "gb18030"}.get(name)
