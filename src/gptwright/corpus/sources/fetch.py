"""One polite client for pages of the web: it names itself, verifies TLS, keeps no cookie, sends no credential, and has an end to everything.

Bytes as sent and as unpacked, time, redirects and repetitions are bounded; each host is asked with a delay. It speaks to servers
directly: a proxy would resolve names itself, and the check of addresses would be worth nothing.
"""

import email.utils
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpcore

from gptwright.core.errors import Interrupted
from gptwright.corpus.sources.address import Deadline, GuardedBackend, Refused, Resolve, is_public, resolve
from gptwright.corpus.sources.options import CrawlOptions
from gptwright.corpus.sources.urls import canonical, host_of

PRODUCT = "gptwright"  # the token that robots.txt may name
MOST_REDIRECTS = 10
_TRIES = 3
_LONGEST_WAIT_S = 120.0  # a longer Retry-After is not waited for; the page is left for the next time
_OTHER_BYTES = 64 << 10  # read of an answer that is no page, so that its connection can be used again
_REDIRECTS = (301, 302, 303, 307, 308)

Headers = tuple[tuple[str, str], ...]


class FetchError(Exception):
    """No answer. ``temporary``: asking again another time may help."""

    def __init__(self, what: str, *, temporary: bool) -> None:
        self.temporary = temporary
        super().__init__(what)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, its body unpacked.

    ``asked`` is the URL of the request, ``url`` the one that answered after redirects; ``stopped`` says why the body was not read,
    ``cut`` that it was read up to a limit only.
    """

    asked: str
    url: str
    status: int
    reason: str
    headers: Headers
    body: bytes
    at: datetime
    address: str = ""
    request: Headers = ()
    hops: tuple[str, ...] = ()
    stopped: str | None = None
    cut: bool = False

    def header(self, name: str) -> str | None:
        """A header's values, joined by commas; None when it is not there."""
        return header_of(self.headers, name)

    @property
    def mime(self) -> str:
        """The media type that the server states, "" when none."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    @property
    def said(self) -> str:
        """The status in words."""
        return f"{self.status} {self.reason}".strip()

    @property
    def location(self) -> str | None:
        """Where a redirect points to, as a canonical URL; None when this is none, or points to something other than http."""
        if self.status not in _REDIRECTS:
            return None
        return canonical(self.header("location") or "", self.url)

    @property
    def temporary(self) -> bool:
        """Whether the status speaks of the moment and not of the page."""
        return self.status >= 500 or self.status in (408, 425, 429)


def header_of(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """A header's values, joined by commas; None when it is not there."""
    found = [value for key, value in headers if key.lower() == name]
    return ", ".join(found) if found else None


def user_agent(extra: str = "") -> str:
    """How servers are told who asks."""
    extra = "".join(c for c in extra if c.isprintable() and c.isascii() and c not in "()").strip()
    # The top package is loaded when this module is; to import it by name would tie this room to those above it.
    version = sys.modules[PRODUCT].__version__
    site = "+https://gptwright.github.io"
    return f"{PRODUCT}/{version} ({f'{site}; {extra}' if extra else site})"


@dataclass
class Fetcher:
    """A client for one gathering. Use as a context manager.

    Args:
        options: delay, time and sizes.
        resolver: host and port to addresses.
        allowed: whether an address may be asked; None follows ``options.allow_private``.
        stop: looked at while waiting; true ends the wait with ``Interrupted``.
        sleep: waits some seconds.
        now: the time that answers are stamped with.
    """

    options: CrawlOptions
    resolver: Resolve = resolve
    allowed: Callable[[str], bool] | None = None
    stop: Callable[[], bool] = lambda: False
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0)
    requests: int = 0
    _turns: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from httpx import create_ssl_context

        allowed = self.allowed or ((lambda _address: True) if self.options.allow_private else is_public)
        self._deadline = Deadline()
        self._pool = httpcore.ConnectionPool(
            ssl_context=create_ssl_context(),
            max_connections=8,
            max_keepalive_connections=4,
            keepalive_expiry=15.0,
            network_backend=GuardedBackend(self._deadline, self.resolver, allowed),
        )
        self.agent = user_agent(self.options.user_agent)

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def get(
        self,
        url: str,
        *,
        most: int | None = None,
        cut: bool = False,
        headers: Iterable[tuple[str, str]] = (),
        redirects: int = 0,
        delay: float | None = None,
        wanted: Callable[[str], str | None] | None = None,
        permitted: Callable[[str], None] | None = None,
        sink: Callable[[bytes], object] | None = None,
        seconds: float | None = None,
    ) -> Answer:
        """Ask for a page.

        Args:
            url: a canonical URL.
            most: bytes of the body at most, both as sent and as unpacked; None is ``options.max_page``.
            cut: whether a longer body is cut there; otherwise it is an error.
            headers: sent beside the usual ones, such as If-None-Match.
            redirects: how many are followed; the answer is then the last one's.
            delay: seconds between two requests to the host; None is ``options.delay``.
            wanted: media type to the reason why a body is not read; None for one that is.
            permitted: called with the URL of each redirect before it is followed; may raise FetchError.
            sink: takes the body's pieces instead of the answer.
            seconds: time for the page; None is ``options.timeout``.

        Raises:
            FetchError: no answer, too large, too slow, or an address that may not be asked.
            Interrupted: a stop was asked for while waiting.
        """
        most = self.options.max_page if most is None else most
        seconds = self.options.timeout if seconds is None else seconds
        hops: list[str] = []
        current = url
        while True:
            answer = self._insist(url, current, most, cut, tuple(headers), delay, wanted, sink, seconds, tuple(hops))
            if answer.status not in _REDIRECTS or not redirects:
                return answer
            if len(hops) >= min(redirects, MOST_REDIRECTS):
                raise FetchError(f"more than {min(redirects, MOST_REDIRECTS)} redirects", temporary=False)
            onward = answer.location
            if onward is None:
                raise FetchError(
                    f"redirects to {answer.header('location')!r:.200}, which is no web page", temporary=False
                )
            if permitted is not None:
                permitted(onward)
            hops.append(current)
            current = onward

    def _insist(
        self, asked: str, url: str, most: int, cut: bool, headers: Headers, delay: float | None,
        wanted: Callable[[str], str | None] | None, sink: Callable[[bytes], object] | None, seconds: float,
        hops: tuple[str, ...],
    ) -> Answer:  # fmt: skip
        """Ask up to three times where the server or the line has a bad moment."""
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            wait = 2.0**attempt
            self._turn(url, delay)
            try:
                answer = self._once(asked, url, most, cut, headers, wanted, sink, seconds, hops)
                if not answer.temporary or last:
                    return answer
                if answer.status in (429, 503):
                    wait = _retry_after(answer, wait)
                    if wait > _LONGEST_WAIT_S:
                        return answer
            except (
                httpcore.ConnectError,
                httpcore.RemoteProtocolError,
                httpcore.ReadError,
                httpcore.WriteError,
            ) as error:
                if last or self._deadline.passed or sink is not None or "certificate" in str(error):
                    raise FetchError(_plainly(error), temporary=True) from error
            except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
                raise FetchError(_plainly(error), temporary=True) from error
            except Refused as error:
                raise FetchError(str(error), temporary=False) from error
            finally:
                self._turns[host_of(url)] = time.monotonic()
            self.wait(wait)
        raise AssertionError("the last attempt returns or raises")

    def _turn(self, url: str, delay: float | None) -> None:
        last = self._turns.get(host_of(url))
        if last is not None:
            self.wait(last + (self.options.delay if delay is None else delay) - time.monotonic())

    def wait(self, seconds: float) -> None:
        """Sleep in short pieces, so that a stop is heard.

        Raises:
            Interrupted: a stop was asked for.
        """
        while seconds > 0:
            if self.stop():
                raise Interrupted("stopped; the next build goes on from here")
            piece = min(seconds, 0.2)
            self.sleep(piece)
            seconds -= piece

    def _once(
        self, asked: str, url: str, most: int, cut: bool, headers: Headers,
        wanted: Callable[[str], str | None] | None, sink: Callable[[bytes], object] | None, seconds: float,
        hops: tuple[str, ...],
    ) -> Answer:  # fmt: skip
        self._deadline.start(seconds)
        self.requests += 1
        own = (
            ("Host", httpcore.URL(url).origin.host.decode() + _port(url)),
            ("User-Agent", self.agent),
            ("Accept", "text/html,application/xhtml+xml,text/plain;q=0.9,application/pdf;q=0.8,*/*;q=0.5"),
            ("Accept-Encoding", "gzip"),
        )
        given = {name.lower() for name, _ in headers}
        sent = (*(one for one in own if one[0].lower() not in given), *headers)
        pauses = {"connect": min(seconds, 15.0), "read": seconds, "write": seconds, "pool": seconds}
        raw = [(name.encode("ascii", "replace"), value.encode("latin-1", "replace")) for name, value in sent]
        request = httpcore.Request("GET", url, headers=raw, extensions={"timeout": pauses})
        at = self.now()
        response = self._pool.handle_request(request)
        try:
            got = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in response.headers)
            peer = response.extensions["network_stream"].get_extra_info("server_addr")
            reason = bytes(response.extensions.get("reason_phrase", b"")).decode("latin-1")
            answer = Answer(asked, url, response.status, reason, got, b"", at, str(peer[0]), sent, hops)
            if response.status == 304:
                return answer
            if response.status != 200:
                _Body(answer, _OTHER_BYTES, True, None).read(response)
                return answer
            if wanted is not None and (no := wanted(answer.mime)):
                return Answer(**{**vars(answer), "stopped": no})
            body = _Body(answer, most, cut, sink)
            body.read(response)
            return Answer(**{**vars(answer), "body": bytes(body.kept), "cut": body.was_cut})
        finally:
            response.close()


class _Body:
    """A body as it arrives: unpacked, counted, and stopped at a limit."""

    def __init__(self, answer: Answer, most: int, cut: bool, sink: Callable[[bytes], object] | None) -> None:
        self.kept = bytearray()
        self.was_cut = False
        self._most, self._cut, self._sink, self._size = most, cut, sink, 0
        coding = (answer.header("content-encoding") or "identity").lower().strip()
        if coding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise FetchError(f"packed as {coding!r:.50}, which was not asked for", temporary=False)
        self._unpack: Any = zlib.decompressobj(47) if coding in ("gzip", "x-gzip") else None
        if coding == "deflate":
            self._unpack = zlib.decompressobj()
        length = answer.header("content-length") or ""
        if length.isdigit() and int(length) > most and not cut:
            raise FetchError(f"larger than {most:,} bytes", temporary=False)

    def read(self, response: httpcore.Response) -> None:
        sent = 0
        try:
            for chunk in response.iter_stream():
                sent += len(chunk)
                if not self._take(chunk) or (sent > self._most and not self._full()):
                    return
        except zlib.error as error:
            raise FetchError(f"damaged packing ({error})", temporary=True) from error

    def _take(self, chunk: bytes) -> bool:
        """Whether there is room for more."""
        while chunk:
            if self._unpack is None:
                piece, chunk = chunk, b""
            else:
                # A bomb is unpacked to one byte over the limit and no further.
                piece = self._unpack.decompress(chunk, self._most - self._size + 1)
                chunk = self._unpack.unconsumed_tail
                if self._unpack.eof and not chunk:
                    chunk, self._unpack = self._unpack.unused_data, zlib.decompressobj(47)
                    if not chunk.strip(b"\0"):
                        chunk = b""
            room = self._most - self._size
            self._keep(piece[:room])
            if len(piece) > room:
                return self._full()
        return True

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._sink is not None:
            self._sink(piece)
        else:
            self.kept += piece

    def _full(self) -> bool:
        if not self._cut:
            raise FetchError(f"larger than {self._most:,} bytes", temporary=False)
        self.was_cut = True
        return False


def _port(url: str) -> str:
    port = httpcore.URL(url).port
    return f":{port}" if port is not None else ""


def _retry_after(answer: Answer, otherwise: float) -> float:
    """Seconds that the server asks us to wait: a number, or a date."""
    value = (answer.header("retry-after") or "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max((email.utils.parsedate_to_datetime(value) - answer.at).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return otherwise


def _plainly(error: Exception) -> str:
    kind = "too slow" if isinstance(error, httpcore.TimeoutException) else "no answer"
    return f"{kind}: {error}" if str(error) else kind
