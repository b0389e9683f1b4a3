"""One exchange with a server as a small WARC file: the request and the response, each a gzip member.

Joined together, such files are a valid WARC. The body is kept unpacked, as Common Crawl does it; headers that speak of its packing keep
their values under ``X-Crawl-`` names. The same exchange gives the same bytes.
"""

import base64
import gzip
import hashlib
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

from gptwright.core.hashing import b2
from gptwright.corpus.sources.fetch import Answer
from gptwright.corpus.sources.urls import path_of

PLACE = "X-Gptwright-Place"  # marks our own records, which hold one place each
_PACKING = frozenset({"content-encoding", "transfer-encoding", "content-length"})


def exchange(answer: Answer, locator: str) -> bytes:
    """An answer and the request that it answers, as WARC.

    Args:
        answer: with its body.
        locator: the place in the source that it is kept under.

    Source: WARC 1.1 (IIPC), sections 5 and 6; the request is concurrent to the response.
    """
    request = _http(f"GET {path_of(answer.url)} HTTP/1.1", answer.request, b"")
    status = f"HTTP/1.1 {answer.status} {answer.reason}".strip()
    kept = [(f"X-Crawl-{k}" if k.lower() in _PACKING else k, v) for k, v in answer.headers]
    response = _http(status, [*kept, ("Content-Length", str(len(answer.body)))], answer.body)
    of_response = _identity("response", answer.url, answer.at, response)
    common = [("WARC-Target-URI", answer.url), ("WARC-Date", _date(answer.at))]
    return b"".join(
        (
            _record(
                "response",
                of_response,
                [
                    *common,
                    *([("WARC-IP-Address", answer.address)] if answer.address else []),
                    ("WARC-Payload-Digest", _sha1(answer.body)),
                    *([("WARC-Truncated", "length")] if answer.cut else []),
                    (PLACE, locator),
                    ("Content-Type", "application/http; msgtype=response"),
                ],
                response,
            ),
            _record(
                "request",
                _identity("request", answer.url, answer.at, request),
                [
                    *common,
                    ("WARC-Concurrent-To", of_response),
                    ("Content-Type", "application/http; msgtype=request"),
                ],
                request,
            ),
        )
    )


def resource(url: str, body: bytes, mime: str, at: datetime, locator: str, found_in: str) -> bytes:
    """A text that came inside another document, such as an entry of a feed, as a WARC resource record.

    Args:
        url: of the text.
        body: its bytes.
        mime: media type and charset.
        at: when the other document was asked for.
        locator: the place in the source that it is kept under.
        found_in: URL of the other document.
    """
    headers = [
        ("WARC-Target-URI", url),
        ("WARC-Date", _date(at)),
        ("WARC-Payload-Digest", _sha1(body)),
        ("X-Gptwright-Found-In", found_in),
        (PLACE, locator),
        ("Content-Type", mime),
    ]
    return _record("resource", _identity("resource", url, at, body), headers, body)


def payload_identity(body: bytes, mime: str) -> str:
    """What makes a page the same page, whatever headers and dates say."""
    return b2(b"\0".join((mime.encode(), body)))


def _http(first: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    lines = [first, *(f"{key}: {' '.join(value.split())}" for key, value in headers)]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


def _record(kind: str, identity: str, headers: Iterable[tuple[str, str]], block: bytes) -> bytes:
    lines = [
        "WARC/1.1",
        f"WARC-Type: {kind}",
        f"WARC-Record-ID: {identity}",
        *(f"{key}: {value}" for key, value in headers),
        f"WARC-Block-Digest: {_sha1(block)}",
        f"Content-Length: {len(block)}",
    ]
    return gzip.compress("\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n", 6, mtime=0)


def _identity(kind: str, url: str, at: datetime, block: bytes) -> str:
    digest = hashlib.blake2b(b"\0".join((kind.encode(), url.encode(), _date(at).encode(), block)), digest_size=16)
    return f"<urn:uuid:{uuid.UUID(bytes=digest.digest(), version=4)}>"


def _date(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sha1(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
