"""Sources of the web: ``https:`` a page, ``crawl:`` hosts, ``sitemap:`` and ``feed:`` the pages that a list names."""

import json
import re
from dataclasses import asdict
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.core.interrupt import stop_on_signals
from gptwright.core.progress import progress, say
from gptwright.corpus.sources.base import Request
from gptwright.corpus.sources.consent import header_signals
from gptwright.corpus.sources.crawl import FROM_FEED, Walk
from gptwright.corpus.sources.feeds import MOST_BYTES, NotAList, Pages, read_list
from gptwright.corpus.sources.fetch import MOST_REDIRECTS, Answer, Fetcher, FetchError
from gptwright.corpus.sources.frontier import Frontier, Step
from gptwright.corpus.sources.raw import RawStore
from gptwright.corpus.sources.robots import Sites
from gptwright.corpus.sources.urls import canonical, host_of, origin

_LISTS_DEEP = 3  # a sitemap index may name indexes; no sane site goes further
_CODE = 1  # raised when pages would be taken otherwise than before


def gather(request: Request) -> None:
    """Bring the source's pages into its raw store; only what changed is taken, and what is gone goes.

    Args:
        request: the source. Its options are ``config.crawl``, its policy ``config.consent``.

    Raises:
        UserError: the uri holds no URL, a list cannot be read, or no page gave a file.
        Interrupted: stopped; the next call goes on.
    """
    with stop_on_signals() as stop, Fetcher(request.config.crawl, stop=lambda: bool(stop)) as fetcher:
        gather_with(request, fetcher)


def gather_with(request: Request, fetcher: Fetcher) -> None:
    """``gather`` with a client of one's own."""
    options = request.config.crawl
    urls = _urls(request)
    store = RawStore(request.raw)
    number = store.begin(b2_json([_CODE, request.scheme, urls, options.model_dump(mode="json")]))
    frontier = Frontier(request.raw / "frontier.sqlite", number)
    walk = Walk(
        fetcher, Sites(fetcher, request.raw), store, frontier, options, request.scheme == "crawl", stop=fetcher.stop
    )
    lists: list[str] = []
    try:
        if frontier.setting("seeded") is None:
            steps, lists = _seeds(request, urls, walk)
            frontier.add(steps, {"seeded": "yes", "lists": json.dumps(lists)})
        lists = json.loads(frontier.setting("lists") or "[]")
        with progress(request.name, unit="pages") as bar:
            walk.run(bar)
        if not store.files():
            first = next((f": {place.locator}: {place.reason}" for place in store.places()), "")
            frontier.remove()  # the next build asks again
            raise UserError(
                f"nothing was gathered from it{first}", where=request.where, fix="Correct uri, or its options"
            )
        about = {"uri": request.config.uri, "lists": lists, **_policy(request), **walk.summary()}
        store.finish(about=about)
        frontier.remove()
    finally:
        frontier.close()
    _report(request, about)


def _urls(request: Request) -> list[str]:
    """The URLs in the uri, one or several; https where no scheme is named."""
    found = []
    for one in re.split(r"[\s,]+", request.rest.strip()):
        bare = request.scheme not in ("http", "https") and not re.search(r"://|@|^$", one)
        url = canonical(f"https://{one.removeprefix('//')}" if bare else one)
        if url is None:
            raise UserError(
                f"no web address: {one!r}",
                where=f"{request.where}.uri",
                fix=f"Write {request.scheme if request.scheme not in ('http', 'https') else ''}"
                f"{':' if request.scheme not in ('http', 'https') else ''}https://example.org/",
            )
        found.append(url)
    return list(dict.fromkeys(found))


def _seeds(request: Request, urls: list[str], walk: Walk) -> tuple[list[Step], list[str]]:
    """The pages to begin with, and the lists that named them."""
    if request.scheme not in ("sitemap", "feed"):
        return [Step(url, seed=True) for url in urls], []
    steps: dict[str, Step] = {}
    seen: dict[str, None] = {}
    for url in urls:
        waiting = [(one, 0) for one in _lists_of(request, url, walk)]
        while waiting and len(steps) < walk.options.max_pages:
            place, depth = waiting.pop(0)
            if place in seen:
                continue
            seen[place] = None
            try:
                answer, pages = _list(place, walk)
            except (FetchError, NotAList) as error:
                if depth == 0:
                    raise UserError(
                        f"{place}: {error}", where=request.where, fix="Correct uri, or try again later"
                    ) from error
                walk.store.outcome(place, "unreadable", f"a list of pages that was not read: {error}")
                continue
            if pages.kind == "index":
                if depth < _LISTS_DEEP:
                    waiting += [(entry.url, depth + 1) for entry in pages.entries]
                continue
            for step in _steps(pages, answer, place, walk):
                steps.setdefault(step.url, step)
    if request.scheme == "feed":
        # A feed shows its newest entries only: what it no longer shows is asked for at its own place, and stays while it is there.
        for old in walk.store.places():
            if old.file is not None:
                changed = FROM_FEED if old.extra.get("changed") == FROM_FEED else None
                steps.setdefault(old.locator, Step(old.locator, seed=True, changed=changed))
    return list(steps.values()), list(seen)


def _lists_of(request: Request, url: str, walk: Walk) -> list[str]:
    """A list's own URL; of a bare host the sitemaps that its robots.txt names, else /sitemap.xml."""
    if request.scheme == "sitemap" and url == f"{origin(url)}/":
        named = [one for place in walk.sites.of(url).sitemaps if (one := canonical(place, url))]
        return named or [f"{origin(url)}/sitemap.xml"]
    return [url]


def _list(url: str, walk: Walk) -> tuple[Answer, Pages]:
    def permitted(place: str) -> None:
        site = walk.sites.of(place)
        if refusal := site.refuses(place):
            raise FetchError(refusal, temporary=site.unreachable)

    permitted(url)
    delay = max(walk.options.delay, walk.sites.of(url).delay)
    answer = walk.fetcher.get(
        url,
        most=MOST_BYTES,
        redirects=MOST_REDIRECTS,
        delay=delay,
        permitted=permitted,
        seconds=walk.options.timeout * 4,
    )
    if answer.status != 200:
        raise FetchError(answer.said, temporary=answer.temporary)
    return answer, read_list(answer.body, answer.url)


def _steps(pages: Pages, answer: Answer, place: str, walk: Walk) -> list[Step]:
    if pages.kind == "sitemap":
        # A sitemap speaks for its own host (sitemaps.org, "location"); others only where the person named them.
        hosts = {host_of(place), host_of(answer.url)}
        inside, outside = [], 0
        for entry in pages.entries:
            if host_of(entry.url) in hosts or (walk.options.hosts and walk.within(entry.url)):
                inside.append(Step(entry.url, seed=True, changed=entry.changed))
            else:
                outside += 1
        if outside:
            walk.store.outcome(
                f"{place}#other-hosts", "skipped", f"{outside:,} pages on other hosts; name them in hosts"
            )
        return inside
    steps = []
    signals = [one.to_json() for one in header_signals(answer.headers, answer.url, answer.at)]
    for entry in pages.entries:
        given = asdict(entry)
        given["published"] = entry.published.isoformat() if entry.published else None
        given["licence"] = entry.licence or pages.licence
        note = {"entry": given, "feed": pages.title, "place": place, "at": answer.at.isoformat(), "signals": signals}
        steps.append(Step(entry.url, seed=True, entry=json.dumps(note) if entry.html else None))
    return steps


def _policy(request: Request) -> dict[str, Any]:
    consent = request.config.consent
    return {"consent": {"policy": consent.policy, "reason": consent.reason}}


def _report(request: Request, about: dict[str, Any]) -> None:
    if kept := about.get("kept_unseen"):
        say(
            f"{request.name}: {kept} pages could not be seen this time and stay as they were, such as {about['kept_unseen_first'][0]}"
        )
    if optouts := about["opt_outs"]:
        counts = ", ".join(f"{name} {count}" for name, count in optouts.items())
        kept_or = "kept, as you decided" if request.config.consent.policy == "override" else "not trained on"
        say(f"{request.name}: pages whose publishers ask not to train on them ({counts}) are {kept_or}")
