"""What every kind of source speaks: its files in order, what is known of each, and what became of those that are no candidates."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from gptwright.core.ledger import FileRow
from gptwright.corpus.config import SourceConfig
from gptwright.corpus.licences import Licence

UNKNOWN = Licence(None, "none", 0.0, "not said anywhere")

# Who is believed about a licence: the person, then what stands in the text, then what stands around it.
TRUST = (
    "none",
    "cc-link",
    "page-metadata",
    "feed",
    "row",
    "package-metadata",
    "repository",
    "sidecar",
    "spdx-header",
    "user-asserted",
)


@dataclass(frozen=True)
class Facts:
    """What is known of a file or document beyond its bytes. ``None`` and 0 mean: not known.

    ``optout`` is a bit set of ``consent.OptOut``; ``consent`` holds the evidence, one mapping a signal that was seen.
    Times are UTC.
    """

    url: str | None = None
    title: str | None = None
    fetched_at: datetime | None = None
    published_at: datetime | None = None
    license_id: str | None = None
    license_source: str = "none"  # one of TRUST
    license_conf: float = 0.0
    attribution: str | None = None
    optout: int = 0
    consent: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The facts that are known, as JSON values."""
        out: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value != one.default:
                out[one.name] = value.isoformat() if isinstance(value, datetime) else value
        if "consent" in out:
            out["consent"] = [dict(signal) for signal in self.consent]
        return out

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Facts":
        """The facts that ``to_json`` wrote."""
        known: dict[str, Any] = dict(value)
        for name in ("fetched_at", "published_at"):
            if name in known:
                known[name] = datetime.fromisoformat(known[name])
        if "consent" in known:
            known["consent"] = tuple(known["consent"])
        return cls(**known)

    def __or__(self, other: "Facts") -> "Facts":
        """These facts, completed by others: of two licences the more trusted (of equals the other's, which is nearer), of opt-outs all."""
        merged = {one.name: getattr(self, one.name) or getattr(other, one.name) for one in fields(self)}
        best = max((other, self), key=lambda f: (f.license_id is not None, TRUST.index(f.license_source)))
        for name in ("license_id", "license_source", "license_conf"):
            merged[name] = getattr(best, name)
        merged["attribution"] = best.attribution or merged["attribution"]
        merged["optout"] = self.optout | other.optout
        seen = [_statement(signal) for signal in self.consent]
        merged["consent"] = (*self.consent, *(one for one in other.consent if _statement(one) not in seen))
        return Facts(**merged)


def _statement(signal: Mapping[str, Any]) -> dict[str, Any]:
    """A consent signal without the time it was seen: seen twice, it is one."""
    return {key: value for key, value in signal.items() if key != "at"}


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: its place in the source (POSIX, or a URL), where it stands here, and what a look from outside says.

    ``raw_hash`` is given where it is known without reading; ``kind`` names the reader where the file's content cannot.
    """

    locator: str
    path: Path
    size_bytes: int
    mtime_ns: int
    facts: Facts = Facts()
    raw_hash: str | None = None
    kind: str | None = None


@dataclass
class Listing:
    """The files of a source in order, those that are no candidates with the reason, and its licence."""

    name: str
    kind: str
    files: list[SourceFile] = field(default_factory=list)
    set_aside: list[FileRow] = field(default_factory=list)
    licence: Licence = UNKNOWN

    def put_aside(self, locator: str, outcome: str, reason: str, size: int = 0, mtime_ns: int = 0) -> None:
        self.set_aside.append(FileRow(self.name, locator, outcome, reason, size, mtime_ns, "", 0))


@dataclass(frozen=True)
class Request:
    """One source to list or to gather.

    Args:
        name: its name in the configuration.
        config: its section.
        rest: the uri without its scheme; for pages, feeds and the like the whole URL.
        scheme: the uri's scheme; "" for a folder or file.
        root: the project folder, which relative paths start from.
        raw: the folder for what is gathered, ``work/corpus/raw/<name>``.
    """

    name: str
    config: SourceConfig
    rest: str
    scheme: str
    root: Path
    raw: Path

    @property
    def where(self) -> str:
        """How errors name the source."""
        return f"corpus.sources.{self.name}"
