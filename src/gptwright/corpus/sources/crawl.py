"""A walk over pages: robots.txt first, politely, each page to one outcome and its bytes as WARC; stopped anywhere, it goes on.

Single pages, the pages of sitemaps and feeds, and whole hosts are all walked here; they differ in where they begin and how far they go.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from gptwright.core.errors import Interrupted
from gptwright.core.progress import Bar
from gptwright.corpus.licences.names import normalise
from gptwright.corpus.sources import consent, page, warcfile
from gptwright.corpus.sources.base import Facts
from gptwright.corpus.sources.consent import Signal
from gptwright.corpus.sources.feeds import Entry
from gptwright.corpus.sources.fetch import MOST_REDIRECTS, Answer, Fetcher, FetchError
from gptwright.corpus.sources.frontier import Frontier, Step
from gptwright.corpus.sources.options import CrawlOptions
from gptwright.corpus.sources.page import parse_date
from gptwright.corpus.sources.raw import Place, RawStore
from gptwright.corpus.sources.robots import Site, Sites
from gptwright.corpus.sources.urls import host_of, path_of

_READABLE = (
    "text/",
    "application/xhtml+xml",
    "application/pdf",
    "application/json",
    "application/ld+json",
    "application/xml",
    "application/rtf",
    "application/epub+zip",
    "application/msword",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/octet-stream",
)
_UNREADABLE = ("text/css", "text/javascript", "text/calendar", "text/x-component")
# Told by its name, such a file is not even asked for.
_OTHER_NAMES = (
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif", ".svg", ".ico", ".bmp", ".tif", ".tiff"),
    *(".mp3", ".mp4", ".m4a", ".m4v", ".ogg", ".ogv", ".oga", ".wav", ".flac", ".webm", ".avi", ".mov", ".mkv"),
    *(
        ".css",
        ".js",
        ".mjs",
        ".woff",
        ".woff2",
        ".ttf",
        ".otf",
        ".eot",
        ".exe",
        ".msi",
        ".dmg",
        ".iso",
        ".apk",
        ".deb",
        ".rpm",
    ),
    *(".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".tar"),
)
HTML = ("text/html", "application/xhtml+xml")
FROM_FEED = "given by the feed"  # stands where a sitemap's date stands: the text did not come from its page
LONGEST_DELAY_S = 600.0  # a site that asks for more time between two requests is asked once
BEYOND = "(pages not asked for)"  # the place of the row that counts what lies beyond the limits


def wanted(mime: str) -> str | None:
    """Why a body of this media type is not read; None when it is."""
    if not mime or (mime.startswith(_READABLE) and mime not in _UNREADABLE):
        return None
    return f"{mime}, which is no text"


@dataclass
class Walk:
    """One gathering of pages.

    Args:
        fetcher: the client.
        sites: what sites say.
        store: where pages go.
        frontier: the pages to visit.
        options: limits.
        follow: whether links are followed, on the hosts of ``options.hosts`` or else of the first pages.
        stop: looked at between two pages.
    """

    fetcher: Fetcher
    sites: Sites
    store: RawStore
    frontier: Frontier
    options: CrawlOptions
    follow: bool
    stop: Callable[[], bool] = lambda: False
    kept_old: list[str] = field(default_factory=list)
    asked_hosts: set[str] = field(default_factory=set)

    def run(self, bar: Bar) -> None:
        """Visit pages until none is left or a limit is reached.

        Raises:
            Interrupted: a stop was asked for; the walk goes on from here.
        """
        asked, size = self.frontier.asked()
        while (step := self.frontier.next()) is not None:
            if self.stop():
                raise Interrupted("stopped; the next build goes on from here")
            if asked >= self.options.max_pages or size >= self.options.max_total:
                limit = (
                    f"{self.options.max_pages:,} pages"
                    if asked >= self.options.max_pages
                    else f"{self.options.max_total:,} bytes"
                )
                known = f"{self.frontier.waiting():,} more pages are known"
                self.store.outcome(BEYOND, "skipped", f"{known}; the limit is {limit}")
                return
            visit = _Visit(self, step, self.store.get(step.url), self.sites.of(step.url))
            visit.go()
            self.frontier.done(step, visit.onward, asked=visit.asked, size=visit.size)
            asked, size = asked + visit.asked, size + visit.size
            bar.note(step.url)
            bar.advance()

    def hosts(self) -> list[str]:
        """The hosts that may be visited: those that are named, else those of the first pages."""
        return self.options.hosts or sorted(self.frontier.seed_hosts())

    def within(self, url: str) -> bool:
        """Whether a page stands on one of them."""
        return _named(host_of(url), self.hosts())

    def summary(self) -> dict[str, Any]:
        """What the gathering as a whole has to say: requests, outcomes, signals of consent, pages that stayed although they were not seen."""
        outcomes: Counter[str] = Counter()
        signals: Counter[str] = Counter()
        for place in self.store.places():
            outcomes[place.outcome] += 1
            if place.file is not None:
                signals.update(consent.names(place.facts.optout))
        asked, size = self.frontier.asked()
        said = {
            "asked": asked,
            "bytes": size,
            "outcomes": dict(sorted(outcomes.items())),
            "opt_outs": dict(sorted(signals.items())),
        }
        if self.kept_old:
            said["kept_unseen"] = len(self.kept_old)
            said["kept_unseen_first"] = self.kept_old[:20]
        return said


class _Visit:
    """One page from its turn to its outcome."""

    def __init__(self, walk: Walk, step: Step, old: Place | None, site: Site) -> None:
        self._walk, self._step, self._old, self._site = walk, step, old, site
        self._has_old = old is not None and old.file is not None and old.file.exists()
        # A redirect holds no text, but what it led to must not be lost for a bad moment of its server.
        self._can_stay = self._has_old or (old is not None and "onward" in old.extra)
        self.onward: list[Step] = []
        self.asked = False
        self.size = 0

    def go(self) -> None:
        """Visit it."""
        step, url = self._step, self._step.url
        if refusal := self._site.refuses(url):
            if self._site.unreachable and self._can_stay:
                self._stay(refusal)
            else:
                facts = consent.facts_of(self._site.signals(url), self._former())
                self._none("skipped", refusal, facts)
            return
        if self._takes_entry():
            return
        if path_of(url).partition("?")[0].lower().endswith(_OTHER_NAMES):
            self._none("skipped", "told by its name it is no text")
            return
        if step.changed and self._has_old and self._old and self._old.extra.get("changed") == step.changed:
            self._stay(None)
            return
        if self._site.delay > LONGEST_DELAY_S and host_of(url) in self._walk.asked_hosts:
            reason = f"robots.txt asks for {self._site.delay:,.0f} s between two requests, too long to wait"
            if self._can_stay:
                self._stay(reason)
            else:
                self._none("skipped", reason)
            return
        self.asked = True
        self._walk.asked_hosts.add(host_of(url))
        delay = max(self._walk.options.delay, self._site.delay)
        try:
            answer = self._walk.fetcher.get(url, headers=self._conditions(), delay=delay, wanted=wanted)
        except FetchError as error:
            if error.temporary and self._can_stay:
                self._stay(str(error))
            else:
                self._none("unreadable", str(error))
            return
        self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        if answer.status == 304 and self._has_old:
            self._stay(None, answer)
        elif 300 <= answer.status < 400:
            self._redirected(answer)
        elif answer.status != 200:
            if answer.temporary and self._can_stay:
                self._stay(answer.said)
            else:
                gone = ", it is gone" if answer.status in (404, 410) else ""
                self._none("unreadable", f"{answer.said}{gone}")
        elif answer.stopped:
            self._none("skipped", answer.stopped)
        elif not answer.body.strip():
            self._none("empty", "the answer has no body")
        else:
            self._keep(answer)

    def _redirected(self, answer: Answer) -> None:
        place = answer.location
        if place is None:
            self._none("unreadable", f"redirects to {answer.header('location')!r:.200}, which is no web page")
            return
        if self._step.hops >= MOST_REDIRECTS:
            self._none("unreadable", f"more than {MOST_REDIRECTS} redirects")
            return
        inside = not self._walk.follow or self._step.seed or self._walk.within(place)
        reason = f"redirects to {place}{'' if inside else ', which is on another host'}"
        self._none("skipped", reason, extra={"onward": place} if inside else None)
        if inside:
            self._redirect_to(place)

    def _redirect_to(self, place: str) -> None:
        self.onward.append(replace(self._step, url=place, hops=self._step.hops + 1, changed=None, entry=None))

    def _keep(self, answer: Answer) -> None:
        signals = [*consent.header_signals(answer.headers, answer.url, answer.at), *self._site.signals(answer.url)]
        facts = Facts(url=answer.url, fetched_at=answer.at)
        found: list[str] = []
        if answer.mime in HTML or (not answer.mime and answer.body.lstrip()[:1] == b"<"):
            text, _ = page.decode(answer.body, answer.header("content-type"))
            tree = page.parse(text)
            facts = replace(page.page_facts(text, answer.url, tree, answer.at), fetched_at=answer.at)
            signals += consent.from_page(facts.consent)
            if self._wants_links() and not _nofollow(answer):
                found = page.links(text, answer.url, tree)
        own = consent.facts_of(signals, self._former())
        facts = replace(facts, optout=own.optout, consent=own.consent)
        extra: dict[str, Any] = {"bytes": len(answer.body)}
        extra |= {
            key: value
            for key, value in (
                ("etag", answer.header("etag")),
                ("modified", answer.header("last-modified")),
                ("changed", self._step.changed),
            )
            if value
        }
        if self._wants_links():
            extra["links"] = found
        self._walk.store.put(
            self._step.url,
            warcfile.exchange(answer, self._step.url),
            facts=facts,
            kind="warc",
            identity=warcfile.payload_identity(answer.body, answer.header("content-type") or ""),
            suffix=".warc.gz",
            extra=extra,
        )
        self.size = len(answer.body)
        self._lead_on(found)

    def _takes_entry(self) -> bool:
        """Keep the text that a feed gave in full; its page need not be asked for."""
        if self._step.entry is None:
            return False
        given = json.loads(self._step.entry)
        entry = Entry(**{**given["entry"], "published": parse_date(given["entry"]["published"])})
        if entry.html is None:
            return False
        url, at = self._step.url, parse_date(given["at"]) or self._walk.fetcher.now()
        title = (entry.title or "").replace("&", "&amp;").replace("<", "&lt;")
        text = f"<!doctype html><html><head><title>{title}</title></head><body><article>{entry.html}</article></body></html>"
        body = text.encode("utf-8", "replace")
        known = page.page_facts(text, url)
        licence = normalise(entry.licence)
        named = ", ".join(part for part in (entry.author, given["feed"]) if part) or None
        own = consent.facts_of([*self._site.signals(url), *_signals(given["signals"])], self._former())
        facts = replace(
            known,
            url=url,
            title=entry.title,
            fetched_at=at,
            published_at=entry.published,
            license_id=licence or known.license_id,
            license_source="feed" if licence else known.license_source,
            license_conf=0.8 if licence else known.license_conf,
            attribution=named,
            optout=own.optout | known.optout,
            consent=(*own.consent, *known.consent),
        )
        data = warcfile.resource(url, body, "text/html; charset=utf-8", at, url, given["place"])
        identity = warcfile.payload_identity(body, "feed")
        self._walk.store.put(
            url,
            data,
            facts=facts,
            kind="warc",
            identity=identity,
            suffix=".warc.gz",
            extra={"changed": FROM_FEED, "bytes": len(body)},
        )
        self.size = len(body)
        return True

    def _stay(self, reason: str | None, answer: Answer | None = None) -> None:
        """Keep what is known of it; what its site says about training is asked for all the same.

        Args:
            reason: why it could not be seen; None when it was, and is as it was.
            answer: that says that it did not change.
        """
        old = self._old
        assert old is not None
        if not self._has_old:
            self._walk.store.keep(self._step.url, note=old.reason)
            self._redirect_to(old.extra["onward"])
            return
        if reason:
            self._walk.kept_old.append(f"{self._step.url}: {reason}")
        signals = consent.from_page(old.facts.consent)
        signals += consent.header_signals(answer.headers, answer.url, answer.at) if answer else []
        # A site that cannot be asked has not taken back what it said.
        signals += _of_site(old) if self._site.unreachable else self._site.signals(self._step.url)
        own = consent.facts_of(signals, old.facts.consent)
        facts = replace(old.facts, optout=own.optout, consent=own.consent)
        extra = {**old.extra, "changed": self._step.changed} if self._step.changed and not reason else old.extra
        note = f"not seen this time, kept from before: {reason}" if reason else None
        self._walk.store.keep(self._step.url, extra, facts=facts, note=note)
        self.size = int(old.extra.get("bytes", old.size_bytes))
        self._lead_on(old.extra.get("links", []))

    def _none(self, outcome: str, reason: str, facts: Facts = Facts(), extra: dict[str, Any] | None = None) -> None:
        facts = replace(facts, url=self._step.url)
        self._walk.store.outcome(self._step.url, outcome, reason, facts=facts, extra=extra)

    def _wants_links(self) -> bool:
        return self._walk.follow and self._step.depth < self._walk.options.depth

    def _lead_on(self, found: list[str]) -> None:
        if self._wants_links():
            hosts = self._walk.hosts()
            self.onward += [Step(url, self._step.depth + 1) for url in found if _named(host_of(url), hosts)]

    def _conditions(self) -> list[tuple[str, str]]:
        """Headers that ask for the page only if it changed; not where its links are wanted and were never read."""
        old = self._old
        if old is None or not self._has_old or (self._wants_links() and "links" not in old.extra):
            return []
        asked = []
        if etag := old.extra.get("etag"):
            asked.append(("If-None-Match", etag))
        if modified := old.extra.get("modified"):
            asked.append(("If-Modified-Since", modified))
        return asked

    def _former(self) -> tuple[Any, ...]:
        return tuple(self._old.facts.consent) if self._old is not None else ()


def _named(host: str, hosts: list[str]) -> bool:
    return any(host == one.lower() or (one.startswith("*.") and host.endswith(one[1:].lower())) for one in hosts)


def _of_site(old: Place) -> list[Signal]:
    return _signals([one for one in old.facts.consent if one.get("where") not in ("header", "meta")])


def _signals(evidence: Any) -> list[Signal]:
    return [
        Signal(int(one["bit"]), one["where"], one["text"], one.get("url"), parse_date(one.get("at")))
        for one in evidence
    ]


def _nofollow(answer: Answer) -> bool:
    value = (answer.header("x-robots-tag") or "").lower()
    return any(tag in value.replace(",", " ").split() for tag in ("nofollow", "none"))
