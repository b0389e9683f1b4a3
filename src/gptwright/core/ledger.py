"""The ledger: every source, file, run, artifact and evaluation of a project, with parents. All lineage is asked of it.

It lives in ``work/`` and can be rebuilt by doing the work again; what cannot be rebuilt is in the control store.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gptwright.core.errors import UserError
from gptwright.core.files import disk_full, says_disk_is_full
from gptwright.core.records import Artifact, Evaluation, Event, FileRow, Run, SourceRow

__all__ = ["Artifact", "Evaluation", "Event", "FileRow", "Ledger", "Run", "SourceRow", "now"]

TUNING = "finetune:"  # before the names of sources that are data of fine-tuning and no part of the corpus

# Each entry takes the schema one version up; PRAGMA user_version counts those applied. Never edit one that was released.
_MIGRATIONS = (
    """
    CREATE TABLE source (name TEXT PRIMARY KEY, kind TEXT NOT NULL, uri TEXT NOT NULL, license TEXT, license_source TEXT NOT NULL,
      attribution TEXT, contains_personal_data TEXT NOT NULL, pii TEXT NOT NULL);
    CREATE TABLE file (source TEXT NOT NULL REFERENCES source(name) ON DELETE CASCADE, locator TEXT NOT NULL, outcome TEXT NOT NULL,
      reason TEXT, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, raw_hash TEXT NOT NULL, documents INTEGER NOT NULL,
      PRIMARY KEY (source, locator)) WITHOUT ROWID;
    CREATE TABLE run (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, stage TEXT NOT NULL, state TEXT NOT NULL, config TEXT NOT NULL,
      meta TEXT NOT NULL DEFAULT '{}', started_at TEXT NOT NULL, finished_at TEXT);
    CREATE TABLE event (id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES run(id), kind TEXT NOT NULL, data TEXT NOT NULL,
      at TEXT NOT NULL);
    CREATE TABLE artifact (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, stage TEXT NOT NULL, name TEXT NOT NULL, path TEXT NOT NULL,
      hash TEXT NOT NULL, key TEXT NOT NULL, meta TEXT NOT NULL, created_at TEXT NOT NULL, run_id TEXT REFERENCES run(id));
    CREATE INDEX artifact_kind ON artifact(kind, id);
    CREATE TABLE parent (child INTEGER NOT NULL REFERENCES artifact(id), parent INTEGER NOT NULL REFERENCES artifact(id),
      PRIMARY KEY (child, parent)) WITHOUT ROWID;
    CREATE TABLE evaluation (id INTEGER PRIMARY KEY, model_id TEXT NOT NULL, model_hash TEXT NOT NULL, suite TEXT NOT NULL,
      metric TEXT NOT NULL, value REAL NOT NULL, low REAL, high REAL, n INTEGER NOT NULL, unit TEXT NOT NULL,
      dataset_hash TEXT NOT NULL, detail TEXT NOT NULL, created_at TEXT NOT NULL);
    CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
)


class Ledger:
    """Open it with ``Ledger.open``; use it as a context manager. One writer at a time (the stage lock), any number of readers."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    @classmethod
    def open(cls, path: str | Path, readonly: bool = False) -> Self:
        """Open or create a ledger and bring its schema up to date.

        Raises:
            UserError: it is missing (readonly), newer than this gptwright, or not a ledger.
        """
        file = Path(path)
        nothing = UserError("nothing was made here yet", where=str(file), fix="Run: gptwright run")
        if readonly and not file.is_file():
            raise nothing
        file.parent.mkdir(parents=True, exist_ok=True)
        uri = file.absolute().as_uri() + ("?mode=ro" if readonly else "")
        db = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        try:
            db.execute("PRAGMA foreign_keys=ON")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(_MIGRATIONS):
                raise UserError(
                    "this ledger was written by a newer gptwright", where=str(file), fix="Upgrade gptwright"
                )
            if readonly and version == 0:  # a file, but no tables: its maker was stopped before it wrote them
                raise nothing
            if not readonly:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                db.execute("PRAGMA secure_delete=ON")  # what is deleted must not stay readable in free pages
                _migrate(db)
        except sqlite3.DatabaseError as error:
            db.close()
            if says_disk_is_full(error):
                raise disk_full(file) from error
            raise UserError(
                f"not a readable ledger: {error}", where=str(file), fix="Move it away and run again; work/ is rebuilt"
            ) from error
        except UserError:
            db.close()
            raise
        return cls(db, file)

    def copied(self) -> Self:
        """A copy in memory: what is written to it, nobody else sees, and it is gone at the end."""
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        self._db.backup(db)
        return type(self)(db, self.path)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # After a failed write SQLite has rolled back by itself; asking again would hide the reason.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # Artifacts and their lineage

    def add_artifact(
        self,
        kind: str,
        *,
        stage: str,
        name: str,
        path: str,
        hash: str,
        key: str = "",
        parents: Sequence[int] = (),
        meta: dict[str, Any] | None = None,
        run_id: str | None = None,
    ) -> Artifact:
        """Record something made, with the artifacts it was made from."""
        with self.transaction():
            cursor = self._db.execute(
                "INSERT INTO artifact(kind, stage, name, path, hash, key, meta, created_at, run_id) VALUES (?,?,?,?,?,?,?,?,?)",
                (kind, stage, name, path, hash, key, _json(meta or {}), now(), run_id),
            )
            identity = int(cursor.lastrowid or 0)
            self._db.executemany(
                "INSERT OR IGNORE INTO parent VALUES (?,?)", [(identity, parent) for parent in parents]
            )
        return self.artifact(identity)

    def artifact(self, identity: int) -> Artifact:
        """The artifact with this id (KeyError if none)."""
        row = self._db.execute("SELECT * FROM artifact WHERE id=?", (identity,)).fetchone()
        if row is None:
            raise KeyError(identity)
        return _artifact(row)

    def find(self, kind: str, name: str) -> Artifact | None:
        """The newest artifact of this kind and name."""
        row = self._db.execute(
            "SELECT * FROM artifact WHERE kind=? AND name=? ORDER BY id DESC LIMIT 1", (kind, name)
        ).fetchone()
        return _artifact(row) if row else None

    def latest(self, kind: str) -> Artifact | None:
        """The newest artifact of this kind."""
        row = self._db.execute("SELECT * FROM artifact WHERE kind=? ORDER BY id DESC LIMIT 1", (kind,)).fetchone()
        return _artifact(row) if row else None

    def latest_of_stage(self, stage: str) -> Artifact | None:
        """The newest artifact that a stage made."""
        row = self._db.execute("SELECT * FROM artifact WHERE stage=? ORDER BY id DESC LIMIT 1", (stage,)).fetchone()
        return _artifact(row) if row else None

    def artifacts(self, kind: str | None = None) -> list[Artifact]:
        """All artifacts, or those of a kind, oldest first."""
        rows = self._db.execute("SELECT * FROM artifact WHERE ?1 IS NULL OR kind=?1 ORDER BY id", (kind,))
        return [_artifact(row) for row in rows]

    def amend(self, identity: int, *, key: str | None = None, meta: dict[str, Any] | None = None) -> None:
        """Add to what is said of an artifact whose content was erased from, or whose terms became known. Its hash stays."""
        with self.transaction():
            row = self._db.execute("SELECT meta FROM artifact WHERE id=?", (identity,)).fetchone()
            # Not SQLite's json_patch: it takes a null for "remove this key", and a licence that is not known is a null.
            merged = {**(json.loads(row[0]) if row is not None else {}), **(meta or {})}
            self._db.execute(
                "UPDATE artifact SET key=coalesce(?, key), meta=? WHERE id=?", (key, _json(merged), identity)
            )

    def compact(self) -> None:
        """Rewrite the file without its free pages and empty its journal: nothing that was deleted can be read in it."""
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def parents(self, identity: int) -> list[Artifact]:
        """What an artifact was made from."""
        rows = self._db.execute(
            "SELECT a.* FROM parent p JOIN artifact a ON a.id=p.parent WHERE p.child=? ORDER BY a.id", (identity,)
        )
        return [_artifact(row) for row in rows]

    def ancestors(self, identity: int) -> list[Artifact]:
        """Everything an artifact descends from, oldest first."""
        rows = self._db.execute(
            """WITH RECURSIVE up(id) AS (SELECT parent FROM parent WHERE child=? UNION SELECT p.parent FROM parent p JOIN up ON p.child=up.id)
               SELECT a.* FROM artifact a JOIN up ON a.id=up.id ORDER BY a.id""",
            (identity,),
        )
        return [_artifact(row) for row in rows]

    # Sources and their files

    def set_sources(self, rows: Sequence[SourceRow], prefix: str = "") -> None:
        """Make these the project's sources; rows of files of sources that are gone go with them.

        Args:
            rows: the sources.
            prefix: TUNING for the data of fine-tuning, which are a set of their own; "" for all others.
        """
        with self.transaction():
            keep = [row.name for row in rows]
            marks = ",".join("?" * len(keep))
            alike = "LIKE" if prefix else "NOT LIKE"
            self._db.execute(f"DELETE FROM source WHERE name NOT IN ({marks}) AND name {alike} '{TUNING}%'", keep)
            self._db.executemany(
                """INSERT INTO source VALUES (?,?,?,?,?,?,?,?) ON CONFLICT(name) DO UPDATE SET kind=excluded.kind, uri=excluded.uri,
                   license=excluded.license, license_source=excluded.license_source, attribution=excluded.attribution,
                   contains_personal_data=excluded.contains_personal_data, pii=excluded.pii""",
                [tuple(vars(row).values()) for row in rows],
            )

    def sources(self) -> list[SourceRow]:
        """The project's sources by name."""
        return [SourceRow(**dict(row)) for row in self._db.execute("SELECT * FROM source ORDER BY name")]

    def set_files(self, source: str, rows: Sequence[FileRow]) -> None:
        """Make these the outcomes of a source's files."""
        with self.transaction():
            self._db.execute("DELETE FROM file WHERE source=?", (source,))
            self._db.executemany(
                "INSERT INTO file VALUES (?,?,?,?,?,?,?,?)", [tuple(vars(row).values()) for row in rows]
            )

    def files(self, source: str | None = None) -> list[FileRow]:
        """Outcomes of all files, or of one source's, by locator."""
        rows = self._db.execute("SELECT * FROM file WHERE ?1 IS NULL OR source=?1 ORDER BY source, locator", (source,))
        return [FileRow(**dict(row)) for row in rows]

    # Runs and what was decided in them

    def start_run(self, run_id: str, stage: str, config: dict[str, Any]) -> None:
        """Open a run, or open it again after it stopped: its configuration stays what it was."""
        self._db.execute(
            """INSERT INTO run(id, seq, stage, state, config, started_at) VALUES (?, (SELECT coalesce(max(seq),0)+1 FROM run), ?, 'running', ?, ?)
               ON CONFLICT(id) DO UPDATE SET state='running', finished_at=NULL""",
            (run_id, stage, _json(config), now()),
        )

    def finish_run(self, run_id: str, state: str, meta: dict[str, Any] | None = None) -> None:
        """Close a run as done, failed or interrupted; what is said of it adds to what was said before."""
        self._db.execute(
            "UPDATE run SET state=?, meta=json_patch(meta, ?), finished_at=? WHERE id=?",
            (state, _json(meta or {}), now(), run_id),
        )

    def runs(self, stage: str | None = None) -> list[Run]:
        """All runs, oldest first."""
        return [
            _run(row)
            for row in self._db.execute("SELECT * FROM run WHERE ?1 IS NULL OR stage=?1 ORDER BY seq", (stage,))
        ]

    def run(self, run_id: str) -> Run | None:
        """The run with this id."""
        row = self._db.execute("SELECT * FROM run WHERE id=?", (run_id,)).fetchone()
        return _run(row) if row else None

    def add_event(self, run_id: str, kind: str, data: dict[str, Any]) -> None:
        """Write down a decision before it acts, durably."""
        self._db.execute(
            "INSERT INTO event(run_id, kind, data, at) VALUES (?,?,?,?)", (run_id, kind, _json(data), now())
        )

    def events(self, run_id: str, kind: str | None = None) -> list[Event]:
        """Decisions of a run, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM event WHERE run_id=?1 AND (?2 IS NULL OR kind=?2) ORDER BY id", (run_id, kind)
        )
        return [Event(row["id"], row["run_id"], row["kind"], json.loads(row["data"]), row["at"]) for row in rows]

    # Evaluations and settings

    def add_evaluation(
        self,
        model_id: str,
        model_hash: str,
        suite: str,
        metric: str,
        value: float,
        *,
        low: float | None = None,
        high: float | None = None,
        n: int = 0,
        unit: str = "",
        dataset_hash: str = "",
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Record a measurement of a model."""
        self._db.execute(
            """INSERT INTO evaluation(model_id, model_hash, suite, metric, value, low, high, n, unit, dataset_hash, detail, created_at)
               VALUES (?,?,?,?,?,?,?,?,?,?,?,?)""",
            (
                model_id,
                model_hash,
                suite,
                metric,
                value,
                low,
                high,
                n,
                unit,
                dataset_hash,
                _json(detail or {}),
                now(),
            ),
        )

    def evaluations(self, model_id: str | None = None, suite: str | None = None) -> list[Evaluation]:
        """Measurements, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM evaluation WHERE (?1 IS NULL OR model_id=?1) AND (?2 IS NULL OR suite=?2) ORDER BY id",
            (model_id, suite),
        )
        return [Evaluation(**{**dict(row), "detail": json.loads(row["detail"])}) for row in rows]

    def get_setting(self, key: str, default: Any = None) -> Any:
        """A value fixed for this project, such as the held-out share."""
        row = self._db.execute("SELECT value FROM setting WHERE key=?", (key,)).fetchone()
        return json.loads(row[0]) if row else default

    def set_setting(self, key: str, value: Any) -> None:
        """Fix a JSON value for this project."""
        self._db.execute(
            "INSERT INTO setting VALUES (?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
            (key, _json(value)),
        )


def _json(value: Any) -> str:
    """JSON as SQLite's functions read it: numbers that are none, which they do not know, are null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))


def now() -> str:
    """UTC as ISO 8601 with seconds, for people; nothing is ordered by it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _migrate(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        for script in _MIGRATIONS[version:]:
            for statement in script.split(";"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version={len(_MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _artifact(row: sqlite3.Row) -> Artifact:
    return Artifact(**{**dict(row), "meta": json.loads(row["meta"])})


def _run(row: sqlite3.Row) -> Run:
    return Run(**{**dict(row), "config": json.loads(row["config"]), "meta": json.loads(row["meta"])})
