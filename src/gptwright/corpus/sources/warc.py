"""``warc:`` archives of the web: files and globs here, or one to be brought from an https address.

An archive holds what its pages said of training when they were fetched. Sites may have changed their mind since: what robots.txt and its
kin say today is not asked here, and the card of a dataset made from an archive should say so.
"""

import glob
import os
from pathlib import Path

from gptwright.core.errors import UserError
from gptwright.core.files import TEMPORARY
from gptwright.core.hashing import b2_json
from gptwright.core.interrupt import stop_on_signals
from gptwright.core.progress import progress
from gptwright.corpus.sources.base import Facts, Listing, Request, SourceFile
from gptwright.corpus.sources.fetch import MOST_REDIRECTS, Fetcher, FetchError
from gptwright.corpus.sources.raw import RawStore
from gptwright.corpus.sources.robots import Sites
from gptwright.corpus.sources.urls import canonical

ENDINGS = (".warc", ".warc.gz", ".warc.zst", ".wet", ".wet.gz", ".wet.zst")
_SLOWEST = 50_000  # bytes a second; what is slower is not waited for
_RECHECK = "opt-outs are those that stand in the archive; robots.txt and its kin were not asked again"


def remote(request: Request) -> bool:
    """Whether the archive lies elsewhere."""
    return request.rest.startswith(("http://", "https://"))


def listing(request: Request) -> Listing:
    """List the archives of ``warc:PATH``: a file, a folder, or a glob.

    Raises:
        UserError: there is none.
    """
    place = Path(os.path.expanduser(request.rest))
    place = place if place.is_absolute() else request.root / place
    if place.is_dir():
        base = place
        paths = sorted(p for p in place.rglob("*") if p.is_file() and p.name.lower().endswith(ENDINGS))
    else:
        base = place.parent if place.is_file() else _fixed(place)
        paths = [place] if place.is_file() else sorted(Path(p) for p in glob.glob(str(place), recursive=True))
    found = Listing(request.name, "warc")
    for path in paths:
        if not path.is_file():
            continue
        locator = path.relative_to(base).as_posix()
        try:
            info = path.stat()
        except OSError as error:
            found.put_aside(locator, "unreadable", f"{error.strerror}")
            continue
        found.files.append(SourceFile(locator, path, info.st_size, info.st_mtime_ns, kind="warc"))
    if not found.files:
        raise UserError(
            f"no WARC file at {request.rest}",
            where=f"{request.where}.uri",
            fix="Write warc:PATH for a file, a folder, or a glob such as warc:crawl/*.warc.gz",
        )
    return found


def gather(request: Request) -> None:
    """Bring an archive from its address into the raw store; when it did not change, it stays.

    Raises:
        UserError: it cannot be had.
        Interrupted: stopped; the next call begins it again.
    """
    with stop_on_signals() as stop, Fetcher(request.config.crawl, stop=lambda: bool(stop)) as fetcher:
        gather_with(request, fetcher)


def gather_with(request: Request, fetcher: Fetcher) -> None:
    """``gather`` with a client of one's own."""
    url = canonical(request.rest)
    if url is None:
        raise UserError(f"no web address: {request.rest!r}", where=f"{request.where}.uri")
    store = RawStore(request.raw)
    most = request.config.crawl.max_total
    store.begin(b2_json([url, most]))
    old = store.get(url)
    has_old = old is not None and old.file is not None and old.file.exists()
    asked = [("If-None-Match", old.extra["etag"])] if old and has_old and old.extra.get("etag") else []
    partial = request.raw / f"{TEMPORARY}archive"
    sites = Sites(fetcher, request.raw)

    def permitted(place: str) -> None:
        site = sites.of(place)
        if refusal := site.refuses(place):
            raise FetchError(refusal, temporary=site.unreachable)

    try:
        permitted(url)
        with progress(request.name, unit="bytes") as bar, open(partial, "wb") as out:

            def sink(piece: bytes) -> None:
                out.write(piece)
                bar.advance(len(piece))

            answer = fetcher.get(
                url,
                most=most,
                headers=[*asked, ("Accept-Encoding", "identity")],
                redirects=MOST_REDIRECTS,
                permitted=permitted,
                sink=sink,
                seconds=max(request.config.crawl.timeout, most / _SLOWEST),
            )
        if answer.status == 304 and has_old:
            store.keep(url)
        elif answer.status == 200:
            etag = answer.header("etag")
            facts = Facts(fetched_at=answer.at)
            store.put(url, partial, facts=facts, kind="warc", suffix=".warc", extra={"etag": etag} if etag else {})
        else:
            raise FetchError(answer.said, temporary=answer.temporary)
    except FetchError as error:
        if not (has_old and error.temporary):
            raise UserError(f"{url}: {error}", where=request.where, fix="Correct uri, or try again later") from error
        store.keep(url, note=f"not seen this time, kept from before: {error}")
    finally:
        partial.unlink(missing_ok=True)
    consent = request.config.consent
    store.finish(
        about={
            "uri": request.config.uri,
            "consent": {"policy": consent.policy, "reason": consent.reason},
            "note": _RECHECK,
        }
    )


def _fixed(pattern: Path) -> Path:
    """The part of a glob before its first wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if any(mark in part for mark in "*?["):
            break
        parts.append(part)
    return Path(*parts)
