"""The raw store of one gathered source: bytes as they came, by their hash, and an index of what became of each place.

work/corpus/raw/<source>/index.sqlite    one row a place (URL, path in a repository): outcome, file, facts, and what helps to ask again
work/corpus/raw/<source>/ab/ab12...      the bytes

A gathering calls ``begin``, then for each place ``put``, ``keep`` (seen again, unchanged) or ``outcome``, then ``finish``, which drops what
was not seen. Every call is durable, so that a gathering that was killed goes on: ``done`` says which places it has behind it.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write
from gptwright.core.hashing import b2, b2_file
from gptwright.corpus.licences import Licence
from gptwright.corpus.sources.base import UNKNOWN, Facts, Listing, Request, SourceFile

ERASED = "erased on demand"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS place (
  locator TEXT PRIMARY KEY, outcome TEXT NOT NULL, reason TEXT, file TEXT, identity TEXT, size INTEGER NOT NULL, kind TEXT,
  facts TEXT NOT NULL, extra TEXT NOT NULL, round INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Place:
    """What is known of one place. ``extra`` is the gatherer's own: entity tags, links found, depth."""

    locator: str
    outcome: str  # ok | empty | unreadable | skipped
    reason: str | None
    file: Path | None
    identity: str | None
    size_bytes: int
    kind: str | None
    facts: Facts
    extra: dict[str, Any] = field(default_factory=dict)


class RawStore:
    """Raw bytes of a source that were gathered from elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "index.sqlite"
        self._shared: sqlite3.Connection | None = None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Keep the index open for the calls of the block: opening it costs more than most of them. For one thread alone."""
        with self._open(write=True) as db:
            self._shared = db
            try:
                yield
            finally:
                self._shared = None

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        if self._shared is not None:
            with self._shared:
                yield self._shared
            return
        if write:
            self.folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=30)) as db:
            if write:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")  # a lost last place is fetched again
                db.execute("PRAGMA secure_delete=ON")  # what is deleted must not stay readable in free pages
                db.executescript(_SCHEMA)
            with db:
                yield db

    def _setting(self, key: str) -> str | None:
        if not self._path.exists():
            return None
        with self._open() as db:
            row = db.execute("SELECT value FROM setting WHERE key=?", (key,)).fetchone()
        return str(row[0]) if row else None

    @property
    def finished(self) -> bool:
        """Whether a gathering ever came to its end, and none was begun since."""
        return self._setting("fingerprint") is not None and self._setting("open") != "yes"

    def fingerprint(self) -> str | None:
        """Changes with any file, outcome or fact; None before the first gathering is finished."""
        return self._setting("fingerprint")

    def begin(self, plan: str = "") -> int:
        """Open a gathering, or go on with the one that was stopped; another ``plan`` (a hash of the settings) begins anew.

        Returns:
            The gathering's number, which is the same when it goes on.
        """
        with self._open(write=True) as db:
            known = dict(db.execute("SELECT key, value FROM setting"))
            if known.get("open") == "yes" and known.get("plan") == plan:
                return int(known["round"])
            db.executemany(
                "INSERT OR REPLACE INTO setting VALUES (?,?)",
                [("open", "yes"), ("plan", plan), ("round", str(int(known.get("round", 0)) + 1))],
            )
            return self._round(db)

    def done(self) -> set[str]:
        """The places that the open gathering has behind it."""
        with self._open(write=True) as db:
            return {row[0] for row in db.execute("SELECT locator FROM place WHERE round=?", (self._round(db),))}

    def files(self) -> int:
        """How many places the open gathering has files of."""
        with self._open(write=True) as db:
            row = db.execute("SELECT count(*) FROM place WHERE round=? AND file IS NOT NULL", (self._round(db),))
            return int(row.fetchone()[0])

    def get(self, locator: str) -> Place | None:
        """What is known of a place, from this gathering or a former one."""
        if not self._path.exists():
            return None
        with self._open() as db:
            row = db.execute(f"{_SELECT} WHERE locator=?", (locator,)).fetchone()
        return self._place(row) if row else None

    def places(self) -> Iterator[Place]:
        """All places by locator."""
        if not self._path.exists():
            return
        with self._open() as db:
            for row in db.execute(f"{_SELECT} ORDER BY locator"):
                yield self._place(row)

    def put(
        self,
        locator: str,
        data: bytes | Path,
        *,
        facts: Facts = Facts(),
        kind: str | None = None,
        identity: str | None = None,
        suffix: str = "",
        extra: Mapping[str, Any] | None = None,
        note: str | None = None,
    ) -> Place:
        """Store the bytes of a place.

        Args:
            locator: URL or POSIX path, unique in the source.
            data: the bytes, or a file whose bytes are copied.
            facts: what is known of it. When the content is the one that is known, the time it was first fetched stays.
            kind: the reader, where the content cannot tell.
            identity: hash of what matters, when the bytes also hold what does not (a WARC's date); None hashes the bytes.
            suffix: ending of the file's name, such as ".html".
            extra: JSON values for the gatherer's own use.
            note: something to say about a place that is ok.
        """
        identity = identity or (b2(data) if isinstance(data, bytes) else b2_file(data))
        old = self.get(locator)
        if old is not None and old.identity == identity and old.file is not None and old.file.exists():
            former = Facts(fetched_at=old.facts.fetched_at, published_at=old.facts.published_at)
            facts = Facts(**{**vars(facts), **{k: v for k, v in vars(former).items() if v is not None}})
            file, size = old.file, old.size_bytes
        else:
            name = identity.removeprefix("b2:")[:40] + suffix
            file = self.folder / name[:2] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as out:
                if isinstance(data, bytes):
                    out.write(data)
                else:
                    with open(data, "rb") as source:
                        shutil.copyfileobj(source, out, 1 << 20)
            size = file.stat().st_size
        self._write(locator, "ok", note, file, identity, size, kind, facts, extra)
        return Place(locator, "ok", note, file, identity, size, kind, facts, dict(extra or {}))

    def keep(
        self,
        locator: str,
        extra: Mapping[str, Any] | None = None,
        *,
        facts: Facts | None = None,
        note: str | None = None,
    ) -> None:
        """Say that a place's bytes stay as they were.

        Args:
            locator: of a place that is known.
            extra: the gatherer's values, when they changed.
            facts: what is known of it, when that changed: a site may forbid today what it allowed yesterday.
            note: why it stays although it was not seen.
        """
        changed: dict[str, Any] = {"reason": note}
        if extra is not None:
            changed["extra"] = json.dumps(dict(extra))
        if facts is not None:
            changed["facts"] = json.dumps(facts.to_json())
        with self._open(write=True) as db:
            changed["round"] = self._round(db)
            columns = ", ".join(f"{name}=?" for name in changed)
            db.execute(f"UPDATE place SET {columns} WHERE locator=?", (*changed.values(), locator))

    def outcome(
        self, locator: str, outcome: str, reason: str, *, facts: Facts = Facts(), extra: Mapping[str, Any] | None = None
    ) -> None:
        """Say that a place gave no file: empty, unreadable or skipped, and why."""
        self._write(locator, outcome, reason, None, None, 0, None, facts, extra)

    def _write(
        self, locator: str, outcome: str, reason: str | None, file: Path | None, identity: str | None, size: int,
        kind: str | None, facts: Facts, extra: Mapping[str, Any] | None,
    ) -> None:  # fmt: skip
        place = file.relative_to(self.folder).as_posix() if file is not None else None
        values = (
            locator,
            outcome,
            reason,
            place,
            identity,
            size,
            kind,
            json.dumps(facts.to_json()),
            json.dumps(dict(extra or {})),
        )
        with self._open(write=True) as db:
            db.execute("INSERT OR REPLACE INTO place VALUES (?,?,?,?,?,?,?,?,?,?)", (*values, self._round(db)))

    def finish(self, *, licence: Licence = UNKNOWN, about: Mapping[str, Any] | None = None) -> None:
        """Close the gathering: drop what it did not see, delete bytes that nothing names, fix the fingerprint.

        Args:
            licence: of the source as a whole, such as a repository's.
            about: JSON values about the source, such as the commit.
        """
        with self._open(write=True) as db:
            db.execute("DELETE FROM place WHERE round<>?", (self._round(db),))
            said = {"licence": json.dumps(list(vars(licence).values())), "about": json.dumps(dict(about or {}))}
            db.executemany("INSERT OR REPLACE INTO setting VALUES (?,?)", list(said.items()))
            ends = {"fingerprint": self._digest(db), "open": "no"}
            db.executemany("INSERT OR REPLACE INTO setting VALUES (?,?)", list(ends.items()))
            wanted = {row[0] for row in db.execute("SELECT file FROM place WHERE file IS NOT NULL")}
        for path in sorted(self.folder.glob("??/*")):
            if path.relative_to(self.folder).as_posix() not in wanted:
                path.unlink()

    def erase(self, locator: str) -> None:
        """Delete a place's bytes for good. The place stays, as skipped, under its name; a later gathering may ask for it again."""
        place = self.get(locator)
        if place is None:
            return
        with self._open(write=True) as db:
            db.execute(
                "UPDATE place SET outcome='skipped', reason=?, file=NULL, identity=NULL, size=0, facts='{}', extra='{}'"
                " WHERE locator=?",
                (ERASED, locator),
            )
            shared = db.execute("SELECT 1 FROM place WHERE file=?", (_name(place, self.folder),)).fetchone()
            digest = self._digest(db)
            db.execute("INSERT OR REPLACE INTO setting VALUES ('fingerprint', ?)", (digest,))
        if place.file is not None and not shared:
            place.file.unlink(missing_ok=True)
        # What a gathering that was stopped still has before it may hold texts, such as a feed's entries; it finds them anew.
        for path in self.folder.glob("frontier.sqlite*"):
            path.unlink()
        with closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def renew(self, locator: str) -> None:
        """Take a place's file as it is now, after rows were emptied in it."""
        place = self.get(locator)
        if place is not None and place.file is not None:
            with self._open(write=True) as db:
                values = (b2_file(place.file), place.file.stat().st_size, locator)
                db.execute("UPDATE place SET identity=?, size=? WHERE locator=?", values)
                db.execute("INSERT OR REPLACE INTO setting VALUES ('fingerprint', ?)", (self._digest(db),))

    @staticmethod
    def _digest(db: sqlite3.Connection) -> str:
        rows = db.execute("SELECT locator, outcome, identity, kind, facts FROM place ORDER BY locator")
        licence = db.execute("SELECT value FROM setting WHERE key='licence'").fetchone()
        return b2(json.dumps([[list(row) for row in rows], licence[0] if licence else None]))

    def about(self) -> dict[str, Any]:
        """What the gatherer said about the source as a whole."""
        return dict(json.loads(self._setting("about") or "{}"))

    def listing(self, request: Request) -> Listing:
        """The store's files as the source's.

        Raises:
            UserError: nothing was gathered yet, or nothing was found.
        """
        if self._setting("fingerprint") is None:
            raise UserError("not gathered yet", where=request.where, fix="Run: gptwright data build")
        licence = Licence(*json.loads(self._setting("licence") or "[]")) if self._setting("licence") else UNKNOWN
        found = Listing(request.name, request.scheme, licence=licence)
        for place in self.places():
            if place.file is None:
                found.put_aside(place.locator, place.outcome, place.reason or "", place.size_bytes)
                continue
            try:
                info = place.file.stat()
            except OSError as error:
                found.put_aside(place.locator, "unreadable", f"its bytes are gone from the raw store: {error.strerror}")
                continue
            found.files.append(
                SourceFile(
                    place.locator, place.file, info.st_size, info.st_mtime_ns, place.facts, place.identity, place.kind
                )
            )
        if not found.files and not any(row.reason == ERASED for row in found.set_aside):
            first = next((f": {row.locator}: {row.reason}" for row in found.set_aside), "")
            raise UserError(
                f"nothing was gathered from it{first}", where=request.where, fix="Correct uri, or its options"
            )
        return found

    @staticmethod
    def _round(db: sqlite3.Connection) -> int:
        row = db.execute("SELECT value FROM setting WHERE key='round'").fetchone()
        return int(row[0]) if row else 0

    def _place(self, row: tuple[Any, ...]) -> Place:
        locator, outcome, reason, file, identity, size, kind, facts, extra = row
        path = self.folder / file if file is not None else None
        known = Facts.from_json(json.loads(facts))
        return Place(locator, outcome, reason, path, identity, size, kind, known, json.loads(extra))


def _name(place: Place, folder: Path) -> str | None:
    return place.file.relative_to(folder).as_posix() if place.file is not None else None


_SELECT = "SELECT locator, outcome, reason, file, identity, size, kind, facts, extra FROM place"
