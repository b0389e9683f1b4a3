"""WARC files as documents: main texts with what their pages and headers say, documents of other kinds by their readers."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gptwright.corpus.readers import NotText, Record, read_file
from gptwright.corpus.readers.base import Reading
from gptwright.corpus.sources import warcfile
from gptwright.corpus.sources.base import Facts
from gptwright.corpus.sources.consent import OptOut, facts_of, header_signals
from gptwright.corpus.sources.fetch import Answer

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
PAGE = (
    '<!doctype html><html lang="de"><head><title>Äpfel</title><meta name="author" content="Ann"><meta name="robots" content="noai">'
    '<link rel="license" href="https://creativecommons.org/licenses/by/4.0/"></head><body><nav><a href="/">Start</a> <a href="/b">Mehr</a></nav>'
    "<main><h1>Äpfel</h1><p>"
    + "Ein Apfel am Tag hält den Arzt fern, sagt man. " * 8
    + "</p></main><footer>Impressum</footer></body></html>"
)


def written(url: str, body: bytes, mime: str, *headers: tuple[str, str]) -> bytes:
    given = (("Content-Type", mime), *headers)
    return warcfile.exchange(Answer(url, url, 200, "OK", given, body, AT, "192.0.2.1"), url)


def read(tmp_path: Path, data: bytes, name: str = "a.warc.gz") -> tuple[list[Record], Reading]:
    path = tmp_path / name
    path.write_bytes(data)
    reading = read_file(path, kind="warc")
    return list(reading.records), reading


def test_read_when_pages_then_their_main_text_with_all_that_is_known(tmp_path: Path) -> None:
    data = written(
        "https://example.org/a", PAGE.encode("latin-1"), "text/html; charset=iso-8859-1", ("X-Robots-Tag", "noimageai")
    )
    (record,), reading = read(tmp_path, data)
    assert record.text.startswith("Äpfel")
    assert "Ein Apfel am Tag" in record.text
    assert "Impressum" not in record.text
    assert (record.suffix, record.title, record.lang, record.url) == ("", "Äpfel", "de", "https://example.org/a")
    assert record.facts is not None
    assert (record.facts.license_id, record.facts.attribution, record.facts.fetched_at) == ("CC-BY-4.0", "Ann", AT)
    assert record.facts.optout == OptOut.NOAI | OptOut.NOIMAGEAI
    assert all(one["at"] == AT.isoformat() and one["url"] == "https://example.org/a" for one in record.facts.consent)
    assert (reading.kind, reading.notes) == ("warc", [])


def test_read_when_the_store_knows_the_signals_already_then_they_are_not_doubled(tmp_path: Path) -> None:
    data = written("https://example.org/a", PAGE.encode(), "text/html", ("X-Robots-Tag", "noai"))
    (record,), _ = read(tmp_path, data)
    earlier = facts_of(
        header_signals([("X-Robots-Tag", "noai")], "https://example.org/a", datetime(2020, 1, 1, tzinfo=UTC))
    )
    assert record.facts is not None
    joined = earlier | record.facts
    assert [(one["where"], one["signal"]) for one in joined.consent] == [("header", "noai"), ("meta", "noai")]


def test_read_when_several_kinds_then_each_by_its_reader_and_by_its_place(tmp_path: Path) -> None:
    rtf = rb"{\rtf1\ansi A text in an old format.}"
    data = b"".join(
        [
            written("https://example.org/a", PAGE.encode(), "text/html"),
            written("https://example.org/b.txt", "Nur Text, größer.".encode("latin-1"), "text/plain; charset=latin-1"),
            written("https://example.org/c", b'[{"text": "one of two"}, {"text": "two of two"}]', "application/json"),
            written("https://example.org/d.rtf", rtf, "application/rtf"),
            written("https://example.org/e.pdf", b"%PDF-1.4 broken", "application/pdf"),
            written("https://example.org/f.png", b"\x89PNG", "image/png"),
        ]
    )
    records, reading = read(tmp_path, data)
    assert [(r.text[:9], r.url, r.mime) for r in records[1:]] == [
        ("Nur Text,", "https://example.org/b.txt", "text/plain"),
        ("one of tw", "https://example.org/c", "application/json"),
        ("two of tw", "https://example.org/c", "application/json"),
        ("A text in", "https://example.org/d.rtf", "application/rtf"),
    ]
    assert records[1].text == "Nur Text, größer."
    assert len({r.suffix for r in records}) == len(records)
    assert all(r.suffix.startswith("offset=") for r in records[1:])
    assert all(r.facts is not None and r.facts.fetched_at == AT for r in records)
    assert reading.notes == ["not read: 1 image/png"]
    assert [(a.outcome, a.reason.partition(":")[0]) for a in reading.aside] == [("unreadable", "application/pdf")]


def test_read_when_wet_then_its_texts(tmp_path: Path) -> None:
    block = b"Ein Text aus einer WET-Datei."
    head = (
        "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: https://example.org/w\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    (record,), _ = read(tmp_path, gzip.compress(head.encode() + block + b"\r\n\r\n"), "x.wet.gz")
    assert (record.text, record.url, record.suffix) == (block.decode(), "https://example.org/w", "offset=0")
    assert record.facts == Facts(url="https://example.org/w", fetched_at=datetime(2024, 1, 1, tzinfo=UTC))


def test_read_when_damaged_then_what_is_whole_is_read_and_the_rest_said(tmp_path: Path) -> None:
    pages = [written(f"https://example.org/{n}", PAGE.encode(), "text/html") for n in range(3)]
    broken = pages[1][:300] + b"\xff" * 300
    records, reading = read(tmp_path, pages[0] + broken + pages[2])
    assert [r.url for r in records] == ["https://example.org/0", "https://example.org/2"]
    assert "damaged after byte" in reading.notes[0]
    with pytest.raises(NotText, match="damaged"):
        read(tmp_path, b"no warc at all " * 100)
