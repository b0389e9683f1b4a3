"""A small site, and how it is gathered and looked at; shared by the tests of pages, sitemaps and feeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptwright.corpus.config import SourceConfig
from gptwright.corpus.sources.base import Request
from gptwright.corpus.sources.kinds import request_for
from gptwright.corpus.sources.raw import Place, RawStore
from gptwright.corpus.sources.warcrecords import Found, bodies

OPTIONS = {"delay": 0, "timeout": 5, "allow_private": True, "depth": 5}
Gather = Callable[..., dict[str, Place]]


def requested(
    root: Path, uri: str, options: dict[str, Any] | None = None, settings: dict[str, Any] | None = None
) -> Request:
    config = SourceConfig.model_validate({"uri": uri, "crawl": {**OPTIONS, **(options or {})}, **(settings or {})})
    return request_for("s", config, root)


def store(root: Path) -> RawStore:
    return RawStore(root / "work" / "corpus" / "raw" / "s")


def body(place: Place) -> bytes:
    assert place.file is not None
    with open(place.file, "rb") as file:
        (found,) = bodies(file, Found())
    return found.data


def outcomes(places: dict[str, Place], base: str) -> dict[str, str]:
    return {locator.removeprefix(base): place.outcome for locator, place in places.items()}


def small_site(server: Any) -> None:
    server.text("/robots.txt", "User-agent: *\nDisallow: /private/\n")
    server.page(
        "/",
        '<title>Home</title><a href="/a?utm_source=x">a</a><a href="/private/x">p</a><a href="/pic.PNG">i</a><a href="/feed.mp3">m</a>'
        '<a rel="nofollow" href="/unfollowed">n</a><a href="http://other.example/">o</a><a href="/gone">g</a><a href="/old">r</a>',
    )
    server.page("/a", '<title>A</title><a href="/#top">home</a><a href="/b">b</a><p>text of a</p>')
    server.page("/b", '<title>B</title><a href="/c">c</a>')
    server.page("/c", '<title>C</title><a href="/d">d</a>')
    server.page("/d", "<title>D</title>")
    server.replies["/old"] = type(server.replies["/"])(status=301, headers={"Location": "/new"})
    server.page("/new", "<title>New</title>")
    server.text("/feed.mp3", "x", "audio/mpeg")


def feed(base: str, numbers: list[int], full: tuple[int, ...] = ()) -> str:
    items = "".join(
        f"<item><title>Post {n}</title><link>{base}/{n}</link><pubDate>Mon, 0{n} Jan 2024 00:00:00 GMT</pubDate>"
        + (f"<content:encoded>{'&lt;p&gt;full text &lt;/p&gt;' * 80} {n}</content:encoded>" if n in full else "")
        + "</item>"
        for n in numbers
    )
    return (
        '<rss xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel><title>Blog</title>'
        f"<license>https://creativecommons.org/licenses/by/4.0/</license>{items}</channel></rss>"
    )
