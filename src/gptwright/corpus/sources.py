"""Sources: which files they consist of and the terms they come under. Nothing is read here but folders and package metadata."""

import errno
import fnmatch
import importlib.metadata
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.core.ledger import FileRow
from gptwright.corpus.config import CorpusConfig, SourceConfig
from gptwright.corpus.licences import Licence, package_licence

_SCHEME = re.compile(r"([a-z][a-z0-9+]+):")
UNKNOWN = Licence(None, "none", 0.0, "not said anywhere")
_PACKAGE_DATA = (
    ".json",
    ".jsonl",
    ".ndjson",
    ".txt",
    ".md",
    ".rst",
    ".yml",
    ".yaml",
    ".csv",
    ".tsv",
    ".parquet",
    ".html",
    ".htm",
)


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: its place in the source (POSIX), where it stands here, and what a look from outside says."""

    locator: str
    path: Path
    size_bytes: int
    mtime_ns: int


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


def list_source(name: str, config: SourceConfig, root: Path) -> Listing:
    """List a source.

    Args:
        name: the source's name in the configuration.
        config: its section.
        root: the project folder, which relative paths start from.

    Raises:
        UserError: there is no such folder or package, nothing in it, or the kind of source is unknown.
    """
    scheme = _SCHEME.match(config.uri)
    if scheme and scheme[1] == "package":
        listing = _list_package(name, config.uri.removeprefix("package:"))
    elif scheme and len(scheme[1]) > 1 and not (root / config.uri).exists():
        raise UserError(
            f"sources of the kind {scheme[1]}: cannot be read by this version",
            where=f"corpus.sources.{name}",
            fix="Name a folder, a file, or package:DIST[/glob]",
        )
    else:
        listing = _list_path(name, root / Path(config.uri).expanduser())
    if config.license or config.attribution:
        own = listing.licence
        listing.licence = Licence(
            config.license or own.id,
            "user-asserted" if config.license else own.source,
            1.0 if config.license else own.confidence,
            "said in the configuration" if config.license else own.evidence,
            config.attribution or own.attribution,
        )
    listing.files.sort(key=lambda file: file.locator)
    return listing


def fingerprint_sources(config: CorpusConfig, root: Path) -> dict[str, str]:
    """A cheap fingerprint of each source: names, sizes and times of its files, none of them opened.

    A source that cannot be listed has the fingerprint "missing".
    """
    prints: dict[str, str] = {}
    for name, source in config.sources.items():
        try:
            listing = list_source(name, source, root)
        except UserError:
            prints[name] = "missing"
            continue
        rows = [[file.locator, file.size_bytes, file.mtime_ns] for file in listing.files]
        prints[name] = b2_json([rows, [listing.licence.id, listing.licence.attribution]])
    return prints


def _list_path(name: str, path: Path) -> Listing:
    where = f"corpus.sources.{name}"
    if path.is_file():
        listing = Listing(name, "file")
        info = path.stat()
        listing.files.append(SourceFile(path.name, path, info.st_size, info.st_mtime_ns))
        return listing
    if not path.is_dir():
        raise UserError(f"no such folder or file: {path}", where=where, fix="Make it, or correct uri")
    listing = Listing(name, "folder")
    _walk(listing, path, "", (os.path.realpath(path),))
    if not listing.files:
        inside = f" but {len(listing.set_aside)} that cannot be used" if listing.set_aside else ""
        raise UserError(f"no files in the folder {path}{inside}", where=where, fix="Put texts into it, or correct uri")
    return listing


def _walk(listing: Listing, folder: Path, prefix: str, chain: tuple[str, ...]) -> None:
    """Depth first by name. Links to folders are followed, unless they lead back into a folder that is being read."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        listing.put_aside(prefix or ".", "unreadable", f"the folder cannot be opened: {error.strerror}")
        return
    for entry in entries:
        locator = prefix + entry.name
        if entry.name.startswith("."):
            listing.put_aside(locator, "skipped", "hidden (its name starts with a dot)")
            continue
        try:
            info = entry.stat()
        except OSError as error:
            loop = (
                "symbolic link loop"
                if error.errno == errno.ELOOP
                else "broken link"
                if entry.is_symlink()
                else error.strerror
            )
            listing.put_aside(locator, "unreadable", str(loop))
            continue
        if stat.S_ISDIR(info.st_mode):
            deeper = chain
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if any(real == seen or seen.startswith(real + os.sep) for seen in chain) or real.startswith(
                    chain[0] + os.sep
                ):
                    listing.put_aside(locator, "skipped", "symbolic link into this same source; read there once")
                    continue
                deeper = (*chain, real)
            _walk(listing, Path(entry.path), locator + "/", deeper)
        elif stat.S_ISREG(info.st_mode):
            listing.files.append(SourceFile(locator, Path(entry.path), info.st_size, info.st_mtime_ns))
        else:
            listing.put_aside(locator, "skipped", "not a regular file")


def _list_package(name: str, rest: str) -> Listing:
    distribution_name, _, pattern = rest.partition("/")
    where = f"corpus.sources.{name}"
    try:
        distribution = importlib.metadata.distribution(distribution_name)
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise UserError(
            f"the package {distribution_name!r} is not installed",
            where=where,
            fix=f"Run: pip install {distribution_name}",
        ) from error
    listing = Listing(name, "package", licence=package_licence(distribution))
    for file in _package_files(distribution, pattern):
        path = Path(str(distribution.locate_file(file)))
        try:
            info = path.stat()
        except OSError as error:
            listing.put_aside(str(file), "unreadable", f"the package lists it, but it is not there: {error.strerror}")
            continue
        listing.files.append(SourceFile(str(file), path, info.st_size, info.st_mtime_ns))
    if not listing.files:
        wanted = f"no file matches {pattern!r}" if pattern else "no text, JSON, YAML, CSV, HTML or parquet file"
        raise UserError(
            f"{wanted} in the package {distribution_name} {distribution.version}",
            where=where,
            fix="Correct the part after the /",
        )
    return listing


def _package_files(distribution: importlib.metadata.Distribution, pattern: str) -> Iterator[PurePosixPath]:
    """Files that match, with or without their top folder; without a pattern, those whose suffix promises text."""
    patterns = _alternatives(pattern)
    for file in sorted(PurePosixPath(str(f)) for f in distribution.files or []):
        top = file.parts[0]
        if ".." in file.parts or top.endswith((".dist-info", ".egg-info")):
            continue
        inner = PurePosixPath(*file.parts[1:]) if len(file.parts) > 1 else file
        if pattern:
            if any(fnmatch.fnmatchcase(str(place), one) for place in (file, inner) for one in patterns):
                yield file
        elif file.suffix.lower() in _PACKAGE_DATA and not {"test", "tests"} & set(file.parts):
            yield file


def _alternatives(pattern: str) -> list[str]:
    """``a/{b,c}.txt`` as ``a/b.txt`` and ``a/c.txt``."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [one for choice in braces[1].split(",") for one in _alternatives(before + choice + after)]
