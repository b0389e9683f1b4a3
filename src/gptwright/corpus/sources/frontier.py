"""The pages that a gathering has before it: a table on disk, so that neither a million links nor a killed process matters.

Pages come by depth; within a depth the hosts take turns, so that while one host's delay runs another is asked. The order depends on
nothing but the order in which pages were found.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from gptwright.corpus.sources.urls import host_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS page (
  url TEXT PRIMARY KEY, depth INTEGER NOT NULL, turn INTEGER NOT NULL, found INTEGER NOT NULL, hops INTEGER NOT NULL, seed INTEGER NOT NULL,
  host TEXT NOT NULL, changed TEXT, entry TEXT, state INTEGER NOT NULL DEFAULT 0, asked INTEGER NOT NULL DEFAULT 0,
  size INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS next_page ON page (state, depth, turn, found);
CREATE TABLE IF NOT EXISTS turns (host TEXT, depth INTEGER, n INTEGER NOT NULL, PRIMARY KEY (host, depth));
CREATE TABLE IF NOT EXISTS setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Step:
    """A page to visit. ``hops``: redirects that led to it; ``seed``: whether it is one of the first pages, or such a one redirects to it;
    ``changed``: when a sitemap says that it changed; ``entry``: JSON of what a feed says of it."""

    url: str
    depth: int = 0
    hops: int = 0
    seed: bool = False
    changed: str | None = None
    entry: str | None = None


class Frontier:
    """The pages of one gathering.

    Args:
        path: the database file.
        number: the gathering's; a file that another gathering left is begun anew.
    """

    def __init__(self, path: Path, number: int) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = self._open()
        if self.setting("number") not in (None, str(number)):
            self.remove()
            self._db = self._open()
        self.put("number", str(number))

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=30)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA secure_delete=ON")  # entries of feeds are texts
        db.execute("PRAGMA synchronous=NORMAL")  # a lost last step is made again
        db.executescript(_SCHEMA)
        return db

    def close(self) -> None:
        self._db.close()

    def remove(self) -> None:
        """Close it and delete its file."""
        self._db.close()
        for ending in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + ending).unlink(missing_ok=True)

    def setting(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM setting WHERE key=?", (key,)).fetchone()
        return str(row[0]) if row else None

    def put(self, key: str, value: str) -> None:
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO setting VALUES (?,?)", (key, value))

    def add(self, steps: list[Step], settled: dict[str, str] | None = None) -> None:
        """Add pages that are not known yet, all or none, and settings with them."""
        with self._db:
            self._add(steps)
            self._db.executemany("INSERT OR REPLACE INTO setting VALUES (?,?)", list((settled or {}).items()))

    def _add(self, steps: list[Step]) -> None:
        for step in steps:
            host = host_of(step.url)
            if self._db.execute("SELECT 1 FROM page WHERE url=?", (step.url,)).fetchone():
                continue
            self._db.execute("INSERT INTO turns VALUES (?,?,1) ON CONFLICT DO UPDATE SET n=n+1", (host, step.depth))
            turn = self._db.execute("SELECT n FROM turns WHERE host=? AND depth=?", (host, step.depth)).fetchone()[0]
            count = self._db.execute("SELECT coalesce(max(rowid), 0) FROM page").fetchone()[0]
            self._db.execute(
                "INSERT INTO page (url, depth, turn, found, hops, seed, host, changed, entry) VALUES (?,?,?,?,?,?,?,?,?)",
                (step.url, step.depth, turn, count, step.hops, step.seed, host, step.changed, step.entry),
            )

    def next(self) -> Step | None:
        """The page that comes next."""
        row = self._db.execute(
            "SELECT url, depth, hops, seed, changed, entry FROM page WHERE state=0 ORDER BY depth, turn, found LIMIT 1"
        ).fetchone()
        return Step(row[0], row[1], row[2], bool(row[3]), row[4], row[5]) if row else None

    def done(self, step: Step, onward: list[Step], *, asked: bool, size: int) -> None:
        """A page is behind us; what it leads to is before us.

        Args:
            step: the page.
            onward: pages that it leads to.
            asked: whether its server was asked for it.
            size: bytes of its text that are kept.
        """
        with self._db:
            self._add(onward)
            self._db.execute(
                "UPDATE page SET state=1, asked=?, size=?, entry=NULL WHERE url=?", (asked, size, step.url)
            )

    def asked(self) -> tuple[int, int]:
        """How many pages were asked for, and the bytes that were kept of them."""
        row = self._db.execute("SELECT coalesce(sum(asked), 0), coalesce(sum(size), 0) FROM page").fetchone()
        return int(row[0]), int(row[1])

    def waiting(self) -> int:
        """How many pages are before us."""
        return int(self._db.execute("SELECT count(*) FROM page WHERE state=0").fetchone()[0])

    def seed_hosts(self) -> set[str]:
        """The hosts of the first pages and of what they redirect to."""
        return {row[0] for row in self._db.execute("SELECT DISTINCT host FROM page WHERE seed=1")}
