"""MediaWiki dumps: pages one by one from any packing, what stands around them, files that break off."""

import bz2
import gzip
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from gptwright.corpus.wikidump import NotADump, Page, Site, pages

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Wiki</sitename><base>https://de.example.org/wiki/Hauptseite</base>
    <namespaces><namespace key="0" case="first-letter" /><namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace></namespaces>
  </siteinfo>
"""
PAGE = """  <page><title>{title}</title><ns>{ns}</ns><id>{id}</id>{extra}
    <revision><id>9{id}</id><timestamp>2024-03-0{day}T10:00:00Z</timestamp><contributor><username>Someone</username><id>77</id></contributor>
      <model>wikitext</model><format>text/x-wiki</format><text bytes="9" xml:space="preserve">{text}</text></revision>
  </page>
"""


def page(id: int, title: str, text: str, ns: int = 0, extra: str = "", day: int = 1) -> str:
    return PAGE.format(id=id, title=title, text=text, ns=ns, extra=extra, day=day)


def dump(*made: str) -> str:
    return HEAD + "".join(made) + "</mediawiki>\n"


def read(path: Path, site: Site | None = None) -> list[Page]:
    return list(pages(path, site or Site()))


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: data,
        gzip.compress,
        bz2.compress,
        lambda data: bz2.compress(data[:400]) + bz2.compress(data[400:]),
        lambda data: zstandard.compress(data[:400]) + zstandard.compress(data[400:]),
    ],
    ids=["plain", "gz", "bz2", "multistream", "zst frames"],
)
def test_pages_from_any_packing_then_the_same(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "dump"
    path.write_bytes(
        pack(dump(page(1, "Katze", "Eine &lt;b&gt;Katze&lt;/b&gt;."), page(2, "Diskussion:X", "x", ns=1)).encode())
    )
    site = Site()
    first, second = read(path, site)
    assert (first.id, first.title, first.text, first.namespace) == ("1", "Katze", "Eine <b>Katze</b>.", 0)
    assert first.timestamp == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert second.namespace == 1
    assert (site.name, site.lang, site.namespaces[6]) == ("Wiki", "de", "Datei")
    assert site.url("Öl und (Gas)/A") == "https://de.example.org/wiki/%C3%96l_und_(Gas)/A"
    assert "datei" in site.hidden_prefixes()


def test_pages_when_a_page_has_many_revisions_then_the_last_counts(tmp_path: Path) -> None:
    one = page(1, "A", "old").replace(
        "</page>",
        "<revision><id>2</id><timestamp>2024-04-01T00:00:00Z</timestamp><text>new</text></revision></page>",
    )
    (tmp_path / "d.xml").write_text(dump(one))
    (found,) = read(tmp_path / "d.xml")
    assert (found.id, found.text) == ("1", "new")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html><body>no</body></html>", "no MediaWiki dump"),
        (b"hello", "not well-formed"),
        (b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><mediawiki>&b;</mediawiki>', "document type"),
        (b"<mediawiki>" + b"<a>" * 50, "nested deeper"),
        (bz2.compress(dump(page(1, "A", "x" * 5000)).encode())[:-40], "cannot be unpacked"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
    ],
)
def test_pages_of_what_is_no_dump_then_it_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "d").write_bytes(content)
    with pytest.raises(NotADump, match=words):
        read(tmp_path / "d")


def test_pages_when_the_dump_breaks_off_then_those_before_are_given_first(tmp_path: Path) -> None:
    (tmp_path / "d.xml").write_text(dump(page(1, "A", "one"), page(2, "B", "two"))[:-60])
    got: list[str] = []
    with pytest.raises(NotADump):
        for one in pages(tmp_path / "d.xml", Site()):
            got.append(one.title)
    assert got == ["A"]


def test_pages_when_a_page_is_endless_then_memory_stays_small_and_the_page_has_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptwright.corpus.wikidump.LONGEST_PAGE", 1 << 20)
    path = tmp_path / "d.xml.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        start, end = dump(page(1, "Huge", "@"), page(2, "Next", "words")).split("@")
        file.write(start.encode())
        for _ in range(100):
            file.write(b"spam " * 60_000)
        file.write(end.encode())
    tracemalloc.start()
    huge, after = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (huge.text, after.text) == (None, "words")
    assert peak < 12 << 20
