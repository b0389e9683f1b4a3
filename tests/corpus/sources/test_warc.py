"""WARC: what is written is valid and can be joined; what is read is text with its facts, however it is packed or damaged."""

import gzip
import io
import random
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus.config import SourceConfig
from gptwright.corpus.sources import warc, warcfile
from gptwright.corpus.sources.fetch import Answer
from gptwright.corpus.sources.kinds import list_source, request_for
from gptwright.corpus.sources.raw import RawStore
from gptwright.corpus.sources.warcrecords import MOST_BODY, Body, Found, bodies

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def answer(number: int, body: bytes = b"", *headers: tuple[str, str]) -> Answer:
    url = f"https://example.org/{number}?q=1"
    given = headers or (("Content-Type", "text/html; charset=utf-8"), ("Content-Encoding", "gzip"))
    sent = (("Host", "example.org"), ("User-Agent", "gptwright"))
    return Answer(url, url, 200, "OK", given, body or f"<html>page {number}".encode(), AT, "192.0.2.1", sent)


def written(number: int, body: bytes = b"", *headers: tuple[str, str]) -> bytes:
    return warcfile.exchange(answer(number, body, *headers), f"https://example.org/{number}?q=1")


def record(kind: str, block: bytes, **headers: str) -> bytes:
    named = {
        "WARC-Type": kind,
        "WARC-Date": "2026-03-04T05:06:07Z",
        "WARC-Target-URI": "https://example.org/x",
        **headers,
    }
    lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in named.items())
    return f"WARC/1.0\r\n{lines}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def response(body: bytes, head: str = "Content-Type: text/html", status: str = "200 OK", **headers: str) -> bytes:
    headers.setdefault("Content-Type", "application/http; msgtype=response")
    return record("response", f"HTTP/1.1 {status}\r\n{head}\r\n\r\n".encode() + body, **headers)


def read(data: bytes) -> tuple[list[Body], Found]:
    found = Found()
    return list(bodies(io.BytesIO(data), found)), found


def test_exchange_when_joined_then_a_valid_warc_with_right_digests() -> None:
    joined = b"".join(written(number) for number in range(3))
    kinds: Counter[int] = Counter()
    for one in ArchiveIterator(io.BytesIO(joined), parse_http=False):
        kinds[int(one.record_type)] += 1
        assert one.verify_block_digest()
        assert one.headers["WARC-Record-ID"].startswith("<urn:uuid:")
    assert kinds == {int(WarcRecordType.response): 3, int(WarcRecordType.request): 3}
    for one in ArchiveIterator(io.BytesIO(joined), record_types=WarcRecordType.response, parse_http=True):
        assert one.verify_payload_digest()
        assert one.http_headers.status_code == 200
        assert one.http_headers["X-Crawl-Content-Encoding"] == "gzip"
        assert one.http_content_type == "text/html"


def test_exchange_when_read_by_warcio_then_its_check_passes(tmp_path: Path) -> None:
    pytest.importorskip("warcio")
    path = tmp_path / "joined.warc.gz"
    path.write_bytes(written(1) + written(2))
    subprocess.run(["warcio", "check", str(path)], check=True)


def test_exchange_when_the_same_then_the_same_bytes_and_the_identity_ignores_headers_and_dates() -> None:
    assert written(1) == written(1)
    assert warcfile.payload_identity(b"x", "text/html") != warcfile.payload_identity(b"x", "text/plain")


def test_bodies_when_we_wrote_them_then_they_come_back() -> None:
    found, notes = read(written(1) + written(2))
    assert [(b.kind, b.data, b.url, b.at, b.own) for b in found] == [
        ("html", b"<html>page 1", "https://example.org/1?q=1", AT, True),
        ("html", b"<html>page 2", "https://example.org/2?q=1", AT, True),
    ]
    assert notes.notes() == []


def packings() -> Iterator[tuple[str, Callable[[list[bytes]], bytes]]]:
    yield "plain", b"".join
    yield "gzip-each", lambda records: b"".join(gzip.compress(one) for one in records)
    yield "gzip-whole", lambda records: gzip.compress(b"".join(records))
    yield "zstd-each", lambda records: b"".join(zstandard.compress(one) for one in records)

    def with_dictionary(records: list[bytes], packed: bool) -> bytes:
        samples = [response(f"<html>sample {n} of many pages".encode() * 5) for n in range(300)]
        known = zstandard.train_dictionary(3000, samples)
        pack = zstandard.ZstdCompressor(dict_data=known)
        data = zstandard.compress(known.as_bytes()) if packed else known.as_bytes()
        frame = (0x184D2A5D).to_bytes(4, "little") + len(data).to_bytes(4, "little") + data
        return frame + b"".join(pack.compress(one) for one in records)

    yield "zstd-dictionary", lambda records: with_dictionary(records, False)
    yield "zstd-packed-dictionary", lambda records: with_dictionary(records, True)


@pytest.mark.parametrize(("name", "pack"), list(packings()), ids=[name for name, _ in packings()])
def test_bodies_when_packed_in_any_way_then_the_same(name: str, pack: Callable[[list[bytes]], bytes]) -> None:
    records = [
        record("warcinfo", b"software: x\r\n", **{"Content-Type": "application/warc-fields"}),
        response(b"<html>one"),
        record("request", b"GET / HTTP/1.1\r\n\r\n", **{"Content-Type": "application/http; msgtype=request"}),
        record("conversion", "Grüße".encode(), **{"Content-Type": "text/plain"}),
        response(b"<html>two"),
    ]
    found, notes = read(pack(records))
    assert [(b.kind, b.data) for b in found] == [
        ("html", b"<html>one"),
        ("text", "Grüße".encode()),
        ("html", b"<html>two"),
    ]
    assert notes.notes() == []
    assert len({b.offset for b in found}) == (3 if "whole" not in name else len({b.offset for b in found}))


def chunked(body: bytes) -> bytes:
    return (
        b"".join(
            f"{len(body[i : i + 7]):x};x=1\r\n".encode() + body[i : i + 7] + b"\r\n" for i in range(0, len(body), 7)
        )
        + b"0\r\n\r\n"
    )


HTML = b"<html>a body that is packed" * 5


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Type: text/html\r\nTransfer-Encoding: chunked", chunked(HTML)),
        (
            "Content-Type: text/html\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip",
            chunked(gzip.compress(HTML)),
        ),
        ("Content-Type: text/html\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip", HTML),
        ("Content-Type: text/html\r\nContent-Encoding: deflate", zlib.compress(HTML)),
        ("Content-Type: text/html\r\nContent-Encoding: deflate", zlib.compress(HTML)[2:-4]),
        ("Content-Type: text/html\r\nContent-Encoding: zstd", zstandard.compress(HTML)),
        ("Content-Type: application/octet-stream", HTML),
        ("X: y", HTML),
    ],
)
def test_bodies_when_a_response_is_packed_or_says_so_wrongly_then_its_text(head: str, body: bytes) -> None:
    found, notes = read(response(body, head))
    assert [(b.kind, b.data) for b in found] == [("html", HTML)]
    assert notes.notes() == []


def test_bodies_when_not_text_then_counted_by_what_they_are() -> None:
    data = b"".join(
        [
            response(b"\x89PNG", "Content-Type: image/png"),
            response(b"\x89PNG", "Content-Type: image/png"),
            response(b"gone", status="404 Not Found"),
            response(b"", status="301 Moved"),
            record("revisit", b"HTTP/1.1 200 OK\r\n\r\n", **{"Content-Type": "application/http; msgtype=response"}),
            response(b"%PDF-1.7 x", "Content-Type: application/pdf"),
            response(b"<html>x", **{"WARC-Truncated": "length"}),
        ]
    )
    found, notes = read(data)
    assert [(b.kind, b.suffix) for b in found] == [("file", ".pdf"), ("html", "")]
    assert notes.passed == {
        "image/png": 2,
        "answers of status 404": 1,
        "answers of status 301": 1,
        "revisits of pages kept elsewhere": 1,
        "bodies that were cut when they were fetched (read as far as they go)": 1,
    }


@pytest.mark.parametrize("pack", [gzip.compress, bytes, zstandard.compress], ids=["gzip", "plain", "zstd"])
def test_bodies_when_a_record_is_damaged_then_it_is_said_and_reading_goes_on_behind_it(
    pack: Callable[[bytes], bytes],
) -> None:
    pages = [pack(response(f"<html>page {number} ".encode() * 50)) for number in range(4)]
    broken = b"\0" * len(pages[1]) if pack is bytes else pages[1][: len(pages[1]) // 2] + b"\xff" * (len(pages[1]) // 2)
    found, notes = read(pages[0] + broken + pages[2] + pages[3])
    assert [b.data.split()[1] for b in found if b"page 1" not in b.data] == [b"0", b"2", b"3"]
    assert len(notes.damage) >= 1
    assert "damaged after byte" in notes.damage[0] or "cut" in notes.damage[0]


def test_bodies_when_cut_off_then_it_is_said() -> None:
    whole = response(b"<html>one") + response(b"<html>" + b"two " * 100)
    found, notes = read(whole[:-200])
    assert len(found) == 2
    assert "is cut" in notes.damage[0]
    packed = gzip.compress(response(b"<html>one")) + gzip.compress(response(random.Random(1).randbytes(9000)))[:-2000]
    found, notes = read(packed)
    assert found[0].data == b"<html>one"
    assert notes.damage


def test_bodies_when_a_record_is_a_bomb_then_it_is_passed() -> None:
    bomb = response(gzip.compress(b"\0" * (MOST_BODY + 1), 1), "Content-Type: text/html\r\nContent-Encoding: gzip")
    huge = gzip.compress(record("resource", b"\0" * (MOST_BODY + 1), **{"Content-Type": "text/plain"}), 1)
    found, notes = read(gzip.compress(bomb) + huge + gzip.compress(response(b"<html>after")))
    assert [b.data for b in found] == [b"<html>after"]
    assert "unpacks to more than 32 MB" in notes.damage[0]
    assert notes.passed == {"records over 32 MB": 1}


@pytest.mark.parametrize(
    "data", [b"", b"hello" * 100, gzip.compress(b"hello" * 100), b"WARC/1.0\r\n", b"\x1f\x8b" + b"\xff" * 50]
)
def test_bodies_when_it_is_no_warc_then_nothing_and_no_error(data: bytes) -> None:
    assert read(data)[0] == []


def test_listing_when_files_and_globs_then_warcs_in_order(tmp_path: Path) -> None:
    for name in ("b.warc.gz", "a.warc", "sub/c.wet.zst", "notes.txt"):
        (tmp_path / "arc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "arc" / name).write_bytes(b"x")

    def names(uri: str) -> list[tuple[str, str | None]]:
        return [(f.locator, f.kind) for f in list_source("s", SourceConfig(uri=uri), tmp_path).files]

    assert names("warc:arc") == [("a.warc", "warc"), ("b.warc.gz", "warc"), ("sub/c.wet.zst", "warc")]
    assert names("warc:arc/*.warc*") == [("a.warc", "warc"), ("b.warc.gz", "warc")]
    assert names("warc:arc/a.warc") == [("a.warc", "warc")]
    with pytest.raises(UserError, match="no WARC file at nowhere"):
        names("warc:nowhere")


def test_gather_when_an_archive_lies_elsewhere_then_it_is_brought_once(
    server: Any, client: Callable[..., Any], reply: Any, tmp_path: Path
) -> None:
    server.replies["/a.warc.gz"] = reply(written(1) + written(2), headers={"Content-Type": "application/warc"})
    request = request_for("s", SourceConfig(uri=f"warc:{server.base}/a.warc.gz"), tmp_path)
    for _ in range(2):
        warc.gather_with(request, client())
    (file,) = RawStore(request.raw).listing(request).files
    assert file.kind == "warc"
    with open(file.path, "rb") as data:
        assert len(list(bodies(data, Found()))) == 2
    sent = [headers for path, headers in server.asked if path == "/a.warc.gz"]
    assert len(sent) == 2
    assert "if-none-match" in sent[1]
    server.replies["/a.warc.gz"] = reply(status=500)
    warc.gather_with(request, client())
    assert len(RawStore(request.raw).listing(request).files) == 1


def test_gather_when_robots_forbids_the_archive_then_it_is_not_asked(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    server.text("/robots.txt", "User-agent: *\nDisallow: /")
    request = request_for("s", SourceConfig(uri=f"warc:{server.base}/a.warc.gz"), tmp_path)
    with pytest.raises(UserError, match=r"robots\.txt forbids it"):
        warc.gather_with(request, client())
    assert server.paths() == []


WHOLE = b"".join(
    [response(b"<html>one"), record("conversion", b"two", **{"Content-Type": "text/plain"}), response(b"<html>three")]
)


@settings(max_examples=200)
@given(
    st.sampled_from([WHOLE, gzip.compress(WHOLE), written(1) + written(2)]),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=6)), max_size=4),
)
def test_bodies_when_bytes_are_changed_anywhere_then_no_error(whole: bytes, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(whole)
    for at, piece in changes:
        data[at % len(data) : at % len(data) + len(piece)] = piece
    found, _ = read(bytes(data))
    assert len(found) <= 3
