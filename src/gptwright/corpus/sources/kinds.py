"""The kinds of sources by the scheme of their uri, and what can be done with any of them: gather, list, fingerprint.

A kind is a module with ``listing(request) -> Listing``, which reads no network and opens no file. One whose texts lie elsewhere
also has ``gather(request) -> None``, which brings them into the source's raw store; its listing is then the store's.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.corpus.config import CorpusConfig, SourceConfig
from gptwright.corpus.licences import Licence
from gptwright.corpus.sources.base import Listing, Request
from gptwright.corpus.sources.raw import RawStore

_SCHEME = re.compile(r"([a-z][a-z0-9+]+):")
KINDS = {
    "": "folder",
    "package": "package",
    "http": "web",
    "https": "web",
    "sitemap": "web",
    "feed": "web",
    "crawl": "web",
    "warc": "warc",
    "git": "git",
    "wiki": "wiki",
    "sql": "sql",
    "hf": "hub",
}


def request_for(name: str, config: SourceConfig, root: Path, raw: Path | None = None) -> Request:
    """The request that names a source.

    Args:
        name: the source's name in the configuration.
        config: its section.
        root: the project folder.
        raw: where all sources' raw stores stand; None is ``root/work/corpus/raw``.

    Raises:
        UserError: no source is of this kind.
    """
    uri = config.uri
    scheme = _SCHEME.match(uri)
    place = (raw or root / "work" / "corpus" / "raw") / name
    # One letter is a Windows drive; and a file may be named like a scheme.
    if scheme is None or len(scheme[1]) == 1 or (root / uri).exists():
        return Request(name, config, uri, "", root, place)
    if scheme[1] not in KINDS:
        raise UserError(
            f"sources of the kind {scheme[1]}: are not known",
            where=f"corpus.sources.{name}",
            fix=f"Name a folder or file, or one of {', '.join(f'{kind}:' for kind in KINDS if kind)}",
        )
    rest = uri if scheme[1] in ("http", "https") else uri[scheme.end() :]
    return Request(name, config, rest, scheme[1], root, place)


def _module(request: Request) -> ModuleType:
    return importlib.import_module(f"gptwright.corpus.sources.{KINDS[request.scheme]}")


def list_source(name: str, config: SourceConfig, root: Path, raw: Path | None = None) -> Listing:
    """List a source's files in order of their locators, with the licence that the configuration or the source states.

    Raises:
        UserError: it is not there, holds nothing, was not gathered, or the kind is unknown.
    """
    request = request_for(name, config, root, raw)
    module = _module(request)
    listing: Listing = (
        RawStore(request.raw).listing(request) if _is_gathered(request, module) else module.listing(request)
    )
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


def _is_gathered(request: Request, module: ModuleType) -> bool:
    """Whether a source's texts lie in its raw store. A kind that reads both places says so by ``remote(request)``."""
    if hasattr(module, "remote"):
        return bool(module.remote(request))
    return hasattr(module, "gather")


def gather_sources(config: CorpusConfig, root: Path, raw: Path | None = None, *, again: bool) -> Iterator[str]:
    """Bring what lies elsewhere into the raw stores; yields the name of each source when it is done.

    Args:
        config: the sources.
        root: the project folder.
        raw: where all sources' raw stores stand.
        again: also those that were gathered before; only what changed is taken, and what is gone is dropped.

    Raises:
        UserError: a source cannot be reached or refuses.
        Interrupted: stopped; what was taken so far stays, and the next call goes on.
    """
    for name, source in config.sources.items():
        request = request_for(name, source, root, raw)
        module = _module(request)
        if _is_gathered(request, module) and (again or not RawStore(request.raw).finished):
            module.gather(request)
            yield name


def fingerprint_sources(config: CorpusConfig, root: Path, raw: Path | None = None) -> dict[str, str]:
    """A cheap fingerprint of each source: names, sizes and times of its files, none of them opened, no network asked.

    A source that cannot be listed has the fingerprint "missing".
    """
    prints: dict[str, str] = {}
    for name, source in config.sources.items():
        try:
            request = request_for(name, source, root, raw)
            if _is_gathered(request, _module(request)):
                prints[name] = b2_json([source.uri, RawStore(request.raw).fingerprint() or "not gathered"])
                continue
            listing = list_source(name, source, root, raw)
        except UserError:
            prints[name] = "missing"
            continue
        rows = [[file.locator, file.size_bytes, file.mtime_ns] for file in listing.files]
        prints[name] = b2_json([rows, [listing.licence.id, listing.licence.attribution]])
    return prints
