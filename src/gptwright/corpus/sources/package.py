"""Files inside an installed Python distribution, with the licence that its metadata state."""

import fnmatch
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gptwright.core.errors import UserError
from gptwright.corpus.licences import package_licence
from gptwright.corpus.sources.base import Listing, Request, SourceFile

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


def listing(request: Request) -> Listing:
    """List the files of ``package:DIST[/glob]``.

    Raises:
        UserError: it is not installed, or no file matches.
    """
    name, rest = request.name, request.rest
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
    found = Listing(name, "package", licence=package_licence(distribution))
    for file in _package_files(distribution, pattern):
        path = Path(str(distribution.locate_file(file)))
        try:
            info = path.stat()
        except OSError as error:
            found.put_aside(str(file), "unreadable", f"the package lists it, but it is not there: {error.strerror}")
            continue
        found.files.append(SourceFile(str(file), path, info.st_size, info.st_mtime_ns))
    if not found.files:
        wanted = f"no file matches {pattern!r}" if pattern else "no text, JSON, YAML, CSV, HTML or parquet file"
        raise UserError(
            f"{wanted} in the package {distribution_name} {distribution.version}",
            where=where,
            fix="Correct the part after the /",
        )
    return found


def _package_files(distribution: importlib.metadata.Distribution, pattern: str) -> Iterator[PurePosixPath]:
    """Files that match, with or without their top folder; without a pattern, those whose suffix promises text."""
    patterns = alternatives(pattern)
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


def alternatives(pattern: str) -> list[str]:
    """``a/{b,c}.txt`` as ``a/b.txt`` and ``a/c.txt``."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [one for choice in braces[1].split(",") for one in alternatives(before + choice + after)]
