"""Sitemaps and feeds brought into the raw store: what they name, only what changed, and what they no longer name."""

from pathlib import Path
from typing import Any

import pytest
from tests.corpus.sources.gathered import Gather, body, feed, outcomes

from gptwright.core.errors import UserError


def test_sitemap_when_an_index_then_its_pages_and_unchanged_ones_are_not_asked_again(
    server: Any, gather: Gather
) -> None:
    server.text("/robots.txt", f"User-agent: *\nDisallow: /no\nSitemap: {server.base}/index.xml\n")
    server.text(
        "/index.xml",
        f"<sitemapindex><sitemap><loc>{server.base}/1.xml</loc></sitemap><sitemap><loc>{server.base}/2.xml</loc></sitemap></sitemapindex>",
        "text/xml",
    )

    def sitemap(a: str) -> None:
        pages = f"<url><loc>{server.base}/a</loc><lastmod>{a}</lastmod></url><url><loc>{server.base}/b</loc></url>"
        pages += f"<url><loc>{server.base}/no</loc></url><url><loc>http://other.example/</loc></url>"
        server.text("/1.xml", f"<urlset>{pages}</urlset>", "text/xml")

    sitemap("2024-01-01")
    for name in ("/a", "/b"):
        server.page(name, f"<title>{name}</title><a href='/linked'>x</a>")
    places = gather(f"sitemap:{server.base}")
    assert outcomes(places, server.base) == {
        "/a": "ok", "/b": "ok", "/no": "skipped", "/2.xml": "unreadable", "/1.xml#other-hosts": "skipped",
    }  # fmt: skip
    server.asked.clear()
    gather(f"sitemap:{server.base}")
    assert "/a" not in server.paths()
    sitemap("2024-02-02")
    gather(f"sitemap:{server.base}")
    assert server.paths().count("/a") == 1


def test_sitemap_when_it_is_none_then_the_error_says_what_it_is(server: Any, gather: Gather) -> None:
    server.page("/sitemap.xml", "<html>not found")
    with pytest.raises(UserError, match=r"sitemap\.xml: a <html>, which is neither a sitemap nor a feed"):
        gather(f"sitemap:{server.base}/sitemap.xml")


def test_feed_when_entries_are_full_then_their_text_is_used_and_other_pages_are_asked_for(
    server: Any, gather: Gather
) -> None:
    server.text("/robots.txt", "User-agent: *\nDisallow: /3\n")
    server.text("/feed", feed(server.base, [1, 2, 3], full=(1, 3)), "application/rss+xml")
    server.page("/2", "<title>From its page</title>")
    places = gather(f"feed:{server.base}/feed")
    assert outcomes(places, server.base) == {"/1": "ok", "/2": "ok", "/3": "skipped"}
    one = places[f"{server.base}/1"]
    assert b"full text" in body(one)
    assert (one.facts.title, one.facts.attribution, one.facts.license_id, one.facts.license_source) == (
        "Post 1",
        "Blog",
        "CC-BY-4.0",
        "feed",
    )
    assert str(one.facts.published_at) == "2024-01-01 00:00:00+00:00"
    assert places[f"{server.base}/2"].facts.title == "From its page"
    assert server.paths() == ["/feed", "/2"]


def test_feed_when_it_moves_on_then_older_entries_stay_while_their_pages_are_there(
    server: Any, gather: Gather, tmp_path: Path
) -> None:
    server.text("/feed", feed(server.base, [1, 2, 4], full=(1,)), "application/rss+xml")
    server.page("/2", "<title>2</title>")
    server.page("/4", "<title>4</title>")
    gather(f"feed:{server.base}/feed")
    server.text("/feed", feed(server.base, [5]), "application/rss+xml")
    server.page("/5", "<title>5</title>")
    del server.replies["/4"]
    assert outcomes(gather(f"feed:{server.base}/feed"), server.base) == {
        "/1": "ok",
        "/2": "ok",
        "/4": "unreadable",
        "/5": "ok",
    }
