"""Pages, hosts, sitemaps and feeds brought into the raw store: politely, each page to one outcome, only what changed, nothing that is gone."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from tests.corpus.sources.gathered import OPTIONS, Gather, body, feed, outcomes, small_site, store

from gptwright.core.errors import Interrupted, UserError
from gptwright.corpus.config import SourceConfig
from gptwright.corpus.sources import consent
from gptwright.corpus.sources.crawl import BEYOND
from gptwright.corpus.sources.kinds import list_source


def test_crawl_when_a_small_site_then_each_page_has_one_outcome(server: Any, gather: Gather, tmp_path: Path) -> None:
    small_site(server)
    server.replies["/b"].headers["Content-Type"] = "image/svg+xml"
    places = gather(f"crawl:{server.base}/")
    assert outcomes(places, server.base) == {
        "/": "ok",
        "/a": "ok",
        "/b": "skipped",
        "/private/x": "skipped",
        "/pic.PNG": "skipped",
        "/feed.mp3": "skipped",
        "/gone": "unreadable",
        "/old": "skipped",
        "/new": "ok",
    }
    assert places[f"{server.base}/private/x"].reason == f"robots.txt forbids it ({server.base}/robots.txt)"
    assert places[f"{server.base}/gone"].reason == "404 Not Found, it is gone"
    assert places[f"{server.base}/old"].reason == f"redirects to {server.base}/new"
    assert places[f"{server.base}/b"].reason == "image/svg+xml, which is no text"
    assert b"text of a" in body(places[f"{server.base}/a"])
    assert places[f"{server.base}/a"].facts.title == "A"
    assert "/unfollowed" not in server.paths()
    assert "/private/x" not in server.paths()
    assert sorted(set(server.paths())) == sorted(server.paths())  # nothing twice
    listing = list_source("s", SourceConfig(uri=f"crawl:{server.base}/"), tmp_path)
    assert [(f.locator.removeprefix(server.base), f.kind) for f in listing.files] == [
        ("/", "warc"),
        ("/a", "warc"),
        ("/new", "warc"),
    ]
    assert len(listing.set_aside) == 6
    assert not list(store(tmp_path).folder.glob("frontier*"))


def test_crawl_when_pages_are_joined_then_a_valid_warc(server: Any, gather: Gather) -> None:
    small_site(server)
    places = gather(f"crawl:{server.base}/")
    joined = b"".join(place.file.read_bytes() for place in places.values() if place.file is not None)
    checked = [one.verify_block_digest() for one in ArchiveIterator(io.BytesIO(joined), parse_http=False)]
    assert checked == [True] * 12
    responses = ArchiveIterator(io.BytesIO(joined), record_types=WarcRecordType.response)
    assert sum(one.http_headers.status_code == 200 for one in responses) == 6


@pytest.mark.parametrize(
    ("depth", "titles"), [(0, "Home"), (1, "A Home New"), (2, "A B Home New"), (9, "A B C D Home New")]
)
def test_crawl_when_depth_is_limited_then_no_deeper(server: Any, gather: Gather, depth: int, titles: str) -> None:
    small_site(server)
    places = gather(f"crawl:{server.base}/", {"depth": depth})
    assert " ".join(sorted(p.facts.title or "" for p in places.values() if p.file)) == titles


@pytest.mark.parametrize("limits", [{"max_pages": 3}, {"max_total": 30}])
def test_crawl_when_a_limit_is_reached_then_the_rest_is_counted(
    server: Any, gather: Gather, limits: dict[str, int]
) -> None:
    for number in range(10):
        server.page(f"/{number}" if number else "/", "".join(f'<a href="/{n}">x</a>' for n in range(10)))
    places = gather(f"crawl:{server.base}/", limits)
    assert len(server.paths()) == (3 if "max_pages" in limits else 1)
    assert "more pages are known; the limit is" in str(places[BEYOND].reason)


def test_crawl_when_a_site_asks_for_hours_between_requests_then_it_is_asked_once(server: Any, gather: Gather) -> None:
    server.text("/robots.txt", "User-agent: *\nCrawl-delay: 86400\n")
    server.page("/", '<title>T</title><a href="/a">a</a>')
    places = gather(f"crawl:{server.base}/")
    assert server.paths() == ["/"]
    assert places[f"{server.base}/a"].reason == "robots.txt asks for 86,400 s between two requests, too long to wait"


def test_crawl_when_pages_link_to_other_hosts_then_only_those_that_are_named(
    server: Any, servers: Callable[[str], Any], gather: Gather
) -> None:
    other = servers("127.0.0.2")
    other.page("/x", "<title>X</title>")
    server.page("/", f'<a href="{other.base}/x">x</a>')
    assert len(gather(f"crawl:{server.base}/")) == 1
    assert other.asked == []
    places = gather(f"crawl:{server.base}/", {"hosts": ["127.0.0.1", "127.0.0.2"]})
    assert f"{other.base}/x" in places
    assert next(path for path, _ in other.asked) == "/robots.txt"  # each host's own robots.txt comes first


def test_crawl_when_gathered_again_then_only_what_changed_is_taken_and_what_is_gone_goes(
    server: Any, gather: Gather, tmp_path: Path
) -> None:
    small_site(server)
    first = gather(f"crawl:{server.base}/")
    before, files = store(tmp_path).fingerprint(), {k: p.file.stat().st_mtime_ns for k, p in first.items() if p.file}
    server.asked.clear()
    second = gather(f"crawl:{server.base}/")
    assert store(tmp_path).fingerprint() == before
    assert {k: p.file.stat().st_mtime_ns for k, p in second.items() if p.file} == files
    conditional = [path for path, headers in server.asked if "if-none-match" in headers]
    assert sorted(conditional) == ["/", "/a", "/b", "/c", "/d", "/new"]
    # Links of pages that did not change are known from before.
    server.page("/b", '<title>B</title>now without its link, <a href="/e">e</a>')
    server.page("/e", "<title>E</title>")
    del server.replies["/new"]
    third = gather(f"crawl:{server.base}/")
    assert outcomes(third, server.base)["/new"] == "unreadable"
    assert "/c" not in outcomes(third, server.base)
    assert third[f"{server.base}/e"].outcome == "ok"
    changed = {
        k.removeprefix(server.base) for k, p in third.items() if p.file and p.file.stat().st_mtime_ns != files.get(k)
    }
    assert changed == {"/b", "/e"}
    assert len(list(store(tmp_path).folder.glob("??/*"))) == sum(p.file is not None for p in third.values())


def test_crawl_when_a_page_has_new_headers_but_the_same_text_then_it_keeps_its_file(
    server: Any, gather: Gather
) -> None:
    server.page("/", "<title>T</title>x", X_Request="1")
    server.replies["/"].headers["ETag"] = '"weak-1"'
    (first,) = gather(f"{server.base}/").values()
    server.page("/", "<title>T</title>x", X_Request="2")
    (second,) = gather(f"{server.base}/").values()
    assert (first.file, first.facts) == (second.file, second.facts)


def test_crawl_when_the_server_has_a_bad_moment_then_the_old_page_stays_and_it_is_said(
    server: Any, gather: Gather, tmp_path: Path
) -> None:
    small_site(server)
    first = gather(f"crawl:{server.base}/")
    server.replies["/a"] = type(server.replies["/"])(status=500)
    second = gather(f"crawl:{server.base}/")
    place = second[f"{server.base}/a"]
    assert (place.file, place.outcome) == (first[f"{server.base}/a"].file, "ok")
    assert str(place.reason).startswith("not seen this time, kept from before: 500")
    assert f"{server.base}/c" in second  # what it led to is still reached
    assert store(tmp_path).about()["kept_unseen"] == 1


def test_crawl_when_robots_cannot_be_read_then_nothing_is_asked_and_the_old_stays(
    server: Any, gather: Gather, tmp_path: Path
) -> None:
    small_site(server)
    first = gather(f"crawl:{server.base}/")
    (store(tmp_path).folder / "sites.sqlite").unlink()
    server.text("/robots.txt", "", status=503)
    server.asked.clear()
    second = gather(f"crawl:{server.base}/")
    assert server.paths() == []
    assert {k for k, p in second.items() if p.file} == {k for k, p in first.items() if p.file}


def test_crawl_when_robots_forbids_what_it_allowed_then_the_text_is_not_kept(
    server: Any, gather: Gather, tmp_path: Path
) -> None:
    small_site(server)
    gather(f"crawl:{server.base}/")
    (store(tmp_path).folder / "sites.sqlite").unlink()
    server.text("/robots.txt", "User-agent: gptwright\nDisallow: /a\n")
    place = gather(f"crawl:{server.base}/")[f"{server.base}/a"]
    assert (place.outcome, place.file) == ("skipped", None)
    assert place.facts.optout == consent.OptOut.ROBOTS_SELF
    assert all(b"text of a" not in body(p) for p in store(tmp_path).places() if p.file)


def test_crawl_when_nobody_answers_at_first_then_the_error_says_why_and_the_next_time_it_is_asked_again(
    server: Any, gather: Gather
) -> None:
    server.text("/robots.txt", "", status=500)
    with pytest.raises(UserError, match=r"nothing was gathered from it: .*robots\.txt could not be read \(500"):
        gather(f"crawl:{server.base}/")
    server.text("/robots.txt", "")
    server.page("/", "<title>T</title>")
    assert len(gather(f"crawl:{server.base}/")) == 1


def test_crawl_when_consent_signals_stand_everywhere_then_all_are_kept_with_their_evidence(
    server: Any, gather: Gather, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.text(
        "/robots.txt",
        "User-agent: *\nContent-Usage: train-ai=n\nContent-Signal: ai-train=no\nUser-agent: GPTBot\nDisallow: /\n",
    )
    server.text("/.well-known/tdmrep.json", '[{"location": "/", "tdm-reservation": 1}]', "application/json")
    server.page(
        "/", '<title>T</title><meta name="robots" content="noai">', X_Robots_Tag="noimageai", tdm_reservation="0"
    )
    (place,) = gather(f"crawl:{server.base}/").values()
    bit = consent.OptOut
    assert (
        place.facts.optout
        == bit.CONTENT_USAGE | bit.CONTENT_SIGNAL | bit.ROBOTS_AI | bit.TDM | bit.NOAI | bit.NOIMAGEAI
    )
    seen = {(one["where"], one["signal"]): one for one in place.facts.consent}
    assert set(seen) == {
        ("robots.txt", "content_usage"), ("robots.txt", "content_signal"), ("robots.txt", "robots_ai"), ("tdmrep.json", "tdm"),
        ("meta", "noai"), ("header", "noimageai"), ("header", "permission"),
    }  # fmt: skip
    assert all(one["at"] and one["url"].startswith(server.base) for one in place.facts.consent)
    assert store(tmp_path).about()["opt_outs"]["noai"] == 1
    assert "ask not to train" in capsys.readouterr().err
    before = store(tmp_path).fingerprint()
    gather(f"crawl:{server.base}/")
    assert store(tmp_path).fingerprint() == before


def test_crawl_when_a_site_takes_a_reservation_later_then_unchanged_pages_get_it(
    server: Any, gather: Gather, tmp_path: Path
) -> None:
    small_site(server)
    gather(f"crawl:{server.base}/")
    before = store(tmp_path).fingerprint()
    (store(tmp_path).folder / "sites.sqlite").unlink()
    server.text("/.well-known/tdmrep.json", '[{"location": "/a", "tdm-reservation": 1}]', "application/json")
    places = gather(f"crawl:{server.base}/")
    assert places[f"{server.base}/a"].facts.optout == consent.OptOut.TDM
    assert places[f"{server.base}/b"].facts.optout == 0
    assert store(tmp_path).fingerprint() != before


def test_gather_when_opt_outs_are_overridden_then_the_reason_is_with_the_source(
    server: Any, gather: Gather, tmp_path: Path
) -> None:
    server.page("/", '<title>T</title><meta name="robots" content="noai">')
    gather(f"{server.base}/", settings={"consent": {"policy": "override", "reason": "it is my own site"}})
    assert store(tmp_path).about()["consent"] == {"policy": "override", "reason": "it is my own site"}


def test_page_when_it_redirects_to_another_host_then_it_is_followed_and_robots_there_obeyed(
    server: Any, servers: Callable[[str], Any], gather: Gather, reply: Any
) -> None:
    other = servers("127.0.0.2")
    other.text("/robots.txt", "User-agent: *\nDisallow: /no\n")
    other.page("/yes", "<title>Y</title>")
    server.replies["/"] = reply(status=302, headers={"Location": f"{other.base}/yes"})
    places = gather(f"{server.base}/")
    assert places[f"{other.base}/yes"].facts.title == "Y"
    server.replies["/"] = reply(status=302, headers={"Location": f"{other.base}/no"})
    with pytest.raises(UserError, match="nothing was gathered"):
        gather(f"{server.base}/")
    assert "/no" not in other.paths()


def test_page_when_it_redirects_in_a_ring_then_each_is_asked_once(server: Any, gather: Gather, reply: Any) -> None:
    server.replies["/"] = reply(status=302, headers={"Location": "/b"})
    server.replies["/b"] = reply(status=302, headers={"Location": "/"})
    with pytest.raises(UserError, match="redirects to"):
        gather(f"{server.base}/")
    assert sorted(server.paths()) == ["/", "/b"]


@pytest.mark.parametrize("uri", ["https:", "crawl:", "sitemap:mailto:x@y", "crawl:https://a.org ftp://b.org"])
def test_gather_when_the_uri_is_no_address_then_the_error_shows_one(gather: Gather, uri: str) -> None:
    with pytest.raises(UserError, match="no web address"):
        gather(uri)


def test_gather_when_stopped_then_it_goes_on_where_it_was(server: Any, gather: Gather, tmp_path: Path) -> None:
    small_site(server)
    done = [0]

    def stop() -> bool:
        done[0] += 1
        return done[0] > 3

    with pytest.raises(Interrupted):
        gather(f"crawl:{server.base}/", stop=stop)
    assert not store(tmp_path).finished
    before = len(server.paths())
    gather(f"crawl:{server.base}/")
    assert sorted(set(server.paths())) == sorted(server.paths())
    assert len(server.paths()) > before


def test_erase_when_a_gathering_was_stopped_then_what_it_has_before_it_leaves_no_byte(
    server: Any, gather: Gather, tmp_path: Path
) -> None:
    server.text(
        "/feed", feed(server.base, [1, 2, 3], full=(1, 2, 3)).replace("full text", "marker-9b1e"), "application/rss+xml"
    )
    gather(f"feed:{server.base}/feed")
    with pytest.raises(Interrupted):
        gather(f"feed:{server.base}/feed", stop=lambda: True)
    for number in (1, 2, 3):
        store(tmp_path).erase(f"{server.base}/{number}")
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"marker-9b1e" in path.read_bytes()]
    assert kept == []


def state(root: Path) -> list[Any]:
    """Everything that decides what is built of a store, without its times."""
    return [
        [p.locator, p.outcome, p.reason, p.identity, p.facts.title, p.facts.optout, p.extra.get("links")]
        for p in store(root).places()
    ]


@pytest.mark.slow
def test_crawl_when_killed_at_any_point_then_it_ends_with_the_same_store(server: Any, tmp_path: Path) -> None:
    server.text("/robots.txt", "User-agent: *\nDisallow: /7\n")
    for number in range(40):
        links = "".join(f'<a href="/{n}">x</a>' for n in (number * 2 + 1, number * 2 + 2, number // 2) if n < 40)
        server.page(f"/{number}" if number else "/", f"<title>{number}</title>{links}<p>{'words ' * number}</p>")
    script = (
        "import sys, json; from pathlib import Path; from gptwright.corpus.config import SourceConfig;"
        "from gptwright.corpus.sources import web; from gptwright.corpus.sources.kinds import request_for;"
        "c = json.loads(sys.argv[1]); web.gather(request_for('s', SourceConfig.model_validate(c), Path(sys.argv[2])))"
    )
    config = json.dumps({"uri": f"crawl:{server.base}/", "crawl": {**OPTIONS, "delay": "15ms", "depth": 9}})

    def start(root: Path) -> "subprocess.Popen[bytes]":
        root.mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, "-c", script, config, str(root)], stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait(60) == 0
    whole = state(tmp_path / "whole")
    assert len(whole) == 41
    server.asked.clear()
    kills = 0
    for target in (1, 6, 13, 22, 33):
        process = start(tmp_path / "killed")
        while len(server.paths()) < target and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait(60)
    assert kills >= 4
    assert start(tmp_path / "killed").wait(60) == 0
    assert state(tmp_path / "killed") == whole
    assert len(server.paths()) <= 40 + kills  # a killed gathering asks at most for the page that it was at once more
    assert [p.relative_to(tmp_path / "killed") for p in sorted((tmp_path / "killed").rglob("*.warc.gz"))] == [
        p.relative_to(tmp_path / "whole") for p in sorted((tmp_path / "whole").rglob("*.warc.gz"))
    ]
