"""What a site says about being crawled: robots.txt and tdmrep.json, read once a day at most and kept beside the raw store.

robots.txt follows RFC 9309: an answer of 4xx allows, 5xx and no answer forbid, five redirects are followed, 500 KiB are read.
"""

import functools
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gptwright.corpus.sources.agents import TOKENS
from gptwright.corpus.sources.consent import OptOut, Signal, named_agents, robots_preferences, tdmrep_signals
from gptwright.corpus.sources.fetch import PRODUCT, Fetcher, FetchError
from gptwright.corpus.sources.urls import origin

ROBOTS_BYTES = 500 << 10
_TDMREP_BYTES = 256 << 10
_REDIRECTS = 5
_TDMREP = "/.well-known/tdmrep.json"
_OLDEST = timedelta(hours=24)
_SCHEMA = """CREATE TABLE IF NOT EXISTS site (
  origin TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL, robots TEXT NOT NULL, tdmrep TEXT, at TEXT NOT NULL)"""


@dataclass(frozen=True)
class Site:
    """A site's word.

    ``state`` is "rules" (robots.txt was read), "allow" (there is none) or "forbid" (it could not be read, which forbids all for now).
    """

    origin: str
    state: str
    reason: str
    robots: str
    tdmrep: str | None
    at: datetime

    @functools.cached_property
    def _rules(self) -> Any:
        from protego import Protego

        return Protego.parse(self.robots)

    @functools.cached_property
    def _named(self) -> frozenset[str]:
        return named_agents(self.robots)

    @property
    def place(self) -> str:
        """The URL of its robots.txt."""
        return f"{self.origin}/robots.txt"

    @property
    def unreachable(self) -> bool:
        """Whether all is forbidden only because robots.txt could not be read."""
        return self.state == "forbid"

    def refuses(self, url: str) -> str | None:
        """Why a page may not be asked for; None when it may."""
        if self.state == "forbid":
            return f"robots.txt could not be read ({self.reason}), which forbids the site for now"
        if self.state == "allow" or self._rules.can_fetch(url, PRODUCT):
            return None
        return f"robots.txt forbids it ({self.place})"

    @property
    def delay(self) -> float:
        """Seconds between two requests that it asks for."""
        if self.state != "rules":
            return 0.0
        asked = self._rules.crawl_delay(PRODUCT) or 0.0
        rate = self._rules.request_rate(PRODUCT)
        return float(max(asked, rate.seconds / rate.requests if rate else 0.0))

    @property
    def sitemaps(self) -> list[str]:
        """The sitemaps that it names."""
        return list(self._rules.sitemaps) if self.state == "rules" else []

    def signals(self, url: str) -> list[Signal]:
        """What it says about training on a page."""
        found: list[Signal] = []
        if self.state == "rules":
            if not self._rules.can_fetch(url, PRODUCT):
                text = f"Disallow for {PRODUCT if PRODUCT in self._named else '*'}"
                found.append(Signal(int(OptOut.ROBOTS_SELF), "robots.txt", text, self.place, self.at))
            shut = [token for token in TOKENS if token.lower() in self._named and not self._rules.can_fetch(url, token)]
            if shut:
                text = f"Disallow for {', '.join(shut)}"[:300]
                found.append(Signal(int(OptOut.ROBOTS_AI), "robots.txt", text, self.place, self.at))
            ours = PRODUCT if PRODUCT in self._named else "*"
            agents = {ours, *(token.lower() for token in TOKENS)}
            found += robots_preferences(self.robots, url, self.place, agents, self.at)
        if self.tdmrep:
            found += tdmrep_signals(self.tdmrep, url, f"{self.origin}{_TDMREP}", self.at)
        return found


class Sites:
    """The sites of a gathering, each asked once; what they said is good for 24 hours.

    Args:
        fetcher: the client.
        folder: where ``sites.sqlite`` stands.
        now: the time.
    """

    def __init__(self, fetcher: Fetcher, folder: Path, now: Callable[[], datetime] | None = None) -> None:
        self._fetcher, self._now = fetcher, now or fetcher.now
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "sites.sqlite"
        self._known: dict[str, Site] = {}
        with closing(sqlite3.connect(self._path)) as db, db:
            db.execute(_SCHEMA)

    def of(self, url: str) -> Site:
        """The word of the site that a page stands on."""
        place = origin(url)
        known = self._known.get(place) or self._kept(place)
        if known is None or self._now() - known.at > _OLDEST:
            known = self._ask(place)
            with closing(sqlite3.connect(self._path)) as db, db:
                row = (known.origin, known.state, known.reason, known.robots, known.tdmrep, known.at.isoformat())
                db.execute("INSERT OR REPLACE INTO site VALUES (?,?,?,?,?,?)", row)
        if len(self._known) > 256:
            self._known.clear()
        self._known[place] = known
        return known

    def _kept(self, place: str) -> Site | None:
        with closing(sqlite3.connect(self._path)) as db:
            row = db.execute("SELECT * FROM site WHERE origin=?", (place,)).fetchone()
        if row is None or row[1] == "forbid":  # a site that had a bad moment is asked again in the next gathering
            return None
        return Site(row[0], row[1], row[2], row[3], row[4], datetime.fromisoformat(row[5]))

    def _ask(self, place: str) -> Site:
        at = self._now()
        try:
            answer = self._fetcher.get(
                f"{place}/robots.txt", most=ROBOTS_BYTES, cut=True, redirects=_REDIRECTS, delay=0.0
            )
        except FetchError as error:
            if "redirects" in str(error):  # too many of them: as if there were none (RFC 9309 section 2.3.1.2)
                return Site(place, "allow", str(error), "", self._tdmrep(place), at)
            return Site(place, "forbid", str(error), "", None, at)
        if answer.temporary or not (answer.status == 200 or 300 <= answer.status < 500):
            return Site(place, "forbid", answer.said, "", None, at)
        if answer.status != 200:
            return Site(place, "allow", answer.said, "", self._tdmrep(place), at)
        text = answer.body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        if answer.cut:  # what was cut inside a line is no rule
            text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
        site = Site(place, "rules", "", text, None, at)
        if site.refuses(f"{place}{_TDMREP}"):
            return site
        return Site(place, "rules", "", text, self._tdmrep(place), at)

    def _tdmrep(self, place: str) -> str | None:
        try:
            answer = self._fetcher.get(f"{place}{_TDMREP}", most=_TDMREP_BYTES, redirects=_REDIRECTS)
        except FetchError:
            return None
        return answer.body.decode("utf-8", "replace") if answer.status == 200 else None
