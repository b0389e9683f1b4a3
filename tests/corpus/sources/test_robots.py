"""robots.txt as RFC 9309 has it: what allows, what forbids, how much is read, for how long it holds."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gptwright.corpus.sources.consent import OptOut, facts_of
from gptwright.corpus.sources.robots import ROBOTS_BYTES, Sites


@pytest.mark.parametrize(
    ("status", "allows"),
    [(200, True), (401, True), (403, True), (404, True), (410, True), (429, False), (500, False), (503, False)],
)
def test_sites_when_robots_is_answered_then_4xx_allows_and_5xx_forbids(
    server: Any, client: Callable[..., Any], tmp_path: Path, status: int, allows: bool
) -> None:
    server.text("/robots.txt", "User-agent: *\nDisallow: /no/\n", status=status)
    site = Sites(client(), tmp_path).of(f"{server.base}/yes")
    assert (site.refuses(f"{server.base}/yes") is None) is allows
    assert site.unreachable is not allows


def test_sites_when_nobody_answers_then_forbidden(server: Any, client: Callable[..., Any], tmp_path: Path) -> None:
    server.close()
    site = Sites(client(), tmp_path).of(f"{server.base}/")
    assert "could not be read" in str(site.refuses(f"{server.base}/"))


def test_sites_when_robots_never_ends_then_forbidden(
    server: Any, client: Callable[..., Any], reply: Any, tmp_path: Path
) -> None:
    def flood(handler: Any) -> None:
        import time

        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(b"#")
            time.sleep(0.02)

    server.replies["/robots.txt"] = reply(act=flood)
    assert Sites(client({"timeout": 0.3}), tmp_path).of(f"{server.base}/").unreachable


def test_sites_when_robots_is_ten_megabytes_then_it_is_read_to_500_kib(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    first, later = "User-agent: *\nDisallow: /first\n", "Disallow: /later\n"
    filler = "# nothing to see here\n" * 500_000
    server.text("/robots.txt", first + filler + later)
    site = Sites(client({"max_page": 1000}), tmp_path).of(f"{server.base}/")
    assert len(site.robots) <= ROBOTS_BYTES
    assert site.refuses(f"{server.base}/first")
    assert site.refuses(f"{server.base}/later") is None
    assert site.robots.endswith("\n")


def test_sites_when_robots_redirects_then_five_are_followed(
    server: Any, client: Callable[..., Any], reply: Any, tmp_path: Path
) -> None:
    for number in range(5):
        server.replies["/robots.txt" if number == 0 else f"/r{number}"] = reply(
            status=301, headers={"Location": f"/r{number + 1}"}
        )
    server.text("/r5", "User-agent: *\nDisallow: /\n")
    assert Sites(client(), tmp_path / "a").of(f"{server.base}/").refuses(f"{server.base}/")
    server.replies["/r5"] = reply(status=301, headers={"Location": "/r6"})
    server.text("/r6", "User-agent: *\nDisallow: /\n")
    assert Sites(client(), tmp_path / "b").of(f"{server.base}/").refuses(f"{server.base}/") is None


def test_sites_when_asked_again_within_a_day_then_robots_is_not_and_after_it_is(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    server.text("/robots.txt", "User-agent: *\nDisallow: /a\n")
    for hours, asked in ((0, 1), (23, 1), (25, 2)):
        now[0] = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
        site = Sites(client(), tmp_path, now=lambda: now[0]).of(f"{server.base}/x")  # a new object: it is kept on disk
        assert site.refuses(f"{server.base}/a")
        assert [path for path, _ in server.asked].count("/robots.txt") == asked


def test_sites_when_the_site_had_a_bad_moment_then_the_next_gathering_asks_again(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    server.text("/robots.txt", "", status=500)
    sites = Sites(client(), tmp_path)
    assert sites.of(f"{server.base}/").unreachable
    assert sites.of(f"{server.base}/").unreachable  # within one gathering it is asked once
    asked = len(server.asked)
    server.text("/robots.txt", "")
    assert not Sites(client(), tmp_path).of(f"{server.base}/").unreachable
    assert len(server.asked) > asked


def test_site_when_it_asks_for_time_then_the_longer_counts(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    server.text(
        "/robots.txt", "User-agent: gptwright\nCrawl-delay: 2.5\nRequest-rate: 1/10\nUser-agent: *\nCrawl-delay: 99\n"
    )
    assert Sites(client(), tmp_path).of(f"{server.base}/").delay == 10


def test_site_when_tdmrep_stands_then_it_is_read_once_and_speaks(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    server.text("/.well-known/tdmrep.json", '[{"location": "/mine/*", "tdm-reservation": 1}]', "application/json")
    sites = Sites(client(), tmp_path)
    assert facts_of(sites.of(f"{server.base}/mine/x").signals(f"{server.base}/mine/x")).optout == OptOut.TDM
    assert facts_of(sites.of(f"{server.base}/free/x").signals(f"{server.base}/free/x")).optout == 0
    assert [path for path, _ in server.asked].count("/.well-known/tdmrep.json") == 1


def test_site_when_robots_forbids_everything_then_nothing_else_is_asked(
    server: Any, client: Callable[..., Any], tmp_path: Path
) -> None:
    server.text("/robots.txt", "User-agent: *\nDisallow: /\n")
    Sites(client(), tmp_path).of(f"{server.base}/")
    assert [path for path, _ in server.asked] == ["/robots.txt"]
