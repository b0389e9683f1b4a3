"""Lists of pages: sitemaps, RSS, Atom, RDF and plain lists; nothing hostile in them works."""

import gzip
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus.sources import feeds
from gptwright.corpus.sources.feeds import NotAList, read_list

URL = "https://example.org/feed"
LONG = "<p>" + "A sentence that fills the entry. " * 30 + "</p>"


def test_read_list_when_a_sitemap_then_its_pages_with_their_dates() -> None:
    data = b"""<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
    <url><loc> https://example.org/a?utm_source=x </loc><lastmod>2024-01-01</lastmod></url><url><loc>/b</loc></url>
    <url><loc>mailto:x</loc></url></urlset>"""
    for packed in (data, gzip.compress(data)):
        found = read_list(packed, URL)
        assert found.kind == "sitemap"
        assert [(e.url, e.changed) for e in found.entries] == [
            ("https://example.org/a", "2024-01-01"),
            ("https://example.org/b", None),
        ]


def test_read_list_when_an_index_then_its_sitemaps() -> None:
    found = read_list(b"<sitemapindex><sitemap><loc>https://example.org/1.xml.gz</loc></sitemap></sitemapindex>", URL)
    assert (found.kind, [e.url for e in found.entries]) == ("index", ["https://example.org/1.xml.gz"])


def test_read_list_when_plain_text_then_its_urls() -> None:
    found = read_list(b"https://example.org/1\nhttps://example.org/2\nhttps://example.org/1\n", URL)
    assert [e.url for e in found.entries] == ["https://example.org/1", "https://example.org/2"]


def test_read_list_when_rss_then_entries_with_full_text_only_where_it_is_full() -> None:
    data = f"""<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/" xmlns:dc="http://purl.org/dc/elements/1.1/"
      xmlns:atom="http://www.w3.org/2005/Atom" xmlns:cc="http://backend.userland.com/creativeCommonsRssModule">
      <channel><title>The Blog</title><link>https://example.org/</link><atom:link rel="self" href="https://example.org/feed"/>
      <cc:license>https://creativecommons.org/licenses/by/4.0/</cc:license>
      <item><title>One &amp; only</title><link>https://example.org/1</link><dc:creator>Ann</dc:creator>
        <pubDate>Sat, 06 May 2023 10:00:00 +0200</pubDate><content:encoded><![CDATA[{LONG}]]></content:encoded></item>
      <item><title>Two</title><guid>https://example.org/2</guid><content:encoded>A teaser</content:encoded></item>
      <item><title>Three</title><guid isPermaLink="false">17</guid></item>
      </channel></rss>"""
    found = read_list(data.encode(), URL)
    assert (found.kind, found.title, found.licence) == (
        "feed",
        "The Blog",
        "https://creativecommons.org/licenses/by/4.0/",
    )
    one, two = found.entries
    assert (one.url, one.title, one.author, one.html) == ("https://example.org/1", "One & only", "Ann", LONG)
    assert one.published == datetime(2023, 5, 6, 8, tzinfo=UTC)
    assert (two.url, two.html) == ("https://example.org/2", None)


def test_read_list_when_atom_then_entries() -> None:
    data = f"""<feed xmlns="http://www.w3.org/2005/Atom"><title>F</title><link rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/"/>
      <entry><title>T</title><link rel="edit" href="/edit"/><link href="post"/><author><name>Bo</name><email>b@example.org</email></author>
        <updated>2024-05-06T00:00:00Z</updated><published>2024-05-01T00:00:00Z</published>
        <content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">{LONG}</div></content></entry>
      <entry><link href="/two"/><content type="html">&lt;p&gt;short&lt;/p&gt;</content></entry></feed>"""
    found = read_list(data.encode(), "https://example.org/d/feed")
    assert found.licence == "https://creativecommons.org/licenses/by-sa/4.0/"
    one, two = found.entries
    assert (one.url, one.author, one.published) == (
        "https://example.org/d/post",
        "Bo",
        datetime(2024, 5, 1, tzinfo=UTC),
    )
    assert one.html is not None
    assert "A sentence that fills" in one.html
    assert "<p>" in one.html
    assert (two.url, two.html) == ("https://example.org/two", None)


def test_read_list_when_rdf_then_entries() -> None:
    data = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">
      <channel><title>R</title></channel><item><title>x</title><link>https://example.org/x</link><dc:date>2024-01-02</dc:date></item></rdf:RDF>"""
    found = read_list(data, URL)
    assert [(e.url, e.published) for e in found.entries] == [
        ("https://example.org/x", datetime(2024, 1, 2, tzinfo=UTC))
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<html><body>x</body></html>",
        b"<",
        b"\x1f\x8bnope",
        b"\x00\x01\x02",
        b"<!DOCTYPE x>",
        b"<?xml version='1.0'?>",
    ],
)
def test_read_list_when_it_is_none_then_it_says_so(data: bytes) -> None:
    with pytest.raises(NotAList):
        read_list(data, URL)


def test_read_list_when_entities_are_declared_then_none_is_expanded_and_no_file_is_read() -> None:
    outside = b"""<!DOCTYPE urlset [<!ENTITY f SYSTEM "file:///etc/passwd"><!ENTITY in "page">]>
      <urlset><url><loc>https://example.org/&f;</loc></url><url><loc>https://example.org/&in;</loc></url></urlset>"""
    assert [e.url for e in read_list(outside, URL).entries] == ["https://example.org/"] * 2
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    data = f"""<?xml version="1.0"?><!DOCTYPE urlset [<!ENTITY l0 "lol">{laughs}]>
      <urlset><url><loc>https://example.org/&l11;</loc></url></urlset>"""
    start = time.process_time()
    found = read_list(data.encode(), URL)
    assert time.process_time() - start < 1
    assert not any("lol" in e.url for e in found.entries)


def test_read_list_when_packed_without_end_then_it_is_refused() -> None:
    with pytest.raises(NotAList, match="larger than 64 MB"):
        read_list(gzip.compress(b"\0" * (feeds.MOST_BYTES + 10), 1), URL)


def test_read_list_when_too_many_pages_then_cut_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST_ENTRIES", 3)
    data = "<urlset>" + "".join(f"<url><loc>https://example.org/{n}</loc></url>" for n in range(9)) + "</urlset>"
    found = read_list(data.encode(), URL)
    assert (len(found.entries), found.cut) == (3, True)


PIECES = st.sampled_from(
    ["<urlset>", "</urlset>", "<url>", "</url>", "<loc>https://example.org/x</loc>", "<rss>", "<channel>", "<item>", "</item>", "<link>/y</link>",
     "<feed xmlns='http://www.w3.org/2005/Atom'>", "<entry>", "<link href='z'/>", "<content type='xhtml'><b>x</b></content>", "<title/>", "&nope;",
     "<!-- c -->", "<?pi x?>", "<guid/>", "]]>", "<lastmod>x</lastmod>"]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=8), max_size=14), st.booleans())
def test_read_list_when_it_is_anything_then_pages_or_a_reason(pieces: list[str], packed: bool) -> None:
    data = "".join(pieces).encode("utf-8", "replace")
    try:
        found = read_list(gzip.compress(data) if packed else data, URL)
    except NotAList:
        return
    assert all(entry.url.startswith(("https://", "http://")) for entry in found.entries)
