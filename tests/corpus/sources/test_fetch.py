"""The client: no private address by any way, an end to everything, polite, nothing sent but what it says."""

import contextlib
import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.errors import Interrupted
from gptwright.corpus.sources.address import is_public
from gptwright.corpus.sources.fetch import FetchError


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "192.88.99.1", "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1%eth0", "fd00::1", "fec0::1", "ff0e::1",
        "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:1::",
        "2001:db8::1",
    ],
)  # fmt: skip
def test_is_public_when_private_or_special_then_false(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_is_public_when_on_the_internet_then_true(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"])
def test_get_when_the_host_is_this_machine_by_any_spelling_then_nothing_is_asked(
    server: Any, client: Callable[..., Any], host: str
) -> None:
    with pytest.raises(FetchError, match="private network|no such name|no answer") as caught:
        client({"allow_private": False}).get(f"http://{host}:{server.port}/")
    assert server.asked == []
    assert "private" in str(caught.value) or caught.value.temporary  # a system may not know the spelling at all


def only(*public: str) -> Callable[[str], bool]:
    return lambda address: address in public


def test_get_when_a_public_page_redirects_to_a_private_address_then_it_is_not_asked(
    servers: Callable[[str], Any], client: Callable[..., Any], reply: Any
) -> None:
    outside, inside = servers("127.0.0.1"), servers("127.0.0.2")
    outside.replies["/"] = reply(status=302, headers={"Location": f"{inside.base}/secret"})
    with pytest.raises(
        FetchError, match=r"127\.0\.0\.2 is an address of this machine or of a private network.*allow_private"
    ):
        client(allowed=only("127.0.0.1")).get(f"{outside.base}/", redirects=10)
    assert outside.paths() == ["/"]
    assert inside.asked == []


def test_get_when_a_name_changes_its_address_after_the_check_then_the_checked_one_is_used(
    servers: Callable[[str], Any], client: Callable[..., Any], reply: Any
) -> None:
    outside = servers("127.0.0.1")
    outside.replies["/"] = reply(b"public")
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]]
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    fetcher = client(allowed=only("127.0.0.1"), resolver=rebinding)
    url = f"http://rebind.example:{outside.port}/"
    assert fetcher.get(url).body == b"public"
    assert asked == ["rebind.example"]  # one resolution for one connection: the address checked is the one used
    fetcher._pool.close()
    with pytest.raises(FetchError, match="private network"):
        fetcher.get(url)
    assert len(outside.asked) == 1


def test_get_when_one_of_several_addresses_is_private_then_none_is_asked(
    server: Any, client: Callable[..., Any]
) -> None:
    fetcher = client(allowed=only("127.0.0.1"), resolver=lambda _h, _p: ["127.0.0.1", "10.0.0.1"])
    with pytest.raises(FetchError, match="private network"):
        fetcher.get(f"http://both.example:{server.port}/")
    assert server.asked == []


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://example.org/x", "gopher://x/", "data:text/html,x"])
def test_get_when_redirected_to_something_other_than_http_then_refused(
    server: Any, client: Callable[..., Any], reply: Any, place: str
) -> None:
    server.replies["/"] = reply(status=302, headers={"Location": place})
    with pytest.raises(FetchError, match="no web page"):
        client().get(f"{server.base}/", redirects=10)


def test_get_when_redirects_do_not_end_then_ten_are_followed(
    server: Any, client: Callable[..., Any], reply: Any
) -> None:
    server.replies["/"] = reply(status=302, headers={"Location": "/"})
    with pytest.raises(FetchError, match="more than 10 redirects"):
        client().get(f"{server.base}/", redirects=50)
    assert len(server.asked) == 11


def test_get_when_asked_then_it_names_itself_and_sends_nothing_else(
    server: Any, client: Callable[..., Any], reply: Any
) -> None:
    server.replies["/"] = reply(b"x", headers={"Set-Cookie": "a=b"})
    fetcher = client({"user_agent": "ann@example.org\r\nX-Evil: 1"})
    fetcher.get(f"{server.base}/")
    fetcher.get(f"{server.base}/")
    sent = server.asked[1][1]
    assert sorted(sent) == ["accept", "accept-encoding", "host", "user-agent"]  # no cookie came back
    assert sent["user-agent"].startswith("gptwright/")
    assert "ann@example.org" in sent["user-agent"]


def drip(piece: bytes, head: bytes) -> Callable[[Any], None]:
    def act(handler: Any) -> None:
        handler.wfile.write(head)
        for _ in range(2000):
            handler.wfile.write(piece)
            time.sleep(0.02)

    return act


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
        (b"", b""),
    ],
    ids=["body", "chunks", "headers", "silence"],
)
def test_get_when_an_answer_never_ends_then_the_time_for_a_page_ends_it(
    server: Any, client: Callable[..., Any], reply: Any, head: bytes, piece: bytes
) -> None:
    server.replies["/"] = reply(act=drip(piece, head))
    start = time.monotonic()
    with pytest.raises(FetchError, match="too slow") as caught:
        client({"timeout": 0.4}).get(f"{server.base}/")
    assert time.monotonic() - start < 1.5
    assert caught.value.temporary
    assert len(server.asked) == 1  # such a page is not asked for again


def test_get_when_a_body_has_no_end_then_the_size_ends_it(server: Any, client: Callable[..., Any], reply: Any) -> None:
    def flood(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(b"x" * 65536)

    server.replies["/"] = reply(act=flood)
    with pytest.raises(FetchError, match="larger than 300,000 bytes"):
        client({"max_page": 300_000}).get(f"{server.base}/")


def test_get_when_a_gzip_bomb_then_it_is_unpacked_to_the_limit_only(
    server: Any, client: Callable[..., Any], reply: Any
) -> None:
    server.replies["/"] = reply(gzip.compress(b"\0" * 200_000_000, 1), headers={"Content-Encoding": "gzip"})
    fetcher = client({"max_page": 1_000_000})
    with pytest.raises(FetchError, match="larger than 1,000,000 bytes"):
        fetcher.get(f"{server.base}/")
    answer = fetcher.get(f"{server.base}/", cut=True)
    assert (len(answer.body), answer.cut) == (1_000_000, True)


def test_get_when_the_body_is_packed_then_it_comes_unpacked(
    server: Any, client: Callable[..., Any], reply: Any
) -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"two")
    server.replies["/"] = reply(packed, headers={"Content-Encoding": "gzip"})
    assert client().get(f"{server.base}/").body == b"one two"


def test_get_when_the_answer_breaks_off_then_it_is_an_error_and_not_a_short_page(
    server: Any, client: Callable[..., Any], reply: Any
) -> None:
    def short(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    server.replies["/"] = reply(act=short)
    with pytest.raises(FetchError, match="no answer"):
        client().get(f"{server.base}/")
    assert len(server.asked) == 3


@pytest.mark.parametrize("value", ["7", None])
def test_get_when_the_server_is_busy_then_it_waits_as_asked_and_asks_again(
    server: Any, client: Callable[..., Any], reply: Any, value: str | None
) -> None:
    waited: list[float] = []
    now = datetime(2026, 1, 1, tzinfo=UTC)
    after = value or (now + timedelta(seconds=7)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    def busy(handler: Any) -> None:
        handler.wfile.write(
            f"HTTP/1.1 503 Busy\r\nRetry-After: {after}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        server.replies["/"] = reply(b"at last")

    server.replies["/"] = reply(act=busy)
    answer = client(sleep=waited.append, now=lambda: now).get(f"{server.base}/")
    assert answer.body == b"at last"
    assert sum(waited) == pytest.approx(7)


def test_get_when_the_server_asks_for_hours_then_the_page_is_left(
    server: Any, client: Callable[..., Any], reply: Any
) -> None:
    server.replies["/"] = reply(status=429, headers={"Retry-After": "86400"})
    answer = client().get(f"{server.base}/")
    assert (answer.status, answer.temporary, len(server.asked)) == (429, True, 1)


def test_get_when_a_host_is_asked_again_then_the_delay_lies_between(
    server: Any, client: Callable[..., Any], reply: Any
) -> None:
    waited: list[float] = []
    server.replies["/"] = reply(b"x")
    fetcher = client({"delay": 3}, sleep=waited.append)
    fetcher.get(f"{server.base}/")
    assert waited == []
    fetcher.get(f"{server.base}/")
    assert sum(waited) == pytest.approx(3, abs=0.2)
    fetcher.get(f"{server.base}/", delay=9)
    assert sum(waited) == pytest.approx(12, abs=0.4)


def test_get_when_stopped_while_waiting_then_interrupted(server: Any, client: Callable[..., Any], reply: Any) -> None:
    server.replies["/"] = reply(b"x")
    fetcher = client({"delay": 60}, stop=lambda: True, sleep=time.sleep)
    fetcher.get(f"{server.base}/")
    with pytest.raises(Interrupted):
        fetcher.get(f"{server.base}/")


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A TLS server for the name secure.example: its port, and the certificate that it made for itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl: apt install openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout", key,
         "-out", cert, "-subj", "/CN=secure.example", "-addext", "subjectAltName=DNS:secure.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as stream:
                stream.recv(65536)
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], cert
    listener.close()


def test_get_when_a_certificate_is_not_to_be_trusted_then_no_answer(
    secure: tuple[int, Path], client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, cert = secure

    def here(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    with pytest.raises(FetchError, match="certificate verify failed"):
        client(resolver=here).get(f"https://secure.example:{port}/")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    assert client(resolver=here).get(f"https://secure.example:{port}/").body == b"secret"
    with pytest.raises(
        FetchError, match="certificate verify failed"
    ):  # the name in the URL is checked, not the address
        client(resolver=here).get(f"https://other.example:{port}/")


def test_get_when_the_name_is_unknown_then_it_says_so(client: Callable[..., Any]) -> None:
    def nobody(_host: str, _port: int) -> list[str]:
        raise socket.gaierror("no")

    with pytest.raises(FetchError, match=r"nowhere\.example: no such name") as caught:
        client(resolver=nobody).get("http://nowhere.example/")
    assert caught.value.temporary
