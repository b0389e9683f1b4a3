"""What a page says of itself: facts with their sources, links that may be followed, text in its encoding."""

from datetime import UTC, datetime

import pytest

from gptwright.corpus.sources.consent import OptOut
from gptwright.corpus.sources.page import decode, links, page_facts, parse_date

URL = "https://example.org/a/post"


def html(head: str = "", body: str = "") -> str:
    return f"<!doctype html><html><head><title>T</title>{head}</head><body>{body}</body></html>"


def test_page_facts_when_everything_is_said_then_all_of_it() -> None:
    ld = (
        '{"@context": "https://schema.org", "@graph": [{"@type": "ImageObject", "license": "https://creativecommons.org/licenses/by-nc/2.0/"},'
        '{"@type": "BlogPosting", "license": {"url": "https://creativecommons.org/licenses/by/4.0/"},'
        ' "datePublished": "2024-02-03T10:00:00+02:00", "author": [{"name": "Ann"}, {"name": "Bo"}], "publisher": {"name": "The Site"}}]}'
    )
    facts = page_facts(
        html(
            f'<link rel=canonical href="/post"><script type="application/ld+json">{ld}</script><meta name=robots content="noai">'
        ),
        URL,
    )
    assert facts.url == "https://example.org/post"
    assert (facts.title, facts.attribution) == ("T", "Ann, Bo, The Site")
    assert facts.published_at == datetime(2024, 2, 3, 8, tzinfo=UTC)
    assert (facts.license_id, facts.license_source, facts.license_conf) == ("CC-BY-4.0", "page-metadata", 0.8)
    assert facts.optout == OptOut.NOAI
    assert facts.consent[0]["text"] == '<meta name="robots" content="noai">'


def test_page_facts_when_little_is_said_then_little() -> None:
    facts = page_facts(html(), URL)
    assert facts.to_json() == {"url": URL, "title": "T"}


@pytest.mark.parametrize(
    ("head", "body", "licence", "source", "confidence"),
    [
        ('<link rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/">', "", "CC-BY-SA-4.0", "page-metadata", 0.8),
        ('<meta name="dcterms.license" content="CC0-1.0">', "", "CC0-1.0", "page-metadata", 0.7),
        ('<meta name="DC.rights" content="All rights reserved">', "", None, "none", 0.0),
        ("", '<footer><a href="//creativecommons.org/licenses/by/4.0/deed.de">CC</a></footer>', "CC-BY-4.0", "cc-link", 0.6),
        ("", '<main><a href="https://creativecommons.org/licenses/by/4.0/">CC</a></main>', "CC-BY-4.0", "cc-link", 0.5),
        ("", '<aside><a href="https://creativecommons.org/licenses/by/4.0/">CC</a></aside>', None, "none", 0.0),
        ("", '<div id="comments"><p><a href="https://creativecommons.org/licenses/by/4.0/">CC</a></div>', None, "none", 0.0),
        ("", "I like https://creativecommons.org/licenses/by/4.0/ a lot", None, "none", 0.0),
        (
            "",
            '<main><a href="https://creativecommons.org/licenses/by/4.0/">x</a> <a href="https://creativecommons.org/licenses/by-nc/4.0/">y</a></main>',
            "CC-BY-4.0 AND CC-BY-NC-4.0", "cc-link", 0.35,
        ),
        ("", "<main>" + "".join(f'<a href="https://creativecommons.org/licenses/{k}/4.0/">x</a>' for k in
                                ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa")) + "</main>", None, "none", 0.0),
    ],
)  # fmt: skip
def test_page_facts_when_a_licence_stands_then_its_source_and_how_sure_it_is(
    head: str, body: str, licence: str | None, source: str, confidence: float
) -> None:
    facts = page_facts(html(head, body), URL)
    assert (facts.license_id, facts.license_source, facts.license_conf) == (licence, source, confidence)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ('<meta property="article:published_time" content="2023-05-06T00:00:00Z">', ""),
        ('<meta name="citation_publication_date" content="2023/05/06">', ""),
        ("", '<article><time datetime="2023-05-06">May</time></article>'),
        ("", '<time itemprop="datePublished" datetime="Sat, 06 May 2023 00:00:00 GMT">May</time>'),
    ],
)
def test_page_facts_when_dated_then_published(head: str, body: str) -> None:
    assert page_facts(html(head, body), URL).published_at == datetime(2023, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize("value", ["", "soon", "0000-00-00", "9999-12-31T23:59:59-23:00", "2024-13-01", None, 7])
def test_parse_date_when_it_is_none_then_none(value: object) -> None:
    assert parse_date(value) is None


def test_page_facts_when_canonical_names_another_host_then_the_place_it_was_found_at() -> None:
    assert page_facts(html('<link rel="canonical" href="https://evil.example/x">'), URL).url == URL


def test_page_facts_when_json_ld_is_hostile_then_it_is_passed_over() -> None:
    for text in (
        "{",
        "[" * 50_000,
        '{"@type": ["BlogPosting"], "author": {"name": {"name": 3}}, "license": [[1]]}',
        "null",
    ):
        assert page_facts(html(f'<script type="application/ld+json">{text}</script>'), URL).title == "T"


def test_links_when_there_are_many_kinds_then_those_that_may_be_followed_once_each() -> None:
    body = (
        '<a href="/x">1</a><a href="../y?utm_source=z#part">2</a><a rel="external nofollow" href="/no">3</a><a href="mailto:a@b">4</a>'
        '<a href="javascript:void(0)">5</a><a href="#top">6</a><a href="//other.org">7</a><a href="/x#again">8</a><area href="/map">'
    )
    assert links(html("", body), URL) == [
        "https://example.org/x",
        "https://example.org/y",
        "https://other.org/",
        "https://example.org/map",
    ]
    assert links(html('<base href="https://base.org/d/">', '<a href="z">'), URL) == ["https://base.org/d/z"]
    assert links(html('<meta name="robots" content="index,NoFollow">', body), URL) == []


def test_links_when_a_page_holds_ten_thousands_then_quickly_and_not_all() -> None:
    body = "".join(f'<a href="/{number}">x</a>' for number in range(12_000))
    assert len(links(html("", body), URL)) == 10_000


def test_page_facts_when_nested_without_end_then_it_ends() -> None:
    assert page_facts(html("", "<div>" * 200_000), URL).title == "T"


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("Grüße".encode(), "text/html", "Grüße"),
        ("Grüße".encode("latin-1"), "text/html; charset=ISO-8859-1", "Grüße"),
        (b'<meta charset="windows-1252">\x93x\x94', None, '<meta charset="windows-1252">“x”'),
        ("\ufeffюникод".encode("utf-16-le"), "text/html", "юникод"),
        ("Grüße".encode(), "text/html; charset=nonsense", "Grüße"),
        ("Grüße".encode("latin-1"), "text/html; charset=utf-8", "Grüße"),
    ],
)
def test_decode_when_encodings_are_stated_or_wrong_then_the_text(
    body: bytes, content_type: str | None, text: str
) -> None:
    assert decode(body, content_type)[0] == text
