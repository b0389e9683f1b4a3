"""Articles of a dump as documents."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gptwright.corpus.readers.base import NotText, Reading
from gptwright.corpus.readers.wiki import read

DUMP = """<mediawiki xml:lang="en"><siteinfo><sitename>Wikipedia</sitename><base>https://en.wikipedia.org/wiki/Main_Page</base>{rights}</siteinfo>
{pages}</mediawiki>"""
PAGE = """<page><title>{title}</title><ns>{ns}</ns><id>{id}</id>{extra}<revision><id>5</id><timestamp>2024-03-01T10:00:00Z</timestamp>
<model>{model}</model><text>{text}</text></revision></page>"""


def page(id: int, text: str, ns: int = 0, extra: str = "", model: str = "wikitext") -> str:
    return PAGE.format(title=f"Page {id}", ns=ns, id=id, extra=extra, model=model, text=text)


def start() -> Reading:
    return Reading("wiki", "application/x-mediawiki", "utf-8", iter(()))


def test_read_then_articles_with_address_time_and_place_and_the_rest_counted(tmp_path: Path) -> None:
    (tmp_path / "d.xml").write_text(
        DUMP.format(
            rights="",
            pages=page(1, "'''Cats''' are [[animal]]s.{{stub}}")
            + page(2, "#REDIRECT [[Cat]]") + page(3, "x", extra='<redirect title="Cat" />') + page(4, "talk", ns=1)
            + page(5, "body{}", model="css") + page(6, "{{only a template}}"),
        )
    )  # fmt: skip
    reading = start()
    (record,) = read(tmp_path / "d.xml", reading)
    assert (record.suffix, record.text, record.title, record.lang) == ("page=1", "Cats are animals.", "Page 1", "en")
    assert record.url == "https://en.wikipedia.org/wiki/Page_1"
    assert record.facts is not None
    assert record.facts.published_at == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert (record.facts.license_id, record.facts.attribution) == (None, "Wikipedia contributors")
    assert reading.n_blank == 1
    assert any('license = "CC-BY-SA-4.0"' in note for note in reading.notes)
    assert "left out: 1 pages of other namespaces, 1 pages that are no wikitext, 2 redirects" in reading.notes


def test_read_when_the_dump_states_rights_then_they_are_the_pages_licence(tmp_path: Path) -> None:
    rights = "<rights>https://creativecommons.org/licenses/by-sa/4.0/</rights>"
    (tmp_path / "d.xml").write_text(DUMP.format(rights=rights, pages=page(1, "Words.")))
    reading = start()
    (record,) = read(tmp_path / "d.xml", reading)
    assert record.facts is not None
    assert (record.facts.license_id, record.facts.license_source) == ("CC-BY-SA-4.0", "page-metadata")
    assert reading.notes == []


def test_read_when_it_is_no_dump_then_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "d.xml").write_text("<html></html>")
    with pytest.raises(NotText, match="no MediaWiki dump"):
        list(read(tmp_path / "d.xml", start()))
